"""Arguments that have memory in common: what is stored must not change what was loaded before, as on a GPU."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

N = 64


@triton.jit
def reverse(x_ptr, y_ptr, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(y_ptr + (N - 1 - i), tl.load(x_ptr + i))


@triton.jit
def shift_up(x_ptr, y_ptr, N: tl.constexpr):
    i = tl.arange(0, N)
    x = tl.load(x_ptr + i, mask=i < N - 1)
    tl.store(y_ptr + i + 1, x, mask=i < N - 1)


@triton.jit
def transpose(x_ptr, y_ptr, N: tl.constexpr):
    i, j = tl.arange(0, N)[:, None], tl.arange(0, N)[None, :]
    tl.store(y_ptr + i * N + j, tl.trans(tl.load(x_ptr + i * N + j)))


@triton.jit
def rotate_half(x_ptr, y_ptr, N: tl.constexpr):
    i = tl.arange(0, N)
    row = tl.program_id(0) * N
    other = tl.load(x_ptr + row + (i + N // 2) % N)
    tl.store(y_ptr + row + i, tl.load(x_ptr + row + i) + tl.where(i < N // 2, -other, other))


@triton.jit
def add(x_ptr, y_ptr, sum_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x, y = tl.load(x_ptr + i, mask=i < n), tl.load(y_ptr + i, mask=i < n)
    tl.store(sum_ptr + i, x + y, mask=i < n)


@triton.jit
def first_of_all(x_ptr, y_ptr, N: tl.constexpr):
    """A scalar that is loaded behind a store of a tile."""
    i = tl.arange(0, N)
    tl.store(y_ptr + i, tl.load(x_ptr + N - 1 - i))
    tl.store(y_ptr + N, tl.load(x_ptr))


@triton.jit
def count_up(x_ptr, N: tl.constexpr):
    """Lanes that share elements: all have loaded before one stores."""
    place = x_ptr + tl.arange(0, N) % 4
    tl.store(place, tl.load(place) + 1)


@triton.jit
def count_up_all(x_ptr, N: tl.constexpr):
    place = x_ptr + tl.zeros([N], tl.int32)
    tl.store(place, tl.load(place) + 1)


def rotated(x: Tensor) -> Tensor:
    first, second = x.chunk(2, 1)
    return x + torch.cat([-second, first], 1)


@pytest.mark.parametrize(
    ("kernel", "shape", "expected"),
    [
        (reverse, (N,), lambda x: x.flip(0)),
        (shift_up, (N,), lambda x: torch.cat([x[:1], x[:-1]])),
        (transpose, (N, N), lambda x: x.T.contiguous()),
        (rotate_half, (3, N), rotated),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_in_place_is_as_out_of_place(kernel: Any, shape: tuple[int, ...], expected: Any) -> None:
    x = torch.randn(shape)
    want = expected(x)
    kernel[(3 if len(shape) == 2 and shape[0] == 3 else 1,)](x, x, N=N)
    assert torch.equal(x, want)


@pytest.mark.parametrize("offset", [-17, -1, 1, 5, 63])
def test_parts_of_one_tensor_may_overlap(offset: int) -> None:
    buffer, y = torch.randn(3 * N), torch.randn(N)
    x, result = buffer[N : 2 * N], buffer[N + offset : 2 * N + offset]
    want = x + y
    add[(1,)](x, y, result, N, BLOCK=N)
    assert torch.equal(result, want)


def test_what_is_loaded_behind_a_store_is_what_was_stored() -> None:
    x = torch.arange(N + 1.0)
    first_of_all[(1,)](x, x, N=N)
    assert x.tolist() == [*reversed(range(N)), N - 1]


@pytest.mark.parametrize(("kernel", "expected"), [(count_up, [1] * 4), (count_up_all, [1, 0, 0, 0])])
def test_lanes_that_share_an_element_have_all_loaded_before_one_stores(
    kernel: Any, expected: list[int]
) -> None:
    x = torch.zeros(4)
    kernel[(1,)](x, N=N)
    assert x.tolist() == expected


@triton.jit
def columns(x_ptr, y_ptr, stride, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(y_ptr + (N - 1 - i) * stride, tl.load(x_ptr + i * stride))


def test_views_through_gaps_of_each_other_are_right() -> None:
    pairs = torch.randn(N, 2)
    want = pairs[:, 0].flip(0).clone()
    columns[(1,)](pairs[:, 0], pairs[:, 1], 2, N=N)
    assert torch.equal(pairs[:, 1], want)


@triton.jit(noinline=True)
def reverse_apart(x_ptr, y_ptr, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(y_ptr + (N - 1 - i), tl.load(x_ptr + i))


@triton.jit
def reverse_by_call(x_ptr, y_ptr, N: tl.constexpr):
    reverse_apart(x_ptr, y_ptr, N)


def test_a_function_that_is_called_takes_nothing_for_granted() -> None:
    x = torch.arange(float(N))
    reverse_by_call[(1,)](x, x, N=N)
    assert x.tolist() == [*reversed(range(N))]


def test_addresses_instead_of_tensors_are_looked_at_too() -> None:
    x = torch.arange(float(N))

    class Address:
        dtype = torch.float32

        def data_ptr(self) -> int:
            return x.data_ptr()

    reverse[(1,)](x, Address(), N=N)
    assert x.tolist() == [*reversed(range(N))]


def test_memory_of_two_storages_is_looked_at_too() -> None:
    memory = (ctypes.c_float * N)(*range(N))
    x, y = (torch.frombuffer(memory, dtype=torch.float32) for _ in range(2))
    reverse[(1,)](x, y, N=N)
    assert x.tolist() == [*reversed(range(N))]


def test_what_is_told_apart_is_compiled_once_more_and_only_where_it_matters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[bool] = []
    compile_ = triton.compile

    def noted(source: Any, target: Any, options: dict[str, Any]) -> Any:
        compiled.append(options["arguments_overlap"])
        return compile_(source, target, options)

    monkeypatch.setattr(triton, "compile", noted)
    x, y, buffer = torch.randn(N), torch.randn(N), torch.randn(2 * N)
    kernel = add[(1,)](x, y, torch.empty(N), N, BLOCK=2 * N)
    add[(1,)](x, y, x, N, BLOCK=2 * N)  # each lane writes what it alone has read
    add[(1,)](x, x, y, N, BLOCK=2 * N)  # nothing is written to what both are
    add[(1,)](buffer[:N], y, buffer[N:], N, BLOCK=2 * N)  # side by side
    assert compiled == []
    for _ in range(2):
        add[(1,)](buffer[:N], y, buffer[4 : N + 4], N, BLOCK=2 * N)
    assert compiled == [True]
    # A launch whose arguments are packed once looks as well.
    want = buffer[:N] + y
    again = kernel.run.bind(1, 1, 1, kernel.function, True, buffer[:N], y, buffer[4 : N + 4], N, 2 * N)
    again()
    assert torch.equal(buffer[4 : N + 4], want)
    assert compiled == [True]


def test_hooks_hear_of_a_launch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    runtime = triton.knobs.runtime
    monkeypatch.setattr(runtime.launch_enter_hook, "calls", [lambda metadata: heard.append("enter")])
    monkeypatch.setattr(runtime.launch_exit_hook, "calls", [lambda metadata: heard.append("exit")])
    x = torch.arange(float(N))
    reverse[(1,)](x, x, N=N)
    assert heard == ["enter", "exit"]
    assert x.tolist() == [*reversed(range(N))]
