"""`bench run` from a YAML file to a report, as a person uses it."""

from __future__ import annotations

import itertools
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fusetune.bench.results.records import Record
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.stats.summary import summarize
from tests.end_to_end.conftest import ROOT, Done, environment

Bench = Callable[..., Done]

SMALL = """\
name: small
data:   {name: spirals, limit: 600, validation: 200}
model:  {name: mlp, width: 16, depth: 2}
train:  {optimizer: adam, base_lr: 0.02, batch_size: 50, epochs: 6}
factors: {batch_size: [25, 50], optimizer: [momentum, adam]}
seeds: 2
target: {metric: val_accuracy, at_least: 0.6}
"""


def read(run: Path) -> list[dict[str, Any]]:
    """The records of a run."""
    return [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]


def test_a_run_ends_in_records_and_a_report(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    done = bench("run", "small.yaml", "--set", "train.epochs=5")
    assert done.code == 0, done.err
    assert done.err == ""
    assert max(len(line) for line in done.out.splitlines()) <= 100

    records = done.records
    assert {record["trial"] for record in records} == {
        f"batch_size={b},optimizer={o},seed={s}"
        for b in (25, 50)
        for o in ("momentum", "adam")
        for s in (0, 1)
    }
    assert [record["seed"] for record in records] == [0] * 4 + [1] * 4
    for record in records:
        values, curve, samples = record["values"], record["curve"], record["samples"]["step_time_s"]
        assert len(curve) == values["epochs"] == 5
        steps_per_epoch = 600 // record["factors"]["batch_size"]
        assert [entry["step"] for entry in curve] == [steps_per_epoch * (e + 1) for e in range(5)]
        assert len(samples) == values["steps"] == 5 * steps_per_epoch
        assert math.isclose(sum(samples), curve[-1]["time_s"], rel_tol=1e-5)
        assert 0 < values["test_accuracy"] <= 1
        if record["status"] == "ok":
            first = next(entry for entry in curve if entry["val_accuracy"] >= 0.6)
            assert values["steps_to_target"] == first["step"]
            assert values["epochs_to_target"] == first["epoch"]
            product = values["steps_to_target"] * values["step_time_s"]
            assert math.isclose(values["time_to_target_s"], product, rel_tol=1e-12)
            assert math.isclose(values["time_to_target_s"], first["time_s"], rel_tol=1e-9)
        assert record["provenance"]["device"] == "cpu"
        assert record["provenance"]["stand_in"] is False

    run = done.run
    assert run["spec"]["train"]["epochs"] == 5
    assert run["overrides"] == ["train.epochs=5"]
    assert run["versions"]["torch"]
    assert run["schema_version"] == 2

    again = bench("report", "results/small")
    assert again.code == 0
    assert again.out.strip() in done.out
    for words in ("Configurations", "Main effects", "Recommendation", "What would make it surer"):
        assert words in again.out


def test_the_same_seed_gives_the_same_curve_bit_for_bit(bench: Bench, tmp_path: Path) -> None:
    one = SMALL.replace("[25, 50]", "[50]").replace("seeds: 2", "seeds: [3]")
    (tmp_path / "a.yaml").write_text(one.replace("name: small", "name: a"))
    (tmp_path / "b.yaml").write_text(one.replace("name: small", "name: b"))
    curves = []
    for name in ("a", "b"):
        assert bench("run", f"{name}.yaml").code == 0
        (path,) = tmp_path.glob(f"results/{name}/*/records.jsonl")
        records = sorted(map(json.loads, path.read_text().splitlines()), key=lambda record: record["trial"])
        timeless = [
            [{k: v for k, v in e.items() if k != "time_s"} for e in record["curve"]] for record in records
        ]
        curves.append(timeless)
    assert curves[0] == curves[1]


OWN_CODE = """\
import ctypes, os, time
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, pixels, classes, trouble):
        super().__init__()
        self.trouble = trouble
        self.layer = nn.Linear(pixels, classes)

    def forward(self, x):
        if self.training and self.trouble == "raises":
            raise RuntimeError("a layer of mine is broken")
        if self.training and self.trouble == "crashes":
            ctypes.string_at(0)
        if self.training and self.trouble == "hungry":
            torch.zeros(1 << 36)
        out = self.layer(x.flatten(1))
        if self.trouble == "stubborn":
            return out * 0
        return out * float("inf") if self.trouble == "diverges" and self.training else out


def build(input_shape, num_classes, trouble="none"):
    pixels = 1
    for size in input_shape:
        pixels *= size
    return Net(pixels, num_classes, trouble)
"""

TROUBLES = """\
name: troubles
data:  {name: npz, path: mine.npz, validation: 40}
model: {factory: "own_code:build"}
train: {optimizer: momentum, base_lr: 0.1, batch_size: 16, epochs: 8}
factors:
  model.trouble: [none, stubborn, raises, crashes, hungry, diverges]
target: {metric: val_accuracy, at_least: 0.9}
limits: {memory: 1GiB}
early_stop: {patience: 3, min_delta: 0.2}
"""


def write_own_workload(directory: Path) -> None:
    """A person's own arrays and model: two classes that a linear model separates."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    x = rng.normal(size=(300, 1, 4, 4)).astype(np.float32) + (2 * y - 1)[:, None, None, None]
    np.savez(directory / "mine.npz", x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    (directory / "own_code.py").write_text(OWN_CODE)


def test_own_data_own_model_and_every_status(bench: Bench, tmp_path: Path) -> None:
    """One trial that fails makes the exit 1, after the others have run; all else is a finding."""
    write_own_workload(tmp_path)
    (tmp_path / "troubles.yaml").write_text(TROUBLES)
    done = bench("run", "troubles.yaml")
    assert done.code == 1
    assert "Traceback" not in done.out + done.err
    records = {record["factors"]["model.trouble"]: record for record in done.records}
    assert len(records) == len(done.records) == 6

    assert records["none"]["status"] == "ok"
    assert records["stubborn"]["status"] == "stopped_early"
    assert "val_accuracy has not improved" in records["stubborn"]["reason"]
    raised = records["raises"]
    assert raised["status"] == "failed"
    assert raised["reason"].startswith("RuntimeError: a layer of mine is broken (own_code.py:")
    crashed = records["crashes"]
    assert crashed["status"] == "failed"
    assert "SIGSEGV" in crashed["reason"]
    hungry = records["hungry"]
    assert hungry["status"] == "out_of_memory"
    assert hungry["values"]["wanted_bytes"] > 2**38
    assert hungry["values"]["limit_bytes"] == 2**30
    diverged = records["diverges"]
    assert diverged["status"] == "diverged"
    assert diverged["curve"][-1]["train_loss"] is None
    assert diverged["values"]["steps"] == 1

    for words in (
        "out of memory",
        "diverged",
        "failed",
        "stopped early",
        "of 1.00 GiB",
        "a layer of mine is broken",
    ):
        assert words in done.out


def test_a_missed_target_is_a_finding_and_the_command_for_the_first_four_can_be_pasted(
    bench: Bench, tmp_path: Path
) -> None:
    text = SMALL.replace("0.6", "0.9999").replace("[25, 50]", "[25, 50, 100]")
    (tmp_path / "my spec.yaml").write_text(text)
    given = ("--set", "seeds=1", "--set", "train.epochs=1", "--set", "train.schedule={name: cosine}")
    done = bench("run", "my spec.yaml", *given, "--fail-on", "missed")
    assert (done.code, done.err) == (1, "exit 1 by --fail-on: 6 trials missed\n")
    assert {record["status"] for record in done.records} == {"missed_target"}
    assert all("was not reached; best: 0." in record["reason"] for record in done.records)
    assert all("time_to_target_s" not in record["values"] for record in done.records)

    lines = done.out[done.out.index("  python -m fusetune.bench run") :].splitlines()
    command = list(itertools.takewhile(lambda line: line.startswith("  "), lines))
    assert max(map(len, command)) <= 80
    pasted = subprocess.run(
        ["bash", "-c", "\n".join(command)],
        cwd=tmp_path,
        env={**environment(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (pasted.returncode, pasted.stderr) == (0, "")
    first, second = sorted(tmp_path.glob("results/*/*/"), key=lambda path: path.name)
    ranked = summarize(
        RunInfo.from_dict(json.loads((first / "run.json").read_text())),
        [Record.from_dict(r) for r in read(first)],
    )
    factors = [configuration.factors for configuration in ranked.configurations[:4]]
    again = read(second)
    seeds = len({record["seed"] for record in again})
    assert seeds >= 4
    assert sorted(str(r["factors"]) for r in again) == sorted(str(f) for f in factors for _ in range(seeds))
    assert {len(record["curve"]) for record in again} == {1}
    assert json.loads((second / "run.json").read_text())["spec"]["train"]["schedule"] == {"name": "cosine"}
    assert "listed: 4 configurations" in pasted.stdout


def test_a_stand_in_is_announced_recorded_and_bannered(bench: Bench, tmp_path: Path) -> None:
    text = SMALL.replace("{name: spirals, limit: 600,", "{name: cifar10, stand_in: cifar10-like, limit: 300,")
    (tmp_path / "small.yaml").write_text(text.replace("name: mlp, width: 16, depth: 2", "name: linear"))
    done = bench("run", "small.yaml", "--set", "seeds=1", "--set", "train.epochs=1")
    assert done.code == 0, done.err
    before, _, after = done.out.partition("[1/4]")
    assert "STAND-IN DATA" in before
    assert "STAND-IN DATA" in after
    assert after.index("STAND-IN DATA") < after.index("Configurations")
    assert all(
        r["provenance"]["stand_in"] and r["provenance"]["data"] == "cifar10-like" for r in done.records
    )
    assert "cifar10-like" in done.run["stand_in"]


def test_without_a_stand_in_a_missing_set_is_bad_input(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL.replace("{name: spirals, limit: 600,", "{name: cifar10,"))
    done = bench("run", "small.yaml")
    assert done.code == 2
    assert "small.yaml:2: data.name: cifar10 is not on this machine" in done.err
    assert "cifar-10-binary.tar.gz" in done.err
    assert "stand_in: cifar10-like" in done.err
    assert not (tmp_path / "results").exists()


def test_a_target_on_the_test_set_says_so(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL.replace("val_accuracy", "test_accuracy"))
    done = bench("run", "small.yaml", "--set", "seeds=1", "--set", "factors={}")
    assert done.code == 0, done.err
    assert "DAWNBench" in done.out
    assert all(entry["test_accuracy"] is not None for entry in done.records[0]["curve"])


def test_several_jobs_mark_their_timings(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    done = bench("run", "small.yaml", "--jobs", "2", "--set", "seeds=1")
    assert done.code == 0, done.err
    assert len({record["trial"] for record in done.records}) == len(done.records) == 4
    assert all(record["provenance"]["timings_shared"] for record in done.records)
    assert "2 trials at once" in done.out


def test_profile_changes_are_printed(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL + "profiles: {cpu: {train: {epochs: 1}, seeds: 1}}\n")
    done = bench("run", "small.yaml")
    assert "profile cpu: train.epochs: 6 -> 1; seeds: 2 -> 1" in " ".join(done.out.split())
    assert statistics.mode(len(record["curve"]) for record in done.records) == 1


def test_bad_input_ends_before_anything_runs(bench: Bench, tmp_path: Path) -> None:
    """What only the data can tell: the worker that rehearses finds it, and no results are left behind."""
    (tmp_path / "small.yaml").write_text(SMALL.replace("[25, 50]", "[50, 601]"))
    done = bench("run", "small.yaml")
    assert done.code == 2
    assert done.err.startswith(
        "error: small.yaml: train.batch_size: 601 x 1 accumulation steps are more than the 600"
    )
    assert "Traceback" not in done.err
    assert not list(tmp_path.glob("results/*"))


def test_results_that_cannot_be_written_are_a_clear_error(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    (tmp_path / "results").write_text("a file, not a directory")
    done = bench("run", "small.yaml")
    assert done.code == 2
    assert "results" in done.err
    assert "Traceback" not in done.err


def test_the_shipped_smoke_spec_compares_torch_with_the_fused_kernels(bench: Bench) -> None:
    done = bench("run", str(ROOT / "specs" / "smoke.yaml"), "--set", "train.epochs=3")
    assert done.code == 0, done.err
    by_trial = {record["trial"]: record for record in done.records}
    assert {record["factors"]["implementation"] for record in by_trial.values()} == {"torch", "fused"}
    for trial, record in by_trial.items():
        twin = by_trial[trial.replace("implementation=fused", "implementation=torch")]
        for ours, theirs in zip(record["curve"], twin["curve"], strict=True):
            assert math.isclose(ours["train_loss"], theirs["train_loss"], rel_tol=1e-3), trial
    assert "implementation" in done.out
