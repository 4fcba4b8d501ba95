"""Made runs for the page of trainings, with figures that are worked out by hand in the tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fusetune.bench.page import Block, DataTable, Fold, Part, Plot, Section, plots_of
from fusetune.bench.report import training_part
from fusetune.bench.results import Record, RunInfo
from fusetune.bench.stats import summarize

TARGET = {"metric": "val_accuracy", "at_least": 0.6, "at_most": None}
DIRECTORY = "results/demo/20260102-030405-ab12"
HOSTILE = "</script><img src=x onerror=alert(1)>[a.b]['c']"


def run_of(factors: dict[str, list[Any]], records: Iterable[Record] = (), **changes: Any) -> RunInfo:
    """Return a run of a grid over some factors. `changes` go into the spec where it has such a key."""
    spec: dict[str, Any] = {
        "name": "demo",
        "data": {"name": "digits"},
        "model": {"name": "cnn"},
        "factors": factors,
        "design": "grid",
        "seeds": [0, 1, 2],
        "target": TARGET,
    }
    spec |= {key: changes.pop(key) for key in list(changes) if key in spec or key == "configurations"}
    run: dict[str, Any] = {
        "spec": spec,
        "machine": {"device": "cpu", "device_name": "Example CPU", "cores": 2, "memory_bytes": 2**34},
        "versions": {"python": "3.11.9", "torch": "2.13.0", "triton": None},
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "command": ["bench", "run", "demo.yaml"],
        "started": "2026-01-02T03:04:05Z",
        "baseline": {name: values[0] for name, values in factors.items()},
        "trials": len(list(records)),
        "data": ["digits"],
    }
    return RunInfo.from_dict(run | changes)


def trial(
    factors: dict[str, Any],
    seed: int,
    *,
    steps: int | None = 100,
    step_time: float = 0.01,
    accuracies: Iterable[float | None] = (0.4, 0.7),
    peak: float = 2.0**20,
    status: str | None = None,
    reason: str = "",
    **more: Any,
) -> Record:
    """Return a trial that reached the target after some steps, or that missed it where they are None."""
    curve = [
        {
            "epoch": epoch,
            "step": 50 * epoch,
            "samples": 3200 * epoch,
            "time_s": 50 * epoch * step_time,
            "train_loss": None if accuracy is None else 2.0 / epoch,
            "train_accuracy": accuracy,
            "val_loss": None if accuracy is None else 1.0 - accuracy,
            "val_accuracy": accuracy,
            "lr": 0.1 / epoch,
            "grad_norm": None if accuracy is None else 1.0,
        }
        for epoch, accuracy in enumerate(accuracies, start=1)
    ]
    known = [entry["val_accuracy"] for entry in curve if entry["val_accuracy"] is not None]
    values: dict[str, float] = {"step_time_s": step_time, "samples_per_s": 64 / step_time, "peak_bytes": peak}
    if known:
        values |= {"best_val_accuracy": max(known), "steps": 100.0, "training_s": 1.0}
    if steps is not None:
        values |= {"steps_to_target": float(steps), "time_to_target_s": steps * step_time}
    status = status or ("missed_target" if steps is None else "ok")
    return Record(f"{factors},seed={seed}", factors, seed, status, reason, values, curve=curve, **more)  # type: ignore[arg-type]


def part_of(run: RunInfo, records: list[Record]) -> Part:
    """Return what the page says of a run."""
    return training_part(summarize(run, records, DIRECTORY), records)


def section(part: Part, key: str) -> Section:
    """Return the only section of a key. One that a page leaves out fails."""
    (found,) = (each for each in part.ordered if each.key == key)
    return found


def plot(part: Part, key: str, title: str) -> Plot:
    """Return the plot of a section whose title begins so."""
    (found,) = (each for each in plots_of(section(part, key).blocks) if each.title.startswith(title))
    return found


def table(part: Part, key: str, caption: str) -> list[dict[str, Any]]:
    """Return the rows of a table, each as title of a column -> cell."""
    (found,) = (each for each in _tables(section(part, key).blocks) if caption in each.caption)
    titles = [column.title for column in found.columns]
    return [dict(zip(titles, row, strict=True)) for row in found.rows]


def _tables(blocks: Iterable[Block]) -> Iterable[DataTable]:
    for block in blocks:
        if isinstance(block, DataTable):
            yield block
        elif isinstance(block, Fold):
            yield from _tables(block.blocks)
