"""torch's optimizers by the names and the options of `bench.catalog`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import Optimizer

from bench.catalog import OPTIMIZERS
from bench.errors import unknown_name


@dataclass(frozen=True)
class _Optimizer:
    """A class of torch.optim, its twin in `kernels`, and the options that the name implies unless a spec differs."""

    make: Callable[..., Optimizer]
    fused: str | None
    implied: Mapping[str, object] = field(default_factory=dict)


_OPTIMIZERS: dict[str, _Optimizer] = {
    "sgd": _Optimizer(torch.optim.SGD, "FusedSGD"),
    "momentum": _Optimizer(torch.optim.SGD, "FusedSGD", {"momentum": 0.9}),
    "nesterov": _Optimizer(torch.optim.SGD, "FusedSGD", {"momentum": 0.9, "nesterov": True}),
    "adam": _Optimizer(torch.optim.Adam, "FusedAdam"),
    "adamw": _Optimizer(torch.optim.AdamW, "FusedAdamW"),
    "rmsprop": _Optimizer(torch.optim.RMSprop, None),
    "adagrad": _Optimizer(torch.optim.Adagrad, None),
}


def build_optimizer(
    name: str,
    parameters: Iterable[torch.nn.Parameter],
    *,
    lr: float,
    implementation: str = "torch",
    **options: object,
) -> Optimizer:
    """Build the optimizer `name` over all `parameters`, weight decay included.

    Args:
        name: a key of `bench.catalog.OPTIMIZERS`.
        parameters: of the model, at least one.
        lr: float >= 0, the base learning rate.
        implementation: `torch`, or `fused` for its twin in `kernels`.
        options: those that `bench.catalog.OPTIMIZERS[name]` lists, by PyTorch's names and with PyTorch's defaults
            (momentum and nesterov imply a momentum of 0.9); None stands for the default.

    Raises:
        ValueError: an unknown name or option, a value that torch refuses, or an optimizer that has no fused twin.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = build_optimizer("nesterov", [weight], lr=0.1, weight_decay=5e-4)
        >>> optimizer.defaults["momentum"], optimizer.defaults["nesterov"]
        (0.9, True)
    """
    if name not in _OPTIMIZERS:
        raise ValueError(str(unknown_name("optimizer", name, _OPTIMIZERS)))
    given = {key: value for key, value in options.items() if value is not None}
    known = OPTIMIZERS[name].parameters
    for key in given:
        if key not in known:
            raise ValueError(str(unknown_name(f"optimizer {name}", key, known)))
    entry = _OPTIMIZERS[name]
    arguments: dict[str, Any] = {**entry.implied, **given}
    if "betas" in arguments:
        # YAML has lists where torch's classes and schedulers expect a tuple.
        arguments["betas"] = _pair(name, arguments["betas"])
    try:
        return _maker(name, implementation)(parameters, lr=lr, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"optimizer {name}: torch refuses it; {error}. Change the option") from error


def _maker(name: str, implementation: str) -> Callable[..., Optimizer]:
    """Return the class to build."""
    entry = _OPTIMIZERS[name]
    if implementation == "torch":
        return entry.make
    if entry.fused is None:
        known = ", ".join(sorted(key for key, other in _OPTIMIZERS.items() if other.fused))
        raise ValueError(
            f"optimizer {name}: has no fused implementation; known: {known}. Use implementation: torch"
        )
    import kernels  # here, because it needs triton

    fused: Callable[..., Optimizer] = getattr(kernels, entry.fused)
    return fused


def _pair(name: str, betas: object) -> tuple[float, float]:
    """Return betas as torch wants them."""
    if not isinstance(betas, (list, tuple)) or len(betas) != 2:
        raise ValueError(
            f"optimizer {name}: betas: {betas!r} is not two numbers. Write them like [0.9, 0.999]"
        )
    return betas[0], betas[1]
