"""The decision against scipy, against noise whose law is known, and against its own promises."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from fusetune.bench.gate import LOOKS, decide, looks_at
from fusetune.bench.gate.estimators import Run, choose, estimators, log_values
from fusetune.bench.stats import least_significant_u, mann_whitney
from fusetune.errors import InvalidValueError


def runs_of(values: np.ndarray, rounds: int = 8, seed: int = 0) -> list[Run]:
    """Processes whose rounds scatter by 0.1 % around exp(value), beside a reference loop that scatters as little."""
    rng = np.random.default_rng(seed)
    return [
        {
            "wall": list(np.exp(value + 0.001 * rng.standard_normal(rounds))),
            "ref": list(np.exp(0.001 * rng.standard_normal(6))),
        }
        for value in values
    ]


def sides(
    rng: np.random.Generator, pairs: int, noise: float, slowdown: float = 0.0
) -> tuple[list[Run], list[Run]]:
    """Two sides with normal noise between processes, the second slower."""
    base, head = noise * rng.standard_normal((2, pairs))
    return runs_of(base, seed=int(rng.integers(2**31))), runs_of(
        head + math.log1p(slowdown), seed=int(rng.integers(2**31))
    )


@pytest.mark.parametrize("pairs", [3, 5, 10])
def test_one_sided_p_is_scipys(pairs: int) -> None:
    rng = np.random.default_rng(pairs)
    for shift in (-1.0, 0.0, 1.0):
        ours, theirs = rng.standard_normal(pairs) + shift, rng.standard_normal(pairs)
        expected = mannwhitneyu(ours, theirs, alternative="greater", method="exact").pvalue
        assert mann_whitney(ours.tolist(), theirs.tolist(), "greater") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("pairs", "alpha"), [(5, 0.004), (5, 0.025), (10, 0.01), (20, 0.0015), (60, 0.01)])
def test_the_least_significant_u_is_significant_and_the_one_below_is_not(pairs: int, alpha: float) -> None:
    # Two samples with a given U: all of ours below theirs, but for one that exceeds as many as are needed.
    u = least_significant_u(pairs, alpha)
    assert u is not None

    def p_at(target: int) -> float:
        theirs = np.arange(pairs, dtype=float)
        full, rest = divmod(target, pairs)
        ours = [pairs + i / 100 for i in range(full)] + [rest - 0.5] * (full < pairs)
        ours += [-1.0 - i / 100 for i in range(pairs - len(ours))]
        return float(mannwhitneyu(ours, theirs, alternative="greater", method="exact").pvalue)

    assert p_at(u) <= alpha < p_at(u - 1)


def test_hundreds_of_pairs_are_decided() -> None:
    base, head = sides(np.random.default_rng(0), 200, 0.02, 0.03)
    verdict = decide(base, head)
    assert (verdict.outcome, verdict.runs_used) == ("regressed", 200)
    assert verdict.effect == pytest.approx(0.03, abs=0.005)
    assert verdict.detectable == pytest.approx(0.02, abs=0.008)


def test_four_pairs_reach_nothing() -> None:
    rng = np.random.default_rng(0)
    for slowdown in (0.0, 1.0):
        base, head = sides(rng, 4, 0.001, slowdown)
        verdict = decide(base, head)
        assert verdict.outcome == "can't tell"
        assert verdict.detectable is None


@pytest.mark.parametrize(
    ("slowdown", "outcome"), [(0.1, "regressed"), (-0.1, "improved"), (0.0, "pass"), (0.015, "pass")]
)
def test_outcomes_with_little_noise(slowdown: float, outcome: str) -> None:
    base, head = sides(np.random.default_rng(1), 10, 0.005, slowdown)
    verdict = decide(base, head)
    assert verdict.outcome == outcome
    assert verdict.effect == pytest.approx(slowdown, abs=0.01)
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.low <= slowdown <= verdict.high


def test_much_noise_is_no_pass() -> None:
    base, head = sides(np.random.default_rng(2), 10, 0.3)
    verdict = decide(base, head)
    assert verdict.outcome == "can't tell"
    assert verdict.detectable is not None
    assert verdict.detectable > 0.3
    assert verdict.noise == pytest.approx(math.expm1(0.3), rel=0.5)


def test_a_small_change_that_is_certain_does_not_count() -> None:
    base, head = sides(np.random.default_rng(3), 20, 0.001, 0.015)
    verdict = decide(base, head)
    assert verdict.p < 1e-6
    assert verdict.outcome == "pass"
    assert decide(base, head, threshold=0.01).outcome == "regressed"


def test_the_reference_loop_takes_the_clock_out() -> None:
    rng = np.random.default_rng(4)
    clock = 0.2 * rng.standard_normal(20)
    runs = [
        {"wall": [math.exp(c + 0.001 * n) for n in rng.standard_normal(10)], "ref": [math.exp(c)] * 6}
        for c in clock
    ]
    slower = [{"wall": [1.05 * wall for wall in run["wall"]], "ref": run["ref"]} for run in runs[10:]]
    verdict = decide(runs[:10], slower)
    assert verdict.outcome == "regressed"
    assert verdict.estimator.endswith("/ reference^1")
    without = decide([{"wall": run["wall"]} for run in runs[:10]], [{"wall": run["wall"]} for run in slower])
    assert without.outcome == "can't tell"


def test_history_tells_which_estimator_is_quiet() -> None:
    # The first rounds of each process are disturbed at random. A single pair cannot show that, the history can.
    rng = np.random.default_rng(5)

    def run(scale: float = 1.0) -> Run:
        disturbed = list(scale * np.exp(np.abs(rng.standard_normal(5))))
        return {"wall": disturbed + [scale * (1 + 0.001 * x) for x in rng.standard_normal(35)]}

    verdict = decide([run()], [run()], [run() for _ in range(20)])
    assert "first 5" not in verdict.estimator
    assert abs(verdict.effect) < 0.01


def test_the_choice_does_not_see_the_labels() -> None:
    rng = np.random.default_rng(6)
    runs = [
        {"wall": list(rng.lognormal(0, 0.1, 12)), "ref": list(rng.lognormal(0, 0.05, 6))} for _ in range(10)
    ]
    candidates = estimators(12, with_reference=True)
    values = log_values(runs, candidates)
    base, head = values[:, :5], values[:, 5:]
    chosen = set()
    for swapped in product((False, True), repeat=5):
        one, other = np.where(swapped, head, base), np.where(swapped, base, head)
        chosen.add(tuple(choose(values[:, :0], one, other)))
        # Nor does a slowdown of one side: pair means move alike.
        chosen.add(tuple(choose(values[:, :0], one + 0.5, other)))
    assert len(chosen) == 1


def test_processes_of_different_length_count_their_shared_rounds() -> None:
    rng = np.random.default_rng(7)
    base = [{"wall": list(1 + rng.random(40))} for _ in range(10)]
    head = [{"wall": run["wall"][:10]} for run in base]
    assert decide(base, head).effect == 0.0


def test_a_time_without_noise_gets_none_from_the_reference_loop() -> None:
    rng = np.random.default_rng(12)
    base: list[Run] = [{"wall": [1.0], "ref": list(rng.lognormal(0, 0.2, 6))} for _ in range(10)]
    head: list[Run] = [{"wall": [1.2], "ref": list(rng.lognormal(0, 0.2, 6))} for _ in range(10)]
    assert decide(base, head).effect == pytest.approx(0.2, abs=1e-12)
    assert decide(base, base[::-1]).effect == 0.0


def test_arrays_and_lists_are_the_same() -> None:
    base, head = sides(np.random.default_rng(13), 10, 0.02, 0.05)
    arrays: list[list[Any]] = [
        [{name: np.array(times) for name, times in run.items()} for run in side] for side in (base, head)
    ]
    assert decide(arrays[0], arrays[1], arrays[0]) == decide(base, head, base)


def test_a_second_look_at_the_same_pairs_spends_nothing() -> None:
    spent = {pairs: looks_at(pairs)[-1].alpha_so_far for pairs in (3, 5, 6, 10, 14, 15, 20, 25)}
    assert spent == pytest.approx(
        {3: 0.004, 5: 0.004, 6: 0.0055, 10: 0.007, 14: 0.0085, 15: 0.01, 20: 0.01, 25: 0.01}
    )


def test_staged_looks_stop_early() -> None:
    rng = np.random.default_rng(8)
    assert decide(*sides(rng, 20, 0.002, 0.2), staged=True).runs_used == 5
    unchanged = decide(*sides(rng, 20, 0.002), staged=True)
    assert (unchanged.outcome, unchanged.runs_used) == ("pass", 5)


def test_a_hopeless_comparison_stops_and_is_no_pass() -> None:
    # The first five pairs balance each other, so nothing hints at a slowdown.
    spread = np.tile([-0.5, 0.5, 0.0, 0.6, -0.6], 4)
    base, head = runs_of(spread), runs_of(-spread)
    verdict = decide(base, head, staged=True)
    assert (verdict.outcome, verdict.runs_used) == ("can't tell", 5)
    assert "noise" in verdict.reason


def test_all_looks_together_keep_the_level() -> None:
    assert sum(look.alpha for look in LOOKS) <= 0.01
    assert [look.pairs for look in looks_at(20)] == [5, 7, 10, 14, 20]
    assert [look.pairs for look in looks_at(3)] == [3]


@pytest.mark.slow
@pytest.mark.parametrize("staged", [False, True])
def test_false_alarms_and_finds_with_normal_noise(staged: bool) -> None:
    rng = np.random.default_rng(10)
    draws = 400
    alarms = sum(decide(*sides(rng, 20, 0.05), staged=staged).outcome == "regressed" for _ in range(draws))
    # One in a hundred at most: 11 of 400 have a chance below 1 in 200 then.
    assert alarms <= 10


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.01, 0.1])
def test_the_detectable_slowdown_is_found_nine_times_of_ten(noise: float) -> None:
    rng = np.random.default_rng(11)
    found = 0
    for _ in range(300):
        detectable = decide(*sides(rng, 10, noise)).detectable
        assert detectable is not None
        found += decide(*sides(rng, 10, noise, detectable)).outcome == "regressed"
    assert 0.85 <= found / 300 <= 0.97


@pytest.mark.parametrize(
    ("base", "head", "message"),
    [
        ([], [], "there are no pairs"),
        ([{"wall": [1.0]}], [], "base has 1 runs and head 0"),
        ([{"wall": []}], [{"wall": [1.0]}], "no rounds"),
        ([{"wall": [math.nan]}], [{"wall": [1.0]}], "not a finite number above 0"),
        ([{"wall": [1.0]}], [{"wall": [0.0]}], "not a finite number above 0"),
        ([{"wall": [1.0], "ref": [-1.0]}], [{"wall": [1.0], "ref": [1.0]}], "'ref'"),
    ],
)
def test_bad_runs_get_one_sentence(base: list[Run], head: list[Run], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        decide(base, head)
