"""Statistics against enumeration, scipy, published tables and data whose answer is known beforehand."""

from __future__ import annotations

import dataclasses
import math
import random
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from fusetune.bench.results.records import Record
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.results.written_spec import WrittenSpec
from fusetune.bench.stats import significance, wording
from fusetune.bench.stats.significance import Estimate
from fusetune.bench.stats.summary import Summary, summarize

INF = math.inf
TARGET = {"metric": "val_accuracy", "at_least": 0.9}


def trial(
    factors: dict[str, Any],
    seed: int,
    *,
    steps: float | None = None,
    step_time: float = 0.01,
    accuracy: float = 0.5,
    status: str | None = None,
    reason: str = "",
) -> Record:
    """A trial that reached the target in `steps` steps, or missed it."""
    values = {"step_time_s": step_time, "best_val_accuracy": accuracy}
    if steps is not None:
        values |= {"steps_to_target": float(steps), "time_to_target_s": steps * step_time}
    outcome = status or ("ok" if steps is not None else "missed_target")
    return Record(f"{factors} {seed}", factors, seed, outcome, reason, values)  # type: ignore[arg-type]


def run_of(records: list[Record], *, target: Any = TARGET, baseline: Any = None, **changes: Any) -> Summary:
    """Summarize records as a run whose factors are those that occur, levels in the order of their appearance."""
    factors: dict[str, list[Any]] = {}
    for record in records:
        for name, value in record.factors.items():
            levels = factors.setdefault(name, [])
            levels += [] if value in levels else [value]
    spec = {"name": "t", "factors": factors, "seeds": [0], "target": target}
    run = {"spec": spec, "trials": len(records), "baseline": baseline or {}, "jobs": 1, **changes}
    return summarize(RunInfo.from_dict(run), records)


def order(summary: Summary, factor: str = "a") -> list[Any]:
    return [configuration.factors[factor] for configuration in summary.configurations]


def enumerated_p(ours: list[float], theirs: list[float]) -> float:
    """Mann-Whitney's two-sided p from every way to deal the pooled values, counting pairs directly."""

    def wins(left: list[float], right: list[float]) -> float:
        return sum((x > y) + 0.5 * (x == y) for x in left for y in right)

    pooled = [*ours, *theirs]
    observed = wins(ours, theirs)
    deals = []
    for chosen in combinations(range(len(pooled)), len(ours)):
        left = [pooled[i] for i in chosen]
        right = [pooled[i] for i in range(len(pooled)) if i not in chosen]
        deals.append(wins(left, right))
    tail = min(sum(u <= observed for u in deals), sum(u >= observed for u in deals)) / len(deals)
    return min(1.0, 2 * tail)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([1.0, 2.0, 2.5, 4.0, INF]), min_size=1, max_size=4),
    st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0, INF]), min_size=1, max_size=4),
)
def test_mann_whitney_with_ties_and_infinities_equals_full_enumeration(
    ours: list[float], theirs: list[float]
) -> None:
    assert significance.mann_whitney(ours, theirs) == pytest.approx(enumerated_p(ours, theirs))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 3), (5, 8), (10, 10), (20, 25)])
def test_mann_whitney_without_ties_equals_scipys_exact_test(n: int, m: int) -> None:
    generator = np.random.default_rng(n)
    for shift in (0.0, 0.5, 2.0):
        ours, theirs = list(generator.normal(size=n)), list(generator.normal(size=m) + shift)
        expected = scipy.stats.mannwhitneyu(ours, theirs, method="exact").pvalue
        assert significance.mann_whitney(ours, theirs) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "critical_u"), [(4, 0), (5, 2), (6, 5), (8, 13), (10, 23), (15, 64)])
def test_mann_whitney_has_the_published_critical_values(n: int, critical_u: int) -> None:
    """Two-sided 5 % table of Mann and Whitney's U: significant at the critical value, not one above it."""

    def p_of_u(u: int) -> float:
        whole, rest = divmod(u, n)
        ours = [float(i) for i in range(n)]
        theirs = [n + i + 0.5 for i in range(n)]
        for i in range(whole):
            theirs[i] = -1.0 - i
        if rest:
            theirs[whole] = n - rest - 0.5
        return significance.mann_whitney(ours, theirs)

    assert p_of_u(critical_u) <= 0.05 < p_of_u(critical_u + 1)


