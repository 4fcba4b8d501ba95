"""Learning curves of a configuration: medians over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusetune.bench.results import Record, RunInfo, columns_of
from fusetune.tuner.training import Target


@dataclass(frozen=True)
class CurvePoint:
    """The end of an epoch, as medians over the seeds that have it.

    Args:
        epoch: counted from 1.
        time_s: training clock.
        value: of the metric, finite.
        n: number of seeds.
    """

    epoch: int
    time_s: float
    value: float
    n: int


def curve_metric(target: Target | None) -> str:
    """Return the metric of a run's learning curves: that of its target, or the validation accuracy."""
    return target.metric if target else "val_accuracy"


def curve_fields(run: RunInfo) -> tuple[str, ...]:
    """Return the fields of a curve's entry that `median_curve` and `on_one_kind` read for a run's report."""
    return ("epoch", "step", "time_s", curve_metric(run.spec.target))


def median_curve(records: Sequence[Record], metric: str) -> tuple[CurvePoint, ...]:
    """Return the median of a metric at each epoch that more than half of the trials have a finite value for.

    Later epochs would show the few slow trials alone, as if all had become worse.

    Args:
        records: trials of one configuration, which differ in the seed.
        metric: field of a curve's entry, such as `val_accuracy`.

    Example:
        >>> curves = [[{"epoch": 1, "time_s": 2.0, "val_loss": loss}] for loss in (3.0, 1.0, 2.0)]
        >>> records = [Record(f"seed={seed}", {}, seed, "ok", curve=curve) for seed, curve in enumerate(curves)]
        >>> median_curve(records, "val_loss")
        (CurvePoint(epoch=1, time_s=2.0, value=2.0, n=3),)
    """
    epoch, time_s, value = columns_of((record.curve for record in records), ("epoch", "time_s", metric))
    kept = np.isfinite(epoch) & np.isfinite(time_s) & np.isfinite(value)
    epoch = np.trunc(epoch[kept])
    order = np.argsort(epoch, kind="stable")
    epochs, starts, counts = np.unique(epoch[order], return_index=True, return_counts=True)
    middles = []
    for numbers in (time_s[kept], value[kept]):
        if len(set(counts.tolist())) == 1:  # as where every seed has every epoch
            ordered = np.sort(numbers[order].reshape(len(epochs), -1)).ravel()
        else:
            ordered = numbers[np.lexsort((numbers, epoch))]
        low, high = ordered[starts + (counts - 1) // 2], ordered[starts + counts // 2]
        middles.append(np.where(low == high, low, (low + high) / 2).tolist())
    return tuple(
        CurvePoint(int(which), middle_time, middle, count)
        for which, count, middle_time, middle in zip(epochs, counts.tolist(), *middles, strict=True)
        if 2 * count > len(records)
    )
