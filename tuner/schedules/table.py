"""Learning-rate schedules by name: their parameters, and the function of the step that a spec describes.

A spec counts in epochs, so that it has the same meaning at every batch size. The functions count in steps.
`build_schedule` checks the parameters, converts `*_epochs` to `*_steps` and puts an optional linear warmup before the
schedule. No torch is imported, so listing and checking schedules is instant.

To add a schedule, write its function in `tuner.schedules.functions` and its entry in `SCHEDULES`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from fusetune.errors import InvalidValueError
from fusetune.tuner.schedules import functions
from fusetune.tuner.schedules.parameter import Parameter


@dataclass(frozen=True)
class CycledMomentum:
    """Bounds of a cycled momentum, torch's by default, and the arguments that put the schedule's minimum at 0.

    With its minimum at 0 the schedule's function is the height in the cycle, and the momentum a function of it.
    """

    base_momentum: float
    max_momentum: float
    valley_at_zero: Mapping[str, float]


@dataclass(frozen=True)
class Schedule:
    """A schedule by name: a summary, its function and every parameter that a spec can give it.

    `follows` is "metric" for the one that is not a function of the step. `warmup_share` is the default length of the
    warmup, as a share of the training.
    """

    summary: str
    function: Callable[..., Any]
    parameters: Mapping[str, Parameter]
    follows: Literal["step", "metric"] = "step"
    warmup_share: float = 0.0
    momentum: CycledMomentum | None = None


def _in_steps(name: str) -> str:
    """Return the function's name for a parameter that a spec gives in epochs."""
    return name.removesuffix("_epochs") + "_steps" if name.endswith("_epochs") else name


