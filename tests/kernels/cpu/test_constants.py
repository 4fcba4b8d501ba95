"""Constants and scalar arguments of fp16 and bf16 are the nearest number of their format, in every bit."""

# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import importlib.util
import math
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from fusetune.kernels.cpu.rounding import nearest, nearest_bits
from tests.kernels.cpu.number_formats import FORMATS, Array, convert

SHORT = {"h": torch.float16, "w": torch.bfloat16}
ELEMENTS = {"h": "f16", "w": "bf16", "f": "f32", "d": "f64"}
ISSUE = (0.3, 0.7, 1.1, 0.044715, 1 / 3)


def random_numbers(letter: str, count: int) -> list[float]:
    """Numbers over a format's whole range, subnormals included, ties between two of its numbers, and what is near one.

    The last are nearer to one neighbour by less than fp32 tells: by way of fp32 they would be taken for ties.
    """
    chance = random.Random(f"constants of {letter}")
    wanted = FORMATS[letter]
    least = wanted.least_exponent - wanted.precision
    numbers = [*ISSUE, 65504.0, 65519.99, 65520.0, 3.3895e38, 3.3961776e38, 1e39, math.inf]
    while len(numbers) < count:
        exponent = chance.randrange(least, 1 - wanted.least_exponent)
        tie = math.ldexp(
            2 ** (wanted.precision - 1) + chance.randrange(2**7) + 0.5, exponent - wanted.precision + 1
        )
        moved = tie * (1 + chance.choice((-1, 1)) * 2.0**-40)
        numbers.append(chance.choice((chance.uniform(1, 2) * 2.0**exponent, tie, moved)))
    return [chance.choice((-1, 1)) * number for number in numbers]


def bits(tensor: torch.Tensor) -> Array:
    return tensor.view(torch.int16).numpy().view(np.uint16)


def right_bits(numbers: list[float], letter: str) -> Array:
    """What the nearest numbers' bits are, by exact arithmetic in extended precision."""
    values = convert(np.array(numbers, np.float64), letter)
    return values.view(np.uint16) if letter == "h" else (values.view(np.uint32) >> 16).astype(np.uint16)


