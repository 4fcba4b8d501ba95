"""A page as one HTML file that works offline: its texts escaped, its data beside them, and what it needs brought along.

Nothing of others becomes markup or script. Texts pass Jinja's escaping. Data of plots and long tables stand in one JSON
object, in which `<` is written as an escape. A policy in the page lets only its own scripts run, each by its SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined, Template
from markupsafe import Markup, escape

from fusetune.bench.page.assets import SCHEMA, plots_script, tables_script, text_of
from fusetune.bench.page.page import Beside, Block, Cell, DataTable, Fold, Page, Part, Plot
from fusetune.bench.results import finite_or_null
from fusetune.bench.terminal import printable

# A longer table stands in the page's data, and the script fills it: browsers read that several times as fast.
MOST_ROWS_AS_HTML = 200
_DIGITS = 6
# A text cell up to this length stands on one line.
_LONGEST_SHORT = 16
# A text cell that is longer holds a sentence. On a phone, such a table stands as a list.
_LONGEST_NAME = 48
_CODE = re.compile(r"`([^`\n]+)`")
_JOINT = re.compile(r"(?<=[^\W\d][,/:])(?=\w{3})|(?<=[,/:])(?=[^\W\d]\w\w)")


def render(page: Page) -> str:
    """Return the HTML of a page.

    Args:
        page: its parts are below each other.

    Returns:
        One document of about 1.8 MB and its data, which fetches nothing.

    Example:
        >>> html = render(Page("demo", (Part("a <b>", "Which?", "This one."),)))
        >>> html[:15], "a &lt;b&gt;" in html, "a <b>" in html
        ('<!doctype html>', True, False)
    """
    held = _Held()
    parts = [_part(part, number, held) for number, part in enumerate(page.parts, start=1)]
    scripts = [plots_script(), tables_script(), _script()]
    return _template().render(
        page=page,
        parts=parts,
        styles=Markup(text_of("page.css")),
        scripts=[Markup(script) for script in scripts],
        script_sources=Markup(" ".join(f"'sha256-{_digest(script)}'" for script in scripts)),
        data=Markup(in_script(held.as_dict())),
    )


def in_script(value: Any) -> str:
    """Return plain data as JSON that can stand in a script element, whatever strings it has.

    Example:
        >>> print(in_script({"name": "</script>"}))
        {"name":"\\u003c/script>"}
    """
    text = _json(value)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _json(value: Any) -> str:
    """Return plain data as JSON. Most data are finite, so a copy with nulls is made only where it is needed."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError):
        return json.dumps(finite_or_null(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def inline(text: str) -> Markup:
    """Return a text as HTML, with what stands between backticks as code.

    Example:
        >>> print(inline("the `<b>` element"))
        the <code>&lt;b&gt;</code> element
    """
    pieces = _CODE.split(printable(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if at % 2 else escape(piece)
        for at, piece in enumerate(pieces)
    )


def broken(text: str) -> Markup:
    """Return a text as HTML that may break after the signs that join long names.

    Example:
        >>> print(broken("optimizer=adam,batch_size=1"))
        optimizer=adam,<wbr>batch_size=1
    """
    return Markup("<wbr>").join(_JOINT.split(printable(text)))


@dataclass
class _Held:
    """What the page's script reads: plots, and the tables of numbers that they share."""

    plots: list[dict[str, Any]] = field(default_factory=list)
    tables: dict[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    _keys: dict[int, str] = field(default_factory=dict)

    def table(self, columns: Mapping[str, Sequence[Any]]) -> str:
        """Keep a table of numbers, once for all plots that show the same object, and return its key."""
        key = self._keys.setdefault(id(columns), f"t{len(self._keys)}")
        if key not in self.tables:
            self.tables[key] = {name: [_shown(value) for value in values] for name, values in columns.items()}
        return key

    def as_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "plots": self.plots, "tables": self.tables, "rows": self.rows}


def _shown(value: Any) -> Any:
    """Return data as a plot needs them: texts that can be seen, and six digits, which are finer than any screen."""
    if isinstance(value, Mapping):
        return {key: _shown(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    return printable(value) if isinstance(value, str) else value


def _part(part: Part, number: int, held: _Held) -> dict[str, Any]:
    name = f"part-{number}"
    sections = []
    counts: dict[str, int] = {}
    for section in part.ordered:
        counts[section.key] = counts.get(section.key, 0) + 1
        again = f"-{counts[section.key]}" if counts[section.key] > 1 else ""
        anchor = f"{name}-{section.key}{again}"
        blocks = [_block(block, anchor, held) for block in section.blocks]
        sections.append({"id": anchor, "title": section.title, "lead": section.lead, "blocks": blocks})
    shown = {
        key: getattr(part, key) for key in ("title", "asked", "answer", "more", "status", "banners", "facts")
    }
    return {"id": name, "number": number, "sections": sections, **shown}


def _block(block: Block, anchor: str, held: _Held) -> dict[str, Any]:
    """Return a block as the template reads it, with plots and long tables put aside for the script."""
    content: dict[str, Any] = {each.name: getattr(block, each.name) for each in fields(block)}
    content["kind"] = type(block).__name__
    if isinstance(block, Plot):
        content["id"] = f"{anchor}-plot-{len(held.plots) + 1}"
        data = {name: held.table(columns) for name, columns in block.data.items()}
        spec = _shown(block.spec)
        held.plots.append({"id": content["id"], "height": block.height, "spec": spec, "data": data})
    elif isinstance(block, DataTable):
        name_at = next((at for at, column in enumerate(block.columns) if not column.numeric), 0)
        content |= {"held": "", "shown": list(enumerate(block.rows)), "name_at": name_at}
        content["has_sentences"] = any(
            len(text) > _LONGEST_NAME
            for row in block.rows
            for cell, column in zip(row, block.columns, strict=True)
            for text in (cell.text, cell.small)
            if not column.numeric
        )
        if len(block.rows) > MOST_ROWS_AS_HTML:
            content["held"] = f"r{len(held.rows) + 1}"
            content["shown"] = content["shown"][:MOST_ROWS_AS_HTML]
            held.rows[content["held"]] = {
                "cells": [[_cell(cell) for cell in row] for row in block.rows],
                "strong": sorted(block.strong),
            }
    elif isinstance(block, Beside | Fold):
        content["blocks"] = [_block(inner, anchor, held) for inner in block.blocks]
    return content


def _is_short(cell: Cell) -> bool:
    return max(len(cell.text), len(cell.small)) <= _LONGEST_SHORT


def _cell(cell: Cell) -> list[Any]:
    """Return a cell as the script reads it."""
    tone = "" if cell.tone == "plain" else cell.tone
    return [printable(cell.text), cell.order, printable(cell.small), tone]


def plots_of(blocks: Sequence[Block]) -> Iterator[Plot]:
    """Yield the plots among some blocks, at any depth."""
    for block in blocks:
        if isinstance(block, Plot):
            yield block
        elif isinstance(block, Beside | Fold):
            yield from plots_of(block.blocks)


@cache
def _script() -> str:
    return text_of("page.js")


@cache
def _template() -> Template:
    def finalize(value: Any) -> Any:
        return printable(value) if type(value) is str else value

    environment = Environment(
        loader=DictLoader({"page": text_of("page.html.jinja")}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    environment.filters |= {"inline": inline, "broken": broken}
    environment.tests["short"] = _is_short
    return environment.get_template("page")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
