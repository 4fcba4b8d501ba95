"""One round of a gate: it is killed at random moments and resumed, and must end as an undisturbed one does."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from tests.bench.gate.scratch_repository import git, make_repository, write
from tests.chaos.program import Ended, run_program
from tests.end_to_end.conftest import environment

# Head is slower, hungrier and as good at learning. What it prints is drawn from its seed alone.
PROGRAM = """
import json, os, random, subprocess, sys, time
SIDE, SLOWER, BYTES = {side!r}, {slower!r}, {number!r}
noise = random.Random(SIDE + os.environ["BENCH_GATE_SEED"])
subprocess.run([sys.executable, "-I", "-S", "-c", "import time; time.sleep(0.1)"], start_new_session=True)
seconds = [0.01 * SLOWER * noise.gauss(1, 0.004) for _ in range(30)]
print(json.dumps({{"step_s": seconds, "peak_bytes": BYTES, "accuracy": 0.9 + noise.gauss(0, 0.002)}}))
"""
COMMAND = "python -I -S bench.py"
VERDICTS = {"step_s": "regressed", "peak_bytes": "regressed", "accuracy": "pass"}
PAIRS = 7
MOST_DISASTERS = 4
# From the start of the gate to the disaster: its checkouts, its pairs or its verdicts.
LONGEST_S = 8.0


def gate_round(place: Path, chance: random.Random, fresh: bool, faults: list[str]) -> str:
    """Run a round and return what is wrong with what came of it.

    Args:
        place: an empty folder.
        chance: of the disasters.
        fresh: whether the gate is a fresh interpreter, or a fork of this one.
        faults: gets the disasters.
    """
    repository = make_repository(
        place / "repository",
        {
            ".gitignore": "printed.txt\n",
            "bench.py": PROGRAM.format(side="base", slower=1.0, number=1000),
        },
    )
    write(repository, {"bench.py": PROGRAM.format(side="head", slower=1.2, number=1001)})
    status = git(repository, "status", "--porcelain")

    def gate(**how: Any) -> Ended:
        found = sorted(repository.glob("results/gate/*/gate.json"))
        words = ("--resume", str(found[-1].parent)) if found else ("--command", COMMAND, "--base", "main")
        around = {**environment(place), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        return run_program(("gate", *words), repository, around, fresh=fresh, **how)

    kept: list[Any] = []
    for _ in range(chance.randint(1, MOST_DISASTERS)):
        fault = chance.choice(["kill", "kill", "kill the group", "SIGTERM", "Ctrl-C"])
        faults.append(fault)
        ended = gate(meanwhile=_striker(fault, chance.uniform(0, LONGEST_S)))
        if (
            ended.code not in (0, 1, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)
            or "Traceback" in ended.text
        ):
            return f"it ended with {ended.code}:\n{ended.text}"
        if running := _running_in(repository):
            return f"processes {running} still run after {fault}"
        pairs = _pairs(repository)
        if pairs[: len(kept)] != kept:
            return f"finished pairs have changed after {fault}: {kept}, then {pairs}"
        kept = pairs
    ended = gate()
    if ended.code != 1:
        return f"in peace it ended with {ended.code}:\n{ended.text}"
    (file,) = repository.glob("results/gate/*/result.json")
    rows = {row["metric"]: row["outcome"] for row in json.loads(file.read_text())["rows"]}
    if rows != VERDICTS:
        return f"its verdicts are {rows}"
    pairs = _pairs(repository)
    if pairs[: len(kept)] != kept or [pair["index"] for pair in pairs] != list(range(PAIRS)):
        return f"its pairs are {[pair['index'] for pair in pairs]}"
    left = [path.name for path in (repository / ".git/fusetune-gate").iterdir() if path.name != "lock"]
    worktrees = git(repository, "worktree", "list").splitlines()
    if left or len(worktrees) > 1 or git(repository, "status", "--porcelain") != status:
        return f"it left {left} and worktrees {worktrees}"
    return ""


def _striker(fault: str, after_s: float) -> Any:
    """Return what strikes a process once after some seconds."""
    began, struck = time.monotonic(), False

    def strike(process: int) -> None:
        nonlocal struck
        if struck or time.monotonic() - began < after_s:
            return
        struck = True
        number = {"SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}.get(fault, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if fault in ("kill the group", "Ctrl-C") else os.kill)(process, number)

    return strike


def _running_in(folder: Path) -> list[int]:
    """Return the processes that work in a folder, a moment after a gate has ended."""
    found: list[int] = []
    patience = time.monotonic() + 20
    while time.monotonic() < patience:
        found = []
        for path in Path("/proc").glob("[0-9]*/cwd"):
            with contextlib.suppress(OSError):
                if Path(os.readlink(path)).is_relative_to(folder):
                    found.append(int(path.parent.name))
        if not found:
            break
        time.sleep(0.01)
    return found


def _pairs(repository: Path) -> list[Any]:
    """Return the finished pairs. A line that a crash cut short is none."""
    return [
        json.loads(line)
        for file in repository.glob("results/gate/*/pairs.jsonl")
        for line in file.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]
