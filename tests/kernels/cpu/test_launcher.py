"""What a launch is given: grids, numbers and tensors that cannot be taken as they are."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from torch._subclasses.fake_tensor import FakeTensorMode


@triton.jit
def counted(count_ptr):
    tl.atomic_add(count_ptr, 1)


def programs(*grid: int) -> int:
    count = torch.zeros(1, dtype=torch.int32)
    counted[grid](count)
    return int(count.item())


@pytest.mark.parametrize("grid", [(0,), (3, 0), (0, 1 << 31 - 1), (7,), (3, 4, 5), (1, 1, 9)])
def test_grids_run_as_many_programs_as_they_say(grid: tuple[int, ...]) -> None:
    assert programs(*grid) == math.prod(grid)


@pytest.mark.parametrize("grid", [(2**32 + 2,), (2**31,), (-1,), (2, -3), (1, 2**32 + 1), (2**31 - 1,) * 3])
@pytest.mark.parametrize("way", ["launch", "bind"])
def test_other_grids_are_refused_by_name_and_size(grid: tuple[int, ...], way: str) -> None:
    sizes = (*grid, 1, 1)[:3]
    count = torch.zeros(1, dtype=torch.int32)
    compiled = counted.warmup(count, grid=(1,))
    ways = {
        "launch": lambda: counted[grid](count),
        "bind": lambda: compiled.run.bind(*sizes, compiled.function, False, count),
    }
    with pytest.raises(ValueError, match=f"counted: a grid of {' x '.join(map(str, sizes))} programs"):
        ways[way]()
    assert count.item() == 0


@triton.jit
def met(count_ptr, n):
    """Each program waits until all have begun."""
    tl.atomic_add(count_ptr, 1)
    while tl.atomic_add(count_ptr, 0) < n:
        pass


def test_programs_that_wait_for_each_other_run_at_once() -> None:
    count = torch.zeros(1, dtype=torch.int32)
    met[(5, 3)](count, 15, launch_cooperative_grid=True)
    assert count.item() == 15


def test_more_of_them_than_can_run_at_once_are_refused() -> None:
    count = torch.zeros(1, dtype=torch.int32)
    said = "met: launch_cooperative_grid=True .* there are 1025 of them; at most 1024 can"
    with pytest.raises(ValueError, match=said):
        met[(1025,)](count, 1025, launch_cooperative_grid=True)
    assert count.item() == 0


@triton.jit
def filled(x_ptr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(x_ptr + i, i.to(tl.float32))


def fake() -> torch.Tensor:
    with FakeTensorMode():
        return torch.empty(16)


def freed() -> torch.Tensor:
    x = torch.empty(16)
    x.untyped_storage().resize_(0)
    return x


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("make", [fake, freed])
def test_a_tensor_without_memory_is_refused(make: Any) -> None:
    compiled = filled.warmup(torch.float32, SIZE=16, grid=(1,))
    with pytest.raises(ValueError, match=r"a pointer argument has no memory: a .*Tensor of 16 elements"):
        compiled[1, 1, 1](make(), 16)
    with pytest.raises(ValueError, match="has no memory"):
        compiled.run.bind(1, 1, 1, compiled.function, False, make(), 16)


@triton.jit
def nothing_stored(x_ptr, n, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(x_ptr + i, 1.0, mask=i < n)


def test_an_empty_tensor_is_taken() -> None:
    x = torch.empty(0)
    assert x.data_ptr() == 0
    nothing_stored[(1,)](x, 0, SIZE=16)


@triton.jit
def kept_fp32(y_ptr, value: tl.float32):
    tl.store(y_ptr, value.to(tl.float64))


@triton.jit
def kept_fp16(y_ptr, value: tl.float16):
    tl.store(y_ptr, value.to(tl.float64))


@triton.jit
def kept_bf16(y_ptr, value: tl.bfloat16):
    tl.store(y_ptr, value.to(tl.float64))


@pytest.mark.parametrize("value", [1e300, -1e300, 3.5e38, 65520.0, -65519.0, 1.0, math.inf, 10**39])
@pytest.mark.parametrize(
    ("kernel", "dtype"), [(kept_fp32, torch.float32), (kept_fp16, torch.float16), (kept_bf16, torch.bfloat16)]
)
def test_floats_are_converted_as_by_c(kernel: Any, dtype: torch.dtype, value: float) -> None:
    y = torch.zeros(1, dtype=torch.float64)
    kernel[(1,)](y, float(value))
    assert y.item() == torch.tensor(float(value), dtype=torch.float64).to(dtype).item()
    if dtype == torch.float32:
        with np.errstate(over="ignore"):
            assert y.item() == np.float64(value).astype(np.float32)


@triton.jit
def kept_i8(y_ptr, value: tl.int8):
    tl.store(y_ptr, value.to(tl.int32))


@triton.jit
def kept_in_tuple(y_ptr, values):
    tl.store(y_ptr, values[0] + values[1])


def test_an_integer_beyond_its_type_is_refused_by_name() -> None:
    y = torch.zeros(1, dtype=torch.int32)
    kept_i8[(1,)](y, -128)
    assert y.item() == -128
    with pytest.raises(
        ValueError, match="kept_i8: the argument value is 300, which its type i8 cannot represent"
    ):
        kept_i8[(1,)](y, 300)
    compiled = kept_i8.warmup(y, 1, grid=(1,))
    with pytest.raises(ValueError, match="the argument value is None, which its type i8"):
        compiled[1, 1, 1](y, None)


def test_a_number_in_a_tuple_is_named_by_its_place() -> None:
    y = torch.zeros(1)
    kept_in_tuple[(1,)](y, (1.0, 1e300))
    assert y.item() == math.inf
    compiled = kept_in_tuple.warmup(y, (1.0, 2.0), grid=(1,))
    with pytest.raises(ValueError, match=r"the argument values\[1\] is 'x', which its type fp32"):
        compiled[1, 1, 1](y, (1.0, "x"))
