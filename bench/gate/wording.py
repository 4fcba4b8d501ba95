"""How a row and a result are said. All outputs of the gate share these words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from fusetune.bench.gate.result import GateResult, Row, Side
from fusetune.bench.gate.verdict import Outcome
from fusetune.bench.units import METRICS, format_seconds, format_value

# A sign and a word each, so that no colour is needed.
SIGNS: dict[Outcome, str] = {
    "regressed": "✗",
    "missing": "✗",
    "can't tell": "?",
    "improved": "✓",
    "pass": "✓",
}
WORDS: dict[Outcome, str] = {
    "regressed": "REGRESSED",
    "missing": "MISSING",
    "can't tell": "CAN'T TELL",
    "improved": "IMPROVED",
    "pass": "PASS",
}
WORST_FIRST: tuple[Outcome, ...] = ("regressed", "missing", "can't tell", "improved", "pass")


def verdict_text(outcome: Outcome) -> str:
    """Write an outcome with its sign.

    Example:
        >>> verdict_text("can't tell")
        "? CAN'T TELL"
    """
    return f"{SIGNS[outcome]} {WORDS[outcome]}"


def worst_first(rows: Sequence[Row]) -> list[Row]:
    """Order rows by outcome, the regressed ones first. Equal ones stay in their order."""
    return sorted(rows, key=lambda row: WORST_FIRST.index(row.outcome))


def metric_title(metric: str) -> str:
    """Name a metric as a person would. One that is not this project's stays as it is.

    Example:
        >>> metric_title("peak_bytes"), metric_title("my_score"), metric_title("failure")
        ('peak memory', 'my_score', 'correctness')
    """
    if metric == "failure":
        return "correctness"
    return METRICS[metric].title if metric in METRICS else metric


def value_text(value: float | None, unit: str) -> str:
    """Write a typical value. `-` where there is none, `missed` for a target that was missed.

    Example:
        >>> value_text(0.0123, "s"), value_text(math.inf, "count"), value_text(None, "s")
        ('12.3 ms', 'missed', '-')
    """
    if value is None:
        return "-"
    return "missed" if math.isinf(value) else format_value(value, unit)


def percent_text(change: float, *, signed: bool = True) -> str:
    """Write a relative change in per cent, with more digits where it is small.

    Example:
        >>> percent_text(0.1234), percent_text(-0.00004), percent_text(0.02, signed=False), percent_text(12.3)
        ('+12.3 %', '-0.0040 %', '2 %', '+1230 %')
    """
    percent = 100 * change
    size = abs(percent)
    sign = "+" if signed and percent > 0 else "-" if percent < 0 else ""
    digits = 1 if size >= 0.05 or size == 0 else 1 - math.floor(math.log10(size))
    text = f"{size:.0f}" if size >= 99.95 else f"{size:.{digits}f}"
    return f"{sign}{text if signed or '.' not in text else text.rstrip('0').rstrip('.')} %"


def side_text(side: Side) -> str:
    """Name a side with its commit and what is special about it.

    Example:
        >>> side_text(Side("main", "0123456789abcdef", dirty=True))
        'main (0123456789ab, uncommitted changes)'
    """
    commit = side.commit[:12] if side.commit and not side.commit.startswith(side.name) else ""
    special = [commit, "uncommitted changes" if side.dirty else ""]
    special.append("own environment" if side.environment == "own" else "")
    inside = ", ".join(filter(None, special))
    return f"{side.name} ({inside})" if inside else side.name


def counts_text(rows: Iterable[Row]) -> str:
    """Say how many rows have each verdict, the worst first."""
    counts = Counter(row.outcome for row in rows)
    return ", ".join(f"{counts[outcome]} {WORDS[outcome]}" for outcome in WORST_FIRST if counts[outcome])


def pairs_text(result: GateResult) -> str:
    """Say how many pairs were made, and in which time. Empty without pairs."""
    if not result.pairs:
        return ""
    numbers = sorted(set(result.pairs.values()))
    shown = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    taken = f", {format_seconds(result.seconds)}" if result.seconds else ""
    budget = f" of {format_seconds(result.budget_s)}" if result.budget_s and taken else ""
    each = f" each of {len(result.pairs)} benchmarks" if len(result.pairs) > 1 else ""
    return f"{shown}{each}{taken}{budget}"


def typical_text(row: Row, value: float | None) -> str:
    """Write the typical value of one side of a row.

    Example:
        >>> typical_text(Row("b", "failure", "exact", "regressed", ""), 2.0)
        '2 failed'
    """
    if row.metric == "failure" and value is not None:
        return f"{value:.0f} failed"
    return value_text(value, row.unit)


def change_text(row: Row) -> str:
    """Write a row's change, with `~` before it where the data cannot tell it from none.

    Example:
        >>> change_text(Row("b", "step_time_s", "timing", "pass", "", effect=0.003, low=-0.01, high=0.012))
        '~+0.3 %'
        >>> change_text(Row("b", "peak_bytes", "exact", "regressed", "", effect=0.1))
        '+10.0 %'
    """
    if row.effect is None:
        return {"regressed": "worse", "improved": "better"}.get(row.outcome, "-")
    if row.effect == 0:
        return "none"
    return f"{'~' if is_uncertain(row) else ''}{percent_text(row.effect)}"


def is_uncertain(row: Row) -> bool:
    """Whether a row's change cannot be told from none."""
    if row.comparison == "exact" and row.p is None:
        return False
    if row.outcome in ("regressed", "improved"):
        return False
    return row.low is None or row.high is None or row.low <= 0 <= row.high


