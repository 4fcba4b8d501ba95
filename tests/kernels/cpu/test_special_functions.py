"""Special functions of libdevice, against mpmath: single precision within an ulp, double within a few."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.kernels.cpu.generated_kernels import called

SIZE = 256
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def spread(
    low: float, high: float, dtype: torch.dtype, logarithmic: bool = False, size: int = SIZE
) -> Tensor:
    """Numbers between two, at random, both ends among them."""
    share = np.random.default_rng(0).random(size)
    share[:2] = 0, 1
    numbers = low * (high / low) ** share if logarithmic else low + (high - low) * share
    return torch.from_numpy(numbers).clamp(low, high).to(dtype)


def errors(got: Tensor, wanted: Sequence[Any], scale: Sequence[Any] | None = None) -> np.ndarray:
    """Distances from exact values, in units of the last place of the value, or of something larger."""
    dtype = got.dtype
    smallest = torch.finfo(dtype).smallest_normal
    eps = torch.finfo(dtype).eps
    found = []
    for place, (ours, exact) in enumerate(zip(got.tolist(), wanted, strict=True)):
        size = max(abs(exact), scale[place] if scale is not None else 0, smallest)
        unit = mpmath.mpf(2) ** mpmath.floor(mpmath.log(size, 2)) * eps
        found.append(float(abs(ours - exact) / unit))
    return np.array(found)


def inverse_erfc(y: Any) -> Any:
    """By Newton's method on the logarithm, in mpmath's precision."""
    if y > 1:
        return -inverse_erfc(2 - y)
    if y > mpmath.mpf(1) / 2:
        return mpmath.erfinv(1 - y)
    x = mpmath.sqrt(-mpmath.log(y))
    for _ in range(100):
        value = mpmath.erfc(x)
        step = (mpmath.log(value) - mpmath.log(y)) * value * mpmath.sqrt(mpmath.pi) / 2 * mpmath.exp(x * x)
        x += step
        if abs(step) < mpmath.mpf(10) ** -35 * abs(x):
            break
    return x


Exact = Callable[[Any], Any]
# Name -> the exact function, and ranges of its argument with whether they are spread evenly in its logarithm.
OF_ONE: dict[str, tuple[Exact, list[tuple[float, float, bool]]]] = {
    "cyl_bessel_i0": (lambda x: mpmath.besseli(0, x), [(-20, 20, False), (7.9, 8.1, False), (20, 85, False)]),
    "cyl_bessel_i1": (lambda x: mpmath.besseli(1, x), [(-20, 20, False), (1e-30, 1, True), (20, 85, False)]),
    "erfcx": (lambda x: mpmath.exp(x * x) * mpmath.erfc(x), [(-9, 12, False), (9.9, 1e15, True)]),
    "erfinv": (
        lambda x: mpmath.sign(x) * inverse_erfc(1 - abs(x)),
        [(-0.999999, 0.999999, False), (1e-30, 0.5, True), (0.49, 0.51, False)],
    ),
    "erfcinv": (inverse_erfc, [(1e-6, 1.999999, False), (1e-37, 0.6, True), (0.999, 1.001, False)]),
    "normcdfinv": (
        lambda x: -mpmath.sqrt(2) * inverse_erfc(2 * x),
        [(1e-6, 0.999999, False), (1e-37, 0.3, True), (0.4999, 0.5001, False)],
    ),
    "lgamma": (
        lambda x: mpmath.re(mpmath.loggamma(x)),
        [(0.1, 0.9, False), (2.1, 30, False), (30, 1e6, True)],
    ),
    "tgamma": (mpmath.gamma, [(0.01, 3, False), (-5.9, -5.1, False), (3, 34, False)]),
}


@DTYPES
@pytest.mark.parametrize("name", OF_ONE)
def test_special_functions_of_one_number(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Single precision within 1 ulp, double within 8."""
    function, ranges = OF_ONE[name]
    for low, high, logarithmic in ranges:
        x = spread(low, high, dtype, logarithmic)
        got = called(tmp_path, [f"libdevice.{name}(x)"], {"x": x}, dtype)[0]
        with mpmath.workdps(60):
            off = errors(got, [function(mpmath.mpf(each)) for each in x.tolist()])
        worst = int(off.argmax())
        assert off[worst] <= (1 if dtype == torch.float32 else 8), (
            x[worst].item(),
            got[worst].item(),
            off[worst],
        )


