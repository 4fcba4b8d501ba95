"""A line of a history: what one recorded run measured, kept small, with what its numbers depend on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fusetune.bench.gate import Measured, Metric

# Of each line. docs/records.md says what each version brought.
SCHEMA_VERSION = 1
# What a run's speed depends on, of all that is known of a machine.
MACHINE_FACTS = (
    "device",
    "device_name",
    "cpu",
    "cpu_capability",
    "cores",
    "cpu_quota",
    "threads",
    "memory_bytes",
    "os",
    "compute_capability",
    "cuda",
    "cudnn",
    "driver",
)
_DIGITS = 6
_UNIX = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LATEST_S = (datetime(9998, 12, 31, tzinfo=timezone.utc) - _UNIX).total_seconds()


def _with_zone(text: str) -> str:
    """Take a time that can be shown, with its time zone."""
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("has no time zone")
    if not 0 <= _seconds(text) <= _LATEST_S:
        raise ValueError("is before 1970 or after 9998")
    return text


# ISO 8601 with a time zone, as `datetime.isoformat` writes it.
Time = Annotated[str, AfterValidator(_with_zone)]
Numbers = list[float]
Fact = str | float | int | bool | None


class _Line(BaseModel):
    """A part of a line. Unknown keys stay, for a later version may write more."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class QuartileLists(_Line):
    """Quartiles of the rounds of each process, one entry a process.

    Args:
        q1, median, q3: lists of equal length.
    """

    q1: Numbers
    median: Numbers
    q3: Numbers

    @model_validator(mode="after")
    def _are_equally_long(self) -> QuartileLists:
        if not len(self.q1) == len(self.median) == len(self.q3):
            raise ValueError("q1, median and q3 have different lengths")
        return self


class MetricEntry(_Line):
    """One metric of a benchmark.

    Args:
        unit, better, comparison: see `bench.gate.Metric`.
        median: of the rounds of each process, or its only value. Null: the process missed its target.
        q1, q3: the same, where a process has several rounds. Null: each has one.
    """

    unit: str
    better: Literal["lower", "higher", "neither"]
    comparison: Literal["timing", "exact", "learning"]
    median: list[float | None] = Field(min_length=1)
    q1: Numbers | None = None
    q3: Numbers | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> MetricEntry:
        for name in ("q1", "q3"):
            quartiles = getattr(self, name)
            if quartiles is not None and len(quartiles) != len(self.median):
                raise ValueError(f"{name} and median have different lengths")
        if self.comparison == "timing" and any(value is not None and value <= 0 for value in self.median):
            raise ValueError("a timing of 0 or less")
        return self


class BenchmarkEntry(_Line):
    """What the processes of one benchmark measured.

    Args:
        metrics: name -> metric, of the processes that did not fail.
        reference: the reference loop beside each of these processes. Null: there was none.
        failures: a sentence for each process that failed.
        threads: of the processes, where they are known to be the same. Else null.
    """

    metrics: dict[str, MetricEntry]
    reference: QuartileLists | None = None
    failures: list[str] = []
    threads: int | None = None


class Entry(_Line):
    """One run.

    Args:
        schema_version: of the line.
        run_id: unique. Of two lines with the same one, one counts.
        source: `run` or `gate`.
        spec_path: of the spec, relative to the top of the repository. Null: a command was measured.
        measured_command: the command line. Null: a spec was measured.
        recorded: when the line was written.
        commit, commit_time, subject: of the repository in which the spec lies. Null where there is none.
        dirty: whether tracked files differed from the commit, the history itself left out.
        machine: facts, see `MACHINE_FACTS`.
        versions: library -> version. Null where it is not installed.
        stand_in: which generated data stood in for which set. Null: none.
        benchmarks: name -> what its processes measured.
    """

    schema_version: int
    run_id: str = Field(min_length=1)
    source: str
    recorded: Time
    spec_path: str | None = None
    measured_command: str | None = None
    commit: str | None = None
    commit_time: Time | None = None
    subject: str | None = None
    dirty: bool | None = None
    machine: dict[str, Fact] = {}
    versions: dict[str, str | None] = {}
    stand_in: str | None = None
    benchmarks: dict[str, BenchmarkEntry]

    @property
    def time_s(self) -> float:
        """Seconds since 1970 of the commit, or of the recording where there is no commit."""
        return _seconds(self.commit_time or self.recorded)

    @property
    def order(self) -> tuple[float, float, str]:
        """What runs are ordered by: the commit's time, then that of the recording."""
        return self.time_s, self.recorded_s, self.run_id

    @property
    def recorded_s(self) -> float:
        """When it was recorded, in seconds since 1970."""
        return _seconds(self.recorded)


