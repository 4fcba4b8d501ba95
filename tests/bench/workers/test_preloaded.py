"""Torch is loaded once, for all workers of a command, and not by the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fusetune.bench.machine import describe_machine
from fusetune.bench.workers import ask
from fusetune.bench.workers.executors import WorkerExecutor
from fusetune.bench.workers.guard import is_guarded
from tests.bench.workers.test_executors import SETUP, ignore, trial_to

pytestmark = pytest.mark.skipif(
    not is_guarded(), reason="this system has no forks of a process with torch in it"
)

ASKS = """
import json, sys
from fusetune.bench.machine import describe_machine
from fusetune.bench.workers import ask
print(json.dumps([ask(describe_machine, "cpu"), "torch" in sys.modules]))
"""


def parent_of(process: int) -> int:
    """Return the parent's process id."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def test_all_workers_are_forks_of_one_process(tmp_path: Path) -> None:
    origins = []
    for name in ("first.log", "second.log"):
        executor = WorkerExecutor(SETUP, log=tmp_path / name)
        assert executor.run(trial_to("succeed"), ignore).status == "ok"
        assert executor.process_id is not None
        origins.append(parent_of(parent_of(executor.process_id)))  # above the worker's guard
        executor.close()
    assert origins[0] == origins[1] != os.getpid()
    assert parent_of(origins[0]) == os.getpid()


@pytest.mark.slow
def test_the_machine_is_described_without_torch_as_with_it() -> None:
    done = subprocess.run([sys.executable, "-c", ASKS], capture_output=True, text=True, check=True)
    there, loaded = json.loads(done.stdout)
    assert not loaded
    here = describe_machine("cpu")
    assert {name for name in here if there[name] != here[name]} <= {"threads"}  # a test may have set them


def test_whoever_has_torch_answers_itself() -> None:
    assert ask(os.getpid) == os.getpid()


def test_where_torch_does_not_load_the_question_is_answered_without(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('a broken torch')")
    code = "import os\nfrom fusetune.bench.workers import ask\nprint(ask(os.getpid) == os.getpid())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"
