"""Verdicts on hand-made pairs: each kind of metric, each outcome, failures, what is missing, and Holm's correction."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fusetune.bench.errors import InputError
from fusetune.bench.gate import (
    GateResult,
    Measured,
    Metric,
    Outcome,
    Pair,
    Row,
    Rule,
    Rules,
    Side,
    Verdict,
    decision,
    exit_code,
    judge,
    judging,
    notes_on,
)
from fusetune.bench.gate.judging import more_pairs

CLEAR = Verdict("pass", 0.001, -0.006, 0.008, 0.4, 0.03, 5, noise=0.01)


class Asked:
    """Stands in for `decide`: gives a verdict, and keeps what it was asked."""

    def __init__(self, verdict: Verdict | Callable[[int], Verdict] = CLEAR) -> None:
        self.verdict = verdict
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self,
        base: Sequence[Any],
        head: Sequence[Any],
        *,
        staged: bool = False,
        threshold: float = 0.02,
    ) -> Verdict:
        self.calls.append({"base": base, "head": head, "staged": staged, "threshold": threshold})
        return self.verdict if isinstance(self.verdict, Verdict) else self.verdict(len(self.calls) - 1)


def timing(*values: float, unit: str = "s", better: Any = "lower") -> Metric:
    return Metric(values, unit, better)


def exact(value: float, better: Any = "lower") -> Metric:
    return Metric((value,), "bytes", better, "exact")


def learning(value: float, unit: str = "count", better: Any = "lower") -> Metric:
    return Metric((value,), unit, better, "learning")


def pairs_of(base: Sequence[Any], head: Sequence[Any], benchmark: str = "digits", **both: Any) -> list[Pair]:
    """One pair for each index. A side is a mapping of metrics, or the sentence of its failure."""

    def side(content: Any) -> Measured:
        if isinstance(content, str):
            return Measured(failure=content, **both)
        return Measured(content, **both)

    return [Pair(benchmark, i, side(b), side(h)) for i, (b, h) in enumerate(zip(base, head, strict=True))]


def values(
    metric: str, make: Callable[[float], Metric], base: Sequence[float], head: Sequence[float], **both: Any
) -> list[Pair]:
    return pairs_of([{metric: make(v)} for v in base], [{metric: make(v)} for v in head], **both)


def only(rows: Sequence[Row]) -> Row:
    assert len(rows) == 1, rows
    return rows[0]


# Timings


def test_a_timing_goes_to_decide_with_its_rounds_and_its_reference() -> None:
    asked = Asked(Verdict("regressed", 0.12, 0.1, 0.14, 0.0001, 0.03, 10))
    pairs = pairs_of(
        [{"step_time_s": timing(0.010, 0.011)}, {"step_time_s": timing(0.012)}],
        [{"step_time_s": timing(0.020)}, {"step_time_s": timing(0.021, 0.022)}],
        ref=(0.0003,),
    )
    row = only(judge(reversed(pairs), Rules(), decide=asked, staged=True))
    assert asked.calls == [
        {
            "base": [{"wall": [0.010, 0.011], "ref": [0.0003]}, {"wall": [0.012], "ref": [0.0003]}],
            "head": [{"wall": [0.020], "ref": [0.0003]}, {"wall": [0.021, 0.022], "ref": [0.0003]}],
            "staged": True,
            "threshold": 0.02,
        }
    ]
    assert row.outcome == "regressed"
    assert (row.effect, row.low, row.high, row.p, row.n, row.detectable) == (
        0.12,
        0.1,
        0.14,
        0.0001,
        10,
        0.03,
    )
    assert row.base == pytest.approx((0.0105 + 0.012) / 2)
    assert row.head == pytest.approx((0.020 + 0.0215) / 2)
    assert row.sentence == (
        "Head is 12 % slower (95 % interval +10.0..+14.0 %, p = 0.0001, n = 10), and 3 % slower would have been found."
    )


def test_thresholds_of_the_rules_reach_decide() -> None:
    asked = Asked()
    judge(values("a_s", timing, [1.0], [1.0]), Rules({"a_s": Rule(0.1)}), decide=asked)
    assert asked.calls[0]["threshold"] == 0.1


def test_a_rate_is_compared_by_its_reciprocal_and_reported_as_a_rate() -> None:
    def rate(value: float) -> Metric:
        return Metric((value,), "samples/s", "higher")

    # 25 % more time is 20 % less of a rate; 60 % to 10 % more time is 37.5 % to 9.1 % less.
    asked = Asked(Verdict("regressed", 0.25, 0.1, 0.6, 0.001, 0.25, 10))
    row = only(judge(values("x_per_s", rate, [1000.0] * 5, [800.0] * 5), Rules(), decide=asked))
    assert asked.calls[0]["base"][0]["wall"] == [0.001]
    assert asked.calls[0]["head"][0]["wall"] == [0.00125]
    assert row.effect == pytest.approx(-0.2)
    assert (row.low, row.high) == (pytest.approx(-0.375), pytest.approx(-1 / 11))
    assert row.detectable == pytest.approx(0.2)
    assert "Head is 20 % slower" in row.sentence
    assert "20 % slower would have been found" in row.sentence
    assert (row.base, row.head) == (1000.0, 800.0)


def test_a_rate_that_the_rules_call_better_when_lower_is_no_reciprocal() -> None:
    asked = Asked()
    judge(
        values("x_per_s", timing, [4.0] * 5, [4.0] * 5),
        Rules({"x_per_s": Rule(better="lower")}),
        decide=asked,
    )
    assert asked.calls[0]["base"][0]["wall"] == [4.0]


def test_fewer_than_five_pairs_never_pass_and_are_told_how_many_more_it_takes() -> None:
    verdict = dataclasses.replace(CLEAR, runs_used=4, low=None, high=None, noise=0.01)
    row = only(
        judge(values("a_s", timing, [1.0] * 4, [1.0] * 4, seconds=15.0), Rules(), decide=Asked(verdict))
    )
    assert row.outcome == "can't tell"
    assert row.advice == "About 1 more pair (30 s) should make it clear."


def test_a_metric_of_which_neither_direction_is_better_is_never_judged() -> None:
    slower = Verdict("regressed", 0.5, 0.4, 0.6, 0.0001, 0.03, 10)
    rules = Rules({"a_s": Rule(better="neither")})
    assert (
        only(judge(values("a_s", timing, [1.0] * 5, [2.0] * 5), rules, decide=Asked(slower))).outcome
        == "pass"
    )
    rules = Rules({"peak_bytes": Rule(better="neither")})
    assert only(judge(values("peak_bytes", exact, [1.0] * 5, [2.0] * 5), rules)).outcome == "pass"


def test_an_infinite_interval_is_none() -> None:
    verdict = Verdict("can't tell", 0.1, -math.inf, math.inf, 0.2, None, 2)
    row = only(judge(values("a_s", timing, [1.0] * 2, [1.1] * 2), Rules(), decide=Asked(verdict)))
    assert (row.low, row.high) == (None, None)
    assert row.sentence == "Not clear: ~+10.0 % (p = 0.20, n = 2)."


@pytest.mark.parametrize(
    ("change", "threshold", "outcome"),
    [
        (1.05, 0.02, "regressed"),
        (1.05, 0.1, "pass"),
        (1.3, 0.1, "regressed"),
        (1 / 1.05, 0.02, "improved"),
        (1 / 1.05, 0.1, "pass"),
    ],
)
def test_a_change_that_lies_below_the_threshold_passes(
    change: float, threshold: float, outcome: Outcome
) -> None:
    base, head = np.exp(0.004 * np.random.default_rng(1).standard_normal((2, 10)))
    pairs = values("a_s", timing, base, change * head)
    row = only(judge(pairs, Rules({"a_s": Rule(threshold)})))
    assert (row.outcome, row.threshold) == (outcome, threshold)


# Exact metrics


@pytest.mark.parametrize(
    ("base", "head", "better", "threshold", "outcome"),
    [
        (1024, 1024, "lower", None, "pass"),
        (1024, 1025, "lower", None, "regressed"),
        (1024, 1023, "lower", None, "improved"),
        (4, 2, "higher", None, "regressed"),
        (2, 4, "higher", None, "improved"),
        (1000, 1010, "lower", 0.01, "pass"),
        (1000, 1011, "lower", 0.01, "regressed"),
        (0, 0, "lower", None, "pass"),
        (0, 3, "lower", None, "regressed"),
        (0, 3, "lower", 0.5, "regressed"),
        (3, 0, "lower", None, "improved"),
    ],
)
def test_exact_metrics_are_compared_without_statistics(
    base: float, head: float, better: Any, threshold: float | None, outcome: Outcome
) -> None:
    pairs = pairs_of([{"m_bytes": exact(base, better)}] * 2, [{"m_bytes": exact(head, better)}] * 2)
    row = only(judge(pairs, Rules({"m_bytes": Rule(threshold, better)})))
    assert (row.outcome, row.p, row.n, row.comparison) == (outcome, None, 2, "exact")
    assert row.effect == (None if not base and head else (head - base) / base if base else 0)


def test_an_exact_metric_that_differs_by_seed_and_not_by_side_passes() -> None:
    row = only(judge(values("peak_bytes", exact, [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), Rules()))
    assert (row.outcome, row.sentence) == ("pass", "Both sides have 2 B in every process (n = 3).")


def test_an_exact_metric_that_varies_within_a_side_is_decided_on_its_values() -> None:
    asked = Asked(Verdict("can't tell", 0.01, -0.02, 0.05, 0.3, 0.06, 3, noise=0.02))
    row = only(
        judge(
            values("peak_bytes", exact, [10.0, 11.0, 10.0], [10.0, 12.0, 11.0], ref=(1.0,)),
            Rules(),
            decide=asked,
        )
    )
    assert [run["wall"] for run in asked.calls[0]["base"]] == [[10.0], [11.0], [10.0]]
    assert asked.calls[0]["base"][0]["ref"] == []  # memory has nothing to do with the speed of a loop
    assert asked.calls[0]["threshold"] == row.threshold == 0.02
    assert (row.outcome, row.p) == ("can't tell", 0.3)


def test_counts_that_vary_and_are_0_are_ranked() -> None:
    zeros, some = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], [5.0, 6.0, 5.0, 7.0, 5.0, 6.0, 7.0]
    row = only(
        judge(values("spills", lambda v: Metric((v,), "count", "lower", "exact"), zeros, some), Rules())
    )
    assert row.outcome == "regressed"
    assert row.p == pytest.approx(1 / 2**7)


# Learning


def test_seeds_that_are_equal_on_both_sides_pass_without_statistics() -> None:
    row = only(judge(values("steps_to_target", learning, [300.0, math.inf], [300.0, math.inf]), Rules()))
    assert (row.outcome, row.p, row.n) == ("pass", None, 2)
    missed = only(judge(values("steps_to_target", learning, [math.inf] * 2, [math.inf] * 2), Rules()))
    assert (missed.outcome, missed.sentence) == (
        "pass",
        "Both sides missed the target on every seed (n = 2).",
    )


def test_missed_targets_are_never_dropped() -> None:
    base = [300.0, 310.0, 290.0, 305.0, 295.0]
    row = only(judge(values("steps_to_target", learning, base, [math.inf] * 5), Rules()))
    assert (row.outcome, row.head, row.effect) == ("regressed", math.inf, None)
    assert row.p == pytest.approx(1 / 252)
    assert row.sentence == (
        "Head is worse (p = 0.004, n = 5): the target was missed on 0 seeds of base and 5 of head."
    )
    better = only(judge(values("steps_to_target", learning, [math.inf] * 5, base), Rules()))
    assert better.outcome == "improved"
    few = only(judge(values("steps_to_target", learning, base[:4], [math.inf] * 4), Rules()))
    assert few.outcome == "can't tell"
    assert few.advice == "About 3 more pairs should make it clear."


def test_learning_is_judged_by_the_exact_paired_test() -> None:
    base = [300.0, 310.0, 290.0, 305.0, 295.0, 320.0, 310.0, 300.0]
    slower = [value * (1.2 + 0.01 * i) for i, value in enumerate(base)]
    row = only(judge(values("steps_to_target", learning, base, slower), Rules()))
    expected = stats.wilcoxon(slower, base, alternative="greater", method="exact").pvalue
    assert row.outcome == "regressed"
    assert row.p == pytest.approx(expected)
    assert row.effect == pytest.approx(0.235, abs=0.001)
    assert 0.2 <= row.low < row.effect < row.high <= 0.27
    assert only(judge(values("steps_to_target", learning, slower, base), Rules())).outcome == "improved"


def test_an_accuracy_that_falls_is_a_regression_and_a_loss_that_rises_too() -> None:
    noise = [0.001 * x for x in (0, 3, -2, 1, -1, 2, -3, 1)]
    high = [0.93 + x for x in noise]
    low = [0.90 + x / 2 for x in noise]

    def accuracy(value: float) -> Metric:
        return learning(value, "fraction", "higher")

    fallen = only(judge(values("final_val_accuracy", accuracy, high, low), Rules()))
    assert fallen.outcome == "regressed"
    assert fallen.effect == pytest.approx(-0.03 / 0.93, rel=0.05)
    assert fallen.low < fallen.effect < fallen.high < 0
    assert only(judge(values("final_val_accuracy", accuracy, low, high), Rules())).outcome == "improved"

    def loss(value: float) -> Metric:
        return learning(value, "nats", "lower")

    assert only(judge(values("final_val_loss", loss, low, high), Rules())).outcome == "regressed"


def test_learning_that_differs_by_less_than_the_threshold_passes_and_by_chance_is_unclear() -> None:
    base = [300.0 + 3 * i for i in range(10)]
    close = [value * (1.01 if i % 2 else 0.99) for i, value in enumerate(base)]
    assert only(judge(values("steps_to_target", learning, base, close), Rules())).outcome == "pass"
    wide = [value * (1.3 if i % 2 else 0.8) for i, value in enumerate(base)]
    row = only(judge(values("steps_to_target", learning, base, wide, seconds=30.0), Rules()))
    assert row.outcome == "can't tell"
    assert row.low < 0 < row.high
    assert row.detectable > 0.2
    assert row.advice


def test_a_staged_look_needs_a_smaller_p() -> None:
    base = [300.0, 310.0, 290.0, 305.0, 295.0, 320.0, 310.0]
    slower = [value * 1.2 for value in base]
    pairs = values("steps_to_target", learning, base, slower)
    assert only(judge(pairs, Rules())).outcome == "regressed"  # p = 1/128
    assert only(judge(pairs, Rules(), staged=True)).outcome == "can't tell"  # 0.0015 at the seventh pair
    five = values("steps_to_target", learning, [300.0] * 5, [400.0] * 5)
    assert (
        only(judge(five, Rules(), staged=True)).outcome == "regressed"
    )  # p = 1/252, 0.004 at the fifth pair


def test_what_decide_calls_hopeless_is_not_advised_to_take_more_pairs() -> None:
    verdict = Verdict("can't tell", 0.01, -0.3, 0.4, 0.3, 0.5, 5, reason="more pairs would not help")
    row = only(judge(values("a_s", timing, [1.0] * 5, [1.0] * 5), Rules(), decide=Asked(verdict)))
    assert row.sentence.endswith("is the smallest change that it could have seen: more pairs would not help.")
    assert row.advice == "Use a longer benchmark or a quieter machine."


def test_the_advice_aims_at_what_decide_excludes() -> None:
    assert judging._TOLERATED_THRESHOLDS == decision._EXCLUDED_THRESHOLDS


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "pass"), (1.2, "regressed"), (1 / 1.2, "improved")])
def test_with_the_real_decision_planted_changes_are_found(factor: float, outcome: Outcome) -> None:
    rng = np.random.default_rng(0)
    base, head = np.exp(0.005 * rng.standard_normal((2, 10)))
    rates = values("x_per_s", lambda v: Metric((v,), "samples/s", "higher"), 1 / base, 1 / (factor * head))
    times = values("x_s", timing, base, factor * head)
    for pairs in (times, rates):
        row = only(judge(pairs, Rules()))
        assert row.outcome == outcome
        # The interval is one of 95 %: that it holds the truth is the rule, and so for these draws.
        true = factor - 1 if pairs is times else 1 / factor - 1
        assert row.low < true < row.high


def test_time_to_target_is_a_timing_where_every_seed_took_equal_steps() -> None:
    def side(steps: float, seconds: float) -> dict[str, Metric]:
        return {"time_to_target_s": learning(seconds, "s"), "steps_to_target": learning(steps)}

    asked = Asked()
    pairs = pairs_of([side(100, 1.0), side(200, 2.0)], [side(100, 1.5), side(200, 3.0)], ref=(0.0003,))
    rows = judge(pairs, Rules(), decide=asked)
    assert asked.calls[0]["base"] == [{"wall": [0.01], "ref": [0.0003]}] * 2
    assert asked.calls[0]["head"] == [{"wall": [0.015], "ref": [0.0003]}] * 2
    assert asked.calls[0]["threshold"] == 0.02
    assert [row.outcome for row in rows] == ["can't tell" if CLEAR.runs_used < 5 else "pass", "pass"]
    asked = Asked()
    judge(pairs_of([side(100, 1.0)], [side(110, 1.1)]), Rules(), decide=asked)
    assert not asked.calls


# Failures and what is missing


@pytest.mark.parametrize(
    ("base", "head", "outcome", "sentence"),
    [
        ("", "", None, ""),
        ("", "NaN", "regressed", "Head failed and base did not in 1 of 6 pairs: NaN."),
        ("NaN", "", "improved", "Base failed and head did not in 1 of 6 pairs: NaN."),
        ("NaN", "NaN", "pass", "Both sides failed alike in 1 of 6 pairs: NaN."),
    ],
)
def test_failures_are_judged_whatever_the_speed(
    base: str, head: str, outcome: Outcome | None, sentence: str
) -> None:
    fast, slow = {"a_s": timing(0.5)}, {"a_s": timing(1.0)}
    faster = Verdict("improved", -0.5, -0.51, -0.49, 0.0001, 0.03, 5)
    rows = judge(
        pairs_of([slow] * 5 + [base or slow], [fast] * 5 + [head or fast]), Rules(), decide=Asked(faster)
    )
    assert rows[-1].outcome == "improved"
    if outcome is None:
        assert len(rows) == 1
    else:
        assert (rows[0].metric, rows[0].outcome, rows[0].sentence) == ("failure", outcome, sentence)


def test_what_failed_everywhere_is_not_green() -> None:
    rows = judge(pairs_of(["out of memory"] * 3, ["out of memory"] * 3), Rules())
    assert [(row.outcome, row.sentence) for row in rows] == [
        ("can't tell", "Both sides failed in all of 3 pairs: out of memory.")
    ]
    rows = judge(pairs_of([{"a_s": timing(1.0)}] * 3, ["out of memory!"] * 3), Rules(), decide=Asked())
    assert [(row.metric, row.outcome) for row in rows] == [("failure", "regressed"), ("a_s", "regressed")]
    assert rows[0].sentence == "Head failed and base did not in 3 of 3 pairs: out of memory!"


def test_pairs_with_a_failure_are_left_out_of_the_timing() -> None:
    one = {"a_s": timing(1.0)}
    asked = Asked()
    judge(pairs_of([one, one, "NaN"], [one, "NaN", one]), Rules(), decide=asked)
    assert len(asked.calls[0]["base"]) == len(asked.calls[0]["head"]) == 1


def test_a_metric_that_head_lacks_is_missing() -> None:
    both, one = {"a_s": timing(1.0), "b_s": timing(1.0)}, {"a_s": timing(1.0)}
    rows = judge(pairs_of([both] * 5, [one] * 5), Rules(), decide=Asked())
    assert [(row.metric, row.outcome) for row in rows] == [("a_s", "pass"), ("b_s", "missing")]
    assert rows[1].sentence == "Base has it and head does not."
    assert (rows[1].base, rows[1].head) == (1.0, None)
    partly = judge(pairs_of([both] * 5, [both] * 3 + [one] * 2), Rules(), decide=Asked())
    assert (partly[1].outcome, partly[1].sentence) == (
        "missing",
        "Base has it and head does not in 2 of 5 pairs.",
    )


def test_a_benchmark_that_head_lacks_is_missing_and_one_that_it_alone_has_is_a_note() -> None:
    here = {"a_s": timing(1.0)}
    pairs = [*pairs_of([here] * 5, [{}] * 5, "old"), *pairs_of([{}] * 5, [here] * 5, "new")]
    rows = judge(pairs, Rules(), decide=Asked())
    assert [(row.benchmark, row.outcome, row.sentence) for row in rows] == [
        ("old", "missing", "Base has the benchmark and head does not.")
    ]
    assert notes_on(pairs, rows) == ("Head alone has the benchmark new.",)


def test_a_metric_that_head_alone_has_is_a_note() -> None:
    pairs = pairs_of([{"a_s": timing(1.0)}] * 5, [{"a_s": timing(1.0), "b_s": timing(1.0)}] * 5)
    rows = judge(pairs, Rules(), decide=Asked())
    assert [row.metric for row in rows] == ["a_s"]
    assert notes_on(pairs, rows) == ("Head alone has b_s of digits.",)


def test_notes_tell_failures_missed_targets_and_contention() -> None:
    missed = {"steps_to_target": learning(math.inf)}
    pairs = [
        *pairs_of([missed] * 2 + ["NaN", "NaN"], [missed] * 2 + ["NaN", missed]),
        *pairs_of([{}], [{}], "busy", contention=0.4),
    ]
    assert notes_on(pairs, judge(pairs, Rules())) == (
        "digits failed on both sides in 1 of 4 pairs: NaN",
        "digits failed on base alone in 1 of 4 pairs: NaN",
        "digits reached its target on neither side with any seed, so nothing is known of steps to target.",
        "1 of 5 pairs ran while others had more than 10 % of the processor.",
    )


def test_a_note_explains_a_change_that_the_typical_values_do_not_show() -> None:
    for head, number in ((1.0, 0), (1.3, 1)):
        pairs = values("a_s", timing, [1.0] * 5, [head] * 5)
        notes = notes_on(pairs, judge(pairs, Rules(), decide=Asked(CLEAR)))
        assert sum("So it is not head over base." in note for note in notes) == number


def test_names_of_the_rules_that_were_not_measured_are_errors() -> None:
    with pytest.raises(InputError, match="unknown 'b_s'; known: a_s"):
        judge(values("a_s", timing, [1.0], [1.0]), Rules({"b_s": Rule(0.1)}), decide=Asked())


# Many rows


def suite(ps: Sequence[float], outcomes: Sequence[Any], effects: Sequence[float]) -> tuple[Row, ...]:
    names = [f"m{i}_s" for i in range(len(ps))]
    one = {name: timing(1.0) for name in names}
    asked = Asked(
        lambda i: Verdict(outcomes[i], effects[i], effects[i] - 0.02, effects[i] + 0.02, ps[i], 0.03, 10)
    )
    return judge(pairs_of([one] * 10, [one] * 10), Rules(), decide=asked)


def test_holms_correction_holds_from_twelve_rows_on() -> None:
    # Holm at 0.05 over 12: the smallest p is compared with 0.05 / 12 = 0.00417, the next with 0.05 / 11 = 0.00455.
    for ps, expected in (
        ([0.0041, 0.0045], ["regressed", "regressed"]),
        ([0.0041, 0.0046], ["regressed", "can't tell"]),
        ([0.0042, 0.0043], ["can't tell", "can't tell"]),
    ):
        rows = suite([*ps, *[0.3] * 10], ["regressed"] * 2 + ["pass"] * 10, [0.1] * 12)
        assert [row.outcome for row in rows[:2]] == expected
        rows = suite([*ps, *[0.3] * 9], ["regressed"] * 2 + ["pass"] * 9, [0.1] * 11)
        assert [row.outcome for row in rows[:2]] == ["regressed", "regressed"]


def test_each_direction_is_corrected_for_itself() -> None:
    """Eleven rows that got better do not make a slowdown surer: it is still one of twelve."""
    ps = [0.0042, *[0.0001] * 11]
    rows = suite(ps, ["regressed", *["improved"] * 11], [0.1, *[-0.1] * 11])
    assert [row.outcome for row in rows] == ["can't tell", *["improved"] * 11]
    assert "over 12 rows, Holm's correction makes p = 0.05 of it" in rows[0].sentence


def test_the_note_on_holm_counts_rows_with_a_p_alone() -> None:
    rows = suite([0.3] * 12, ["pass"] * 12, [0.0] * 12)
    assert notes_on([], rows) == ("Holm's correction at 0.05 holds over the 12 rows with a p.",)
    assert notes_on([], rows[1:]) == ()


# Advice and exit codes


def test_the_pairs_that_are_needed_make_the_interval_as_narrow_as_it_must_be() -> None:
    """The advice holds for Student's interval of as many normal pairs: half of it is about the gap."""
    rng = np.random.default_rng(0)
    for noise, threshold, effect, n in ((0.05, 0.02, 0.0, 10), (0.03, 0.02, 0.01, 5), (0.1, 0.05, 0.08, 8)):
        row = Row("b", "a_s", "timing", "can't tell", "", effect=effect, threshold=threshold, n=n)
        total = n + more_pairs(row, noise)
        draws = noise * rng.standard_normal((2, 4000, total))
        spread = (draws[1] - draws[0]).std(axis=1, ddof=1)
        half = np.median(stats.t.ppf(0.975, total - 1) * spread / math.sqrt(total))
        strictness = stats.norm.ppf(0.975) / stats.norm.ppf(0.99)
        gap = effect * strictness if effect > threshold else 2.5 * threshold - effect
        assert total > n
        assert 0.85 * gap < half < 1.15 * gap