@pytest.mark.parametrize(("n", "m", "off"), [(51, 51, 0.002), (60, 70, 0.002), (40, 100, 0.004)])
def test_many_values_are_approximated_within_the_error_that_is_documented(n: int, m: int, off: float) -> None:
    ours, theirs = (scipy.stats.norm.ppf((np.arange(size) + 0.5) / size) for size in (n, m))
    for shift in (0.0, 0.21, 0.43, 0.55):
        moved = (ours + shift + 1e-9).tolist()
        exact = scipy.stats.mannwhitneyu(moved, theirs, alternative="greater", method="exact").pvalue
        assert exact > 0.001
        assert significance.mann_whitney(moved, theirs.tolist(), "greater") == pytest.approx(exact, rel=off)
    far = (ours + 0.75).tolist()
    exact = scipy.stats.mannwhitneyu(far, theirs, alternative="greater", method="exact").pvalue
    assert 1e-5 < exact < 0.001
    assert significance.mann_whitney(far, theirs.tolist(), "greater") == pytest.approx(exact, rel=0.06)


def test_many_values_with_ties_are_approximated() -> None:
    """Few different values: against the deals that a seeded generator draws."""
    generator = np.random.default_rng(5)
    ours, theirs = np.repeat([1.0, 2.0, 3.0], [25, 20, 15]), np.repeat([1.0, 2.0, 3.0], [18, 20, 22])
    ranks = scipy.stats.rankdata([*ours, *theirs])
    deals = np.array([generator.permutation(ranks)[:60].sum() for _ in range(20_000)])
    drawn = (deals <= ranks[:60].sum()).mean()
    assert 0.02 < drawn < 0.2
    assert significance.mann_whitney(theirs.tolist(), ours.tolist(), "greater") == pytest.approx(
        drawn, rel=0.15
    )
    assert significance.mann_whitney([1.0] * 80, [1.0] * 90) == 1.0


def test_sides_of_any_size_have_the_p_of_the_other_side() -> None:
    ours, theirs = [1.0, 2.0, 5.0, INF], [0.5, 2.0, 3.0, 3.0, 7.0, 8.0, 9.0]
    flipped = [[-value for value in side] for side in (theirs, ours)]
    for sides in ((ours, theirs), flipped):
        assert significance.mann_whitney(sides[0], sides[1], "greater") == pytest.approx(
            significance.mann_whitney([-x for x in sides[1]], [-x for x in sides[0]], "greater")
        )


def test_mann_whitney_needs_values_on_both_sides() -> None:
    with pytest.raises(ValueError, match="at least one"):
        significance.mann_whitney([], [1.0])


def test_holm_on_a_published_example() -> None:
    """The example of the Wikipedia article on the method: H4 and H1 are rejected at 5 %, H3 and H2 are not."""
    adjusted = significance.holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_between_the_raw_p_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = significance.holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1.0, p * len(p_values))
    assert [adjusted[i] for i in np.argsort(p_values, kind="stable")] == sorted(adjusted)


@pytest.mark.parametrize("comparisons", [1, 3, 6, 120])
def test_least_n_is_where_the_most_extreme_data_become_significant(comparisons: int) -> None:
    def extreme(n: int) -> float:
        return comparisons * significance.mann_whitney(list(range(n)), list(range(n, 2 * n)))

    n = significance.least_n(comparisons)
    assert extreme(n) <= 0.05 < extreme(n - 1)


@pytest.mark.parametrize(("n", "comparisons"), [(4, 1), (6, 3), (9, 6)])
def test_the_smallest_visible_shift_is_found_four_times_in_five(n: int, comparisons: int) -> None:
    shift = significance.smallest_visible_shift(n, comparisons)
    assert shift is not None
    x, y = np.random.default_rng(12).normal(size=(2, 2000, n))
    p_values = scipy.stats.mannwhitneyu(x, y + shift, axis=1, method="exact").pvalue
    assert np.mean(p_values <= 0.05 / comparisons) == pytest.approx(0.8, abs=0.03)


def test_no_shift_is_visible_with_too_few_seeds() -> None:
    assert significance.smallest_visible_shift(3, 1) is None
    assert significance.smallest_visible_shift(4, 6) is None


