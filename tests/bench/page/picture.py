"""The README's picture: the top of the page of a shipped run, as Chromium shows it.

`make picture` writes docs/images/report.png, and `python -m tests.bench.page.picture FILE` another file. It needs
Chromium and Playwright.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from tests.bench.page.browser import chromium, open_page

ROOT = Path(__file__).parents[3]
RUN = ROOT / "results" / "examples" / "digits-rates"
PICTURE = ROOT / "docs" / "images" / "report.png"
WIDTH, SCALE, COLOURS, MARGIN = 1100, 2, 128, 16
# It shows the answer, the ranking and what the times are made of. What else is there would make it too tall.
LEFT_OUT = ".bar nav, .bar button, dl.facts, .part ~ section figure.table, .plot .menu, .vega-embed details"
LAST = "section[id$=ranking] figure.plot >> nth=1"


def take_picture(run: Path, path: Path) -> None:
    """Write the picture of a run's page, in the light theme, with two pixels for each of the page's.

    Args:
        run: a run's directory, or the folder of several.
        path: of the PNG file.
    """
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        page = Path(folder) / "report.html"
        report = [sys.executable, "-m", "fusetune.bench", "report", str(run), "--html", "--output", str(page)]
        subprocess.run(report, check=True, stdout=subprocess.DEVNULL)
        opened = open_page(
            browser,
            page,
            viewport={"width": WIDTH, "height": 900},
            device_scale_factor=SCALE,
            color_scheme="light",
        )
        opened.draw_all()
        opened.tab.add_style_tag(content=f"{LEFT_OUT} {{ display: none !important }}")
        end = opened.tab.locator(LAST).bounding_box()
        assert end is not None
        clip: Any = {"x": 0, "y": 0, "width": WIDTH, "height": end["y"] + end["height"] + MARGIN}
        taken = opened.tab.screenshot(full_page=True, clip=clip)
    with Image.open(io.BytesIO(taken)) as image:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    take_picture(RUN, Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE)
