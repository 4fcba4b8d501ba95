"""torch's optimizers by the names and the options of `bench.catalog`, or a person's own by its factory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import Optimizer

from fusetune.bench.catalog import OPTIMIZERS
from fusetune.bench.errors import InputError
from fusetune.bench.workloads.factories import call_factory, load_factory
from fusetune.errors import InvalidValueError


@dataclass(frozen=True)
class _Optimizer:
    """A class of torch.optim, its fused twin in `kernels`, and the options that the name implies."""

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
        options: those that `fusetune.bench.catalog.OPTIMIZERS[name]` lists, by PyTorch's names and with PyTorch's
            defaults (momentum and nesterov imply a momentum of 0.9). None means the default.

    Raises:
        ValueError: an unknown name or option, a value that torch refuses, or an optimizer that has no fused twin.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = build_optimizer("nesterov", [weight], lr=0.1, weight_decay=5e-4)
        >>> optimizer.defaults["momentum"], optimizer.defaults["nesterov"]
        (0.9, True)
    """
    if name not in _OPTIMIZERS:
        raise InvalidValueError.unknown("optimizer", name, _OPTIMIZERS)
    given = {key: value for key, value in options.items() if value is not None}
    known = OPTIMIZERS[name].parameters
    for key in given:
        if key not in known:
            raise InvalidValueError.unknown(f"optimizer {name}", key, known)
    entry = _OPTIMIZERS[name]
    arguments: dict[str, Any] = {**entry.implied, **given}
    if "betas" in arguments:
        # YAML has lists where torch's classes and schedulers expect a tuple.
        arguments["betas"] = _pair(name, arguments["betas"])
    make = _maker(name, implementation)
    try:
        return make(parameters, lr=lr, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidValueError(
            f"optimizer {name}", "torch refuses it", str(error), "Change the option"
        ) from error


def build_optimizer_from_factory(
    reference: str,
    where: str,
    parameters: Iterable[torch.nn.Parameter],
    *,
    lr: float,
    options: Mapping[str, object],
) -> Optimizer:
    """Build an optimizer with a person's own class or function, called as f(parameters, lr=..., **options).

    Args:
        reference: "package.module:Class", a class or a function.
        where: the place in the spec that names it, for the errors.
        parameters: of the model, at least one. Given by position, as a list.
        lr: float >= 0, the base learning rate.
        options: the other keys of the spec's mapping, unchanged.

    Raises:
        InputError: as `load_factory` and `call_factory`. A TypeError or ValueError of the factory's own. A result that
            is no torch.optim.Optimizer, steps none of the parameters, keeps no `lr` in its groups, or needs a closure.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = build_optimizer_from_factory(
        ...     "torch.optim:NAdam", "train.optimizer", [weight], lr=0.1, options={"momentum_decay": 0.01}
        ... )
        >>> optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum_decay"]
        (0.1, 0.01)
    """
    factory, given = load_factory(reference, where), list(parameters)
    try:
        optimizer = call_factory(factory, where, {"lr": lr, **options}, given)
    except (TypeError, ValueError) as error:
        raise InputError(
            where,
            f"'{reference}' refuses what it is given",
            f"{type(error).__name__}: {error}",
            "Change its keys",
        ) from error
    if not isinstance(optimizer, Optimizer):
        kind = type(optimizer).__name__
        raise InputError(
            where, f"'{reference}' returned a {kind}", "an optimizer is a torch.optim.Optimizer", "Return one"
        )
    _check_own_optimizer(optimizer, where, f"the optimizer of '{reference}'", given)
    return optimizer


def _check_own_optimizer(
    optimizer: Optimizer, where: str, name: str, parameters: Iterable[torch.nn.Parameter]
) -> None:
    """Refuse an optimizer that the training loop cannot use."""
    if any("lr" not in group for group in optimizer.param_groups):
        raise InputError(
            where,
            f"{name} keeps no 'lr' in its parameter groups, where schedules set it",
            to_do="Pass lr on to Optimizer.__init__",
        )
    known = {id(parameter) for parameter in parameters}
    if not any(id(parameter) in known for group in optimizer.param_groups for parameter in group["params"]):
        raise InputError(
            where,
            f"{name} has none of the model's parameters",
            to_do="Give it those that the factory is given",
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise InputError(
            where,
            f"{name} needs a closure at each step",
            "the training loop has none to give",
            "Use one whose step() needs none",
        )


def _maker(name: str, implementation: str) -> Callable[..., Optimizer]:
    entry = _OPTIMIZERS[name]
    if implementation == "torch":
        return entry.make
    if entry.fused is None:
        known = ", ".join(sorted(key for key, other in _OPTIMIZERS.items() if other.fused))
        raise InvalidValueError(
            f"optimizer {name}", "has no fused implementation", f"known: {known}", "Use implementation: torch"
        )
    from fusetune import kernels  # here, because it needs Triton

    try:
        fused: Callable[..., Optimizer] = getattr(kernels, entry.fused)
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise InputError(
            "train.implementation",
            "fused needs Triton, which is not installed",
            "Triton is published for Linux",
            "Run pip install triton, or use implementation: torch",
        ) from None
    return fused


def _pair(name: str, betas: object) -> tuple[float, float]:
    if not isinstance(betas, (list, tuple)) or len(betas) != 2:
        raise InvalidValueError(
            f"optimizer {name}: betas", f"{betas!r} is not two numbers", to_do="Write them like [0.9, 0.999]"
        )
    return betas[0], betas[1]
