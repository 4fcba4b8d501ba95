"""`bench status`: how far a run is, from another shell. Nothing is written, and no lock is taken."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from fusetune.bench.cli.console import make_console
from fusetune.bench.terminal import SafeConsole, say

if TYPE_CHECKING:
    from fusetune.bench.results import RunDirectory
    from fusetune.bench.status import Loss, RunStatus, Unit

_EVERY_S = 2.0
# A driver on another machine that has written nothing for so long may be gone: nothing else can be seen of it.
_SILENT_S = 60.0
_MOST_LOSSES = 5
_LONGEST_NODE = 24

# running: its driver lives. silent: it runs on another machine and has been silent for a minute. gone: it was killed.
# over: everything is recorded. interrupted: it ended before.
State = Literal["running", "silent", "gone", "interrupted", "over"]


@click.command()
@click.argument("directory", metavar="DIRECTORY", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object in place of a table.")
@click.option("--watch", is_flag=True, help="Print it again every 2 s, until the run has ended or Ctrl-C.")
def status(directory: Path, *, as_json: bool, watch: bool) -> None:
    """Show how far the run in DIRECTORY is, or the newest run under results/<spec name>.

    A run of one node has a line for each trial in flight, a run of several nodes a line for each node. A driver that
    was killed is said. Nothing is written, so this can be asked from any shell that sees the directory.
    """
    console = make_console()
    while True:
        seen = look(directory)
        if as_json:
            say(json.dumps(seen.as_dict(), allow_nan=False))
        else:
            if watch and console.is_terminal:
                console.clear()
            show(seen, console, whole=not (watch and console.is_terminal))
        if not watch or seen.state not in ("running", "silent"):
            return
        time.sleep(_EVERY_S)


@dataclass(frozen=True)
class Seen:
    """What a run's directory says at one moment.

    Args:
        directory: of the run.
        state: whether it goes on.
        words: the same for a reader.
        total: planned trials, or epochs of the budget of a search. 0: this kind of run does not say.
        done: how many of them are done.
        unit: what these two count.
        failed: recorded trials that failed.
        go_on: the command that continues it. None: nothing is to be continued.
        status: of `status.json`, with the time since it was written. None: there is no such file.
        silent_s: seconds since the driver wrote it.
    """

    directory: Path
    state: State
    words: str
    total: int
    done: int
    unit: Unit
    failed: int
    go_on: str | None = None
    status: RunStatus | None = None
    silent_s: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "directory": str(self.directory),
            "state": self.state,
            "total": self.total,
            "done": self.done,
            "unit": self.unit,
            "failed": self.failed,
            "silent_s": self.silent_s,
            "status": None if self.status is None else self.status.as_dict(),
        }


def look(directory: Path, now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)) -> Seen:
    """Look at a run.

    Args:
        directory: of the run, or of the runs of a spec.
        now: the time, with its offset from UTC.

    Raises:
        RunDirectoryError: there is no run, or one of its files is broken.
    """
    from fusetune.bench.results import RunDirectory, find_run, is_being_written
    from fusetune.bench.status import read_status

    run = RunDirectory.open(find_run(directory))
    # Whether the process lives is asked first, so that the files of one that has ended are read as it left them.
    is_running = is_being_written(run.path)
    found = read_status(run.path)
    if found is None:
        return _by_records(run, is_running=is_running)
    silent_s = max(0.0, (now() - datetime.fromisoformat(found.written)).total_seconds())
    state, words = _of_driver(found, silent_s, is_running=is_running)
    go_on = run.resume_command if state == "gone" else None
    return Seen(
        run.path, state, words, found.total, found.done, found.unit, found.failed, go_on, found, silent_s
    )


def _of_driver(found: RunStatus, silent_s: float, *, is_running: bool) -> tuple[State, str]:
    """Tell whether the driver lives. Its process can be seen on its own machine alone."""
    from fusetune.bench.status import whole_seconds

    driver = f"process {found.pid} on {found.host}"
    last = f"last news {whole_seconds(silent_s)} ago"
    if is_running:
        return "running", f"running: {driver}, {last}"
    if found.host == socket.gethostname():
        return "gone", f"the driver is gone: {driver}, {last}"
    if silent_s > _SILENT_S:
        return "silent", f"running, or gone: {driver}, {last}. Ask on that machine"
    return "running", f"running: {driver}, {last}"


def _by_records(run: RunDirectory, *, is_running: bool) -> Seen:
    """Tell from the records how far a run without a status is: one that is over, or one of a kind without it."""
    from fusetune.bench.kinds import BATCH_SIZE, SEARCH
    from fusetune.bench.report import state_of
    from fusetune.bench.results import study_run

    records, _ = run.records(needed_by="report")
    # The others need no study, which takes its time for many records.
    study = study_run(run, records) if run.run.kind in (SEARCH.name, BATCH_SIZE.name) else None
    found = state_of(run.run, records, study)
    state: State = "running" if is_running else "interrupted" if found.missing else "over"
    words = f"{state}: {found.words}" + (f", {found.missing}" if state == "interrupted" else "")
    go_on = run.resume_command if state == "interrupted" else None
    failed = sum(record.status == "failed" for record in records)
    if run.run.kind == SEARCH.name:
        assert study is not None
        budget, used = study.plan.budget_epochs, study.epochs_used
        return Seen(run.path, state, words, budget, used, "epoch", failed, go_on)
    return Seen(run.path, state, words, run.run.trials, len(records), "trial", failed, go_on)


def show(seen: Seen, console: SafeConsole, *, whole: bool = True) -> None:
    """Print what was seen.

    Args:
        seen: the run.
        console: where to.
        whole: whether all nodes are shown. Otherwise as many as the terminal has lines for.
    """
    from fusetune.bench.status import by_node, by_trial, device_words, kinds, node_count, shortened

    def line(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    line(f"run       {seen.directory}")
    line(f"state     {seen.words}")
    if seen.go_on:
        line(f"continue  {seen.go_on}")
    found = seen.status
    line(f"{f'{seen.unit}s':<10}{_counts(seen)}")
    if found is None:
        return
    named = f" ({of_one[0]})" if len(of_one := kinds(found.nodes)) == 1 else ""
    line(f"devices   {device_words(found)}{named}, executor {found.executor}")
    if found.message and not found.in_flight and seen.done < seen.total:
        line(f"said      {found.message}")
    console.print()
    # Of a driver that is gone nobody knows more than it wrote.
    passed_s = 0.0 if seen.state == "gone" or seen.silent_s is None else seen.silent_s
    now = datetime.fromisoformat(found.written) + timedelta(seconds=passed_s)
    if node_count(found) > 1 or len(found.nodes) > 1:
        console.print(by_node(found, now, None if whole else max(4, console.height - 12 - _MOST_LOSSES)))
    else:
        console.print(by_trial(found, now))
    losses = _told(found.losses)
    if losses:
        console.print()
        line("lost last")
    for loss in losses:
        what = f"trial {loss.trial}, attempt {loss.attempt}" if loss.trial else f"device {loss.device}"
        text = f"  {_clock(loss.at)}  {shortened(loss.node, _LONGEST_NODE)}  {what}: {loss.reason}"
        console.print(text, highlight=False, no_wrap=True, overflow="ellipsis")


def _told(losses: Sequence[Loss]) -> list[Loss]:
    """Return the last losses to print. A device that left with its trial is told by the trial."""
    with_trial = {(loss.node, loss.reason) for loss in losses if loss.trial}
    return [loss for loss in losses if loss.trial or (loss.node, loss.reason) not in with_trial][
        -_MOST_LOSSES:
    ]


def _counts(seen: Seen) -> str:
    """Say how many trials there are of each sort, or epochs, and when the last one is expected to end."""
    from fusetune.bench.stats import counted

    total = f"{seen.done} of {seen.total} done" if seen.total else f"{seen.done} done"
    found = seen.status
    failed = counted(seen.failed, "training") if seen.unit == "epoch" else seen.failed
    parts = [f"{total}, {failed} failed" if seen.failed else total]
    if found is not None and found.unit == "epoch" and found.done >= found.total:
        parts += (
            [f"the winner on {counted(found.in_flight, 'fresh seed')} in flight"] if found.in_flight else []
        )
    elif found is not None:
        parts += [f"{found.in_flight} in flight", f"{found.waiting} waiting"]
    if found is not None:
        parts += [f"lost {found.lost} {'time' if found.lost == 1 else 'times'}"] if found.lost else []
        parts += (
            [f"ends at about {_clock(found.ends)}"]
            if found.ends and seen.state == "running" and seen.done < seen.total
            else []
        )
    return ", ".join(parts)


def _clock(moment: str) -> str:
    """Write a moment with its day left out where it is today."""
    at = datetime.fromisoformat(moment)
    today = datetime.now(timezone.utc).date()
    return f"{at:%H:%M:%S} UTC" if at.date() == today else f"{at:%Y-%m-%d %H:%M} UTC"
