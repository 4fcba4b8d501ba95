"""Whatever ends a run, finished trials are kept and the rest can be run later, nothing twice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bench.page.checked import status_of
from tests.end_to_end.conftest import Done, environment

SLOW = """\
name: slow
data:   {name: spirals, limit: 2000, validation: 200}
model:  {name: mlp, width: 64, depth: 3}
train:  {optimizer: adam, base_lr: 0.01, batch_size: 20, epochs: 12}
factors: {batch_size: [20, 25], optimizer: [momentum, adam]}
seeds: 2
"""


@contextmanager
def running(directory: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a run and wait until two of its trials are recorded."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fusetune.bench", "run", *arguments],
        cwd=directory,
        env=environment(directory),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts what runs in the background with Ctrl-C ignored, and the tests may be that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        while len(lines(directory)) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def lines(directory: Path) -> list[str]:
    """The complete lines of the only run's records."""
    found = list(directory.glob("results/*/*/records.jsonl"))
    return found[0].read_text().splitlines() if found else []


def left_of_group(group: int) -> list[str]:
    """The processes of a group that still run (one that is dead but not yet collected does not)."""
    left = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, pgrp = path.read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state != "Z":
                left.append(path.parent.name)
    return left


def all_trials() -> set[str]:
    return {
        f"batch_size={b},optimizer={o},seed={s}"
        for b in (20, 25)
        for o in ("momentum", "adam")
        for s in (0, 1)
    }


@pytest.mark.slow
def test_a_killed_run_is_resumed_where_it_was(bench: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text(SLOW)
    with running(tmp_path, "slow.yaml") as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
    kept = lines(tmp_path)
    assert 2 <= len(kept) < 8
    (path,) = tmp_path.glob("results/*/*")
    seen = bench("status", str(path)).out
    assert "state     the driver is gone: process " in seen
    assert f"continue  python -m fusetune.bench run --resume {path}\n" in seen
    with (path / "records.jsonl").open("a") as file:
        file.write('{"trial": "torn')

    partial = bench("report", str(path))
    assert partial.code == 0
    assert "cut short" in partial.out
    assert "--resume" in partial.out

    (tmp_path / "slow.yaml").write_text(SLOW.replace("base_lr: 0.01", "base_lr: 0.02"))
    refused = bench("run", "--resume", str(path))
    assert refused.code == 2
    assert "spec.train.base_lr: 0.01 -> 0.02" in refused.err
    assert len(list(tmp_path.glob("results/*/*"))) == 1

    (tmp_path / "slow.yaml").write_text(SLOW)
    done = bench("run", "--resume", str(path))
    assert done.code == 0, done.err
    assert done.run_directory == path
    after = lines(tmp_path)
    assert after[: len(kept)] == kept
    trials = [json.loads(line)["trial"] for line in after]
    assert len(trials) == len(set(trials)) == 8
    assert set(trials) == all_trials()
    assert not (path / "status.json").exists()

    nothing_left = bench("run", "--resume", str(path))
    assert nothing_left.code == 0
    assert lines(tmp_path) == after


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_cleanly_and_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "slow.yaml").write_text(SLOW)
    with running(tmp_path, "slow.yaml") as process:
        os.killpg(process.pid, number) if number == signal.SIGINT else os.kill(process.pid, number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    (path,) = tmp_path.glob("results/*/*")
    assert f"python -m fusetune.bench run --resume results/slow/{path.name}" in err
    assert "Traceback" not in err
    assert not (path / "status.json").exists()
    kept = lines(tmp_path)
    status = status_of((path / "report.html").read_text())
    assert status.startswith(f"Interrupted: {len(kept)} of 8 trials, {8 - len(kept)} ")
    assert 2 <= len(kept) < 8
    assert all(json.loads(line)["status"] == "ok" for line in kept)
    deadline = time.monotonic() + 10
    while left_of_group(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left_of_group(process.pid)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_whoever_presses_ctrl_c_again_and_again_sees_no_traceback(tmp_path: Path, jobs: str) -> None:
    (tmp_path / "slow.yaml").write_text(SLOW)
    with running(tmp_path, "slow.yaml", "--jobs", jobs) as process:
        while process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.003)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert "Exception ignored" not in out + err
    assert err.count("interrupted") == 1
    assert all(json.loads(line)["status"] == "ok" for line in lines(tmp_path))
    deadline = time.monotonic() + 10
    while left_of_group(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left_of_group(process.pid)


@pytest.mark.slow
def test_two_runs_never_share_a_directory(bench: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text(SLOW)
    with running(tmp_path, "slow.yaml"):
        (path,) = tmp_path.glob("results/*/*")
        refused = bench("run", "--resume", str(path))
    assert refused.code == 2
    assert "in use" in refused.err
