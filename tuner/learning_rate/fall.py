"""Shape of the fall of a sweep's loss, and the rate by the rule of `tuner.learning_rate.suggestion`."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusetune.tuner.learning_rate.curve import (
    LEAST_UNTRAINED,
    SMOOTHING,
    noise,
    roughness,
    smoothed_both_ways,
    untrained_steps,
)

# Of a sweep from 1e-7 to 10 in 100 steps, for which SMOOTHING was chosen. Others are smoothed over as many decades.
_STEPS_PER_DECADE = 99 / 8
_BEGIN, _END, _MARGIN = 0.2, 0.5, 4.5
_LEVEL, _LEAST_END, _MOST_END, _DEEP = 0.35, 0.5, 0.75, 0.5
_CLEAR_ERRORS = 20.0
_CALM, _LEAST_CALM = 0.12, 0.4
OF_WEIGHT_SIZE = 0.4
_PULL, _MOST_PULL = 0.3, 2.0
# Without this, a dip of the noise would count as the beginning of a shallow fall, and the fall as wide.
_BEGIN_ERRORS = 6.0
# The minimum of a hundred smoothed values is two or three standard errors below their mean by chance.
_LEAST_FALL_ERRORS = 6.0
_LEAST_FALL_SHARE = 0.005
_LEARNS_ERRORS = 4.0
# Adam's loss can fall a second time, after its first rise has destroyed what the model had learnt.
_RISE = 0.5
# Share of the edge, the rate at which a sweep's loss leaves its lowest level, that a training gets; and the level at
# which the loss has left, above the lowest in shares of the fall and in standard errors.
_OF_EDGE, _LEFT, _LEFT_ERRORS = 0.1, 0.1, 3.0


@dataclass(frozen=True)
class Optimizer:
    """Properties of the optimizer: `most` is the highest rate that it may get; else see `suggestion`."""

    normalised: bool
    most: float
    usual_lr: float | None


@dataclass(frozen=True)
class Fall:
    """The fall of a curve: its levels, their standard error, and the rates at which parts of the fall are complete.

    Where a model begins worse than a blind guess, `blind` is a blind guess's loss. `end` is then the edge: the highest
    rate at which the loss is near its minimum. Else `blind` is None.
    """

    untrained: float
    lowest: float
    error: float
    roughness: float
    begin: float
    end: float
    end_part: float
    steps_per_decade: float
    optimizer: Optimizer
    from_the_start: bool
    to_the_end: bool
    blind: float | None = None

    @property
    def learns(self) -> bool:
        """Whether the loss clearly falls below a blind guess's."""
        return self.blind is None or self.blind - self.lowest > _LEARNS_ERRORS * self.error

    @property
    def is_bounded(self) -> bool:
        """Whether the upper bound of the rate decides, not the curve."""
        return self.suggestion == self.optimizer.most

    @property
    def is_real(self) -> bool:
        """Whether the curve falls by more than noise can explain."""
        fall = self.untrained - self.lowest
        return fall > max(_LEAST_FALL_ERRORS * self.error, _LEAST_FALL_SHARE * abs(self.untrained))

    @property
    def suggestion(self) -> float:
        """The rule of `tuner.learning_rate.suggestion`."""
        return min(self._read_off * self._pull, self.optimizer.most)

    @property
    def sentence(self) -> str:
        """The rule in numbers."""
        levels = f"of the fall of the loss from {self.untrained:.3g} to {self.lowest:.3g},"
        end = f"{100 * self.end_part:.0f} % is made at {self.end:.3g}"
        if self.blind is not None:
            levels = f"the loss falls from {self.untrained:.3g} to {self.lowest:.3g},"
            end = f"where a blind guess has {self.blind:.3g}, and stays near its minimum up to {self.end:.3g}"
        if self.is_bounded:
            return (
                f"{levels} {end}; a bound decides: a step must be shorter than the weights, and "
                f"{self.suggestion:.3g} is {OF_WEIGHT_SIZE:g} of their root mean square"
            )
        if self.blind is not None:
            seen, why = end, "as a margin to that edge"
        elif self.optimizer.normalised:
            seen, why = end, "for its depth"
        else:
            width = self.end / self.begin
            seen = f"{100 * _BEGIN:.0f} % is made at {self.begin:.3g} and {end}, {width:.3g} times as high"
            why = "for its width"
        factors = [
            f"{value:.3g} {name}"
            for value, name in (
                (self._share, why),
                (self._speed, "for the sweep's speed"),
                (self._clarity, "for its noise"),
                (self._pull, f"towards the usual {self.optimizer.usual_lr or 0:.3g}"),
            )
            if not math.isclose(value, 1, rel_tol=0.01)
        ]
        product = " x ".join([f"{self.end:.3g}", *factors])
        return f"{levels} {seen}: {product} = {self.suggestion:.3g}" if factors else f"{levels} {seen}"

    @property
    def _read_off(self) -> float:
        """The rate by the curve alone."""
        return self.end * self._share * self._speed * self._clarity

    @property
    def _share(self) -> float:
        """Share of the rate at the fall's end that the training gets, from the fall's shape."""
        if self.blind is not None:
            return _OF_EDGE
        if not self.optimizer.normalised:
            return min(self.end / self.begin / _MARGIN, 1.0)
        return min(_depth(self.untrained, self.lowest) / _DEEP, 1.0)

    @property
    def _speed(self) -> float:
        """Steps per decade of the sweep, over those of the sweeps that the rule was chosen on."""
        return self.steps_per_decade / _STEPS_PER_DECADE

    @property
    def _clarity(self) -> float:
        """Signal to noise of the fall as a factor, 1 at most."""
        if self.blind is not None:
            return 1.0  # noise blurs the rates of a fall, and hardly the rate of the explosion
        clarity = (self.untrained - self.lowest) / (_CLEAR_ERRORS * self.error) if self.error else 1.0
        if not self.optimizer.normalised and self.roughness:
            clarity = min(clarity, max(_CALM / self.roughness, _LEAST_CALM))
        return min(clarity, 1.0)

    @property
    def _pull(self) -> float:
        """Factor of the shrinkage towards the usual rate; 1 where there is none."""
        if self.optimizer.usual_lr is None:
            return 1.0
        pull: float = (self.optimizer.usual_lr / self._read_off) ** _PULL
        return min(max(pull, 1 / _MOST_PULL), _MOST_PULL)


