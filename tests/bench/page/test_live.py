"""A page that loads itself again in a real Chromium: the reader stays where she was, in the theme that she chose."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from fusetune.bench.page import Page, render
from tests.bench.page.browser import PHONE, Opened, open_page
from tests.bench.page.every_block import every_block

THEME = "document.documentElement.dataset.theme"
PLACE = "Math.round(window.scrollY)"


def write(path: Path, status: str, refresh_s: int | None) -> None:
    part = dataclasses.replace(every_block(), status=status)
    path.write_bytes(render(Page("live", (part,), refresh_s)).encode())


def wait_for(opened: Opened, status: str) -> None:
    opened.tab.wait_for_function(
        "(text) => document.documentElement.dataset.ready && document.querySelector('.status')?.textContent === text",
        arg=status,
        timeout=20_000,
    )


@pytest.mark.slow
def test_place_and_theme_outlast_the_loads_of_a_run_that_goes_on(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "live.html"
    write(path, "Running: 1 of 3 trials.", 1)
    opened = open_page(browser, path, color_scheme="light")
    opened.tab.locator("#theme").click()
    opened.tab.evaluate("window.scrollTo(0, 700)")
    for status, refresh_s in (("Running: 2 of 3 trials.", 1), ("Running: 3 of 3 trials.", None)):
        write(path, status, refresh_s)
        wait_for(opened, status)
        assert opened.tab.evaluate(THEME) == "dark"
        assert opened.tab.evaluate(PLACE) == pytest.approx(700, abs=2)
    assert opened.is_quiet(), opened
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
