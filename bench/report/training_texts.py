"""Figures, marks and notes of a report on trainings, as texts. The terminal's report and the page share them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fusetune.bench.stats import (
    STATUS_WORDS,
    Configuration,
    Estimate,
    Gain,
    Scaling,
    Spread,
    Summary,
    percent,
    undecided,
)
from fusetune.bench.units import METRICS, format_metric
from fusetune.tuner.measure import CONTENDED

_POINTS = " pp"


def ranking_notes(summary: Summary) -> list[str]:
    """Explain the marks that occur in the ranking."""
    configurations = summary.configurations
    notes = []
    if any(configuration.n > 1 for configuration in configurations):
        notes.append("Medians over seeds with min..max.")
    if summary.target and any(0 < (c.reached or 0) < c.n for c in configurations):
        notes.append("A seed that missed the target counts as ∞.")
    if undecided(summary):
        notes.append("~ before a rank: exact rank tests over all pairs cannot tell it from the first place.")
    if any(configuration.is_baseline for configuration in configurations):
        notes.append("* the `train` configuration.")
    notes += _spread_of_steps(configurations[0])
    if any(configuration.contended for configuration in configurations):
        notes.append(f"! contended: others had more than {percent(CONTENDED)} of the processor in a trial.")
    return notes


def _spread_of_steps(first: Configuration) -> list[str]:
    """Write the quartiles of the first place's steps. A stall moves their mean, the step time, but no quartile."""
    quartiles = [first.metrics.get(f"step_time_{name}_s") for name in ("median", "q1", "q3")]
    if None in quartiles:
        return []
    median, low, high = (format_metric("step_time_s", spread.median) for spread in quartiles if spread)
    return [f"Steps of the first place: median {median}, half of them {low}..{high}."]


def rank_text(configuration: Configuration, tied: Collection[int], digits: int = 1) -> str:
    """Write a rank with its marks, right-aligned to a number of digits.

    Args:
        configuration: any.
        tied: ranks that cannot be told from the first place.
        digits: of the largest rank.
    """
    tie = "~" if configuration.rank in tied else " "
    return f"{tie}{configuration.rank:>{digits}}{'*' if configuration.is_baseline else ''}"


def extent(metric: str, spread: Spread | None) -> str:
    """Write min..max, with one unit if both share it."""
    if spread is None or spread.n < 2:
        return ""
    low, high = (format_metric(metric, value) for value in (spread.low, spread.high))
    number, _, unit = low.partition(" ")
    return f"{number}..{high}" if unit and high.endswith(f" {unit}") else f"{low}..{high}"


def interval_text(metric: str | None, estimate: Estimate) -> str:
    """Write an interval of ratios, or of differences of a metric."""
    if estimate.low is None or estimate.high is None:
        return ""
    if metric is None:
        return f"{estimate.low:.2f}..{estimate.high:.2f}"
    return f"{_signed(metric, estimate.low).removesuffix(_POINTS)}..{_signed(metric, estimate.high)}"


def difference_text(metric: str, estimate: Estimate) -> str:
    """Write a difference of a metric, marked if the data cannot distinguish it from 0."""
    return f"{'' if estimate.can_tell else '~'}{_signed(metric, estimate.value)}"


def _signed(metric: str, value: float) -> str:
    """Write a difference with its sign, of fractions in percentage points."""
    return f"{100 * value:+.2f}{_POINTS}" if METRICS[metric].unit == "fraction" else f"{value:+.3g}"


def outcome_words(configuration: Configuration) -> list[str]:
    """Name every status of a configuration's trials but `ok`, with its count where they differ."""
    mixed = len(configuration.statuses) > 1
    return [
        f"{count} {STATUS_WORDS[status]}" if mixed else STATUS_WORDS[status]
        for status, count in configuration.statuses.items()
        if status != "ok"
    ]


def gain_notes(gain: Gain) -> list[str]:
    """Explain the figures of a gain over `train`."""
    estimates = [e for e in (gain.time, gain.steps, gain.step_time, gain.score) if e]
    notes = _estimate_notes(estimates)
    if gain.same_work and gain.step_time:
        notes.append("The two take the same steps, so a difference of step times is the machine's.")
    if estimates:
        notes.append("The first place was picked from these trials, so its figures are slightly too good.")
    return notes


def effects_notes(summary: Summary) -> list[str]:
    """Explain the figures of the main effects."""
    levels = [level for effect in summary.effects for level in effect.levels]
    estimates = [e for level in levels for e in (level.time, level.steps, level.step_time, level.score) if e]
    notes = ["Against the first value of each factor, all else and the seed equal; above 1 is better."]
    if summary.target:
        notes.append("Pairs: both reached the target / all. Faster steps: all pairs, by their median steps.")
    if any(level.pairs == 0 for effect in summary.effects for level in effect.levels[1:]):
        notes.append("Without pairs nothing can be said.")
    return [*notes, *_estimate_notes(estimates)]


SCALING_HEADINGS = ("devices", "samples/s", "efficiency", "communication", "overlapped")


def scaling_cells(row: Scaling) -> tuple[str, ...]:
    """Write what several devices came to, a cell for each of `SCALING_HEADINGS`."""
    shares = (row.efficiency, row.communication_share, row.overlap)
    mark = "!" if row.contended else ""
    return (
        str(row.devices),
        f"{format_metric('samples_per_s', row.samples_per_s)}{mark}",
        *("-" if share is None else percent(share) for share in shares),
    )


def scaling_notes(summary: Summary) -> list[str]:
    """Explain the columns of `SCALING_HEADINGS`."""
    notes = ["Efficiency: throughput on N devices / (N x throughput on one)."]
    if any(row.efficiency is None for row in summary.scaling):
        notes.append("It needs trials with devices: 1.")
    if any(row.contended for row in summary.scaling):
        notes.append("! contended: a timing of it, or of one device.")
    if any(row.communication_share is not None for row in summary.scaling):
        notes.append(
            "Communication: share of a step in which gradients are exchanged or waited for. Overlapped: share of it in "
            "which the backward pass computes meanwhile."
        )
    return notes


def _estimate_notes(estimates: Sequence[Estimate]) -> list[str]:
    """Explain the intervals and marks that occur."""
    notes = []
    if any(estimate.low is not None for estimate in estimates):
        notes.append("95 % intervals from Student's t, each on its own.")
    if any(not estimate.can_tell for estimate in estimates):
        notes.append("~ before a number: it cannot be told from no effect.")
    return notes
