"""The commit that made a metric worse: `git bisect run`, in a worktree of its own, with the gate as its test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fusetune.bench.errors import InputError, SetupError
from fusetune.bench.gate import WORKING_TREE, Repository, Revision, checkouts, find_revision, run_git
from fusetune.bench.history.bisect_step import (
    BisectJob,
    Step,
    environment,
    judge_commit,
    read_step,
    step_command,
)
from fusetune.bench.history.commits import CommitFacts, commit_facts
from fusetune.bench.interrupts import interrupts_deferred

# A gate that is asked to end removes its worktrees. Then it is killed.
_GRACE_S = 60.0
_JOB = "bisect.json"
_SHOWN = 12

News = Callable[[str], None]


@dataclass(frozen=True)
class Bisection:
    """What a bisection came to.

    Args:
        metric: that became worse.
        good, bad: where it began.
        steps: each commit that was gated, in order. The first is `bad`.
        found: the first bad commit; None: there is none, or too many commits could not be judged.
        left: hashes of the commits among which the first bad one is, where it was not found.
    """

    metric: str
    good: Revision
    bad: Revision
    steps: tuple[Step, ...]
    found: CommitFacts | None = None
    left: tuple[str, ...] = ()


def bisect(
    repository: Repository,
    subject: Sequence[str],
    metric: str,
    good: str,
    bad: str,
    *,
    folder: Path,
    news: News,
) -> Bisection:
    """Find the first commit whose metric regressed against a good one.

    The bad commit is gated first, because a change of the machine is in no commit. What the user has checked out is not
    touched, and neither is a bisection of theirs.

    Args:
        repository: of the commits.
        subject: arguments of `bench gate` that say what is gated, and how.
        metric: its name.
        good, bad: names of revisions. The good one leads to the bad one.
        folder: where gates are started.
        news: takes a line for each commit.

    Raises:
        InputError: an unknown revision or metric, a good one that does not lead to the bad one, or what the gate
            refuses.
        SetupError: git cannot bisect, or the bad commit cannot be made to run.
        KeyboardInterrupt: everything that was started has ended, and no worktree is left.
    """
    first, last = find_revision(repository, good, "--good"), find_revision(repository, bad, "--bad")
    if first.commit == last.commit:
        raise InputError("--bad", f"'{bad}' is the same commit as '{good}'", to_do="Name a later commit.")
    if run_git(repository.root, "merge-base", "--is-ancestor", first.commit, last.commit).code:
        raise InputError(
            "--good",
            f"'{good}' does not lead to '{bad}'",
            "a bisection needs an ancestor",
            f"Name one, such as {bad}~10.",
        )
    steps: list[Step] = []

    def tell(step: Step) -> None:
        steps.append(step)
        shown = commit_facts(repository.root, revision=step.commit)
        news(f"{step.judgement:<4} {step.commit[:_SHOWN]} {shown.subject or ''}: {step.why}")

    # The worktrees stay at these two commits. Git only notes which one it asks for.
    with checkouts(repository, _clean(first), _clean(last)) as sides:
        job = BisectJob(tuple(subject), metric, first.commit, str(folder), str(sides.head.path))
        tell(_first_step(job, last))
        found = Bisection(metric, first, last, tuple(steps))
        if steps[0].judgement != "bad":
            return found
        (sides.folder / _JOB).write_text(json.dumps(asdict(job)))
        worktree = sides.head.path
        started = run_git(worktree, "bisect", "start", "--no-checkout", last.commit, first.commit)
        if started.code:
            raise SetupError("git bisect", "cannot start", _last_line(started.error or started.text))
        code = _run(worktree, step_command(sides.folder / _JOB), tell)
        found = replace(found, steps=tuple(steps))
        named = run_git(worktree, "rev-parse", "--verify", "refs/bisect/bad^{commit}").text.strip()
        left = _left(worktree, named)
        if len(left) == 1:
            return replace(found, found=commit_facts(repository.root, revision=named))
        if any(step.judgement == "skip" for step in steps):
            return replace(found, left=left)
        raise SetupError("git bisect run", f"ended with {code}", f"{len(left)} commits are left")


def _clean(revision: Revision) -> Revision:
    """Return the commit alone, of a revision that may be the working tree."""
    return (
        replace(revision, dirty=False, changes="", name=revision.commit)
        if revision.name == WORKING_TREE
        else revision
    )


def _first_step(job: BisectJob, bad: Revision) -> Step:
    """Gate the bad commit itself."""
    step = judge_commit(job, bad.commit)
    if step.judgement == "interrupted":
        raise KeyboardInterrupt
    if step.judgement == "refused":
        raise InputError("--bisect", step.why)
    return step


def _left(worktree: Path, bad: str) -> tuple[str, ...]:
    """Return the commits among which the first bad one is, by what git knows by now."""
    good = run_git(worktree, "for-each-ref", "--format=%(objectname)", "refs/bisect/good-*").text.split()
    return tuple(run_git(worktree, "rev-list", bad, "--not", *good).text.split())


def _run(worktree: Path, command: Sequence[str], tell: Callable[[Step], None]) -> int:
    """Drive `git bisect run` to its end and return its exit code."""
    words = ["git", "-C", str(worktree), "-c", "core.hooksPath=/dev/null", "bisect", "run", *command]
    with _started(words) as process:
        assert process.stdout is not None
        for line in process.stdout:
            step = read_step(line)
            if step is not None and step.judgement == "interrupted":
                raise KeyboardInterrupt
            if step is not None:
                tell(step)
        return process.wait()


@contextmanager
def _started(words: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a program in a group of its own, and end the group with the block.

    All of the group hold its standard output. So the group has ended when that has.
    """
    process: subprocess.Popen[str] | None = None
    try:
        with interrupts_deferred():
            process = subprocess.Popen(
                words,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        yield process
    finally:
        if process is not None:
            with interrupts_deferred():
                _end_group(process)


def _end_group(process: subprocess.Popen[str]) -> None:
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is None or number == signal.SIGKILL:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_GRACE_S)
            return


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "git said nothing"