def interval_text(row: Row) -> str:
    """Write the 95 % interval of a row's change. Empty where there is none.

    Example:
        >>> interval_text(Row("b", "step_time_s", "timing", "pass", "", low=-0.01, high=0.0123))
        '-1.0..+1.2 %'
    """
    if row.low is None or row.high is None:
        return ""
    return f"{percent_text(row.low).removesuffix(' %')}..{percent_text(row.high)}"


def p_text(p: float | None) -> str:
    """Write a p.

    Example:
        >>> p_text(0.00396), p_text(0.31), p_text(1e-9), p_text(None)
        ('0.004', '0.31', '<0.0001', '-')
    """
    if p is None:
        return "-"
    if p < 0.0001:
        return "<0.0001"
    return f"{p:.2f}" if p >= 0.1 else f"{p:.1g}" if p < 0.001 else f"{p:.3f}"


def counted(number: int, noun: str) -> str:
    """Write a number with its noun.

    Example:
        >>> counted(1, "pair"), counted(2, "pair")
        ('1 pair', '2 pairs')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def headline(result: GateResult) -> str:
    """Say in a sentence what a result came to.

    Example:
        >>> from fusetune.bench.gate.result import Side
        >>> slow = Row("digits", "step_time_s", "timing", "regressed", "", effect=0.123)
        >>> headline(GateResult("digits.yaml", Side("main"), Side("working tree"), (slow,)))
        'digits: step time 12.3 % slower in working tree than in main.'
    """
    base, head = result.base.name, result.head.name
    rows = worst_first(result.rows)
    if not rows:
        return f"Nothing could be compared between {base} and {head}."
    counts = Counter(row.outcome for row in rows)
    worst, outcome = rows[0], result.outcome
    of = f"of {counted(len(rows), 'comparison')}"
    if outcome in ("regressed", "missing"):
        others = counts["regressed"] + counts["missing"] - 1
        more = f", and {others} more {of} {'is' if others == 1 else 'are'} red" if others else ""
        return f"{_worst(worst, base, head)}{more}."
    if outcome == "can't tell":
        more = f" and {counts[outcome] - 1} more" if counts[outcome] > 1 else ""
        return f"{worst.benchmark}: {metric_title(worst.metric)}{more} not clear, and none {of} is red."
    if outcome == "improved":
        return f"{counts[outcome]} {of} got better, and none got worse."
    if len(rows) == 1:
        return f"{worst.benchmark}: {metric_title(worst.metric)} got no worse in {head} than in {base}."
    return f"None {of} got worse in {head} than in {base}."


def _worst(row: Row, base: str, head: str) -> str:
    """Say what got worst."""
    if row.metric == "failure":
        return f"{row.benchmark}: fails in {head} and not in {base}"
    name = f"{row.benchmark}: {metric_title(row.metric)}"
    if row.outcome == "missing":
        return f"{name} is gone in {head}"
    return f"{name} {_effect_text(row)} in {head} than in {base}"


def amount(change: float, unit: str) -> str:
    """Say a relative change with its direction.

    Example:
        >>> amount(0.123, "s"), amount(-0.1, "samples/s"), amount(0.5, "bytes"), amount(-0.02, "fraction")
        ('12.3 % slower', '10 % slower', '50 % more', '2 % lower')
    """
    words = {"s": ("slower", "faster"), "samples/s": ("faster", "slower"), "bytes": ("more", "less")}
    up, down = words.get(unit, ("higher", "lower"))
    return f"{percent_text(abs(change), signed=False)} {up if change > 0 else down}"


def sentence(row: Row, *, reason: str = "") -> str:
    """Say a row's verdict: effect, interval, p, n and the smallest change that would have been found.

    Args:
        row: with all but its sentence.
        reason: what holds a verdict back.

    Example:
        >>> print(sentence(Row("b", "step_time_s", "timing", "regressed", "", effect=0.123, low=0.1, high=0.15,
        ...                    p=0.0001, n=10, detectable=0.03)))
        Head is 12.3 % slower (95 % interval +10.0..+15.0 %, p = 0.0001, n = 10), and 3 % slower would have been found.
    """
    numbers = [f"95 % interval {interval_text(row)}" if interval_text(row) else ""]
    numbers += [f"p = {p_text(row.p)}".replace("= <", "< ") if row.p is not None else "", f"n = {row.n}"]
    evidence = f"({', '.join(filter(None, numbers))})"
    if row.outcome in ("regressed", "improved"):
        said = f"Head is {_effect_text(row)} {evidence}"
    elif row.outcome == "pass":
        threshold = percent_text(row.threshold, signed=False)
        said = f"No change for the worse above {threshold}: {change_text(row)} {evidence}"
    else:
        said = f"Not clear: {change_text(row)} {evidence}"
    found = "would have been found"
    if row.outcome == "can't tell":
        found = "is the smallest change that it could have seen"
    seen = ""
    if row.detectable is not None:
        seen = f", and {amount(_for_the_worse(row, row.detectable), row.unit)} {found}"
    return f"{said}{seen}{': ' + reason if reason else ''}."


def _effect_text(row: Row) -> str:
    if row.effect is None:
        return "worse" if row.outcome == "regressed" else "better"
    return amount(row.effect, row.unit)


def _for_the_worse(row: Row, size: float) -> float:
    return -size if row.better == "higher" else size


def duration_text(seconds: float) -> str:
    """Write how long something takes, in minutes from 90 s on.

    Example:
        >>> duration_text(40), duration_text(600)
        ('40 s', '10 min')
    """
    return f"{math.ceil(seconds / 60)} min" if seconds >= 90 else f"{math.ceil(seconds)} s"
