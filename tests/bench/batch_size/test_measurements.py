"""Throughput and noise measured in a worker's place, kept as records, and summed up again."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from fusetune.bench.batch_size.jobs import measure_noise, pair_sizes, time_steps
from fusetune.bench.batch_size.measurements import measured_sizes, study_measurements
from fusetune.bench.batch_size.probe import run_job
from fusetune.bench.batch_size.report import render_batch_size
from fusetune.bench.batch_size.study import study_batch_sizes
from fusetune.bench.cli import program as cli
from fusetune.bench.results.directory import RunDirectory, find_run
from fusetune.bench.results.outcomes import NormsAlongTraining, StepTimes
from fusetune.bench.spec.design import Trial, expand
from fusetune.bench.spec.spec import Spec
from fusetune.bench.workers.worker import WorkerContext
from fusetune.bench.workloads.datasets import DataRequest, locate
from fusetune.tuner.batch_size.throughput_curve import ROUNDS

ROOT = Path(__file__).parents[3]
SPEC = """\
name: small
data:   {name: spirals, limit: 300, validation: 90}
model:  {name: mlp, width: 8}
train:  {optimizer: adam, base_lr: 0.02, batch_size: 30, epochs: 2}
"""


def trial(text: str = SPEC, **options: Any) -> Trial:
    first = expand(Spec.model_validate(yaml.safe_load(text)))[0]
    data = first.spec.data
    source = locate(
        DataRequest(data.name, path=data.path, factory=data.factory, options=data.extras), spec_dir=Path.cwd()
    )
    return dataclasses.replace(first, source=source, options=options)


@pytest.mark.parametrize(
    "train", ["", "accumulation_steps: 2", "grad_clip: 1.0, label_smoothing: 0.1", "precision: bf16"]
)
def test_steps_are_timed_at_every_size_as_the_spec_trains(train: str) -> None:
    text = SPEC.replace("epochs: 2", f"epochs: 2, {train}") if train else SPEC
    record = time_steps(trial(text, sizes=[2, 64, 300]), WorkerContext())
    assert isinstance(record.outcome, StepTimes)
    times = record.outcome.seconds
    assert list(times) == [2, 64, 300]
    assert all(len(each) == ROUNDS and min(each) > 0 for each in times.values())


def test_noise_is_measured_before_and_along_training() -> None:
    record = measure_noise(trial(noise_epochs=[0, 2]), WorkerContext())
    assert isinstance(record.outcome, NormsAlongTraining)
    first, last = record.outcome.points
    assert (first.epoch, first.steps, last.epoch, last.steps) == (0, 0, 2, 20)
    assert first.small_squares != last.small_squares
    assert record.outcome.samples == 300
    # The same trial gives the same numbers.
    again = measure_noise(trial(noise_epochs=[0, 2]), WorkerContext())
    assert again.outcome == record.outcome


def test_auto_finds_the_rate_at_which_the_noise_is_measured_along_training() -> None:
    auto = SPEC.replace("base_lr: 0.02", "base_lr: auto")
    options = {"job": "noise", "noise_epochs": [0, 2]}
    record = run_job(trial(auto, **options), WorkerContext(), lambda progress: None)
    assert isinstance(record.outcome, NormsAlongTraining)
    assert record.outcome.base_lr_auto is not None
    rate = record.outcome.base_lr_auto.base_lr
    assert [point.epoch for point in record.outcome.points] == [0, 2]
    assert f"{rate:.3g}" in record.outcome.note
    # It is the rate that the spec would have named, and the training is that rate's.
    named = SPEC.replace("base_lr: 0.02", f"base_lr: {rate}")
    again = run_job(trial(named, **options), WorkerContext(), lambda progress: None)
    assert isinstance(again.outcome, NormsAlongTraining)
    assert again.outcome.points == record.outcome.points


def test_where_auto_finds_no_rate_the_noise_is_measured_before_training_and_that_is_said() -> None:
    text = SPEC.replace("base_lr: 0.02", "base_lr: auto, grad_clip: 1.0e-12").replace("adam", "sgd")
    record = run_job(trial(text, job="noise", noise_epochs=[0, 2]), WorkerContext(), lambda progress: None)
    assert isinstance(record.outcome, NormsAlongTraining)
    assert [point.epoch for point in record.outcome.points] == [0]
    assert record.outcome.note.startswith("before training only")


def test_too_few_samples_for_the_noise_are_refused() -> None:
    with pytest.raises(ValueError, match="needs more than 10 training samples"):
        pair_sizes(8, 10)


@pytest.mark.parametrize("samples", [16, 100, 1200, 60_000])
@pytest.mark.parametrize("batch_size", [1, 2, 30, 512])
def test_pairs_fit_into_half_of_the_samples(samples: int, batch_size: int) -> None:
    small, big = pair_sizes(batch_size, samples)
    assert small <= batch_size
    assert big % small == 0
    assert 4 * small <= big <= samples // 2


def test_sizes_end_with_the_largest_and_are_not_endless() -> None:
    assert measured_sizes(2) == [2]
    assert measured_sizes(64) == [2, 4, 8, 16, 32, 64]
    assert measured_sizes(100_000)[-1] == 100_000
    assert len(measured_sizes(100_000)) == 12


def run_bench(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fusetune.bench", *arguments],
        cwd=directory,
        env={
            "PYTHONPATH": str(ROOT / "src"),
            "PATH": "/usr/bin:/bin",
            "OMP_NUM_THREADS": "1",
            "HOME": str(directory),
        },
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.mark.slow
def test_the_command_measures_recommends_and_draws(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SPEC)

    done = run_bench(
        *("batch-size", "small.yaml", "--memory", "300MiB", "--max", "64", "--noise-epochs", "0,1", "--json"),
        directory=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["configurations"]
    measured = found["measurements"]
    assert found["batch_size"] == 64
    assert [rate["batch_size"] for rate in measured["throughputs"]] == [2, 4, 8, 16, 32, 64]
    assert [point["epoch"] for point in measured["noise"]] == [0, 1]
    assert measured["failures"] == []
    assert measured["recommendation"]["batch_size"] in [2, 4, 8, 16, 32, 64]

    path = find_run(tmp_path / "results" / "small")
    assert (path / "batch-size.png").exists()
    assert (path / "batch-size.svg").exists()
    directory = RunDirectory.open(path)
    records, notes = directory.records()
    assert not notes
    study = study_batch_sizes(directory.run, records, None)
    (again,) = study_measurements(study, records)
    assert json.loads(json.dumps(again.as_dict())) == measured
    stream = io.StringIO()
    render_batch_size(study, [again], Console(file=stream, width=100))
    assert f"batch_size {measured['recommendation']['batch_size']}" in stream.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--noise-epochs", "0;1"), "--noise-epochs: '0;1' is no list of whole numbers. Write it like 0,1,4"),
        (("--runs", "nowhere"), "nowhere: is not a directory"),
        (("--devices", "1;2"), "--devices: '1;2' is no list of whole numbers. Write it like 1,2,8"),
        (("--devices", "0,2"), "--devices: '0,2' has a number outside 1 to 1024"),
        (
            ("--devices", "2", "--set", "train.parallel=fsdp", "--set", "train.compile=true"),
            "--devices: parallel fsdp cannot train with compile: true",
        ),
    ],
)
def test_bad_options_are_refused_before_anything_runs(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "small.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["batch-size", "small.yaml", "--memory", "300MiB", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
