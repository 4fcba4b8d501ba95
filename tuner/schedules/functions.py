"""The functions behind `tuner.schedules.table`: from the step to a multiplier of base_lr, in closed form.

`base_lr` is the peak of every schedule, so each multiplier is in [0, 1]. Steps count optimizer updates from 0.
Schedules with an end (cosine, linear, polynomial, one-cycle, warmup-stable-decay) keep their last value after it. The
periodic and the decaying ones continue. The functions do not check their arguments, because `tuner.schedules.table`
does.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Literal


def constant(step: int) -> float:
    """Return 1 at every step.

    Example:
        >>> constant(7)
        1.0
    """
    return 1.0


def step_decay(step: int, *, total_steps: int, every_steps: int | None = None, gamma: float = 0.1) -> float:
    """Multiply by `gamma` every `every_steps`: gamma ** floor(step / every_steps).

    Args:
        step: int >= 0.
        total_steps: int >= 1, the length of the training.
        every_steps: int >= 1. None is a third of the training, which makes two drops.
        gamma: float in (0, 1].

    Example:
        >>> [step_decay(step, total_steps=9, gamma=0.5) for step in (0, 2, 3, 6)]
        [1.0, 1.0, 0.5, 0.25]

    Source: torch.optim.lr_scheduler.StepLR.
    """
    return float(gamma) ** (step // (every_steps or _share(total_steps, 1 / 3)))


def multistep(
    step: int, *, total_steps: int, milestones_steps: Sequence[int] | None = None, gamma: float = 0.1
) -> float:
    """Multiply by `gamma` at each milestone: gamma ** |{m : m <= step}|.

    Args:
        step: int >= 0.
        total_steps: int >= 1, the length of the training.
        milestones_steps: increasing ints >= 1. None is a half and three quarters of the training.
        gamma: float in (0, 1].

    Example:
        >>> [multistep(step, total_steps=8, gamma=0.5) for step in (3, 4, 6)]
        [1.0, 0.5, 0.25]

    Source: torch.optim.lr_scheduler.MultiStepLR. The default milestones are those of He et al., Deep Residual
    Learning for Image Recognition (2015), section 4.2.
    """
    milestones = milestones_steps or (_share(total_steps, 1 / 2), _share(total_steps, 3 / 4))
    return float(gamma) ** bisect_right(milestones, step)


def exponential(step: int, *, steps_per_epoch: int, gamma: float = 0.9) -> float:
    """Decay smoothly by `gamma` an epoch: gamma ** (step / steps_per_epoch).

    At every whole epoch this is torch's class stepped once an epoch. In between it is torch's class stepped at every
    step with gamma ** (1 / steps_per_epoch).

    Args:
        step: int >= 0.
        steps_per_epoch: int >= 1.
        gamma: float in (0, 1], the factor of one epoch.

    Example:
        >>> exponential(20, steps_per_epoch=10, gamma=0.5)
        0.25

    Source: torch.optim.lr_scheduler.ExponentialLR.
    """
    return float(gamma ** (step / steps_per_epoch))


def polynomial(step: int, *, total_steps: int, power: float = 1.0) -> float:
    """Fall from 1 to 0 along a power: (1 - step / total_steps) ** power.

    Args:
        step: int >= 0.
        total_steps: int >= 1, where the schedule reaches 0.
        power: float > 0.

    Example:
        >>> polynomial(5, total_steps=10, power=2.0)
        0.25

    Source: torch.optim.lr_scheduler.PolynomialLR.
    """
    return float((1.0 - min(step, total_steps) / total_steps) ** power)


def linear(step: int, *, total_steps: int, start_factor: float = 1.0, end_factor: float = 0.0) -> float:
    """Move in a straight line: start_factor + (end_factor - start_factor) step / total_steps.

    Args:
        step: int >= 0.
        total_steps: int >= 1, where the schedule reaches `end_factor`.
        start_factor: float in (0, 1].
        end_factor: float in [0, 1].

    Example:
        >>> linear(5, total_steps=10)
        0.5

    Source: torch.optim.lr_scheduler.LinearLR.
    """
    return anneal_linear(start_factor, end_factor, min(step, total_steps) / total_steps)


def cosine(step: int, *, total_steps: int, min_factor: float = 0.0) -> float:
    """Fall along half a cosine: min_factor + (1 - min_factor) (1 + cos(pi step / total_steps)) / 2.

    Args:
        step: int >= 0.
        total_steps: int >= 1, where the schedule reaches `min_factor`.
        min_factor: float in [0, 1].

    Example:
        >>> [cosine(step, total_steps=10) for step in (0, 5, 10, 11)]
        [1.0, 0.5, 0.0, 0.0]

    Source: torch.optim.lr_scheduler.CosineAnnealingLR. Loshchilov and Hutter, SGDR (2017), equation 5.
    """
    return anneal_cosine(1.0, min_factor, min(step, total_steps) / total_steps)


def cosine_restarts(
    step: int, *, total_steps: int, first_steps: int | None = None, mult: int = 2, min_factor: float = 0.0
) -> float:
    """Restart the cosine after cycles of T_0, T_0 mult, T_0 mult^2, ... steps.

        min_factor + (1 - min_factor) (1 + cos(pi t / T)) / 2, with t steps into a cycle of T steps

    Args:
        step: int >= 0.
        total_steps: int >= 1, the length of the training.
        first_steps: int >= 1, torch's T_0. None is a seventh of the training, which makes three cycles with a mult
            of 2.
        mult: int >= 1, torch's T_mult.
        min_factor: float in [0, 1].

    Example:
        >>> [cosine_restarts(step, total_steps=14) for step in (0, 1, 2, 4, 6)]
        [1.0, 0.5, 1.0, 0.5, 1.0]

    Source: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts. Loshchilov and Hutter, SGDR (2017).
    """
    position, cycle_steps = step, first_steps or _share(total_steps, 1 / 7)
    if mult == 1:
        position %= cycle_steps
    while position >= cycle_steps:
        position -= cycle_steps
        cycle_steps *= mult
    return anneal_cosine(1.0, min_factor, position / cycle_steps)


def triangular(
    step: int,
    *,
    total_steps: int,
    up_steps: int | None = None,
    down_steps: int | None = None,
    min_factor: float = 0.25,
) -> float:
    """Rise and fall linearly between `min_factor` and 1: min_factor + (1 - min_factor) h(step).

    Args:
        step: int >= 0.
        total_steps: int >= 1, the length of the training.
        up_steps: int >= 1, torch's step_size_up. None is an eighth of the training, which makes four cycles.
        down_steps: int >= 1, torch's step_size_down. None is `up_steps`.
        min_factor: float in [0, 1], torch's base_lr / max_lr.

    Example:
        >>> [triangular(step, total_steps=16, min_factor=0.0) for step in range(5)]
        [0.0, 0.5, 1.0, 0.5, 0.0]

    Source: torch.optim.lr_scheduler.CyclicLR. Smith, Cyclical Learning Rates (2017), section 3.
    """
    _, height = _triangle(step, total_steps, up_steps, down_steps)
    return anneal_linear(min_factor, 1.0, height)


def triangular2(
    step: int,
    *,
    total_steps: int,
    up_steps: int | None = None,
    down_steps: int | None = None,
    min_factor: float = 0.25,
) -> float:
    """Halve the height after each triangle: min_factor + (1 - min_factor) h(step) / 2 ** cycle.

    Args:
        step: int >= 0.
        total_steps: int >= 1, the length of the training.
        up_steps, down_steps, min_factor: as in `triangular`.

    Example:
        >>> [triangular2(step, total_steps=16, min_factor=0.0) for step in (2, 6, 10)]
        [1.0, 0.5, 0.25]

    Source: torch.optim.lr_scheduler.CyclicLR(mode="triangular2"). Smith, Cyclical Learning Rates (2017).
    """
    cycle, height = _triangle(step, total_steps, up_steps, down_steps)
    return anneal_linear(min_factor, 1.0, height * 0.5**cycle)


def exp_range(
    step: int,
    *,
    total_steps: int,
    steps_per_epoch: int,
    up_steps: int | None = None,
    down_steps: int | None = None,
    min_factor: float = 0.25,
    gamma: float = 0.9,
) -> float:
    """Shrink the triangles exponentially: min_factor + (1 - min_factor) h(step) gamma ** (step / steps_per_epoch).

    Args:
        step: int >= 0.
        total_steps: int >= 1, the length of the training.
        steps_per_epoch: int >= 1.
        up_steps, down_steps, min_factor: as in `triangular`.
        gamma: float in (0, 1], the factor of one epoch. torch's is the factor of one step.

    Example:
        >>> exp_range(6, total_steps=16, steps_per_epoch=6, min_factor=0.0, gamma=0.5)
        0.5

    Source: torch.optim.lr_scheduler.CyclicLR(mode="exp_range"). Smith, Cyclical Learning Rates (2017).
    """
    _, height = _triangle(step, total_steps, up_steps, down_steps)
    return anneal_linear(
        min_factor, 1.0, height * exponential(step, steps_per_epoch=steps_per_epoch, gamma=gamma)
    )


def one_cycle(
    step: int,
    *,
    total_steps: int,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    anneal_strategy: str = "cos",
    three_phase: bool = False,
) -> float:
    """Rise from 1 / div_factor to 1, then fall to 1 / (div_factor final_div_factor) at the last step.

    A training of a single step has only a last step and so takes the smallest value, as with torch's class.

    Args:
        step: int >= 0.
        total_steps: int >= 1, the length of the training.
        pct_start: float in [0, 1], the share of the training that rises.
        div_factor: float >= 1.
        final_div_factor: float >= 1.
        anneal_strategy: "cos" or "linear".
        three_phase: fall symmetrically to 1 / div_factor first, then anneal.

    Example:
        >>> [one_cycle(step, total_steps=11, pct_start=0.5, div_factor=2.0) for step in (0, 10, 11)]
        [0.5, 5e-05, 5e-05]

    Source: torch.optim.lr_scheduler.OneCycleLR. Smith and Topin, Super-Convergence (2018).
    """
    start = 1.0 / div_factor
    values = [start, 1.0, start] if three_phase else [start, 1.0]
    values.append(start / final_div_factor)
    # torch ends the n-th of the early phases n steps early, because the first step has number 0.
    ends = [phase * pct_start * total_steps - phase for phase in range(1, len(values) - 1)]
    ends.append(total_steps - 1.0)
    anneal = anneal_cosine if anneal_strategy == "cos" else anneal_linear
    position = float(min(step, total_steps - 1))
    phase = next(index for index, end in enumerate(ends) if position <= end)
    begin = ends[phase - 1] if phase else 0.0
    length = ends[phase] - begin
    return anneal(values[phase], values[phase + 1], (position - begin) / length if length else 1.0)


def inverse_sqrt(step: int, *, total_steps: int, timescale_steps: int | None = None) -> float:
    """Decay with the inverse square root: sqrt(timescale_steps / (timescale_steps + step)).

    With a warmup as long as the timescale, this is the schedule of the Transformer, scaled to a peak of 1.

    Args:
        step: int >= 0.
        total_steps: int >= 1, the length of the training.
        timescale_steps: int >= 1. None is a tenth of the training.

    Example:
        >>> inverse_sqrt(30, total_steps=100)
        0.5

    Source: Vaswani et al., Attention Is All You Need (2017), section 5.3.
    """
    timescale = timescale_steps or _share(total_steps, 1 / 10)
    return math.sqrt(timescale / (timescale + step))


def stable_then_decay(
    step: int,
    *,
    total_steps: int,
    decay_fraction: float = 0.2,
    decay_shape: str = "linear",
    min_factor: float = 0.0,
) -> float:
    """Stay at 1, then fall to `min_factor` over the last steps: min_factor + (1 - min_factor) s(progress).

        s(p) = 1 - p ("linear"), (1 + cos(pi p)) / 2 ("cosine") or 1 - sqrt(p) ("sqrt")

    Args:
        step: int >= 0.
        total_steps: int >= 1, where the schedule reaches `min_factor`.
        decay_fraction: float in [0, 1], the share of the steps that decays. With 0 none does.
        decay_shape: "linear", "cosine" or "sqrt".
        min_factor: float in [0, 1].

    Example:
        >>> [stable_then_decay(step, total_steps=100) for step in (0, 80, 90, 100)]
        [1.0, 1.0, 0.5, 0.0]

    Source: Hu et al., MiniCPM (2024), section 4. For "sqrt", Hägele et al., Scaling Laws and Compute-Optimal Training
    Beyond Fixed Training Durations (2024), section 3.
    """
    decay_steps = round(decay_fraction * total_steps)
    if step <= total_steps - decay_steps or not decay_steps:
        return 1.0
    progress = 1.0 - (total_steps - min(step, total_steps)) / decay_steps
    if decay_shape == "cosine":
        return anneal_cosine(1.0, min_factor, progress)
    return anneal_linear(1.0, min_factor, math.sqrt(progress) if decay_shape == "sqrt" else progress)


def plateau(
    *,
    mode: Literal["min", "max"],
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    cooldown: int = 0,
    min_factor: float = 0.0,
) -> dict[str, Any]:
    """Return the plateau rule of `tuner.training.rate.LearningRate`, which follows the metric and not the step.

    It is torch's ReduceLROnPlateau, except for the lowest rate: a multiplier of each parameter group's own rate.

    Args:
        mode: "min" for a metric that should fall, "max" for one that should rise.
        factor: float in (0, 1), the multiplier of each reduction.
        patience: int >= 0, evaluations without an improvement before a reduction.
        threshold: float in [0, 1], the relative change that counts as an improvement.
        cooldown: int >= 0, evaluations after a reduction that are not counted.
        min_factor: float in [0, 1], the lowest multiplier of a group's base_lr.

    Example:
        >>> plateau(mode="max", min_factor=0.01)["min_factor"]
        0.01

    Source: torch.optim.lr_scheduler.ReduceLROnPlateau.
    """
    return {
        "mode": mode,
        "factor": factor,
        "patience": patience,
        "threshold": threshold,
        "cooldown": cooldown,
        "min_factor": min_factor,
    }


def _share(total_steps: int, fraction: float) -> int:
    """Return a share of the training in steps, rounded up, because the last few steps must not begin another cycle."""
    # Without round, a fraction times its own denominator could end an ulp above the whole number.
    return max(1, math.ceil(round(fraction * total_steps, 6)))


def _triangle(step: int, total_steps: int, up_steps: int | None, down_steps: int | None) -> tuple[int, float]:
    """Return the number of the cycle, from 0, and the height in it, from 0 to 1."""
    up = up_steps or _share(total_steps, 1 / 8)
    down = down_steps or up
    cycle, position = divmod(step, up + down)
    return cycle, position / up if position <= up else (up + down - position) / down


def anneal_linear(start: float, end: float, progress: float) -> float:
    """Interpolate linearly from `start` to `end` as `progress` goes from 0 to 1.

    Example:
        >>> anneal_linear(1.0, 0.0, 0.25)
        0.75
    """
    return start + (end - start) * progress


def anneal_cosine(start: float, end: float, progress: float) -> float:
    """Interpolate from `start` to `end` along half a cosine as `progress` goes from 0 to 1.

    Example:
        >>> anneal_cosine(1.0, 0.5, 0.5)
        0.75
    """
    return end + (start - end) * (1.0 + math.cos(math.pi * progress)) / 2.0
