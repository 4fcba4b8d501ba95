"""Runs' directories with records of known numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.results.outcomes import MemoryProbe, Outcome, ThroughputOutcome
from fusetune.bench.results.records import Record
from fusetune.bench.results.run_info import RunInfo

MACHINE = {"device": "cpu", "device_name": "Example CPU", "cores": 2, "os": "Linux 6.1 x86_64", "threads": 2}
RUN = {
    "spec": {
        "name": "digits",
        "train": {"optimizer": "adam", "batch_size": 32, "epochs": 2},
        "target": {"metric": "val_accuracy", "at_least": 0.9},
        "seeds": [0, 1],
    },
    "trials": 1,
    "jobs": 1,
    "device": "cpu",
    "machine": MACHINE,
    "versions": {"python": "3.11.7", "torch": "2.9.0"},
    "commit": "a" * 40,
    "dirty": False,
    "started": "2026-11-29T12:00:00+00:00",
}
STEPS = tuple(0.001 + 0.00001 * (7 * i % 11) for i in range(40))


def training(
    seed: int = 0,
    factors: Mapping[str, Any] | None = None,
    *,
    slower: float = 1.0,
    steps: int | None = 100,
    accuracy: float = 0.95,
    peak_bytes: int = 4096,
    status: Any = None,
    **fields: Any,
) -> Record:
    """The record of one training. Without `steps` it missed its target."""
    times = [slower * each for each in STEPS]
    values = {
        "final_val_accuracy": accuracy,
        "peak_bytes": peak_bytes,
        "step_time_s": sum(times) / len(times),
    }
    if steps is not None:
        values |= {"steps_to_target": steps, "time_to_target_s": steps * values["step_time_s"]}
    status = status or ("ok" if steps is not None else "missed_target")
    names = ",".join(f"{name}={value}" for name, value in (factors or {}).items())
    provenance = {"peak_bytes_of": "the tensors", **fields.pop("provenance", {})}
    return Record(
        f"{names},seed={seed}",
        dict(factors or {}),
        seed,
        status,
        values=values | fields.pop("values", {}),
        samples={"step_time_s": times},
        provenance=provenance,
        **fields,
    )


def sized(size: int, *, probe: bool, seed: int = 0, status: Any = "ok", **values: float) -> Record:
    """The record of a probe or of a throughput measurement of a search of batch sizes."""
    outcome: Outcome = MemoryProbe() if probe else ThroughputOutcome()
    times = {"step_time_s": [values["step_time_s"]] * 12} if "step_time_s" in values else {}
    trial = f"seed={seed},batch_size={size},{'probe' if probe else 'throughput'}"
    return Record(trial, {"batch_size": size}, seed, status, values=values, samples=times, outcome=outcome)


def write_run(folder: Path, records: Sequence[Record], name: str = "digits", **changes: Any) -> Path:
    """Write a run's directory and return its path."""
    spec = {**RUN["spec"], "name": name, **changes.pop("spec", {})}  # type: ignore[dict-item]
    content = {**RUN, "trials": len(records), **changes, "spec": spec}
    with RunDirectory.create(folder, name, RunInfo.from_dict(content)) as directory:
        for record in records:
            directory.append(record)
    return directory.path
