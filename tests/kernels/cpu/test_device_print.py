"""What `tl.device_print` prints: the lines that a GPU prints, with places padded to the widest of their dimension."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import triton
import triton.language as tl


def printed(
    capfd: pytest.CaptureFixture[str], kernel: Any, grid: tuple[int, ...], *arguments: Any
) -> list[str]:
    capfd.readouterr()
    kernel[grid](*arguments)
    return capfd.readouterr().out.splitlines()


@triton.jit
def told(x_ptr):
    x = tl.load(x_ptr + tl.arange(0, 2))
    tl.device_print("x", x)
    tl.device_print("h", x, hex=True)


@pytest.mark.parametrize(
    ("dtype", "numbers"),
    [
        (torch.uint8, ["254", "3", "0xfe", "0x03"]),
        (
            torch.int8,
            ["-2", "3", "0xfffffffe", "0x03"],
        ),  # widened to 32 bits by its sign, as C's printf has it
        (torch.uint16, ["65534", "3", "0xfffe", "0x0003"]),
        (torch.int16, ["-2", "3", "0xfffffffe", "0x0003"]),
        (torch.int32, ["-2", "3", "0xfffffffe", "0x00000003"]),
        (torch.uint32, ["4294967294", "3", "0xfffffffe", "0x00000003"]),
        (torch.int64, ["-2", "3", "0xfffffffffffffffe", "0x0000000000000003"]),
        (torch.uint64, ["18446744073709551614", "3", "0xfffffffffffffffe", "0x0000000000000003"]),
        *(
            (each, ["-2.000000", "3.000000", "-0x1p+1", "0x1.8p+1"])
            for each in (torch.bfloat16, torch.float64)
        ),
        *(
            (each, ["-2.000000", "3.000000", "-0x1p+1", "0x1.8p+1"])
            for each in (torch.float16, torch.float32)
        ),
    ],
    ids=str,
)
def test_numbers_are_printed_by_their_sign_and_width(
    dtype: torch.dtype, numbers: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    x = torch.tensor([-2, 3], dtype=torch.int64).to(dtype)
    places = itertools.product(["x", "h"], range(2))
    wanted = [f"pid (0, 0, 0) idx ({i}) {name}: {n}" for (name, i), n in zip(places, numbers, strict=True)]
    assert printed(capfd, told, (1,), x) == wanted


@triton.jit
def told_by_shape(A: tl.constexpr, B: tl.constexpr, C: tl.constexpr):
    i = (
        tl.arange(0, A)[:, None, None] * (B * C)
        + tl.arange(0, B)[None, :, None] * C
        + tl.arange(0, C)[None, None, :]
    )
    tl.device_print("at", i)


@pytest.mark.parametrize("shape", [(2, 16, 8), (1, 2, 128), (16, 1, 1), (128, 2, 16)])
def test_places_are_padded_to_the_widest_of_their_dimension(
    shape: tuple[int, int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    widths = [len(str(size - 1)) for size in shape]
    wanted = []
    for number, place in enumerate(itertools.product(*map(range, shape))):
        idx = ", ".join(str(i).rjust(width) for i, width in zip(place, widths, strict=True))
        wanted.append(f"pid (0, 0, 0) idx ({idx}) at: {number}")
    assert printed(capfd, told_by_shape, (1,), *shape) == wanted


@triton.jit
def told_together(x_ptr):
    row = tl.arange(0, 16)
    tl.device_print("both", row, tl.load(x_ptr))
    tl.device_print("", tl.program_id(0))
    tl.device_print("nothing")
    tl.device_print("mask", tl.load(x_ptr) > 0.0)


def test_several_operands_scalars_and_none(capfd: pytest.CaptureFixture[str]) -> None:
    rows = [f"pid (0, 0, 0) idx ({i:2}) both: (operand 0) {i}" for i in range(16)]
    assert printed(capfd, told_together, (1,), torch.full((1,), 0.5)) == [
        *rows,
        "pid (0, 0, 0) idx () both: (operand 1) 0.500000",
        "pid (0, 0, 0) idx (): 0",
        "pid (0, 0, 0) nothing",
        "pid (0, 0, 0) idx () mask: 1",
    ]


def test_every_program_says_which_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    lines = printed(capfd, told_together, (2, 1, 3), torch.zeros(1))
    for x, z in itertools.product(range(2), range(3)):
        own = [line for line in lines if line.startswith(f"pid ({x}, 0, {z})")]
        assert len(own) == 20
        assert f"pid ({x}, 0, {z}) idx (): {x}" in own


@triton.jit
def told_addresses(x_ptr):
    tl.device_print("p", x_ptr + tl.arange(0, 2))


def test_addresses_are_printed_as_such(capfd: pytest.CaptureFixture[str]) -> None:
    x = torch.zeros(2)
    assert printed(capfd, told_addresses, (1,), x) == [
        f"pid (0, 0, 0) idx ({i}) p: {x.data_ptr() + 4 * i:#x}" for i in range(2)
    ]
