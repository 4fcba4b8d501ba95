"""The page in a real Chromium, opened from the disk: quiet, drawn, sorted, searched, printed, and by keyboard alone.

Most tests share one page, for to open one takes about a second.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import ViewportSize

from fusetune.bench.page import Cell, Column, DataTable, Part, Section
from tests.bench.page.browser import DESKTOP, PHONE, Opened
from tests.bench.page.conftest import Opener
from tests.bench.page.every_block import every_block

NUMBERS = (("two", 2.0), ("missing", None), ("ten", 10.0), ("nine", 9.0), ("minus", -1.0))
NUMBERS_AT = 3  # after the three tables of the first part
SMALL: ViewportSize = {"width": 320, "height": 600}


def numbers() -> Part:
    """Return a part with a table whose second number is missing."""
    rows = tuple(
        (Cell(name), Cell("-") if value is None else Cell(f"{value:g} s", value)) for name, value in NUMBERS
    )
    table = DataTable("c", (Column("name"), Column("time", numeric=True)), rows)
    return Part("numbers", "", "", sections=(Section("ranking", (table,)),))


@pytest.fixture(scope="module")
def opened_once(opener: Opener) -> Opened:
    """A page of three parts: every block, a table with a missing number, and every block with long texts."""
    long = every_block(lambda text: f"{text} {'long' * 30}", long=2)
    return opener(every_block(rows=12), numbers(), long, permissions=["clipboard-read", "clipboard-write"])


@pytest.fixture
def opened(opened_once: Opened) -> Opened:
    """The shared page as it was at first, apart from what is drawn and sorted."""
    opened_once.tab.emulate_media(color_scheme="light", media="screen")
    opened_once.tab.set_viewport_size(DESKTOP)
    opened_once.forget()
    return opened_once


def table(opened: Opened, number: int) -> str:
    """Return what finds a table of the page, from 0."""
    return f"table.data >> nth={number}"


def names(opened: Opened, number: int) -> list[str]:
    """Return the texts of a table's first column as they stand."""
    read = "(table) => [...table.tBodies[0].rows].map((row) => row.cells[0].firstChild.textContent)"
    found: list[str] = opened.tab.locator(table(opened, number)).evaluate(read)
    return found


def sorts(opened: Opened, number: int, title: str) -> list[str]:
    """Click on a title of a table, and return its first column."""
    opened.tab.locator(table(opened, number)).get_by_role("button", name=f"{title}:").click()
    return names(opened, number)


def test_a_page_opens_from_the_disk_and_is_drawn_without_a_word_or_a_request(opened_once: Opened) -> None:
    opened_once.draw_all()
    drawings = opened_once.tab.locator(".drawing")
    assert drawings.count() == 10
    for each in drawings.all():
        assert each.get_attribute("data-drawn") == "light"
        assert "failed" not in each.get_attribute("class")
        box = each.locator("svg, canvas").first.bounding_box()
        assert box["width"] > 200
        assert box["height"] > 100
    assert opened_once.is_quiet(), opened_once


def test_numbers_are_sorted_as_numbers_and_missing_ones_come_last_both_ways(opened: Opened) -> None:
    given = [name for name, _ in NUMBERS]
    head = opened.tab.locator(table(opened, NUMBERS_AT)).locator("th").nth(1)
    assert names(opened, NUMBERS_AT) == given
    assert sorts(opened, NUMBERS_AT, "time") == ["minus", "two", "nine", "ten", "missing"]
    assert head.get_attribute("aria-sort") == "ascending"
    assert sorts(opened, NUMBERS_AT, "time") == ["ten", "nine", "two", "minus", "missing"]
    assert head.get_attribute("aria-sort") == "descending"
    assert sorts(opened, NUMBERS_AT, "time") == given
    assert sorts(opened, NUMBERS_AT, "name") == ["minus", "missing", "nine", "ten", "two"]
    assert opened.is_quiet(), opened


@pytest.mark.parametrize(("number", "rows"), [(0, 12), (1, 210)])
def test_a_short_and_a_long_table_sort_and_filter_alike(opened: Opened, number: int, rows: int) -> None:
    place = opened.tab.locator(table(opened, number))
    assert names(opened, number)[:3] == ["row 0", "row 1", "row 2"]
    assert place.locator("tr.strong td").first.inner_text().startswith("row 0")
    assert sorts(opened, number, "seconds")[:2] == ["row 0", "row 2"]
    assert sorts(opened, number, "seconds")[:2] == [f"row {rows - 1}", f"row {rows - 2}"]
    assert place.locator("td small").first.inner_text() == "small"
    assert place.locator("td.name").first.inner_text().startswith("row")
    filtered = opened.tab.get_by_label("Filter: caption").nth(number)
    filtered.fill('"row 7"')
    assert names(opened, number) == [f"row {n}" for n in reversed(range(rows)) if str(n).startswith("7")]
    filtered.fill("nothing has this")
    assert place.locator("tbody").inner_text() == "No row has this text."
    filtered.fill("")
    assert opened.is_quiet(), opened


