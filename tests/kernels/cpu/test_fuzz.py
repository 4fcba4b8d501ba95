"""Random kernels, compiled for the CPU, store what Triton's interpreter stores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.kernels.cpu.random_kernels import random_kernel
from tests.kernels.cpu.run_random import run

ROOT = Path(__file__).parents[3]
QUICK = range(24)
MANY = range(1000, 1600)
# Functions of libmvec are within 4 ulp, sums of 128 terms within 128 roundings of their largest partial sum.
_RELATIVE = 1e-4


def interpreted(folder: Path, seeds: range) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.cpu.interpret", str(folder), *map(str, seeds)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def difference(folder: Path, seed: int) -> str | None:
    """What the compiled kernel stores otherwise than the interpreted one; None where they agree."""
    kernel = random_kernel(seed)
    expected = np.load(folder / f"{seed}.npz")
    for place, (got, (letter, exact)) in enumerate(zip(run(folder, seed), kernel.outputs, strict=True)):
        wanted = expected[f"arr_{place}"]
        if exact:
            right = (got == wanted) | ((got != got) & (wanted != wanted))
        else:
            finite = np.abs(wanted[np.isfinite(wanted)].astype(np.float64))
            scale = _RELATIVE * max(1.0, float(finite.max(initial=0.0))) * (10 if letter == "h" else 1)
            with np.errstate(all="ignore"):
                close = np.abs(got.astype(np.float64) - wanted.astype(np.float64)) <= scale
            right = close | (got == wanted) | ((got != got) & (wanted != wanted))
        if not right.all():
            at = int(np.argmin(right))
            return (
                f"seed {seed}: out{place}[{at}] is {got[at]!r}, interpreted {wanted[at]!r}\n{kernel.source}"
            )
    return None


def differences(folder: Path, seeds: range) -> list[str]:
    """The differences of all kernels; a few the interpreter cannot run (sums that wrap around)."""
    interpreted(folder, seeds)
    judged = [seed for seed in seeds if (folder / f"{seed}.npz").exists()]
    assert len(judged) > 0.9 * len(seeds)
    return [found for seed in judged if (found := difference(folder, seed))]


def test_random_kernels_agree_with_the_interpreter(tmp_path: Path) -> None:
    assert differences(tmp_path, QUICK) == []


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_many_random_kernels_agree_with_the_interpreter(tmp_path: Path) -> None:
    assert differences(tmp_path, MANY) == []