@given(st.lists(st.one_of(st.floats(0, 1e6), st.just(INF)), min_size=1, max_size=9))
def test_the_median_counts_infinities_like_numpys(values: list[float]) -> None:
    assert significance.median(values) == pytest.approx(float(np.median(values)))


def test_the_median_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        significance.median([])


def test_a_difference_has_scipys_t_interval() -> None:
    pairs = [(3.1, 1.0), (2.7, 1.1), (3.6, 0.7), (2.2, 1.3)]
    differences = [a - b for a, b in pairs]
    expected = scipy.stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    estimate = significance.difference(pairs)
    assert estimate is not None
    assert estimate.value == pytest.approx(np.mean(differences))
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


def test_a_ratio_is_the_reciprocal_of_its_inverse() -> None:
    pairs = [(3.0, 1.0), (5.0, 2.0), (2.0, 1.5)]
    forward, backward = significance.ratio(pairs), significance.ratio([(b, a) for a, b in pairs])
    assert forward is not None
    assert backward is not None
    assert forward.value == pytest.approx(scipy.stats.gmean([3.0, 2.5, 4 / 3]))
    assert (1 / backward.value, 1 / backward.high, 1 / backward.low) == pytest.approx(
        (forward.value, forward.low, forward.high)
    )


def test_fewer_than_three_pairs_have_no_interval_and_tell_nothing() -> None:
    estimate = significance.ratio([(9.0, 1.0), (9.0, 1.0)])
    assert estimate is not None
    assert (estimate.value, estimate.low, estimate.can_tell) == (pytest.approx(9.0), None, False)
    assert significance.ratio([]) is None


@pytest.mark.parametrize(
    ("low", "high", "tells"), [(1.1, 2.0, True), (0.9, 2.0, False), (0.5, 0.9, True), (1.0, 2.0, False)]
)
def test_an_interval_tells_when_it_excludes_no_effect(low: float, high: float, tells: bool) -> None:
    assert Estimate(1.5, low, high, 3, neutral=1.0).can_tell is tells


# Configurations and their order


def test_a_missed_seed_is_infinite_and_the_median_stays_finite_while_most_seeds_reached() -> None:
    records = [trial({"a": 1}, 0, steps=100), trial({"a": 1}, 1, steps=300), trial({"a": 1}, 2)]
    spread = run_of(records).configurations[0].metrics["time_to_target_s"]
    assert (spread.median, spread.low, spread.high, spread.n) == (3.0, 1.0, INF, 3)


def test_rank_is_by_median_time_then_share_reached_then_score_and_trouble_is_last() -> None:
    records = [
        trial({"a": "diverged"}, 0, accuracy=0.99, status="diverged"),
        trial({"a": "diverged"}, 1, accuracy=0.99, status="diverged"),
        trial({"a": "low"}, 0, accuracy=0.3),
        trial({"a": "low"}, 1, accuracy=0.3),
        trial({"a": "high"}, 0, accuracy=0.6),
        trial({"a": "high"}, 1, accuracy=0.6),
        trial({"a": "half"}, 0, steps=1, accuracy=0.1),
        trial({"a": "half"}, 1, accuracy=0.1),
        trial({"a": "slow"}, 0, steps=900),
        trial({"a": "slow"}, 1, steps=900),
        trial({"a": "fast"}, 0, steps=100),
        trial({"a": "fast"}, 1, steps=200),
    ]
    assert order(run_of(records)) == ["fast", "slow", "half", "high", "low", "diverged"]


def test_without_a_target_the_best_validation_accuracy_ranks() -> None:
    records = [
        trial({"a": x}, 0, accuracy=acc, status="ok") for x, acc in [("p", 0.4), ("q", 0.8), ("r", 0.6)]
    ]
    assert order(run_of(records, target=None)) == ["q", "r", "p"]


def test_a_target_on_the_loss_ranks_by_the_lowest_loss() -> None:
    records = [
        Record(x, {"a": x}, 0, "missed_target", values={"best_val_loss": loss, "best_val_accuracy": acc})
        for x, loss, acc in [("p", 0.9, 0.9), ("q", 0.5, 0.5), ("r", 0.7, 0.7)]
    ]
    assert order(run_of(records, target={"metric": "val_loss", "at_most": 0.1})) == ["q", "r", "p"]


