"""The page in a real Chromium, opened from the disk: quiet, drawn, sorted, searched, printed, and by keyboard alone."""

from __future__ import annotations

from typing import Any

import pytest

from fusetune.bench.page import Cell, Column, DataTable, Part, Section
from tests.bench.page.browser import PHONE, Opened
from tests.bench.page.conftest import Opener
from tests.bench.page.every_block import every_block

FIRST_COLUMN = "(table) => [...table.tBodies[0].rows].map((row) => row.cells[0].firstChild.textContent)"


def column(opened: Opened, table: int = 0) -> list[str]:
    """Return the texts of a table's first column as they stand."""
    found: list[str] = opened.tab.locator("table.data").nth(table).evaluate(FIRST_COLUMN)
    return found


def sorts(opened: Opened, title: str) -> list[str]:
    """Click on a title of the first table, and return its first column."""
    opened.tab.locator("table.data").first.get_by_role("button", name=title).first.click()
    return column(opened)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_opens_from_the_disk_without_a_word_and_without_a_request(opener: Opener, scheme: str) -> None:
    opened = opener(every_block(), color_scheme=scheme)
    assert opened.tab.evaluate("document.documentElement.dataset.theme") == scheme
    opened.draw_all()
    drawings = opened.tab.locator(".drawing")
    assert drawings.count() == 5
    for each in drawings.all():
        assert each.get_attribute("data-drawn") == scheme
        assert "failed" not in each.get_attribute("class")
        box = each.locator("svg, canvas").first.bounding_box()
        assert box["width"] > 200
        assert box["height"] > 100
    assert opened.is_quiet(), opened


def test_only_what_is_near_is_drawn_before_a_reader_goes_there(opener: Opener) -> None:
    far = tuple(Section("curves", section.blocks) for section in every_block().sections * 4)
    opened = opener(Part("t", "", "", sections=far))
    opened.tab.wait_for_selector(".drawing[data-drawn]")
    last = opened.tab.locator("section > .plot .drawing").last
    assert last.get_attribute("data-drawn") is None
    last.scroll_into_view_if_needed()
    opened.tab.wait_for_function("(place) => place.dataset.drawn", arg=last.element_handle())


def test_numbers_are_sorted_as_numbers_and_missing_ones_come_last_both_ways(opener: Opener) -> None:
    rows = tuple(
        (Cell(name), Cell("-") if value is None else Cell(f"{value:g} s", value))
        for name, value in (("two", 2.0), ("missing", None), ("ten", 10.0), ("nine", 9.0), ("minus", -1.0))
    )
    columns = (Column("name"), Column("time", numeric=True))
    opened = opener(Part("t", "", "", sections=(Section("ranking", (DataTable("c", columns, rows),)),)))
    assert column(opened) == ["two", "missing", "ten", "nine", "minus"]
    assert sorts(opened, "time") == ["minus", "two", "nine", "ten", "missing"]
    head = opened.tab.locator("th").nth(1)
    assert head.get_attribute("aria-sort") == "ascending"
    assert sorts(opened, "time") == ["ten", "nine", "two", "minus", "missing"]
    assert head.get_attribute("aria-sort") == "descending"
    assert sorts(opened, "time") == ["two", "missing", "ten", "nine", "minus"]
    assert sorts(opened, "name") == ["minus", "missing", "nine", "ten", "two"]


@pytest.mark.parametrize("rows", [12, 320])
def test_a_short_and_a_long_table_sort_and_filter_alike(opener: Opener, rows: int) -> None:
    part = every_block(rows=rows)
    opened = opener(part)
    assert column(opened)[:3] == ["row 0", "row 1", "row 2"]
    assert opened.tab.locator("tr.strong").first.locator("td").first.inner_text().startswith("row 0")
    assert sorts(opened, "seconds")[:2] == ["row 0", "row 2"]
    assert sorts(opened, "seconds")[:2] == [f"row {rows - 1}", f"row {rows - 2}"]
    opened.tab.get_by_label("Filter").first.fill('"row 7"')
    assert column(opened) == [f"row {n}" for n in reversed(range(rows)) if str(n).startswith("7")][:25]
    small = opened.tab.locator("table.data").first.locator("td small").first
    assert small.inner_text() == "small"
    assert opened.is_quiet(), opened


def test_a_long_table_makes_only_the_rows_that_are_shown(opener: Opener) -> None:
    opened = opener(every_block(rows=5000))
    assert opened.tab.evaluate("document.querySelectorAll('table.data')[0].rows.length") <= 1 + 50
    assert opened.tab.evaluate("document.getElementsByTagName('*').length") < 3000


