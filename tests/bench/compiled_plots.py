"""The plots of a part of a page, compiled by Vega-Lite's own compiler as the page's script hands them over."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import vl_convert

from fusetune.bench.page import Block, Part, Plot, plots_of
from fusetune.bench.page.assets import SCHEMA, VEGA_LITE
from fusetune.bench.page.page import Beside, DataTable, Fold, Prose


def plots_in(part: Part) -> dict[str, Plot]:
    """Title -> plot, of all sections."""
    return {plot.title: plot for section in part.ordered for plot in plots_of(section.blocks)}


def blocks_in(part: Part) -> Iterator[Block]:
    """Yield every block at any depth."""
    for section in part.ordered:
        yield from _inside(section.blocks)


def _inside(blocks: tuple[Block, ...]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Beside | Fold):
            yield from _inside(block.blocks)


def table_in(part: Part, caption: str) -> DataTable:
    """The table with that caption."""
    (table,) = [
        block for block in blocks_in(part) if isinstance(block, DataTable) and block.caption == caption
    ]
    return table


def words_in(part: Part) -> str:
    """Everything that stands there in prose, with what plots say beside them."""
    prose = [block.text for block in blocks_in(part) if isinstance(block, Prose)]
    plots = [text for plot in plots_in(part).values() for text in (plot.title, plot.alt, plot.caption)]
    return "\n".join([part.answer, part.more, *prose, *plots])


def rows_of(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table of columns as a list of rows."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def compiled(plot: Plot) -> dict[str, Any]:
    """The plot as a specification of Vega. Raises ValueError where Vega-Lite cannot compile it."""
    names = list(plot.data)
    spec = {
        "$schema": SCHEMA,
        "width": 600,
        "height": plot.height,
        **({"data": {"name": names[0]}} if len(names) == 1 else {}),
        "datasets": {name: rows_of(columns) for name, columns in plot.data.items()},
        **plot.spec,
    }
    json.dumps(spec, allow_nan=False)
    found: dict[str, Any] = vl_convert.vegalite_to_vega(spec, vl_version=VEGA_LITE)
    return found


def check(part: Part) -> dict[str, Plot]:
    """Compile every plot, see that it draws what is in its tables only, and that it says so in words."""
    plots = plots_in(part)
    for plot in plots.values():
        assert plot.alt.endswith("."), plot.title
        assert compiled(plot)["marks"], plot.title
        for fields, columns in _layers(plot.spec, plot.data):
            assert fields <= columns, (plot.title, fields - columns)
    return plots


def _layers(spec: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[tuple[set[str], set[str]]]:
    """Yield of each layer the fields that it reads, and the columns that it has."""
    names = list(data)
    for layer in spec.get("layer", [spec]):
        if "layer" in layer:
            yield from _layers({"data": spec.get("data"), **layer}, data)
            continue
        source = layer.get("data") or spec.get("data") or {"name": names[0]}
        columns = (
            set(data[source["name"]]) if "name" in source else {k for row in source["values"] for k in row}
        )
        made = {str(each.get("as")) for each in layer.get("transform", [])}
        yield set(_fields(layer.get("encoding", {}))) - made, columns


def _fields(channel: Any) -> Iterator[str]:
    if isinstance(channel, Mapping):
        for key, value in channel.items():
            if key == "field":
                yield value
            else:
                yield from _fields(value)
    elif isinstance(channel, list):
        for each in channel:
            yield from _fields(each)
