"""What the curves of a learning rate sweep say: one rate, bounds for cyclical schedules, or that they don't tell.

A training must stay below the rate at which it becomes unstable, but a sweep passes each rate in a few steps, so its
loss diverges late. Let lr_p be the rate at which p percent of the fall to the lowest smoothed loss is made.

    plain gradients (SGD, momentum):      lr_50 min(lr_50 / lr_20 / 4.5, 1), and from there towards the usual rate
    normalised gradients (Adam, RMSprop): lr_p min(fall / untrained loss / 0.5, 1), where the loss has fallen by 35 %
                                          of the untrained model's, p between 50 and 75

both times n / 12.4, with n the steps per decade there: a slower sweep falls earlier; and times min(z / 20, 1), with z
the fall in standard errors: where it hardly shows, nobody can say how late it is. A loss above the untrained model's
counts as that: what matters of an explosion is where it is, and its height would hide a fall beside it. Small batches
make SGD jump about while it falls, and training unstable at rates that larger ones stand: let r be the noise within the
fall as a share of it; where 0.12 / r is less than z / 20, it takes its place, down to 0.4.

How late a sweep under SGD is shows in the width of its fall: a fall over a wide range began at rates that the model
takes easily; a sudden one (layers leaving a plateau, where gradients are small) began at rates that are hardly stable.
That leaves open a factor of two or so, and within it other models with such an optimizer are a guide. The rate lr so
becomes lr (usual / lr)^0.3, at most twice or half of what it was, with usual = 1 - momentum: 0.1 for a momentum of 0.9.

Steps of normalised gradients are as long on a plateau as anywhere, and the sweep falls as fast as it may; how far it
has come then counts for more than how it came there. A loss that never falls so far says that the sweep had become
unstable before the model had learned. Adam moves every weight by about the rate in each step, so its rate stays below
two fifths of the weights' own size: above, a few steps undo what initialisation and training have made, and a loss that
falls once more is another model's.

Chosen on 39 small workloads: MLPs and CNNs with and without BatchNorm, relu, tanh and sigmoid, 8x8 and 28x28 pixels,
batches of 16 to 128.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

SMOOTHING = 0.7
# Of a sweep from 1e-7 to 10 in 100 steps, whose smoothing SMOOTHING is; others are smoothed over as many decades.
_STEPS_PER_DECADE = 99 / 8
_BEGIN, _END, _MARGIN = 0.2, 0.5, 4.5
_LEVEL, _LEAST_END, _MOST_END, _DEEP = 0.35, 0.5, 0.75, 0.5
_CLEAR_ERRORS = 20.0
_CALM, _LEAST_CALM = 0.12, 0.4
_OF_WEIGHT_SIZE = 0.4
_PULL, _MOST_PULL = 0.3, 2.0
# A shallow fall would seem to begin where noise dips, and so to be wide.
_BEGIN_ERRORS = 6.0
# The first steps move the model by next to nothing; their mean is the untrained model's loss.
_UNTRAINED_SHARE = 0.1
_LEAST_UNTRAINED = 3
# The lowest of a hundred smoothed values lies two or three standard errors under their mean by chance.
_LEAST_FALL_ERRORS = 6.0
_LEAST_FALL_SHARE = 0.005
_WATCHED_FROM = 10
_NOISE_DEVIATIONS = 6.0
_CONFIDENCE = 0.95
_LONGEST = 100.0  # keeps exp() finite
_WIDE = 10.0
# Of single losses; what lies higher is an explosion, and no averaging may spread it.
_BOUND_DEVIATIONS = 3.0
# Adam's loss can fall a second time, to a model that its first rise has ruined.
_RISE = 0.5
# A cycle stays at its peak for a few steps only, and its mean is about half of it.
_PEAK = 1.5
_LEAST_CYCLE = 4.0


@dataclass(frozen=True)
class Curve:
    """Losses against increasing rates, and whether the last of them has diverged; only that one may be not finite."""

    lrs: Sequence[float]
    losses: Sequence[float]
    diverged: bool


@dataclass(frozen=True)
class Suggestion:
    """What the curves say.

    Args:
        lr: the suggested rate, or None: the curves do not tell.
        interval: 95 % interval of `lr` from the spread of the curves; None with fewer than two.
        low: where a triangular or one-cycle schedule begins, below `high`.
        high: its peak.
        reason: one sentence.
        warnings: what the suggestion may suffer from, a sentence each.
    """

    lr: float | None
    interval: tuple[float, float] | None
    low: float | None
    high: float | None
    reason: str
    warnings: tuple[str, ...] = ()


class DivergenceWatch:
    """Tells, loss by loss, when a sweep has diverged: a loss that is not finite, or a rise that is not noise.

        s_i - min_{j<=i} s_j > max(|untrained loss|, its fall so far, 6 standard deviations of the first losses)

    where s is the debiased exponential average. The first ten losses give the scale; until then only a loss that is not
    finite counts.

    Example:
        >>> watch = DivergenceWatch()
        >>> [watch.diverged(loss) for loss in [2.0] * 12 + [float("nan")]][-2:]
        [False, True]
    """

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._average = 0.0
        self._best = math.inf

    def diverged(self, loss: float) -> bool:
        """Take the next loss and tell whether it, or the curve with it, has diverged."""
        if not math.isfinite(loss):
            return True
        self._losses.append(loss)
        self._average = SMOOTHING * self._average + (1 - SMOOTHING) * loss
        smoothed = self._average / (1 - SMOOTHING ** len(self._losses))
        self._best = min(self._best, smoothed)
        if len(self._losses) <= _WATCHED_FROM:
            return False
        first = self._losses[:_WATCHED_FROM]
        untrained = float(np.median(first))
        noise = _NOISE_DEVIATIONS * float(np.std(first))
        return smoothed - self._best > max(abs(untrained), untrained - self._best, noise)


def smoothed(losses: Sequence[float], smoothing: float = SMOOTHING) -> list[float]:
    """Average exponentially, looking back, without the bias of a start from zero.

        s_i = sum_{j<=i} b^(i-j) l_j / sum_{j<=i} b^(i-j)

    Example:
        >>> smoothed([4.0, 2.0], smoothing=0.5)
        [4.0, 2.6666666666666665]
    """
    values, average = [], 0.0
    for count, loss in enumerate(losses, start=1):
        average = smoothing * average + (1 - smoothing) * loss
        values.append(average / (1 - smoothing**count))
    return values


def smoothed_both_ways(losses: Sequence[float] | np.ndarray, smoothing: float = SMOOTHING) -> np.ndarray:
    """Average exponentially, looking back and ahead, so that the curve does not lag behind its losses.

        s_i = sum_j b^|i-j| l_j / sum_j b^|i-j|

    Example:
        >>> smoothed_both_ways([1.0, 2.0, 3.0], smoothing=0.5).tolist()[1]
        2.0
    """
    place = np.arange(len(losses))
    weights = smoothing ** np.abs(place[:, None] - place)
    return weights @ np.asarray(losses, dtype=np.float64) / weights.sum(1)


def suggest(
    curves: Sequence[Curve],
    *,
    normalised: bool = False,
    weight_size: float | None = None,
    usual_lr: float | None = None,
) -> Suggestion:
    """Judge the curves of one sweep's repeats together.

    They are averaged up to where the shortest ends. The interval is Student's, from the logarithms of what each curve
    alone would suggest, cut off at the ends of the sweep.

    Args:
        curves: at least one, over the same rates.
        normalised: whether the optimizer's steps are as long for small gradients as for large ones, as Adam's are.
        weight_size: the untrained weights' root mean square, which bounds the rate of normalised steps; None: no bound.
        usual_lr: a rate that models get with such an optimizer, above 0; None: there is none.

    Example:
        >>> lrs = [10 ** (-7 + 8 * i / 99) for i in range(100)]
        >>> losses = [2.3 - 2 / (1 + (0.05 / lr) ** 2) + 5 * lr**2 for lr in lrs]
        >>> suggestion = suggest([Curve(lrs, losses, diverged=False)])
        >>> round(suggestion.lr, 3), suggestion.interval
        (0.018, None)
        >>> suggest([Curve(lrs, [2.3] * 100, diverged=False)]).reason
        'the loss never falls by more than its noise: from 2.3 to 2.3 at best'
    """
    length = min(len(curve.losses) for curve in curves)
    if length <= _LEAST_UNTRAINED:
        return _cannot_tell(f"the loss diverged within the first {length} steps, at the lowest rates")
    lrs = curves[0].lrs[:length]
    most = _OF_WEIGHT_SIZE * weight_size if normalised and weight_size else math.inf
    optimizer = _Optimizer(normalised, most, usual_lr)
    fall = _find_fall(lrs, np.mean([_bounded(curve)[:length] for curve in curves], axis=0), optimizer)
    if not fall.is_real:
        ending = " before it diverged" if any(curve.diverged for curve in curves) else " at best"
        return _cannot_tell(
            f"the loss never falls by more than its noise: from {fall.untrained:.3g} to {fall.lowest:.3g}{ending}"
        )
    lr = fall.suggestion
    interval = _interval(lr, curves, optimizer)
    high = _PEAK * lr
    return Suggestion(
        lr,
        interval,
        low=min(fall.begin, high / _LEAST_CYCLE),
        high=high,
        reason=fall.sentence,
        warnings=tuple(_warnings(fall, curves, interval)),
    )


@dataclass(frozen=True)
class _Optimizer:
    """What is known of the optimizer: `most` is the highest rate that it may get; see `suggest` for the others."""

    normalised: bool
    most: float
    usual_lr: float | None


@dataclass(frozen=True)
class _Fall:
    """How a curve falls: its levels, their standard error, and the rates where parts of the fall are made."""

    untrained: float
    lowest: float
    error: float
    roughness: float
    begin: float
    end: float
    end_part: float
    steps_per_decade: float
    optimizer: _Optimizer
    from_the_start: bool
    to_the_end: bool

    @property
    def is_real(self) -> bool:
        """Whether the curve falls by more than noise can explain."""
        fall = self.untrained - self.lowest
        return fall > max(_LEAST_FALL_ERRORS * self.error, _LEAST_FALL_SHARE * abs(self.untrained))

    @property
    def suggestion(self) -> float:
        """The rule of this module."""
        return min(self._read_off * self._pull, self.optimizer.most)

    @property
    def sentence(self) -> str:
        """The rule in numbers."""
        levels = f"of the fall of the loss from {self.untrained:.3g} to {self.lowest:.3g},"
        end = f"{100 * self.end_part:.0f} % is made at {self.end:.3g}"
        if self.suggestion == self.optimizer.most:
            return (
                f"{levels} {end}; there a step is as long as weights are large: {self.suggestion:.3g} is "
                f"{_OF_WEIGHT_SIZE:g} of their root mean square"
            )
        if self.optimizer.normalised:
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
        """What of the rate at the fall's end the training gets, from the fall's shape."""
        if not self.optimizer.normalised:
            return min(self.end / self.begin / _MARGIN, 1.0)
        return min(_depth(self.untrained, self.lowest) / _DEEP, 1.0)

    @property
    def _speed(self) -> float:
        """How many steps the sweep makes per decade, over those of the sweeps that the rule was chosen on."""
        return self.steps_per_decade / _STEPS_PER_DECADE

    @property
    def _clarity(self) -> float:
        """How far the fall stands out from noise, 1 at most."""
        clarity = (self.untrained - self.lowest) / (_CLEAR_ERRORS * self.error) if self.error else 1.0
        if not self.optimizer.normalised and self.roughness:
            clarity = min(clarity, max(_CALM / self.roughness, _LEAST_CALM))
        return min(clarity, 1.0)

    @property
    def _pull(self) -> float:
        """How far the usual rate draws this one to it; 1 where there is none."""
        if self.optimizer.usual_lr is None:
            return 1.0
        return min(max((self.optimizer.usual_lr / self._read_off) ** _PULL, 1 / _MOST_PULL), _MOST_PULL)


def _bounded(curve: Curve) -> np.ndarray:
    """Return a curve's losses, those above the untrained model's and its noise set to that bound."""
    losses = np.array(curve.losses, dtype=np.float64)
    seen = losses[np.isfinite(losses)]
    losses[~np.isfinite(losses)] = math.inf
    return np.minimum(losses, seen[: _untrained_steps(losses)].mean() + _BOUND_DEVIATIONS * _noise(seen))


def _untrained_steps(losses: np.ndarray) -> int:
    """Return how many of the first steps move the model by next to nothing."""
    return max(_LEAST_UNTRAINED, int(_UNTRAINED_SHARE * len(losses)))


def _noise(losses: np.ndarray) -> float:
    """Return the standard deviation of single losses about the curve."""
    # Differences of neighbours know nothing of the fall; their median nothing of the divergence.
    return float(np.median(np.abs(np.diff(losses)))) / (math.sqrt(2) * float(stats.norm.ppf(0.75)))


def _roughness(losses: np.ndarray) -> float:
    """Return the standard deviation of single losses about a curve that rises or falls evenly."""
    return float(np.median(np.abs(np.diff(losses, 2)))) / (math.sqrt(6) * float(stats.norm.ppf(0.75)))


def _depth(untrained: float, lowest: float) -> float:
    """Return the fall as a share of the untrained loss."""
    # A loss that may be negative or begins at zero has no depth to speak of.
    return (untrained - lowest) / untrained if untrained > 0 else 1.0


def _find_fall(lrs: Sequence[float], losses: np.ndarray, optimizer: _Optimizer) -> _Fall:
    """Measure the fall of one curve."""
    per_decade = (len(lrs) - 1) / math.log10(lrs[-1] / lrs[0])
    smoothing = SMOOTHING ** (_STEPS_PER_DECADE / per_decade)
    curve = smoothed_both_ways(losses, smoothing)
    untrained_steps = _untrained_steps(losses)
    untrained = float(np.mean(losses[:untrained_steps]))
    place = _end_of_fall(curve, untrained)
    lowest = float(curve[place])
    error = _noise(losses) * math.sqrt(_variance_factor(smoothing) + 1 / untrained_steps)
    fall = untrained - lowest
    end_part = _end_part(untrained, lowest) if optimizer.normalised else _END
    begin, end = (
        _crossing(lrs, curve[: place + 1], untrained - part)
        for part in (min(max(_BEGIN * fall, _BEGIN_ERRORS * error), fall / 2), end_part * fall)
    )
    after = min(max(1, bisect.bisect_left(lrs, end)), len(lrs) - 1)
    falling = losses[max(0, bisect.bisect_left(lrs, begin) - 1) : place + 2]
    return _Fall(
        untrained,
        lowest,
        error,
        _roughness(falling) / fall if len(falling) > _LEAST_UNTRAINED and fall > 0 else 0.0,
        begin,
        end,
        end_part,
        1 / math.log10(lrs[after] / lrs[after - 1]),
        optimizer,
        from_the_start=begin <= lrs[untrained_steps - 1],
        to_the_end=float(curve[-1]) <= lowest + error,
    )


def _end_part(untrained: float, lowest: float) -> float:
    """Return the part of a fall under normalised gradients that is made where the loss is down by `_LEVEL`."""
    depth = _depth(untrained, lowest)
    return min(max(_LEVEL / depth, _LEAST_END), _MOST_END) if depth > 0 else _MOST_END


def _end_of_fall(curve: np.ndarray, untrained: float) -> int:
    """Return where a curve is lowest before it first rises again by half of what it falls at most."""
    rise = curve - np.minimum.accumulate(curve)
    risen = np.flatnonzero(rise > _RISE * max(0.0, untrained - curve.min()))
    return int(np.argmin(curve[: risen[0]] if len(risen) else curve))


def _crossing(lrs: Sequence[float], curve: np.ndarray, level: float) -> float:
    """Return the rate at which a curve goes below `level` for the last time, between two steps in log lr."""
    above = np.flatnonzero(curve > level)
    if not len(above):
        return lrs[0]
    last = int(above[-1])
    if last + 1 >= len(curve):
        return lrs[last]
    part = (curve[last] - level) / (curve[last] - curve[last + 1])
    return float(lrs[last] * (lrs[last + 1] / lrs[last]) ** part)


def _variance_factor(smoothing: float) -> float:
    """Return the variance of a value smoothed both ways, as a share of one loss's."""
    # Sums of a two-sided geometric series: (1 + b) / (1 - b) for the weights, the same of b^2 for their squares.
    squares = (1 + smoothing**2) / (1 - smoothing**2)
    return squares * ((1 - smoothing) / (1 + smoothing)) ** 2


