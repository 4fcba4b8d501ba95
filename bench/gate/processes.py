"""One fresh process of one side: started in its checkout, timed, ended with everything that it started, and read."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from fusetune.bench.errors import InputError, SetupError
from fusetune.bench.gate.session import SideName
from fusetune.bench.terminal import one_line
from fusetune.bench.workers import running_program

_MOST_READ_BYTES = 4 * 2**20
LINES_SHOWN = 8
_MOST_SHOWN = 200
# How a Python program ends that could not be imported, whatever it would have measured.
_NOT_IMPORTED = re.compile(r"^(?:ModuleNotFoundError|ImportError|SyntaxError|IndentationError|TabError)\b")
# What git's hooks set would lead the git of a measured program to another repository.
_OF_A_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_NAMESPACE")


News = Callable[[str], None]


def no_news(text: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Place:
    """Where the processes of one side run.

    Args:
        side: `base` or `head`.
        name: for messages, e.g. `base main`.
        folder: the working directory of its processes.
        python: the interpreter of its environment.
        environment: variables that its processes get besides those of this process.
    """

    side: SideName
    name: str
    folder: Path
    python: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """A process that has ended.

    Args:
        code: its exit code. Negative: the signal that ended it.
        out, err: the ends of what it printed.
        seconds: from its start to its end.
        timed_out: whether it was ended because it took too long.
    """

    code: int
    out: str
    err: str
    seconds: float
    timed_out: bool = False

    @property
    def last_line(self) -> str:
        """The last line on standard error, or else on standard output."""
        return next((line for text in (self.err, self.out) for line in reversed(_lines(text))), "")

    @property
    def tail(self) -> list[str]:
        """The last lines on standard error, or else on standard output, for a reader."""
        return [line[:_MOST_SHOWN] for line in (_lines(self.err) or _lines(self.out))[-LINES_SHOWN:]]


def run_process(
    words: Sequence[str],
    place: Place,
    *,
    limit_s: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run a program in the checkout of a side, and wait until it has ended.

    Everything that it started ends with it: when the limit is reached, after Ctrl-C or SIGTERM, and when the program
    has left processes behind, because they would disturb the next one. Under Linux that holds when the gate is killed,
    too, see `bench.workers.running_program`.

    Args:
        words: the program and its arguments.
        place: where it runs.
        limit_s: it is ended after so many seconds; None: never.
        environment: further variables.

    Raises:
        InputError: there is no such program.
        SetupError: the system does not start it.
        KeyboardInterrupt: the program has been ended.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        timed_out = False
        try:
            with running_program(
                words,
                cwd=place.folder,
                env=_environment(place, environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            ) as process:
                began = time.monotonic()
                try:
                    process.wait(limit_s)
                except subprocess.TimeoutExpired:
                    timed_out = True
                seconds = time.monotonic() - began
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(
                place.name,
                f"has no program '{words[0]}'",
                "it is no file there, and not on the PATH",
                "Check it.",
            ) from error
        except OSError as error:
            raise SetupError(
                place.name,
                f"cannot start '{words[0]}'",
                error.strerror or str(error),
                "Make it executable.",
            ) from error
        return Ended(process.returncode, _tail(out), _tail(err), seconds, timed_out)


def failure_of(ended: Ended, limit_s: float | None = None) -> str:
    """Say in one sentence how a process failed. Nothing where it did not.

    Example:
        >>> failure_of(Ended(1, "", "Traceback ...\\nAssertionError: 3 != 4\\n", 0.1))
        'it ended with exit code 1, and said: AssertionError: 3 != 4'
    """
    if ended.timed_out:
        return f"it had not ended after {limit_s:.4g} s"
    if ended.code == 0:
        return ""
    how = f"ended with exit code {ended.code}"
    if ended.code < 0:
        with suppress(ValueError):
            how = f"was ended by {signal.Signals(-ended.code).name}"
    said = _shortened(ended.last_line)
    return f"it {how}, and said: {said}" if said else f"it {how} without a word"


def show_failure(news: News, place: Place, failure: str, ended: Ended) -> None:
    """Tell a reader that a process failed, with its last lines."""
    news(f"{place.name}: {failure}")
    for line in ended.tail:
        news(f"    {line}")


def check_import(said: str, place: Place) -> None:
    """Refuse a side whose code could not be imported. That is no finding about the revision's speed.

    Args:
        said: the last words of a process that failed.
        place: where it ran.

    Raises:
        SetupError: they say so.
    """
    if _NOT_IMPORTED.match(said):
        raise SetupError(
            place.name,
            "cannot be imported",
            f"it says {_shortened(said)}",
            "Mend that revision, or install what it needs.",
        )


_TUNING = "FUSETUNE_TUNING"


def _environment(place: Place, more: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a program: those of this process, of its side and its own."""
    inherited = {key: value for key, value in os.environ.items() if key not in _OF_A_HOOK}
    # What was tuned for one revision's kernels is not found by the other's.
    return {_TUNING: "pinned", **inherited, **place.environment, **more}


def _tail(file: BinaryIO) -> str:
    """Return the end of what was written."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _MOST_READ_BYTES))
    return file.read().decode("utf-8", "replace")


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def _shortened(line: str) -> str:
    """Return a line of another program for a sentence of ours."""
    line = one_line(line.strip())
    return line if len(line) <= _MOST_SHOWN else f"{line[: _MOST_SHOWN - 3]}..."
