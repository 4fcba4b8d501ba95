"""Holds a part of a page to what every page must keep. Tests of other rooms use it for the parts that they build."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import unescape
from html.parser import HTMLParser
from typing import Any

import vl_convert

from fusetune.bench.page import Page, Part, Plot, plots_of, render
from fusetune.bench.page.assets import VEGA_LITE

# Where a drawing has a number that could not be computed, such as the place of a field that no row has.
_BROKEN = re.compile(
    r' (?:d|transform|x|y|x1|x2|y1|y2|width|height|points)="[^"<>]*\b(?:NaN|undefined)\b[^"<>]*"'
)
_MARK = re.compile(r'aria-roledescription="[a-z ]*mark"')


def checked_page(part: Part) -> list[Plot]:
    """Return the plots of a part after all of them passed Vega-Lite's compiler and a first drawing.

    Fails where a specification is compiled with a warning, names a table or a field that is not there, is drawn at no
    place, shows nothing at all, or has no alternative text, and where two elements of the page share an id.
    """
    html = render(Page(part.title, (part,)))
    assert len(set(ids := ids_of(html))) == len(ids)
    held = page_data(html)
    plots = [plot for section in part.ordered for plot in plots_of(section.blocks)]
    assert len(plots) == len(held["plots"])
    for plot, written in zip(plots, held["plots"], strict=True):
        assert plot.title.strip(), "a plot without a title"
        assert len(plot.alt.split()) >= 4, f"{plot.title}: its alternative text says nothing"
        check_plot(plot.title, whole_spec(written, held["tables"]))
    return plots


def page_data(html: str) -> dict[str, Any]:
    """Return what the script of a page reads: its plots, tables and rows."""
    found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def ids_of(html: str) -> list[str]:
    """Return the ids of all elements."""
    ids: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            ids.extend(value for name, value in attrs if name == "id" and value is not None)

    Reader().feed(html)
    return ids


def status_of(html: str) -> str:
    """Return what a page of one run says of its state, without markup. Empty: nothing."""
    found = re.search(r'<p class="status" role="status">(.*?)</p>', html, re.DOTALL)
    return unescape(re.sub("<.*?>", "", found[1])) if found else ""


def whole_spec(plot: Mapping[str, Any], tables: Mapping[str, Mapping[str, list[Any]]]) -> dict[str, Any]:
    """Return a plot's specification as the page's script completes it, with a width in place of the page's."""
    datasets = {
        name: [dict(zip(tables[key], row, strict=True)) for row in zip(*tables[key].values(), strict=True)]
        for name, key in plot["data"].items()
    }
    only = {"data": {"name": next(iter(datasets))}} if len(datasets) == 1 else {}
    size = {"width": 600, "height": plot["height"], "autosize": {"type": "fit-x", "contains": "padding"}}
    return {**size, **only, "datasets": datasets, **plot["spec"]}


def check_plot(title: str, spec: dict[str, Any]) -> None:
    """Compile and draw one specification."""
    tables = spec["datasets"]
    rules = {name: value for name, value in spec.items() if name != "datasets"}
    known = {name for rows in tables.values() for name in (rows[0] if rows else ())} | set(made(rules))
    unknown = {name for name in under(rules, "field") if isinstance(name, str)} - known
    assert not unknown, f"{title}: no column has the name {', '.join(sorted(unknown))}"
    absent = {data["name"] for data in under(rules, "data") if "name" in data} - tables.keys()
    assert not absent, f"{title}: there is no table {', '.join(sorted(absent))}"
    with said() as warnings:
        vega = vl_convert.vegalite_to_vega(spec, vl_version=VEGA_LITE, show_warnings=True)
        drawing = vl_convert.vega_to_svg(vega)
    assert not warnings, f"{title}: {' '.join(warnings)}"
    assert not (broken := _BROKEN.search(drawing)), f"{title}: drawn at{broken[0]}"
    assert _MARK.search(drawing), f"{title}: nothing is drawn"


def under(value: Any, key: str) -> Iterator[Any]:
    """Yield what stands under a key, at any depth outside of the data."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, dict) and key in value:
        yield value[key]
    for each in inner:
        yield from under(each, key)


def made(spec: dict[str, Any]) -> Iterator[str]:
    """Yield the fields that a specification makes, and those of data that it holds itself."""
    for names in under(spec, "as"):
        yield from [names] if isinstance(names, str) else names
    for data in under(spec, "data"):
        yield from (name for row in data.get("values", ()) for name in row)
        yield from ("data" for _ in under(data, "sequence"))


@contextmanager
def said() -> Iterator[list[str]]:
    """Yield a list that gets the lines which native code writes to the standard streams meanwhile."""
    lines: list[str] = []
    with tempfile.TemporaryFile() as file:
        kept = {stream: os.dup(stream) for stream in (1, 2)}
        for stream in kept:
            os.dup2(file.fileno(), stream)
        try:
            yield lines
        finally:
            for stream, old in kept.items():
                os.dup2(old, stream)
                os.close(old)
            file.seek(0)
            lines.extend(file.read().decode().splitlines())
