"""The HTML page of runs, gates and histories: what it says as plain data, and one file that works offline.

Rooms of the kinds of runs build sections. This room knows nothing of runs.
"""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.page.html_page import plots_of, render
    from fusetune.bench.page.page import (
        SECTIONS,
        Beside,
        Block,
        Cell,
        Column,
        Command,
        DataTable,
        Facts,
        Fold,
        Items,
        Page,
        Part,
        Plot,
        Prose,
        Section,
        Tone,
    )
    from fusetune.bench.page.vega import (
        Channel,
        Layer,
        Style,
        axis_unit,
        banded_lines,
        by_column,
        category,
        heat_map,
        high_colors,
        in_unit,
        layered,
        log_quantity,
        mark,
        point_series,
        quantity,
        ramp,
        ranges,
        rule,
        series,
        texts,
        titled,
        tooltip,
    )
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "SECTIONS",
    "Beside",
    "Block",
    "Cell",
    "Channel",
    "Column",
    "Command",
    "DataTable",
    "Facts",
    "Fold",
    "Items",
    "Layer",
    "Page",
    "Part",
    "Plot",
    "Prose",
    "Section",
    "Style",
    "Tone",
    "axis_unit",
    "banded_lines",
    "by_column",
    "category",
    "heat_map",
    "high_colors",
    "in_unit",
    "layered",
    "log_quantity",
    "mark",
    "plots_of",
    "point_series",
    "quantity",
    "ramp",
    "ranges",
    "render",
    "rule",
    "series",
    "texts",
    "titled",
    "tooltip",
]
