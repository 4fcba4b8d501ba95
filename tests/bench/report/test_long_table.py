"""A long table is drawn as rich draws the same table, to the last character and colour."""

from __future__ import annotations

import io
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from fusetune.bench.report.long_table import LongTable
from fusetune.bench.terminal import SafeConsole

TEXTS = st.text(st.sampled_from("ab7 ,~∞測\t\x1b\u202e"), max_size=12)
CELLS = st.one_of(
    TEXTS,
    st.lists(TEXTS, max_size=3).map("\n".join),
    TEXTS.map(lambda text: Text(text, style="dim")),
    TEXTS.map(lambda text: Text("1") + Text(f"\n{text}", style="yellow")),
)
COLUMNS: list[dict[str, Any]] = [
    {},
    {"no_wrap": False, "overflow": "fold"},
    {"justify": "right"},
    {"overflow": "fold"},
]


def empty() -> Table:
    return Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim"
    )


def drawn(renderable: RenderableType, width: int) -> str:
    stream = io.StringIO()
    SafeConsole(file=stream, width=width, force_terminal=True, color_system="truecolor").print(renderable)
    return stream.getvalue()


@given(
    heads=st.lists(
        st.sampled_from(["#", "time to\ntarget", "optimizer, base_lr", "測"]), min_size=4, max_size=4
    ),
    rows=st.lists(st.lists(CELLS, min_size=4, max_size=4), max_size=4),
    width=st.integers(20, 90),
)
@settings(max_examples=100, deadline=None)
def test_it_is_drawn_and_measured_as_rich_does(heads: list[str], rows: list[list[Any]], width: int) -> None:
    table = LongTable(empty)
    for head, column in zip(heads, COLUMNS, strict=True):
        table.add_column(head, **column)
    for number, cells in enumerate(rows):
        table.add_row(*cells, style=None if number else "bold")
    assert drawn(table, width) == drawn(table.table(), width)
    console = SafeConsole(width=width)
    measured = console.measure(table.table(), options=console.options.update_width(10_000))
    assert (table.least_width, table.width) == measured
