from __future__ import annotations

import itertools
import mmap
import resource
import sys
from collections.abc import Callable

import pytest
import torch

from fusetune.tuner.measure import stopwatch as measure
from fusetune.tuner.measure.stopwatch import PeakMemory, Stopwatch, address_space_peak, resident_bytes
from tests.fresh_process import in_fresh_process

MIB = 2**20


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


def test_laps_leave_out_what_happens_while_paused() -> None:
    clock = FakeClock()
    watch = Stopwatch(clock=clock)
    watch.resume()
    clock.advance(1.0)
    watch.lap()
    clock.advance(0.25)
    watch.pause()
    clock.advance(60.0)
    watch.resume()
    clock.advance(0.5)
    watch.lap()
    watch.pause()
    assert watch.laps_s() == [1.0, 0.75]


def test_laps_add_up_to_all_the_time_the_clock_ran() -> None:
    clock = FakeClock()
    watch = Stopwatch(clock=clock)
    for seconds in (1.0, 2.0, 4.0):
        clock.advance(16.0)
        watch.resume()
        clock.advance(seconds)
        watch.lap()
        watch.pause()
    assert sum(watch.laps_s()) == 7.0


def test_reading_laps_twice_changes_nothing() -> None:
    clock = FakeClock()
    watch = Stopwatch(clock=clock)
    watch.resume()
    clock.advance(1.0)
    watch.lap()
    first = watch.laps_s()
    first.append(9.0)
    assert watch.laps_s() == [1.0]
    clock.advance(2.0)
    watch.lap()
    assert watch.laps_s() == [1.0, 2.0]


def test_a_lap_that_has_not_ended_is_no_lap() -> None:
    watch = Stopwatch()
    watch.resume()
    assert watch.laps_s() == []


def test_misuse_is_an_error() -> None:
    watch = Stopwatch()
    for use in (watch.lap, watch.pause):
        with pytest.raises(RuntimeError, match="paused"):
            use()
    watch.resume()
    with pytest.raises(RuntimeError, match="running already"):
        watch.resume()


class FakeEvent:
    """A CUDA event on a device whose queue takes one millisecond between any two events."""

    ticks = itertools.count()
    waits = 0

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing

    def record(self, stream: object) -> None:
        self.at_ms = next(self.ticks)

    def synchronize(self) -> None:
        FakeEvent.waits += 1

    def elapsed_time(self, end: FakeEvent) -> float:
        assert FakeEvent.waits, "read before the device had got there"
        return float(end.at_ms - self.at_ms)


def test_on_cuda_laps_are_events_that_are_waited_for_once_when_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: device)
    monkeypatch.setattr(FakeEvent, "waits", 0)
    watch = Stopwatch("cuda")
    watch.resume()
    watch.lap()
    watch.lap()
    watch.pause()
    watch.resume()
    watch.lap()
    assert FakeEvent.waits == 0
    # The third lap has run for a millisecond before and after the pause, which took one as well.
    assert watch.laps_s() == pytest.approx([0.001, 0.001, 0.002])
    assert FakeEvent.waits == 1


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget an earlier peak")


# The blocks are large beside what a resident set moves by without the process's doing: the kernel may take back pages
# of libraries that have not been used for a while (megabytes, on a machine with work beside), and it counts by batches.
def peak_after_earlier_work() -> int | None:
    earlier = torch.ones(1024 * MIB // 4)
    del earlier
    memory = PeakMemory()
    later = torch.ones(256 * MIB // 4)
    del later
    return memory.peak_bytes() if memory.resets else None


@pytest.mark.slow
@needs_linux
def test_peak_is_that_of_what_happened_since_and_not_of_earlier_work() -> None:
    peak_bytes = in_fresh_process(peak_after_earlier_work)
    if peak_bytes is None:
        pytest.skip("this kernel does not let a process reset its peak")
    assert 224 * MIB < peak_bytes < 512 * MIB


def peak_over_a_footprint_before_the_data() -> int:
    footprint_bytes = resident_bytes()
    kept = torch.ones(256 * MIB // 4)
    peak_bytes = PeakMemory(footprint_bytes=footprint_bytes).peak_bytes()
    assert kept.numel()
    return peak_bytes


@pytest.mark.slow
def test_peak_counts_from_the_footprint_that_is_given() -> None:
    assert 224 * MIB < in_fresh_process(peak_over_a_footprint_before_the_data) < 512 * MIB


def test_peak_is_never_negative() -> None:
    assert PeakMemory(footprint_bytes=2**60).peak_bytes() == 0


def test_a_kernel_that_does_not_forget_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr(measure, "_CLEAR_REFS", measure.Path("/nonexistent/clear_refs"))  # type: ignore[attr-defined]
    memory = PeakMemory()
    assert not memory.resets
    assert memory.peak_bytes() >= 0


def test_without_proc_the_peak_of_the_whole_process_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    now = resident_bytes()
    monkeypatch.setattr(measure, "_STATUS", measure.Path("/nonexistent/status"))  # type: ignore[attr-defined]
    assert resident_bytes() >= 0.9 * now


@pytest.mark.gpu
def test_peak_on_cuda_is_the_allocators() -> None:
    memory = PeakMemory("cuda")
    before = memory.peak_bytes()
    torch.ones(16 * MIB // 4, device="cuda")
    assert memory.peak_bytes() == before + 16 * MIB


needs_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the address space is accounted on Linux alone"
)


def map_and_free(mebibytes: int) -> None:
    mmap.mmap(-1, mebibytes * MIB).close()


def peak_below_an_earlier_one() -> None:
    map_and_free(512)
    held = measure._status_bytes("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (held + 200 * MIB, resource.RLIM_INFINITY))
    with address_space_peak() as peak_bytes:
        map_and_free(100)
        grown = peak_bytes() - held
        # The room is what it was: the block's own limit is neither wider nor narrower.
        map_and_free(190)
        with pytest.raises(OSError, match="Cannot allocate"):
            map_and_free(210)
    assert 100 * MIB <= grown < 102 * MIB
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == held + 200 * MIB


def peak_under_a_hard_limit() -> None:
    map_and_free(512)
    ceiling = measure._status_bytes("VmSize") + 64 * MIB
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
    with address_space_peak() as peak_bytes:
        assert peak_bytes() is None
        assert resource.getrlimit(resource.RLIMIT_AS)[0] == ceiling


def peak_where_nothing_can_be_reserved() -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    map_and_free(512)
    before = measure._status_bytes("VmSize") + 2**34
    resource.setrlimit(resource.RLIMIT_AS, (before, resource.RLIM_INFINITY))
    measure.mmap.mmap = refuse  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="Cannot allocate"), address_space_peak():
        pass
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == before


class GrowingStatus:
    """/proc/self/status of a process in which another thread maps 4 MiB before every reading."""

    def __init__(self) -> None:
        self.kib = 100_000

    def exists(self) -> bool:
        return True

    def read_text(self) -> str:
        self.kib += 4096
        return f"VmPeak:\t{self.kib} kB\nVmSize:\t{self.kib} kB\n"


def test_a_thread_that_maps_memory_meanwhile_does_not_break_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_STATUS", GrowingStatus())
    with address_space_peak() as peak_bytes:
        first = peak_bytes()
        second = peak_bytes()
    assert (first, second) == (108_192 * 1024, 112_288 * 1024)


@pytest.mark.slow
@needs_linux
@pytest.mark.parametrize(
    "case", [peak_below_an_earlier_one, peak_under_a_hard_limit, peak_where_nothing_can_be_reserved]
)
def test_the_address_space_of_a_block(case: Callable[[], None]) -> None:
    in_fresh_process(case)