def benchmark_entry(measured: list[Measured], threads: int | None = None) -> BenchmarkEntry:
    """Condense what the processes of a benchmark measured.

    Args:
        measured: one a process, at least one.
        threads: of the processes, where known.

    Example:
        >>> timed = Measured({"step_time_s": Metric((3.0, 1.0, 2.0))})
        >>> entry = benchmark_entry([timed, Measured(failure="it diverged")])
        >>> entry.metrics["step_time_s"].median, entry.metrics["step_time_s"].q1, entry.failures
        ([2.0], [1.5], ['it diverged'])
    """
    ran = [process for process in measured if not process.failure]
    names = dict.fromkeys(name for process in ran for name in process.metrics)
    # A process without a metric would leave the lists of metrics and reference out of step.
    return BenchmarkEntry(
        metrics={
            name: _metric_entry([process.metrics[name] for process in ran])
            for name in names
            if all(name in process.metrics for process in ran)
        },
        reference=_reference(ran),
        failures=[process.failure for process in measured if process.failure],
        threads=threads,
    )


def as_line(entry: Entry) -> dict[str, Any]:
    """Return the JSON object of an entry: keys in alphabetical order throughout, and no field that has its default."""
    content = _sorted(entry.model_dump(mode="json", exclude_defaults=True))
    assert isinstance(content, dict)
    return content


def first_fault(error: ValidationError) -> str:
    """Say what is wrong with a line, by the first finding."""
    found = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(map(str, found["loc"])) or "the line"
    if found["type"] == "missing":
        return f"{place} is missing"
    return f"{place}: {found['msg'].removeprefix('Value error, ')}"


def quartiles(values: tuple[float, ...]) -> tuple[float, float, float]:
    """Return the quartiles of a process's rounds, with six digits. An infinite value stays.

    Example:
        >>> quartiles((1.0, 2.0, 3.0)), quartiles((0.123456789,))
        ((1.5, 2.0, 2.5), (0.123457, 0.123457, 0.123457))
    """
    import numpy as np

    if len(values) == 1 or not all(map(math.isfinite, values)):
        only = _rounded(sorted(values)[len(values) // 2])
        return only, only, only
    q1, median, q3 = (_rounded(float(value)) for value in np.quantile(values, (0.25, 0.5, 0.75)))
    return q1, median, q3


def _metric_entry(metrics: list[Metric]) -> MetricEntry:
    first = metrics[0]
    exact = first.comparison == "exact" and all(len(metric.values) == 1 for metric in metrics)
    # A count is kept to its last digit.
    found = [(metric.values[0],) * 3 if exact else quartiles(metric.values) for metric in metrics]
    finite = all(math.isfinite(value) for each in found for value in each)
    rounds = finite and any(len(metric.values) > 1 for metric in metrics)
    return MetricEntry(
        unit=first.unit,
        better=first.better,
        comparison=first.comparison,
        median=[each[1] if math.isfinite(each[1]) else None for each in found],
        q1=[each[0] for each in found] if rounds else None,
        q3=[each[2] for each in found] if rounds else None,
    )


def _reference(ran: list[Measured]) -> QuartileLists | None:
    if not ran or not all(process.ref for process in ran):
        return None
    found = [quartiles(process.ref) for process in ran]
    return QuartileLists(
        **{name: [each[index] for each in found] for index, name in enumerate(("q1", "median", "q3"))}
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _sorted(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _sorted(content[key]) for key in sorted(content)}
    return [_sorted(each) for each in content] if isinstance(content, list) else content


def _seconds(text: str) -> float:
    return (datetime.fromisoformat(text) - _UNIX).total_seconds()
