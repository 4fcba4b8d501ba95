"""Arguments that have memory in common: what is stored must not change what was loaded before, as on a GPU."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

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


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each kernel that is compiled is one for arguments that overlap."""
    compiled: list[bool] = []
    compile_ = triton.compile

    def noted(source: Any, target: Any, options: dict[str, Any]) -> Any:
        compiled.append(options["arguments_overlap"])
        return compile_(source, target, options)

    monkeypatch.setattr(triton, "compile", noted)
    return compiled


def test_what_is_told_apart_is_compiled_once_more_and_only_where_it_matters(compiled: list[bool]) -> None:
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


# Strides that are known at launch only: with some, lanes share elements. All have loaded before one stores.


@triton.jit
def risen(x_ptr, s0, s1, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    place = x_ptr + tl.arange(0, ROWS)[:, None] * s0 + tl.arange(0, COLUMNS)[None, :] * s1
    tl.store(place, tl.load(place) + 1)


@triton.jit
def risen_by_two(x_ptr, y_ptr, s0, s1, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    place = tl.arange(0, ROWS)[:, None] * s0 + tl.arange(0, COLUMNS)[None, :] * s1
    tl.store(y_ptr + place, tl.load(x_ptr + place) + 1)


@triton.jit
def risen_twice(x_ptr, s0, s1, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    place = x_ptr + tl.arange(0, ROWS)[:, None] * s0 + tl.arange(0, COLUMNS)[None, :] * s1
    x = tl.load(place)
    tl.store(place, x)
    tl.store(place, x + 1)


@triton.jit
def risen_by_computed_strides(x_ptr, s0, s1, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    half, other = (s0 * 2) // 2, tl.minimum(s1, 1000)
    place = x_ptr + tl.arange(0, ROWS)[:, None] * half + tl.arange(0, COLUMNS)[None, :] * other
    tl.store(place, tl.load(place) + 1)


@triton.jit
def risen_by_loaded_strides(x_ptr, strides_ptr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    s0, s1 = tl.load(strides_ptr), tl.load(strides_ptr + 1)
    place = x_ptr + tl.arange(0, ROWS)[:, None] * s0 + tl.arange(0, COLUMNS)[None, :] * s1
    tl.store(place, tl.load(place) + 1)


@triton.jit
def risen_through_a_table(table_ptr, s0, s1, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    x_ptr = tl.load(table_ptr).to(tl.pointer_type(tl.float32))
    place = x_ptr + tl.arange(0, ROWS)[:, None] * s0 + tl.arange(0, COLUMNS)[None, :] * s1
    tl.store(place, tl.load(place) + 1)


@triton.jit
def risen_under_masks(x_ptr, s0, s1, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    i, j = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    place = x_ptr + i * s0 + j * s1
    mask = (i < rows) & (j < columns)
    tl.store(place, tl.load(place, mask=mask) + 1, mask=mask)


@triton.jit
def risen_by_descriptor(x_ptr, s0, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    x = tl.make_tensor_descriptor(x_ptr, [ROWS, COLUMNS], [s0, 1], [ROWS, COLUMNS])
    x.store([0, 0], x.load([0, 0]) + 1)


@triton.jit
def risen_step_by_step(x_ptr, s0, s1, steps, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    place = x_ptr + tl.arange(0, ROWS)[:, None] * s0 + tl.arange(0, COLUMNS)[None, :] * s1
    for _ in range(steps):
        tl.store(place, tl.load(place) + 1)
        place += ROWS * s0 + COLUMNS


STRIDES = [(2, 1), (2, 3), (0, 1), (0, 0), (9, 1), (1, 9), (-2, 1), (-9, 1)]
MIDDLE = 128


def places(s0: int, s1: int, rows: int, columns: int) -> np.ndarray:
    return MIDDLE + np.arange(rows)[:, None] * s0 + np.arange(columns)[None, :] * s1


def risen_at(where: np.ndarray) -> list[float]:
    """What memory holds after a tile was loaded, and stored with 1 added: an element rises once, whoever shares it."""
    memory = np.zeros(2 * MIDDLE)
    memory[where] = memory[where] + 1
    return memory.tolist()


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (8, 1)])
@pytest.mark.parametrize(("s0", "s1"), STRIDES)
@pytest.mark.parametrize(
    "kernel", [risen, risen_by_two, risen_twice, risen_by_computed_strides, risen_by_loaded_strides, "table"]
)
def test_lanes_may_share_elements_by_strides_known_at_launch(
    kernel: Any, s0: int, s1: int, rows: int, columns: int
) -> None:
    memory = torch.zeros(2 * MIDDLE)
    x = memory[MIDDLE:]
    table = torch.tensor([x.data_ptr()])
    if kernel is risen_by_two:
        kernel[(1,)](x, x, s0, s1, ROWS=rows, COLUMNS=columns)
    elif kernel is risen_by_loaded_strides:
        kernel[(1,)](x, torch.tensor([s0, s1]), ROWS=rows, COLUMNS=columns)
    elif kernel == "table":
        risen_through_a_table[(1,)](table, s0, s1, ROWS=rows, COLUMNS=columns)
    else:
        kernel[(1,)](x, s0, s1, ROWS=rows, COLUMNS=columns)
    assert memory.tolist() == risen_at(places(s0, s1, rows, columns))


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (8, 3), (3, 2), (0, 8)])
@pytest.mark.parametrize(("s0", "s1"), STRIDES)
def test_lanes_that_a_mask_leaves_may_share_elements(s0: int, s1: int, rows: int, columns: int) -> None:
    memory = torch.zeros(2 * MIDDLE)
    risen_under_masks[(1,)](memory[MIDDLE:], s0, s1, rows, columns, ROWS=8, COLUMNS=8)
    assert memory.tolist() == risen_at(places(s0, s1, rows, columns))


@pytest.mark.parametrize("s0", [2, 4, 8, 16])
def test_rows_of_a_descriptor_may_share_elements(s0: int) -> None:
    memory = torch.zeros(2 * MIDDLE)
    risen_by_descriptor[(1,)](memory[MIDDLE:], s0, ROWS=8, COLUMNS=8)
    assert memory.tolist() == risen_at(places(s0, 1, 8, 8))


@triton.jit
def risen_by_host_descriptor(x, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    x.store([0, 0], x.load([0, 0]) + 1)


def test_rows_of_a_descriptor_made_on_the_host_may_share_elements() -> None:
    memory = torch.zeros(2 * MIDDLE)
    view = memory.as_strided((8, 8), (4, 1), MIDDLE)
    risen_by_host_descriptor[(1,)](TensorDescriptor.from_tensor(view, [8, 8]), ROWS=8, COLUMNS=8)
    assert memory.tolist() == risen_at(places(4, 1, 8, 8))


@pytest.mark.parametrize(("s0", "s1"), [(2, 1), (8, 1), (0, 0)])
def test_pointers_that_a_loop_moves_on_may_share_elements(s0: int, s1: int) -> None:
    memory, want = torch.zeros(4 * MIDDLE), np.zeros(4 * MIDDLE)
    risen_step_by_step[(1,)](memory[MIDDLE:], s0, s1, 3, ROWS=8, COLUMNS=8)
    for step in range(3):
        where = places(s0, s1, 8, 8) + step * (8 * s0 + 8)
        want[where] = want[where] + 1
    assert memory.tolist() == want.tolist()


@triton.jit
def risen_through_both(x_ptr, y_ptr, s0, SIZE: tl.constexpr):
    """Two pointers of one tensor, each loaded before either is stored to."""
    place = tl.arange(0, SIZE)[:, None] * s0 + tl.arange(0, SIZE)[None, :]
    x, y = tl.load(x_ptr + place), tl.load(y_ptr + place)
    tl.store(x_ptr + place, x + 1)
    tl.store(y_ptr + place, y + 2)


@pytest.mark.parametrize("s0", [2, 8])
def test_two_pointers_of_one_tensor_and_shared_elements(s0: int) -> None:
    memory, want = torch.zeros(2 * MIDDLE), np.zeros(2 * MIDDLE)
    risen_through_both[(1,)](memory[MIDDLE:], memory[MIDDLE + 1 :], s0, SIZE=8)
    where = places(s0, 1, 8, 8)
    x, y = want[where], want[where + 1]
    want[where] = x + 1
    want[where + 1] = y + 2
    assert memory.tolist() == want.tolist()


@triton.jit
def turned_in_place(x_ptr, s0, s1, SIZE: tl.constexpr):
    i, j = tl.arange(0, SIZE)[:, None], tl.arange(0, SIZE)[None, :]
    tl.store(x_ptr + i * s0 + j * s1, tl.trans(tl.load(x_ptr + i * s0 + j * s1)))


@pytest.mark.parametrize(("s0", "s1"), [(8, 1), (1, 8), (2, 16)])
def test_transposed_in_place_by_strides_known_at_launch(s0: int, s1: int) -> None:
    memory = torch.randn(2 * MIDDLE)
    want, where = memory.numpy().copy(), places(s0, s1, 8, 8)
    want[where] = want[where].T.copy()
    turned_in_place[(1,)](memory[MIDDLE:], s0, s1, SIZE=8)
    assert np.array_equal(memory.numpy(), want)


@triton.jit
def risen_rows(x_ptr, s0, n, BLOCK: tl.constexpr):
    i, j = tl.program_id(0) * 4 + tl.arange(0, 4)[:, None], tl.arange(0, BLOCK)[None, :]
    place = x_ptr + i * s0 + j
    tl.store(place, tl.load(place, mask=j < n) + 1, mask=j < n)


def test_lanes_are_looked_at_by_each_launch_and_compiled_for_where_they_share(compiled: list[bool]) -> None:
    x = torch.zeros(4, 100)
    kernel = risen_rows[(1,)](x, 100, 100, BLOCK=128)  # rows shorter than the tile: the mask keeps them apart
    assert x.eq(1).all()
    risen[(1,)](x, 9, 1, ROWS=8, COLUMNS=8)
    assert compiled == []
    x = torch.zeros(400)
    risen_rows[(1,)](x, 99, 100, BLOCK=128)
    assert x.tolist() == [*[1.0] * (3 * 99 + 100), *[0.0] * 3]
    assert compiled == [True]
    again = kernel.run.bind(1, 1, 1, kernel.function, True, x, 99, 100, 128)
    again()
    again()
    assert x.tolist() == [*[3.0] * (3 * 99 + 100), *[0.0] * 3]
    assert compiled == [True]
