"""Functions of libdevice, by those of the C library: against Python's."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch

from fusetune.kernels.cpu.lowering.math import known_symbols
from tests.kernels.cpu.generated_kernels import called

SIZE = 64
# Of an argument from 0.05 to 0.95.
OF_ONE: dict[str, Callable[[float], float]] = {
    **{
        name: getattr(math, name)
        for name in (
            "acos", "asin", "asinh", "atan", "atanh", "cos", "cosh", "erf", "erfc", "exp", "expm1", "lgamma",
            "log", "log10", "log1p", "log2", "sin", "sinh", "sqrt", "tan", "tanh",
        )
    },
    "cbrt": lambda x: x ** (1 / 3),
    "exp10": lambda x: 10.0**x,
    "exp2": lambda x: 2.0**x,
    "rsqrt": lambda x: x**-0.5,
    "tgamma": math.gamma,
}  # fmt: skip
# Of any argument, exactly.
EXACT: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "trunc": math.trunc,
    "rint": round,
    "nearbyint": round,
    "round": lambda x: math.copysign(math.floor(abs(x) + 0.5), x),
}
OF_TWO: dict[str, Callable[[float, float], float]] = {
    "atan2": math.atan2,
    "copysign": math.copysign,
    "fdim": lambda x, y: max(x - y, 0.0),
    "fmod": math.fmod,
    "hypot": math.hypot,
    "pow": lambda x, y: abs(x) ** y,
    "remainder": math.remainder,
}


def launch(
    folder: Path, expressions: list[str], x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Store one expression of x and y a row, in their dtype or another."""
    return called(folder, expressions, {"x": x, "y": y}, dtype or x.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_functions_are_within_a_few_roundings(dtype: torch.dtype, tmp_path: Path) -> None:
    x = torch.linspace(0.05, 0.95, SIZE, dtype=dtype)
    names = [*OF_ONE, "acosh"]
    texts = [f"libdevice.{name}({'x + 1' if name == 'acosh' else 'x'})" for name in names]
    got = launch(tmp_path, texts, x, x).double()
    for row, name in enumerate(names):
        arguments = (x + 1 if name == "acosh" else x).tolist()
        function = math.acosh if name == "acosh" else OF_ONE[name]
        wanted = torch.tensor([function(each) for each in arguments], dtype=torch.float64)
        # Near its zero at 1 Python's own lgamma has no digits to spare.
        allowed = 6 * torch.finfo(dtype).eps * wanted.abs().clamp_min(1 if name == "lgamma" else 0)
        assert ((got[row] - wanted).abs() <= allowed).all(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_exact_functions_are_exact(dtype: torch.dtype, tmp_path: Path) -> None:
    x = torch.cat([torch.linspace(-4, 4, SIZE - 15), torch.arange(-7, 8) / 2]).to(dtype)
    got = launch(tmp_path, [f"libdevice.{name}(x)" for name in EXACT], x, x)
    for row, (name, function) in enumerate(EXACT.items()):
        assert got[row].tolist() == [float(function(each)) for each in x.tolist()], name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_functions_of_two_numbers(dtype: torch.dtype, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, SIZE, generator=generator, dtype=dtype)
    texts = [f"libdevice.{name}({'tl.abs(x)' if name == 'pow' else 'x'}, y)" for name in OF_TWO]
    got = launch(tmp_path, [*texts, "libdevice.fma(x, y, x)"], x, y).double()
    for row, (name, function) in enumerate(OF_TWO.items()):
        wanted = torch.tensor(
            [function(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)], dtype=torch.float64
        )
        assert ((got[row] - wanted).abs() <= 6 * torch.finfo(dtype).eps * wanted.abs()).all(), name
    fused = (x.numpy().astype(np.longdouble) * y.numpy() + x.numpy()).astype(x.numpy().dtype)
    assert np.allclose(got[-1].numpy(), fused, rtol=torch.finfo(dtype).eps, atol=0)


# Values of every kind: both zeros, subnormal, halves, the edges of 32 and 64 bits, infinite, NaN.
KINDS = [
    *(0.0, -0.0, 1e-310, 1e-40, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 3.5, 123456.7, 2.0**24 + 2),
    *(2.0**31 - 128, 2.0**31, 2.0**32, 2.0**32 - 256, 2.0**62, 2.0**63, 2.0**64, 1e30, math.inf, math.nan),
]
ROUNDED: dict[str, Callable[[float], float]] = {
    "rn": round,
    "rz": math.trunc,
    "rd": math.floor,
    "ru": math.ceil,
}


def of_every_kind(dtype: torch.dtype) -> torch.Tensor:
    kinds = torch.tensor([*KINDS, *(-each for each in KINDS)], dtype=dtype)
    return torch.cat([kinds, torch.zeros(SIZE - len(kinds), dtype=dtype)])


def converted(value: float, rounded: Callable[[float], float], bits: int, signed: bool, of_nan: int) -> int:
    """What PTX's cvt makes of a float: the nearest integer that the type has; a type's own of NaN."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if math.isnan(value):
        return of_nan
    return int(min(max(rounded(value), low), high)) if math.isfinite(value) else low if value < 0 else high


@pytest.mark.slow
@pytest.mark.parametrize("mode", ROUNDED)
@pytest.mark.parametrize("integer", ["int", "uint", "ll", "ull"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_conversions_to_integers_saturate(
    dtype: torch.dtype, integer: str, mode: str, tmp_path: Path
) -> None:
    x = of_every_kind(dtype)
    name = f"{'float' if dtype == torch.float32 else 'double'}2{integer}_{mode}"
    got = launch(tmp_path, [f"libdevice.{name}(x)"], x, x, torch.int64)[0].tolist()
    bits, signed = (64 if "ll" in integer else 32), "u" not in integer
    of_nan = 0 if dtype == torch.float32 and bits == 32 else -(2**63) if bits == 64 else -(2**31)
    wanted = [converted(each, ROUNDED[mode], bits, signed, of_nan) for each in x.tolist()]
    assert [each % 2**bits for each in got] == [each % 2**bits for each in wanted]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_questions_about_floats(dtype: torch.dtype, tmp_path: Path) -> None:
    x = of_every_kind(dtype)
    finite = "finitef" if dtype == torch.float32 else "isfinited"
    names = ["isnan", "isinf", finite, "signbit"]
    got = launch(tmp_path, [f"libdevice.{name}(x)" for name in names], x, x, torch.int64).numpy()
    values = x.numpy()
    for row, function in enumerate([np.isnan, np.isinf, np.isfinite, np.signbit]):
        assert np.array_equal(got[row] != 0, function(values)), names[row]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_quotients_and_roots_by_name_are_rounded_once(dtype: torch.dtype, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, SIZE, generator=generator, dtype=dtype) + 0.1
    texts = ["div_rn(x, y)", "rcp_rn(x)", "sqrt_rn(x)", "fma_rn(x, y, x)"]
    got = launch(tmp_path, [f"libdevice.{text}" for text in texts], x, y).numpy()
    a, b = x.numpy(), y.numpy()
    exact = (a.astype(np.longdouble) * b + a).astype(a.dtype)
    for row, wanted in enumerate([a / b, 1 / a, np.sqrt(a)]):
        assert np.array_equal(got[row], wanted), texts[row]
    assert np.allclose(got[3], exact, rtol=np.finfo(a.dtype).eps, atol=0)


def within(got: np.ndarray, wanted: np.ndarray, ulp: float, eps: float) -> bool:
    return bool((np.abs(got.astype(np.float64) - wanted) <= ulp * eps * np.abs(wanted)).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_functions_that_c_lacks(dtype: torch.dtype, tmp_path: Path) -> None:
    """rcbrt, sinpi and cospi within 4 ulp of float64, normcdf within 8 of its own value at -12."""
    x = torch.cat(
        [torch.linspace(-12, 12, SIZE - 16), torch.arange(-4, 4) / 2 + 2.0**20, torch.arange(-4, 4)]
    )
    x = x.to(dtype)
    names = ["rcbrt", "sinpi", "cospi", "normcdf"]
    got = launch(tmp_path, [f"libdevice.{name}(x)" for name in names], x, x).numpy()
    values, eps = x.double().numpy(), torch.finfo(dtype).eps
    with np.errstate(divide="ignore"):
        assert within(got[0][values != 0], 1 / np.cbrt(values[values != 0]), 4, eps)
    left = np.remainder(values, 2)  # exact
    whole = np.remainder(left, 0.5) == 0
    for row, function in ((1, np.sin), (2, np.cos)):
        exact = np.rint(function(np.pi * left))
        assert np.array_equal(got[row][whole], exact[whole]), names[row]
        wanted = function(np.longdouble("3.14159265358979323846264338327950288") * left)
        assert within(got[row][~whole], wanted[~whole].astype(np.float64), 4, eps), names[row]
    with mpmath.workdps(40):
        wanted = np.array([float(mpmath.ncdf(each)) for each in values.tolist()])
    assert within(got[3], wanted, 8, eps)


def test_fast_functions_are_the_precise_ones(tmp_path: Path) -> None:
    x = torch.linspace(0.05, 0.95, SIZE)
    functions: dict[str, Callable[..., np.ndarray]] = {
        "cosf(x)": lambda x: np.cos(x),
        "exp10f(x)": lambda x: 10.0**x,
        "expf(x)": lambda x: np.exp(x),
        "dividef(x, y)": lambda x: x / (x + 1),
        "log10f(x)": lambda x: np.log10(x),
        "log2f(x)": lambda x: np.log2(x),
        "logf(x)": lambda x: np.log(x),
        "powf(x, y)": lambda x: x ** (x + 1),
        "sinf(x)": lambda x: np.sin(x),
        "tanf(x)": lambda x: np.tan(x),
    }
    y = x + 1
    got = launch(tmp_path, [f"libdevice.fast_{name}" for name in functions], x, y).numpy()
    values = x.double().numpy()
    for row, (name, function) in enumerate(functions.items()):
        wanted = function(values) if "y" not in name else None
        if name.startswith("dividef"):
            wanted = values / y.double().numpy()
        if name.startswith("powf"):
            wanted = values ** y.double().numpy()
        assert wanted is not None
        assert within(got[row], wanted, 6, 2.0**-23), name
    special_values = of_every_kind(torch.float32)
    clamped = launch(tmp_path, ["libdevice.saturatef(x)"], special_values, special_values)[0].numpy()
    assert np.array_equal(clamped, np.nan_to_num(np.clip(special_values.numpy(), 0, 1), nan=0.0))


def test_bits_of_integers(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-(2**31), 2**31, (SIZE,), generator=generator, dtype=torch.int64)
    x[:6] = torch.tensor([0, 1, -1, 2**31 - 1, -(2**31), 2**16])
    y = x.flip(0).contiguous()
    names = ["clz", "popc", "ffs"]
    texts = [f"libdevice.{name}(x.to(tl.int32))" for name in names]
    texts += [f"libdevice.{name}(x)" for name in names]
    texts += ["libdevice.mulhi(x.to(tl.int32), y.to(tl.int32))", "libdevice.mulhi(x * 2**31, y * 2**31)"]
    texts += [
        "libdevice.mulhi(x.to(tl.uint32), y.to(tl.uint32)).to(tl.uint32)",
        "libdevice.mulhi(x.to(tl.uint64), y.to(tl.uint64))",
    ]
    got = launch(tmp_path, texts, x, y, torch.int64).tolist()
    for column, (a, b) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
        for row, bits in ((0, 32), (3, 64)):
            digits = f"{a % 2**bits:0{bits}b}"
            assert got[row][column] == (digits.index("1") if "1" in digits else bits)
            assert got[row + 1][column] == digits.count("1")
            assert got[row + 2][column] == (bits - digits.rindex("1") if "1" in digits else 0)
        assert got[6][column] == a * b >> 32
        assert got[7][column] == (a * 2**31) * (b * 2**31) >> 64
        assert got[8][column] == (a % 2**32) * (b % 2**32) >> 32
        assert got[9][column] % 2**64 == (a % 2**64) * (b % 2**64) >> 64


def signed(value: int, bits: int) -> int:
    return (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def reversed_bits(value: int, bits: int) -> int:
    return int(f"{value % 2**bits:0{bits}b}"[::-1], 2)


def permuted_bytes(a: int, b: int, chosen: int) -> int:
    held = (a % 2**32).to_bytes(4, "little") + (b % 2**32).to_bytes(4, "little")
    return int.from_bytes([held[chosen >> 4 * place & 7] for place in range(4)], "little")


def low_24_bits(value: int) -> int:
    return signed(value % 2**24, 24)


# Of 32-bit integers a, b and c: as signed ones, and the same as unsigned ones where there is such a function.
OF_INTEGERS: dict[str, Callable[[int, int, int], int]] = {
    "brev(a)": lambda a, b, c: reversed_bits(a, 32),
    "byte_perm(a, b, c)": permuted_bytes,
    "mul24(a, b)": lambda a, b, c: low_24_bits(a) * low_24_bits(b),
    "mul24(ua, ub)": lambda a, b, c: a % 2**24 * (b % 2**24),
    "sad(a, b, uc)": lambda a, b, c: abs(a - b) + c,
    "sad(ua, ub, uc)": lambda a, b, c: abs(a % 2**32 - b % 2**32) + c,
    "hadd(a, b)": lambda a, b, c: (a + b) >> 1,
    "hadd(ua, ub)": lambda a, b, c: (a % 2**32 + b % 2**32) >> 1,
    "rhadd(a, b)": lambda a, b, c: (a + b + 1) >> 1,
    "rhadd(ua, ub)": lambda a, b, c: (a % 2**32 + b % 2**32 + 1) >> 1,
    "abs(a)": lambda a, b, c: abs(a),
}


def test_functions_of_integers_are_exact(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, c = torch.randint(-(2**31), 2**31, (3, SIZE), generator=generator).int().unbind()
    edges = [0, 1, -1, 2**31 - 1, -(2**31), 2**23, -(2**23), 2**24 - 1]
    a[:64] = torch.tensor(edges).repeat(8).int()
    b[:64] = torch.tensor(edges).repeat_interleave(8).int()
    unsigned = {f"u{name}": f"{name}.to(tl.uint32, bitcast=True)" for name in "abc"}
    texts = []
    for text in OF_INTEGERS:
        for name, conversion in unsigned.items():
            text = text.replace(name, conversion)
        texts.append(f"libdevice.{text}")
    got = called(tmp_path, texts, {"a": a, "b": b, "c": c}, torch.int32)
    for row, (name, function) in enumerate(OF_INTEGERS.items()):
        arguments = zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
        assert got[row].tolist() == [signed(function(*each), 32) for each in arguments], name
    wide = called(
        tmp_path, ["libdevice.brev(w)", "libdevice.abs(w)"], {"w": a.long() * 2**31 + b}, torch.int64
    )
    numbers = (a.long() * 2**31 + b).tolist()
    assert wide[0].tolist() == [signed(reversed_bits(each, 64), 64) for each in numbers]
    assert wide[1].tolist() == [abs(each) for each in numbers]


def test_halves_of_doubles(tmp_path: Path) -> None:
    x = of_every_kind(torch.float64)
    bits = x.view(torch.int64)
    got = called(tmp_path, ["libdevice.double2hiint(x)", "libdevice.double2loint(x)"], {"x": x}, torch.int32)
    assert got[0].tolist() == (bits >> 32).tolist()
    assert got[1].tolist() == bits.int().tolist()
    again = called(
        tmp_path, ["libdevice.hiloint2double(high, low)"], {"high": got[0], "low": got[1]}, torch.float64
    )
    assert torch.equal(again[0].view(torch.int64), bits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_bit_casts_keep_every_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    x = of_every_kind(dtype)
    integers = torch.int32 if dtype == torch.float32 else torch.int64
    there, back = (
        ("float_as_int", "int_as_float")
        if dtype == torch.float32
        else ("double_as_longlong", "longlong_as_double")
    )
    bits = called(tmp_path, [f"libdevice.{there}(x)"], {"x": x}, integers)[0]
    assert torch.equal(bits, x.view(integers))
    assert torch.equal(
        called(tmp_path, [f"libdevice.{back}(x)"], {"x": bits}, dtype)[0].view(integers), x.view(integers)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rounding_to_long_integers(dtype: torch.dtype, tmp_path: Path) -> None:
    """Halves to even numbers by llrint, away from 0 by llround."""
    x = of_every_kind(dtype)
    got = called(tmp_path, ["libdevice.llrint(x)", "libdevice.llround(x)"], {"x": x}, torch.int64)

    def away(value: float) -> int:
        return int(math.copysign(math.floor(abs(value) + 0.5), value))

    for row, rounding in enumerate((round, away)):
        assert got[row].tolist() == [converted(each, rounding, 64, True, -(2**63)) for each in x.tolist()]  # type: ignore[arg-type]


def test_every_function_of_libdevice_is_known() -> None:
    """Triton's own list of them against the backend's."""
    source = Path(str(importlib.import_module("triton.language.extra.cuda.libdevice").__file__)).read_text()
    symbols = set(re.findall(r'"(__nv_\w+)"', source))
    assert len(symbols) > 300
    assert sorted(symbols - set(known_symbols())) == []
