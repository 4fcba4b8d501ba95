"""An append-only file of JSON lines, the format of every file that grows during a run.

A process that is killed during a write leaves at most one torn last line. Readers skip that line, and writers truncate
it first. Any other invalid line is an error, which names the line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from fusetune.bench.errors import RunDirectoryError, unusable
from fusetune.bench.results.whole_file import sync_directory

_Entry = TypeVar("_Entry")
_BLOCK_BYTES = 2**16
_READ_BYTES = 2**18  # most lines then lie within one block, and need no joining


class LineFile:
    """An append-only file of JSON lines.

    Args:
        path: the file. A missing file has no lines, and the first `append` creates it.
        entry: name of a line's content for messages, with its article.
        remedy: advice for an invalid line.
        go_on: the command that continues the run after a failed `append`. Empty if there is none.

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
        # Length to which the file must be truncated after a failed append, if that could not do it.
        self._good_bytes: int | None = None

    def read(self) -> list[Any]:
        """Return the content of the lines. Nothing is written.

        Raises:
            RunDirectoryError: the file cannot be read, or a line is not JSON. The message names the line.
        """
        lines, _ = self.lines()
        return [self.parse(number, line) for number, line in enumerate(lines, start=1)]

    def lines(self, start_bytes: int = 0) -> tuple[list[bytes], bytes]:
        """Return the complete lines, and the torn rest after the last one.

        Args:
            start_bytes: where a line begins. Earlier ones are not read.

        Raises:
            RunDirectoryError: the file cannot be read.
        """
        *lines, rest = b"".join(self.stream(start_bytes)).split(b"\n")
        return lines, rest

    def stream(self, start_bytes: int = 0) -> Iterator[bytes]:
        """Yield each line with its newline, and at last the torn rest without one. A line at a time is in memory.

        Args:
            start_bytes: where a line begins. Earlier ones are not read.

        Raises:
            RunDirectoryError: the file cannot be read.
        """
        try:
            with self.path.open("rb", buffering=_READ_BYTES) as file:
                file.seek(start_bytes)
                yield from file
        except FileNotFoundError:
            return
        except OSError as error:
            raise unusable(self.path, error) from error

    def where(self, number: int) -> str:
        """Return the name of a line, counted from 1, for messages."""
        return f"{self.path}:{number}"

    def parse(self, number: int, line: bytes, build: Callable[[Any], _Entry] | None = None) -> Any:
        """Return the content of a line.

        Args:
            number: the line's number, from 1.
            line: the line without its newline.
            build: converts JSON to an entry. It raises ValueError or TypeError for an invalid one.

        Raises:
            RunDirectoryError: the line is not JSON, or not an entry.
        """
        try:
            content = json.loads(line)
            return content if build is None else build(content)
        except (ValueError, TypeError, RecursionError) as error:
            raise self.broken(number, str(error)) from error

    def broken(self, number: int, why: str) -> RunDirectoryError:
        """Return the error for an invalid line."""
        return RunDirectoryError(self.where(number), f"not {self._entry}", why, self._remedy)

    @property
    def torn_note(self) -> str:
        """The message for a torn last line."""
        return f"{self.path}: the last line was cut short by a crash and is left out"

    def cut_torn_line(self) -> str:
        """Truncate a torn last line, so that the next line begins on its own. Return a note, or an empty text.

        Raises:
            RunDirectoryError: the file cannot be changed.
        """
        try:
            torn_bytes = self._torn_bytes()
            if not torn_bytes:
                return ""
            os.truncate(self.path, self.path.stat().st_size - torn_bytes)
        except OSError as error:
            raise unusable(self.path, error) from error
        return self.torn_note

    def _torn_bytes(self) -> int:
        """Return the length of what follows the last newline. The file is read from its end."""
        try:
            with self.path.open("rb") as file:
                size = end = file.seek(0, os.SEEK_END)
                while end:
                    start = max(0, end - _BLOCK_BYTES)
                    file.seek(start)
                    newline = file.read(end - start).rfind(b"\n")
                    if newline >= 0:
                        return size - (start + newline + 1)
                    end = start
                return size
        except FileNotFoundError:
            return 0

    def append(self, entries: Sequence[Any], *, allow_nan: bool = False) -> None:
        """Append a line for each entry. They are on disk on return. A failure leaves the file unchanged.

        Args:
            entries: JSON-able values.
            allow_nan: whether to write NaN and infinities, in Python's notation.

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
        """Open the file for appending."""
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | flags, 0o644)

    def _add(self, descriptor: int, content: bytes) -> None:
        """Write and sync the content. On failure truncate the file to its former length."""
        self._good_bytes = os.fstat(descriptor).st_size
        try:
            rest = content
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except BaseException:
            # A full disk nearly always lets a file shrink. If it does not, report the error of the write.
            with suppress(OSError):
                self._take_back(descriptor)
            raise
        self._good_bytes = None

    def _take_back(self, descriptor: int) -> None:
        """Truncate the content of a failed append."""
        if self._good_bytes is not None and os.fstat(descriptor).st_size > self._good_bytes:
            os.ftruncate(descriptor, self._good_bytes)
        self._good_bytes = None
