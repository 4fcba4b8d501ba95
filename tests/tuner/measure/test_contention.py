"""What a stretch of work asked of the processor and did not get, by counters that the test makes up or by real load."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from fusetune.tuner.measure.contention import (
    CONTENDED,
    Contention,
    ProcessorReading,
    contention,
    is_contended,
    read_processor,
    total,
)

START = ProcessorReading(10.0, 5.0, {1: (5.0, 1.0), 2: (3.0, 0.0)}, busy_s=100.0, stolen_s=1.0)


@pytest.mark.parametrize(
    ("end", "missing"),
    [
        pytest.param({"threads": {1: (6.0, 1.0), 2: (4.0, 0.0)}}, 0.0, id="ran all the time"),
        pytest.param({"threads": {1: (6.0, 2.0), 2: (4.0, 1.0)}}, 0.5, id="waited as long as it ran"),
        pytest.param({"threads": {1: (6.0, 1.0), 3: (1.0, 2.0)}}, 0.5, id="a thread began, one ended"),
        pytest.param({"threads": {1: (6.0, 1.0)}, "stolen_s": 3.0}, 0.2, id="2 of 10 busy seconds stolen"),
        pytest.param({"threads": {1: (6.0, 2.0)}, "stolen_s": 6.0}, 0.75, id="both"),
        pytest.param({"threads": {1: (5.0, 1.0)}, "thread_s": 5.0}, 0.0, id="asked for nothing"),
        pytest.param({"threads": {1: (5.0, 1.0)}, "thread_s": 6.0}, 0.0, id="between two ticks"),
    ],
)
def test_missing_share_of_the_processor(end: dict, missing: float) -> None:
    reading = ProcessorReading(**{"wall_s": 12.0, "thread_s": 5.0, "busy_s": 110.0, "stolen_s": 1.0} | end)
    assert contention(START, reading).missing == pytest.approx(missing)


def test_without_the_kernels_counts_one_thread_knows_by_its_own_clock_and_several_know_nothing() -> None:
    start, end = (ProcessorReading(wall, own, None) for wall, own in ((0.0, 0.0), (2.0, 0.5)))
    assert contention(start, end, threads=1).missing == pytest.approx(0.75)
    assert contention(start, end, threads=2).missing is None
    assert not is_contended(None)


def test_stretches_add_up_by_what_they_asked_for() -> None:
    parts = [Contention(running_s=3.0), Contention(0.5, 0.5, involuntary_switches=4, load=2.0)]
    together = total(parts)
    assert together.missing == pytest.approx(0.5 / 4)
    assert (together.involuntary_switches, together.load) == (4, 2.0)
    assert total([*parts, Contention(known=False)]).missing is None


def test_counters_are_read_from_the_kernels_files(tmp_path: Path) -> None:
    task = tmp_path / "proc/self/task/7"
    task.mkdir(parents=True)
    (task / "schedstat").write_text("1500000000 500000000 12\n")
    (tmp_path / "proc/stat").write_text("cpu  100 0 50 1000 7 1 2 47 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    reading = read_processor(tmp_path)
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    assert reading.threads == {7: (1.5, 0.5)}
    assert reading.busy_s == pytest.approx(200 * tick_s)
    assert reading.stolen_s == pytest.approx(47 * tick_s)


def test_a_system_without_these_files_counts_nothing(tmp_path: Path) -> None:
    reading = read_processor(tmp_path)
    assert (reading.threads, reading.busy_s, reading.stolen_s) == (None, None, None)


def _burn(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.mark.skipif(
    read_processor().threads is None or not hasattr(os, "sched_setaffinity"),
    reason="this system does not count how long threads wait",
)
def test_two_processes_on_one_core_each_miss_half_of_it() -> None:
    allowed = os.sched_getaffinity(0)
    spawn = multiprocessing.get_context("fork")
    os.sched_setaffinity(0, {min(allowed)})
    try:
        other = spawn.Process(target=_burn, args=(1.0,))
        other.start()
        start = read_processor()
        _burn(0.6)
        found = contention(start, read_processor())
        other.join()
    finally:
        os.sched_setaffinity(0, allowed)
    # Others may use the core too. What it missed can only be more then.
    assert found.missing is not None
    assert found.missing > 0.3 > CONTENDED