def test_the_interval_that_was_seen_goes_before_the_noise() -> None:
    row = Row("b", "a_s", "timing", "can't tell", "", effect=0.0, low=-0.1, high=0.1, threshold=0.02, n=10)
    assert more_pairs(row, noise=123.0) == 30  # twice as wide as it must be: four times the pairs
    assert more_pairs(dataclasses.replace(row, low=None, high=None)) is None


def test_advice_names_minutes_and_a_quieter_machine_where_it_was_busy() -> None:
    unclear = Verdict("can't tell", 0.01, -0.09, 0.11, 0.3, 0.1, 10, noise=0.08)

    def advice(verdict: Verdict, **both: Any) -> str:
        return only(
            judge(values("a_s", timing, [1.0] * 10, [1.0] * 10, **both), Rules(), decide=Asked(verdict))
        ).advice

    assert advice(unclear, seconds=6.0) == "About 53 more pairs (11 min) should make it clear."
    assert advice(unclear, seconds=6.0, contention=0.3).endswith(
        "clear, or a quieter machine, because these timings are contended."
    )
    hopeless = dataclasses.replace(unclear, low=-0.4, high=0.5)
    assert advice(hopeless) == (
        "About 1256 more pairs would be needed. Use a longer benchmark or a quieter machine."
    )


