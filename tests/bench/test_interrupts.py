"""Signals end a run, but not in the middle of a write."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from fusetune.bench.interrupts import interrupts_deferred, terminate_as_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_the_block(number: signal.Signals) -> None:
    done = []

    def write() -> None:
        with terminate_as_interrupt(), interrupts_deferred():
            os.kill(os.getpid(), number)
            done.append("all")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert done == ["all"]


def test_an_error_in_the_block_comes_out_and_handlers_are_restored() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(OSError, match="full"), interrupts_deferred():
        raise OSError("full")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_other_threads_pass_through() -> None:
    passed = []

    def work() -> None:
        with interrupts_deferred():
            passed.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert passed == [True]