def test_the_theme_follows_the_system_until_a_reader_chooses(opened: Opened) -> None:
    tab = opened.tab
    tab.emulate_media(color_scheme="dark")
    tab.wait_for_selector("html[data-theme=dark]", state="attached")
    opened.draw_all()
    assert {each.get_attribute("data-drawn") for each in tab.locator(".drawing").all()} == {"dark"}
    tab.click("#theme")
    tab.wait_for_selector("html[data-theme=light]", state="attached")
    tab.emulate_media(color_scheme="light")
    tab.emulate_media(color_scheme="dark")
    tab.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    assert tab.evaluate("document.documentElement.dataset.theme") == "light"
    opened.draw_all()
    assert {each.get_attribute("data-drawn") for each in tab.locator(".drawing").all()} == {"light"}
    assert opened.is_quiet(), opened


def test_a_command_is_copied_as_it_is(opened: Opened) -> None:
    button = opened.tab.locator("button.copy").first
    button.click()
    opened.tab.wait_for_function("() => document.querySelector('button.copy').textContent === 'Copied'")
    assert opened.tab.evaluate("navigator.clipboard.readText()") == "make run 'a b' \\\n  --set x=$HOME"


def test_a_plot_is_saved_as_a_picture(opened: Opened, tmp_path: Path) -> None:
    place = opened.tab.locator(".drawing").first
    place.locator("summary").click()
    with opened.tab.expect_download() as started:
        place.get_by_text("Save as SVG").click()
    started.value.save_as(tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")
    assert opened.is_quiet(), opened


def test_everything_is_reached_by_the_keyboard(opened: Opened) -> None:
    tab = opened.tab
    tab.evaluate("scrollTo(0, 0); document.activeElement.blur()")
    skip = tab.locator(".skip")
    skip.focus()
    assert skip.bounding_box()["x"] >= 0
    tab.keyboard.press("Enter")
    assert tab.evaluate("location.hash") == "#content"
    skip.focus()
    reached = []
    while (now := tab.evaluate("[document.activeElement.localName, document.activeElement.className]")) != [
        "body",
        "",
    ]:
        reached.append(now)
        tab.keyboard.press("Tab")
        assert len(reached) < 300
    order = [name for name, _ in reached]
    assert order[:4] == ["a", "a", "a", "a"]
    assert order.count("summary") == tab.locator("summary").count()
    assert order.count("input") == tab.locator("input").count()
    assert sum("dt-column-order" in text for _, text in reached) == tab.locator("table.data th").count()
    tab.locator(table(opened, NUMBERS_AT)).locator(".dt-column-order").nth(1).focus()
    tab.keyboard.press("Enter")
    assert names(opened, NUMBERS_AT) == ["minus", "two", "nine", "ten", "missing"]
    fold = tab.locator("details.fold").first
    was = fold.evaluate("(fold) => fold.open")
    fold.locator("> summary").focus()
    tab.keyboard.press("Enter")
    assert fold.evaluate("(fold) => fold.open") is not was


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE, SMALL], ids=["desktop", "phone", "small"])
def test_the_page_is_never_wider_than_its_window(opened: Opened, viewport: ViewportSize) -> None:
    opened.tab.set_viewport_size(viewport)
    opened.tab.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")
    assert opened.tab.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    wide = """[...document.querySelectorAll(".drawing svg, .drawing canvas, pre, .answer, .facts")]
        .filter((each) => each.getBoundingClientRect().right > innerWidth).length"""
    assert opened.tab.evaluate(wide) == 0


@pytest.mark.parametrize("rows", [3, 210])
def test_rows_with_sentences_stand_as_lists_on_a_phone(opener: Opener, rows: int) -> None:
    columns = (Column("verdict"), Column("n", numeric=True), Column("why"))
    row = (
        Cell("PASS"),
        Cell("7", 7),
        Cell("both sides are equal on every seed, and the interval holds nothing else"),
    )
    table = DataTable("c", columns, (row,) * rows)
    opened = opener(Part("t", "", "", sections=(Section("ranking", (table,)),)), viewport=PHONE)
    cells = opened.tab.locator("tbody tr >> nth=0 >> td")
    # What stands before a cell, and whether the cell lies in the window.
    read = """(cells) => cells.map((cell) => [
        getComputedStyle(cell, "::before").content, cell.getBoundingClientRect().right <= innerWidth, cell.clientHeight
    ])"""
    assert [each[:2] for each in cells.evaluate_all(read)] == [["none", True], ['"n"', True], ['"why"', True]]
    opened.tab.set_viewport_size(DESKTOP)
    assert {each[2] for each in cells.evaluate_all(read)} == {
        cells.first.evaluate("(cell) => cell.clientHeight")
    }
    opened.tab.context.close()


