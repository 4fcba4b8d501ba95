"""A search from the command line: ordinary records, a log, plots, and going on after an interrupt."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.cli.program import main
from fusetune.bench.cli.status import look
from fusetune.bench.results.written_spec import WrittenSpec
from fusetune.bench.search.for_optuna import FEWEST_FOR_IMPORTANCE
from fusetune.bench.search.plan import plan_of
from fusetune.bench.search.state import open_search
from tests.bench.page.checked import status_of
from tests.end_to_end.conftest import Done, environment

pytestmark = pytest.mark.slow

EPOCHS, BUDGET = 3, 12
SPEC = """\
name: small-search
data: {name: spirals, limit: 400, validation: 150}
model: {name: mlp, width: 16, depth: 1}
train: {base_lr: 0.1, batch_size: 32, epochs: 3, schedule: one-cycle}
factors:
  base_lr: {low: 0.001, high: 1.0, log: true}
  optimizer: [sgd, adam]
design: {search: {budget_epochs: 12, fresh_seeds: 2}}
target: {metric: val_accuracy, at_least: 0.4}
"""
# 1,024 samples x 16,384 units x 4 bytes are 64 MiB for each activation; 16 samples take 1 MiB.
HUNGRY = """\
name: hungry-search
data: {name: spirals, limit: 1200, validation: 150}
model: {name: mlp, width: 16384, depth: 1}
train: {base_lr: 0.0001, batch_size: 16, epochs: 2, optimizer: sgd}
factors:
  batch_size: [16, 1024]
  base_lr: [0.00003, 0.0001, 0.0003, 0.001]
design: {search: {budget_epochs: 8, prior: false, fresh_seeds: 1}}
limits: {memory: 100MiB}
"""
# The third model that a process trains is there while two others wait; in a re-run, an earlier seed is on disk.
STRIKING = """\
import os
import signal
from pathlib import Path

from torch import nn

trained = set()


class Net(nn.Sequential):
    strikes = ""

    def forward(self, x):
        if self.training:
            trained.add(id(self))
            if self.strikes == "worker" and len(trained) == 3:
                strike(os.getpid())
            if self.strikes == "run" and any('"seed":1,' in f.read_text() for f in Path().glob(RECORDS)):
                strike(run())
        return super().forward(x)


RECORDS = "results/*/*/records.jsonl"


def run():
    # The parent of the worker's guard, where there is one.
    parent = Path("/proc", str(os.getppid()))
    if not parent.is_dir():
        return os.getppid()
    return int((parent / "stat").read_bytes().rpartition(b")")[2].split()[1])


def strike(process):
    try:
        Path("struck").mkdir()
    except FileExistsError:
        return
    os.kill(process, signal.SIGKILL)


def build(input_shape, num_classes, strikes):
    net = Net(nn.Linear(input_shape[0], 16), nn.ReLU(), nn.Linear(16, num_classes))
    net.strikes = strikes
    return net
"""


def write_striking(directory: Path, strikes: str) -> None:
    """Write SPEC with a model that once kills its worker, or the whole run."""
    (directory / "striking.py").write_text(STRIKING)
    model = f"{{factory: 'striking:build', strikes: {strikes}}}"
    spec = SPEC.replace("{name: mlp, width: 16, depth: 1}", model)
    (directory / "small.yaml").write_text(spec.replace("fresh_seeds: 2", "fresh_seeds: 2, prior: false"))


def split(records: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the records of the search, and those of the winner's fresh seeds."""
    return [r for r in records if r["seed"] == 0], [r for r in records if r["seed"] != 0]


