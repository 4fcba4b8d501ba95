"""`bench run --executor ray` on a real cluster of three nodes on this machine: the same outcome as without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import ROOT, Done, environment
from tests.ray_cluster import RayCluster

Bench = Callable[..., Done]
DIGITS = str(ROOT / "specs" / "digits.yaml")
# One thread, for rounding depends on their number. A node without the cores of its two workers is slow, and right.
FIXED = (
    "--set",
    "threads=1",
    "--set",
    "limits={}",
    "--set",
    "device=cpu",
    "--set",
    "train.epochs=5",
    "--set",
    "seeds=2",
)

OWN = """\
name: own
data:   {name: spirals, limit: 400, validation: 100}
model:  {factory: "mine:net", width: 8}
train:  {optimizer: sgd, base_lr: 0.05, batch_size: 50, epochs: 2}
seeds: 2
"""
MINE = """\
import torch
import words

def net(input_shape, num_classes, width):
    print(words.HELLO, flush=True)
    first, last = torch.nn.Linear(input_shape[0], width), torch.nn.Linear(width, num_classes)
    return torch.nn.Sequential(first, torch.nn.ReLU(), last)
"""


def read(run: Path) -> dict[str, dict[str, Any]]:
    """Trial -> record. No trial has two. A line that is being written is none yet."""
    whole, _, _ = (run / "records.jsonl").read_text().rpartition("\n")
    records = [json.loads(line) for line in whole.splitlines()]
    assert len({record["trial"] for record in records}) == len(records)
    return {record["trial"]: record for record in records}


def learnt(record: dict[str, Any]) -> tuple[Any, ...]:
    """What a training learnt, without its times."""
    steps = record["values"].get("steps_to_target")
    curve = [(entry["step"], entry["train_loss"], entry["val_accuracy"]) for entry in record["curve"]]
    return record["status"], steps, curve


def wait_for(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    give_up_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_s, "waited too long"
        time.sleep(0.2)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start `python -m bench ...` in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "fusetune.bench", *arguments],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_a_cluster_that_loses_its_driver_and_a_node_ends_as_one_machine(bench: Bench, tmp_path: Path) -> None:
    # Both machines' cores are these, and what a training learns does not depend on them.
    alone = start(tmp_path, "run", DIGITS, *FIXED, "--results", "here")
    with RayCluster() as cluster:
        where = ("--executor", f"ray={cluster.address}")
        each = ("--set", "resources.gpus=1")
        driver = start(tmp_path, "run", DIGITS, *FIXED, *where, *each, "--results", "there")
        runs = tmp_path / "there" / "digits"
        wait_for(lambda: any(runs.glob("*/records.jsonl")) and len(read(*runs.iterdir())) >= 4)
        # Ray would let other work of the node go first.
        assert {os.getpriority(os.PRIO_PROCESS, actor) for actor in cluster.actors()} == {os.nice(0)}
        os.kill(driver.pid, signal.SIGKILL)
        driver.communicate()
        wait_for(lambda: not cluster.actors())

        run = next(runs.iterdir())
        held = len(read(run))
        resumed = start(tmp_path, "run", "--resume", str(run), *where)
        wait_for(lambda: len(read(run)) >= held + 2)
        cluster.remove("n2")
        out, _ = resumed.communicate(timeout=300)
        assert resumed.returncode == 0, out
        assert "node n2 left" in out

        # A person's code travels, a module beside it too. The output of the workers comes back.
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "own.yaml").write_text(OWN)
        (tmp_path / "own" / "mine.py").write_text(MINE)
        (tmp_path / "own" / "words.py").write_text("HELLO = 'hello from a node'\n")
        own = bench("run", "own/own.yaml", *where)
        assert own.code == 0, own.out + own.err
        logs = [path.read_text() for path in own.run_directory.glob("worker-n*.log")]
        assert any("hello from a node" in log for log in logs)

        asked = bench("run", DIGITS, *where, "--set", "resources.gpus=3")
        assert (asked.code, asked.out) == (2, "")
        assert "no node has room for a trial with 3 gpus" in asked.err

    out, _ = alone.communicate(timeout=300)
    assert alone.returncode == 0, out
    here, there = read(*(tmp_path / "here" / "digits").iterdir()), read(run)
    assert {name: learnt(record) for name, record in there.items()} == {
        name: learnt(record) for name, record in here.items()
    }
    places = [record["provenance"] for record in there.values()]
    assert {place["node"] for place in places} <= {"n1", "n2"}
    assert {place["device_id"] for place in places} <= {"0", "1"}
    lost = [attempt for place in places for attempt in place.get("attempts", ())]
    assert {attempt["node"] for attempt in lost} <= {"n2"}
