"""A stored result: what one process measured some time ago, whoever wrote the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fusetune.bench.gate import Measured, Metric
from fusetune.bench.units import METRICS

# The kinds of runs, and what pytest-benchmark writes.
Form = Literal["run", "search", "lr-range", "batch-size", "kernels", "pytest-benchmark"]
Comparison = Literal["timing", "exact", "learning"]

PYTEST_METRIC = "time_s"
# A timing in a baseline is these quantiles of its rounds. Equal ones are taken of the other side.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_DIGITS = 4
# Form -> metric -> how it is compared, in the order of the rows. A time to target holds a process's speed, so that
# several seeds of one process are no independent evidence of it.
COMPARED: dict[str, dict[str, Comparison]] = {
    "run": {
        "time_to_target_s": "timing",
        "steps_to_target": "learning",
        "step_time_s": "timing",
        "final_val_accuracy": "learning",
        "peak_bytes": "exact",
    },
    # What a search finds varies, so its winner's trainings on fresh seeds are compared.
    "search": {
        "time_to_target_s": "timing",
        "steps_to_target": "learning",
        "step_time_s": "timing",
        "final_val_accuracy": "learning",
        "peak_bytes": "exact",
    },
    "lr-range": {"suggested_lr": "exact", "divergence_lr": "exact"},
    # A probe reads the memory of a process, which varies a little.
    "batch-size": {"step_time_s": "timing", "needed_bytes": "learning", "largest_batch_size": "learning"},
    "kernels": {
        "latency_s": "timing",
        "launches": "exact",
        "moved_bytes": "exact",
        "extra_bytes": "exact",
    },
    "pytest-benchmark": {PYTEST_METRIC: "timing"},
}
# Metrics that no record has, because they are made of several records or stem from other programs.
_OWN: dict[str, tuple[str, Literal["lower", "higher", "neither"]]] = {
    "largest_batch_size": ("count", "higher"),
    PYTEST_METRIC: ("s", "lower"),
}


@dataclass(frozen=True)
class Stored:
    """What one process measured.

    Args:
        path: of the file or the directory.
        form: the kind of the run, or `pytest-benchmark`.
        title: the spec's name, or the program that wrote the file.
        benchmarks: benchmark -> seed -> what was measured. Without seeds it is 0.
        machine: where it was measured, see `bench.machine.describe_machine`. What is not known is missing.
        versions: library -> version.
        commit: None: not known.
        dirty: whether there were uncommitted changes; None: not known.
        settings: what must be equal on both sides: the resolved spec, or the options of the benchmarks.
        data: fingerprint of the data, see `run.json`.
        stand_in: which generated data stood in for which set; None: none did.
        jobs: trials at once.
        threads: numbers of threads of the trials.
        peak_bytes_of: what `peak_bytes` counts.
        clock: the timer, where a program can choose it.
        clock_hz: of the processor; None: not known.
        intervals: benchmark -> 95 % interval of the suggested learning rate.
        summaries: benchmarks of which the raw samples were not kept.
        started: when, as the file has it.
        condensed: whether timings are quantiles, as in a baseline.
        notes: what was passed over when it was read.
    """

    path: Path
    form: Form
    title: str
    benchmarks: Mapping[str, Mapping[int, Measured]]
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str | None] = field(default_factory=dict)
    commit: str | None = None
    dirty: bool | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    stand_in: str | None = None
    jobs: int = 1
    threads: tuple[int, ...] = ()
    peak_bytes_of: tuple[str, ...] = ()
    clock: tuple[str, ...] = ()
    clock_hz: float | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    summaries: frozenset[str] = frozenset()
    started: str = ""
    condensed: bool = False
    notes: tuple[str, ...] = ()

    @property
    def device(self) -> str | None:
        """The name of the device; None: not known."""
        name = self.machine.get("device_name")
        return str(name) if name else None


def metric(name: str, form: Form, values: tuple[float, ...]) -> Metric:
    """Return a metric with the unit, the direction and the comparison that its name and the form of its file have.

    Example:
        >>> metric("steps_to_target", "run", (float("inf"),))
        Metric(values=(inf,), unit='count', better='lower', comparison='learning')
    """
    unit, better = _OWN[name] if name in _OWN else (METRICS[name].unit, METRICS[name].better)
    return Metric(values, unit, better, COMPARED[form][name])


def condensed(stored: Stored) -> Stored:
    """Return what a baseline keeps of a result: five quantiles of each timing, and rounded numbers.

    Both sides of a comparison with a baseline are condensed, so that equal runs stay equal.

    Example:
        >>> times = tuple(0.001 * (1 + i) for i in range(41))
        >>> run = Stored(Path("r"), "run", "digits", {"digits": {0: Measured({"step_time_s": metric(
        ...     "step_time_s", "run", times)})}})
        >>> condensed(run).benchmarks["digits"][0].metrics["step_time_s"].values
        (0.003, 0.011, 0.021, 0.031, 0.039)
    """
    if stored.condensed:
        return stored
    benchmarks = {
        name: {
            seed: replace(
                measured,
                metrics={key: _condensed(found) for key, found in measured.metrics.items()},
                contention=measured.contention and rounded(measured.contention, 2),
            )
            for seed, measured in seeds.items()
        }
        for name, seeds in stored.benchmarks.items()
    }
    return replace(stored, benchmarks=benchmarks, condensed=True)


def _condensed(found: Metric) -> Metric:
    values = found.values
    if found.comparison == "timing" and len(values) > 1:
        values = tuple(np.quantile(values, QUANTILES).tolist())
    if found.unit in ("count", "bytes"):
        return replace(found, values=values)
    digits = _DIGITS if found.comparison == "timing" else 6
    return replace(found, values=tuple(rounded(value, digits) for value in values))


def rounded(value: float, digits: int) -> float:
    """Round to so many significant digits.

    Example:
        >>> rounded(0.00123456, 4), rounded(float("inf"), 4), rounded(0.0, 4)
        (0.001235, inf, 0.0)
    """
    return float(f"{value:.{digits}g}")
