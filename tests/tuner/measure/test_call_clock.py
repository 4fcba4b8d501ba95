from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch

from fusetune.errors import InvalidValueError, StateError
from fusetune.tuner.measure.call_clock import CallClock, ClockName, Sample, clocks_of
from fusetune.tuner.measure.freed_memory import keep_freed_memory
from tests.fresh_process import in_fresh_process
from tests.tuner.measure.scripted_device import ScriptedDevice


def samples_on(
    device: ScriptedDevice,
    samples: int,
    calls: int,
    call: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> list[Sample]:
    """Samples whose tensors have values and addresses of their own."""
    values = iter(range(1000))
    chosen = device.call if call is None else call

    def made() -> Callable[[], torch.Tensor]:
        return partial(chosen, device.fresh(next(values)))

    return [Sample(made(), [made() for _ in range(calls)]) for _ in range(samples)]


@pytest.mark.parametrize("calls", [1, 4])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_wall_has_host_and_device_time_on_the_clock_and_nothing_else(calls: int, asynchronous: bool) -> None:
    device = ScriptedDevice(asynchronous)
    samples = samples_on(device, 3, calls)
    found = CallClock("wall", device, flush=device.flush).time(samples)
    # A device with a queue works while the host gives it the next call.
    total_s = device.HOST_S * (1 if asynchronous else calls) + device.CALL_S * calls
    assert [sample.seconds for sample in found] == [total_s / calls] * 3
    each = ["flush", "wait", "call", "wait", "wait", "wait", *["call"] * calls, "wait"]
    made, timed = device.log[: 3 * (1 + calls)], device.log[3 * (1 + calls) :]
    assert set(made) == {"allocate"}
    assert [action for action in timed if not action.startswith("reserve")] == 3 * each


@pytest.mark.parametrize("calls", [1, 4])
@pytest.mark.parametrize("name", ["event", "graph"])
def test_events_and_graphs_have_device_time_alone_and_wait_once(name: ClockName, calls: int) -> None:
    device = ScriptedDevice(asynchronous=True)
    samples = samples_on(device, 5, calls)
    device.log.clear()
    found = CallClock(name, device, flush=device.flush, host_s=device.HOST_S).time(samples)
    assert [sample.seconds for sample in found] == [device.CALL_S] * 5
    assert device.log.count("wait") == (1 if name == "event" else 2)  # never inside the batch
    assert device.log.count("flush") == 5
    between = "replay" if name == "graph" else "call"
    for place, mark in enumerate(device.log):
        if mark == "event" and device.log[place - 1] == "delay":
            assert device.log[place + 1] == between


def test_without_a_head_start_an_event_would_measure_the_host() -> None:
    device = ScriptedDevice(asynchronous=True)
    device.CALL_S = 0.01
    sample = samples_on(device, 1, 8)
    (late,) = CallClock("event", device, host_s=0.0).time(sample)
    (early,) = CallClock("event", device, host_s=device.HOST_S).time(samples_on(device, 1, 8))
    assert early.seconds == pytest.approx(device.CALL_S)
    assert late.seconds > 10 * device.CALL_S


def test_kernel_adds_up_the_launches_of_the_timed_calls_alone() -> None:
    device = ScriptedDevice()
    times: list[float] = []

    def call(x: torch.Tensor) -> torch.Tensor:
        times.extend((0.5, 0.125))
        return device.call(x)

    @contextmanager
    def launch_times() -> Iterator[list[float]]:
        yield times

    clock = CallClock("kernel", device, flush=device.flush, launch_times=launch_times)
    (found,) = clock.time(samples_on(device, 1, 3, call))
    assert found.seconds == 0.625


def test_kernel_refuses_what_launches_nothing() -> None:
    @contextmanager
    def launch_times() -> Iterator[list[float]]:
        yield []

    device = ScriptedDevice()
    clock = CallClock("kernel", device, launch_times=launch_times)
    with pytest.raises(StateError, match="launched no kernel"):
        clock.time(samples_on(device, 1, 1))


@pytest.mark.parametrize("name", ["wall", "event", "graph"])
def test_every_call_has_its_own_tensors_and_its_results_are_kept(name: ClockName) -> None:
    device = ScriptedDevice(asynchronous=True)
    found = CallClock(name, device).time(samples_on(device, 2, 3))
    assert len(set(device.addresses)) == len(device.addresses) == len(set(device.values)) == 8
    results = [[float(result) for result in sample.results] for sample in found]
    assert results == [[2.0, 4.0, 6.0], [10.0, 12.0, 14.0]]


def test_the_results_of_the_lead_live_until_the_sample_ends() -> None:
    """Else the timed call would get their memory, which is in the cache."""
    addresses = []

    def call(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        addresses.append(y.data_ptr())
        return y

    lead, timed = torch.zeros(1000), torch.zeros(1000)
    CallClock("wall", "cpu").time([Sample(partial(call, lead), [partial(call, timed)])])
    assert len(set(addresses)) == 2


def test_a_warm_cache_is_not_flushed() -> None:
    device = ScriptedDevice()
    CallClock("wall", device).time(samples_on(device, 2, 1))
    assert "flush" not in device.log


def test_a_clock_that_the_device_lacks_is_refused() -> None:
    assert clocks_of("cpu") == ("wall", "kernel")
    assert clocks_of("cuda") == ("wall", "event", "graph")
    with pytest.raises(InvalidValueError, match=r"no 'graph'; known: wall, kernel"):
        CallClock("graph", "cpu")
    with pytest.raises(InvalidValueError, match="needs `launch_times`"):
        CallClock("kernel", "cpu")


def test_a_sample_without_a_timed_call_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="no timed call"):
        CallClock("wall", "cpu").time([Sample(lambda: None, [])])


def test_memory_for_new_tensors_is_reserved_before_the_flush() -> None:
    """A flush empties the cache of what reserving brought there."""
    device = ScriptedDevice()
    clock = CallClock("wall", device, flush=device.flush)
    clock.time(samples_on(device, 1, 1))
    device.log.clear()
    clock.time(samples_on(device, 1, 1))
    assert device.log[2:] == ["reserve 32", "flush", "wait", "call", *3 * ["wait"], "call", "wait"]


def test_what_is_reserved_grows_until_the_clock_runs_without_faults() -> None:
    device = ScriptedDevice()
    device.needs_bytes = 3 << 20
    clock = CallClock("wall", device)
    found = [clock.time(samples_on(device, 1, 1))[0].faults for _ in range(6)]
    assert found[0] > 0
    assert found[-1] == 0


def faults_of_large_results() -> int | None:
    """Count the faults of a sample that makes three tensors of 48 MB. None: another C library."""
    if not keep_freed_memory():
        return None
    clock = CallClock("wall", "cpu")

    def call(x: torch.Tensor) -> torch.Tensor:
        return (x + 1) * 2 - 3

    for _ in range(6):
        lead, timed = (partial(call, torch.ones(12_000_000)) for _ in range(2))
        (found,) = clock.time([Sample(lead, [timed])])
    return found.faults


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_no_page_is_faulted_in_on_the_clock() -> None:
    faults = in_fresh_process(faults_of_large_results)
    if faults is None:
        pytest.skip("not glibc")
    assert faults < 100  # 48 MB are 11719 pages


@pytest.mark.parametrize("name", ["wall", "event", "graph"])
def test_what_comes_before_each_sample_is_off_the_clock(name: ClockName) -> None:
    device = ScriptedDevice(asynchronous=name != "wall")

    def before() -> None:
        device.log.append("before")
        device.host_s += 50.0

    samples = samples_on(device, 2, 1)
    found = CallClock(name, device, flush=device.flush).time(samples, before_each=before)
    assert max(sample.seconds for sample in found) <= device.CALL_S + device.HOST_S
    assert device.log.count("before") == 2


def test_what_the_stopwatch_takes_by_itself_is_taken_off() -> None:
    class Slow(ScriptedDevice):
        """Each reading of the clock takes 3 seconds, and waiting 1."""

        def now_s(self) -> float:
            self.host_s += 3.0
            return self.host_s

        def wait(self) -> None:
            super().wait()
            self.host_s += 1.0

    device = Slow()
    (found,) = CallClock("wall", device).time(samples_on(device, 1, 2))
    assert found.seconds == device.HOST_S + device.CALL_S