# Name -> the exact function of an order and an argument.
BESSEL: dict[str, Callable[[int, Any], Any]] = {"j": mpmath.besselj, "y": mpmath.bessely}


@DTYPES
@pytest.mark.parametrize("kind", BESSEL)
def test_bessel_functions(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Single precision within 1 ulp. Double within 8 of the larger of the value and sqrt(2 / (pi x)), 10 by order."""
    for low, high in ((0.05, 8.0), (8.0, 300.0)):
        x = spread(low, high, dtype, size=64)
        orders = torch.arange(64, dtype=torch.int32) % 11
        names = [f"{kind}0(x)", f"{kind}1(x)", f"{kind}n(n, x)"]
        got = called(tmp_path, [f"libdevice.{name}" for name in names], {"x": x, "n": orders}, dtype)
        for row, order in enumerate([torch.zeros_like(orders), torch.ones_like(orders), orders]):
            with mpmath.workdps(40):
                arguments = [mpmath.mpf(each) for each in x.tolist()]
                wanted = [BESSEL[kind](n, each) for n, each in zip(order.tolist(), arguments, strict=True)]
                # Near its zeros a function has the digits of its envelope.
                envelope = [mpmath.sqrt(2 / (mpmath.pi * each)) for each in arguments]
                off = errors(got[row], wanted, None if dtype == torch.float32 else envelope)
            allowed = 1 if dtype == torch.float32 else 10 if row == 2 else 8
            assert off.max() <= allowed, (names[row], x[int(off.argmax())].item(), off.max())


@DTYPES
def test_lengths_of_vectors(dtype: torch.dtype, tmp_path: Path) -> None:
    """Without overflow or underflow on the way."""
    largest = math.log2(torch.finfo(dtype).max)
    generator = torch.Generator().manual_seed(0)
    operands = {}
    for name in "abcd":
        exponents = torch.randint(-int(largest) + 30, int(largest) - 3, (SIZE,), generator=generator)
        exponents[::2] = exponents[0]
        parts = torch.rand(SIZE, generator=generator, dtype=torch.float64) + 1
        operands[name] = torch.ldexp(parts, exponents.double()).to(dtype)
    names = [
        "norm3d(a, b, c)",
        "rnorm3d(a, b, c)",
        "norm4d(a, b, c, d)",
        "rnorm4d(a, b, c, d)",
        "rhypot(a, b)",
    ]
    got = called(tmp_path, [f"libdevice.{name}" for name in names], operands, dtype)
    with mpmath.workdps(40):
        columns = [[mpmath.mpf(each) for each in column.tolist()] for column in operands.values()]
        for row, name in enumerate(names):
            count = name.count(",") + 1
            lengths = [mpmath.sqrt(sum(x * x for x in each)) for each in zip(*columns[:count], strict=True)]
            wanted = [1 / each for each in lengths] if name.startswith("r") else lengths
            assert errors(got[row], wanted).max() <= (1 if dtype == torch.float32 else 4), name


INF, NAN = math.inf, math.nan
SPECIAL = [0.0, -0.0, INF, -INF, NAN, 1.0, -1.0, 2.0]
# What the documents of C and of CUDA's mathematical functions say of SPECIAL's values.
AT_SPECIAL = {
    "cyl_bessel_i0(x)": [1, 1, INF, INF, NAN, None, None, None],
    "cyl_bessel_i1(x)": [0.0, -0.0, INF, -INF, NAN, None, None, None],
    "j0(x)": [1, 1, 0, 0, NAN, None, None, None],
    "j1(x)": [0.0, -0.0, 0, 0, NAN, None, None, None],
    "y0(x)": [-INF, -INF, 0, NAN, NAN, None, NAN, None],
    "y1(x)": [-INF, -INF, 0, NAN, NAN, None, NAN, None],
    "erfcx(x)": [1, 1, 0, INF, NAN, None, None, None],
    "erfinv(x)": [0.0, -0.0, NAN, NAN, NAN, INF, -INF, NAN],
    "erfcinv(x)": [INF, INF, NAN, NAN, NAN, 0, NAN, -INF],
    "normcdfinv(x)": [-INF, -INF, NAN, NAN, NAN, INF, NAN, NAN],
    "tgamma(x)": [INF, -INF, INF, NAN, NAN, 1, NAN, 1],
    "lgamma(x)": [INF, INF, INF, INF, NAN, 0, INF, 0],
    "norm3d(x, 1.0, 0.0)": [1, 1, INF, INF, NAN, None, None, None],
    "rnorm3d(x, 0.0, 0.0)": [INF, INF, 0, 0, NAN, 1, 1, 0.5],
    "norm4d(x, x, x, x)": [0, 0, INF, INF, NAN, 2, 2, 4],
    "logb(x)": [-INF, -INF, INF, INF, NAN, 0, 0, 1],
    "rcp64h(x.to(tl.float64))": [INF, -INF, 0.0, -0.0, NAN, 1, -1, 0.5],
}


@DTYPES
def test_special_functions_at_special_values(dtype: torch.dtype, tmp_path: Path) -> None:
    x = torch.tensor(SPECIAL, dtype=dtype)
    texts = [text.replace("1.0", "one").replace("0.0", "zero") for text in AT_SPECIAL]
    operands = {"x": x, "one": torch.ones_like(x), "zero": torch.zeros_like(x)}
    got = called(tmp_path, [f"libdevice.{text}" for text in texts], operands, dtype).tolist()
    for row, (name, wanted) in zip(got, AT_SPECIAL.items(), strict=True):
        for at, ours, value in zip(SPECIAL, row, wanted, strict=True):
            same = value is None or ours == value or (math.isnan(ours) and math.isnan(value))
            assert same, (name, at, ours, value)
            if (
                value == 0
                and name.split("(")[0] in ("cyl_bessel_i1", "j1", "erfinv", "rcp64h")
                and abs(at) != INF
            ):
                assert math.copysign(1, ours) == math.copysign(1, value), (name, at)


def test_the_order_of_a_bessel_function_is_not_negative(tmp_path: Path) -> None:
    """CUDA has NaN there."""
    x, n = torch.ones(4), torch.tensor([-3, -1, 0, 1], dtype=torch.int32)
    got = called(tmp_path, ["libdevice.jn(n, x)", "libdevice.yn(n, x)"], {"x": x, "n": n}, torch.float32)
    assert got.isnan().tolist() == [[True, True, False, False]] * 2


@DTYPES
def test_powers_of_two_and_whole_powers(dtype: torch.dtype, tmp_path: Path) -> None:
    x = spread(0.2, 3, dtype) * torch.tensor([1, -1], dtype=dtype).repeat(SIZE // 2)
    n = torch.from_numpy(np.random.default_rng(1).integers(-25, 26, SIZE)).int()
    n[:4] = torch.tensor([-(2**31), 2**31 - 1, 0, 1])
    texts = ["pow(x, n)", "ldexp(x, n)", "scalbn(x, n)", "logb(x)"]
    got = called(tmp_path, [f"libdevice.{text}" for text in texts], {"x": x, "n": n}, dtype)
    exact = [mpmath.mpf(a) ** b for a, b in zip(x[4:].tolist(), n[4:].tolist(), strict=True)]
    assert errors(got[0, 4:], exact).max() <= 1
    with np.errstate(over="ignore"):
        wanted = np.ldexp(x.numpy(), n.numpy())
    for row in (1, 2):
        assert np.array_equal(got[row].numpy(), wanted)
    assert got[3].tolist() == [float(math.frexp(each)[1] - 1) for each in x.tolist()]
    exponents = called(tmp_path, ["libdevice.ilogb(x)"], {"x": x}, torch.int32)[0]
    assert exponents.tolist() == [math.frexp(each)[1] - 1 for each in x.tolist()]


def test_a_rough_reciprocal_has_twenty_bits(tmp_path: Path) -> None:
    """rcp64h takes and gives the upper half of the bits."""
    x = spread(1e-300, 1e300, torch.float64, logarithmic=True)
    got = called(tmp_path, ["libdevice.rcp64h(x)"], {"x": x}, torch.float64)[0]
    assert (got * x - 1).abs().max() < 2**-19
    assert (got.view(torch.int64) & 0xFFFFFFFF == 0).all()
