"""Whatever ends a run, and whatever it does to its files: after --resume nothing is lost, doubled or changed.

`make chaos` runs 200 rounds here and 50 on a cluster; CI runs a few here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def rounds(count: str, seed: str) -> int:
    """Run rounds in a process of their own, which forks. What it prints is shown as it comes."""
    environment = {**os.environ, "CHAOS_ROUNDS": count, "CHAOS_SEED": seed}
    return subprocess.run([sys.executable, "-m", "tests.chaos"], cwd=ROOT, env=environment).returncode


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_runs_of_every_kind_come_out_right_after_a_few_disasters() -> None:
    assert rounds("4", "0") == 0


@pytest.mark.chaos
@pytest.mark.timeout(0)
def test_runs_of_every_kind_come_out_right_after_many_disasters() -> None:
    assert rounds(os.environ.get("CHAOS_ROUNDS", "200"), os.environ.get("CHAOS_SEED", "0")) == 0


@pytest.mark.chaos
@pytest.mark.timeout(0)
def test_runs_on_a_cluster_come_out_right_after_many_disasters() -> None:
    assert subprocess.run([sys.executable, "-m", "tests.chaos.clusters"], cwd=ROOT).returncode == 0
