"""Writers that are killed at any time lose no entry and leave no wrong one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def killed(times: int, seed: int, cache: Path) -> dict[str, object]:
    """Run eight writers of which one after the other is killed. Returns what happened."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.autotune.writers", str(times), str(seed)],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode in (0, 1), done.stderr
    story: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return story


@pytest.mark.slow
def test_kills_lose_no_entry(tmp_path: Path) -> None:
    story = killed(40, 0, tmp_path)
    assert (story["lost"], story["wrong"]) == ([], [])
    assert story["kills"] >= 40  # type: ignore[operator]
    assert story["killed_while_writing"] != 0


@pytest.mark.chaos
def test_hundreds_of_kills_lose_no_entry(tmp_path: Path) -> None:
    """TUNING_KILLS and TUNING_SEED choose how many, and which."""
    kills, seed = (
        int(os.environ.get(name, value)) for name, value in (("TUNING_KILLS", 200), ("TUNING_SEED", 0))
    )
    story = killed(kills, seed, tmp_path)
    print(story)
    assert (story["lost"], story["wrong"]) == ([], [])
