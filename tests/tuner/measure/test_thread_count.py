"""The number of threads: timed in turn by a clock that only steps move, and chosen by ratios of matched rounds."""

from __future__ import annotations

import pytest
import torch

from fusetune.tuner.measure.stopwatch import Stopwatch
from fusetune.tuner.measure.thread_count import candidate_counts, choose_thread_count, time_thread_counts


class Machine:
    """Steps take `seconds[threads]`, and all of them `slowdown` times as long from the given step on."""

    def __init__(self, seconds: dict[int, float], slowdown: float = 1.0, since: int = 0) -> None:
        self.seconds, self.slowdown, self.since = seconds, slowdown, since
        self.now, self.threads = 0.0, 0
        self.made: list[int] = []

    def step(self) -> None:
        self.made.append(self.threads)
        self.now += self.seconds[self.threads] * (self.slowdown if len(self.made) > self.since else 1.0)

    def set(self, threads: int) -> None:
        self.threads = threads

    def times(self, **options: float) -> dict[int, list[float]]:
        watch = Stopwatch(clock=lambda: self.now)
        counts = sorted(self.seconds)
        return time_thread_counts(
            self.step,
            counts,
            stopwatch=watch,
            set_threads=self.set,
            round_s=0.5,
            **options,  # type: ignore[arg-type]
        )


def test_numbers_of_threads_take_turns_and_torchs_own_is_put_back() -> None:
    before = torch.get_num_threads()
    machine = Machine({1: 1.0, 2: 0.25})
    assert machine.times(rounds=3, budget_s=100) == {1: [1.0] * 3, 2: [0.25] * 3}
    assert machine.made == [1, 1, 2, 2, *[1, 1, 2, 2, 2] * 3]
    assert machine.threads == before


def test_slow_steps_are_timed_three_times_and_no_more() -> None:
    assert len(Machine({1: 10.0, 2: 9.0}).times(rounds=6, budget_s=5.0)[1]) == 3


@pytest.mark.parametrize(
    ("seconds", "threads"),
    [
        pytest.param({1: 1.0, 2: 0.6}, 2, id="two help"),
        pytest.param({1: 1.0, 2: 0.95}, 1, id="two help too little"),
        pytest.param({1: 1.0, 2: 1.7}, 1, id="two hinder"),
        pytest.param({1: 1.0, 2: 0.5, 4: 0.3, 8: 0.29}, 4, id="eight add nothing to four"),
        pytest.param({1: 1.0}, 1, id="one core"),
    ],
)
def test_the_fewest_threads_that_are_about_as_fast_as_any(seconds: dict[int, float], threads: int) -> None:
    choice = choose_thread_count([Machine(seconds).times()])
    assert choice.threads == threads
    assert choice.speedups[max(seconds)] == pytest.approx(seconds[1] / seconds[max(seconds)])


def test_a_machine_that_becomes_slow_meanwhile_changes_nothing() -> None:
    choice = choose_thread_count([Machine({1: 1.0, 2: 0.6}, slowdown=5.0, since=9).times(budget_s=1000)])
    assert (choice.threads, round(choice.speedups[2], 3)) == (2, 1.667)


def test_one_number_for_all_configurations_goes_by_their_geometric_mean() -> None:
    small, large = {1: [1.0] * 3, 2: [2.0] * 3}, {1: [10.0] * 3, 2: [6.0] * 3}
    assert choose_thread_count([small, large]).threads == 1
    assert choose_thread_count([large, large, small]).speedups[2] == pytest.approx(
        (10 / 6 * 10 / 6 / 2) ** (1 / 3)
    )
    with pytest.raises(ValueError, match="there are none"):
        choose_thread_count([])


def test_candidates_are_powers_of_two_and_the_most() -> None:
    assert candidate_counts(12) == [1, 2, 4, 8, 12]