def test_every_plot_has_its_words(opened: Opened) -> None:
    for place in opened.tab.locator(".drawing").all():
        assert place.get_attribute("role") == "img"
        assert place.get_attribute("aria-label").startswith("alternative text of the")
    # What is drawn is not read beside them.
    shown = """[...document.querySelectorAll(".drawing svg, .drawing canvas")]
        .filter((each) => !each.closest("[aria-hidden=true]")).length"""
    assert opened.tab.evaluate(shown) == 0


def test_several_parts_are_numbered_and_found_by_links(opened: Opened) -> None:
    links = opened.tab.locator(".bar nav a")
    assert [each.strip()[:3] for each in links.all_inner_texts()] == ["1 t", "2 n", "3 t"]
    assert [each[:3] for each in opened.tab.locator("h1").all_inner_texts()] == ["3 r", "1 t", "2 n", "3 t"]
    targets = opened.tab.evaluate(
        "[...document.querySelectorAll('.bar nav a, .contents a, .within a')].map((a) => a.getAttribute('href'))"
    )
    assert len(targets) == 3 + 3 + 6 + 1 + 6
    assert opened.tab.evaluate(
        "(all) => all.every((to) => document.querySelectorAll(to).length === 1)", targets
    )
    opened.tab.locator("#part-2").scroll_into_view_if_needed()
    opened.tab.evaluate("document.querySelector('#part-2').scrollIntoView()")
    opened.tab.wait_for_selector(".bar nav a[aria-current][href='#part-2']")
    assert opened.tab.locator(".bar nav a[aria-current]").count() == 1


def test_a_print_shows_all_on_white(opened: Opened) -> None:
    tab = opened.tab
    tab.click("#theme")
    tab.wait_for_selector("html[data-theme=dark]", state="attached")
    tab.locator("details.fold").first.evaluate("(fold) => (fold.open = false)")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    opened.draw_all()
    tab.emulate_media(media="print")
    assert {each.get_attribute("data-drawn") for each in tab.locator(".drawing").all()} == {"light"}
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.locator("details.fold:not([open])").count() == 0
    assert not any(
        each.is_visible() for each in tab.locator(".bar, .copy, .dt-search, .drawing summary").all()
    )
    tab.emulate_media(media="screen")
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
    tab.click("#theme")
    assert opened.is_quiet(), opened


@pytest.mark.slow
def test_a_page_becomes_a_pdf(opener: Opener) -> None:
    opened = opener(every_block(long=2), color_scheme="dark")
    opened.draw_all()
    assert opened.tab.pdf()[:5] == b"%PDF-"
    assert opened.is_quiet(), opened


def test_another_script_is_refused_and_nothing_is_fetched(opened: Opened) -> None:
    tries = """() => {
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
        const place = document.createElement("div");
        place.innerHTML = "<img src='data:,x' onerror='window.ran = true'><a href='javascript:window.ran=true'>a</a>";
        document.body.append(place);
        place.querySelector("a").click();
        setTimeout("window.ran = true");
        return fetch("https://example.org").then(() => "fetched", () => "refused");
    }"""
    assert opened.tab.evaluate(tries) == "refused"
    opened.tab.evaluate("new Promise((done) => setTimeout(done, 50))")
    assert opened.tab.evaluate("window.ran") is None
    assert sum("Content Security Policy" in text for text in opened.said) >= 4
    assert opened.requests == []


@pytest.mark.slow
def test_a_large_page_makes_and_draws_what_is_near(opener: Opener) -> None:
    blocks = tuple(section for section in every_block(rows=5000).sections for _ in range(2))
    opened = opener(Part("large", "", "", sections=blocks))
    assert (
        opened.tab.evaluate(
            "Math.max(...[...document.querySelectorAll('table')].map((each) => each.rows.length))"
        )
        <= 26
    )
    opened.tab.wait_for_selector(".drawing[data-drawn]")
    assert opened.tab.evaluate("document.getElementsByTagName('*').length") < 4000
    # What is far is drawn when the browser has time.
    opened.tab.wait_for_function("() => document.querySelectorAll('.drawing:not([data-drawn])').length === 0")
    assert opened.is_quiet(), opened