def written(folder: Path, body: list[str]) -> Any:
    """A kernel of these lines."""
    file = folder / "constants.py"
    lines = [
        "import triton",
        "import triton.language as tl",
        "@triton.jit",
        "def kernel(x_ptr, y_ptr):",
        "    x = tl.load(x_ptr)",
        *(f"    {line}" for line in body),
    ]
    file.write_text("\n".join(lines) + "\n")
    specification = importlib.util.spec_from_file_location("constants", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.kernel


def spelt(number: float) -> str:
    return repr(number) if math.isfinite(number) else f'float("{number}")'


@pytest.mark.parametrize("letter", SHORT)
@pytest.mark.parametrize("form", ["x * {c}", "tl.full((), {c}, {t})", "tl.max(tl.full((4,), {c}, {t}), 0)"])
def test_constants_are_the_nearest(form: str, letter: str, tmp_path: Path) -> None:
    numbers = random_numbers(letter, 120)
    stores = [
        f"tl.store(y_ptr + {place}, {form.format(c=spelt(number), t=FORMATS[letter].triton)})"
        for place, number in enumerate(numbers)
    ]
    y = torch.empty(len(numbers), dtype=SHORT[letter])
    written(tmp_path, stores)[(1,)](torch.ones(1, dtype=y.dtype), y)
    assert np.array_equal(bits(y), right_bits(numbers, letter))


@triton.jit
def splat_kernel(y_ptr, VALUE: tl.constexpr):
    tile = tl.full((4, 8), VALUE, y_ptr.dtype.element_ty)
    place = tl.arange(0, 4)[:, None] * 8 + tl.arange(0, 8)[None, :]
    tl.store(y_ptr + place, tile)


@pytest.mark.parametrize("letter", SHORT)
@pytest.mark.parametrize("number", [*ISSUE, 1e-8, -6e-8, 1e-40, math.inf, -math.inf, math.nan])
def test_tiles_of_one_constant_are_the_nearest(number: float, letter: str) -> None:
    y = torch.empty(32, dtype=SHORT[letter])
    splat_kernel[(1,)](y, number)
    if math.isnan(number):
        assert y.isnan().all()
    else:
        assert np.array_equal(bits(y), right_bits([number] * 32, letter))


@triton.jit
def negated_zero_kernel(y_ptr):
    tl.store(y_ptr + tl.arange(0, 4), tl.full((4,), 0.0, y_ptr.dtype.element_ty) * -1.0)


@pytest.mark.parametrize("dtype", SHORT.values())
def test_a_constant_keeps_the_sign_of_zero(dtype: torch.dtype) -> None:
    y = torch.empty(4, dtype=dtype)
    kernel = negated_zero_kernel[(1,)](y)
    assert "dense<-0.0" in kernel.asm["ttir"]
    assert np.array_equal(bits(y), np.full(4, 0x8000, np.uint16))


@triton.jit
def bf16_argument_kernel(y_ptr, value: tl.bfloat16):
    tl.store(y_ptr, value)


@triton.jit
def fp16_argument_kernel(y_ptr, value: tl.float16):
    tl.store(y_ptr, value)


@pytest.mark.parametrize(("letter", "kernel"), [("w", bf16_argument_kernel), ("h", fp16_argument_kernel)])
def test_scalar_arguments_are_the_nearest(letter: str, kernel: Any) -> None:
    numbers = [*random_numbers(letter, 300), 0.0, -0.0, -math.inf]
    y = torch.empty(len(numbers), dtype=SHORT[letter])
    compiled = kernel[(1,)](y, 1.5)
    assert f": {ELEMENTS[letter]} " in compiled.asm["ttir"]
    for place, number in enumerate(numbers):
        kernel[(1,)](y[place : place + 1], number)
    assert np.array_equal(bits(y), right_bits(numbers, letter))
    kernel[(1,)](y, math.nan)
    assert y[0].isnan()
    kernel[(1,)](y, np.float32(0.3))
    assert y[0] == torch.tensor(0.3, dtype=y.dtype)
    with pytest.raises(
        ValueError,
        match=rf"^{kernel.__name__}: the argument value is 'much', which its type \w+ cannot represent",
    ):
        kernel[(1,)](y, "much")


@pytest.mark.parametrize("letter", ELEMENTS)
def test_the_nearest_bits_of_a_number(letter: str) -> None:
    numbers = [*random_numbers(letter, 4000), 0.0, -0.0, math.inf, -math.inf]
    if letter in SHORT:
        right = right_bits(numbers, letter)
    else:
        held = np.dtype(FORMATS[letter].held)
        with np.errstate(over="ignore"):
            right = np.array(numbers).astype(held).view(np.uint32 if letter == "f" else np.uint64)
    assert [nearest_bits(number, ELEMENTS[letter]) for number in numbers] == right.tolist()
    held_nan = nearest_bits(math.nan, ELEMENTS[letter])
    code = {"h": ("<H", "<e"), "w": ("<I", "<f"), "f": ("<I", "<f"), "d": ("<Q", "<d")}[letter]
    assert math.isnan(
        struct.unpack(code[1], struct.pack(code[0], held_nan << (16 if letter == "w" else 0)))[0]
    )


@pytest.mark.parametrize("letter", SHORT)
def test_the_nearest_number_is_nearest_to_itself(letter: str) -> None:
    for number in random_numbers(letter, 500):
        held = nearest(number, ELEMENTS[letter])
        assert nearest(held, ELEMENTS[letter]) == held
        assert nearest_bits(held, ELEMENTS[letter]) == nearest_bits(number, ELEMENTS[letter])
