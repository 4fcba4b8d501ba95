"""A small run on disk, with everything that a tracker could stumble over, and nothing that needs a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fusetune.bench.results import Machine, Record, RunDirectory, RunInfo, WrittenSpec

SPEC = {
    "name": "demo",
    "seeds": [0, 1],
    "train": {"epochs": 2, "base_lr": 0.1},
    "factors": {"lr": [0.1, 0.2]},
}
HOSTILE = "../../лр/" + "x" * 300 + "\x1b]0;title\x07|<b>"


def record(trial: str, lr: Any = 0.1, seed: int = 0, **changes: Any) -> Record:
    """Make the record of a training of two epochs."""
    curve: list[dict[str, float | None]] = [
        {"epoch": 1, "step": 10, "time_s": 0.5, "val_loss": 1.5, "grad_norm": None},
        {"epoch": 2, "step": 20, "time_s": 1.25, "val_loss": 1.1, "grad_norm": 0.3},
    ]
    content: dict[str, Any] = {
        "values": {"step_time_s": 1.2345678901, "peak_bytes": 16_777_217},
        "curve": curve,
        "status": "ok",
    }
    return Record(trial, {"lr": lr}, seed, **{**content, **changes})


FINDING = {
    "name": "rate_too_high",
    "title": "rate too high",
    "sentence": "It is.",
    "evidence": {"lr": 0.1},
    "try_next": "Lower it.",
    "confidence": "sure",
}
RECORDS = (
    record("lr=0.1,seed=0"),
    record("lr=0.1,seed=1", seed=1, status="failed", reason="it broke", values={}, curve=[]),
    record(HOSTILE, HOSTILE, findings=[FINDING]),
    record(HOSTILE + "!", None, status="missed_target", values={"peak_bytes": 8}),
)


def make_run(results: Path, records: tuple[Record, ...] = RECORDS, **changes: Any) -> RunDirectory:
    """Write a run, and return its directory, closed."""
    content: dict[str, Any] = {
        "spec": WrittenSpec(SPEC),
        "commit": "0123456789abcdef0123",
        "dirty": True,
        "device": "cpu",
        "machine": Machine.from_dict({"device": "cpu", "device_name": "a processor"}),
        "data": ("digits-like",),
        "stand_in": "digits is not in /home/me/data; its stand-in digits-like is used",
        "started": "2026-01-02T03:04:05+00:00",
    }
    with RunDirectory.create(results, "demo", RunInfo(**{**content, **changes})) as directory:
        for each in records:
            directory.append(each)
    return directory
