"""`bench report --html --follow`: a page that is written anew while a run goes on.

The run's files are read and nothing else: its lock is never taken, and no record is written.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from fusetune.bench.cli.page_file import part_of, write_page
from fusetune.bench.errors import InputError, RunDirectoryError
from fusetune.bench.path_checks import is_folder
from fusetune.bench.terminal import SafeConsole

if TYPE_CHECKING:
    from fusetune.bench.gate import StoredGate
    from fusetune.bench.results import RunDirectory

# Files that grow while a run goes on.
_GROWING = ("records.jsonl", "search.jsonl")
_POLL_S = 1.0
_LEAST_PAUSE_S = 5.0
# A page takes at most a twentieth of one core, so that timings of the run stay what they are.
_PAUSE_FOR_ITS_COST = 20.0


class Clock(Protocol):
    """Time, which a test can make pass."""

    def now(self) -> float:
        """Seconds since any moment."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The time of the machine."""

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass
class Follower:
    """Writes the page of a run anew until its process is gone.

    Args:
        directory: of the run.
        write: `write(is_running, refresh_s)` reads the run, writes its page, and returns what it says of the run's
            state. `refresh_s` is None for a page that no longer changes.
        say: prints a sentence.
        is_running: tells whether the run's process lives.
        clock: the time.
    """

    directory: Path
    write: Callable[[bool, int | None], str]
    say: Callable[[str], None]
    is_running: Callable[[Path], bool]
    clock: Clock

    def follow(self) -> None:
        """Return when the run is over, or at Ctrl-C. Either way the page's last form does not load itself again.

        Raises:
            RunDirectoryError: the directory is gone, its files are broken, or the last page cannot be written.
        """
        seen, due, pause = None, -math.inf, _LEAST_PAUSE_S
        said = ""
        try:
            # Whether the process lives is asked before the files are read, so the last look sees its last record.
            while self.is_running(self.directory):
                now, grown = self.clock.now(), self._sizes()
                if grown != seen and now >= due:
                    try:
                        status = self.write(True, math.ceil(pause))
                    except RunDirectoryError as error:
                        self._check_there()
                        if str(error) != said:
                            said = str(error)
                            self.say(f"note: {said} It is tried again.")
                    else:
                        if seen is None:
                            self.say(f"{status} The page follows until the run is over, or Ctrl-C.")
                        seen, said = grown, ""
                    pause = max(_LEAST_PAUSE_S, _PAUSE_FOR_ITS_COST * (self.clock.now() - now))
                    due = self.clock.now() + pause
                self.clock.sleep(_POLL_S)
        except KeyboardInterrupt:
            self.say(self.write(self.is_running(self.directory), None))
            return
        self._check_there()
        self.say(self.write(False, None) or "The run is over, and whole.")

    def _sizes(self) -> tuple[int, ...]:
        return tuple(_size(self.directory / name) for name in _GROWING)

    def _check_there(self) -> None:
        if not is_folder(self.directory):
            raise RunDirectoryError(self.directory, "is gone", "the run was followed there until now")


def _size(path: Path) -> int:
    """Return the size of a file. A missing one has none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def follow_run(runs: Sequence[RunDirectory | StoredGate], path: Path, console: SafeConsole) -> None:
    """Write the page of one run anew while it goes on.

    Raises:
        InputError: there are several runs, or a gate.
        RunDirectoryError: see `Follower.follow`.
    """
    from fusetune.bench.results import RunDirectory, is_being_written, study_run

    if len(runs) > 1:
        raise InputError("--follow", f"follows one run, and {len(runs)} are named", to_do="Name one")
    (run,) = runs
    if not isinstance(run, RunDirectory):
        raise InputError("--follow", "follows a run, and a gate is named", to_do="Leave --follow out")

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    def write(is_running: bool, refresh_s: int | None) -> str:
        records, notes = run.records(needed_by="page")
        for note in () if is_running else notes:
            say(f"note: {note}")
        part = part_of(run, records, study_run(run, records), is_running=is_running)
        write_page(path, (part,), refresh_s=refresh_s)
        return part.status

    if hasattr(os, "nice"):  # everything else goes first, for the run is being timed
        os.nice(19)
    say(f"page: {path}")
    Follower(run.path, write, say, is_being_written, SystemClock()).follow()


follow_option = click.option(
    "--follow", is_flag=True, help="With --html: write the page anew while the run goes on, until Ctrl-C."
)
