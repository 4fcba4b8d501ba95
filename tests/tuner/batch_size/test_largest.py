"""The search for the largest batch, on machines whose true limit is known: few runs, none unverified, close to it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusetune.tuner.batch_size.largest import (
    CPU_OVERHEAD,
    LargestBatch,
    Overhead,
    Probe,
    fit_overhead,
    largest_batch,
    largest_predicted,
    on_grid,
)

MIB = 2**20


@dataclass
class Machine:
    """Runs batches: what a size needs is a line over the prediction, bent by `curve` and blurred by `noise`.

    Up to 0.6 of the line's largest size it is more, by up to `dropped` of the limit, as a heap with holes takes. With
    `square`, the predictions' square adds so many times the limit at the line's largest size, and nobody predicts it. A
    run that fails has seen `told` of what it needs, or the limit.
    """

    limit_bytes: float
    fixed_bytes: float
    per_sample_bytes: float
    offset_bytes: float = 0.0
    slope: float = 1.3
    curve: float = 0.0
    noise: float = 0.0
    dropped: float = 0.0
    square: float = 0.0
    told: float = 0.0
    seed: int = 0
    killed: bool = False
    runs: list[int] = field(default_factory=list)

    def predict(self, size: int) -> float:
        return self.fixed_bytes + self.per_sample_bytes * size

    def smooth(self, size: int) -> float:
        predicted = self.predict(size)
        line = (self.offset_bytes + self.slope * predicted) * (1 + self.curve * predicted / self.limit_bytes)
        share = size / (0.6 * (self.limit_bytes / self.slope - self.fixed_bytes) / self.per_sample_bytes)
        line += self.square * self.limit_bytes * (0.6 * share) ** 2
        return line + (self.dropped * self.limit_bytes * share if share < 1 else 0.0)

    def needs(self, size: int) -> float:
        blur = random.Random(f"{self.seed}:{size}").uniform(-self.noise, self.noise)
        return self.smooth(size) * (1 + blur)

    def probe(self, size: int) -> Probe:
        self.runs.append(size)
        needs = self.needs(size)
        if needs <= self.limit_bytes:
            return Probe(size, True, int(needs))
        seen = int(max(self.limit_bytes, self.told * needs))
        return Probe(size, False, None if self.killed else seen, "out of memory")

    @property
    def largest(self) -> int:
        return largest_predicted(self.smooth, self.limit_bytes)

    def search(self, max_batch: int | None = None, overhead: Overhead = CPU_OVERHEAD) -> LargestBatch:
        found = largest_batch(
            self.predict,
            self.probe,
            limit_bytes=int(self.limit_bytes),
            max_batch=max_batch,
            overhead=overhead,
        )
        assert len(self.runs) <= 4
        assert [probe.batch_size for probe in found.probes] == self.runs
        assert len(set(self.runs)) == len(self.runs)
        verified = [probe.batch_size for probe in found.probes if probe.fits]
        assert found.batch_size == max(verified, default=None)
        return found


@given(
    log_limit=st.floats(8.0, 11.0),
    log_per_sample=st.floats(3.5, 6.5),
    fixed=st.floats(0.001, 0.3),
    offset=st.floats(0.0, 0.2),
    slope=st.floats(1.0, 1.7),
    killed=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_95_percent_of_the_largest_in_at_most_four_runs(
    log_limit: float, log_per_sample: float, fixed: float, offset: float, slope: float, killed: bool
) -> None:
    limit = 10**log_limit
    machine = Machine(
        limit, fixed * limit, 10**log_per_sample, min(offset * limit, 60 * MIB), slope, killed=killed
    )
    largest = machine.largest
    if largest >= 40:
        found = machine.search()
        assert found.batch_size is not None
        assert 0.95 * largest - 1 <= found.batch_size <= largest


def shares(count: int, **changes: float) -> list[float]:
    """Found over largest for machines drawn at random."""
    found = []
    for seed in range(count):
        draw = random.Random(seed)
        limit = 10 ** draw.uniform(8.3, 10.5)
        machine = Machine(
            limit,
            limit * draw.uniform(0.001, 0.3),
            10 ** draw.uniform(3.5, 6),
            draw.uniform(0, 60) * MIB,
            draw.uniform(1.0, 1.7),
            seed=seed,
            killed=draw.random() < 0.5,
            **changes,  # type: ignore[arg-type]
        )
        found.append((machine.search().batch_size or 0) / machine.largest)
    return found


@pytest.mark.parametrize(
    ("changes", "share_of_machines", "worst"),
    [
        ({"noise": 0.01}, 0.97, 0.8),
        ({"noise": 0.02}, 0.93, 0.7),
        ({"curve": 0.1}, 0.97, 0.85),
        ({"curve": -0.1}, 0.93, 0.85),
        ({"dropped": 0.1, "noise": 0.01}, 0.95, 0.7),
    ],
    ids=str,
)
def test_noise_and_curvature_cost_little(
    changes: dict[str, float], share_of_machines: float, worst: float
) -> None:
    found = shares(500, **changes)
    assert sum(share >= 0.95 for share in found) / len(found) >= share_of_machines
    assert min(found) >= worst


def test_three_percent_of_noise() -> None:
    found = shares(400, noise=0.03)
    assert sum(share >= 0.95 for share in found) / len(found) >= 0.85
    assert min(found) >= 0.7


@pytest.mark.parametrize(("told", "median"), [(1.0, 0.85), (0.5, 0.45)])
def test_a_square_that_nobody_predicted_is_found_by_what_failed_runs_wanted(
    told: float, median: float
) -> None:
    """Without the bytes of failed runs the median was 0.38: halves and quarters of the first size."""
    found = sorted(shares(300, square=10.0, told=told))
    assert found[len(found) // 2] >= median


@pytest.mark.parametrize("square", [1.0, 10.0, 100.0])
def test_a_square_that_the_traces_show_is_a_line_in_the_prediction(square: float) -> None:
    def predict(size: int) -> float:
        return 20 * MIB + 3000 * size + square * size**2

    def needs(size: int) -> float:
        return 31 * MIB + 1.4 * predict(size)

    found = largest_batch(
        predict, lambda size: Probe(size, needs(size) <= 2**28, int(needs(size))), limit_bytes=2**28
    )
    assert len(found.probes) <= 4
    assert (found.batch_size or 0) >= 0.95 * largest_predicted(needs, 2**28)


def test_a_parabola_through_three_runs_is_the_parabola() -> None:
    points = [(x, 7.0 + 1.5 * x + 0.25 * x * x) for x in (10.0, 20.0, 40.0)]
    found = fit_overhead(points, CPU_OVERHEAD)
    assert (found.offset_bytes, found.slope, found.curve) == pytest.approx((7.0, 1.5, 0.25))
    # The third may be one that failed, and saw all that it needs.
    again = fit_overhead(points[:2], Overhead(28 / 3, 1.0), failures=1, bounds=points[2:])
    assert (again.offset_bytes, again.slope, again.curve) == pytest.approx((7.0, 1.5, 0.25))


def test_scatter_of_a_few_percent_is_no_curve() -> None:
    points = [(10.0, 10.0), (20.0, 19.2), (40.0, 40.0)]
    assert fit_overhead(points, CPU_OVERHEAD).curve == 0
    assert fit_overhead(points[:2], Overhead(0.0, 1.0), failures=1, bounds=[(40.0, 39.0)]).curve == 0


def breaking(above: int, machine: Machine) -> Callable[[int], Probe]:
    """A probe that fails for a reason that nobody knows above a size."""

    def probe(size: int) -> Probe:
        return machine.probe(size) if size <= above else Probe(size, False, reason="?", broken=True)

    return probe


def test_a_large_size_that_breaks_does_not_end_the_search_with_nothing() -> None:
    machine = Machine(2**30, MIB, MIB)
    for above, least in ((8, 8), (100, 40), (300, 280), (500, 375)):
        found = largest_batch(machine.predict, breaking(above, machine), limit_bytes=2**30)
        assert found.batch_size is not None
        assert len(found.probes) <= 4
        assert least <= found.batch_size <= above


def test_a_model_that_is_broken_takes_two_runs() -> None:
    machine = Machine(2**30, MIB, MIB)
    found = largest_batch(machine.predict, breaking(0, machine), limit_bytes=2**30)
    assert found.batch_size is None
    assert [probe.broken for probe in found.probes] == [True, True]
    assert found.probes[1].batch_size <= 8


def test_a_run_that_could_gain_less_than_2_5_percent_is_not_made() -> None:
    """The first run takes 99 % of the limit, and by the most that its overhead may be 1 % more samples would fit."""
    machine = Machine(2**30, MIB, 100_000.0, offset_bytes=0.0, slope=1.0)
    found = machine.search(overhead=Overhead(0.0, 1.01))
    assert len(found.probes) == 1
    assert (found.batch_size or 0) >= 0.975 * machine.largest


def test_a_truth_that_is_fuzzy_still_gives_a_size_that_ran() -> None:
    found = shares(200, noise=0.12)
    assert min(found) > 0
    assert sum(share >= 0.85 for share in found) / len(found) >= 0.75


def test_the_number_of_samples_bounds_it() -> None:
    machine = Machine(2**30, MIB, MIB)
    found = machine.search(max_batch=37)
    assert (found.batch_size, found.bound, len(found.probes)) == (37, "samples", 1)


def test_a_bound_off_the_grid_is_tried_too() -> None:
    assert Machine(2**40, MIB, 1000.0).search(max_batch=60_001).batch_size == 60_001


def test_nothing_fits() -> None:
    machine = Machine(100 * MIB, 10 * MIB, MIB, offset_bytes=200 * MIB)
    found = machine.search()
    assert (found.batch_size, found.bound) == (None, "nothing fits")
    assert found.reason.startswith("no batch ran in full under the limit; tried")


def test_one_sample_that_fits_alone_is_found() -> None:
    machine = Machine(100 * MIB, 5 * MIB, 40 * MIB, slope=2.0)
    assert machine.largest == 1
    assert machine.search().batch_size == 1


def test_a_first_run_that_is_killed_does_not_end_the_search() -> None:
    machine = Machine(2**30, 2**20, 2**20, slope=3.0, killed=True)
    found = machine.search()
    assert not found.probes[0].fits
    assert found.batch_size is not None
    assert found.batch_size >= 0.8 * machine.largest


def test_the_line_is_measured() -> None:
    machine = Machine(8 * 2**30, 2**28, 2**22, offset_bytes=100 * MIB, slope=1.31)
    found = machine.search()
    assert found.overhead.slope == pytest.approx(1.31, rel=1e-6)
    assert found.overhead.offset_bytes == pytest.approx(100 * MIB, rel=1e-4)
    assert found.estimate == on_grid(machine.largest)


@pytest.mark.parametrize("steep", [lambda size: size**2, lambda size: math.exp(size / 50)])
def test_predictions_that_are_no_lines_are_followed(steep: Callable[[int], float]) -> None:
    def needs(size: int) -> float:
        return 1.4 * MIB * steep(size) + 10 * MIB

    found = largest_batch(
        lambda size: MIB * steep(size),
        lambda size: Probe(size, needs(size) <= 2**33, int(needs(size))),
        limit_bytes=2**33,
    )
    assert (found.batch_size or 0) >= 0.95 * largest_predicted(needs, 2**33)


def test_bisection_agrees_with_division() -> None:
    for limit in (0, 6, 7, 8, 1000):
        assert largest_predicted(lambda size: 7 * size, limit) == limit // 7
    assert largest_predicted(lambda size: 7 * size, 1000, 50) == 50


def test_the_grid_costs_less_than_a_percent() -> None:
    for size in range(1, 20_000):
        assert size * 0.99 < on_grid(size) <= size


def test_one_run_gives_at_least_the_tensors_own_growth() -> None:
    assert fit_overhead([(100.0, 110.0)], Overhead(40.0, 1.5)).slope == 1.0
    assert fit_overhead([(100.0, 190.0)], Overhead(40.0, 1.5)) == Overhead(30.0, 1.6)
    assert fit_overhead([(100.0, 190.0)], Overhead(40.0, 1.5), failures=1) == Overhead(0.0, 1.9)


def test_a_run_needs_at_least_its_tensors_where_a_fitted_line_says_less() -> None:
    line = Overhead(-100.0, 1.5)
    assert [line.needed_at_least(predicted) for predicted in (10.0, 200.0, 400.0)] == [10.0, 200.0, 500.0]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"limit_bytes": 0}, "limit_bytes: 0"),
        ({"limit_bytes": 1, "max_batch": 0}, "max_batch: 0"),
        ({"limit_bytes": 1, "max_probes": 0}, "max_probes: 0"),
    ],
)
def test_bad_input_is_one_sentence(arguments: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=f"{complaint} must be 1 or more"):
        largest_batch(float, lambda size: Probe(size, True, size), **arguments)  # type: ignore[arg-type]


def test_a_further_byte_of_tensors_needs_at_least_a_byte() -> None:
    """The small run's heap had holes: the line through both runs would lead to sizes whose tensors alone don't fit."""
    line = fit_overhead([(24.0 * MIB, 31.7 * MIB), (39.8 * MIB, 41.4 * MIB)], CPU_OVERHEAD)
    assert line.slope == 1
    assert line.needed(39.8 * MIB) == pytest.approx(41.4 * MIB)


def test_a_run_that_raises_out_of_memory_does_not_fit_and_other_errors_pass() -> None:
    def run(size: int) -> Probe:
        if size > 300:
            raise RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB")
        return Probe(size, True, MIB * size)

    found = largest_batch(lambda size: MIB * size, run, limit_bytes=512 * MIB)
    assert found.batch_size is not None
    assert found.batch_size <= 300 < (found.smallest_failed or 0)
    assert any("HIP out of memory" in probe.reason for probe in found.probes)

    def broken(size: int) -> Probe:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        largest_batch(lambda size: MIB * size, broken, limit_bytes=512 * MIB)
