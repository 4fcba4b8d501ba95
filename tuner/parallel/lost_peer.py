"""What a process says that has lost another one: an effect, never the cause of a training's end."""

from __future__ import annotations

import torch.distributed as dist

_LOST = (
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "connection refused",
    "socketpoll",
)
_TIMED_OUT = (
    "timed out waiting",
    "wait timeout",
    "timed out after",
    "watchdog caught collective operation timeout",
)
_SPEAKERS = ("gloo", "nccl", "tcpstore", "c10d", "processgroup")


def reports_lost_peer(error: BaseException) -> bool:
    """Return whether an error says that another process of the group has ended.

    Example:
        >>> reports_lost_peer(RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc] Connection closed by peer"))
        True
        >>> reports_lost_peer(ValueError("Connection closed by peer"))
        False
    """
    text = _said_by_transport(error)
    return any(words in text for words in _LOST)


def reports_timeout(error: BaseException) -> bool:
    """Return whether an error says that another process of the group did not come in time.

    Example:
        >>> reports_timeout(RuntimeError("gloo/transport/tcp/unbound_buffer.cc] Timed out waiting 900ms for recv"))
        True
    """
    text = _said_by_transport(error)
    return any(words in text for words in _TIMED_OUT)


def _said_by_transport(error: BaseException) -> str:
    """Return an error's text in small letters, or nothing where it is no transport's."""
    text = str(error).lower()
    by_transport = isinstance(error, (dist.DistBackendError, dist.DistNetworkError))
    if not by_transport and not (isinstance(error, RuntimeError) and any(name in text for name in _SPEAKERS)):
        return ""
    return text