def test_a_trial_that_diverged_after_its_target_did_not_reach_it() -> None:
    summary = run_of([trial({"a": 1}, 0, steps=10, status="diverged", reason="NaN at step 20")])
    assert summary.configurations[0].reached == 0
    assert "time_to_target_s" not in summary.configurations[0].metrics
    assert summary.troubles[0].reason == "NaN at step 20"


def test_ties_keep_the_order_of_the_spec_whatever_the_order_of_the_records() -> None:
    records = [trial({"a": x, "b": y}, seed, steps=10) for x in "pqr" for y in (2, 1) for seed in range(3)]
    spec = {"factors": {"a": ["q", "r", "p"], "b": [1, 2]}, "target": TARGET}
    run = RunInfo(spec=WrittenSpec(spec), trials=len(records), baseline={"a": "q", "b": 1})
    expected = summarize(run, records)
    assert [tuple(c.factors.values()) for c in expected.configurations] == [
        (x, y) for x in "qrp" for y in (1, 2)
    ]
    for seed in range(5):
        shuffled = random.Random(seed).sample(records, len(records))
        assert summarize(run, shuffled) == expected


def test_equal_troubles_of_a_configuration_are_listed_once_with_their_seeds() -> None:
    records = [trial({"a": 1}, seed, status="failed", reason="ValueError: no") for seed in (2, 0, 1)]
    records += [trial({"a": 1}, 3, status="diverged", reason="NaN")]
    troubles = run_of(records).troubles
    assert [(t.status, t.seeds) for t in troubles] == [("failed", (0, 1, 2)), ("diverged", (3,))]


def test_a_schedule_given_as_a_bare_mapping_is_the_named_schedule() -> None:
    records = [trial({"schedule": "cosine"}, 0, steps=10), trial({"schedule": "linear"}, 0, steps=20)]
    summary = run_of(records, baseline={"schedule": {"name": "cosine"}})
    assert [configuration.is_baseline for configuration in summary.configurations] == [True, False]


# How sure the first place is


def test_the_first_place_is_sure_when_enough_seeds_lie_wholly_apart() -> None:
    records = [trial({"a": x}, seed, steps=100 * (x + 1) + seed) for x in range(3) for seed in range(5)]
    first = run_of(records).first
    assert first is not None
    assert first.verdict == "pass"
    assert [c.p for c in first.comparisons] == pytest.approx([3 * 2 / 252] * 2)


def test_with_fewer_seeds_than_the_least_nothing_is_claimed() -> None:
    records = [trial({"a": x}, seed, steps=100 * (x + 1) + seed) for x in range(3) for seed in range(3)]
    first = run_of(records).first
    assert first is not None
    assert (first.verdict, first.n, first.least_n, first.smallest_visible) == ("can't tell", 3, 5, None)


def test_missed_seeds_count_as_the_slowest_in_the_comparison() -> None:
    records = [trial({"a": 0}, seed, steps=100 + seed) for seed in range(4)]
    records += [trial({"a": 1}, seed) for seed in range(4)]
    first = run_of(records).first
    assert first is not None
    assert (first.comparisons[0].p, first.verdict) == (pytest.approx(2 / 70), "pass")


def test_equal_configurations_seldom_get_a_sure_winner_though_the_winner_is_picked_from_the_data() -> None:
    generator = np.random.default_rng(5)
    runs, claims = 200, 0
    for _ in range(runs):
        times = generator.lognormal(sigma=0.1, size=(5, 6))
        records = [trial({"a": a}, s, steps=100, step_time=times[a, s]) for a in range(5) for s in range(6)]
        first = run_of(records).first
        assert first is not None
        claims += any(comparison.verdict != "can't tell" for comparison in first.comparisons)
    assert claims / runs <= 0.05


def test_the_visible_ratio_grows_with_the_spread_between_seeds() -> None:
    def visible(sigma: float) -> float:
        noise = np.random.default_rng(1).normal(scale=sigma, size=(2, 6))
        times = np.exp(noise)
        records = [trial({"a": a}, s, steps=100, step_time=times[a, s]) for a in range(2) for s in range(6)]
        first = run_of(records).first
        assert first is not None
        assert first.smallest_visible is not None
        return first.smallest_visible

    assert math.log(visible(0.2)) == pytest.approx(10 * math.log(visible(0.02)))