def check(done: Done) -> None:
    """Hold a finished search of SPEC to its budget, its records to the ordinary, its winner to fresh seeds."""
    searched, again = split(done.records)
    assert sum(len(r["curve"]) for r in searched) == BUDGET
    assert len({r["trial"] for r in done.records}) == len(done.records)
    assert not any((r["outcome"] or {}).get("kind") == "paused_training" for r in done.records)
    for record in searched:
        reached = [e for e in record["curve"] if (e["val_accuracy"] or 0) >= 0.4]
        if reached and record["status"] != "diverged":
            assert record["status"] == "ok"
            assert record["values"]["time_to_target_s"] == pytest.approx(reached[0]["time_s"])
        else:
            assert record["status"] in ("missed_target", "stopped_early", "diverged")
            assert "time_to_target_s" not in record["values"]
        assert (len(record["curve"]) == EPOCHS) or record["reason"]
    assert any(r["status"] == "ok" for r in searched)

    # What was trained again came to the numbers that the decisions went by.
    searcher, _ = open_search(plan_of(WrittenSpec(done.run["spec"])), done.run_directory)
    for trial in searcher.trials:
        (record,) = [r for r in searched if r["factors"] == trial.config]
        assert [e["val_accuracy"] for e in record["curve"]][: trial.epochs] == trial.values

    winner = max(searched, key=lambda r: max((e["val_accuracy"] or 0 for e in r["curve"]), default=0))
    best = max(e["val_accuracy"] for e in winner["curve"])
    assert sorted(r["seed"] for r in again) == [1, 2]
    assert len({json.dumps(r["factors"], sort_keys=True) for r in again}) == 1
    (fresh,) = [r for r in searched if r["factors"] == again[0]["factors"]]
    assert max(e["val_accuracy"] for e in fresh["curve"]) == best
    assert all(len(r["curve"]) == EPOCHS for r in again)

    words = " ".join(re.sub("[│╭╮╰╯─]", " ", done.out).split())
    for text in ("Winner", f"{best:.4g}", "on 2 fresh seeds", "95 % interval", "12 of 12 epochs"):
        assert text in words
    if len(searched) < FEWEST_FOR_IMPORTANCE:
        assert f"fewer than {FEWEST_FOR_IMPORTANCE} trainings reported a value" in words
        return
    assert "Importance (share of the variance" in words
    plots = [
        done.run_directory / f"{n}.{s}" for n in ("parallel_coordinate", "contour") for s in ("png", "svg")
    ]
    assert plots[0].read_bytes().startswith(b"\x89PNG")
    assert all(file.stat().st_size > 5000 for file in plots)


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_where_it_was(tmp_path: Path, bench: Callable[..., Done]) -> None:
    (tmp_path / "small.yaml").write_text(SPEC)
    command = [sys.executable, "-m", "fusetune.bench", "run", "small.yaml"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            logs = list(tmp_path.glob("results/*/*/search.jsonl"))
            if logs and logs[0].read_text().count('"event":"epoch"') >= 4:
                break
            time.sleep(0.02)
        else:
            pytest.fail("the search made no four epochs")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = values(logs[0])
    page = logs[0].parent / "report.html"
    assert bench("report", str(page.parent), "--html").code == 0
    status = status_of(page.read_text())
    assert status.startswith(
        f"Interrupted: {len(before)} of 12 epochs, and the search is not over. Continue with "
    )
    done = bench("run", "--resume", str(logs[0].parent))
    assert done.code == 0, done.err
    assert status_of(page.read_text()) == ""
    made = re.search(r"12 epochs, (\d+) of them trained before", done.out)
    assert made
    assert int(made[1]) == len(before)
    seen = look(logs[0].parent)
    assert (seen.state, seen.done, seen.total, seen.unit) == ("over", 12, 12, "epoch")
    check(done)
    after = values(logs[0])
    assert len(after) == len(set(after)) == BUDGET
    assert after[: len(before)] == before

    records = (logs[0].parent / "records.jsonl").read_text()
    again = bench("run", "--resume", str(logs[0].parent))
    assert again.code == 0, again.err
    assert (logs[0].parent / "records.jsonl").read_text() == records


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_trainings_that_waited_in_a_killed_worker_are_trained_again(
    tmp_path: Path, bench: Callable[..., Done], jobs: str
) -> None:
    write_striking(tmp_path, "worker")
    done = bench("run", "small.yaml", "--jobs", jobs)
    assert (tmp_path / "struck").exists()
    assert done.code == 0, done.err
    check(done)
    words = " ".join(done.out.split())
    for text in (
        "the worker was killed by SIGKILL; the kernel",
        "2 trainings paused in its memory will be trained again from the start, if chosen",
    ):
        assert text in words
    assert re.search("worker [01] was replaced: ", words)
    # Two workers share the search.
    assert all(r["provenance"]["timings_shared"] == (jobs == "2") for r in done.records)
    logs = {file.name for file in done.run_directory.glob("worker-*.log")}
    assert logs == {f"worker-{number}.log" for number in range(int(jobs))}
    searched, _ = split(done.records)
    assert not any(r["status"] in ("out_of_memory", "failed") for r in searched)
    # Those that waited were chosen again, or stand in the records as lost.
    again = sum((r["outcome"] or {}).get("epochs_made_again", 0) for r in searched)
    lost = [r for r in searched if "the worker that trained it is gone" in r["reason"]]
    assert again + len(lost) >= 2
    if again:
        assert f"{again} epoch{'s' * (again > 1)} repeated" in words


@pytest.mark.slow
def test_a_run_that_is_killed_between_fresh_seeds_goes_on_with_the_same_winner(
    tmp_path: Path, bench: Callable[..., Done]
) -> None:
    write_striking(tmp_path, "run")
    killed = bench("run", "small.yaml")
    assert killed.code == -signal.SIGKILL
    before = killed.records
    told = values(killed.run_directory / "search.jsonl")
    assert [r["seed"] for r in before if r["seed"]] == [1]
    done = bench("run", "--resume", str(killed.run_directory))
    assert done.code == 0, done.err
    check(done)
    assert done.records[: len(before)] == before
    assert len(done.records) == len(before) + 1
    assert values(done.run_directory / "search.jsonl") == told


def values(log: Path) -> list[tuple[int, int]]:
    """Return the (trial, epoch) pairs that a log has, in their order."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [(line["training"], line["entry"]["epoch"]) for line in lines if line["event"] == "epoch"]


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_a_row_and_not_tried_again(
    tmp_path: Path, bench: Callable[..., Done]
) -> None:
    (tmp_path / "hungry.yaml").write_text(HUNGRY)
    done = bench("run", "hungry.yaml")
    assert done.code == 0, done.err
    searched, again = split(done.records)
    (refused,) = [r for r in searched if r["factors"]["batch_size"] == 1024]
    assert refused["status"] == "out_of_memory"
    assert "the limit of the spec is 100 MiB" in refused["reason"]
    assert "out_of_memory: wanted" in done.out
    assert sum(len(r["curve"]) for r in searched) == 8 - 1
    assert all(r["status"] in ("ok", "stopped_early") for r in searched if r is not refused)
    assert [r["factors"]["batch_size"] for r in again] == [16]


def test_a_search_in_which_nothing_trains_is_a_failure(tmp_path: Path, bench: Callable[..., Done]) -> None:
    spec = SPEC.replace("{low: 0.001, high: 1.0, log: true}", "{low: 1.0e+6, high: 1.0e+9}")
    spec = spec.replace("[sgd, adam]", "[sgd]").replace("epochs: 12", "epochs: 3")
    (tmp_path / "small.yaml").write_text(spec)
    done = bench("run", "small.yaml")
    assert done.code == 1, done.err
    assert [r["status"] for r in done.records] == ["diverged"] * 3
    words = " ".join(re.sub("[│╭╮╰╯─]", " ", done.out).split())
    for text in ("NOTHING FOUND", "3 diverged", "base_lr", "log: true", "3 of 3 epochs"):
        assert text in words


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "design: {search: {budget_epochs: 12, fresh_seeds: 2}}",
            "design: grid",
            "is for design: {search: ...}",
        ),
        ("budget_epochs: 12", "budget_epochs: 0", "must be at least 1, is 0"),
        (SPEC[SPEC.index("factors:") : SPEC.index("design:")], "", "factors"),
    ],
)
def test_a_search_that_cannot_be_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, sentence: str
) -> None:
    assert old in SPEC
    (tmp_path / "small.yaml").write_text(SPEC.replace(old, new))
    with pytest.raises(SystemExit) as end:
        main(["run", str(tmp_path / "small.yaml"), "--results", str(tmp_path / "results")])
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
