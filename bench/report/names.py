"""`bench list`: every name that a spec can use, with what it accepts."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fusetune.bench.catalog import (
    ACTIVATIONS,
    DATASETS,
    IMPLEMENTATIONS,
    KERNEL_SHAPES,
    KERNELS,
    METRICS_TO_REACH,
    MODELS,
    NORMS,
    OPTIMIZERS,
    PRECISIONS,
    Entry,
)
from fusetune.tuner.schedules import SCHEDULES

Rows = Mapping[str, tuple[str, str]]


def render_names(console: Console) -> None:
    """Print one table for each key of a spec that takes a name, in 80 columns or more."""
    schedules = {name: (entry.summary, ", ".join(entry.parameters)) for name, entry in SCHEDULES.items()}
    _render(console, "data.name", _rows(DATASETS))
    _render(console, "model.name", _rows(MODELS))
    _render(console, "model.activation", _rows(ACTIVATIONS))
    _render(console, "model.norm", _rows(NORMS))
    _render(console, "train.optimizer", _rows(OPTIMIZERS))
    _render(console, "train.schedule", schedules)
    _render(console, "train.implementation", _rows(IMPLEMENTATIONS))
    own = "data.factory, model.factory, train.optimizer"
    for keys, known in (
        ("train.precision", ", ".join(PRECISIONS)),
        ("target.metric", ", ".join(METRICS_TO_REACH)),
        (own, "package.module:function of your own"),
        ("kernels", ", ".join(KERNELS)),
        ("kernels.*.shapes", ", ".join(KERNEL_SHAPES)),
    ):
        console.print(Text.assemble((keys, "bold"), f": {known}"), highlight=False)


def _rows(table: Mapping[str, Entry]) -> Rows:
    """Turn a table of the catalogue into rows."""
    return {name: (entry.summary, ", ".join(entry.parameters)) for name, entry in table.items()}


def _render(console: Console, key: str, rows: Rows) -> None:
    """Print one table. It has a column of parameters if any name has some."""
    table = Table(box=box.SIMPLE_HEAD, title=key, title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("what", ratio=3)
    with_parameters = any(parameters for _, parameters in rows.values())
    if with_parameters:
        table.add_column("parameters", ratio=2, style="dim")
    for name, (summary, parameters) in rows.items():
        table.add_row(name, summary, *([parameters] if with_parameters else []))
    console.print(table)
