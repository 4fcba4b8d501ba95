"""Ten thousand steps with weight decay, in every dtype, stay as close to float64 as torch's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kernels.long_trajectories import CASES, DTYPES, assert_long_trajectory_within_bound

INTERPRETED = Path(__file__).parent / "interpreted" / "test_long_trajectories.py"


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtypes", DTYPES)
@pytest.mark.parametrize(("fused_class", "torch_class", "options"), CASES)
def test_ten_thousand_steps_with_weight_decay_stay_within_the_bound(
    fused_class: Any, torch_class: Any, options: dict[str, Any], dtypes: Sequence[torch.dtype]
) -> None:
    assert_long_trajectory_within_bound(fused_class, torch_class, options, dtypes, steps=10_000)


@pytest.mark.exhaustive
def test_the_kernels_themselves_stay_within_the_bound_over_more_steps() -> None:
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-m",
            "exhaustive",
            str(INTERPRETED),
        ],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=INTERPRETED.parents[3],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "6 passed" in process.stdout
