"""The self-test on pairs whose noise is known."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from fusetune.bench.gate import (
    Measured,
    Metric,
    Pair,
    Rules,
    SelfTest,
    show_self_test,
    study_self_test,
)
from fusetune.bench.terminal import SafeConsole
from fusetune.errors import InvalidValueError


def pairs_of(
    count: int, noise: float, *, seconds: float = 10.0, drift: float = 0.0, better: str = "lower"
) -> list[Pair]:
    """Pairs of one program with itself, whose processes scatter. With drift, head is slower for no reason."""
    rng = np.random.default_rng(0)

    def side() -> Measured:
        values = np.exp(noise * rng.standard_normal() + 0.001 * rng.standard_normal(8))
        unit = "samples/s" if better == "higher" else "s"
        metric = Metric(tuple(1 / values if better == "higher" else values), unit, better)  # type: ignore[arg-type]
        return Measured(
            {"speed": metric, "peak_bytes": Metric((64.0,), "bytes", comparison="exact")}, seconds=seconds
        )

    return [Pair("digits", i, base=side(), head=side()) for i in range(count)]


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_a_quiet_machine_finds_little_and_raises_no_alarm(better: str) -> None:
    (row,) = study_self_test(pairs_of(20, 0.005, better=better), Rules(), budget_s=600.0, relabellings=40)
    assert row.metric == "speed"
    assert row.noise == pytest.approx(0.005, rel=0.5)
    assert row.alarms == 0
    assert row.affordable == 20  # 30 pairs of 20 s fit, of which the last look takes 20
    assert row.detectable is not None
    assert 0.02 < row.detectable < 0.03
    assert row.reached == {"regressed": True, "improved": True, "missing": True, "pass": True}


def test_a_noisy_machine_says_so() -> None:
    (row,) = study_self_test(pairs_of(12, 0.2), Rules(), budget_s=200.0, relabellings=40)
    assert row.affordable == 10
    assert row.detectable is not None
    assert row.detectable > 0.2
    assert not row.reached["pass"]
    assert row.reached["regressed"]
    assert row.alarm_rate <= 0.05


def test_a_budget_for_four_pairs_finds_nothing() -> None:
    (row,) = study_self_test(pairs_of(6, 0.01), Rules(), budget_s=80.0, relabellings=5)
    assert row.affordable == 4
    assert row.detectable is None


def test_a_single_pair_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="one pair"):
        study_self_test(pairs_of(1, 0.01), Rules(), budget_s=None)


def test_the_report_fits_and_says_what_is_found() -> None:
    rows = study_self_test(pairs_of(12, 0.02), Rules(), budget_s=600.0, relabellings=20)
    console = SafeConsole(width=100, record=True, file=io.StringIO())
    show_self_test(SelfTest(rows, 600.0), console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 100
    assert f"{rows[0].alarms} of 20" in text
    assert rows[0].detectable is not None
    assert f"{100 * rows[0].detectable:.1f} %" in text
    assert "slower ✓, faster ✓, lost ✓" in text


def test_the_report_says_when_a_budget_is_too_small() -> None:
    rows = study_self_test(pairs_of(6, 0.01), Rules(), budget_s=80.0, relabellings=5)
    console = SafeConsole(width=100, record=True, file=io.StringIO())
    show_self_test(SelfTest(rows, 80.0), console)
    assert "5 pairs take 1m40s" in console.export_text()


@pytest.mark.parametrize(("affordable", "spent"), [(6, 0.0055), (10, 0.007)])
def test_the_slowdown_of_a_short_budget_is_that_of_the_looks_it_affords(
    affordable: int, spent: float
) -> None:
    """Nine of ten comparisons find it with what the looks spend by then. A level of 0.01 would promise less."""
    pairs = pairs_of(20, 0.05)
    (row,) = study_self_test(pairs, Rules(), budget_s=20.0 * affordable, relabellings=1)
    assert row.affordable == affordable
    assert row.detectable is not None
    sides = [pair.base for pair in pairs], [pair.head for pair in pairs]
    logs = np.log([[np.median(each.metrics["speed"].values) for each in side] for side in sides])
    residuals = math.sqrt(20 / 19) * (logs - np.median(logs, axis=1, keepdims=True))
    base, head = np.random.default_rng(1).choice(residuals.ravel(), size=(2, 1000, affordable))
    slower = head + math.log1p(row.detectable)
    p = mannwhitneyu(slower, base, alternative="greater", method="exact", axis=1).pvalue
    assert np.mean(p <= spent) > 0.905