def test_one_configuration_has_nothing_to_be_compared_with() -> None:
    summary = run_of([trial({"a": 1}, 0, steps=10)])
    assert summary.first is None
    assert wording.what_would_make_it_surer(summary) == []


# The gain over `train`


def test_the_gain_is_the_product_of_fewer_steps_and_faster_steps_exactly() -> None:
    generator = np.random.default_rng(3)
    records = [trial({"a": 0}, s, steps=int(generator.integers(200, 400)), step_time=float(generator.uniform(1, 2)))
               for s in range(5)]  # fmt: skip
    records += [trial({"a": 1}, s, steps=int(generator.integers(50, 90)), step_time=float(generator.uniform(0.5, 1)))
                for s in range(5)]  # fmt: skip
    gain = run_of(records, baseline={"a": 0}).gain
    assert gain is not None
    assert gain.time is not None
    assert gain.steps is not None
    assert gain.step_time is not None
    assert gain.steps_share is not None
    assert gain.time.value == pytest.approx(gain.steps.value * gain.step_time.value, rel=1e-13)
    expected = scipy.stats.gmean([
        a.values["time_to_target_s"] / b.values["time_to_target_s"]
        for a, b in zip(records[:5], records[5:], strict=True)
    ])  # fmt: skip
    assert gain.time.value == pytest.approx(expected, rel=1e-13)
    assert gain.time.value**gain.steps_share == pytest.approx(gain.steps.value)


def test_the_gain_pairs_only_the_seeds_that_reached_the_target_in_both() -> None:
    records = [trial({"a": 0}, 0, steps=400), trial({"a": 0}, 1), trial({"a": 0}, 2, steps=400)]
    records += [trial({"a": 1}, 0, steps=100), trial({"a": 1}, 1, steps=1), trial({"a": 1}, 2, steps=100)]
    gain = run_of(records, baseline={"a": 0}).gain
    assert gain is not None
    assert gain.time is not None
    assert (gain.time.value, gain.time.n, gain.time.can_tell) == (pytest.approx(4.0), 2, False)


def test_no_share_is_stated_when_one_part_works_against_the_other() -> None:
    records = [trial({"a": 0}, s, steps=400, step_time=0.01) for s in range(3)]
    records += [trial({"a": 1}, s, steps=100, step_time=0.02) for s in range(3)]
    gain = run_of(records, baseline={"a": 0}).gain
    assert gain is not None
    assert gain.steps_share is None
    assert gain.step_time is not None
    assert gain.step_time.value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("train_steps", "first_steps", "target", "baseline", "obstacle"),
    [
        (None, 100, TARGET, {"a": 0}, "train never reached"),
        (None, None, TARGET, {"a": 0}, "none reached"),
        (100, 50, None, {"a": 0}, "no target"),
        (100, 50, TARGET, {"a": 1}, "first is train"),
        (100, 50, TARGET, {"a": 7}, "train not run"),
    ],
)
def test_without_a_split_the_gain_says_why(
    train_steps: int | None, first_steps: int | None, target: Any, baseline: Any, obstacle: str
) -> None:
    status = "ok" if target is None else None
    train_steps, first_steps = (train_steps, first_steps) if target else (None, None)
    records = [trial({"a": 0}, s, steps=train_steps, accuracy=0.5, status=status) for s in range(3)]
    records += [trial({"a": 1}, s, steps=first_steps, accuracy=0.6, status=status) for s in range(3)]
    summary = run_of(records, target=target, baseline=baseline)
    assert summary.gain is not None
    assert (summary.gain.obstacle, summary.gain.time) == (obstacle, None)
    assert wording.gain_obstacle(summary)
    if obstacle in ("train never reached", "none reached", "no target"):
        assert summary.gain.score is not None
        assert summary.gain.score.value == pytest.approx(0.1)
        assert summary.gain.step_time is not None


def test_no_shared_seed_means_no_split() -> None:
    records = [
        trial({"a": 0}, 0, steps=100),
        trial({"a": 0}, 1),
        trial({"a": 1}, 0, accuracy=0.6),
        trial({"a": 1}, 1, steps=50, accuracy=0.6),
    ]
    gain = run_of(records, baseline={"a": 0}).gain
    assert gain is not None
    assert gain.obstacle == "no shared seed"


# Main effects


