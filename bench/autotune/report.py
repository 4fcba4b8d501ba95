"""The report of `bench autotune`: what became of each config, as a table, and the landscape as a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from fusetune.bench.autotune.character_plots import landscape_plot
from fusetune.bench.autotune.run import config_text
from fusetune.bench.autotune.tuning import Candidate, Tuning
from fusetune.bench.results import Pictures, picture_text
from fusetune.bench.units import format_seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

_BLUE, _ORANGE, _GREY = "#0072B2", "#E69F00", "#999999"
_MOST_ROWS = 24
_BAR = 20


def show_tuning(tuning: Tuning, console: Console) -> None:
    """Print one case: a table of its configs, the fastest first, and what it came to."""
    from rich.table import Table

    console.print(f"\n{tuning.case.name}", style="bold", markup=False, highlight=False)
    if tuning.status != "ok":
        console.print(f"  {tuning.status}: {tuning.reason}", markup=False, highlight=False)
        return
    rows = sorted(tuning.candidates, key=lambda c: (not c.samples_s, c.latency_s or 0.0))
    best = min((c.latency_s for c in rows if c.latency_s is not None), default=None)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, justify in (("config", "left"), ("latency", "right"), ("rounds", "right")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("", no_wrap=True)
    table.add_column("outcome", overflow="fold")
    for candidate in rows[:_MOST_ROWS]:
        latency_s = candidate.latency_s
        table.add_row(
            config_text(varying(candidate.config, tuning)),
            "-" if latency_s is None else format_seconds(latency_s),
            str(len(candidate.samples_s) or "-"),
            "" if latency_s is None or best is None else "#" * max(1, round(_BAR * best / latency_s)),
            outcome_text(candidate, tuning),
        )
    console.print(table, highlight=False)
    if len(rows) > _MOST_ROWS:
        console.print(f"  and {len(rows) - _MOST_ROWS} more, in the record", highlight=False)
    if plot := landscape_plot(tuning):
        console.print()
        console.print(plot, highlight=False)
        console.print()
    for line in summary_lines(tuning):
        console.print(f"  {line}", markup=False, highlight=False)


def summary_lines(tuning: Tuning) -> list[str]:
    """Return the sentences below the table."""
    return [
        counts_text(tuning),
        verdict_text(tuning),
        *tuning.notes,
        cost_text(tuning),
        *(f"entry: {path}" for path in tuning.entries),
    ]


def counts_text(tuning: Tuning) -> str:
    """Say how many configs had each outcome."""
    counts = ", ".join(f"{number} {outcome}" for outcome, number in tuning.counts().items())
    return f"{len(tuning.candidates)} configs: {counts}."


def verdict_text(tuning: Tuning) -> str:
    """Say whether the default stays, and by what evidence.

    Args:
        tuning: with the status `ok`.
    """
    found = tuning.confirmation
    if found is None or not found.defaults_s:
        if tuning.is_replaced:
            return f"{config_text(tuning.winner)}: the default failed in its fresh rounds."
        timed = sum(bool(each.samples_s) for each in tuning.candidates)
        return f"The default stays: {'nothing was faster' if timed else 'nothing was timed'}."
    interval = "" if math.isnan(found.low) else f" [{found.low:.3f}, {found.high:.3f}]"
    rounds = f"over {len(found.defaults_s)} fresh rounds"
    if tuning.is_replaced:
        gain = f"{found.gain:.3f} times as fast as the default{interval}"
        return f"{config_text(tuning.winner)}: {gain}, {rounds}."
    return f"The default stays. The fastest is {found.gain:.3f} times as fast{interval} ~, {rounds}."


def cost_text(tuning: Tuning) -> str:
    """Say what a search took of its budget."""
    over = tuning.seconds - tuning.budget_s
    spent = f"{format_seconds(tuning.seconds)} of {format_seconds(tuning.budget_s)}, {tuning.timings} timings"
    return spent + (f", {format_seconds(over)} over the budget." if over > 0 else ".")


def draw_tuning(tuning: Tuning, pictures: Pictures) -> None:
    """Draw the landscape of one case, where anything was timed."""
    if any(candidate.samples_s for candidate in tuning.candidates):
        name = "landscape-" + tuning.case.name.replace("/", "-")
        pictures.add(name, partial(_draw, tuning), dpi=150)


def as_plain(tuning: Tuning) -> dict[str, Any]:
    """Return a tuning as plain data, for JSON.

    The fields are `name`, `status`, `reason`, `default`, `winner`, `replaced`, `gain`, `gain_low`, `gain_high`,
    `entries`, `seconds`, `budget_s`, `timings`, `policy`, `notes` and `candidates`. Each candidate has `config`,
    `outcome`, `reason`, `status`, `latency_s` and `samples_s`.
    """
    found = tuning.confirmation
    gains = (None,) * 3 if found is None or found.gain != found.gain else (found.gain, found.low, found.high)
    return {
        "name": tuning.case.name,
        "status": tuning.status,
        "reason": tuning.reason,
        "default": dict(tuning.default),
        "winner": dict(tuning.winner),
        "replaced": tuning.is_replaced,
        **dict(zip(("gain", "gain_low", "gain_high"), (_finite(gain) for gain in gains), strict=True)),
        "entries": list(tuning.entries),
        "seconds": tuning.seconds,
        "budget_s": tuning.budget_s,
        "timings": tuning.timings,
        "policy": tuning.policy,
        "notes": list(tuning.notes),
        "candidates": [
            {
                "config": dict(candidate.config),
                "outcome": candidate.outcome,
                "reason": candidate.reason,
                "status": candidate.status,
                "latency_s": candidate.latency_s,
                "samples_s": list(candidate.samples_s),
            }
            for candidate in tuning.candidates
        ],
    }


def as_json(tunings: Sequence[Tuning]) -> str:
    """Return tunings as a JSON list."""
    return json.dumps([as_plain(tuning) for tuning in tunings], allow_nan=False)


def _finite(value: float | None) -> float | None:
    return None if value is None or value != value else value


def varying(config: Mapping[str, int], tuning: Tuning) -> dict[str, int]:
    """Return the parameters of a config that are not the same in all configs of a space. All, where none varies."""
    configs = [candidate.config for candidate in tuning.candidates]
    names = [name for name in config if len({each.get(name) for each in configs}) > 1]
    return {name: config[name] for name in names or config}


def outcome_text(candidate: Candidate, tuning: Tuning) -> str:
    """Say what became of a config, and whether it is the default."""
    said = candidate.outcome if not candidate.status else f"{candidate.outcome}: {candidate.status}"
    said += f", {candidate.reason}" if candidate.reason else ""
    return said + (" (default)" if dict(candidate.config) == dict(tuning.default) else "")


def _draw(tuning: Tuning) -> Figure:
    """Latency of each config that was timed, the fastest on top: median, and the middle of the samples."""
    import numpy as np
    from matplotlib.figure import Figure

    rows = tuning.timed[:60]
    figure = Figure(figsize=(7, 1.2 + 0.24 * len(rows)))
    axes = figure.subplots()
    for place, candidate in enumerate(rows):
        low, middle, high = 1e6 * np.quantile(candidate.samples_s, [0.2, 0.5, 0.8])
        colour = _GREY
        if dict(candidate.config) == dict(tuning.winner):
            colour = _ORANGE
        elif dict(candidate.config) == dict(tuning.default):
            colour = _BLUE
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot([middle], [place], "o", color=colour, markersize=5)
    names = []
    for candidate in rows:
        name = config_text(varying(candidate.config, tuning))
        name += " (winner)" if dict(candidate.config) == dict(tuning.winner) else ""
        name += " (default)" if dict(candidate.config) == dict(tuning.default) else ""
        names.append(picture_text(name))
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.invert_yaxis()
    if rows and (rows[-1].latency_s or 0.0) > 4 * (rows[0].latency_s or 1.0):
        axes.set_xscale("log")
    axes.grid(axis="x", color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.set_xlabel("microseconds of a call: median, 20 % to 80 %", fontsize=8)
    axes.set_title(picture_text(tuning.case.name), loc="left", fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    return figure
