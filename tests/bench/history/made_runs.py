"""Histories for tests: runs with numbers that are written down, not measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fusetune.bench.gate.measured import Measured, Metric
from fusetune.bench.history.entries import Entry, benchmark_entry
from fusetune.bench.history.log import append_entry

MACHINE = "some-cpu-2-cores-linux-x86_64"
FIRST = 1_760_000_000
DAY = 86_400


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def timing(*values: float) -> Metric:
    return Metric(values)


def process(step_time: float = 0.01, peak: int = 1024, steps: float = 96, **more: Metric) -> Measured:
    """What one process of a training measured, without a reference loop."""
    metrics = {
        "step_time_s": timing(step_time),
        "peak_bytes": Metric((float(peak),), "bytes", "lower", "exact"),
        "steps_to_target": Metric((float(steps),), "count", "lower", "learning"),
    }
    return Measured({**metrics, **more})


def entry(
    number: int,
    benchmarks: Mapping[str, Sequence[Measured]] | None = None,
    *,
    at: float | None = None,
    **fields: Any,
) -> Entry:
    """Run `number`, a day after the one before, of a commit whose hash is its number."""
    measured = {"smoke": [process()]} if benchmarks is None else benchmarks
    seconds = FIRST + number * DAY if at is None else at
    content: dict[str, Any] = {
        "schema_version": 1,
        "run_id": f"run{number}",
        "source": "run",
        "recorded": iso(seconds),
        "commit": f"{number:040x}",
        "commit_time": iso(seconds),
        "subject": f"change {number}",
        "dirty": False,
        "machine": {"device": "cpu", "device_name": "Some CPU", "cores": 2, "threads": 2},
        "versions": {"torch": "2.9.0"},
        "benchmarks": {name: benchmark_entry(list(each)) for name, each in measured.items()},
    }
    return Entry(**{**content, **fields})


def write(results: Path, entries: Sequence[Entry], machine: str = MACHINE, spec: str = "smoke") -> Path:
    path = Path()
    for each in entries:
        path = append_entry(results, machine, spec, each)
    return path


def alternating(count: int, level: float, spread: float = 0.01) -> list[float]:
    """Times around a level whose successive ones differ by the spread: a noise that is known."""
    return [level * math.exp(spread * (index % 2)) for index in range(count)]
