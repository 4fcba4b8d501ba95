"""One browser for all tests of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from fusetune.bench.page import Page, Part, render
from tests.bench.page.browser import Opened, chromium, open_page

Opener = Callable[..., Opened]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def opener(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opener]:
    """Open parts as one page: `opener(part, ..., viewport=PHONE)`. To open one takes about a second."""
    opened: list[Opened] = []

    def opens(*parts: Part, **options: Any) -> Opened:
        path: Path = tmp_path_factory.mktemp("pages") / "page.html"
        path.write_bytes(render(Page("tested", parts)).encode())
        opened.append(open_page(browser, path, **options))
        return opened[-1]

    yield opens
    for each in opened:
        each.tab.context.close()
