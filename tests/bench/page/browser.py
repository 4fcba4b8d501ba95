"""A real Chromium, and what a page does in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ViewportSize, sync_playwright
from playwright.sync_api import Page as Tab

PHONE: ViewportSize = {"width": 390, "height": 844}
DESKTOP: ViewportSize = {"width": 1280, "height": 900}
_NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Opened:
    """A page in a tab, with what happened since it was opened.

    Args:
        tab: of Playwright.
        said: warnings and errors of the console, and errors that no script caught.
        requests: addresses that were asked for, apart from the page's own and what it holds itself.
        dialogs: texts of alerts and the like.
    """

    tab: Tab
    said: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def draw_all(self) -> None:
        """Draw all plots, and wait for them."""
        self.tab.evaluate("drawAll()")

    def forget(self) -> None:
        """Forget what happened so far."""
        for happened in (self.said, self.requests, self.dialogs):
            happened.clear()

    def is_quiet(self) -> bool:
        """Return whether nothing was said, asked for or opened."""
        return not (self.said or self.requests or self.dialogs)


def browser_program() -> str:
    """Return the path of this machine's Chromium. Skips the test where there is none."""
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(
            f"needs a browser: none of {', '.join(_NAMES)} is on the PATH. Try `apt-get install chromium`"
        )
    return program


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the Chromium of this machine. Skips the test where there is none."""
    program = browser_program()
    with sync_playwright() as playwright:
        # Root has no sandbox in a container.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def open_page(browser: Browser, path: Path, **options: Any) -> Opened:
    """Open a page from the disk, and wait until its script has run to its end.

    Args:
        browser: from `chromium`.
        path: absolute.
        options: of Playwright's `new_context`, such as `viewport` and `color_scheme`.
    """
    tab = browser.new_context(**{"viewport": DESKTOP, **options}).new_page()
    tab.set_default_timeout(120_000)  # a machine with much else to do
    opened = Opened(tab)
    own = path.as_uri()

    def asked(url: str) -> None:
        if url.split("#")[0] != own and not url.startswith(("data:", "blob:")):
            opened.requests.append(url)

    def dialog(shown: Any) -> None:
        opened.dialogs.append(shown.message)
        shown.dismiss()

    tab.on(
        "console", lambda each: opened.said.append(each.text) if each.type in ("error", "warning") else None
    )
    tab.on("pageerror", lambda error: opened.said.append(str(error)))
    tab.on("request", lambda request: asked(request.url))
    tab.on("dialog", dialog)
    tab.goto(own)
    tab.wait_for_selector("html[data-ready]", state="attached")
    return opened
