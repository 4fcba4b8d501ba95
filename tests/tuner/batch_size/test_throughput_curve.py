"""Throughput by a fake clock, its intervals by the binomial distribution, the plateau on made-up samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from fusetune.tuner.batch_size.throughput_curve import (
    Throughput,
    find_plateau,
    measure_step_times,
    near_best,
    smoothed_step_times,
    throughput,
)
from fusetune.tuner.measure.contention import ProcessorReading, ProcessorWatch
from fusetune.tuner.measure.stopwatch import Stopwatch


class Machine:
    """A clock that only steps move; it gets slower from each step to the next by `drift`."""

    def __init__(self, drift: float = 0.0) -> None:
        self.now = 0.0
        self.made: list[int] = []
        self.drift = drift

    def clock(self) -> float:
        return self.now

    def step(self, size: int, seconds: float) -> Callable[[], None]:
        def make() -> None:
            self.made.append(size)
            self.now += seconds * (1 + self.drift * len(self.made))

        return make


def watch_of(*shares: float) -> ProcessorWatch:
    """Watch rounds that miss these shares of the processor, one after the other, and then none."""
    waited, reads = 0.0, 0

    def read() -> ProcessorReading:
        nonlocal waited, reads
        index, is_end = divmod(reads, 2)
        share = shares[index] if index < len(shares) and is_end else 0.0
        waited += share / (1 - share)
        reads += 1
        return ProcessorReading(0.0, 0.0, {1: (float(reads), waited)})

    return ProcessorWatch(read)


def quiet() -> ProcessorWatch:
    return watch_of()


def test_a_round_in_which_others_had_the_processor_is_made_again() -> None:
    machine = Machine(drift=0.001)
    steps = {size: machine.step(size, 1.0) for size in (1, 2)}
    clock = Stopwatch(clock=machine.clock)
    found = measure_step_times(
        steps, stopwatch=clock, rounds=6, round_s=0.5, watch=watch_of(0.0, 0.5, 0.9, 0.0)
    )
    assert machine.made[4:] == [1, 2] * 8
    # Each step is slower than the one before it, so the second and the third round can be told by their times.
    assert found.seconds[1] == pytest.approx([1 + 0.001 * (5 + 2 * index) for index in (0, 3, 4, 5, 6, 7)])
    assert found.contention.missing == 0.0


def test_on_a_machine_that_is_never_quiet_the_least_contended_rounds_count_and_say_so() -> None:
    machine = Machine()
    clock = Stopwatch(clock=machine.clock)
    watch = watch_of(*(0.2, 0.8) * 6)
    found = measure_step_times({1: machine.step(1, 1.0)}, stopwatch=clock, rounds=6, round_s=0.5, watch=watch)
    assert machine.made[2:] == [1] * 12
    assert found.contention.missing == pytest.approx(0.2)


def test_sizes_take_turns_after_a_burn_in_from_the_smallest_on() -> None:
    machine = Machine()
    steps = {size: machine.step(size, 0.125 * size) for size in (4, 1, 2)}

    found = measure_step_times(
        steps, stopwatch=Stopwatch(clock=machine.clock), rounds=6, round_s=0.1, watch=quiet()
    )

    assert machine.made == [1, 1, 2, 2, 4, 4] + [1, 2, 4] * 6
    assert found.seconds == {1: [0.125] * 6, 2: [0.25] * 6, 4: [0.5] * 6}


def test_short_steps_fill_a_round_together() -> None:
    machine = Machine()
    steps = {1: machine.step(1, 0.25), 2: machine.step(2, 2.0)}
    found = measure_step_times(
        steps, stopwatch=Stopwatch(clock=machine.clock), rounds=6, round_s=1.0, watch=quiet()
    )
    assert machine.made[4:9] == [1, 1, 1, 1, 2]
    assert found.seconds == {1: [0.25] * 6, 2: [2.0] * 6}


def test_drift_hits_all_sizes_alike() -> None:
    machine = Machine(drift=0.05)
    steps = {size: machine.step(size, 1.0) for size in (1, 2, 4)}
    found = measure_step_times(
        steps, stopwatch=Stopwatch(clock=machine.clock), rounds=9, round_s=0.5, watch=quiet()
    )
    medians = [throughput(1, times).step_time_s for times in found.seconds.values()]
    assert max(medians) / min(medians) < 1.1
    assert max(found.seconds[1]) / min(found.seconds[1]) > 1.5


def test_laps_that_were_on_the_stopwatch_before_are_left_out() -> None:
    machine = Machine()
    watch = Stopwatch(clock=machine.clock)
    watch.resume()
    machine.now += 100
    watch.lap()
    watch.pause()
    found = measure_step_times(
        {1: machine.step(1, 1.0)}, stopwatch=watch, rounds=6, round_s=0.5, watch=quiet()
    )
    assert found.seconds == {1: [1.0] * 6}


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        times = generator.lognormal(0.0, 0.3, size=9)  # the median is 1 s
        found = throughput(64, list(times))
        covered += found.low <= 64 <= found.high
    # 9 rounds: the 2nd and the 8th hold it with 1 - 2 (1 + 9) / 512 = 0.961.
    assert covered / 2000 == pytest.approx(0.961, abs=0.013)


@pytest.mark.parametrize(("rounds", "skipped"), [(5, 0), (6, 0), (8, 0), (9, 1), (12, 2), (20, 5)])
def test_the_interval_takes_the_order_statistics_of_the_binomial(rounds: int, skipped: int) -> None:
    """Published table of the sign test's interval for the median at 95 %: 9: 2nd, 12: 3rd, 20: 6th."""
    found = throughput(1, [1 / (1 + i) for i in range(rounds)])
    assert (found.low, found.high) == (1 + skipped, rounds - skipped)