def _interval(lr: float, curves: Sequence[Curve], optimizer: _Optimizer) -> tuple[float, float] | None:
    """Return the interval of the suggestion from what each curve alone suggests."""
    falls = [
        _find_fall(curve.lrs, _bounded(curve), optimizer)
        for curve in curves
        if len(curve.losses) > _LEAST_UNTRAINED
    ]
    logs = [math.log(fall.suggestion) for fall in falls if fall.is_real]
    if len(logs) < 2:
        return None
    quantile = float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(logs) - 1))
    half = quantile * float(np.std(logs, ddof=1)) / math.sqrt(len(logs))
    # Nothing outside the sweep was looked at.
    first, last = curves[0].lrs[0], max(curve.lrs[-1] for curve in curves)
    low, high = lr * math.exp(-min(half, _LONGEST)), lr * math.exp(min(half, _LONGEST))
    return min(lr, max(low, first)), max(lr, min(high, last))


def _warnings(fall: _Fall, curves: Sequence[Curve], interval: tuple[float, float] | None) -> Iterator[str]:
    """Say what the suggestion may suffer from."""
    first, last = curves[0].lrs[0], max(curve.lrs[-1] for curve in curves)
    if fall.from_the_start:
        yield f"the loss falls from the lowest rate, {first:g}, on; sweep from a lower lr_min"
    if fall.to_the_end and not any(curve.diverged for curve in curves):
        yield f"the loss still falls at the highest rate, {last:g}; sweep to a higher lr_max"
    if fall.suggestion < first:
        yield f"the suggestion lies below the lowest rate, {first:g}; sweep from a lower lr_min"
    if interval is not None and interval[1] > _WIDE * interval[0]:
        yield f"the repeats disagree by a factor of {interval[1] / interval[0]:.3g}; use more of them"
    if len(curves) > 1 and len({tuple(curve.losses) for curve in curves}) == 1:
        yield "all repeats saw the same batches in the same order, so the interval says nothing; shuffle the batches"


def _cannot_tell(reason: str) -> Suggestion:
    """Return no suggestion."""
    return Suggestion(None, None, None, None, reason)