def multiplicative_grid() -> list[Record]:
    """`a` halves the steps, `b` makes a step three times faster, and every cell and seed has its own noise."""
    return [
        trial(
            {"a": a, "b": b},
            seed,
            steps=(400 if a == "x" else 200) + 40 * seed * (1 if a == "x" else 0.5),
            step_time=(0.03 if b == "p" else 0.01) * (1 + 0.1 * seed),
            accuracy=0.5 + (0.04 if a == "y" else 0.0) + 0.01 * seed,
        )
        for a in "xy"
        for b in "pq"
        for seed in range(3)
    ]


def test_main_effects_are_the_ratios_the_data_were_made_with() -> None:
    a, b = run_of(multiplicative_grid(), baseline={"a": "x", "b": "p"}).effects
    reference, level = a.levels
    assert (reference.value, reference.is_reference, level.value, level.pairs) == ("x", True, "y", 6)
    for estimate, expected in [
        (level.time, 2.0),
        (level.steps, 2.0),
        (level.step_time, 1.0),
        (level.score, 0.04),
    ]:
        assert estimate is not None
        assert estimate.value == pytest.approx(expected)
    _, faster = b.levels
    for estimate, expected in [
        (faster.time, 3.0),
        (faster.steps, 1.0),
        (faster.step_time, 3.0),
        (faster.score, 0.0),
    ]:
        assert estimate is not None
        assert estimate.value == pytest.approx(expected, abs=1e-12)


def test_the_reference_is_the_level_of_train() -> None:
    effect = run_of(multiplicative_grid(), baseline={"a": "y", "b": "q"}).effects[0]
    assert [level.value for level in effect.levels] == ["y", "x"]
    assert effect.levels[1].time is not None
    assert effect.levels[1].time.value == pytest.approx(0.5)


def test_pairs_that_missed_the_target_are_left_out_of_the_ratios_but_not_of_the_counts() -> None:
    records = [trial({"a": "x"}, s, steps=400) for s in range(4)]
    records += [trial({"a": "y"}, 0, steps=100), trial({"a": "y"}, 1, steps=100)]
    records += [trial({"a": "y"}, s) for s in (2, 3)]
    level = run_of(records, baseline={"a": "x"}).effects[0].levels[1]
    assert (level.reached, level.n, level.pairs) == (2, 4, 4)
    assert level.time is not None
    assert (level.time.value, level.time.n, level.time.can_tell) == (pytest.approx(4.0), 2, False)


def test_one_at_a_time_pairs_each_arm_with_train_alone() -> None:
    start = {"a": "x", "b": "p"}
    records = [trial(start, s, steps=400) for s in range(3)]
    records += [trial({"a": "y", "b": "p"}, s, steps=100) for s in range(3)]
    records += [trial({"a": "x", "b": "q"}, s, steps=200) for s in range(3)]
    spec = {"factors": {"a": ["y"], "b": ["q"]}, "target": TARGET}
    summary = summarize(RunInfo(spec=WrittenSpec(spec), trials=9, baseline=start), records)
    found = [(e.levels[1].value, e.levels[1].pairs, e.levels[1].time) for e in summary.effects]
    assert [(value, pairs, time and round(time.value, 9)) for value, pairs, time in found] == [
        ("y", 3, 4),
        ("q", 3, 2),
    ]


def test_a_random_design_without_matches_has_no_pairs_and_claims_nothing() -> None:
    records = [trial({"a": "x", "b": "p"}, 0, steps=100), trial({"a": "y", "b": "q"}, 0, steps=50)]
    for effect in run_of(records, baseline={"a": "x", "b": "p"}).effects:
        assert (effect.levels[1].pairs, effect.levels[1].time, effect.levels[1].score) == (0, None, None)


def test_the_path_of_fused_trials_is_told_and_that_of_torchs_own_is_not() -> None:
    ways = {"torch": "torch", "fused": "interpreter"}
    records = [
        dataclasses.replace(
            trial({"implementation": name}, 0, steps=100),
            provenance={"path": {"optimizer": way, "activations": "none"}},
        )
        for name, way in ways.items()
    ]
    assert run_of(records).fused_paths == ("optimizer by interpreter, activations by none",)
    for record in records:
        record.provenance["path_reason"] = "triton 9.9: does not fit."
    (way,) = run_of(records).fused_paths
    assert way.endswith("activations by none: triton 9.9: does not fit.")


# Sentences


