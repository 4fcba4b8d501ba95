"""Functions of libdevice, by those of the C library: against Python's."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch

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
    lines = [
        "import triton",
        "import triton.language as tl",
        "from triton.language.extra import libdevice",
        "",
    ]
    lines += [
        "@triton.jit",
        "def kernel(x_ptr, y_ptr, out_ptr, SIZE: tl.constexpr):",
        "    i = tl.arange(0, SIZE)",
    ]
    lines += ["    x = tl.load(x_ptr + i)", "    y = tl.load(y_ptr + i)"]
    lines += [f"    tl.store(out_ptr + {row} * SIZE + i, {text})" for row, text in enumerate(expressions)]
    file = folder / "generated.py"
    file.write_text("\n".join(lines) + "\n")
    specification = importlib.util.spec_from_file_location("generated", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    out = torch.empty(len(expressions), SIZE, dtype=dtype or x.dtype)
    module.kernel[(1,)](x, y, out, SIZE=SIZE, enable_fp_fusion=False)
    return out


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
