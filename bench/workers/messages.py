"""What a worker tells the run: each message with the mark of the trial that it is of, and of plain values alone.

A trial's code may fork, leave threads behind, or write to any descriptor. What such a one sends has no mark, or an old
one, and is refused. Nothing that is unpickled here can call anything.
"""

from __future__ import annotations

import io
import os
import pickle
import threading
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

# What messages hold besides plain values.
_KNOWN = {
    ("fusetune.bench.workers.memory_limit", "MemoryBudget"),
    ("fusetune.bench.workers.memory_limit", "Footprint"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
}


class ForeignMessage(Exception):  # noqa: N818, what arrived is no error of the run
    """What arrived was not sent by a worker's own code."""


class Message(NamedTuple):
    """One message: `mark` of what it belongs to, `kind` (ready, progress, record) and its content."""

    mark: str
    kind: str
    content: Any


def encode(message: Message) -> bytes:
    """Return a message as bytes."""
    return pickle.dumps(tuple(message))


def decode(data: bytes) -> Message:
    """Return the message that bytes hold.

    Raises:
        ForeignMessage: they hold none.

    Example:
        >>> decode(encode(Message("7f", "progress", {"epoch": 1}))).content
        {'epoch': 1}
    """
    try:
        mark, kind, content = _PlainUnpickler(io.BytesIO(data)).load()
    except Exception as error:  # a trial's code may have written anything, and pickle then raises anything
        raise ForeignMessage(f"{type(error).__name__}: {error}") from error
    if not (isinstance(mark, str) and isinstance(kind, str)):
        raise ForeignMessage("a message without a mark")
    return Message(mark, kind, content)


class _PlainUnpickler(pickle.Unpickler):
    """Makes plain values, and the few known classes."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a message")
        return super().find_class(module, name)


class Sender:
    """Sends a worker's messages: from its own process alone, one at a time, and of the trial in hand alone.

    Args:
        connection: to the run.

    Attributes:
        mark: of the trial in hand; empty between trials.
    """

    def __init__(self, connection: Connection) -> None:
        self.mark = ""
        self._connection = connection
        self._process = os.getpid()
        self._one_at_a_time = threading.Lock()
        # What is forked from here has no part in the conversation, and does not hold it open.
        os.register_at_fork(after_in_child=connection.close)

    def send(self, mark: str, kind: str, content: Any) -> None:
        """Send a message. Drop one that is not of the trial in hand. A fork of the worker ends here."""
        self.end_fork()
        with self._one_at_a_time:
            if mark == self.mark:
                self._connection.send_bytes(encode(Message(mark, kind, content)))

    def end_fork(self) -> None:
        """Leave at once where this process is not the worker but one that the trial's code has forked from it."""
        if os.getpid() != self._process:
            os._exit(1)
