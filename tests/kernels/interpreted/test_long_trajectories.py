"""Many steps with weight decay by the kernels themselves; `make exhaustive` takes more of them.

Not in bf16: the interpreter cuts fp32 off where a GPU rounds to nearest, and that adds up over the steps.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.kernels.long_trajectories import CASES, assert_long_trajectory_within_bound


@pytest.mark.parametrize("steps", [20, pytest.param(200, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("fused_class", "torch_class", "options"), CASES)
def test_the_kernel_stays_within_the_bound(
    fused_class: Any, torch_class: Any, options: dict[str, Any], dtype: torch.dtype, steps: int
) -> None:
    assert_long_trajectory_within_bound(fused_class, torch_class, options, (dtype,), steps)
