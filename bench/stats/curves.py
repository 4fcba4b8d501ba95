"""Learning curves of a configuration: medians over its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fusetune.bench.results import Record
from fusetune.bench.stats.significance import median


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
    found: dict[int, list[tuple[float, float]]] = {}
    for record in records:
        for entry in record.curve:
            epoch, time_s, value = (entry.get(name) for name in ("epoch", "time_s", metric))
            if epoch is not None and time_s is not None and value is not None and math.isfinite(value):
                found.setdefault(int(epoch), []).append((time_s, value))
    return tuple(
        CurvePoint(
            epoch, median([time_s for time_s, _ in pairs]), median([value for _, value in pairs]), len(pairs)
        )
        for epoch, pairs in sorted(found.items())
        if 2 * len(pairs) > len(records)
    )