def test_a_gate_is_not_advised_to_make_more_pairs_than_it_makes() -> None:
    unclear = Verdict("can't tell", 0.0, -0.06, 0.06, 0.3, 0.1, 15, noise=0.08)
    pairs = values("a_s", timing, [1.0] * 15, [1.0] * 15)
    row = only(judge(pairs, Rules(), decide=Asked(unclear), staged=True))
    assert row.advice == (
        "About 7 more pairs would be needed, and a gate makes 20 at most. "
        "Use a longer benchmark or a quieter machine."
    )
    assert only(judge(pairs, Rules(), decide=Asked(unclear))).advice == (
        "About 7 more pairs should make it clear."
    )


@pytest.mark.parametrize(
    ("outcomes", "code", "strict"),
    [
        (["pass"], 0, 0),
        (["pass", "improved"], 0, 0),
        (["can't tell", "pass"], 0, 3),
        (["can't tell", "missing"], 1, 1),
        (["regressed", "can't tell", "improved"], 1, 1),
        ([], 1, 1),
    ],
)
def test_exit_codes(outcomes: list[Outcome], code: int, strict: int) -> None:
    rows = tuple(Row("b", f"m{i}", "timing", outcome, "") for i, outcome in enumerate(outcomes))
    result = GateResult("t", Side("main"), Side("working tree"), rows)
    assert (exit_code(result), exit_code(result, strict=True)) == (code, strict)
