"""Strings of others in every field of every block: shown as they are, and never markup, script, style or address."""

from __future__ import annotations

from typing import Any

import pytest

from fusetune.bench.terminal import printable
from tests.bench.page.checked import checked_page
from tests.bench.page.conftest import Opener
from tests.bench.page.every_block import every_block

RAN = "window.ran = true; alert(1)"
HOSTILE = {
    "script": f"<script>{RAN}</script>",
    "end of a script": f"</script><script>{RAN}</script>",
    "comment": f"<!--<script>{RAN}</script>",
    "cdata": f"]]><svg/onload='{RAN}'>",
    "image": f'"><img src=x onerror="{RAN}">',
    "attribute": f"' onmouseover='{RAN}' autofocus onfocus='{RAN}' x='",
    "address": f"javascript:{RAN}",
    "link": f"<a href='javascript:{RAN}'>click</a>",
    "style": "</style><style>* { display: none }</style>",
    "title": f"</title></textarea></noscript><script>{RAN}</script>",
    "frame": f"<iframe srcdoc='<script>{RAN}</script>'></iframe>",
    "meta": '<meta http-equiv="refresh" content="0;url=https://example.org">',
    "template": "{{ 7 * 7 }} {% raw %} {# comment #} ${7 * 7} #{7 * 7} <%= 7 * 7 %>",
    "quotes": "\"'`&quot;&#39;&lt;b&gt;&amp;",
    "backticks": f"`<b>` and `<img src=x onerror='{RAN}'>`",
    "lines": "a\u2028b\u2029c",
    "surrogate": "\ud800 and \udfff",
    "directions": "\u202eevil\u202c \u2066and\u2069 \u200b\ufeff",
    "controls": "\x00\x01\x07\x1b[31m\x7f\x9b",
    "names": "__proto__ constructor toString hasOwnProperty",
    "path": "a.b[0]['c']\\.d",
    "expression": "datum['x'] === 1; event.view; isValid(",
    "percent": "%s %(name)s %d {0} {name!r}",
    "number": "NaN",
}
# What a drawing, its menu and a heading of a table are made of.
DRAWN = {
    "svg",
    "g",
    "path",
    "text",
    "rect",
    "line",
    "defs",
    "lineargradient",
    "stop",
    "clippath",
    "tspan",
    "title",
}
MENU = {"div", "form", "details", "summary", "circle", "a", "canvas"}

# The elements of each report, and the texts where a reader finds them.
ELEMENTS = """() => [...document.querySelectorAll("article")].map((article) => {
    const all = [...article.querySelectorAll(":not(.drawing *, code, wbr)")];
    // A long text may stand differently, by classes of its cell and by its title beside it.
    const late = ["data-drawn", "data-title", "tabindex"];
    const varies = (each, name) => late.includes(name) || (name === "class" && each.tagName === "TD");
    const names = (each) => [...each.attributes].map((one) => one.name).filter((name) => !varies(each, name));
    return all.map((each) => each.tagName + names(each).sort().join(" "));
})"""
TEXTS = """() => [...document.querySelectorAll("article")].map((article) => {
    const at = (selector) => article.querySelector(selector).textContent;
    const cell = article.querySelector("tbody td");
    const lines = (cell) => [...cell.childNodes].filter((each) => each.nodeName !== "SMALL");
    const first = (cell) => lines(cell).map((each) => each.textContent).join("");
    const named = (selector, name) => article.querySelector(selector).getAttribute(name);
    return {
        title: at("h1"), asked: at(".asked"), answer: at(".answer p"), more: at(".answer p + p"), banner: at(".banner"),
        fact: at("dt"), value: at("dd"), lead: at(".lead"), caption: at(".table figcaption"), column: at("th"),
        meaning: at(".meanings dd"), cell: first(cell), small: at("tbody small"),
        note: at(".table > p"),
        plot: at(".plot figcaption"), alt: named(".drawing", "aria-label"), below: at(".plot > p"),
        prose: at(".prose.plain p"), remark: at(".prose.note p"), warning: at(".prose.warning p"), item: at("li"),
        fold: at("details.fold > summary"), command: at(".command code"), heading: at(".command figcaption"),
    };
})"""


def saying(text: str) -> Any:
    """Return what puts a text behind each text of a page."""
    return lambda plain: f"{plain} {text}"


def test_hostile_texts_are_shown_and_make_no_element(opener: Opener) -> None:
    hostile = (every_block(saying(text), rows=1, long=2) for text in HOSTILE.values())
    opened = opener(every_block(rows=1, long=2), *hostile)
    plain, *others = opened.tab.evaluate(ELEMENTS)
    for name, elements in zip(HOSTILE, others, strict=True):
        assert elements == plain, name
    wanted, *found = opened.tab.evaluate(TEXTS)
    for (name, text), texts in zip(HOSTILE.items(), found, strict=True):
        shown = printable(text)
        for field, content in texts.items():
            # Text between backticks is shown as code, without them. A title begins with its number.
            expected = {f"{wanted[field]} {shown}", f"{wanted[field]} {shown.replace('`', '')}"}
            assert content in expected or f"1 {content.split(' ', 1)[1]}" in expected, (name, field)
    assert opened.tab.evaluate("window.ran") is None
    assert opened.tab.title() == "tested"
    assert opened.is_quiet(), opened


@pytest.mark.parametrize(
    "names", [("all",), pytest.param(tuple(HOSTILE), marks=pytest.mark.slow)], ids=["together", "each"]
)
def test_hostile_texts_are_drawn_as_texts(opener: Opener, names: tuple[str, ...]) -> None:
    texts = HOSTILE | {"all": " ".join(HOSTILE.values())}
    opened = opener(*(every_block(saying(texts[name]), rows=1) for name in names))
    tab = opened.tab
    opened.draw_all()
    assert tab.locator(".drawing.failed").count() == 0
    made = tab.evaluate(
        "[...new Set([...document.querySelectorAll('.drawing *')].map((each) => each.localName))]"
    )
    assert {each.lower() for each in made} <= DRAWN | MENU
    links = tab.evaluate(
        "[...document.querySelectorAll('.drawing a')].map((link) => link.getAttribute('href'))"
    )
    assert set(links) == {"#"}
    # A tooltip too, by the pointer.
    point = tab.locator("#part-1-ranking-plot-1 .mark-symbol path").first
    point.scroll_into_view_if_needed()
    point.hover()
    tip = tab.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    if names == ("all",):
        assert HOSTILE["image"] in tip.inner_text()
    inside = tab.evaluate(
        "[...document.querySelectorAll('#vg-tooltip-element *')].map((each) => each.localName)"
    )
    assert set(inside) <= {"table", "tbody", "tr", "td", "h2"}
    assert tab.evaluate("window.ran") is None
    assert opened.is_quiet(), opened


def test_a_very_long_text_is_shown_whole_and_breaks(opener: Opener) -> None:
    long = "x" * 100_000
    opened = opener(
        every_block(lambda text: long if text in ("title", "answer", "fact", "row 0", "one") else text)
    )
    opened.draw_all()
    assert opened.tab.locator("h1").inner_text() == long
    assert opened.tab.locator("tbody td").first.evaluate("(cell) => cell.firstChild.textContent") == long
    assert opened.tab.evaluate("document.documentElement.scrollWidth") <= 1280
    assert opened.is_quiet(), opened


def test_specifications_with_hostile_titles_are_compiled() -> None:
    texts = " ".join(HOSTILE[name] for name in ("quotes", "path", "expression", "names", "surrogate"))
    checked_page(every_block(saying(texts), rows=1, long=0))
