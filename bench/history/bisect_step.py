"""One step of a bisection: the gate of one commit against the good one, and what `git bisect run` is told about it.

`git bisect run` starts this file as a program. Its exit code is 0 for a good commit, 1 for a bad one and 125 for one
that cannot be judged. Above 127 git stops.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, Literal

from fusetune.bench.gate import run_git
from fusetune.bench.terminal import say
from fusetune.bench.workers import running_program

Judgement = Literal["good", "bad", "skip", "refused", "interrupted"]

EXIT_CODES: dict[Judgement, int] = {"good": 0, "bad": 1, "skip": 125, "refused": 128, "interrupted": 130}
# How the gate ends, where it does not judge.
_BAD_INPUT, _SETUP_FAILED, _INTERRUPTED = 2, 4, 130
_KEY = "bisect_step"
# The folder that this program starts in holds a revision of somebody's code, which is not to be imported here.
_PROGRAM = "import sys; del sys.path[0]; from fusetune.bench.{0} import {1}; sys.exit({1}(sys.argv[1:]))"


@dataclass(frozen=True)
class BisectJob:
    """What is the same in all steps.

    Args:
        subject: arguments of `bench gate` that say what is gated, and how.
        metric: the one that is looked at.
        good: hash of the commit that all others are compared with.
        folder: where the gate is started.
        worktree: where the bisection is.
    """

    subject: tuple[str, ...]
    metric: str
    good: str
    folder: str
    worktree: str


@dataclass(frozen=True)
class Step:
    """One commit.

    Args:
        commit: hash.
        judgement: what it was found to be.
        why: one sentence.
    """

    commit: str
    judgement: Judgement
    why: str

    def as_line(self) -> str:
        """Write it for the program that drives the bisection."""
        return json.dumps({_KEY: asdict(self)})


def read_step(line: str) -> Step | None:
    """Return the step that a line of output tells of; None: it is another line.

    Example:
        >>> read_step(Step("abc", "bad", "10 % slower").as_line())
        Step(commit='abc', judgement='bad', why='10 % slower')
        >>> read_step("Bisecting: 3 revisions left to test after this") is None
        True
    """
    if not line.startswith(f'{{"{_KEY}"'):
        return None
    return Step(**json.loads(line)[_KEY])


def step_command(job_file: Path) -> list[str]:
    """Return the command that runs one step.

    Args:
        job_file: a `BisectJob` as JSON.
    """
    return [sys.executable, "-c", _PROGRAM.format("history.bisect_step", "main"), str(job_file)]


def environment() -> dict[str, str]:
    """Return the variables of the step and of its gate: those of this process, with this fusetune to be imported."""
    variables = {key: value for key, value in os.environ.items() if key != "GITHUB_STEP_SUMMARY"}
    paths = [*filter(None, [_package_folder(), variables.get("PYTHONPATH")])]
    return {**variables, "PYTHONPATH": os.pathsep.join(paths)}


def judge_commit(job: BisectJob, commit: str) -> Step:
    """Gate a commit against the good one.

    Args:
        job: what is gated.
        commit: hash.
    """
    with tempfile.TemporaryDirectory(prefix="bisect-") as folder:
        result = Path(folder, "result.json")
        code, said = _run_gate(job, commit, result)
        if code == _INTERRUPTED:
            return Step(commit, "interrupted", "interrupted")
        if code == _BAD_INPUT:
            return Step(commit, "refused", said)
        if code == _SETUP_FAILED or not result.is_file():
            return Step(commit, "skip", f"it cannot be judged: {said}")
        return Step(commit, *judge_rows(json.loads(result.read_text())["rows"], job.metric))


def judge_rows(rows: Sequence[Mapping[str, Any]], metric: str) -> tuple[Judgement, str]:
    """Say what the rows of a gate mean for a metric, and why in one sentence.

    Args:
        rows: of its JSON.
        metric: name. Several benchmarks may have it: one that regressed is enough.

    Example:
        >>> judge_rows([{"benchmark": "a", "metric": "b_s", "outcome": "pass", "sentence": "No change."}], "b_s")
        ('good', 'No change.')
    """
    found = [row for row in rows if row["metric"] == metric]
    if not found:
        known = ", ".join(sorted({str(row["metric"]) for row in rows}))
        return "refused", f"the gate has no metric '{metric}'; known: {known}"
    worst: tuple[tuple[Judgement, tuple[str, ...]], ...] = (
        ("bad", ("regressed",)),
        ("skip", ("missing", "can't tell")),
    )
    for judgement, outcomes in worst:
        for row in found:
            if row["outcome"] in outcomes:
                return judgement, str(row["sentence"])
    return "good", str(found[0]["sentence"])


def main(arguments: Sequence[str]) -> int:
    """Judge the commit that git asks for, print the step, and return what `git bisect run` takes.

    Args:
        arguments: the path of a `BisectJob` as JSON.
    """
    content = json.loads(Path(arguments[0]).read_text())
    job = BisectJob(**{**content, "subject": tuple(content["subject"])})
    asked = run_git(Path(job.worktree), "rev-parse", "--verify", "BISECT_HEAD^{commit}")
    step = judge_commit(job, asked.text.strip())
    if step.judgement == "refused":
        # The bad commit was gated before, so that this is about this commit: it may lack the spec.
        step = Step(step.commit, "skip", f"it cannot be judged: {step.why}")
    say(step.as_line())
    return EXIT_CODES[step.judgement]


def _run_gate(job: BisectJob, commit: str, result: Path) -> tuple[int, str]:
    """Run `bench gate` and return its exit code and its last words."""
    words = [sys.executable, "-c", _PROGRAM.format("cli", "main"), "gate", *job.subject]
    words += ["--base", job.good, "--head", commit, "--json", str(result)]
    with tempfile.TemporaryFile() as said:
        code = _wait_for(words, job.folder, said)
        said.seek(0)
        lines = [line for line in said.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return code, lines[-1].removeprefix("error: ") if lines else f"the gate ended with {code}"


def _wait_for(words: Sequence[str], folder: str, said: BinaryIO) -> int:
    """Run a program and return its exit code. Signals are handed on to it, and waited for.

    `subprocess.run` would kill it a moment after Ctrl-C, and so leave its worktrees.
    """
    started: list[int] = []
    early: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        for group in started:
            with suppress(ProcessLookupError):
                os.killpg(group, number)
        if not started:
            early.append(number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with running_program(
            words,
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        ) as process:
            started.append(process.pid)
            for number in early:
                os.killpg(process.pid, number)
            return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _package_folder() -> str:
    import fusetune

    return str(Path(fusetune.__file__ or "").parents[1])