def _with_defaults(function: Callable[..., Any], own: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Return the parameters with the defaults of the function's signature."""
    signature = inspect.signature(function).parameters
    return {
        name: replace(parameter, default=signature[_in_steps(name)].default)
        for name, parameter in own.items()
    }


def _of_step(
    summary: str,
    function: Callable[..., float],
    own: Mapping[str, Parameter],
    *,
    warmup_share: float = 0.0,
    momentum: CycledMomentum | None = None,
) -> Schedule:
    """Return a schedule that is a function of the step, with the parameters of its warmup and momentum."""
    parameters = _with_defaults(function, own) | _warmup_parameters(warmup_share)
    if momentum is not None:
        parameters |= _momentum_parameters(momentum)
    return Schedule(summary, function, parameters, warmup_share=warmup_share, momentum=momentum)


def _warmup_parameters(share: float) -> dict[str, Parameter]:
    """Return the warmup's parameters. `share` is its default length as a share of the training."""
    usual = f" (default: {share:.0%} of the training)" if share else ""
    return {
        "warmup_epochs": Parameter(f"linear rise before the schedule{usual}", default=None if share else 0.0),
        "warmup_factor": Parameter(
            "start of the rise, times the schedule's first value", high=1, default=0.01
        ),
    }


def _momentum_parameters(cycled: CycledMomentum) -> dict[str, Parameter]:
    bound = Parameter("", high=1, high_excluded=True)
    return {
        "cycle_momentum": Parameter(
            "cycle the momentum (Adam's first beta) inversely", "flag", default=False
        ),
        "base_momentum": replace(bound, meaning="momentum at the peak", default=cycled.base_momentum),
        "max_momentum": replace(bound, meaning="momentum in the valley", default=cycled.max_momentum),
    }


_LENGTH = Parameter("", low_excluded=True)
_GAMMA = Parameter("factor of each drop", high=1, low_excluded=True)
_GAMMA_PER_EPOCH = Parameter("factor of one epoch, applied smoothly", high=1, low_excluded=True)
_MIN_FACTOR = Parameter("lowest value, as a multiplier of base_lr", high=1)
_CYCLE = {
    "up_epochs": replace(_LENGTH, meaning="rising half of a cycle (default: an eighth of the training)"),
    "down_epochs": replace(_LENGTH, meaning="falling half of a cycle (default: as long as the rising one)"),
    "min_factor": _MIN_FACTOR,
}
_CYCLIC_MOMENTUM = CycledMomentum(0.8, 0.9, {"min_factor": 0.0})

SCHEDULES: dict[str, Schedule] = {
    "constant": _of_step("base_lr at every step", functions.constant, {}),
    "step": _of_step(
        "times gamma every so many epochs (StepLR)",
        functions.step_decay,
        {
            "every_epochs": replace(_LENGTH, meaning="from drop to drop (default: a third of the training)"),
            "gamma": _GAMMA,
        },
    ),
    "multistep": _of_step(
        "times gamma at each milestone (MultiStepLR)",
        functions.multistep,
        {
            "milestones_epochs": Parameter(
                "epochs of the drops, increasing (default: 1/2 and 3/4 of the training)",
                "numbers",
                low_excluded=True,
            ),
            "gamma": _GAMMA,
        },
    ),
    "exponential": _of_step(
        "times gamma an epoch, smoothly (ExponentialLR)", functions.exponential, {"gamma": _GAMMA_PER_EPOCH}
    ),
    "polynomial": _of_step(
        "to 0 along a power (PolynomialLR)",
        functions.polynomial,
        {"power": Parameter("exponent", low_excluded=True)},
    ),
    "linear": _of_step(
        "in a straight line, to 0 by default (LinearLR)",
        functions.linear,
        {
            "start_factor": Parameter("first value, as a multiplier of base_lr", high=1, low_excluded=True),
            "end_factor": Parameter("last value, as a multiplier of base_lr", high=1),
        },
    ),
    "cosine": _of_step("half a cosine (CosineAnnealingLR)", functions.cosine, {"min_factor": _MIN_FACTOR}),
    "cosine-restarts": _of_step(
        "SGDR: the cosine restarts after ever longer cycles (CosineAnnealingWarmRestarts)",
        functions.cosine_restarts,
        {
            "first_epochs": replace(_LENGTH, meaning="first cycle (default: a seventh of the training)"),
            "mult": Parameter("length of a cycle over the one before", "integer", low=1),
            "min_factor": _MIN_FACTOR,
        },
    ),
    "triangular": _of_step(
        "cyclical: up and down in straight lines (CyclicLR)",
        functions.triangular,
        _CYCLE,
        momentum=_CYCLIC_MOMENTUM,
    ),
    "triangular2": _of_step(
        "cyclical, each triangle half as high as the one before (CyclicLR)",
        functions.triangular2,
        _CYCLE,
        momentum=_CYCLIC_MOMENTUM,
    ),
    "exp-range": _of_step(
        "cyclical, the triangles shrinking by gamma an epoch (CyclicLR)",
        functions.exp_range,
        {**_CYCLE, "gamma": _GAMMA_PER_EPOCH},
        momentum=_CYCLIC_MOMENTUM,
    ),
    "one-cycle": _of_step(
        "one climb, one long fall (OneCycleLR)",
        functions.one_cycle,
        {
            "pct_start": Parameter("share of the training that climbs", high=1),
            "div_factor": Parameter("peak over first value", low=1),
            "final_div_factor": Parameter("first value over last value", low=1),
            "anneal_strategy": Parameter("shape of climb and fall", "choice", choices=("cos", "linear")),
            "three_phase": Parameter("fall as fast as the climb first, then anneal", "flag"),
        },
        momentum=CycledMomentum(0.85, 0.95, {"div_factor": math.inf}),
    ),
    "inverse-sqrt": _of_step(
        "1 / sqrt(step): the Transformer's, when the warmup is as long as the timescale",
        functions.inverse_sqrt,
        {
            "timescale_epochs": replace(
                _LENGTH, meaning="a third of the time to 1/2 (default: 1/10 of the training)"
            )
        },
    ),
    "warmup-stable-decay": _of_step(
        "warm up, stay at base_lr, fall at the end",
        functions.stable_then_decay,
        {
            "decay_fraction": Parameter("share of the steps after the warmup that falls", high=1),
            "decay_shape": Parameter("shape of the fall", "choice", choices=("linear", "cosine", "sqrt")),
            "min_factor": _MIN_FACTOR,
        },
        warmup_share=0.05,
    ),
    "plateau": Schedule(
        "times factor when the watched metric stops improving (ReduceLROnPlateau)",
        functions.plateau,
        _with_defaults(
            functions.plateau,
            {
                "factor": Parameter("multiplier of each drop", high=1, low_excluded=True, high_excluded=True),
                "patience": Parameter("evaluations without an improvement before a drop", "integer"),
                "threshold": Parameter("relative change that counts as an improvement", high=1),
                "cooldown": Parameter("evaluations after a drop in which none is counted", "integer"),
                "min_factor": _MIN_FACTOR,
            },
        ),
        follows="metric",
    ),
}


def check_schedule(name: str, parameters: Mapping[str, object]) -> None:
    """Check the name of a schedule and its parameters, written as in a spec.

    Args:
        name: a key of `SCHEDULES`.
        parameters: name in a spec -> value. None stands for a default that is derived from the training.

    Raises:
        ValueError: an unknown name or parameter, a wrong type, a value out of its range.

    Example:
        >>> check_schedule("cosine", {"min_facter": 0.1})
        Traceback (most recent call last):
        ...
        fusetune.errors.InvalidValueError: schedule cosine: unknown 'min_facter'; known: min_factor, \
warmup_epochs, warmup_factor. \
Did you mean 'min_factor'?
    """
    if name not in SCHEDULES:
        raise InvalidValueError.unknown("schedule", name, SCHEDULES)
    schedule = SCHEDULES[name]
    for key, value in parameters.items():
        if key not in schedule.parameters:
            raise InvalidValueError.unknown(f"schedule {name}", key, schedule.parameters)
        schedule.parameters[key].check(f"schedule {name}: {key}", value)
    if schedule.momentum is not None:
        _check_momentum(name, schedule.momentum, parameters)


def build_schedule(
    name: str, *, total_steps: int, steps_per_epoch: int, **parameters: Any
) -> Callable[[int], float]:
    """Build the multiplier of base_lr as a function of the step, with its warmup.

    In the first W = warmup_epochs * steps_per_epoch steps the multiplier rises linearly towards f(0), the first
    value of the schedule f. Then f runs over the remaining steps:

        f(0) * (warmup_factor + (1 - warmup_factor) * step / W)    step <  W
        f(step - W), f made for total_steps - W steps              step >= W

    This is torch's SequentialLR([LinearLR(start_factor=warmup_factor, total_iters=W), f], milestones=[W]).
    Lengths in epochs are rounded to whole steps, halves up. A length above 0 is at least one step.

    Args:
        name: a key of `SCHEDULES` that follows the step.
        total_steps: int >= 1, the length of the training, warmup included.
        steps_per_epoch: int >= 1.
        parameters: as in a spec, see `SCHEDULES[name].parameters`.

    Raises:
        ValueError: as `check_schedule`. Also for a warmup that leaves no step, and for "plateau", which does not
            follow the step. The returned function raises it for a negative step.

    Example:
        >>> lr = build_schedule("cosine", total_steps=30, steps_per_epoch=10, warmup_epochs=1, warmup_factor=0.0)
        >>> [lr(step) for step in (0, 5, 10, 20, 30)]
        [0.0, 0.5, 1.0, 0.5, 0.0]

    Source: the default warmup_factor is that of torchvision's references/classification/train.py.
    """
    schedule, warmup_steps, arguments = _resolve(name, total_steps, steps_per_epoch, parameters)
    warmup_factor = _value(schedule, parameters, "warmup_factor")
    first: float = schedule.function(0, **arguments)

    def multiplier(step: int) -> float:
        """Return the multiplier of base_lr at `step`."""
        _check_step(step)
        if step < warmup_steps:
            return first * functions.anneal_linear(warmup_factor, 1.0, step / warmup_steps)
        factor: float = schedule.function(step - warmup_steps, **arguments)
        return factor

    return multiplier


def build_momentum(
    name: str, *, total_steps: int, steps_per_epoch: int, **parameters: Any
) -> Callable[[int], float] | None:
    """Build the momentum as a function of the step, or None when the spec does not cycle it.

        max_momentum - (max_momentum - base_momentum) * h(step)

    with h the height in the cycle: 0 where the multiplier is lowest, 1 at its peak. A warmup keeps max_momentum.

    Args:
        name, total_steps, steps_per_epoch, parameters: as for `build_schedule`.

    Raises:
        ValueError: as `build_schedule`.

    Example:
        >>> momentum = build_momentum("triangular", total_steps=16, steps_per_epoch=4, cycle_momentum=True)
        >>> [round(momentum(step), 3) for step in range(5)]
        [0.9, 0.85, 0.8, 0.85, 0.9]

    Source: torch.optim.lr_scheduler.OneCycleLR and CyclicLR.
    """
    schedule, warmup_steps, arguments = _resolve(name, total_steps, steps_per_epoch, parameters)
    if schedule.momentum is None or not _value(schedule, parameters, "cycle_momentum"):
        return None
    height_arguments = {**arguments, **schedule.momentum.valley_at_zero}
    base = _value(schedule, parameters, "base_momentum")
    peak = _value(schedule, parameters, "max_momentum")

    def momentum(step: int) -> float:
        """Return the momentum at `step`."""
        _check_step(step)
        height = schedule.function(step - warmup_steps, **height_arguments) if step >= warmup_steps else 0.0
        return functions.anneal_linear(peak, base, height)

    return momentum


def _resolve(
    name: str, total_steps: int, steps_per_epoch: int, parameters: Mapping[str, Any]
) -> tuple[Schedule, int, dict[str, Any]]:
    """Check everything. Return the schedule, the steps of its warmup and the arguments of its function."""
    check_schedule(name, parameters)
    schedule = SCHEDULES[name]
    if schedule.follows != "step":
        raise InvalidValueError(
            f"schedule {name}", "follows the metric, not the step", to_do="Build ReduceLROnPlateau for it"
        )
    for where, count in (("total_steps", total_steps), ("steps_per_epoch", steps_per_epoch)):
        if count < 1:
            raise InvalidValueError(
                f"schedule {name}", f"{where} is {count}", to_do="Train for at least one step"
            )
    warmup_steps = _warmup_steps(schedule, total_steps, steps_per_epoch, parameters)
    if warmup_steps >= total_steps:
        raise InvalidValueError(
            f"schedule {name}: warmup_epochs",
            f"the warmup takes {warmup_steps} steps",
            f"the training has {total_steps}",
            "Warm up for less or train for longer",
        )
    taken = inspect.signature(schedule.function).parameters
    arguments: dict[str, Any] = {
        "total_steps": total_steps - warmup_steps,
        "steps_per_epoch": steps_per_epoch,
    }
    arguments |= {
        _in_steps(key): _count_steps(key, value, steps_per_epoch) for key, value in parameters.items()
    }
    return schedule, warmup_steps, {key: value for key, value in arguments.items() if key in taken}


def _warmup_steps(
    schedule: Schedule, total_steps: int, steps_per_epoch: int, parameters: Mapping[str, Any]
) -> int:
    """Return the length of the warmup in steps, given or by default."""
    epochs = _value(schedule, parameters, "warmup_epochs")
    if epochs is None:
        return int(schedule.warmup_share * total_steps)
    return _whole_steps(epochs, steps_per_epoch) if epochs else 0


def _count_steps(name: str, value: Any, steps_per_epoch: int) -> Any:
    """Return a length in epochs as whole steps, at least one. Other values are returned unchanged."""
    if not name.endswith("_epochs") or value is None:
        return value
    if isinstance(value, Sequence):
        return [_count_steps(name, epochs, steps_per_epoch) for epochs in value]
    return _whole_steps(value, steps_per_epoch)


def _whole_steps(epochs: float, steps_per_epoch: int) -> int:
    """Return a length in whole steps, halves rounded up. It is at least 1, so that no phase of a spec vanishes."""
    # Python rounds halves to even numbers: 0.5 to 0, and 2.5 to 2.
    return max(1, math.floor(epochs * steps_per_epoch + 0.5))


def _value(schedule: Schedule, parameters: Mapping[str, Any], name: str) -> Any:
    """Return a parameter as given or by default."""
    return parameters.get(name, schedule.parameters[name].default)


def _check_momentum(name: str, cycled: CycledMomentum, parameters: Mapping[str, Any]) -> None:
    """Raise ValueError for momentum bounds that would be ignored, or whose order is reversed."""
    given = [key for key in ("base_momentum", "max_momentum") if key in parameters]
    if given and not parameters.get("cycle_momentum", False):
        raise InvalidValueError(
            f"schedule {name}: {given[0]}",
            "has no effect by itself",
            to_do="Add cycle_momentum: true or leave it out",
        )
    base = parameters.get("base_momentum", cycled.base_momentum)
    peak = parameters.get("max_momentum", cycled.max_momentum)
    if base > peak:
        raise InvalidValueError(
            f"schedule {name}: base_momentum",
            f"{base} is above max_momentum, {peak}",
            to_do="Change one of them",
        )


def _check_step(step: int) -> None:
    """Raise ValueError for a step before the first."""
    if step < 0:
        raise InvalidValueError("step", f"{step} is negative", "steps count from 0", "Start at 0")