def test_the_recommendation_names_the_factors_the_gain_and_its_two_parts() -> None:
    records = [trial({"batch_size": 512}, s, steps=500 + s, step_time=0.03) for s in range(3)]
    records += [trial({"batch_size": 64}, s, steps=200 + s, step_time=0.01) for s in range(3)]
    fewer = scipy.stats.gmean([500 / 200, 501 / 201, 502 / 202])
    text = wording.recommendation(run_of(records, baseline={"batch_size": 512}))
    assert text == (
        f"Use batch_size=64: reaches val_accuracy >= 0.9 in 2.01 s (3 of 3 seeds), {3 * fewer:.2f}x sooner than the "
        f"`train` configuration, because it needs {fewer:.2f}x fewer steps and each step is 3.00x faster. "
        "These data cannot tell it from rank 2."
    )


def test_a_gain_that_the_seeds_contradict_is_given_no_cause() -> None:
    records = [trial({"a": 0}, s, steps=200 * (s + 1)) for s in range(3)]
    records += [trial({"a": 1}, s, steps=steps) for s, steps in enumerate((90, 450, 260))]
    text = wording.recommendation(run_of(records, baseline={"a": 0}))
    assert "sooner than the `train` configuration, a difference that is not significant" in text
    assert "because" not in text


def test_a_gain_of_two_seeds_is_marked_as_uncertain() -> None:
    records = [trial({"a": 0}, s, steps=400) for s in range(2)] + [
        trial({"a": 1}, s, steps=100) for s in range(2)
    ]
    assert "~4.00x sooner" in wording.recommendation(run_of(records, baseline={"a": 0}))


def test_one_seed_claims_nothing_about_the_spread() -> None:
    records = [trial({"a": 0}, 0, steps=400), trial({"a": 1}, 0, steps=100)]
    summary = run_of(records, baseline={"a": 0})
    assert "With one seed, the spread between seeds is unknown." in wording.recommendation(summary)
    assert wording.what_would_make_it_surer(summary)[0].startswith(
        "seeds: a significant first of 2 configurations needs at least 4, now n = 1"
    )


def test_a_target_nobody_reached_names_the_closest_and_what_to_try() -> None:
    records = [trial({"a": 0}, 0, accuracy=0.4), trial({"a": 1}, 0, accuracy=0.6, status="stopped_early")]
    text = wording.recommendation(run_of(records))
    assert text.startswith("No configuration reached val_accuracy >= 0.9. Closest: a=1, best val acc 60.00 %")
    assert "early_stop.patience" in text


def test_when_nothing_could_be_trained_each_trouble_has_its_advice() -> None:
    records = [trial({"a": 0}, 0, status="diverged"), trial({"a": 1}, 0, status="out_of_memory")]
    text = wording.recommendation(run_of(records))
    assert "smaller base_lr" in text
    assert "smaller batch_size" in text
    assert "fixing" not in text


def test_an_undecided_first_place_with_enough_seeds_says_what_it_could_have_seen() -> None:
    noise = np.exp(np.random.default_rng(0).normal(scale=0.1, size=(2, 6)))
    records = [trial({"a": a}, s, steps=100, step_time=noise[a, s]) for a in range(2) for s in range(6)]
    summary = run_of(records)
    assert summary.first is not None
    assert summary.first.smallest_visible is not None
    line = wording.what_would_make_it_surer(summary)[0]
    assert f"detects a ratio of {wording.ratio_text(summary.first.smallest_visible)}" in line


def test_missing_trials_come_with_the_command_that_runs_them() -> None:
    lines = wording.missing(summarize(RunInfo(trials=5), [trial({}, 0)], "results/my run"))
    assert lines == [
        "4 trials of 5 not run yet. Continue with\npython -m bench run --resume 'results/my run'"
    ]


def _paired(
    factor: str, values: tuple[Any, Any], ratios: list[float], *, reached: int = 3, **changes: Any
) -> list[Record]:
    """Trials whose step times have these ratios, first value over second, a pair a seed. Some reach the target."""
    records = []
    for seed, ratio in enumerate(ratios):
        for value, step_time in zip(values, (0.01 * ratio, 0.01), strict=True):
            record = trial({factor: value}, seed, steps=100 if seed < reached else None, step_time=step_time)
            records.append(dataclasses.replace(record, values={**record.values, **changes}))
    return records


