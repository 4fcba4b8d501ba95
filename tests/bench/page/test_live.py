"""A page that loads itself again in a real Chromium: the reader stays where she was, in the theme that she chose."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ViewportSize

from fusetune.bench.page import Page, render
from tests.bench.page.browser import DESKTOP, PHONE, Opened, open_page
from tests.bench.page.every_block import every_block

THEME = "document.documentElement.dataset.theme"
# Where the things on the page stand in the window. What is in a closed fold stands nowhere.
PLACES = """
() => Object.fromEntries([...document.querySelectorAll("main section, .drawing")]
  .filter((each) => each.checkVisibility()).map((each) => [each.id, Math.round(each.getBoundingClientRect().top)]))
"""
LONGER_THAN_A_TEST_S = 3600


def write(path: Path, status: str, refresh_s: int | None) -> None:
    part = dataclasses.replace(every_block(), status=status)
    path.write_bytes(render(Page("live", (part,), refresh_s)).encode())


def wait_for(opened: Opened, status: str) -> None:
    opened.tab.wait_for_function(
        "(text) => document.documentElement.dataset.ready && document.querySelector('.status')?.textContent === text",
        arg=status,
        timeout=120_000,
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_reader_stays_where_she_was_when_a_run_goes_on(
    browser: Browser, tmp_path: Path, size: ViewportSize
) -> None:
    path = tmp_path / "live.html"
    write(path, "Running: 1 of 3 trials.", LONGER_THAN_A_TEST_S)
    opened = open_page(browser, path, color_scheme="light", viewport=size)
    opened.tab.locator("#theme").click()
    opened.draw_all()
    opened.tab.evaluate("window.scrollTo({ top: 1500, behavior: 'instant' })")
    before = opened.tab.evaluate(PLACES)
    assert opened.tab.evaluate("window.scrollY") == 1500
    for status in ("Running: 2 of 3 trials.", "Running: 3 of 3 trials."):
        write(path, status, LONGER_THAN_A_TEST_S)
        opened.tab.reload()
        wait_for(opened, status)
        assert opened.tab.evaluate(THEME) == "dark"
        assert opened.tab.evaluate(PLACES) == pytest.approx(before, abs=2), "before the plots are drawn"
        opened.draw_all()
        assert opened.tab.evaluate(PLACES) == pytest.approx(before, abs=2), "when they are drawn"
    assert opened.is_quiet(), opened
    opened.tab.context.close()


@pytest.mark.slow
def test_what_came_above_moves_nothing_that_is_in_view(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "live.html"
    write(path, "Running: 1 of 3 trials.", LONGER_THAN_A_TEST_S)
    opened = open_page(browser, path)
    opened.draw_all()
    seen = opened.tab.evaluate("document.querySelectorAll('main section')[2].id")
    opened.tab.evaluate("(id) => document.getElementById(id).scrollIntoView({ behavior: 'instant' })", seen)
    before = opened.tab.evaluate(PLACES)
    write(path, "Running: 2 of 3 trials. " + "There is much to be said of it. " * 40, LONGER_THAN_A_TEST_S)
    opened.tab.reload()
    opened.tab.wait_for_selector("html[data-ready]", state="attached")
    opened.draw_all()
    after = opened.tab.evaluate(PLACES)
    assert after[seen] == pytest.approx(before[seen], abs=2)
    opened.tab.context.close()


@pytest.mark.slow
def test_without_storage_a_page_loads_again_in_silence(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "live.html"
    write(path, "Running: 1 of 2 trials.", 1)
    context = browser.new_context()
    tab = context.new_page()
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    refuse = "{ get() { throw new DOMException('no', 'SecurityError'); } }"
    tab.add_init_script(f"Object.defineProperty(window, 'sessionStorage', {refuse})")
    tab.goto(path.as_uri())
    write(path, "Running: 2 of 2 trials.", None)
    wait_for(Opened(tab), "Running: 2 of 2 trials.")
    assert said == []
    context.close()


def test_a_status_stands_above_everything_and_is_no_markup(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "live.html"
    write(path, "Interrupted: continue with `bench run --resume <b>x</b>`.", None)
    opened = open_page(browser, path, viewport=PHONE)
    status = opened.tab.locator(".status")
    assert status.inner_text() == "Interrupted: continue with bench run --resume <b>x</b>."
    assert status.bounding_box()["y"] < opened.tab.locator(".answer").bounding_box()["y"]
    assert opened.tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    opened.tab.context.close()
