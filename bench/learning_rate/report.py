"""The terminal report of `bench lr-range`: rates, curves as character plots, scaling with the batch size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from fusetune.bench.learning_rate.plot import draw_lr_range, loss_window
from fusetune.bench.learning_rate.study import LRStudy, Tested
from fusetune.bench.learning_rate.wording import (
    CANT_TELL,
    judged,
    rate_text,
    scaling_sentence,
    span_text,
    sweep_words,
)
from fusetune.bench.report import caveat_lines
from fusetune.bench.results import Pictures

_WIDTH, _HEIGHT = 84, 14
_MOST_CURVES = 6
_DIM = "dim"


def show_learning_rates(study: LRStudy, console: Console, pictures: Pictures) -> None:
    """Print the report, then draw the curves and name their files."""
    render_lr_range(study, console)
    draw_lr_range(study.tested, pictures, judged=judged(study))
    _name_pictures(pictures, console)


def render_lr_range(study: LRStudy, console: Console) -> None:
    """Print the report.

    Args:
        study: from `bench.learning_rate.study.study_learning_rates`.
        console: rich console of 100 columns or more.
    """
    _header(study, console)
    if not study.tested:
        console.print("nothing recorded yet")
        return
    console.print(_table(study.tested))
    for test in study.tested:
        if test.advice:
            console.print(Text(f"{test.label}: {test.advice}"))
        for note in test.notes:
            console.print(Text(f"{test.label}: {note}", style="yellow"))
    for test in study.tested[:_MOST_CURVES]:
        if len(test.lrs) > 1:
            console.print()
            for line in plot_lines(test):
                console.print(line, highlight=False)
    if len(study.tested) > _MOST_CURVES:
        console.print(f"\n... and {len(study.tested) - _MOST_CURVES} more curves in the pictures", style=_DIM)
    _scaling(study, console)


def _name_pictures(pictures: Pictures, console: Console) -> None:
    """Print the files that were drawn, and the reason if some were not."""
    paths = pictures.paths
    if paths:
        more = f" .. {paths[-1].name}" if len(paths) > 1 else ""
        text = Text(f"\ndrawn to {paths[0]}{more}, and as .svg", style=_DIM)
        console.print(text, highlight=False, soft_wrap=True)
    if pictures.note:
        console.print(Text(f"note: {pictures.note}", style="yellow"), highlight=False, soft_wrap=True)


def _header(study: LRStudy, console: Console) -> None:
    run = study.run
    for caveat in caveat_lines(study.caveats):
        console.print(caveat)
    console.print(Rule(Text(f"LR range test: {run.spec.name}", style="bold"), align="left", style=_DIM))
    for name, text in (
        ("run", Path(study.directory).name),
        ("data", ", ".join(run.data)),
        ("sweep", sweep_words(study)),
        ("device", ", ".join(filter(None, (run.machine.device, run.machine.device_name)))),
        ("commit", (run.commit or "unknown")[:12]),
    ):
        if text:
            line = Text(f"{name:<8}", style=_DIM)
            console.print(line.append(text, style="none"), highlight=False)
    console.print()


def _table(tested: Sequence[Tested]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style=_DIM)
    table.add_column("configuration", overflow="fold")
    confirmed = any(test.outcome.confirm_lrs is not None for test in tested)
    for heading in (
        "suggested",
        "95 % interval",
        *(["confirmed"] if confirmed else []),
        "cycle",
        "diverges at",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for test in tested:
        values = test.values
        suggested = rate_text(values.get("range_lr")) if "range_lr" in values else CANT_TELL
        cells = [test.label, suggested, span_text(test, "lr_interval_low", "lr_interval_high")]
        if confirmed:
            cells.append(rate_text(values.get("suggested_lr")))
        cells += [span_text(test, "lr_low", "lr_high"), rate_text(values.get("divergence_lr"))]
        table.add_row(*map(Text, cells))
    return table


def plot_lines(test: Tested) -> list[str]:
    """Return a character plot of one test.

    `.` is a raw loss, `o` the smoothed mean, `|` the suggestion, and `!` the divergence.
    """
    grid = _Grid(test.lrs[0], test.lrs[-1], *loss_window(test))
    for name, mark in (("divergence_lr", "!"), ("range_lr", "|")):
        if name in test.values:
            grid.draw_vertical(test.values[name], mark)
    for losses in test.repeats:
        grid.draw_points(test.lrs, losses, ".")
    grid.draw_points(test.lrs, test.smoothed, "o")
    head = f"{test.label}: loss against learning rate"
    return [head, *grid.lines(), f"{'':>10}. raw   o mean, smoothed   | suggestion   ! diverges"]


class _Grid:
    """A character plot with a logarithmic horizontal axis for learning rates and a linear vertical axis for losses."""

    def __init__(self, first: float, last: float, bottom: float, top: float) -> None:
        self._left, self._right = math.log10(first), math.log10(last)
        self._bottom, self._top = bottom, top
        self._cells = [[" "] * _WIDTH for _ in range(_HEIGHT)]

    def draw_vertical(self, lr: float, mark: str) -> None:
        """Draw a vertical line, if it is inside the plot."""
        column = self._column(lr)
        if 0 <= column < _WIDTH:
            for line in self._cells:
                line[column] = mark

    def draw_points(self, lrs: Sequence[float], losses: Sequence[float | None], mark: str) -> None:
        """Draw a mark for each loss inside the plot."""
        for lr, loss in zip(lrs, losses, strict=True):
            if loss is not None and self._bottom <= loss <= self._top:
                row = round((self._top - loss) / (self._top - self._bottom) * (_HEIGHT - 1))
                self._cells[row][self._column(lr)] = mark

    def lines(self) -> list[str]:
        """Return the plot's lines with axes and labels."""
        labels = {0: f"{self._top:.3g}", _HEIGHT - 1: f"{self._bottom:.3g}"}
        rows = [
            f"{labels.get(index, ''):>8} |{''.join(row).rstrip()}" for index, row in enumerate(self._cells)
        ]
        return [*rows, f"{'':>8} +{'-' * _WIDTH}", f"{'':>10}{self._ticks()}"]

    def _column(self, lr: float) -> int:
        return round((math.log10(lr) - self._left) / (self._right - self._left) * (_WIDTH - 1))

    def _ticks(self) -> str:
        """Return the labels at powers of ten."""
        line = [" "] * (_WIDTH + 6)
        for power in range(math.ceil(self._left - 1e-9), math.floor(self._right + 1e-9) + 1):
            text = f"1e{power}"
            place = self._column(10.0**power)
            line[place : place + len(text)] = text
        return "".join(line).rstrip()


def _scaling(study: LRStudy, console: Console) -> None:
    """Print the exponent of the power law of learning rate over batch size."""
    if not study.scalings:
        return
    console.print()
    console.print(Text("Learning rate against batch size", style="bold"))
    for name, fit in study.scalings.items():
        console.print(Text(scaling_sentence(name, fit)))
