"""A record: the raw result of one trial, as one JSON object on one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from fusetune.bench.results.outcomes import (
    Outcome,
    WorkerEvents,
    outcome_as_dict,
    outcome_from_dict,
    worker_events_from_dict,
)
from fusetune.errors import InvalidValueError

# The version of run.json and of each record. docs/records.md lists the changes of each version.
SCHEMA_VERSION = 2

Status = Literal["ok", "missed_target", "diverged", "out_of_memory", "stopped_early", "failed"]
STATUSES: tuple[str, ...] = get_args(Status)


@dataclass(frozen=True)
class ThreadsChoice:
    """How many threads the trials of a run had, and why.

    Args:
        threads: PyTorch's threads in a worker.
        asked: what the spec says: a number, or `auto`.
        reason: one sentence.
        speedups: measured, by number of threads as text. None where nothing was measured.
    """

    threads: int
    asked: int | str
    reason: str
    speedups: Mapping[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        content = {"threads": self.threads, "asked": self.asked, "reason": self.reason}
        return content if self.speedups is None else {**content, "speedups": dict(self.speedups)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ThreadsChoice:
        """Read the JSON object. Unknown keys are left out."""
        return cls(content["threads"], content["asked"], content["reason"], content.get("speedups"))


@dataclass(frozen=True)
class Record:
    """The result of one trial.

    Args:
        trial: the trial's id, unique within a run, e.g. `batch_size=64,optimizer=adam,seed=0`.
        factors: factor name -> value of this trial (a schedule given as a mapping stays one).
        seed: seed of initialisation, shuffling and augmentation.
        status: `ok` (target reached, or completed where the spec names no target), `missed_target`, `diverged`,
            `out_of_memory`, `stopped_early`, or `failed` (the trial could not run).
        reason: one sentence that explains the status. Empty for a plain `ok`.
        values: metric -> number in SI base units, with the names of `bench.units.METRICS`. Numbers are finite. A
            metric without a value (steps_to_target of a missed target) is absent.
        samples: metric -> raw measurements, e.g. every step's `step_time_s`.
        curve: one object per epoch, with epoch, step, samples, time_s (training clock at the end of the epoch),
            train_loss, train_accuracy, val_loss, val_accuracy, lr and grad_norm. It has test_* where the target needs
            them. A non-finite number of a diverged epoch is written as null.
        findings: the training's diagnoses as `tuner.diagnosis.Finding`, with name, title, sentence, evidence, try_next
            and confidence.
        provenance: the conditions of the numbers: device, versions, commit, dirty flag, path, stand-in, jobs.
        outcome: results beside the metrics, by the kind of work. None if there are none.
        worker: events of the process that ran the trial.
    """

    trial: str
    factors: dict[str, Any]
    seed: int
    status: Status
    reason: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    curve: Sequence[Mapping[str, float | None]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    outcome: Outcome | None = None
    worker: WorkerEvents = field(default_factory=WorkerEvents)

    @property
    def threads_choice(self) -> ThreadsChoice | None:
        """How the number of threads was chosen. None where nothing was chosen."""
        given = self.provenance.get("threads_choice")
        return ThreadsChoice.from_dict(given) if given else None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object, whose parts are the record's own: a copy of every step's seconds would cost more."""
        return {
            "schema_version": SCHEMA_VERSION,
            **{name: getattr(self, name) for name in _PLAIN},
            "outcome": outcome_as_dict(self.outcome) if self.outcome else None,
            "worker": asdict(self.worker) if self.worker != _NO_EVENTS else None,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """Return the record of a JSON object of this schema version.

        Raises:
            TypeError, ValueError: `data` is not a record.
        """
        content = {name: value for name, value in data.items() if name != "schema_version"}
        outcome, worker = content.pop("outcome", None), content.pop("worker", None)
        record = cls(
            **content,
            outcome=None if outcome is None else outcome_from_dict(outcome),
            worker=WorkerEvents() if worker is None else worker_events_from_dict(worker),
        )
        if record.status not in STATUSES:
            raise InvalidValueError.unknown("status", record.status, STATUSES)
        return record


_NO_EVENTS = WorkerEvents()
# The fields that are plain data, in their order on disk.
_PLAIN = tuple(each.name for each in dataclasses.fields(Record) if each.name not in ("outcome", "worker"))
