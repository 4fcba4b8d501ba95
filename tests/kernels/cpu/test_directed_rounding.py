"""What libdevice rounds in a direction: against exact fractions, to the last bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.kernels.cpu.generated_kernels import called

SIZE = 1024
FORMATS = {torch.float32: (24, -126, np.float32), torch.float64: (53, -1022, np.float64)}
DTYPES = pytest.mark.parametrize("dtype", FORMATS, ids=str)
MODES = ("rz", "rd", "ru", "rn")


def rounded(exact: Fraction, mode: str, dtype: torch.dtype, root: bool = False) -> float:
    """An exact number, or its square root, in a format: the neighbour in the direction of the mode."""
    precision, lowest, _ = FORMATS[dtype]
    magnitude = abs(exact)
    if magnitude == 0:
        return 0.0
    exponent = math.frexp(1)[1] + magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    exponent = (exponent + 2) // 2 if root else exponent + 1
    while (Fraction(2) ** exponent) ** (2 if root else 1) > magnitude:
        exponent -= 1
    quantum = Fraction(2) ** (max(exponent, lowest) - precision + 1)
    quanta = magnitude / quantum**2 if root else magnitude / quantum
    below = math.isqrt(math.floor(quanta)) if root else math.floor(quanta)
    whole = below**2 == quanta if root else below == quanta
    if mode == "rn":
        # The middle between two neighbours: the even one.
        middle = (below + Fraction(1, 2)) ** 2 if root else below + Fraction(1, 2)
        up = quanta > middle or (quanta == middle and below % 2 == 1)
    else:
        up = not whole and mode == ("rd" if exact < 0 else "ru")
    found = (below + up) * quantum
    limit = (2 - Fraction(2) ** (1 - precision)) * Fraction(2) ** (1 - lowest)
    if found > limit:
        found_float = math.inf if mode in ("rn", "rd" if exact < 0 else "ru") else float(limit)
    else:
        found_float = float(found)
    return -found_float if exact < 0 else found_float


def operands(dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Floats of every exponent, of neighbouring ones, around the smallest and the largest, and pairs that cancel."""
    precision, lowest, numpy_type = FORMATS[dtype]
    rng = np.random.default_rng(seed)

    def numbers(low: int, high: int, count: int) -> np.ndarray:
        mantissas = rng.integers(2 ** (precision - 1), 2**precision, count).astype(np.float64)
        signs = rng.choice([-1.0, 1.0], count)
        with np.errstate(all="ignore"):
            return np.ldexp(signs * mantissas, rng.integers(low, high, count) - precision + 1).astype(
                numpy_type
            )

    columns = []
    for _ in range(3):
        parts = [
            numbers(lowest - precision, 1 - lowest, SIZE // 4),
            numbers(-2, 3, SIZE // 4),
            numbers(lowest - 4, lowest + 4, SIZE // 8),
            numbers(-lowest - 2, -lowest + 1, SIZE // 8),
            numbers(lowest // 2 - 3, lowest // 2 + 3, SIZE // 8),
        ]
        rest = SIZE - sum(map(len, parts))
        columns.append(np.concatenate([*parts, rng.integers(-9, 10, rest).astype(numpy_type)]))
    x, y, z = columns
    with np.errstate(all="ignore"):
        z[::3] = (-(x * y))[::3]  # what is left of the product
    z[~np.isfinite(z)] = 1
    return torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(z)


def compare(got: Tensor, wanted: list[float], what: str) -> None:
    """Bit for bit, but for the sign of zero."""
    ours, theirs = got.double().numpy(), np.array(wanted)
    wrong = np.flatnonzero(ours != theirs)
    assert len(wrong) == 0, (what, wrong[:5], ours[wrong[:5]], theirs[wrong[:5]])


EXACT: dict[str, Callable[..., Fraction]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "rcp": lambda x: 1 / x,
    "fma": lambda x, y, z: x * y + z,
}


@pytest.mark.slow
@pytest.mark.parametrize("fuse", [False, True], ids=["apart", "fused"])
@DTYPES
def test_arithmetic_in_a_direction_is_exact(dtype: torch.dtype, fuse: bool, tmp_path: Path) -> None:
    x, y, z = operands(dtype, 1 + fuse)
    y = torch.where(y == 0, 1, y)
    x = torch.where(x == 0, 3, x)
    columns = [[Fraction(each) for each in column.tolist()] for column in (x, y, z)]
    calls = [(name, mode) for name in EXACT for mode in MODES]
    texts = []
    for name, mode in calls:
        arity = EXACT[name].__code__.co_argcount
        texts.append(f"libdevice.{name}_{mode}({', '.join('xyz'[:arity])})")
    got = called(tmp_path, texts, {"x": x, "y": y, "z": z}, dtype, fuse)
    for row, (name, mode) in enumerate(calls):
        function = EXACT[name]
        arguments = zip(*columns[: function.__code__.co_argcount], strict=True)
        compare(got[row], [rounded(function(*each), mode, dtype) for each in arguments], texts[row])


@DTYPES
def test_roots_in_a_direction_are_exact(dtype: torch.dtype, tmp_path: Path) -> None:
    x = operands(dtype, 3)[0].abs()
    x[-64:] = torch.arange(64, dtype=dtype) ** 2
    got = called(tmp_path, [f"libdevice.sqrt_{mode}(x)" for mode in MODES], {"x": x}, dtype)
    for row, mode in enumerate(MODES):
        wanted = [rounded(Fraction(each), mode, dtype, root=True) for each in x.tolist()]
        compare(got[row], wanted, f"sqrt_{mode}")


def test_reciprocal_roots_are_rounded_to_the_nearest(tmp_path: Path) -> None:
    x = operands(torch.float32, 4)[0].abs()
    x = torch.where(x == 0, 2, x)
    got = called(tmp_path, ["libdevice.rsqrt_rn(x)"], {"x": x}, torch.float32)[0]
    wanted = [rounded(1 / Fraction(each), "rn", torch.float32, root=True) for each in x.tolist()]
    compare(got, wanted, "rsqrt_rn")


@DTYPES
def test_what_is_rounded_by_name_is_not_fused(dtype: torch.dtype, tmp_path: Path) -> None:
    """A product rounded by name and then added comes to another number than one that is fused with the sum."""
    x, y = (1 + torch.rand(2, 64, generator=torch.Generator().manual_seed(0), dtype=dtype)).unbind()
    z = -(x * y)
    for text in ("libdevice.mul_rn(x, y) + z", "libdevice.add_rn(x * y, z)", "libdevice.sub_rn(x * y, -z)"):
        assert (called(tmp_path, [text], {"x": x, "y": y, "z": z}, dtype, fuse=True) == 0).all(), text


@DTYPES
def test_special_values_in_a_direction(dtype: torch.dtype, tmp_path: Path) -> None:
    """IEEE 754: infinities and NaN as to the nearest. A sum that vanishes is -0 when rounded down."""
    values = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 2.5]
    x = torch.tensor(values, dtype=dtype).repeat(8)
    y = torch.tensor(values, dtype=dtype).repeat_interleave(8)
    for name, plain in (("add", x + y), ("mul", x * y), ("div", x / y)):
        got = called(tmp_path, [f"libdevice.{name}_{mode}(x, y)" for mode in MODES], {"x": x, "y": y}, dtype)
        for row, mode in enumerate(MODES):
            inexact = plain.isfinite() & (name == "div") & (plain != 0)
            same = (got[row] == plain) | (got[row].isnan() & plain.isnan()) | inexact
            assert same.all(), (name, mode)
            negative = torch.signbit(plain)
            if name == "add" and mode == "rd":
                negative = negative | ((plain == 0) & (torch.signbit(x) | torch.signbit(y)))
            zero = plain == 0
            assert torch.equal(torch.signbit(got[row])[zero], negative[zero]), (name, mode)


@pytest.mark.parametrize(
    ("integer", "dtype"),
    [("int", torch.int32), ("uint", torch.int32), ("ll", torch.int64), ("ull", torch.int64)],
)
def test_integers_in_a_direction(integer: str, dtype: torch.dtype, tmp_path: Path) -> None:
    bits = torch.iinfo(dtype).bits
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**63, 256, dtype=np.uint64) >> rng.integers(0, 63, 256, dtype=np.uint64)
    signed = np.concatenate([values.astype(np.int64), -values.astype(np.int64)])
    edges = [
        2**24 + 1,
        2**24 - 1,
        2**25 + 3,
        2**31 - 1,
        -(2**31),
        2**53 + 1,
        2**54 + 3,
        2**63 - 1,
        -(2**63),
        -1,
    ]
    numbers = torch.from_numpy(np.concatenate([signed[: 512 - len(edges)], np.array(edges)])).to(dtype)
    operand = f"x.to(tl.uint{bits})" if "u" in integer else "x"
    exact = [int(each) % 2**bits if "u" in integer else int(each) for each in numbers.tolist()]
    for c, float_type in (("float", torch.float32), ("double", torch.float64)):
        modes = MODES if c == "float" or bits == 64 else ("rn",)
        texts = [f"libdevice.{integer}2{c}_{mode}({operand})" for mode in modes]
        got = called(tmp_path, texts, {"x": numbers}, float_type)
        for row, mode in enumerate(modes):
            compare(got[row], [rounded(Fraction(each), mode, float_type) for each in exact], texts[row])


def test_doubles_to_floats_in_a_direction(tmp_path: Path) -> None:
    x = torch.cat([operands(torch.float64, 5)[1], operands(torch.float32, 5)[0].double() * (1 + 2**-30)])
    got = called(tmp_path, [f"libdevice.double2float_{mode}(x)" for mode in MODES], {"x": x}, torch.float32)
    for row, mode in enumerate(MODES):
        compare(got[row], [rounded(Fraction(each), mode, torch.float32) for each in x.tolist()], mode)
