"""The clocks of single calls against functions whose time is known: the bias in nanoseconds.

By the host's clock, the time of a call is that of the function and what Python takes to call it and return. The latter
is taken from stretches of calls in a row, by the processor's own counter. It is that of warm caches: with cold ones
Python takes longer, which is the call's and not the stopwatch's.

`make perf` prints the table. An ordinary test run proves that what is measured holds all that was spent.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median, quantiles

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fusetune.kernels import timed_launches
from fusetune.kernels.launch import why_not_on_cpu
from fusetune.tuner.measure import CacheFlush, CallClock, ClockName, Sample
from tests.perf.spinning import CompiledSpin, interpreted_spin

_SECONDS = (5e-6, 20e-6, 100e-6, 500e-6, 5e-3)
_SAMPLES = 200
_IN_A_ROW = 20


def made(clock: ClockName) -> Callable[[float], Callable[[], float]]:
    """What takes a known time: for `kernel` a compiled function, else a function of Python without a launch."""
    if clock == "wall":
        return interpreted_spin
    if why_not_on_cpu() is not None:
        pytest.skip(str(why_not_on_cpu()))
    return CompiledSpin.shared().call


def time_to_call(call: Callable[[], float]) -> float:
    """What a call takes beside the function's own time."""
    if why_not_on_cpu() is not None:
        return 0.0
    seconds = CompiledSpin.shared().seconds
    found = []
    for _ in range(2 * _IN_A_ROW):
        start_s = seconds()
        spent_s = sum([call() for _ in range(_IN_A_ROW)])
        found.append((seconds() - start_s - spent_s) / _IN_A_ROW)
    return median(found)


@pytest.mark.parametrize("calls", [1, 4], ids=["one-call", "four-calls"])
@pytest.mark.parametrize("cache", ["warm", "cold"])
@pytest.mark.parametrize("clock", ["wall", "kernel"])
def test_the_bias_of_a_clock(
    benchmark: BenchmarkFixture,
    clock: ClockName,
    cache: str,
    calls: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spin = made(clock)
    flush = CacheFlush("cpu") if cache == "cold" else None
    timer = CallClock(clock, "cpu", flush=flush, launch_times=timed_launches)
    lines = []

    def measure() -> None:
        host_s = time_to_call(spin(_SECONDS[0])) if clock == "wall" and benchmark.enabled else 0.0
        for seconds in _SECONDS if benchmark.enabled else _SECONDS[:1]:
            call = spin(seconds)
            samples = min(_SAMPLES, max(20, int(0.4 / seconds / calls))) if benchmark.enabled else 2
            found = timer.time([Sample(call, [call] * calls)] * samples)
            beside_s = [each.seconds - sum(each.results) / calls for each in found]
            assert min(beside_s) > -1e-3 * seconds
            biases_s = [beside - host_s for beside in beside_s]
            _, median_s, high_s = quantiles(biases_s, n=4)
            lines.append(
                f"{clock}, {cache}, {calls} calls: {1e6 * seconds:6.0f} us, bias {1e9 * median_s:6.0f} ns "
                f"({median_s / seconds:.2%}), upper quartile {1e9 * high_s:6.0f} ns, n {samples}, "
                f"without {1e9 * host_s:.0f} ns to call it"
            )

    benchmark.pedantic(measure, rounds=1)
    if benchmark.enabled:
        with capsys.disabled():
            print("", *lines, sep="\n")