# Two batch sizes on a machine whose other work came and went. The three pairs that reached the target are the first.
BUSY = [2.82, 2.42, 3.05, 1.34, 1.01, 0.63, 0.94, 0.67]


def test_faster_steps_are_judged_over_all_pairs_and_not_by_those_that_reached_the_target() -> None:
    (effect,) = run_of(_paired("batch_size", (32, 64), BUSY)).effects
    step_time = effect.levels[1].step_time
    assert step_time is not None
    logs = np.log(BUSY)
    low, high = scipy.stats.t.interval(0.95, 7, logs.mean(), scipy.stats.sem(logs))
    assert (step_time.n, step_time.value) == (8, pytest.approx(math.exp(logs.mean())))
    assert (step_time.low, step_time.high) == (pytest.approx(math.exp(low)), pytest.approx(math.exp(high)))
    assert not step_time.can_tell
    assert effect.levels[1].time is not None
    assert effect.levels[1].time.n == 3


@pytest.mark.parametrize(
    ("factor", "values", "same"),
    [
        ("schedule", ("constant", "one-cycle"), True),
        ("train.base_lr", (0.1, 0.01), True),
        ("schedule.pct_start", (0.1, 0.3), True),
        ("weight_decay", (0.1, 0.01), True),
        ("weight_decay", (0.1, 0), False),
        ("batch_size", (32, 64), False),
        ("optimizer", ("sgd", "adam"), False),
    ],
)
def test_a_factor_that_chooses_numbers_alone_has_no_faster_steps(
    factor: str, values: Any, same: bool
) -> None:
    records = _paired(factor, values, [2.0] * 8, reached=5)
    summary = run_of(records, baseline={factor: values[0]})
    level = summary.effects[0].levels[1]
    assert level.same_work is same
    assert (level.step_time is None) is same
    assert summary.gain is not None
    assert summary.gain.step_time is not None  # the split stays exact
    assert summary.gain.step_time.value == pytest.approx(2.0)
    assert summary.gain.step_time.can_tell is not same
    assert ("each step is" in wording.recommendation(summary)) is not same


def test_a_gain_s_faster_steps_are_no_surer_than_all_pairs_are() -> None:
    records = [
        dataclasses.replace(record, values={**record.values, "steps_to_target": 100.0 + record.seed})
        for record in _paired("batch_size", (32, 64), [2.8, 2.7, 2.9, 2.8, 2.8, 0.1, 0.2, 0.1], reached=5)
    ]
    gain = run_of(records, baseline={"batch_size": 32}).gain
    assert gain is not None
    assert gain.step_time is not None
    assert (gain.step_time.n, gain.step_time.can_tell) == (5, False)


def test_contended_pairs_are_left_out_of_step_times_where_three_others_remain() -> None:
    ratios = [1.0, 1.01, 0.99, 9.0, 8.0]
    quiet = _paired("batch_size", (32, 64), ratios[:3], processor_missing=0.01)
    busy = [
        dataclasses.replace(record, seed=record.seed + 3, values={**record.values, "processor_missing": 0.4})
        for record in _paired("batch_size", (32, 64), ratios[3:])
    ]
    summary = run_of([*quiet, *busy])
    step_time = summary.effects[0].levels[1].step_time
    assert step_time is not None
    assert (step_time.n, step_time.can_tell) == (3, False)
    assert sorted(c.contended for c in summary.configurations) == [2, 2]
    assert "quiet machine" not in wording.recommendation(run_of(quiet))
    few = run_of([*quiet[:4], *busy]).effects[0].levels[1].step_time
    assert few is not None
    assert few.n == 4


def test_a_recommendation_on_contended_timings_says_so_and_how_to_get_a_better_one() -> None:
    summary = run_of(_paired("batch_size", (32, 64), [1.0] * 8, processor_missing=0.3))
    text = wording.recommendation(summary)
    assert "16 of 16 timings" in text
    assert "quiet machine" in text
    assert any("bench doctor" in line for line in wording.what_would_make_it_surer(summary))


def test_a_stall_in_one_step_is_no_slower_step() -> None:
    records = _paired("batch_size", (32, 64), [5.0] * 4, step_time_median_s=0.01)
    step_time = run_of(records).effects[0].levels[1].step_time
    assert step_time is not None
    assert step_time.value == pytest.approx(1.0)
