"""LR range test: a learning rate from a few short sweeps that leave the model as it was."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import get_args

import torch
from torch import nn

from fusetune.errors import InvalidTypeError, InvalidValueError
from fusetune.tuner.learning_rate.curve import Curve, smoothed
from fusetune.tuner.learning_rate.suggestion import Suggestion, suggest
from fusetune.tuner.learning_rate.sweep import (
    BatchSource,
    EndlessBatches,
    MakeOptimizerAt,
    Mode,
    StepSettings,
    Sweep,
    Sweeper,
    check_resident,
    check_source,
    swept_rates,
)
from fusetune.tuner.training import LossFunction, leaving_no_trace, resolve_precision, tensor_not_finite

LEAST_STEPS = 10
# What torch's generators take, with room for one seed a repeat.
_SEEDS = 2**63


@dataclass(frozen=True)
class LRRange:
    """What an LR range test found.

    Args:
        suggestion: the rate to train with, or None where the curves show none.
        low: first rate of a triangular or one-cycle schedule; None without a suggestion.
        high: its peak.
        lrs: the swept rates, up to where the first of the repeats ended.
        losses: mean training loss of the repeats at each of `lrs`, before that step's update; all finite.
        reason: one sentence: how the suggestion comes about, or why there is none.
        warnings: doubts about the suggestion, a sentence each.
        interval: 95 % interval of the suggestion from the spread of the repeats; None with fewer than two usable
            repeats, or where a bound decided.
        divergence_lr: the lowest rate at which a repeat diverged; None where none did.
        sweeps: each repeat as it was, losses that are not finite included.
        groups: with `per_group`, the same for each of the optimizer's parameter groups, the others held still.
        edge: where the suggestion rests on it, the highest rate at which the loss is near its minimum.
    """

    suggestion: float | None
    low: float | None
    high: float | None
    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    reason: str
    warnings: tuple[str, ...]
    interval: tuple[float, float] | None
    divergence_lr: float | None
    sweeps: tuple[Sweep, ...]
    groups: tuple[LRRange, ...] = ()
    edge: float | None = None

    @property
    def smoothed(self) -> list[float]:
        """The debiased exponential average of `losses`."""
        return smoothed(self.losses)

    @property
    def steps_used(self) -> int:
        """The optimizer's updates and the steps that diverged before one, those of the groups included."""
        own = sum(len(sweep.lrs) for sweep in self.sweeps)
        return own + sum(group.steps_used for group in self.groups)