def find_fall(
    lrs: Sequence[float], losses: np.ndarray, optimizer: Optimizer, blind: float | None = None
) -> Fall:
    """Measure the fall of one curve. With a blind guess's loss, `end` is the edge, see `Fall`."""
    per_decade = (len(lrs) - 1) / math.log10(lrs[-1] / lrs[0])
    smoothing = SMOOTHING ** (_STEPS_PER_DECADE / per_decade)
    curve = smoothed_both_ways(losses, smoothing)
    first = untrained_steps(losses)
    untrained = float(np.mean(losses[:first]))
    place = _end_of_fall(curve, untrained) if blind is None else int(np.argmin(curve))
    lowest = float(curve[place])
    error = noise(losses) * math.sqrt(_variance_factor(smoothing) + 1 / first)
    fall = untrained - lowest
    end_part = _end_part(untrained, lowest) if optimizer.normalised else _END
    begin, end = (
        _crossing(lrs, curve[: place + 1], untrained - part)
        for part in (min(max(_BEGIN * fall, _BEGIN_ERRORS * error), fall / 2), end_part * fall)
    )
    if blind is not None:
        end = _leaving(lrs, curve, lowest + max(_LEFT * fall, _LEFT_ERRORS * error))
    after = min(max(1, bisect.bisect_left(lrs, end)), len(lrs) - 1)
    falling = losses[max(0, bisect.bisect_left(lrs, begin) - 1) : place + 2]
    return Fall(
        untrained,
        lowest,
        error,
        roughness(falling) / fall if len(falling) > LEAST_UNTRAINED and fall > 0 else 0.0,
        begin,
        end,
        end_part,
        1 / math.log10(lrs[after] / lrs[after - 1]),
        optimizer,
        from_the_start=begin <= lrs[first - 1],
        to_the_end=float(curve[-1]) <= lowest + error,
        blind=blind,
    )


def unlearns(losses: np.ndarray, blind: float) -> bool:
    """Whether the beginning of a curve's fall is above the loss of a blind guess.

    The model then only unlearns its initial outputs, which happens at lower rates than learning.
    """
    untrained = float(np.mean(losses[: untrained_steps(losses)]))
    return untrained - blind > _BEGIN * (untrained - float(smoothed_both_ways(losses).min()))


def _depth(untrained: float, lowest: float) -> float:
    """Return the fall as a share of the untrained loss."""
    # The relative fall of a loss that may be negative, or begins at zero, has no meaning.
    return (untrained - lowest) / untrained if untrained > 0 else 1.0


def _end_part(untrained: float, lowest: float) -> float:
    """Return the part of a fall under normalised gradients that is complete when the loss has fallen by `_LEVEL`."""
    depth = _depth(untrained, lowest)
    return min(max(_LEVEL / depth, _LEAST_END), _MOST_END) if depth > 0 else _MOST_END


def _end_of_fall(curve: np.ndarray, untrained: float) -> int:
    """Return the place of a curve's minimum before its first rise by half of its largest fall."""
    rise = curve - np.minimum.accumulate(curve)
    risen = np.flatnonzero(rise > _RISE * max(0.0, untrained - curve.min()))
    return int(np.argmin(curve[: risen[0]] if len(risen) else curve))


def _crossing(lrs: Sequence[float], curve: np.ndarray, level: float) -> float:
    """Return the rate of a curve's last downward crossing of `level`, interpolated in log lr."""
    above = np.flatnonzero(curve > level)
    if not len(above):
        return lrs[0]
    last = int(above[-1])
    if last + 1 >= len(curve):
        return lrs[last]
    part = (curve[last] - level) / (curve[last] - curve[last + 1])
    return float(lrs[last] * (lrs[last + 1] / lrs[last]) ** part)


def _leaving(lrs: Sequence[float], curve: np.ndarray, level: float) -> float:
    """Return the rate of a curve's last upward crossing of `level`, interpolated in log lr; else the last rate."""
    last = int(np.flatnonzero(curve <= level)[-1])
    if last + 1 >= len(curve):
        return lrs[last]
    part = (level - curve[last]) / (curve[last + 1] - curve[last])
    return float(lrs[last] * (lrs[last + 1] / lrs[last]) ** part)


def _variance_factor(smoothing: float) -> float:
    """Return the variance of a value smoothed both ways, as a share of one loss's."""
    # Sums of a two-sided geometric series: (1 + b) / (1 - b) for the weights, the same of b^2 for their squares.
    squares = (1 + smoothing**2) / (1 - smoothing**2)
    return squares * ((1 - smoothing) / (1 + smoothing)) ** 2
