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
    """A class of torch.optim and the options that its name here implies, unless a spec says otherwise."""

    make: Callable[..., Optimizer]
    implied: Mapping[str, object] = field(default_factory=dict)


_OPTIMIZERS: dict[str, _Optimizer] = {
    "sgd": _Optimizer(torch.optim.SGD),
    "momentum": _Optimizer(torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": _Optimizer(torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": _Optimizer(torch.optim.Adam),
    "adamw": _Optimizer(torch.optim.AdamW),
    "rmsprop": _Optimizer(torch.optim.RMSprop),
    "adagrad": _Optimizer(torch.optim.Adagrad),
}


def build_optimizer(
    name: str, parameters: Iterable[torch.nn.Parameter], *, lr: float, **options: object
) -> Optimizer:
    """Build torch's optimizer `name` over all `parameters`, weight decay included.

    Args:
        name: a key of `bench.catalog.OPTIMIZERS`.
        parameters: of the model, at least one.
        lr: float >= 0, the base learning rate.
        options: those that `bench.catalog.OPTIMIZERS[name]` lists, by PyTorch's names and with PyTorch's defaults
            (momentum and nesterov imply a momentum of 0.9); None stands for the default.

    Raises:
        ValueError: an unknown name or option, or a value that torch refuses.

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
        return entry.make(parameters, lr=lr, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"optimizer {name}: torch refuses it; {error}. Change the option") from error


def _pair(name: str, betas: object) -> tuple[float, float]:
    """Return betas as torch wants them."""
    if not isinstance(betas, (list, tuple)) or len(betas) != 2:
        raise ValueError(
            f"optimizer {name}: betas: {betas!r} is not two numbers. Write them like [0.9, 0.999]"
        )
    return betas[0], betas[1]
