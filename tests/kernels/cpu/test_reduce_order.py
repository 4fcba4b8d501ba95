"""A reduction whose operands cannot change places goes from the first element to the last, along any axis."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl


@triton.jit
def chained(a1, b1, a2, b2):
    """x -> a1 x + b1, and then x -> a2 x + b2."""
    return a1 * a2, b1 * a2 + b2


@triton.jit
def later(a, b):
    return b


@triton.jit
def first_set(a, b):
    return tl.where(a != 0, a, b)


@triton.jit
def last_largest(a, i, b, j):
    """On ties the second, whatever the places."""
    keep = a > b
    return tl.where(keep, a, b), tl.where(keep, i, j)


@triton.jit
def larger(a, i, b, j):
    keep = (a > b) | ((a == b) & (i < j))
    return tl.where(keep, a, b), tl.where(keep, i, j)


@triton.jit
def reduced_pairs(
    x_ptr, y_ptr, a_ptr, b_ptr, WHICH: tl.constexpr, R: tl.constexpr, C: tl.constexpr, AXIS: tl.constexpr
):
    i = tl.arange(0, R)[:, None] * C + tl.arange(0, C)[None, :]
    x, y = tl.load(x_ptr + i), tl.load(y_ptr + i)
    if WHICH == "chained":
        a, b = tl.reduce((x, y), AXIS, chained)
    elif WHICH == "larger":
        a, b = tl.reduce((x, y), AXIS, larger)
    else:
        a, b = tl.reduce((x, y), AXIS, last_largest)
    n = tl.arange(0, R if AXIS == 1 else C)
    tl.store(a_ptr + n, a)
    tl.store(b_ptr + n, b)


@triton.jit
def reduced(x_ptr, out_ptr, WHICH: tl.constexpr, R: tl.constexpr, C: tl.constexpr, AXIS: tl.constexpr):
    i = tl.arange(0, R)[:, None] * C + tl.arange(0, C)[None, :]
    x = tl.load(x_ptr + i)
    kept = tl.reduce(x, AXIS, later) if WHICH == "later" else tl.reduce(x, AXIS, first_set)
    tl.store(out_ptr + tl.arange(0, R if AXIS == 1 else C), kept)


SHAPES = [(4, 2), (4, 64), (2, 256), (2, 1024), (16, 8), (64, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_affine_maps_are_chained_in_order(shape: tuple[int, int], axis: int) -> None:
    """Exactly: in 32 bits, which wrap around."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randint(-9, 10, (2, *shape), generator=generator, dtype=torch.int32)
    left = shape[1 - axis]
    a, b = torch.empty(2, left, dtype=torch.int32)
    reduced_pairs[(1,)](x, y, a, b, "chained", *shape, AXIS=axis)
    wanted_a, wanted_b = np.ones(left, dtype=np.int32), np.zeros(left, dtype=np.int32)
    for place in range(shape[axis]):
        factor, summand = (np.take(each.numpy(), place, axis) for each in (x, y))
        wanted_a, wanted_b = wanted_a * factor, wanted_b * factor + summand
    assert np.array_equal(a.numpy(), wanted_a)
    assert np.array_equal(b.numpy(), wanted_b)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_the_last_and_the_first_are_those_of_the_axis(shape: tuple[int, int], axis: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(-1, 2, shape, generator=generator, dtype=torch.int32)
    last, first = torch.empty(2, shape[1 - axis], dtype=torch.int32)
    reduced[(1,)](x, last, "later", *shape, AXIS=axis)
    reduced[(1,)](x, first, "first_set", *shape, AXIS=axis)
    rows = x.numpy() if axis == 1 else x.numpy().T
    assert np.array_equal(last.numpy(), rows[:, -1])
    assert first.tolist() == [next((int(each) for each in row if each), 0) for row in rows]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("combine", ["larger", "last_largest"])
def test_among_equals_the_place_decides_or_the_order(shape: tuple[int, int], combine: str) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randint(0, 3, shape, generator=generator, dtype=torch.int32)
    places = torch.arange(shape[1], dtype=torch.int32).expand(shape).contiguous()
    a, b = torch.empty(2, shape[0], dtype=torch.int32)
    reduced_pairs[(1,)](x, places, a, b, combine, *shape, AXIS=1)
    assert np.array_equal(a.numpy(), x.numpy().max(1))
    backwards = shape[1] - 1 - x.numpy()[:, ::-1].argmax(1)
    assert np.array_equal(b.numpy(), x.numpy().argmax(1) if combine == "larger" else backwards)
