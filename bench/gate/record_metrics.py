"""What the gate compares of the record of a training or a kernel, and how."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import pairwise

from fusetune.bench.gate.measured import Comparison, Metric
from fusetune.bench.results import KernelOutcome, Record
from fusetune.bench.units import METRICS

# Others say the same in other words, such as samples_per_s, or change with the machine's past, such as setup_s. They
# are compared where the spec's `gate:` section names them.
GATED = ("time_to_target_s", "steps_to_target", "step_time_s", "final_val_accuracy", "peak_bytes")
GATED_OF_KERNELS = ("latency_s", "launches", "moved_bytes", "extra_bytes")
ROUNDS = 30

_TO_TARGET = ("time_to_target_s", "steps_to_target", "epochs_to_target", "samples_to_target")
_MISSED = ("missed_target", "stopped_early")
_FAILURES = {"failed": "failed", "diverged": "diverged", "out_of_memory": "ran out of memory"}


def failure_in(record: Record) -> str:
    """Say in one sentence how a training or a kernel failed. Nothing where it did not. A missed target is no failure.

    Example:
        >>> failure_in(Record("seed=0", {}, 0, "diverged", reason="the loss is not finite in epoch 2"))
        'the training diverged: the loss is not finite in epoch 2'
    """
    if record.status not in _FAILURES:
        return ""
    subject = "kernel" if isinstance(record.outcome, KernelOutcome) else "training"
    return f"the {subject} {_FAILURES[record.status]}" + (f": {record.reason}" if record.reason else "")


def metrics_in(record: Record, *, has_target: bool, also: Collection[str] = ()) -> dict[str, Metric]:
    """Return the metrics of a training or a kernel that did not fail.

    A target that was missed takes infinitely many steps. The time of a step has up to 30 values: the means of
    successive parts of the training.

    Args:
        record: of one training.
        has_target: whether the spec names a target.
        also: metrics to compare besides those of `GATED`. What the record does not have is left out.

    Example:
        >>> record = Record("seed=0", {}, 0, "missed_target", values={"step_time_s": 0.5}, samples={})
        >>> metrics = metrics_in(record, has_target=True)
        >>> metrics["steps_to_target"].values, metrics["step_time_s"].values
        ((inf,), (0.5,))
    """
    values = dict(record.values)
    if has_target and record.status in _MISSED:
        values |= dict.fromkeys(_TO_TARGET, math.inf)
    metrics = {}
    gated = GATED_OF_KERNELS if isinstance(record.outcome, KernelOutcome) else GATED
    for name in dict.fromkeys((*gated, *also)):
        if name in values and name in METRICS:
            metric = METRICS[name]
            rounds = parts(record.samples.get(name, ())) if name == "step_time_s" else ()
            if name == "latency_s":
                rounds = tuple(record.samples.get(name, ()))
            metrics[name] = Metric(
                rounds or (float(values[name]),), metric.unit, metric.better, _comparison(name)
            )
    return metrics


def parts(samples: Sequence[float], count: int = ROUNDS) -> tuple[float, ...]:
    """Return the means of `count` successive parts of the samples, which differ by one in length at most.

    Fewer samples are returned as they are.

    Example:
        >>> parts([1.0, 3.0, 5.0, 7.0, 9.0], 2), parts([1.0, 2.0], 30), parts([])
        ((2.0, 7.0), (1.0, 2.0), ())
    """
    count = min(count, len(samples))
    ends = [number * len(samples) // max(1, count) for number in range(count + 1)]
    return tuple(sum(samples[start:end]) / (end - start) for start, end in pairwise(ends))


def _comparison(name: str) -> Comparison:
    """Return how a metric of a training is compared."""
    unit = METRICS[name].unit
    if name in _TO_TARGET or unit in ("fraction", "nats", "none"):
        return "learning"
    return "exact" if unit in ("bytes", "count") else "timing"
