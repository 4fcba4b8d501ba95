"""Loops and branches within each other, also without results at their ends, and the faults of the compiler itself."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from fusetune.kernels.cpu import ir_tree
from fusetune.kernels.cpu.lowering import band, control, elementwise, module, reduce
from fusetune.kernels.triton_inside import CompilationError

Numbers = torch.Tensor
LANES = 8
LANE = tl.constexpr(LANES)


@triton.jit
def row_of(x_ptr, row):
    return tl.load(x_ptr + row * LANE + tl.arange(0, LANE))


@triton.jit
def put(y_ptr, row, x):
    tl.store(y_ptr + row * LANE + tl.arange(0, LANE), x)


@triton.jit
def stores_in_its_last_turn(x_ptr, y_ptr, n):
    total = tl.zeros((LANE,), tl.float32)
    for j in range(n):
        total += row_of(x_ptr, j)
        if j == n - 1:
            put(y_ptr, 0, total)


@triton.jit
def stores_otherwise(x_ptr, y_ptr, n):
    total = tl.zeros((LANE,), tl.float32)
    for j in range(n):
        total += row_of(x_ptr, j)
        if j == n - 1:
            put(y_ptr, 0, total)
        else:
            put(y_ptr, j + 1, total * 2)


@triton.jit
def while_that_ends_in_an_if(x_ptr, y_ptr, n):
    total = tl.zeros((LANE,), tl.float32)
    j = 0
    while j < n:
        total += row_of(x_ptr, j)
        j += 1
        if j % 2 == 0:
            put(y_ptr, j, total)


@triton.jit
def ends_in_a_loop(x_ptr, y_ptr, n):
    total = tl.zeros((LANE,), tl.float32)
    for j in range(n):
        total += row_of(x_ptr, j)
        for k in range(j):
            put(y_ptr, k, total + k)


@triton.jit
def ends_in_a_while(x_ptr, y_ptr, n):
    total = tl.zeros((LANE,), tl.float32)
    for j in range(n):
        total += row_of(x_ptr, j)
        k = j
        while k > 1:
            put(y_ptr, k, total - k)
            k -= 2


@triton.jit
def nested_twice(x_ptr, y_ptr, n):
    total = tl.zeros((LANE,), tl.float32)
    count = 0
    for j in range(n):
        within = row_of(x_ptr, j)
        for k in range(n):
            within = within * 0.5 + row_of(x_ptr, k)
            count += 1
            if k > j:
                put(y_ptr, n + 2, within)
                if k == n - 1:
                    put(y_ptr, j, within)
        total += within
        if j == 1:
            for k in range(2):
                if k == 1:
                    put(y_ptr, n, total)
    put(y_ptr, n + 1, total + count)


@triton.jit
def if_that_ends_in_an_if(x_ptr, y_ptr, n):
    x = row_of(x_ptr, 0)
    y = x * 3
    if n > 2:
        y = tl.cumsum(x, 0)
        if n > 4:
            put(y_ptr, 0, y)
    else:
        y = x - 1
        for k in range(n):
            put(y_ptr, k + 1, y)
    put(y_ptr, 5, y)


@triton.jit
def while_of_nothing(x_ptr, y_ptr, n):
    while tl.load(y_ptr) < n:
        tl.store(y_ptr, tl.load(y_ptr) + 1.0)
        if tl.load(y_ptr) > 2:
            tl.store(y_ptr + 1, 7.0)
    tl.store(y_ptr + 2, 5.0)


@triton.jit
def unsigned_turns(x_ptr, y_ptr, n: tl.uint32):
    total = tl.zeros((LANE,), tl.float32)
    for j in range(tl.full((), 1, tl.uint32), n, tl.full((), 2, tl.uint32)):
        total += row_of(x_ptr, j)
        if j + 2 >= n:
            put(y_ptr, 0, total)


@triton.jit
def negative_turns(x_ptr, y_ptr, n):
    total = tl.zeros((LANE,), tl.float32)
    for j in range(n - 1, -1, -1):
        total = total * 2 + row_of(x_ptr, j)
        if j == 0:
            put(y_ptr, 0, total)


def totals(x: Numbers) -> list[Numbers]:
    return list(x.cumsum(0))


def right_nested_twice(x: Numbers, y: Numbers) -> None:
    n, total, count = len(x), torch.zeros_like(x[0]), 0
    for j in range(n):
        within = x[j]
        for k in range(n):
            within = within * 0.5 + x[k]
            count += 1
            if k > j:
                y[n + 2] = within
                if k == n - 1:
                    y[j] = within
        total = total + within
        if j == 1:
            y[n] = total
    y[n + 1] = total + count


def right_stores_otherwise(x: Numbers, y: Numbers) -> None:
    y[0] = x.sum(0)
    for j, total in enumerate(totals(x)[:-1]):
        y[j + 1] = total * 2


def right_while(x: Numbers, y: Numbers) -> None:
    for j, total in enumerate(totals(x), 1):
        if j % 2 == 0:
            y[j] = total


def right_ends_in_a_loop(x: Numbers, y: Numbers) -> None:
    for j, total in enumerate(totals(x)):
        for k in range(j):
            y[k] = total + k


def right_ends_in_a_while(x: Numbers, y: Numbers) -> None:
    for j, total in enumerate(totals(x)):
        for k in range(j, 1, -2):
            y[k] = total - k


def right_if(x: Numbers, y: Numbers) -> None:
    n = len(x)
    value = x[0].cumsum(0) if n > 2 else x[0] - 1
    if n > 4:
        y[0] = value
    if n <= 2:
        y[1 : n + 1] = value
    y[5] = value


def right_while_of_nothing(x: Numbers, y: Numbers) -> None:
    y[0, 0] = len(x)
    if len(x) > 2:
        y[0, 1] = 7
    y[0, 2] = 5


def right_negative(x: Numbers, y: Numbers) -> None:
    for row in reversed(x):
        y[0] = y[0] * 2 + row


def right_sum(x: Numbers, y: Numbers) -> None:
    y[0] = x.sum(0)


def right_unsigned(x: Numbers, y: Numbers) -> None:
    y[0] = x[1::2].sum(0)


CASES: list[tuple[Any, Callable[[Numbers, Numbers], None]]] = [
    (stores_in_its_last_turn, right_sum),
    (stores_otherwise, right_stores_otherwise),
    (while_that_ends_in_an_if, right_while),
    (ends_in_a_loop, right_ends_in_a_loop),
    (ends_in_a_while, right_ends_in_a_while),
    (nested_twice, right_nested_twice),
    (if_that_ends_in_an_if, right_if),
    (while_of_nothing, right_while_of_nothing),
    (unsigned_turns, right_unsigned),
    (negative_turns, right_negative),
]


@pytest.mark.parametrize(("kernel", "right"), CASES, ids=[kernel.__name__ for kernel, _ in CASES])
def test_control_flow_that_ends_in_control_flow(
    kernel: Any, right: Callable[[Numbers, Numbers], None]
) -> None:
    for n in (2, 3, 6):
        x = torch.randint(-9, 9, (n, LANES), generator=torch.Generator().manual_seed(n)).float()
        y, wanted = torch.zeros(10, LANES), torch.zeros(10, LANES)
        kernel[(1,)](x, y, n)
        right(x, wanted)
        assert torch.equal(y, wanted), n


@triton.jit
def batched_product(a_ptr, b_ptr, c_ptr, batch, rows, columns, depth, TILE: tl.constexpr):
    """c[g] = a[g] b[g]: tiles of all batches one after another, each stored in the last turn of its depth."""
    a = tl.make_tensor_descriptor(a_ptr, [batch, rows, depth], [rows * depth, depth, 1], [1, TILE, TILE])
    b = tl.make_tensor_descriptor(
        b_ptr, [batch, columns, depth], [columns * depth, depth, 1], [1, TILE, TILE]
    )
    c = tl.make_tensor_descriptor(
        c_ptr, [batch, rows, columns], [rows * columns, columns, 1], [1, TILE, TILE]
    )
    turns = tl.cdiv(depth, TILE)
    across = tl.cdiv(columns, TILE)
    tiles = tl.cdiv(rows, TILE) * across
    total = tl.zeros((TILE, TILE), tl.float32)
    for step in range(tl.cdiv(tiles * batch - tl.program_id(0), tl.num_programs(0)) * turns):
        turn = step % turns
        tile = step // turns * tl.num_programs(0) + tl.program_id(0)
        g, row, column = tile // tiles, tile % tiles // across * TILE, tile % across * TILE
        left = a.load([g, row, turn * TILE]).reshape(TILE, TILE)
        right = b.load([g, column, turn * TILE]).reshape(TILE, TILE)
        total = tl.dot(left, right.T, total * tl.where(turn == 0, 0.0, 1.0))
        if turn == turns - 1:
            c.store([g, row, column], total.reshape(1, TILE, TILE).to(tl.float16))


def test_a_batched_product_by_descriptors() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (
        torch.randint(-3, 4, (3, size, 48), generator=generator).to(torch.float16).contiguous()
        for size in (32, 64)
    )
    c = torch.empty(3, 32, 64, dtype=torch.float16)
    triton.set_allocator(lambda size, alignment, stream: torch.empty(size, dtype=torch.int8))
    batched_product[(5,)](a, b, c, 3, 32, 64, 48, TILE=16)
    assert torch.equal(c.double(), a.double() @ b.double().mT)


UNSIGNED_LOOP = """
module {
  tt.func public @kernel(%out: !tt.ptr<i32>, %first: i32, %last: i32) attributes {noinline = false} {
    %one = arith.constant 1 : i32
    %zero = arith.constant 0 : i32
    %sum = scf.for UNSIGNED%j = %first to %last step %one iter_args(%total = %zero) -> (i32) : i32 {
      %more = arith.addi %total, %one : i32
      %is_last = arith.cmpi eq, %more, %last : i32
      scf.if %is_last {
        tt.store %out, %j : !tt.ptr<i32>
      }
      scf.yield %more : i32
    }
    tt.store %out, %sum : !tt.ptr<i32>
    tt.return
  }
}
"""


@pytest.mark.parametrize(("word", "turns"), [("unsigned ", 6), ("", 0)])
def test_the_ir_says_whether_a_loop_counts_without_a_sign(word: str, turns: int, tmp_path: Path) -> None:
    """From 2^31 - 3 to 2^31 + 3: with a sign the end comes before the beginning."""
    file = tmp_path / "loop.ttir"
    file.write_text(UNSIGNED_LOOP.replace("UNSIGNED", word))
    compiled = triton.compile(str(file), target=triton.runtime.driver.active.get_current_target())
    y = torch.full((1,), -1, dtype=torch.int32)
    compiled[(1, 1, 1)](y, 2**31 - 3, 3 - 2**31)
    assert y.item() == turns


@triton.jit
def faulty(x_ptr, y_ptr):
    x = tl.load(x_ptr + tl.arange(0, 8))
    for j in range(2):
        x = x + tl.exp(x)
        if j == 1:
            tl.store(y_ptr, tl.sum(x, 0))


def line_of(kernel: Any, text: str) -> int:
    """The first line of this file, from a kernel's own on, that has a text."""
    lines = Path(__file__).read_text().splitlines()
    start = lines.index(next(line for line in lines if line.startswith(f"def {kernel.__name__}(")))
    return next(number for number in range(start, len(lines)) if text in lines[number]) + 1


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def complaint_of(kernel: Any, tmp_path: Path) -> str:
    """What compiling a kernel anew fails with."""
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(tmp_path)
        kernel.device_caches.clear()
        with pytest.raises(CompilationError) as caught:
            kernel[(1,)](torch.ones(8), torch.ones(1))
    kernel.device_caches.clear()
    return str(caught.value)


