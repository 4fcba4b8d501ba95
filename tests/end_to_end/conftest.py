"""Run the command line as a person does: another process, in a directory of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.page import assets

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str
    directory: Path

    @property
    def run_directory(self) -> Path:
        """The only run directory there is."""
        (found,) = self.directory.glob("results/*/*/run.json")
        return found.parent

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records of the only run."""
        return [json.loads(line) for line in (self.run_directory / "records.jsonl").read_text().splitlines()]

    @property
    def run(self) -> dict[str, Any]:
        """The only run's run.json."""
        return json.loads((self.run_directory / "run.json").read_text())


def give_page_script(cache: Path) -> None:
    """Put the script of a page's plots into a user's cache: a command would take seconds of a processor to make it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        kept = assets._kept_script()
    if kept is not None and not kept.exists():
        kept.write_text(assets.plots_script(), encoding="utf-8")


def environment(directory: Path) -> dict[str, str]:
    """No cached data, no network, no colour; the code of this checkout."""
    give_page_script(directory / "cache")
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "XDG_CACHE_HOME": str(directory / "cache"),
        "MPLCONFIGDIR": str(
            directory.parent / "matplotlib"
        ),  # a list of fonts, which is made once for all tests
        "BENCH_DATA": str(directory / "no-data"),
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "NO_COLOR": "1",
        "COLUMNS": "100",
    }


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Done]:
    """Return a function that runs `python -m bench ...` in the test's directory."""

    def run(*arguments: str, **extra: str) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "fusetune.bench", *arguments],
            cwd=tmp_path,
            env={**environment(tmp_path), **extra},
            capture_output=True,
            text=True,
            timeout=240,
        )
        return Done(done.returncode, done.stdout, done.stderr, tmp_path)

    return run
