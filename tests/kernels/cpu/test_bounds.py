"""The larger and the smaller of a float and a number that the compiler knows: as IEEE 754 has it, zeros and NaN too."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

_SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 1e-45, -1e-45, 65504.0, np.inf, -np.inf, np.nan]
_BOUNDS = [0.0, -0.0, 1.0, -1.0, 2.5, float("inf"), float("-inf"), float("nan")]


@triton.jit
def bounds(
    x_ptr, larger_ptr, smaller_ptr, turned_ptr, BOUND: tl.constexpr, SIGN: tl.constexpr, SIZE: tl.constexpr
):
    i = tl.arange(0, SIZE)
    x = tl.load(x_ptr + i)
    bound = tl.full((SIZE,), BOUND, x.dtype) * SIGN  # Triton takes the literal -0.0 for 0.0
    tl.store(larger_ptr + i, tl.maximum(x, bound, propagate_nan=tl.PropagateNan.ALL))
    tl.store(smaller_ptr + i, tl.minimum(x, bound, propagate_nan=tl.PropagateNan.ALL))
    tl.store(turned_ptr + i, tl.maximum(bound, x, propagate_nan=tl.PropagateNan.ALL))


def ordered(x: np.ndarray, bound: float, larger: bool) -> np.ndarray:
    """IEEE 754's maximum and minimum: by value, then -0 before 0, and NaN where one is."""
    wide = x.astype(np.float64)
    both = [(float(a), float(bound)) for a in wide]
    pick = max if larger else min
    return np.array(
        [
            np.nan if a != a or b != b else pick((a, b), key=lambda value: (value, np.copysign(1.0, value)))
            for a, b in both
        ]
    )


@pytest.mark.parametrize("bound", _BOUNDS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_larger_and_smaller_than_a_known_number(dtype: torch.dtype, bound: float) -> None:
    x = torch.tensor([*_SPECIAL, *[0.0] * (16 - len(_SPECIAL))], dtype=torch.float64).to(dtype)
    larger, smaller, turned = (torch.empty_like(x) for _ in range(3))
    bounds[(1,)](x, larger, smaller, turned, BOUND=abs(bound), SIGN=math.copysign(1.0, bound), SIZE=16)
    exact = x.double().numpy()
    for got, wanted in (
        (larger, ordered(exact, bound, True)),
        (smaller, ordered(exact, bound, False)),
        (turned, ordered(exact, bound, True)),
    ):
        found = got.double().numpy()
        np.testing.assert_array_equal(found, wanted)
        telling = ~np.isnan(wanted)
        np.testing.assert_array_equal(np.signbit(found)[telling], np.signbit(wanted)[telling])
