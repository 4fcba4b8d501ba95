"""`--report-to` from a YAML file to TensorBoard's files, as a person uses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Done

Bench = Callable[..., Done]

SMALL = """\
name: small
data:   {name: spirals, limit: 200, validation: 50}
model:  {name: mlp, width: 8, depth: 1}
train:  {optimizer: adam, base_lr: 0.02, batch_size: 50, epochs: 2}
factors: {batch_size: [25, 50]}
seeds: 1
threads: 1
"""
FILE = "events.out.tfevents.0.fusetune"


@pytest.mark.slow
def test_a_run_is_in_tensorboard_and_is_sent_once(bench: Bench, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "small.yaml").write_text(SMALL)
    done = bench("run", "small.yaml", "--report-to", "tensorboard")
    assert done.code == 0, done.err
    folder = done.run_directory / "tensorboard"
    trials = [record["trial"] for record in done.records]
    assert len(trials) == 2
    files = {path: path.stat().st_mtime_ns for path in folder.rglob(FILE)}
    assert {*files} == {folder / FILE, *(folder / trial / FILE for trial in trials)}
    said = " ".join(done.out.split())
    assert said.count("--report-to: sent are each trial's factors, seed") == 1
    assert "tensorboard: 2 trials" in said
    assert not list(done.run_directory.glob("tracker-*.log"))

    again = bench("report", "results/small", "--report-to", "tensorboard")
    assert again.code == 0, again.err
    assert "tensorboard: 2 trials, 2 of them sent before" in again.out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob(FILE) if path.parent != folder} == {
        path: time for path, time in files.items() if path.parent != folder
    }


def test_a_tracker_that_is_unknown_ends_the_command_before_any_training(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    done = bench("run", "small.yaml", "--report-to", "tensorbord")
    assert done.code == 2
    assert done.err == (
        "error: --report-to: unknown 'tensorbord'; known: mlflow, tensorboard, trackio, wandb. "
        "Did you mean 'tensorboard'?\n"
    )
    assert not (tmp_path / "results").exists()
