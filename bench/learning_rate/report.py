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
from fusetune.bench.terminal import Axis, Mark, MarkStyle, Series, TextPlot

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
            console.print(sweep_plot(test, judged(study)), highlight=False)
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


def sweep_plot(test: Tested, judged_by: str = "loss") -> TextPlot:
    """Return the plot of one test: raw losses, their smoothed mean, and the rates that were found.

    Args:
        test: one test.
        judged_by: name of the loss.
    """
    values = test.values
    marks: list[tuple[str, str, MarkStyle]] = [
        (f"suggestion {rate_text(values.get('range_lr'))}", "range_lr", "solid"),
        (
            f"95 % interval {span_text(test, 'lr_interval_low', 'lr_interval_high')}",
            "lr_interval_low",
            "dotted",
        ),
        ("", "lr_interval_high", "dotted"),
        (f"diverges at {rate_text(values.get('divergence_lr'))}", "divergence_lr", "double"),
    ]
    confirmed = values.get("suggested_lr")
    if confirmed is not None and not math.isclose(confirmed, values.get("range_lr", 0.0)):
        marks.insert(3, (f"confirmed {rate_text(confirmed)}", "suggested_lr", "heavy"))
    return TextPlot(
        f"{test.label}: {judged_by} against learning rate",
        [
            Series("mean, smoothed", test.lrs, test.smoothed, "o"),
            *(
                Series("" if number else "raw", test.lrs, losses, ".", joined=False)
                for number, losses in enumerate(test.repeats)
            ),
        ],
        x=Axis(test.lrs[0], test.lrs[-1], log=True),
        y=Axis(*loss_window(test)),
        marks=[Mark(name, values.get(key), "x", style) for name, key, style in marks],
    )


def _scaling(study: LRStudy, console: Console) -> None:
    """Print the exponent of the power law of learning rate over batch size."""
    if not study.scalings:
        return
    console.print()
    console.print(Text("Learning rate against batch size", style="bold"))
    for name, fit in study.scalings.items():
        console.print(Text(scaling_sentence(name, fit)))
