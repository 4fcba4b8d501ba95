"""Messages of a worker to its run: plain values, each with the mark of its trial.

A trial's code may fork, leave threads behind, or write to any descriptor. Such a message has no mark, or an old one,
and is refused. Unpickling here can call nothing.
"""

from __future__ import annotations

import io
import os
import pickle
import threading
from multiprocessing.connection import Connection
from pickle import dumps
from typing import Any, NamedTuple

# The only types in messages besides plain values.
_KNOWN = {
    ("fusetune.bench.workers.memory_limit", "MemoryBudget"),
    ("fusetune.bench.workers.memory_limit", "Footprint"),
    ("fusetune.bench.spec.values", "LeftOut"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
}


class ForeignMessage(Exception):  # noqa: N818, what arrived is no error of the run
    """The bytes were not sent by a worker's own code."""


class Message(NamedTuple):
    """One message: the `mark` of its trial, its `kind` (ready, progress, record) and its content."""

    mark: str
    kind: str
    content: Any


def encode(message: Message) -> bytes:
    # Not by its module, where what a kernel's process runs could have replaced it.
    return dumps(tuple(message))


def decode(data: bytes) -> Message:
    """Return the message in some bytes.

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
    """Sends a worker's messages: from its own process alone, one at a time, and of the current trial alone.

    Args:
        connection: to the run.

    Attributes:
        mark: of the current trial. Empty between trials.
    """

    def __init__(self, connection: Connection) -> None:
        self.mark = ""
        self._connection = connection
        self._process = os.getpid()
        self._one_at_a_time = threading.Lock()
        # A fork has no part in the conversation, and does not keep it open.
        os.register_at_fork(after_in_child=connection.close)

    def send(self, mark: str, kind: str, content: Any) -> None:
        """Send a message. Drop one of another trial. A fork of the worker ends here."""
        self.end_fork()
        with self._one_at_a_time:
            if mark == self.mark:
                self._connection.send_bytes(encode(Message(mark, kind, content)))

    def end_fork(self) -> None:
        """Exit at once if this process is not the worker but a fork by the trial's code."""
        if os.getpid() != self._process:
            os._exit(1)
