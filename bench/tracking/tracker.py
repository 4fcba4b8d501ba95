"""What a tracker is given: a run and its trials, as plain data, made from run.json and the records alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from fusetune.bench.results import Record, RunInfo
from fusetune.bench.terminal import printable

Scalar = str | int | float | bool | None

# Entries of a curve's line that say where on the x-axis it is.
_STEP = "step"
# Digits after which a commit is cut.
_COMMIT = 12


@dataclass(frozen=True)
class TrackedRun:
    """What all trials of a run share.

    Args:
        id: name of the run's directory.
        spec_name: of the spec.
        kind: of the run, such as `run` or `lr-range`.
        tags: name -> text: `spec`, `run`, `kind`, `device`, and where there is one `commit` and `stand_in`.
        spec: the spec as resolved, flat: `spec.train.epochs` -> value.
        started_s: start in seconds since 1970, 0 where it is not known.
    """

    id: str
    spec_name: str
    kind: str
    tags: Mapping[str, str]
    spec: Mapping[str, Scalar]
    started_s: float = 0.0


@dataclass(frozen=True)
class Point:
    """An entry of a curve.

    Args:
        step: optimizer steps up to here. Of an entry without them, its position from 1.
        time_s: the training clock, 0 where there is none.
        values: `curve/<metric>` -> finite number.
    """

    step: int
    time_s: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class TrackedTrial:
    """What a tracker gets of a trial.

    Args:
        id: the trial's id, unique within the run.
        config: factor -> value, and `seed`.
        status: of the record.
        reason: explains the status, empty for a plain `ok`.
        curve: the curve's entries in their order.
        results: `result/<metric>` -> finite number, in SI base units.
        findings: titles of what the training was diagnosed with.
    """

    id: str
    config: Mapping[str, Scalar]
    status: str
    reason: str
    curve: tuple[Point, ...] = ()
    results: Mapping[str, float] = field(default_factory=dict)
    findings: tuple[str, ...] = ()

    @property
    def last_step(self) -> int:
        """The step of the last entry, 0 without a curve."""
        return max((point.step for point in self.curve), default=0)

    @property
    def seconds(self) -> float:
        """The training clock at the end of the curve, 0 where there is none."""
        return max((point.time_s for point in self.curve), default=0.0)

    @property
    def failed(self) -> bool:
        """Whether the trial could not run. Every other status is a result."""
        return self.status == "failed"


class Tracker(Protocol):
    """One tracker, used by one process for one run. Its module imports the tracker's library."""

    def open(self, run: TrackedRun) -> None:
        """Find or make what holds the run's trials. Called once, when there is a first trial to send."""

    def holds(self, trial: TrackedTrial) -> bool:
        """Tell whether a trial that was sent is still there. True where the tracker cannot say."""

    def log_trial(self, trial: TrackedTrial) -> None:
        """Send a trial whole, in place of what a broken attempt has left, where the tracker can do that."""

    def close(self) -> None:
        """Return when everything is where it belongs."""


def tracked_run(run: RunInfo) -> TrackedRun:
    """Return what a tracker is told of a run.

    Example:
        >>> from fusetune.bench.results import WrittenSpec
        >>> found = tracked_run(RunInfo(run_id="a1", commit="0123456789abcdef", spec=WrittenSpec({"name": "demo"})))
        >>> found.tags, found.spec
        ({'spec': 'demo', 'run': 'a1', 'kind': 'run', 'commit': '0123456789ab'}, {'spec.name': 'demo'})
    """
    commit = "" if run.commit is None else run.commit[:_COMMIT] + ("-dirty" if run.dirty else "")
    tags = {
        "spec": run.spec.name,
        "run": run.run_id,
        "kind": run.kind,
        "device": run.machine.device_name or run.device,
        "commit": commit,
        # Its sentence in the run's banner has paths of the machine.
        "stand_in": ", ".join(run.data) if run.stand_in else "",
    }
    return TrackedRun(
        run.run_id,
        printable(run.spec.name),
        run.kind,
        {name: printable(text) for name, text in tags.items() if text},
        dict(_flat("spec", run.spec.content)),
        _seconds(run.started),
    )


def tracked_trial(record: Record) -> TrackedTrial:
    """Return what a tracker is told of a record. Numbers that are not finite are left out.

    Example:
        >>> curve = [{"epoch": 1, "step": 62, "time_s": 0.5, "val_loss": 1.5, "grad_norm": None}]
        >>> trial = tracked_trial(Record("lr=0.1,seed=0", {"lr": 0.1}, 0, "ok", "", {"steps": 62}, {}, curve))
        >>> trial.config, trial.results
        ({'lr': 0.1, 'seed': 0}, {'result/steps': 62})
        >>> trial.curve[0].step, trial.curve[0].values
        (62, {'curve/epoch': 1, 'curve/time_s': 0.5, 'curve/val_loss': 1.5})
    """
    config: dict[str, Scalar] = {}
    for name, value in (*record.factors.items(), ("seed", record.seed)):
        config.setdefault(printable(name), _plain(value))
    return TrackedTrial(
        record.trial,
        config,
        record.status,
        printable(record.reason),
        tuple(_points(record)),
        dict(_numbers("result", record.values)),
        tuple(printable(str(finding.get("title", ""))) for finding in record.findings),
    )


def _points(record: Record) -> Iterator[Point]:
    for position, entry in enumerate(record.curve, start=1):
        step, time_s = entry.get(_STEP), entry.get("time_s")
        yield Point(
            position if step is None or not math.isfinite(step) else int(step),
            time_s if time_s is not None and math.isfinite(time_s) else 0.0,
            dict(_numbers("curve", {name: value for name, value in entry.items() if name != _STEP})),
        )


def _numbers(group: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the finite numbers, their names in a group."""
    for name, value in values.items():
        if isinstance(value, int | float) and math.isfinite(value):
            yield f"{group}/{printable(name)}", value


def _flat(name: str, value: Any) -> Iterator[tuple[str, Scalar]]:
    """Yield the leaves of nested mappings, their keys joined by dots."""
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            yield from _flat(f"{name}.{printable(str(key))}", each)
    else:
        yield name, _plain(value)


def _plain(value: Any) -> Scalar:
    """Return a scalar as it is, and anything else as JSON. A number that is not finite becomes a text."""
    if isinstance(value, str):
        return printable(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return printable(json.dumps(value, ensure_ascii=False, default=str))


def _seconds(started: str) -> float:
    try:
        return datetime.fromisoformat(started).timestamp()
    except ValueError:
        return 0.0