def test_accumulated_steps_count_all_their_samples() -> None:
    assert throughput(32, [2.0] * 6, accumulation_steps=4).samples_per_s == 64


def points(rates: Mapping[int, float], wobble: float = 0.0) -> list[Throughput]:
    """Twelve rounds a size; with `wobble`, each size has faster and slower rounds, not the same ones."""
    found = []
    for place, (size, rate) in enumerate(rates.items()):
        times = [size / rate * (1 + wobble * ((5 * i + 7 * place) % 12 - 5.5) / 5.5) for i in range(12)]
        found.append(throughput(size, times))
    return found


RISING = {16: 500, 32: 800, 64: 940, 128: 1000, 256: 980}


def test_the_plateau_starts_where_the_interval_reaches_within_5_percent_of_the_best() -> None:
    assert find_plateau(points(RISING)).start == 128
    assert find_plateau(points(RISING, wobble=0.05)).start == 64
    assert find_plateau(points(RISING), tolerance=0.25).start == 32


def test_rounds_that_were_slow_for_all_sizes_widen_no_interval_of_the_plateau() -> None:
    slow = [1.0, 3.0, 1.0, 2.5, 1.0, 4.0, 1.0, 1.0, 2.0, 5.0, 1.0, 3.5]
    measured = [throughput(size, [size / rate * factor for factor in slow]) for size, rate in RISING.items()]
    assert measured[1].high > measured[3].samples_per_s  # by itself 32 might be as fast as the best
    assert find_plateau(measured).start == 128


def test_one_size_that_was_lucky_is_not_the_best() -> None:
    """256 takes 0.3 of the time of 128 in most rounds: no batch is sooner done than half of it."""
    measured = points({**RISING, 256: 980 / 0.3}, wobble=0.02)
    lucky = measured[-1]
    times = [time * (1.0 if place % 3 else 4.0) for place, time in enumerate(lucky.step_times_s)]
    measured[-1] = throughput(256, times)
    assert max(measured, key=lambda point: point.samples_per_s).batch_size == 256
    smoothed = smoothed_step_times(measured)
    assert list(smoothed.values()) == sorted(smoothed.values())
    # The narrow interval of 128 outweighs the wide one of 256.
    assert smoothed[256] == pytest.approx(measured[3].step_time_s, rel=0.01)


def test_smoothing_is_scikit_learns_isotonic_regression() -> None:
    from sklearn.isotonic import IsotonicRegression

    generator = np.random.default_rng(1)
    for _ in range(20):
        measured = [
            throughput(size, list(generator.lognormal(np.log(size) / 3, 0.5, 12)))
            for size in (1, 2, 4, 8, 16, 32)
        ]
        logs = [np.log(point.step_time_s) for point in measured]
        weights = [np.log(point.high / point.low) ** -2.0 for point in measured]
        expected = np.exp(IsotonicRegression().fit_transform(range(6), logs, sample_weight=weights))
        assert list(smoothed_step_times(measured).values()) == pytest.approx(list(expected))


def test_a_wide_interval_does_not_make_a_slow_size_a_good_one() -> None:
    """32 is twice as slow in the median; its interval touches the best's, for half of its rounds are lost in noise."""
    noisy = [0.5, 2.0, 3.0, 0.5, 2.0, 4.0, 0.5, 2.0, 0.5, 2.0, 3.0, 2.0]
    measured = [throughput(32, [0.032 * factor for factor in noisy]), throughput(64, [0.064] * 12)]
    found = near_best(measured, lambda size: 1.0, 0.05)
    assert (found.size, found.best, found.doubtful) == (64, 64, (32,))


def test_estimates_decide_within_the_tolerance_and_intervals_up_to_15_percent() -> None:
    for ratio, wobble, size in ((1.04, 0.0, 32), (1.12, 0.0, 64), (1.12, 0.2, 32), (1.2, 0.4, 64)):
        measured = [*points({32: 1000 / ratio}, wobble), *points({64: 1000})]
        assert near_best(measured, lambda size: 1.0, 0.05).size == size


def test_a_plateau_is_not_reached_while_the_largest_is_the_only_one_on_it() -> None:
    rising = find_plateau(points({16: 500, 32: 800, 64: 1200}))
    assert (rising.start, rising.best, rising.reached) == (64, 64, False)
    assert find_plateau(points(RISING)).reached


def test_a_best_in_the_middle_counts() -> None:
    found = find_plateau(points({16: 500, 32: 1000, 64: 700}))
    assert (found.start, found.best, found.reached) == (32, 32, True)


def test_bad_input_is_refused() -> None:
    watch = Stopwatch()
    with pytest.raises(ValueError, match="no batch size to time"):
        measure_step_times({}, stopwatch=watch)
    with pytest.raises(ValueError, match="rounds: 5 are too few"):
        measure_step_times({1: lambda: None}, stopwatch=watch, rounds=5)
    with pytest.raises(ValueError, match="batch size 8 has no rounds"):
        throughput(8, [])
    with pytest.raises(ValueError, match="points: there are none"):
        find_plateau([])
    with pytest.raises(ValueError, match="different numbers of rounds"):
        find_plateau([throughput(1, [1.0] * 6), throughput(2, [1.0] * 7)])
    with pytest.raises(ValueError, match="tolerance: 1 must be in"):
        find_plateau(points(RISING), tolerance=1)