def test_the_theme_follows_the_system_until_a_reader_chooses(opener: Opener) -> None:
    opened = opener(every_block())
    tab = opened.tab
    theme = "document.documentElement.dataset.theme"
    opened.draw_all()
    tab.emulate_media(color_scheme="dark")
    assert tab.evaluate(theme) == "dark"
    tab.click("#theme")
    assert tab.evaluate(theme) == "light"
    tab.emulate_media(color_scheme="light")
    tab.emulate_media(color_scheme="dark")
    assert tab.evaluate(theme) == "light"
    opened.draw_all()
    assert {each.get_attribute("data-drawn") for each in tab.locator(".drawing").all()} == {"light"}
    assert opened.is_quiet(), opened


def test_a_command_is_copied_as_it_is(opener: Opener) -> None:
    command = "python -m bench run 'a b' --set x=$HOME \\\n  --resume"
    opened = opener(
        every_block(lambda text: command if text == "make run" else text),
        permissions=["clipboard-read", "clipboard-write"],
    )
    button = opened.tab.locator("button.copy")
    button.click()
    opened.tab.wait_for_function("document.querySelector('button.copy').textContent === 'Copied'")
    assert opened.tab.evaluate("navigator.clipboard.readText()") == command


def test_everything_is_reached_by_the_keyboard(opener: Opener) -> None:
    opened = opener(every_block())
    tab = opened.tab
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    assert tab.locator(".skip").bounding_box()["x"] >= 0
    tab.keyboard.press("Enter")
    assert tab.evaluate("location.hash") == "#content"
    tab.evaluate("document.querySelector('.skip').focus()")
    reached = []
    for _ in range(60):
        tab.keyboard.press("Tab")
        reached.append(
            tab.evaluate("(({tagName, id, className}) => [tagName, id, className])(document.activeElement)")
        )
    tags = [tag for tag, _, _ in reached]
    places = [tags.index("A"), [name for _, name, _ in reached].index("theme"), tags.index("INPUT")]
    assert places == sorted(places)
    tab.locator("table.data").first.locator("thead [tabindex='0'], thead button").nth(1).focus()
    tab.keyboard.press("Enter")
    assert column(opened)[-1] == "row 1"
    summary = tab.locator("details.fold > summary")
    summary.focus()
    tab.keyboard.press("Enter")
    assert tab.locator("details.fold").get_attribute("open") is not None


@pytest.mark.parametrize("viewport", [PHONE, {"width": 1280, "height": 900}, {"width": 320, "height": 600}])
def test_the_page_is_never_wider_than_its_window(opener: Opener, viewport: dict[str, Any]) -> None:
    opened = opener(every_block(lambda text: f"{text} {'long' * 30}"), every_block(), viewport=viewport)
    opened.draw_all()
    assert opened.tab.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    wide = """[...document.querySelectorAll(".drawing svg, .drawing canvas, pre, .answer, .facts")]
        .filter((each) => each.getBoundingClientRect().right > innerWidth).length"""
    assert opened.tab.evaluate(wide) == 0


def test_every_plot_has_its_words(opener: Opener) -> None:
    opened = opener(every_block())
    opened.draw_all()
    for place in opened.tab.locator(".drawing").all():
        assert place.get_attribute("role") == "img"
        assert place.get_attribute("aria-label").startswith("alternative text of the")
    # What is drawn is not read beside them.
    hidden = """[...document.querySelectorAll(".drawing svg, .drawing canvas")]
        .every((each) => each.closest("[aria-hidden=true]"))"""
    assert opened.tab.evaluate(hidden)


def test_a_print_shows_all_in_black_on_white(opener: Opener) -> None:
    opened = opener(every_block(), color_scheme="dark")
    tab = opened.tab
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    opened.draw_all()
    tab.emulate_media(media="print")
    assert {each.get_attribute("data-drawn") for each in tab.locator(".drawing").all()} == {"light"}
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.locator("details.fold:not([open])").count() == 0
    assert not tab.locator(".bar, .copy, .dt-search").first.is_visible()
    tab.emulate_media(media="screen")
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
    assert tab.pdf()[:5] == b"%PDF-"
    assert opened.is_quiet(), opened


def test_another_script_is_refused(opener: Opener) -> None:
    opened = opener(every_block())
    tries = """() => {
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
        const image = document.createElement("div");
        image.innerHTML = "<img src=x onerror='window.ran = true'><a href='javascript:window.ran=true'>a</a>";
        document.body.append(image);
        image.querySelector("a").click();
        setTimeout("window.ran = true");
    }"""
    opened.tab.evaluate(tries)
    opened.tab.wait_for_timeout(50)
    assert opened.tab.evaluate("window.ran") is None
    assert any("Content Security Policy" in text for text in opened.said)
    opened.tab.evaluate("fetch('https://example.org').catch(() => 0)")
    opened.tab.wait_for_timeout(50)
    assert any("connect-src" in text or "default-src" in text for text in opened.said)
