"""Standard streams that are closed, full or broken: what is printed there is lost, and nothing else is.

A closed stream's number would be given to the next file that is opened, and prints would go into that file. So each
number is opened on /dev/null first. A write that fails is remembered, and the program goes on.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from contextlib import suppress
from types import TracebackType
from typing import Any, TextIO

_NUMBERS = (0, 1, 2)


def open_closed_streams() -> frozenset[int]:
    """Open every standard stream that is closed on /dev/null, and return their numbers."""
    closed = set()
    for number in _NUMBERS:
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken, and those below are open by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY), True)
            closed.add(number)
    return frozenset(closed)


class LossyFile(io.FileIO):
    """A file without a buffer in which a write that fails loses what was to be written, and is remembered.

    Args:
        descriptor: stays open when the file is closed.
        failure: what is wrong with it from the beginning.

    Attributes:
        failure: why something was lost, or could be.
        lost: whether something was.

    Example:
        >>> file = LossyFile(os.open("/dev/full", os.O_WRONLY))
        >>> file.write(b"text"), file.lost, file.failure.strerror
        (4, True, 'No space left on device')
        >>> os.close(file.fileno())
    """

    def __init__(self, descriptor: int, failure: OSError | None = None) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failure = failure
        self.lost = False
        self._closed_before = failure is not None

    def write(self, data: Any) -> int:
        """Write, and wait where the other side is slow. Return the number of bytes that are done with."""
        try:
            # None: nothing could be written now, for the stream was made not to wait.
            while (written := super().write(data)) is None:
                select.select([], [self.fileno()], [])
        except OSError as error:
            self.failure = self.failure or error
            self.lost = True
            return len(memoryview(data).cast("B"))
        self.lost |= self._closed_before
        return int(written)


def text_stream(file: LossyFile, *, like: Any = None, line_buffering: bool = False) -> TextIO:
    """Return a stream of text. What its encoding does not have becomes a question mark.

    Args:
        file: where it goes.
        like: a stream whose encoding and buffering it takes.
        line_buffering: write each line at once.
    """
    return io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=getattr(like, "encoding", None) or "utf-8",
        errors="replace",
        line_buffering=getattr(like, "line_buffering", line_buffering),
        write_through=getattr(like, "write_through", False),
    )


class StandardStreams:
    """Within the block, printing never fails. Streams that others have put in place stay.

    Example:
        >>> with StandardStreams() as streams:
        ...     failure = streams.output_failure()
        >>> failure is None
        True
    """

    def __init__(self) -> None:
        self._output: LossyFile | None = None
        self._before: tuple[Any, Any] = (None, None)
        self._ours: tuple[Any, Any] = (None, None)

    def __enter__(self) -> StandardStreams:
        closed = open_closed_streams()
        self._before = sys.stdout, sys.stderr
        self._output = _lossy(sys.stdout, sys.__stdout__, 1, closed)
        errors = _lossy(sys.stderr, sys.__stderr__, 2, closed)
        if self._output is not None:
            sys.stdout = text_stream(self._output, like=self._before[0])
        if errors is not None:
            sys.stderr = text_stream(errors, like=self._before[1], line_buffering=True)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # An ASCII terminal shows a question mark for a line of a table, and the report is still there.
                stream.reconfigure(errors="replace")
        self._ours = sys.stdout, sys.stderr
        return self

    def output_failure(self) -> str | None:
        """Say why not all of standard output could be written; None where all was."""
        sys.stdout.flush()
        output = self._output
        if output is None or not output.lost or output.failure is None:
            return None
        return output.failure.strerror or str(output.failure)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream, ours, before in zip(("stdout", "stderr"), self._ours, self._before, strict=True):
            ours.flush()
            if getattr(sys, stream) is ours:
                setattr(sys, stream, before)


def _lossy(stream: Any, original: Any, number: int, closed: frozenset[int]) -> LossyFile | None:
    """Return a file to write a standard stream to; None where somebody has put another stream in its place."""
    if stream is not original:
        return None
    if stream is not None:
        with suppress(OSError):  # what an import printed to a broken stream
            stream.flush()
        return LossyFile(number)
    # Python found it closed when it started.
    if number not in closed:
        number = os.open(os.devnull, os.O_WRONLY)
    return LossyFile(number, OSError(errno.EBADF, "the stream is closed"))
