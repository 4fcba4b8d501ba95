"""Real commands: what they do to a person's tensors, and what is left when they are killed or interrupted."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fusetune.bench.autotune import LaneWorkbench, tune
from fusetune.bench.kernels import Case, kernel_source
from fusetune.kernels.autotune import export_entries
from tests.bench.autotune import her_tensors
from tests.bench.autotune.test_lanes import PassingClock

HERS = Path(her_tensors.__file__)
ROOT = Path(__file__).parents[3]


def processes_with(mark: str) -> list[int]:
    """The processes whose environment has a mark, but not those that have ended and are waited for."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue  # it has ended, or is somebody else's
    return found


def wait_until(happens: Callable[[], bool], seconds: float = 120.0) -> bool:
    end = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.slow
def test_tensors_of_hers_are_bit_equal_when_a_kernel_that_changes_them_was_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel itself raises, in its process, where any call finds a tensor of the module changed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = [tensor.clone().numpy().tobytes() for tensor in her_tensors.HERS]
    case = Case(kernel_source(f"{HERS}:QUICK"), "her_quick", her_tensors.ELEMENTS, "float32")
    with LaneWorkbench(cold=False) as workbench:
        opened, workbench.open = workbench.open(case), lambda case: opened  # type: ignore[method-assign]
        given = [np.array(shared.tree["x"].values) for shared in workbench._pool]
        found = tune(case, workbench, budget_s=1e9, clock=PassingClock())
        for shared, before in zip(workbench._pool, given, strict=True):
            assert shared.tree["x"].values.tobytes() == before.tobytes()
            assert any(each.startswith(before.tobytes()) for each in here)
    assert (found.status, found.reason) == ("ok", "")
    assert all(candidate.samples_s for candidate in found.candidates)
    assert [tensor.numpy().tobytes() for tensor in her_tensors.HERS] == here


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_ended_keeps_its_entries_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    mark = secrets.token_hex(16)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command = [sys.executable, "-m", "bench", "autotune", f"{HERS}:QUICK", f"{HERS}:WAITING", "--warm"]
    program = subprocess.Popen(
        [*command, "--budget", "1h", "--results", str(tmp_path / "results")],
        env={**os.environ, "MARK_OF_THE_TEST": mark, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def events() -> list[dict[str, object]]:
        text = "".join(path.read_text() for path in (tmp_path / "results").glob("autotune/*/autotune.jsonl"))
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    try:
        # The first kernel is finished, and the second has begun.
        assert wait_until(lambda: "her_waiting" in str(events()[-1:])), program.communicate(timeout=1)
        assert wait_until(lambda: len(processes_with(mark)) >= 3)
        (os.killpg if number == signal.SIGINT else os.kill)(program.pid, number)
        _, err = program.communicate(timeout=60)
    finally:
        program.kill()
    if number == signal.SIGINT:
        assert program.returncode == 130
        assert "interrupted; 1 of 2 cases are finished and kept." in err
        assert "Traceback" not in err
    assert wait_until(lambda: not processes_with(mark)), processes_with(mark)
    (directory,) = (tmp_path / "results" / "autotune").iterdir()
    again = subprocess.run([*command[:3], "report", str(directory)], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "1 case, 1 with a new launch config." in again.stdout
    assert export_entries(tmp_path / "entries.json") == 1
    (finished,) = [event["finished"] for event in events() if "finished" in event]
    assert isinstance(finished, dict)
    assert finished["winner"] == {"STEPS": 1}
    (path,) = finished["entries"]
    assert json.loads(Path(path).read_text())["entry"]["config"] == {"STEPS": 1}
