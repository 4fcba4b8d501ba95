"""Random kernels, compiled for the CPU, store what NumPy works out, and what Triton's interpreter stores.

`FUZZ_KERNELS=5000 FUZZ_SEED=77 pytest -m exhaustive tests/kernels/cpu/test_fuzz.py` runs 5000 others, and with
`FUSETUNE_CHECK_TILES=1` these check that the tiles that they keep are whole.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import triton

from fusetune.kernels.cpu import toolchain
from fusetune.kernels.cpu.compiler import CHECK_BOUNDS
from fusetune.kernels.cpu.lowering import band
from tests.kernels.cpu.random_kernels import random_kernel
from tests.kernels.cpu.run_random import differences

ROOT = Path(__file__).parents[3]
# What this package does is the same at every level of the C compiler, and that is done in a third of the time without.
# CI runs the first of each list, and `make exhaustive` all.
UNOPTIMIZED = [range(start, start + 60) for start in range(0, 240, 60)]
OPTIMIZED = [range(start, start + 12) for start in (500, 512)]
PLANTED = range(600, 625)
WITHIN_BOUNDS = [range(start, start + 20) for start in (91020, 700)]  # gcc 12 fails on vectors for 91034
CHECKED = [range(start, start + 40) for start in range(600, 680, 40)]
INTERPRETED = range(0, 120, 3)
MANY = int(os.environ.get("FUZZ_KERNELS", "1500"))
FIRST = int(os.environ.get("FUZZ_SEED", "10000"))
# The interpreter works out some sums in Python's integers, which do not wrap around.
_INTERPRETER_FAILS = "out of bounds for int"


def first_of(ranges: list[range]) -> list[object]:
    """Return parameters of which the first is slow, and the others are exhaustive."""
    marks = [pytest.mark.slow, *[pytest.mark.exhaustive] * (len(ranges) - 1)]
    return [
        pytest.param(seeds, marks=mark, id=f"from_{seeds.start}")
        for seeds, mark in zip(ranges, marks, strict=True)
    ]


@pytest.fixture
def unoptimized(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = (*toolchain.flags(), "-O0")
    monkeypatch.setattr(toolchain, "flags", lambda: flags)


def interpreted(folder: Path, seeds: list[int]) -> list[str]:
    """What the interpreter stores otherwise, in a process of its own: it is chosen while Triton is imported."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.cpu.run_random", str(folder), *map(str, seeds)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [(folder / f"{seed}.txt").read_text() for seed in seeds]
    failed = [text for text in found if _INTERPRETER_FAILS in text]
    assert len(failed) <= 0.1 * len(seeds)
    return [text for text in found if text and text not in failed]


@pytest.mark.usefixtures("unoptimized")
@pytest.mark.parametrize("seeds", first_of(UNOPTIMIZED))
def test_random_kernels_store_what_numpy_works_out(seeds: range, tmp_path: Path) -> None:
    assert differences(tmp_path, seeds) == []


@pytest.mark.parametrize("seeds", first_of(WITHIN_BOUNDS))
def test_random_kernels_stay_within_their_tensors(
    seeds: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CHECK_BOUNDS, "1")
    assert differences(tmp_path, seeds) == []


@pytest.mark.usefixtures("unoptimized")
@pytest.mark.parametrize("seeds", first_of(CHECKED))
def test_what_random_kernels_keep_is_whole(
    seeds: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSETUNE_CHECK_TILES", "1")
    assert differences(tmp_path, seeds) == []


@pytest.mark.slow
@pytest.mark.usefixtures("unoptimized")
def test_random_kernels_find_what_is_kept_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check tells of each kernel whose numbers a planted fault makes wrong."""
    monkeypatch.setattr(band.Band, "_covers", lambda *_: True)
    found = {}
    for value in ("0", "1"):
        monkeypatch.setenv("FUSETUNE_CHECK_TILES", value)
        folder = tmp_path / value
        folder.mkdir()
        with triton.knobs.cache.scope():
            triton.knobs.cache.dir = str(folder)
            found[value] = differences(folder, PLANTED)
    wrong, told = ({text.split(":")[0] for text in texts} for texts in found.values())
    assert wrong
    assert wrong <= told
    assert all("was not kept in full" in text for text in found["1"])


@pytest.mark.parametrize("seeds", first_of(OPTIMIZED))
def test_the_compilers_optimizations_change_nothing(seeds: range, tmp_path: Path) -> None:
    assert differences(tmp_path, seeds) == []


@pytest.mark.slow
def test_the_interpreter_agrees_where_it_is_right(tmp_path: Path) -> None:
    assert all(random_kernel(seed).is_plain for seed in INTERPRETED)
    assert interpreted(tmp_path, list(INTERPRETED)) == []


@pytest.mark.exhaustive
@pytest.mark.timeout(36000)
def test_many_random_kernels(tmp_path: Path) -> None:
    seeds = range(FIRST, FIRST + MANY)
    assert differences(tmp_path, seeds) == []
    assert interpreted(tmp_path, [seed for seed in seeds if random_kernel(seed).is_plain]) == []
