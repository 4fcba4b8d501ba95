"""Standard streams that are closed, full or broken: only what is printed there is lost.

The descriptor of a closed stream would be reused by the next file that is opened, and prints would go into that file.
So each is first opened on /dev/null. A write that fails is remembered, and the program continues.
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
    """Open every closed standard stream on /dev/null, and return their descriptors."""
    closed = set()
    for number in _NUMBERS:
        try:
            os.fstat(number)
        except OSError:
            # The system assigns the lowest free descriptor, and lower ones are open by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY), True)
            closed.add(number)
    return frozenset(closed)


class LossyFile(io.FileIO):
    """An unbuffered file in which a failed write loses its data and is remembered.

    Args:
        descriptor: stays open when the file is closed.
        failure: the error of a stream that was closed from the beginning.

    Attributes:
        failure: the first error, or None.
        lost: whether data were lost.

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
        """Write, and wait for a slow reader. Return the number of bytes that were written or lost."""
        try:
            # None: the stream is non-blocking, and nothing could be written now.
            while (written := super().write(data)) is None:
                select.select([], [self.fileno()], [])
        except OSError as error:
            self.failure = self.failure or error
            self.lost = True
            return len(memoryview(data).cast("B"))
        self.lost |= self._closed_before
        return int(written)


def text_stream(file: LossyFile, *, like: Any = None, line_buffering: bool = False) -> TextIO:
    """Return a text stream. A character that its encoding lacks becomes a question mark.

    Args:
        file: takes the bytes.
        like: a stream whose encoding and buffering are copied.
        line_buffering: flush after each line.
    """
    return io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=getattr(like, "encoding", None) or "utf-8",
        errors="replace",
        line_buffering=getattr(like, "line_buffering", line_buffering),
        write_through=getattr(like, "write_through", False),
    )


class StandardStreams:
    """Within the block, printing never fails. Streams that other code has installed stay.

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
                # An ASCII terminal then shows question marks for the lines of a table, in place of an error.
                stream.reconfigure(errors="replace")
        self._ours = sys.stdout, sys.stderr
        return self

    def output_failure(self) -> str | None:
        """Return the reason that standard output could not be written in full; None if it could."""
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
    """Return a file to write a standard stream to; None if other code has replaced the stream."""
    if stream is not original:
        return None
    if stream is not None:
        with suppress(OSError):  # an import may have printed to a broken stream
            stream.flush()
        return LossyFile(number)
    # Python found it closed when it started.
    if number not in closed:
        number = os.open(os.devnull, os.O_WRONLY)
    return LossyFile(number, OSError(errno.EBADF, "the stream is closed"))