def lr_range_test(
    model: nn.Module,
    make_optimizer: MakeOptimizerAt,
    loss_fn: LossFunction,
    batches: BatchSource,
    *,
    lr_min: float = 1e-7,
    lr_max: float = 10.0,
    steps: int = 100,
    mode: Mode = "exponential",
    repeats: int = 3,
    validation: BatchSource | None = None,
    seed: int = 0,
    per_group: bool = False,
    accumulation_steps: int = 1,
    grad_clip: float | None = None,
    precision: str = "fp32",
) -> LRRange:
    """Sweep the learning rate up from `lr_min` until the loss diverges, `repeats` times, and suggest a rate.

    Each repeat starts from the model's weights, with a new optimizer and the batches that follow the last repeat's.
    `tuner.learning_rate.suggestion` has the rule. At the end, and after an error, everything is restored: see
    `tuner.training.restore`.

    Args:
        model: on its device; batches are brought there.
        make_optimizer: (list of parameters, lr) -> torch optimizer. Groups that it gives other rates than `lr` keep
            their ratio to it.
        loss_fn: (model(x), y) -> mean loss of the batch, a scalar.
        batches: of (x, y), to be iterated again and again: `Batches`, a DataLoader, a list.
        lr_min: the first rate, above 0.
        lr_max: the last one, above `lr_min`.
        steps: rates in a sweep, 10 or more; the rule was made for 100.
        mode: exponential or linear distances between them.
        repeats: sweeps, 1 or more; with 1 there is no interval.
        validation: of (x, y); where given, its mean loss after each update is judged instead of the training loss.
        seed: of the order of a list of batches, and of what the model draws (dropout); 0 or more, below 2^63.
        per_group: also sweep each parameter group of the optimizer alone, `repeats` times each.
        accumulation_steps: batches a step, 1 or more.
        grad_clip: largest total norm of the gradients, above 0, or None.
        precision: auto, fp32, bf16 or fp16, as in training.

    Memory: one copy of parameters and buffers besides what training takes.

    Raises:
        ValueError: nothing to train, a loss that is not a scalar, no batches, numbers out of range. A sample that is
            not finite, named by its index; outside of `Batches` only where a loss is not finite. An optimizer whose
            rates do not follow `lr`, whose steps need a closure or that holds none of the model's parameters.
        TypeError: something that is not what its name says, or batches or validation that can be iterated only once.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(512, 8)
        >>> y = (x @ torch.randn(8, 3)).argmax(1)
        >>> data = list(zip(x.split(32), y.split(32)))
        >>> found = lr_range_test(nn.Linear(8, 3), lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
        ...                       nn.functional.cross_entropy, data)
        >>> 0.1 < found.suggestion < 3, found.interval[0] < found.suggestion < found.interval[1]
        (True, True)
        >>> found.steps_used <= 300
        True

    Source: L. N. Smith, "Cyclical learning rates for training neural networks" (2017), section 3.3, for the sweep.
    """
    _check_called(model, make_optimizer, loss_fn)
    _check_sources(batches, validation)
    plan = _Plan(lr_min, lr_max, steps, mode, repeats, seed, per_group)
    plan.check()
    _check_steps(accumulation_steps, grad_clip)
    check_resident(batches, validation)
    device = next(iter(model.parameters()), torch.empty(0)).device
    settings = StepSettings(accumulation_steps, grad_clip, resolve_precision(precision, device))
    with leaving_no_trace(model, batches, validation) as put_back:
        broken = tensor_not_finite(model)
        endless = EndlessBatches(batches, device, seed)
        sweeper = Sweeper(
            model, make_optimizer, loss_fn, endless, plan.rates, settings=settings, validation=validation
        )
        whole = _sweeps(plan, sweeper, device, put_back)
        groups = range(sweeper.groups if per_group else 0)
        alone = [_sweeps(plan, sweeper, device, put_back, group) for group in groups]
        put_back()
        judge = _judge(model, sweeper)
    return _found(whole, judge, broken, tuple(_found(sweeps, judge, broken) for sweeps in alone))


@dataclass(frozen=True)
class _Plan:
    """Which sweeps a test makes. `lr_range_test` documents each field."""

    lr_min: float
    lr_max: float
    steps: int
    mode: Mode
    repeats: int
    seed: int
    per_group: bool

    @property
    def rates(self) -> list[float]:
        """The rates of a sweep."""
        return swept_rates(self.lr_min, self.lr_max, self.steps, self.mode)

    def check(self) -> None:
        """Check the fields. Raises ValueError or TypeError."""
        _check_number("lr_min", self.lr_min)
        _check_number("lr_max", self.lr_max)
        if not (0 < self.lr_min < math.inf and 0 < self.lr_max < math.inf):
            raise InvalidValueError(
                "lr_min and lr_max", f"{self.lr_min} and {self.lr_max} must be finite and above 0"
            )
        if self.lr_min >= self.lr_max:
            raise InvalidValueError("lr_min", f"{self.lr_min} must be below lr_max, {self.lr_max}")
        if self.mode not in get_args(Mode):
            raise InvalidValueError.unknown("mode", self.mode, get_args(Mode))
        _check_whole("steps", self.steps, 1)
        _check_whole("repeats", self.repeats, 1)
        _check_whole("seed", self.seed, 0)
        if self.steps < LEAST_STEPS:
            raise InvalidValueError(
                "steps",
                f"{self.steps} are too few to see a curve",
                "100 is usual",
                f"Take {LEAST_STEPS} or more",
            )
        if self.seed >= _SEEDS:
            raise InvalidValueError("seed", f"{self.seed} must be below 2^63")


def _sweeps(
    plan: _Plan,
    sweeper: Sweeper,
    device: torch.device,
    put_back: Callable[[], None],
    group: int | None = None,
) -> list[Sweep]:
    """Make the repeats of a sweep, each from the model as it was. With `group`, of that parameter group alone."""
    sweeps = []
    for index in range(plan.repeats):
        put_back()
        _seed_draws(plan.seed + index, device)
        sweeps.append(sweeper.sweep(group))
    return sweeps


def _judge(model: nn.Module, sweeper: Sweeper) -> Callable[[Sequence[Curve]], Suggestion]:
    """Return `suggest` with the properties of model and optimizer."""
    step, weight_size = sweeper.normalised_step(), _weight_size(model)
    return partial(
        suggest,
        normalised=step is not None,
        weight_size=weight_size / step if weight_size is not None and step else None,
        usual_lr=sweeper.usual_lr if step is None else None,
        blind_loss=sweeper.blind_loss,
    )


