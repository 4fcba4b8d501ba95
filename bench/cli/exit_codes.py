"""The exit codes, the outcomes of trials that set them, and the end of an interrupted command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from fusetune.bench.cli.console import make_console
from fusetune.bench.cli.page_file import add_page_so_far
from fusetune.bench.errors import RunDirectoryError
from fusetune.bench.interrupts import ignore_interrupts
from fusetune.bench.kinds import function, kind_of
from fusetune.bench.terminal import say

if TYPE_CHECKING:
    from fusetune.bench.report import Progress
    from fusetune.bench.results import Record, RunDirectory, RunInfo

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

# Name for `--fail-on` -> statuses that it stands for. A failed trial is always a failure.
FAIL_ON = {
    "failed": ("failed",),
    "missed": ("missed_target", "stopped_early"),
    "diverged": ("diverged",),
    "out-of-memory": ("out_of_memory",),
}


def exit_code(
    records: Sequence[Record], fail_on: Sequence[str] = ("failed",), run: RunInfo | None = None
) -> int:
    """Return 1 if a trial failed or has an outcome of `fail_on`, else 0. Every other status is a result."""
    failed = any(record.status == "failed" for record in records)
    return FAILED if failed or failures(records, fail_on, run) else 0


def failures(records: Sequence[Record], fail_on: Sequence[str], run: RunInfo | None) -> dict[str, int]:
    """Return name -> number of trials for each outcome of `fail_on` that occurred, `failed` left out."""
    kind = kind_of(run.kind) if run else None
    if kind is not None and kind.judged is not None:
        records = function(kind.judged)(run, records)
    counts = {
        name: sum(record.status in FAIL_ON[name] for record in records)
        for name in fail_on
        if name != "failed"
    }
    return {name: count for name, count in counts.items() if count}


def end_interrupted(directory: RunDirectory, display: Progress) -> NoReturn:
    """Print the command that continues the run, write the page of what is finished, and exit with 130."""
    ignore_interrupts()
    display.stop()
    say(f"interrupted; {_kept(directory)}. Continue with: {directory.resume_command}", err=True)
    add_page_so_far(directory, make_console(stderr=True))
    sys.exit(INTERRUPTED)


def _kept(directory: RunDirectory) -> str:
    """Say what an interrupted run has. Files that cannot be read are the next command's to report."""
    kind = kind_of(directory.run.kind)
    if kind is not None and kind.kept is not None:
        try:
            records, _ = directory.records()
            words: str = function(kind.kept)(directory.run, records, str(directory.path))
            return words
        except RunDirectoryError:
            pass
    return "finished trials are kept"
