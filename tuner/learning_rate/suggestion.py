"""The rule from the curves of a learning rate sweep to one rate, with bounds for cyclical schedules.

A training must stay below the rate at which it becomes unstable. A sweep makes few steps at each rate, so its loss
diverges late. Let lr_p be the rate at which p percent of the fall to the lowest smoothed loss are complete.

    plain gradients (SGD, momentum):      lr_50 min(lr_50 / lr_20 / 4.5, 1), then shrunk towards the usual rate
    normalised gradients (Adam, RMSprop): lr_p min(fall / untrained loss / 0.5, 1), where the loss has fallen by 35 %
                                          of the untrained model's, p between 50 and 75

Both are multiplied by n / 12.4, with n the steps per decade there, because a slower sweep falls earlier. Both are
multiplied by min(z / 20, 1), with z the fall in standard errors: noise hides how late a shallow fall is. Losses are
clipped at the untrained model's: only the rate of an explosion matters, and its height would hide a fall beside it.
Small batches make SGD's loss jump while it falls, and make training unstable at rates that larger batches allow. Let r
be the noise within the fall as a share of it. Where 0.12 / r is below z / 20, it replaces it, down to 0.4.

Plain gradients: the width of the fall shows how late the sweep is. A wide fall began at rates that the model tolerates.
A sudden one, as when layers leave a plateau with small gradients, began at rates that are hardly stable. A factor of
about two remains uncertain. Within it the rate is shrunk towards what such an optimizer usually gets: lr becomes
lr (usual / lr)^0.3, changed by at most a factor of two, with usual = 1 - momentum, that is 0.1 for a momentum of 0.9.

Normalised gradients: steps are as long on a plateau as elsewhere, so the depth of the fall counts for more than its
width. A shallow fall means that the sweep became unstable before the model had learnt. Adam moves every weight by about
the rate in each step, so its rate stays below two fifths of the weights' root mean square. Above it, a few steps
destroy what initialisation and training have made.

All this assumes an untrained model that is no worse than a blind guess: the best output that is the same for every
sample, whose loss is the entropy of the labels. A worse model first unlearns its initial outputs, at rates far below
those at which it learns, and a sweep may be too short for more. If the loss after a fifth of the fall is still above a
blind guess's, another rule applies: a tenth of the edge, the highest rate at which the loss is within a tenth of its
fall of the lowest. Noise hardly moves that edge, and repeats agree on it. The shrinkage and the bound by the weights'
size stay.

Chosen on 39 small workloads: MLPs and CNNs with and without BatchNorm, relu, tanh and sigmoid, 8x8 and 28x28 pixels,
batches of 16 to 128. The rule for worse models was chosen on 22 more, spirals and generated data among them.
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
# A cycle stays at its peak for a few steps only, and its mean is about half of the peak.
_PEAK = 1.5
_LEAST_CYCLE = 4.0


@dataclass(frozen=True)
class Suggestion:
    """A rate, or the reason why there is none.

    Args:
        lr: the suggested rate, or None where the curves show none.
        interval: 95 % interval of `lr` from the spread of the curves; None with fewer than two.
        low: first rate of a triangular or one-cycle schedule, below `high`.
        high: its peak.
        reason: one sentence.
        warnings: doubts about the suggestion, a sentence each.
        edge: where `lr` rests on it, the highest rate at which the loss is near its minimum.
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
    """Suggest a rate from the repeats of one sweep.

    The curves are averaged up to the end of the shortest. The interval is Student's, of the logarithms of the rates
    that each curve alone suggests, cut off at the ends of the sweep.

    Args:
        curves: at least one, over the same rates.
        normalised: whether the optimizer's steps are as long for small gradients as for large ones, as Adam's are.
        weight_size: the untrained weights' root mean square, which bounds the rate of normalised steps; None: no bound.
        usual_lr: a usual rate for such an optimizer, above 0; None: there is none.
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
        # The edge lies beyond the sweep, at an unknown distance. The fall before it is the better guide.
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
    """Return the interval of the suggestion from the rates that each curve alone suggests."""
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
    # Rates outside of the sweep were not tried.
    first, last = curves[0].lrs[0], max(curve.lrs[-1] for curve in curves)
    low, high = lr * math.exp(-min(half, _LONGEST)), lr * math.exp(min(half, _LONGEST))
    return min(lr, max(low, first)), max(lr, min(high, last))


def _warnings(
    fall: Fall, curves: Sequence[Curve], interval: tuple[float, float] | None, unseen: bool
) -> Iterator[str]:
    """Yield doubts about the suggestion; `unseen`: the sweep ends below the edge that it rests on."""
    first, last = curves[0].lrs[0], max(curve.lrs[-1] for curve in curves)
    if fall.from_the_start:
        yield f"the loss falls from the lowest rate, {first:g}, on; sweep from a lower lr_min"
    if unseen or (fall.to_the_end and not any(curve.diverged for curve in curves)):
        still = "is still near its minimum" if unseen else "still falls"
        yield f"the loss {still} at the highest rate, {last:g}; sweep to a higher lr_max"
    if fall.suggestion < first:
        yield f"the suggestion lies below the lowest rate, {first:g}; sweep from a lower lr_min"
    if not fall.learns:
        yield (
            f"the loss does not clearly fall below a blind guess's, {fall.blind:.3g}: the sweep shows which rates the "
            "model tolerates, not whether it learns at them; confirm the suggestion or make slower sweeps"
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
    return Suggestion(None, None, None, None, reason)
