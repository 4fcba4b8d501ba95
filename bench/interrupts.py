"""Ctrl-C and SIGTERM: when they end a run, and when they have to wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def handlers_restored() -> Iterator[None]:
    """Put the handlers of Ctrl-C and SIGTERM back at the end of the block, whatever it has done to them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_interrupts() -> None:
    """Pass over Ctrl-C and SIGTERM from now on: what they ask for is being done already."""
    if threading.current_thread() is threading.main_thread():
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM, which CI runners and schedulers send, raise KeyboardInterrupt as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _interrupt:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block has ended, so that what it does is done whole.

    Handlers are swapped rather than signals masked: a signal that another thread receives is held back too. Outside
    the main thread, where Python runs no handlers, nothing needs to be done.

    Example:
        >>> import os
        >>> done = False
        >>> try:
        ...     with interrupts_deferred():
        ...         os.kill(os.getpid(), signal.SIGINT)
        ...         done = True
        ... except KeyboardInterrupt:
        ...     print("interrupted after the block:", done)
        interrupted after the block: True
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before = {number: signal.signal(number, lambda *arrival: came.append(arrival)) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for arrived, frame in came[:1]:
        handler = before[signal.Signals(arrived)]
        if callable(handler):
            handler(arrived, frame)
        elif handler == signal.SIG_DFL:
            signal.raise_signal(arrived)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal by raising KeyboardInterrupt."""
    raise KeyboardInterrupt
