"""Reads a part of a page as a person would: its plots, tables and sentences by their titles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import vl_convert

from fusetune.bench.page import Block, Cell, DataTable, Items, Page, Part, Plot, plots_of, render


def blocks(part: Part) -> Iterator[Block]:
    """Every block, at any depth."""
    waiting = [block for section in part.ordered for block in section.blocks]
    while waiting:
        block = waiting.pop(0)
        yield block
        waiting = [*getattr(block, "blocks", ()), *waiting]


def plots(part: Part) -> list[Plot]:
    return [plot for section in part.ordered for plot in plots_of(section.blocks)]


def plot(part: Part, title: str) -> Plot:
    return next(each for each in plots(part) if title in each.title)


def table(part: Part, caption: str) -> DataTable:
    return next(each for each in blocks(part) if isinstance(each, DataTable) and caption in each.caption)


def line(found: DataTable, name: str) -> dict[str, Cell]:
    """The row with that text in any cell, by the titles of the columns."""
    cells = next(cells for cells in found.rows if name in [cell.text for cell in cells])
    return dict(zip([column.title for column in found.columns], cells, strict=True))


def sentences(part: Part) -> list[str]:
    """All that stands in lists and paragraphs."""
    found: list[str] = []
    for block in blocks(part):
        found += [*block.sentences] if isinstance(block, Items) else [getattr(block, "text", "")]
    return found


def compiled(drawn: Plot) -> dict[str, Any]:
    """The plot by Vega-Lite's own compiler, as the page hands it over."""
    datasets = {
        name: [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        for name, columns in drawn.data.items()
    }
    only = {"data": {"name": next(iter(drawn.data))}} if len(drawn.data) == 1 else {}
    found: dict[str, Any] = vl_convert.vegalite_to_vega({**only, "datasets": datasets, **drawn.spec})
    return found


def check_page(part: Part) -> str:
    """Each plot compiles, has words for who cannot see it, and the page renders. Return the page."""
    for drawn in plots(part):
        assert compiled(drawn)["marks"]
        assert drawn.alt.endswith(".")
        assert drawn.title
    return render(Page(part.title, (part,)))
