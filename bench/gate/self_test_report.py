"""What the self-test found, for a terminal in 100 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fusetune.bench.gate.self_test import SelfTest, SelfTestRow
from fusetune.bench.gate.wording import counted, metric_title
from fusetune.bench.terminal import one_line
from fusetune.bench.units import format_seconds

# Above this share of false alarms people stop to believe a gate.
_TOLERABLE = 0.01


def show_self_test(found: SelfTest, console: Console) -> None:
    """Print the findings: a headline, a row for each timing, and what each column means.

    Args:
        found: what `run_self_test` returned.
        console: 100 columns wide, or more.
    """
    rows, budget_s = found.rows, found.budget_s
    console.print(Panel(Text(headline(rows, budget_s)), box=box.HEAVY, padding=(0, 1)))
    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("benchmark\n  metric", overflow="fold", min_width=18)
    for title in ("pairs\nrun", "noise", "false\nalarms", "pairs in\nbudget", "finds\nslowdown"):
        table.add_column(title, justify="right", no_wrap=True, vertical="bottom")
    table.add_column("planted: said", no_wrap=True, vertical="bottom")
    previous = None
    for row in rows:
        if row.benchmark != previous:
            previous = row.benchmark
            table.add_row(Text(one_line(row.benchmark), style="bold"))
        finds = "none" if row.detectable is None else f"{100 * row.detectable:.1f} %"
        table.add_row(
            Text(f"  {one_line(metric_title(row.metric))}"),
            str(row.pairs),
            f"{100 * row.noise:.1f} %",
            f"{row.alarms} of {row.relabellings}",
            str(row.affordable),
            finds,
            Text(planted_text(row)),
        )
    console.print(table)
    console.print()
    for text in meanings(budget_s):
        console.print(Text(f"  {text}", style="dim"))
    for note in found.notes:
        console.print(Text(f"  note: {one_line(note)}"))
    if found.directory:
        console.print()
        console.print(Text(f"raw pairs: {found.directory}/pairs.jsonl", style="dim"), soft_wrap=True)


def headline(rows: Sequence[SelfTestRow], budget_s: float) -> str:
    """Say in one or two sentences what the gate is worth here.

    Example:
        >>> headline([], 600.0)
        'Nothing was timed, so there is no noise to tell of.'
    """
    if not rows:
        return "Nothing was timed, so there is no noise to tell of."
    alarms, asked = sum(row.alarms for row in rows), sum(row.relabellings for row in rows)
    blind = [row for row in rows if row.detectable is None]
    worst = max((row.detectable for row in rows if row.detectable is not None), default=None)
    said = f"{counted(alarms, 'false alarm')} in {asked} comparisons of the same code ({100 * alarms / asked:.1f} %)."
    if blind:
        least = max(5 * row.seconds for row in blind)
        return f"{said} A budget of {format_seconds(budget_s)} finds nothing, for 5 pairs take {format_seconds(least)}."
    found = f"A slowdown of {100 * (worst or 0.0):.1f} % is found in 90 of 100 gates of {format_seconds(budget_s)}."
    above = " Above 1 % of false alarms, something besides the code differs between the sides."
    noisy = above if alarms > _TOLERABLE * asked else ""
    return f"{said} {found}{noisy}"


def meanings(budget_s: float) -> tuple[str, ...]:
    """Say what the columns mean, a sentence each, for gates with such a budget."""
    return (
        "noise: standard deviation between fresh processes of the same code.",
        "false alarms: differences that the gate saw when the sides of the pairs were swapped at random.",
        f"finds slowdown: the smallest that 90 of 100 gates with a budget of {format_seconds(budget_s)} find.",
        "planted: what the gate said of a slowdown, a speedup and a lost metric that were put into head.",
    )


def planted_text(row: SelfTestRow) -> str:
    """Name each outcome that was planted, and whether the gate said so."""
    shown = {"regressed": "slower", "improved": "faster", "missing": "lost"}
    return ", ".join(f"{name} {'✓' if row.reached[outcome] else '✗'}" for outcome, name in shown.items())  # type: ignore[index]
