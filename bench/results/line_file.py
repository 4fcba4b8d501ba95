"""A file of JSON, one object a line, to which lines are only added: the one way in which a run's directory grows.

A process that is killed while it writes leaves at most one line without its end. Whoever reads passes over that line,
and whoever adds lines cuts it off before. Any other line that cannot be read is an error that names it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from fusetune.bench.errors import RunDirectoryError, unusable
from fusetune.bench.results.whole_file import sync_directory

_Entry = TypeVar("_Entry")


class LineFile:
    """A file of lines of JSON.

    Args:
        path: the file; one that is missing has no lines, and is made by the first `append`.
        entry: what a line is, with its article, for messages.
        remedy: what to do about a line that is none.
        go_on: the command that continues the run after a failed `append`; empty where there is none.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = LineFile(Path(folder, "numbers.jsonl"), "a number", "Remove it")
        ...     file.append([1, 2])
        ...     with file.path.open("a") as stream:
        ...         _ = stream.write('{"torn')
        ...     torn = LineFile(file.path, "a number", "Remove it")
        ...     entries, note = torn.read(), torn.cut_torn_line().partition(": ")[2]
        ...     file.append([3])
        ...     entries, note, torn.read()
        ([1, 2], 'the last line was cut short by a crash and is left out', [1, 2, 3])
    """

    def __init__(self, path: Path, entry: str, remedy: str, *, go_on: str = "") -> None:
        self.path = path
        self._entry = entry
        self._remedy = remedy
        self._go_on = go_on
        # What a failed append could not take back begins here.
        self._good_bytes: int | None = None

    def read(self) -> list[Any]:
        """Return what is in the lines. Nothing is written.

        Raises:
            RunDirectoryError: the file cannot be read, or a line is no JSON; the message names it.
        """
        lines, _ = self.lines()
        return [self.parse(number, line) for number, line in enumerate(lines, start=1)]

    def lines(self) -> tuple[list[bytes], bytes]:
        """Return the complete lines, and what follows the last of them.

        Raises:
            RunDirectoryError: the file cannot be read.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return [], b""
        except OSError as error:
            raise unusable(self.path, error) from error
        *lines, rest = content.split(b"\n")
        return lines, rest

    def where(self, number: int) -> str:
        """Name a line, counted from 1."""
        return f"{self.path}:{number}"

    def parse(self, number: int, line: bytes, build: Callable[[Any], _Entry] | None = None) -> Any:
        """Turn a line into what it says.

        Args:
            number: of the line, from 1.
            line: without its end.
            build: makes an entry of the JSON; its ValueError or TypeError says that it is none.

        Raises:
            RunDirectoryError: the line is no JSON, or no entry.
        """
        try:
            content = json.loads(line)
            return content if build is None else build(content)
        except (ValueError, TypeError, RecursionError) as error:
            raise self.broken(number, str(error)) from error

    def broken(self, number: int, why: str) -> RunDirectoryError:
        """Return the error for a line that is no entry."""
        return RunDirectoryError(self.where(number), f"not {self._entry}", why, self._remedy)

    @property
    def torn_note(self) -> str:
        """What to say where a last line without its end is there."""
        return f"{self.path}: the last line was cut short by a crash and is left out"

    def cut_torn_line(self) -> str:
        """Cut off a last line without its end, so that the next one begins on its own. Return a note, or nothing.

        Raises:
            RunDirectoryError: the file cannot be changed.
        """
        _, torn = self.lines()
        if not torn:
            return ""
        try:
            os.truncate(self.path, self.path.stat().st_size - len(torn))
        except OSError as error:
            raise unusable(self.path, error) from error
        return self.torn_note

    def append(self, entries: Sequence[Any], *, allow_nan: bool = False) -> None:
        """Add a line for each entry. When this returns, they are on the disk. A failure leaves the file as it was.

        Args:
            entries: what JSON can hold.
            allow_nan: write what is not finite as Python's JSON does.

        Raises:
            RunDirectoryError: the disk is full or the file cannot be written.
            ValueError: a number is not finite.
        """
        lines = [json.dumps(entry, allow_nan=allow_nan, separators=(",", ":")) + "\n" for entry in entries]
        try:
            if not self.path.exists():
                os.close(self._open(os.O_CREAT))
                sync_directory(self.path.parent)
            descriptor = self._open(0)
            try:
                self._take_back(descriptor)
                self._add(descriptor, "".join(lines).encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise unusable(self.path, error, go_on=self._go_on) from error

    def _open(self, flags: int) -> int:
        """Open the file for adding to its end."""
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | flags, 0o644)

    def _add(self, descriptor: int, content: bytes) -> None:
        """Write all of it and wait until it is on the disk. On failure put the file back to its length."""
        self._good_bytes = os.fstat(descriptor).st_size
        try:
            rest = content
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except BaseException:
            # A disk that takes no more bytes nearly always still lets a file shrink; where not, its own error counts.
            with suppress(OSError):
                self._take_back(descriptor)
            raise
        self._good_bytes = None

    def _take_back(self, descriptor: int) -> None:
        """Cut off what an append that failed has written."""
        if self._good_bytes is not None and os.fstat(descriptor).st_size > self._good_bytes:
            os.ftruncate(descriptor, self._good_bytes)
        self._good_bytes = None