def _weight_size(model: nn.Module) -> float | None:
    """Return the root mean square of the weights, the median over the model's matrices; None where it has none.

    Vectors are left out: biases and the scales of norms begin at 0 or 1 whatever the model.
    """
    with torch.no_grad():
        sizes = [
            float(parameter.float().square().mean().sqrt())
            for parameter in model.parameters()
            if parameter.requires_grad and parameter.dim() >= 2 and parameter.numel()
        ]
    return statistics.median(sizes) if sizes else None


def _found(
    sweeps: Sequence[Sweep],
    judge: Callable[[Sequence[Curve]], Suggestion],
    broken: str | None,
    groups: tuple[LRRange, ...] = (),
) -> LRRange:
    at_start = [sweep.losses[0] for sweep in sweeps if not math.isfinite(sweep.losses[0])]
    diverged = [s.divergence_lr for s in sweeps if s.divergence_lr is not None and math.isfinite(s.losses[0])]
    suggestion = (
        _broken(at_start, len(sweeps), broken) if at_start else judge([_judged(sweep) for sweep in sweeps])
    )
    length = min(sum(map(math.isfinite, sweep.losses)) for sweep in sweeps)
    losses = (math.fsum(sweep.losses[i] for sweep in sweeps) / len(sweeps) for i in range(length))
    return LRRange(
        suggestion=suggestion.lr,
        low=suggestion.low,
        high=suggestion.high,
        lrs=sweeps[0].lrs[:length],
        losses=tuple(losses),
        reason=suggestion.reason,
        warnings=suggestion.warnings,
        interval=suggestion.interval,
        divergence_lr=min(diverged, default=None),
        sweeps=tuple(sweeps),
        groups=groups,
        edge=suggestion.edge,
    )


def _broken(at_start: Sequence[float], sweeps: int, tensor: str | None) -> Suggestion:
    """Return no suggestion: sweeps began with a loss that is not finite, whatever the rate."""
    cause = f"the model's {tensor} is not finite" if tensor else "look for it in the model and the loss"
    reason = (
        f"the loss is {at_start[0]} before any update in {len(at_start)} of {sweeps} sweeps, whatever the rate: "
        f"{cause}"
    )
    return Suggestion(None, None, None, None, reason)


def _judged(sweep: Sweep) -> Curve:
    """Return the validation losses where there are some, else the training losses."""
    losses = sweep.validation_losses or sweep.losses
    return Curve(sweep.lrs[: len(losses)], losses, sweep.divergence_lr is not None)


def _seed_draws(seed: int, device: torch.device) -> None:
    """Seed the generators of the model and a DataLoader, of the device in use alone."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _check_called(model: object, make_optimizer: object, loss_fn: object) -> None:
    if not isinstance(model, nn.Module):
        raise InvalidTypeError("model", f"is a {type(model).__name__}", to_do="Give a torch.nn.Module")
    if not callable(make_optimizer):
        raise InvalidTypeError(
            "make_optimizer",
            f"a {type(make_optimizer).__name__} cannot be called",
            to_do="Give (parameters, lr) -> optimizer",
        )
    if not callable(loss_fn):
        raise InvalidTypeError(
            "loss_fn",
            f"a {type(loss_fn).__name__} cannot be called",
            to_do="Give (model(x), y) -> mean loss of the batch",
        )


def _check_sources(batches: object, validation: object) -> None:
    """Refuse data that cannot be iterated again, before a batch is taken."""
    check_source("batches", batches)
    if validation is not None:
        check_source("validation", validation)


def _check_steps(accumulation_steps: int, grad_clip: float | None) -> None:
    _check_whole("accumulation_steps", accumulation_steps, 1)
    if grad_clip is not None:
        _check_number("grad_clip", grad_clip)
        if not 0 < grad_clip < math.inf:
            raise InvalidValueError("grad_clip", f"{grad_clip} must be finite and above 0, or None")


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise InvalidTypeError(name, f"{value!r} is a {type(value).__name__}", to_do="Give a number")


def _check_whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise InvalidTypeError(name, f"{value!r} is a {type(value).__name__}", to_do="Give a whole number")
    if int(value) < least:
        raise InvalidValueError(name, f"{value} must be {least} or more")
