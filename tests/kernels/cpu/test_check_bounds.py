"""Accesses held to the tensors handed over: one outside is not made, and the launch says which, where and of what."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from fusetune.kernels import KERNELS
from fusetune.kernels.cpu.compiler import CHECK_BOUNDS
from tests.kernels.cpu.guard_pages import guarded

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["option", "variable"])
def checked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Either way to ask for it, as what a launch is given."""
    if request.param == "option":
        return {"check_bounds": True}
    monkeypatch.setenv(CHECK_BOUNDS, "1")
    return {"num_stages": 2}  # has no effect, but that Triton looks for the kernel anew


def said(function: Any, line: int, what: str, kernel: Any = None) -> str:
    """The beginning of what is said of an access in a line of a function, called by a kernel."""
    return re.escape(
        f"{(kernel or function).__name__}: {__file__}:{function.starting_line_number + line}: a {what}"
    )


@triton.jit
def copied(x_ptr, y_ptr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    x = tl.load(x_ptr + i)
    tl.store(y_ptr + i, x)


def test_a_store_beyond_a_tensor_is_an_error_and_is_not_made(checked: dict[str, Any]) -> None:
    with guarded(100, torch.float32) as y:
        y.zero_()
        message = (
            "store at element 100 of y_ptr (byte 400), outside of every tensor passed to the launch; the memory "
            "of y_ptr holds elements 0 to 99. Mask the lanes beyond it, or pass a larger tensor."
        )
        with pytest.raises(IndexError, match=said(copied, 4, message) + "$"):
            copied[(1,)](torch.ones(128), y, SIZE=128, **checked)
        assert y.tolist() == [1.0] * 100


def test_a_load_beyond_a_tensor_is_an_error(checked: dict[str, Any]) -> None:
    with guarded(100, torch.int16) as x:
        x.fill_(3)
        y = torch.zeros(128, dtype=torch.int16)
        with pytest.raises(IndexError, match=said(copied, 3, "load at element 100 of x_ptr (byte 200)")):
            copied[(1,)](x, y, SIZE=128, **checked)


def test_what_lies_within_is_as_ever(checked: dict[str, Any]) -> None:
    x, y = torch.randn(128), torch.zeros(128)
    copied[(1,)](x, y, SIZE=128, **checked)
    assert torch.equal(x, y)


@triton.jit
def copied_under_mask(x_ptr, y_ptr, n, SIZE: tl.constexpr):
    i = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    x = tl.load(x_ptr + i, mask=i < n, other=0.0)
    tl.store(y_ptr + i, x, mask=i < n)


def test_lanes_whose_mask_is_clear_make_no_access(checked: dict[str, Any]) -> None:
    x, y = torch.randn(100), torch.zeros(100)
    copied_under_mask[(2,)](x, y, 100, SIZE=64, **checked)
    assert torch.equal(x, y)
    with pytest.raises(IndexError, match=said(copied_under_mask, 3, "load at element 100 of x_ptr")):
        copied_under_mask[(2,)](x, torch.zeros(128), 101, SIZE=64, **checked)


@triton.jit
def before_the_beginning(x_ptr):
    tl.store(x_ptr - 1, 5.0)


@triton.jit
def scalar_load(x_ptr, at):
    tl.store(x_ptr, tl.load(x_ptr + at))


def test_single_elements_before_the_beginning_and_in_a_view() -> None:
    memory = torch.zeros(16)
    with pytest.raises(
        IndexError, match=said(before_the_beginning, 2, "store at element -1 of x_ptr (byte -4)")
    ):
        before_the_beginning[(1,)](memory, check_bounds=True)
    before_the_beginning[(1,)](
        memory[4:], check_bounds=True
    )  # what counts is the memory, which a view shares
    assert memory.tolist() == [0, 0, 0, 5, *[0] * 12]
    scalar_load[(1,)](memory[4:], 11, check_bounds=True)
    with pytest.raises(
        IndexError, match=said(scalar_load, 2, "load at element 12 of x_ptr") + ".* holds elements -4 to 11"
    ):
        scalar_load[(1,)](memory[4:], 12, check_bounds=True)


@triton.jit
def updated(x_ptr, at, OPERATION: tl.constexpr):
    if OPERATION == "add":
        tl.atomic_add(x_ptr + at + tl.arange(0, 2), 1)
    else:
        tl.atomic_cas(x_ptr + at, 0, 1)


@pytest.mark.parametrize(("operation", "line"), [("add", 3), ("swap", 5)])
def test_atomic_updates(operation: str, line: int) -> None:
    x = torch.zeros(8, dtype=torch.int32)
    updated[(1,)](x, 6, OPERATION=operation, check_bounds=True)
    assert x.sum() == (2 if operation == "add" else 1)
    with pytest.raises(IndexError, match=said(updated, line, "atomic access at element 8 of x_ptr")):
        updated[(1,)](x, 7 if operation == "add" else 8, OPERATION=operation, check_bounds=True)


@triton.jit
def by_host_descriptor(x, y_ptr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    i = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    tl.store(y_ptr + i, x.load([0, 0]))


@triton.jit
def by_descriptor(x_ptr, rows, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    x = tl.make_tensor_descriptor(x_ptr, [rows, COLUMNS], [COLUMNS, 1], [ROWS, COLUMNS])
    x.store([0, 0], tl.zeros([ROWS, COLUMNS], tl.float32) + 1)


def test_descriptors() -> None:
    x, y = torch.randn(6, 8), torch.zeros(8, 8)
    by_host_descriptor[(1,)](TensorDescriptor.from_tensor(x, [8, 8]), y, ROWS=8, COLUMNS=8, check_bounds=True)
    assert torch.equal(y[:6], x)
    wrong = TensorDescriptor(x, [7, 8], [8, 1], [8, 8])
    with pytest.raises(IndexError, match=said(by_host_descriptor, 3, r"load at element 48 of x ")):
        by_host_descriptor[(1,)](wrong, y, ROWS=8, COLUMNS=8, check_bounds=True)
    by_descriptor[(1,)](x, 6, ROWS=8, COLUMNS=8, check_bounds=True)
    assert x.eq(1).all()
    with pytest.raises(IndexError, match=said(by_descriptor, 3, "store at element 48 of x_ptr")):
        by_descriptor[(1,)](x, 7, ROWS=8, COLUMNS=8, check_bounds=True)


@triton.jit
def moved_on(x_ptr, y_ptr, steps, SIZE: tl.constexpr):
    x = x_ptr + tl.arange(0, SIZE)
    total = tl.zeros([SIZE], tl.float32)
    at = y_ptr
    for _ in range(steps):
        total += tl.load(x)
        x += SIZE
        at += 1
    tl.store(at, tl.sum(total, 0))


@triton.jit
def either(x_ptr, y_ptr, first):
    at = x_ptr if first else y_ptr
    tl.store(at + 4, 1.0)


@triton.jit(noinline=True)
def stored_apart(at_ptr, place):
    tl.store(at_ptr + place, 1.0)


@triton.jit
def by_call(x_ptr, place):
    stored_apart(x_ptr, place)


def test_pointers_through_loops_branches_and_calls() -> None:
    x, y = torch.ones(64), torch.zeros(5)
    moved_on[(1,)](x, y, 4, SIZE=16, check_bounds=True)
    assert y.tolist() == [0, 0, 0, 0, 64]
    with pytest.raises(IndexError, match=said(moved_on, 6, "load at element 64 of x_ptr")):
        moved_on[(1,)](x, torch.zeros(9), 5, SIZE=16, check_bounds=True)
    with pytest.raises(IndexError, match=said(moved_on, 9, "store at element 3 of y_ptr")):
        moved_on[(1,)](x, y[:3].clone(), 3, SIZE=16, check_bounds=True)
    either[(1,)](x, y, 0, check_bounds=True)
    with pytest.raises(IndexError, match=said(either, 3, "store at address 0x")):
        either[(1,)](x, y[:3].clone(), 0, check_bounds=True)
    by_call[(1,)](y, 4, check_bounds=True)
    with pytest.raises(IndexError, match=said(stored_apart, 2, "store at element 5 of x_ptr", by_call)):
        by_call[(1,)](y, 5, check_bounds=True)


@triton.jit
def from_one_to_the_other(x_ptr, distance):
    tl.store(x_ptr + distance, 1.0)


def test_what_lies_in_another_tensor_of_the_launch_is_taken() -> None:
    memory = torch.zeros(64)
    x, y = memory.numpy()[:8], memory.numpy()[32:]

    @triton.jit
    def stored_in_second(x_ptr, y_ptr, distance):
        tl.store(x_ptr + distance, 1.0)

    # Two pieces of memory that know nothing of each other.
    first, second = (torch.frombuffer(piece, dtype=torch.float32) for piece in (x, y))
    stored_in_second[(1,)](first, second, 32, check_bounds=True)
    assert memory[32] == 1
    with pytest.raises(IndexError, match="store at element 32 of x_ptr"):
        from_one_to_the_other[(1,)](first, 32, check_bounds=True)


@triton.jit
def through_a_table(table_ptr, at):
    x_ptr = tl.load(table_ptr + at).to(tl.pointer_type(tl.float32))
    tl.store(x_ptr, 3.0)


def test_addresses_in_a_table_are_not_looked_at_but_the_table_is() -> None:
    x = torch.zeros(1)
    table = torch.tensor([x.data_ptr()])
    through_a_table[(1,)](table, 0, check_bounds=True)
    assert x.item() == 3
    with pytest.raises(IndexError, match=said(through_a_table, 2, "load at element 1 of table_ptr")):
        through_a_table[(1,)](
            table, 1, check_bounds=True
        )  # and nothing is stored to the address that was not loaded


def test_an_address_instead_of_a_tensor_is_not_looked_at() -> None:
    x, y = torch.ones(32), torch.zeros(32)

    class Address:
        dtype = torch.float32

        def data_ptr(self) -> int:
            return y.data_ptr()

    copied[(1,)](x, Address(), SIZE=32, check_bounds=True)
    assert torch.equal(x, y)
    with pytest.raises(IndexError, match=said(copied, 3, "load at element 31 of x_ptr")):
        copied[(1,)](x[:31].clone(), Address(), SIZE=32, check_bounds=True)


@triton.jit
def waits_and_stores(flag_ptr, x_ptr):
    if tl.program_id(0) == 0:
        while tl.atomic_add(flag_ptr, 0) == 0:
            pass
        tl.store(x_ptr + 1, 1.0)
    else:
        tl.atomic_xchg(flag_ptr, 1)


def test_programs_that_wait_are_held_to_bounds_too() -> None:
    with pytest.raises(IndexError, match=said(waits_and_stores, 5, "store at element 1 of x_ptr")):
        waits_and_stores[(2,)](torch.zeros(1, dtype=torch.int32), torch.zeros(1), check_bounds=True)


def test_overlapping_arguments_and_an_empty_tensor() -> None:
    memory = torch.arange(64.0)
    copied[(1,)](memory[:32], memory[1:], SIZE=32, check_bounds=True)
    assert memory[1:33].tolist() == list(range(32))
    with pytest.raises(IndexError, match="y_ptr holds elements -1 to 62"):
        copied[(1,)](memory, memory[1:], SIZE=64, check_bounds=True)
    with pytest.raises(IndexError, match=r"load at element 0 of x_ptr .* x_ptr holds no element"):
        copied[(1,)](torch.empty(0), memory, SIZE=64, check_bounds=True)


def test_a_bound_launch_is_held_to_bounds_too() -> None:
    x, y = torch.ones(128), torch.zeros(128)
    kernel = copied[(1,)](x, y, SIZE=128, check_bounds=True)
    kernel.run.bind(1, 1, 1, kernel.function, True, x, y, 128)()
    again = kernel.run.bind(1, 1, 1, kernel.function, True, x, y[:100].clone(), 128)
    with pytest.raises(IndexError, match="store at element 100 of y_ptr"):
        again()


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_the_kernels_of_this_package_stay_within_their_tensors(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CHECK_BOUNDS, "1")
    kernel = KERNELS[name]
    arguments = kernel.make_inputs(1000, torch.float32, torch.device("cpu"), 0)
    kernel.fused(**arguments)


def test_by_default_nothing_is_looked_at_and_nothing_costs() -> None:
    x, y = torch.ones(128), torch.zeros(128)
    assert "inside(" not in copied[(1,)](x, y, SIZE=128).asm["c"]
    assert "inside(" in copied[(1,)](x, y, SIZE=128, check_bounds=True).asm["c"]


PROGRAM = """
import torch, triton, triton.language as tl

@triton.jit
def stored(x_ptr, SIZE: tl.constexpr):
    tl.store(x_ptr + tl.arange(0, SIZE), 1.0)

stored[(1,)](torch.zeros(100), SIZE=128)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("value", "fails"), [("1", True), ("0", False), ("", False)])
def test_the_variable_is_read_by_a_new_process(value: str, fails: bool, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        PROGRAM.replace("zeros(100)", "zeros(128)[:100]") if not fails else PROGRAM
    )
    environment = {"PYTHONPATH": str(ROOT / "src"), "TRITON_DEFAULT_BACKEND": "cpu", CHECK_BOUNDS: value}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")],
        env={**os.environ, **environment, "TRITON_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stderr
    if fails:
        assert "IndexError: stored: " in done.stderr
        assert "program.py:6: a store at element 100 of x_ptr" in done.stderr
