"""A record: the raw outcome of one trial, one JSON object on one line."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from fusetune.errors import InvalidValueError

SCHEMA_VERSION = 1

Status = Literal["ok", "missed_target", "diverged", "out_of_memory", "stopped_early", "failed"]
STATUSES: tuple[str, ...] = get_args(Status)


@dataclass(frozen=True)
class Record:
    """What one trial did.

    Args:
        trial: the trial's id, unique within a run, e.g. `batch_size=64,optimizer=adam,seed=0`.
        factors: factor name -> value of this trial (a schedule given as a mapping stays one).
        seed: what initialisation, shuffling and augmentation drew from.
        status: `ok` (target reached, or completed where the spec names no target), `missed_target`, `diverged`,
            `out_of_memory`, `stopped_early`; these are findings. `failed` is not: the trial could not be run.
        reason: one sentence that explains the status; empty for a plain `ok`.
        values: metric -> number in SI base units; names are those of `bench.units.METRICS`. No NaN, no infinity:
            a metric that does not exist (steps_to_target of a missed target) is absent.
        samples: metric -> raw measurements, e.g. every step's `step_time_s`.
        curve: one object per epoch: epoch, step, samples, time_s (training clock at the end of the epoch), train_loss,
            train_accuracy, val_loss, val_accuracy, lr, grad_norm (and test_* where the target asks for them).
            A non-finite number of a diverged epoch is written as null.
        findings: what the training was diagnosed with, see `tuner.diagnosis.Finding`: name, title, sentence, evidence,
            try_next, confidence.
        provenance: device, versions, commit, dirty flag, path, stand-in, jobs: whatever the numbers depend on.
    """

    trial: str
    factors: dict[str, Any]
    seed: int
    status: Status
    reason: str = ""
    values: dict[str, float] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    curve: list[dict[str, float | None]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Record:
        """Rebuild a record; raises TypeError or ValueError when `data` is not one."""
        record = cls(**data)
        if record.status not in STATUSES:
            raise InvalidValueError.unknown("status", record.status, STATUSES)
        return record
