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

All that takes an untrained model to be no worse than a blind guess: the best output that is the same for every
sample, whose loss is the entropy of the labels. A model that begins with bad guesses first unlearns them, at rates far
below those at which it learns, and a sweep may have no time for more. Where a fifth of the fall, which the rule reads,
is still above the blind guess's loss, the rate comes from the other end: a tenth of the highest rate at which the loss
is within a tenth of its fall of the lowest. That edge hardly knows noise, and repeats agree on it; the pull towards the
usual rate and the bound by the weights' size stay as they are.

Chosen on 39 small workloads: MLPs and CNNs with and without BatchNorm, relu, tanh and sigmoid, 8x8 and 28x28 pixels,
batches of 16 to 128; the rule for bad beginnings on 22 more, spirals and generated data among them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fusetune.tuner.learning_rate.curve import LEAST_UNTRAINED, Curve, bounded
from fusetune.tuner.learning_rate.fall import OF_WEIGHT_SIZE, Fall, Optimizer, find_fall, unlearns

_CONFIDENCE = 0.95
_LONGEST = 100.0  # keeps exp() finite
_WIDE = 10.0
_HARDLY_KNOWN = 0.25
# A cycle stays at its peak for a few steps only, and its mean is about half of it.
_PEAK = 1.5
_LEAST_CYCLE = 4.0


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
        edge: where `lr` rests on it, the highest rate at which the loss is still about as low as anywhere.
    """

    lr: float | None
    interval: tuple[float, float] | None
    low: float | None
    high: float | None
    reason: str
    warnings: tuple[str, ...] = ()
    edge: float | None = None


def suggest(
    curves: Sequence[Curve],
    *,
    normalised: bool = False,
    weight_size: float | None = None,
    usual_lr: float | None = None,
    blind_loss: float | None = None,
) -> Suggestion:
    """Judge the curves of one sweep's repeats together.

    They are averaged up to where the shortest ends. The interval is Student's, from the logarithms of what each curve
    alone would suggest, cut off at the ends of the sweep.

    Args:
        curves: at least one, over the same rates.
        normalised: whether the optimizer's steps are as long for small gradients as for large ones, as Adam's are.
        weight_size: the untrained weights' root mean square, which bounds the rate of normalised steps; None: no bound.
        usual_lr: a rate that models get with such an optimizer, above 0; None: there is none.
        blind_loss: the loss of the best output that is the same for every sample; None: unknown.

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
    if length <= LEAST_UNTRAINED:
        return _cannot_tell(f"the loss diverged within the first {length} steps, at the lowest rates")
    lrs = curves[0].lrs[:length]
    most = OF_WEIGHT_SIZE * weight_size if normalised and weight_size else math.inf
    optimizer = Optimizer(normalised, most, usual_lr)
    mean = np.mean([bounded(curve)[:length] for curve in curves], axis=0)
    blind = blind_loss if blind_loss is not None and unlearns(mean, blind_loss) else None
    fall = find_fall(lrs, mean, optimizer, blind)
    unseen = fall.blind is not None and fall.end >= lrs[-1] and not any(curve.diverged for curve in curves)
    if unseen and fall.learns:
        # Nobody knows how far beyond the sweep the edge is; what was learned before is the better guide.
        blind, unseen = None, False
        fall = find_fall(lrs, mean, optimizer)
    if not fall.is_real:
        ending = " before it diverged" if any(curve.diverged for curve in curves) else " at best"
        return _cannot_tell(
            f"the loss never falls by more than its noise: from {fall.untrained:.3g} to {fall.lowest:.3g}{ending}"
        )
    lr = fall.suggestion
    interval = None if fall.is_bounded or unseen else _interval(lr, curves, optimizer, blind)
    high = _PEAK * lr
    return Suggestion(
        lr,
        interval,
        low=min(fall.begin, high / _LEAST_CYCLE),
        high=high,
        reason=fall.sentence,
        warnings=tuple(_warnings(fall, curves, interval, unseen)),
        edge=None if fall.blind is None else fall.end,
    )


def _interval(
    lr: float, curves: Sequence[Curve], optimizer: Optimizer, blind: float | None
) -> tuple[float, float] | None:
    """Return the interval of the suggestion from what each curve alone suggests."""
    falls = [
        find_fall(curve.lrs, bounded(curve), optimizer, blind)
        for curve in curves
        if len(curve.losses) > LEAST_UNTRAINED
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


def _warnings(
    fall: Fall, curves: Sequence[Curve], interval: tuple[float, float] | None, unseen: bool
) -> Iterator[str]:
    """Say what the suggestion may suffer from; `unseen` says that the sweep ends below the edge it rests on."""
    first, last = curves[0].lrs[0], max(curve.lrs[-1] for curve in curves)
    if fall.from_the_start:
        yield f"the loss falls from the lowest rate, {first:g}, on; sweep from a lower lr_min"
    if unseen or (fall.to_the_end and not any(curve.diverged for curve in curves)):
        still = "is still about as low as anywhere" if unseen else "still falls"
        yield f"the loss {still} at the highest rate, {last:g}; sweep to a higher lr_max"
    if fall.suggestion < first:
        yield f"the suggestion lies below the lowest rate, {first:g}; sweep from a lower lr_min"
    if not fall.learns:
        yield (
            f"the loss does not clearly fall below a blind guess's, {fall.blind:.3g}: the sweep shows which rates the "
            "model bears, not whether it learns at them; confirm the suggestion or make slower sweeps"
        )
    if interval is not None and interval[1] > _WIDE * interval[0]:
        share = math.log(interval[1] / interval[0]) / math.log(last / first)
        guess = (
            f", {100 * share:.0f} % of the sweep: the suggestion is a guess" if share > _HARDLY_KNOWN else ""
        )
        yield f"the repeats disagree by a factor of {interval[1] / interval[0]:.3g}{guess}; use more of them"
    if len(curves) > 1 and interval is None and not fall.is_bounded and not unseen:
        yield "no two repeats by themselves fall by more than noise: the suggestion has no interval; use more of them"
    if len(curves) > 1 and len({tuple(curve.losses) for curve in curves}) == 1:
        yield "all repeats saw the same batches in the same order, so the interval says nothing; shuffle the batches"


def _cannot_tell(reason: str) -> Suggestion:
    """Return no suggestion."""
    return Suggestion(None, None, None, None, reason)