FAULTS: list[tuple[Any, str, Any, str, str]] = [
    (elementwise.RULES, "arith.addf", KeyError("t17"), "arith.addf", "x = x + tl.exp(x)"),
    (module.LOWERINGS, "scf.for", AssertionError("a loop without an end"), "scf.for", "for j in range(2)"),
    (module.LOWERINGS, "scf.if", IndexError("list index out of range"), "scf.if", "if j == 1"),
    (module.LOWERINGS, "tt.store", TypeError("no tile"), "tt.store", "tl.store(y_ptr"),
    (reduce, "is_commutative", RecursionError("too deep"), "tt.reduce", "tl.store(y_ptr"),
    (control, "_begin", ValueError("zip() argument 2 is shorter"), "scf.for", "for j in range(2)"),
    (band.Band, "emit", AttributeError("nothing"), "scf.for", "for j in range(2)"),
    (module, "_emitted", AssertionError(), "tt.func", "def faulty"),
    (module, "_entry", NotImplementedError("an entry"), "tt.func", "def faulty"),
]


@pytest.mark.parametrize(
    ("place", "name", "error", "operation", "text"), FAULTS, ids=[f"{each[1]}" for each in FAULTS]
)
def test_a_fault_of_the_compiler_names_the_operation_and_the_line(
    place: Any,
    name: str,
    error: Exception,
    operation: str,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if isinstance(place, dict):
        monkeypatch.setitem(place, name, failing(error))
    else:
        monkeypatch.setattr(place, name, failing(error))
    said = complaint_of(faulty, tmp_path)
    of_the_error = f"{type(error).__name__}: {error}".rstrip(": ")
    assert (
        f"{__file__}:{line_of(faulty, text)}: {operation} cannot be compiled for the CPU: this is a bug of the "
        f"CPU backend ({of_the_error}). Report it together with the kernel." in said
    )


def test_a_module_that_is_printed_otherwise_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pattern = ir_tree._OPERATION_LINE

    class WithoutAdditions:
        def match(self, line: str) -> re.Match[str] | None:
            return None if "arith.addf" in line else pattern.match(line)

    monkeypatch.setattr(ir_tree, "_OPERATION_LINE", WithoutAdditions())
    said = complaint_of(faulty, tmp_path)
    assert (
        f"{__file__}:{line_of(faulty, 'x = x + tl.exp(x)')}: arith.addf cannot be compiled for the CPU"
        in said
    )
    assert "the printed module has " in said
    monkeypatch.setattr(ir_tree, "_OPERATION_LINE", pattern)
    monkeypatch.setattr(ir_tree, "_connect", failing(KeyError(3)))
    assert "the kernel's IR cannot be read (KeyError: 3). Report it" in complaint_of(faulty, tmp_path)


def test_operations_without_results_know_their_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[ir_tree.Operation] = []
    read = ir_tree.read_module

    def noting(handle: Any) -> list[ir_tree.Operation]:
        functions = read(handle)
        seen.extend(each for function in functions for block in function.regions[0] for each in block.walk())
        return functions

    monkeypatch.setattr(ir_tree, "read_module", noting)
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(tmp_path)
        stores_otherwise.device_caches.clear()
        stores_otherwise[(1,)](torch.ones(2, 8), torch.ones(10, 8), 2)
    stores_otherwise.device_caches.clear()
    conditions = [each for each in seen if each.name == "scf.if"]
    assert [each.source for each in conditions] == [
        (__file__, line_of(stores_otherwise, "if j == n - 1"), conditions[0].source[2])
    ]
