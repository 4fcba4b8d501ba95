"""What Triton's language promises, operation by operation: about eight cases of each, over dtypes and shapes.

Every result is compared with NumPy's or PyTorch's: integers exactly, floats with float64.
"""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# `if` and `else` with one assignment each, or a return in each, are what is tested (SIM108, RET505).
# ruff: noqa: N803, SIM108, RET505
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False, ignore-errors=True
from __future__ import annotations

import math
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.compiler.errors import CompilationError

from tests.kernels.cpu.generated_kernels import generated

pytestmark = pytest.mark.libraries

SIZE = 128
SIGNED = ["int8", "int16", "int32", "int64"]
UNSIGNED = ["uint8", "uint16", "uint32", "uint64"]
INTEGERS = [*SIGNED, *UNSIGNED]
FLOATS = ["float16", "bfloat16", "float32", "float64"]
DTYPES = [*INTEGERS, *FLOATS]
# An ulp of 1, and what results may be off by.
EPS = {name: torch.finfo(getattr(torch, name)).eps for name in FLOATS}


def values(dtype: str, seed: int = 0, shape: int | tuple[int, ...] = SIZE, zero: bool = True) -> Tensor:
    """Numbers of a type: floats around 0, integers over the whole range; `zero` lets 0 be among them."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return torch.from_numpy(rng.random(shape) < 0.5)
    if dtype in FLOATS:
        return torch.from_numpy(rng.normal(size=shape)).to(getattr(torch, dtype))
    info = np.iinfo(dtype)
    numbers = rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    numbers[rng.random(shape) < 0.5] //= np.array(info.max // 11, dtype)
    if not zero:
        numbers[numbers == 0] = 3
    return torch.from_numpy(numbers)


def array(x: Tensor) -> np.ndarray:
    """Floats in float64, integers as they are."""
    return x.double().numpy() if x.is_floating_point() else x.numpy()


def assert_right(got: Tensor, wanted: np.ndarray, ulp: float = 1.0, at_least: float = 0.0) -> None:
    """Integers and truth values are equal. Floats are off by so many units of their own type.

    Args:
        at_least: a size below which no value's unit is taken to be.
    """
    ours = array(got)
    assert ours.shape == wanted.shape
    if not got.is_floating_point():
        assert np.array_equal(ours, wanted.astype(ours.dtype))
        return
    eps, tiny = torch.finfo(got.dtype).eps, torch.finfo(got.dtype).tiny
    wanted = wanted.astype(np.float64)
    beyond = np.abs(wanted) > torch.finfo(got.dtype).max
    wanted = np.where(beyond, np.copysign(np.inf, wanted), wanted)
    assert np.array_equal(np.isnan(ours), np.isnan(wanted))
    infinite = np.isinf(wanted)
    assert np.array_equal(ours[infinite], wanted[infinite])
    finite = np.isfinite(wanted)
    off = np.abs(ours[finite] - wanted[finite])
    assert (off <= ulp * eps * np.maximum(np.abs(wanted[finite]), max(tiny, at_least))).all(), off.max()


LOADS = "\n".join(
    [
        "    i = tl.arange(0, SIZE)",
        "    x = tl.load(x_ptr + i)",
        "    y = tl.load(y_ptr + i)",
        "    tl.store(out_ptr + i, {expression})",
    ]
)


def of_two(folder: Path, expression: str, x: Tensor, y: Tensor, dtype: str) -> Tensor:
    """An expression of x and y, stored as a type."""
    kernel = generated(
        folder, "x_ptr, y_ptr, out_ptr, SIZE: tl.constexpr", LOADS.format(expression=expression)
    )
    out = torch.empty(len(x), dtype=getattr(torch, dtype))
    kernel[(1,)](x, y, out, SIZE=len(x), enable_fp_fusion=False)
    return out


def of_tile(folder: Path, expression: str, x: Tensor, out: Tensor, **constants: Any) -> Tensor:
    """An expression of the whole tile x, whatever its rank, stored as a tile of out's shape."""

    def offsets(shape: tuple[int, ...]) -> str:
        terms = []
        for place, size in enumerate(shape):
            index = ", ".join(":" if other == place else "None" for other in range(len(shape)))
            terms.append(f"tl.arange(0, {size})[{index}] * {math.prod(shape[place + 1 :])}")
        return " + ".join(terms) or "0"

    body = [
        f"    x = tl.load(x_ptr + ({offsets(tuple(x.shape))}))",
        f"    value = {expression}",
        f"    tl.store(out_ptr + ({offsets(tuple(out.shape))}), value)",
    ]
    names = "".join(f", {name}: tl.constexpr" for name in constants)
    kernel = generated(folder, f"x_ptr, out_ptr{names}", "\n".join(body))
    kernel[(1,)](x, out, enable_fp_fusion=False, **constants)
    return out


# ---------------------------------------------------------------- each element alone

ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "%": np.fmod, "/": operator.truediv}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operation", ["+", "-", "*", "%"])
def test_arithmetic(operation: str, dtype: str, tmp_path: Path) -> None:
    """Integers wrap around. A remainder has the sign of the dividend."""
    x, y = values(dtype), values(dtype, 1, zero=False)
    got = of_two(tmp_path, f"x {operation} y", x, y, dtype)
    with np.errstate(all="ignore"):
        assert_right(got, ARITHMETIC[operation](array(x), array(y)))


@pytest.mark.parametrize("dtype", [*SIGNED, *FLOATS])
def test_true_division(dtype: str, tmp_path: Path) -> None:
    """Of integers it is one of float32."""
    x, y = values(dtype), values(dtype, 1, zero=False)
    result = dtype if dtype in FLOATS else "float32"
    got = of_two(tmp_path, "x / y", x, y, result)
    assert_right(got, array(x).astype(np.float64) / array(y).astype(np.float64), ulp=2)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_division(dtype: str, tmp_path: Path) -> None:
    """Towards zero, as in C."""
    x, y = values(dtype), values(dtype, 1, zero=False)
    if dtype in SIGNED:
        y[y == -1] = 2  # the most negative number over -1 has no quotient
    got = of_two(tmp_path, "x // y", x, y, dtype)
    wanted = [
        abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        for a, b in zip(x.tolist(), y.tolist(), strict=True)
    ]
    assert got.tolist() == wanted


MIXED = {
    ("int8", "int32"): "int32",
    ("int16", "int64"): "int64",
    ("uint8", "uint32"): "uint32",
    ("int32", "uint32"): "uint32",
    ("int64", "uint64"): "uint64",
    ("int32", "float32"): "float32",
    ("int64", "float16"): "float16",
    ("int8", "bfloat16"): "float32",
    ("float16", "float32"): "float32",
    ("bfloat16", "float32"): "float32",
    ("float16", "bfloat16"): "float16",
    ("float32", "float64"): "float64",
}


@pytest.mark.parametrize("pair", MIXED, ids="-".join)
def test_promotion(pair: tuple[str, str], tmp_path: Path) -> None:
    x, y = values(pair[0]), values(pair[1], 1)
    if pair[0] in INTEGERS and pair[1] in FLOATS:
        x = torch.from_numpy(array(x) % 100)
    common = MIXED[pair]
    kernel = generated(
        tmp_path,
        "x_ptr, y_ptr, out_ptr, SIZE: tl.constexpr, EXPECTED: tl.constexpr",
        LOADS.format(expression="x + y") + "\n    tl.static_assert((x + y).dtype == EXPECTED)",
    )
    out = torch.empty(SIZE, dtype=getattr(torch, common))
    kernel[(1,)](x, y, out, SIZE=SIZE, EXPECTED=getattr(tl, common))
    a, b = (array(each.to(getattr(torch, common))) for each in (x, y))
    with np.errstate(all="ignore"):
        assert_right(out, a + b)


BITWISE = {"&": operator.and_, "|": operator.or_, "^": operator.xor}


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("operation", BITWISE)
def test_bits(operation: str, dtype: str, tmp_path: Path) -> None:
    x, y = values(dtype), values(dtype, 1)
    assert_right(of_two(tmp_path, f"x {operation} y", x, y, dtype), BITWISE[operation](array(x), array(y)))


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("operation", ["<<", ">>"])
def test_shifts(operation: str, dtype: str, tmp_path: Path) -> None:
    """To the right the sign is kept where there is one."""
    bits = np.iinfo(dtype).bits
    x = values(dtype)
    y = torch.from_numpy(np.random.default_rng(1).integers(0, bits, SIZE).astype(dtype))
    shift = np.left_shift if operation == "<<" else np.right_shift
    assert_right(of_two(tmp_path, f"x {operation} y", x, y, dtype), shift(array(x), array(y)))


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_negation(dtype: str, tmp_path: Path) -> None:
    """Unsigned integers wrap around too."""
    x = values(dtype)
    with np.errstate(all="ignore"):
        assert_right(of_two(tmp_path, "-x", x, x, dtype), -array(x))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_inversion(dtype: str, tmp_path: Path) -> None:
    x = values(dtype)
    assert_right(of_two(tmp_path, "~x", x, x, dtype), ~array(x))


COMPARISONS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@pytest.mark.parametrize(
    "dtype", ["int8", "uint16", "int32", "uint64", "float16", "bfloat16", "float32", "float64"]
)
@pytest.mark.parametrize("operation", COMPARISONS)
def test_comparisons(operation: str, dtype: str, tmp_path: Path) -> None:
    """With NaN only `!=` holds."""
    x, y = values(dtype), values(dtype, 1)
    y[::3] = x[::3]
    if dtype in FLOATS:
        x[:2], y[1:3] = math.nan, math.nan
    got = of_two(tmp_path, f"x {operation} y", x, y, "bool")
    assert_right(got, COMPARISONS[operation](array(x), array(y)))


@pytest.mark.parametrize("dtype", [*SIGNED, *FLOATS])
def test_where(dtype: str, tmp_path: Path) -> None:
    x, y = values(dtype), values(dtype, 1)
    got = of_two(tmp_path, "tl.where(x < y, x, y * 2)", x, y, dtype)
    with np.errstate(all="ignore"):
        assert_right(got, np.where(array(x) < array(y), array(x), array(y) * 2))


@pytest.mark.parametrize(
    "dtype", ["int8", "int32", "int64", "uint8", "float16", "bfloat16", "float32", "float64"]
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_scalar_on_one_side(side: str, dtype: str, tmp_path: Path) -> None:
    x, y = values(dtype), values(dtype, 1)
    expression = "tl.load(x_ptr) - y" if side == "left" else "x - tl.load(y_ptr)"
    a, b = array(x), array(y)
    with np.errstate(all="ignore"):
        assert_right(of_two(tmp_path, expression, x, y, dtype), a[0] - b if side == "left" else a - b[0])


@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32", "bfloat16"])
@pytest.mark.parametrize("constant", ["3", "-7", "2.5"])
def test_a_number_on_one_side(constant: str, dtype: str, tmp_path: Path) -> None:
    """An integer takes the tile's type, a float makes it float32 where it holds integers."""
    if dtype == "uint8" and constant == "-7":
        constant = "200"
    x = values(dtype)
    result = "float32" if constant == "2.5" and dtype in INTEGERS else dtype
    number = np.float64(constant) if result in FLOATS else np.array(int(constant), dtype)
    with np.errstate(all="ignore"):
        assert_right(of_two(tmp_path, f"{constant} + x", x, x, result), number + array(x))


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_absolute_values(dtype: str, tmp_path: Path) -> None:
    x = values(dtype)
    with np.errstate(all="ignore"):
        assert_right(of_two(tmp_path, "tl.abs(x)", x, x, dtype), np.abs(array(x)))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": np.exp,
    "exp2": np.exp2,
    "log": np.log,
    "log2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "erf": lambda x: np.array([math.erf(each) for each in x]),
    "floor": np.floor,
    "ceil": np.ceil,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str, dtype: str, tmp_path: Path) -> None:
    x = values(dtype) * 3
    if name in ("log", "log2", "sqrt", "rsqrt"):
        x = x.abs() + 0.01
    wanted = FUNCTIONS[name](array(x))
    # Near its zeros a function has the digits of its argument.
    assert_right(
        of_two(tmp_path, f"tl.{name}(x)", x, x, dtype), wanted, ulp=4, at_least=0.25 if name != "erf" else 0
    )


EXACT_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "tl.fma(x, y, x)": lambda x, y: x * y + x,
    "tl.div_rn(x, y)": lambda x, y: x / y,
    "tl.sqrt_rn(tl.abs(x))": lambda x, y: np.sqrt(np.abs(x)),
    "tl.maximum(x, y)": np.maximum,
    "tl.minimum(x, y)": np.minimum,
    "tl.clamp(x, -0.5, 0.75)": lambda x, y: np.clip(x, -0.5, 0.75),
    "tl.clamp(x, -tl.abs(y), tl.abs(y))": lambda x, y: np.clip(x, -np.abs(y), np.abs(y)),
    "tl.fdiv(x, y)": lambda x, y: x / y,
}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("expression", EXACT_FUNCTIONS)
def test_functions_that_are_rounded_once(expression: str, dtype: str, tmp_path: Path) -> None:
    x, y = values(dtype), values(dtype, 1)
    if dtype != "float32" and ("_rn" in expression or "fdiv" in expression):
        x, y, dtype = x.float(), y.float(), "float32"
    assert_right(
        of_two(tmp_path, expression, x, y, dtype), EXACT_FUNCTIONS[expression](array(x), array(y)), ulp=1
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", ["maximum", "minimum"])
@pytest.mark.parametrize("handed_on", [True, False])
def test_nan_in_an_extreme(handed_on: bool, name: str, dtype: str, tmp_path: Path) -> None:
    x, y = values(dtype), values(dtype, 1)
    x[:4], y[2:6] = math.nan, math.nan
    mode = "ALL" if handed_on else "NONE"
    got = of_two(tmp_path, f"tl.{name}(x, y, propagate_nan=tl.PropagateNan.{mode})", x, y, dtype)
    function = getattr(np, name if handed_on else {"maximum": "fmax", "minimum": "fmin"}[name])
    assert_right(got, function(array(x), array(y)))


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "uint64"])
def test_the_upper_half_of_a_product(dtype: str, tmp_path: Path) -> None:
    x, y = values(dtype), values(dtype, 1)
    bits = np.iinfo(dtype).bits
    got = of_two(tmp_path, "tl.umulhi(x, y)", x, y, dtype)
    pairs = zip(x.tolist(), y.tolist(), strict=True)
    assert [each % 2**bits for each in got.tolist()] == [
        (a % 2**bits) * (b % 2**bits) >> bits for a, b in pairs
    ]


# ---------------------------------------------------------------- conversions


@pytest.mark.parametrize(
    "source", ["int8", "int32", "uint16", "int64", "float16", "bfloat16", "float32", "float64"]
)
@pytest.mark.parametrize(
    "target", ["int8", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64"]
)
def test_casts(source: str, target: str, tmp_path: Path) -> None:
    """Integers keep their low bits. Floats are rounded to the nearest, and to integers they lose their fraction."""
    x = values(source)
    if source in FLOATS and target in INTEGERS:
        x = (x * 20).abs() if target == "uint8" else x * 20
    if source in INTEGERS and target == "float16":
        x = torch.from_numpy(array(x) % np.array(100, source))
    got = of_two(tmp_path, f"x.to(tl.{target})", x, x, target)
    with np.errstate(all="ignore"):
        wanted = array(x) if target in FLOATS else np.trunc(array(x)).astype(target)
        assert_right(got, wanted, ulp=0.5)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *(("float32", "int32"), ("int32", "float32"), ("float16", "int16"), ("int16", "float16")),
        *(("bfloat16", "int16"), ("uint16", "bfloat16"), ("float64", "int64"), ("uint64", "float64")),
        *(("float16", "bfloat16"), ("uint8", "int8")),
    ],
)
def test_bit_casts(source: str, target: str, tmp_path: Path) -> None:
    x = values(source)
    got = of_two(tmp_path, f"x.to(tl.{target}, bitcast=True)", x, x, target)
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    assert torch.equal(got.view(whole), x.view(whole))


@pytest.mark.parametrize("target", ["float16", "bfloat16"])
def test_rounding_towards_zero(target: str, tmp_path: Path) -> None:
    x = values("float32") * 1000
    got = of_two(tmp_path, f"x.to(tl.{target}, fp_downcast_rounding='rtz')", x, x, target).double()
    assert (got.abs() <= x.double().abs()).all()
    assert ((x.double() - got).abs() < EPS[target] * x.double().abs()).all()


@pytest.mark.parametrize("dtype", [*DTYPES])
def test_a_store_converts(dtype: str, tmp_path: Path) -> None:
    x = values("int32") % 100
    assert_right(of_two(tmp_path, "x", x, x, dtype), array(x))


@pytest.mark.parametrize(
    "member", ["x.abs()", "tl.sum(x, 0) + x", "x.to(tl.float64)", "(x + x).abs()", "x.min() + x"]
)
def test_members_of_tiles(member: str, tmp_path: Path) -> None:
    x = values("float32")
    a = array(x)
    wanted = {
        "x.abs()": np.abs(a),
        "tl.sum(x, 0) + x": a.sum() + a,
        "x.to(tl.float64)": a,
        "(x + x).abs()": 2 * np.abs(a),
        "x.min() + x": a.min() + a,
    }[member]
    assert_right(of_two(tmp_path, member, x, x, "float32"), wanted, ulp=2, at_least=np.abs(a).sum())


# ---------------------------------------------------------------- shapes

SHAPES = [(4, 8), (16, 2), (1, 32), (64, 1)]
SHAPE_IDS = pytest.mark.parametrize("shape", SHAPES, ids=str)


@SHAPE_IDS
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_transposition(dtype: str, shape: tuple[int, int], tmp_path: Path) -> None:
    x = values(dtype, shape=shape)
    assert torch.equal(of_tile(tmp_path, "tl.trans(x)", x, torch.empty(shape[::-1], dtype=x.dtype)), x.t())


ORDERS = [
    (0, 1, 2, 3),
    (3, 2, 1, 0),
    (1, 0, 3, 2),
    (2, 3, 0, 1),
    (0, 3, 1, 2),
    (1, 2, 3, 0),
    (3, 0, 1, 2),
    (2, 0, 3, 1),
]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_permutation(order: tuple[int, ...], tmp_path: Path) -> None:
    x = values("float32", shape=(2, 4, 8, 2))
    wanted = x.permute(order).contiguous()
    assert torch.equal(of_tile(tmp_path, f"tl.permute(x, {order})", x, torch.empty_like(wanted)), wanted)


RESHAPES = [
    ((4, 8), (8, 4)),
    ((32,), (2, 2, 8)),
    ((2, 2, 8), (32,)),
    ((4, 8), (1, 32)),
    ((64, 1), (8, 8)),
    ((2, 4, 4), (8, 4)),
]


@pytest.mark.parametrize("shapes", RESHAPES, ids=str)
@pytest.mark.parametrize("call", ["tl.reshape(x, {0})", "x.reshape({0})"])
def test_reshaping(call: str, shapes: tuple[tuple[int, ...], tuple[int, ...]], tmp_path: Path) -> None:
    x = values("int32", shape=shapes[0])
    got = of_tile(tmp_path, call.format(shapes[1]), x, torch.empty(shapes[1], dtype=torch.int32))
    assert torch.equal(got, x.reshape(shapes[1]))


SLICES = {
    "tl.sum(x, 1)[:, None]": lambda x: x.sum(1)[:, None],
    "tl.sum(x, 0)[None, :]": lambda x: x.sum(0)[None],
    "x[None, :, :]": lambda x: x[None],
    "x[:, None, :]": lambda x: x[:, None],
    "x[:, :, None]": lambda x: x[..., None],
    "x.expand_dims(0)": lambda x: x[None],
    "tl.expand_dims(x, (0, -1))": lambda x: x[None, :, :, None],
    "x[None, :, None, :]": lambda x: x[None, :, None],
}


@pytest.mark.parametrize("expression", SLICES)
def test_new_dimensions(expression: str, tmp_path: Path) -> None:
    x = values("int32", shape=(4, 8)) % 1000
    wanted = SLICES[expression](x).int()
    assert torch.equal(of_tile(tmp_path, expression, x, torch.empty_like(wanted)), wanted)


@pytest.mark.parametrize(
    "expression",
    ["x[0]", "x[:4]", "x[::2]", "x.expand_dims(5)", "tl.expand_dims(x, (0, 0))", "tl.reshape(x, (3, 8))"],
)
def test_what_is_no_slice_is_refused(expression: str, tmp_path: Path) -> None:
    x = values("int32", shape=(4, 8))
    with pytest.raises(CompilationError):
        of_tile(tmp_path, expression, x, torch.empty_like(x))


BROADCASTS = [
    ((1, 8), (4, 8)),
    ((4, 1), (4, 8)),
    ((1, 1), (4, 8)),
    ((1, 4, 1), (2, 4, 8)),
    ((2, 1, 8), (2, 4, 8)),
]


@pytest.mark.parametrize("shapes", BROADCASTS, ids=str)
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_broadcasting(dtype: str, shapes: tuple[tuple[int, ...], tuple[int, ...]], tmp_path: Path) -> None:
    x = values(dtype, shape=shapes[0])
    got = of_tile(tmp_path, f"tl.broadcast_to(x, {shapes[1]})", x, torch.empty(shapes[1], dtype=x.dtype))
    assert torch.equal(got, x.expand(shapes[1]))


JOINED = {
    "tl.join(x, x + 1)": lambda x: torch.stack([x, x + 1], -1),
    "tl.interleave(x, x + 1)": lambda x: torch.stack([x, x + 1], -1).flatten(-2),
    "tl.join(tl.join(x, x + 1), tl.join(x + 2, x + 3))": lambda x: torch.stack(
        [torch.stack([x, x + 1], -1), torch.stack([x + 2, x + 3], -1)], -1
    ),
    "tl.split(tl.join(x, x + 1))[1]": lambda x: x + 1,
    "tl.split(tl.join(x, x + 1))[0] * 2 + tl.split(tl.join(x, x + 1))[1]": lambda x: 3 * x + 1,
}


@pytest.mark.parametrize("expression", JOINED)
@pytest.mark.parametrize("shape", [(16,), (4, 8)], ids=str)
def test_joining_and_splitting(shape: tuple[int, ...], expression: str, tmp_path: Path) -> None:
    x = values("int32", shape=shape) % 1000
    wanted = JOINED[expression](x).int()
    assert torch.equal(of_tile(tmp_path, expression, x, torch.empty_like(wanted)), wanted)


@pytest.mark.parametrize("dtype", ["int8", "int32", "bfloat16", "float32"])
def test_concatenation(dtype: str, tmp_path: Path) -> None:
    x = values(dtype)
    got = of_tile(tmp_path, "tl.cat(x, -x, can_reorder=True)", x, torch.empty(2 * SIZE, dtype=x.dtype))
    assert sorted(got.tolist()) == sorted(torch.cat([x, -x]).tolist())


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_full_tiles(dtype: str, tmp_path: Path) -> None:
    x = torch.zeros(4, 8, dtype=getattr(torch, dtype))
    got = of_tile(
        tmp_path, f"tl.full((4, 8), 5, tl.{dtype}) + tl.zeros((4, 8), tl.{dtype})", x, torch.empty_like(x)
    )
    assert got.tolist() == [[5] * 8] * 4


@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, 64), (32, 64), (3, 7), (128, 256), (1, 2)])
def test_ranges(start: int, end: int, tmp_path: Path) -> None:
    x = torch.zeros(end - start, dtype=torch.int32)
    got = of_tile(tmp_path, f"tl.arange({start}, {end}) + x * 0", x, torch.empty_like(x))
    assert got.tolist() == list(range(start, end))


@pytest.mark.parametrize(("start", "end"), [(0, 3), (4, 4), (5, 2), (0, 100)])
def test_ranges_that_are_refused(start: int, end: int, tmp_path: Path) -> None:
    x = torch.zeros(4, dtype=torch.int32)
    with pytest.raises(CompilationError):
        of_tile(tmp_path, f"tl.arange({start}, {end})", x, x)


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("dimension", [0, 1])
def test_flipping(dimension: int, dtype: str, tmp_path: Path) -> None:
    x = values(dtype, shape=(4, 8))
    assert torch.equal(
        of_tile(tmp_path, f"tl.flip(x, {dimension})", x, torch.empty_like(x)), x.flip(dimension)
    )


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_masked_loads(dtype: str, tmp_path: Path) -> None:
    """What lies behind the mask is `other`."""
    x = values(dtype)
    body = """
    i = tl.arange(0, SIZE)
    x = tl.load(x_ptr + i, mask=i < n, other=7)
    tl.store(out_ptr + i, x)"""
    out = torch.empty_like(x)
    generated(tmp_path, "x_ptr, out_ptr, n, SIZE: tl.constexpr", body)[(1,)](x, out, 77, SIZE=SIZE)
    assert torch.equal(out[:77], x[:77])
    assert out[77:].tolist() == [7] * (SIZE - 77)


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_masked_stores(dtype: str, tmp_path: Path) -> None:
    """What lies behind the mask stays."""
    x = values(dtype)
    body = """
    i = tl.arange(0, SIZE)
    tl.store(out_ptr + i, tl.load(x_ptr + i), mask=(i % 3 == 1) & (i < n))"""
    out = torch.full_like(x, 9)
    generated(tmp_path, "x_ptr, out_ptr, n, SIZE: tl.constexpr", body)[(1,)](x, out, 77, SIZE=SIZE)
    kept = (torch.arange(SIZE) % 3 == 1) & (torch.arange(SIZE) < 77)
    assert_right(out, np.where(kept, array(x), 9), ulp=0)


@pytest.mark.parametrize("dtype", ["int8", "int64", "float16", "float32"])
@pytest.mark.parametrize("there", [True, False])
def test_masked_scalars(there: bool, dtype: str, tmp_path: Path) -> None:
    x = values(dtype)
    body = """
    value = tl.load(x_ptr + 3, mask=there > 0, other=2)
    tl.store(out_ptr, value, mask=there >= 0)"""
    out = torch.zeros(1, dtype=x.dtype)
    generated(tmp_path, "x_ptr, out_ptr, there", body)[(1,)](x, out, int(there))
    assert out[0] == (x[3] if there else 2)


@pytest.mark.parametrize(
    "options",
    [
        *("cache_modifier='.ca'", "cache_modifier='.cg'", "cache_modifier='.cv'", "volatile=True"),
        *("eviction_policy='evict_first'", "eviction_policy='evict_last'", "cache_modifier=''"),
    ],
)
def test_hints_of_loads_change_nothing(options: str, tmp_path: Path) -> None:
    x = values("float32")
    assert torch.equal(of_two(tmp_path, f"tl.load(x_ptr + i, {options})", x, x, "float32"), x)


@pytest.mark.parametrize(
    "options",
    [
        *("cache_modifier='.wb'", "cache_modifier='.cg'", "cache_modifier='.cs'", "cache_modifier='.wt'"),
        *("eviction_policy='evict_first'", "eviction_policy='evict_last'"),
    ],
)
def test_hints_of_stores_change_nothing(options: str, tmp_path: Path) -> None:
    x, out = values("float32"), torch.empty(SIZE)
    body = f"    i = tl.arange(0, SIZE)\n    tl.store(out_ptr + i, tl.load(x_ptr + i), {options})"
    generated(tmp_path, "x_ptr, out_ptr, SIZE: tl.constexpr", body)[(1,)](x, out, SIZE=SIZE)
    assert torch.equal(out, x)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, -1, -5])
@pytest.mark.parametrize("constant", [True, False])
def test_strides(constant: bool, step: int, tmp_path: Path) -> None:
    """Loaded with one stride and stored with it: in the kernel's text, or in its arguments."""
    x = values("float32", shape=64 * 64)
    first = 0 if step > 0 else 63 * -step
    body = """
    i = first + tl.arange(0, 64) * step
    tl.store(out_ptr + i, tl.load(x_ptr + i) + 1)"""
    parameters = f"x_ptr, out_ptr, first, step{': tl.constexpr' if constant else ''}"
    out = torch.zeros_like(x)
    generated(tmp_path, parameters, body)[(1,)](x, out, first, step=step)
    touched = first + np.arange(64) * step
    wanted = torch.zeros_like(x)
    wanted[touched] = x[touched] + 1
    assert torch.equal(out, wanted)


@pytest.mark.parametrize("dtype", ["int32", "int64", "int16", "uint8"])
def test_gathering_loads_and_scattering_stores(dtype: str, tmp_path: Path) -> None:
    x = values("float32")
    places = torch.from_numpy(np.random.default_rng(2).permutation(SIZE).astype(dtype))
    body = """
    i = tl.arange(0, SIZE)
    place = tl.load(places_ptr + i)
    tl.store(loaded_ptr + i, tl.load(x_ptr + place))
    tl.store(stored_ptr + place, tl.load(x_ptr + i))"""
    loaded, stored = torch.empty(SIZE), torch.empty(SIZE)
    kernel = generated(tmp_path, "x_ptr, places_ptr, loaded_ptr, stored_ptr, SIZE: tl.constexpr", body)
    kernel[(1,)](x, places, loaded, stored, SIZE=SIZE)
    order = places.long()
    assert torch.equal(loaded, x[order])
    assert torch.equal(stored[order], x)


@pytest.mark.parametrize("number", [0, 1, 16, -1, 2**31 - 1, 2**31, -(2**31), 2**63 - 1, 2**63, -(2**40)])
def test_integers_among_the_arguments(number: int, tmp_path: Path) -> None:
    """A launch is made for 1, for multiples of 16, for 32 and for 64 bits. The value arrives in any."""
    out = torch.zeros(1, dtype=torch.int64 if number < 2**63 else torch.uint64)
    generated(tmp_path, "out_ptr, number", "    tl.store(out_ptr, number)")[(1,)](out, number)
    assert out.item() == number


@pytest.mark.parametrize("value", [3, 2.5, True, None], ids=str)
def test_constants_among_the_arguments(value: Any, tmp_path: Path) -> None:
    out = torch.zeros(1)
    body = "    if C is None:\n        tl.store(out_ptr, 7.0)\n    else:\n        tl.store(out_ptr, C)"
    generated(tmp_path, "out_ptr, C: tl.constexpr", body)[(1,)](out, C=value)
    assert out.item() == (7 if value is None else value)


@pytest.mark.parametrize("dtype", ["float32", "int32", "int8", "float64"])
def test_one_tensor_twice_among_the_arguments(dtype: str, tmp_path: Path) -> None:
    x = values(dtype)
    wanted = array(x)[::-1].copy()
    body = "    i = tl.arange(0, SIZE)\n    tl.store(out_ptr + SIZE - 1 - i, tl.load(x_ptr + i))"
    generated(tmp_path, "x_ptr, out_ptr, SIZE: tl.constexpr", body)[(1,)](x, x, SIZE=SIZE)
    assert np.array_equal(array(x), wanted)


@pytest.mark.parametrize("shape", [(8, 16), (16, 8), (1, 64), (3, 16)], ids=str)
def test_tensors_without_strides(shape: tuple[int, int], tmp_path: Path) -> None:
    """An expanded tensor, whose rows are one."""
    row = values("float32", shape=shape[1])
    x = row.expand(shape)
    body = """
    i, j = tl.program_id(0), tl.arange(0, COLUMNS)
    tl.store(out_ptr + i * COLUMNS + j, tl.load(x_ptr + i * row_stride + j * column_stride) + i)"""
    out = torch.empty(shape)
    kernel = generated(tmp_path, "x_ptr, out_ptr, row_stride, column_stride, COLUMNS: tl.constexpr", body)
    kernel[(shape[0],)](x, out, *x.stride(), COLUMNS=shape[1])
    assert torch.equal(out, x + torch.arange(shape[0])[:, None])


# ---------------------------------------------------------------- across lanes

REDUCED: dict[str, Callable[..., Any]] = {
    "sum": lambda a, axis: a.sum(axis),
    "max": lambda a, axis: a.max(axis),
    "min": lambda a, axis: a.min(axis),
    "argmax": lambda a, axis: a.argmax(axis),
    "argmin": lambda a, axis: a.argmin(axis),
}
AXES = [((64,), 0), ((4, 32), 0), ((4, 32), 1), ((2, 4, 8), 1)]


@pytest.mark.parametrize(("shape", "axis"), AXES, ids=str)
@pytest.mark.parametrize("dtype", ["int32", "float32"])
@pytest.mark.parametrize("name", REDUCED)
def test_reductions(name: str, dtype: str, shape: tuple[int, ...], axis: int, tmp_path: Path) -> None:
    x = values(dtype, shape=shape)
    if dtype in SIGNED and name == "sum":
        x = x % 1000
    wanted = np.asarray(REDUCED[name](array(x), axis))
    out = torch.empty(wanted.shape, dtype=torch.int32 if "arg" in name else x.dtype)
    got = of_tile(tmp_path, f"tl.{name}(x, {axis})", x, out)
    assert_right(
        got, wanted, ulp=2, at_least=np.abs(array(x)).sum() / 8 if name == "sum" and dtype in FLOATS else 0
    )


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint8", "uint32", "uint64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["max", "min"])
def test_extremes_of_other_types(name: str, dtype: str, tmp_path: Path) -> None:
    x = values(dtype, shape=(8, 16))
    out = torch.empty(8, dtype=x.dtype)
    assert_right(of_tile(tmp_path, f"tl.{name}(x, 1)", x, out), getattr(array(x), name)(1))


@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        *(("int8", "int32"), ("int16", "int32"), ("uint8", "uint32"), ("uint16", "uint32")),
        *(("int64", "int64"), ("float16", "float16"), ("bfloat16", "bfloat16"), ("bool", "uint32")),
    ],
)
def test_the_type_of_a_sum(dtype: str, result: str, tmp_path: Path) -> None:
    """Short integers are summed in 32 bits."""
    x = values(dtype, shape=(4, 16))
    if dtype == "int64":
        x = x % 1000
    body = """
    x = tl.load(x_ptr + tl.arange(0, 4)[:, None] * 16 + tl.arange(0, 16)[None, :])
    total = tl.sum(x, 1)
    tl.static_assert(total.dtype == RESULT)
    tl.store(out_ptr + tl.arange(0, 4), total)"""
    out = torch.empty(4, dtype=getattr(torch, result))
    generated(tmp_path, "x_ptr, out_ptr, RESULT: tl.constexpr", body)[(1,)](
        x, out, RESULT=getattr(tl, result)
    )
    assert_right(out, array(x).sum(1), ulp=2, at_least=16)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "expression", ["tl.sum(x, 1, keep_dims=True)", "tl.max(x, 0, keep_dims=True)", "tl.sum(x)"]
)
def test_reductions_that_keep_dimensions_or_take_all(expression: str, dtype: str, tmp_path: Path) -> None:
    x = values(dtype, shape=(4, 8))
    a = array(x)
    if "keep" in expression:
        wanted = a.sum(1, keepdims=True) if "sum" in expression else a.max(0, keepdims=True)
    else:
        wanted = np.asarray(a.sum())
    got = of_tile(tmp_path, expression, x, torch.empty(wanted.shape, dtype=x.dtype))
    assert_right(got, wanted, ulp=2, at_least=8)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("dtype", ["int32", "float32", "float16"])
def test_ties_go_to_the_first(dtype: str, name: str, left: bool, tmp_path: Path) -> None:
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (8, 32))).to(getattr(torch, dtype))
    got = of_tile(tmp_path, f"tl.{name}(x, 1, tie_break_left={left})", x, torch.empty(8, dtype=torch.int32))
    a = array(x)
    if left:
        assert_right(got, getattr(a, name)(1))
    else:
        extreme = a.max(1) if name == "argmax" else a.min(1)
        assert np.array_equal(a[np.arange(8), got.numpy()], extreme)


@triton.jit
def larger(a, b):
    return tl.where(a > b, a, b)


@triton.jit
def product(a, b):
    return a * b


@triton.jit
def together(mean, count, total, other_mean, other_count, other_total):
    count_of_both = count + other_count
    delta = other_mean - mean
    return (
        mean + delta * other_count / count_of_both,
        count_of_both,
        total + other_total + delta * delta * count * other_count / count_of_both,
    )


@triton.jit
def mean_and_variance(x_ptr, out_ptr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    i = tl.arange(0, ROWS)
    x = tl.load(x_ptr + i[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :])
    mean, count, total = tl.reduce((x, x * 0 + 1, x * 0), 1, together)
    tl.store(out_ptr + i, mean)
    tl.store(out_ptr + ROWS + i, total / count)


@pytest.mark.parametrize("shape", [(1, 64), (4, 32), (16, 8), (8, 2)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_reduction_of_three_tiles(dtype: str, shape: tuple[int, int]) -> None:
    x = values(dtype, shape=shape)
    out = torch.empty(2, shape[0], dtype=x.dtype)
    mean_and_variance[(1,)](x, out, *shape)
    assert_right(out, np.stack([array(x).mean(1), array(x).var(1)]), ulp=8, at_least=1)


SCANNED: dict[str, Callable[..., Any]] = {
    "cumsum": np.cumsum,
    "cumprod": np.cumprod,
    "associative_scan": np.maximum.accumulate,
}


@triton.jit
def scanned(
    x_ptr,
    out_ptr,
    NAME: tl.constexpr,
    AXIS: tl.constexpr,
    REVERSE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    i = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    x = tl.load(x_ptr + i)
    if NAME == "cumsum":
        y = tl.cumsum(x, AXIS, reverse=REVERSE)
    elif NAME == "cumprod":
        y = tl.cumprod(x, AXIS, reverse=REVERSE)
    else:
        y = tl.associative_scan(x, AXIS, larger, reverse=REVERSE)
    tl.store(out_ptr + i, y)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", ["int32", "float64"])
@pytest.mark.parametrize("name", SCANNED)
def test_scans(name: str, dtype: str, axis: int, reverse: bool) -> None:
    x = values(dtype, shape=(8, 16))
    if dtype == "int32":
        x = x % 3 - 1
    out = torch.empty_like(x)
    scanned[(1,)](x, out, name, axis, reverse, 8, 16)
    a = array(x)
    wanted = np.flip(SCANNED[name](np.flip(a, axis), axis), axis) if reverse else SCANNED[name](a, axis)
    assert_right(out, wanted, ulp=8, at_least=np.abs(wanted).max() if dtype in FLOATS else 0)


@pytest.mark.parametrize(("count", "bins"), [(64, 8), (256, 16), (16, 64), (1024, 2)])
@pytest.mark.parametrize("masked", [False, True])
def test_histograms(masked: bool, count: int, bins: int, tmp_path: Path) -> None:
    x = torch.from_numpy(np.random.default_rng(0).integers(0, bins, count)).int()
    mask = ", mask=(tl.arange(0, COUNT) % 3 == 0)" if masked else ""
    body = f"""
    x = tl.load(x_ptr + tl.arange(0, COUNT))
    tl.store(out_ptr + tl.arange(0, BINS), tl.histogram(x, BINS{mask}))"""
    out = torch.empty(bins, dtype=torch.int32)
    kernel = generated(tmp_path, "x_ptr, out_ptr, COUNT: tl.constexpr, BINS: tl.constexpr", body)
    kernel[(1,)](x, out, COUNT=count, BINS=bins)
    assert_right(out, np.bincount(array(x)[:: 3 if masked else 1], minlength=bins))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", ["int8", "int64", "float16", "float32"])
def test_gathering_in_a_tile(dtype: str, axis: int, tmp_path: Path) -> None:
    x = values(dtype, shape=(8, 16))
    places = torch.from_numpy(np.random.default_rng(1).integers(0, x.shape[axis], (8, 16))).int()
    body = f"""
    i = tl.arange(0, 8)[:, None] * 16 + tl.arange(0, 16)[None, :]
    tl.store(out_ptr + i, tl.gather(tl.load(x_ptr + i), tl.load(places_ptr + i), {axis}))"""
    out = torch.empty_like(x)
    generated(tmp_path, "x_ptr, places_ptr, out_ptr", body)[(1,)](x, places, out)
    assert torch.equal(out, x.gather(axis, places.long()))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", ["int32", "int8", "float32", "bfloat16"])
def test_sorting(dtype: str, descending: bool, tmp_path: Path) -> None:
    x = values(dtype, shape=(4, 16))
    got = of_tile(tmp_path, f"tl.sort(x, descending={descending})", x, torch.empty_like(x))
    assert torch.equal(got, x.sort(1, descending=descending).values)


# ---------------------------------------------------------------- products of matrices

SIZES = [(16, 16, 16), (64, 8, 32), (1, 16, 32)]


@triton.jit
def multiplied(
    a_ptr, b_ptr, c_ptr, out_ptr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
    TRANSPOSED: tl.constexpr, AFTER: tl.constexpr, ACCUMULATOR: tl.constexpr,
):  # fmt: skip
    i, j, k = tl.arange(0, ROWS), tl.arange(0, COLUMNS), tl.arange(0, INNER)
    a = tl.load(a_ptr + i[:, None] * INNER + k[None, :])
    if TRANSPOSED:
        b = tl.trans(tl.load(b_ptr + j[:, None] * INNER + k[None, :]))
    else:
        b = tl.load(b_ptr + k[:, None] * COLUMNS + j[None, :])
    c = tl.load(c_ptr + i[:, None] * COLUMNS + j[None, :])
    if AFTER == "accumulated":
        y = tl.dot(a, b, acc=c, out_dtype=ACCUMULATOR)
    else:
        y = tl.dot(a, b, out_dtype=ACCUMULATOR)
    if AFTER == "added":
        y += c
    if AFTER == "softmax":
        shifted = tl.exp(y - tl.max(y, 1)[:, None])
        y = shifted / tl.sum(shifted, 1)[:, None]
    if AFTER == "chained":
        y = tl.dot(y.to(a.dtype), tl.trans(y.to(a.dtype)))
        tl.store(out_ptr + i[:, None] * ROWS + tl.arange(0, ROWS)[None, :], y)
    else:
        tl.store(out_ptr + i[:, None] * COLUMNS + j[None, :], y)


def multiply(a: Tensor, b: Tensor, c: Tensor, after: str = "", transposed: bool = False) -> Tensor:
    columns = c.shape[1]
    accumulator = (
        tl.int32 if a.dtype == torch.int8 else tl.float64 if a.dtype == torch.float64 else tl.float32
    )
    out = torch.empty_like(c) if after != "chained" else torch.empty(len(a), len(a), dtype=c.dtype)
    given = b.t().contiguous() if transposed else b
    multiplied[(1,)](a, given, c, out, len(a), columns, a.shape[1], transposed, after, accumulator)
    return out


def matrices(dtype: str, size: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns, inner = size
    kept = torch.int32 if dtype == "int8" else torch.float64 if dtype == "float64" else torch.float32
    shapes = [(rows, inner), (inner, columns), (rows, columns)]
    a, b, c = (values(dtype, seed, shape) for seed, shape in enumerate(shapes))
    return a, b, c.to(kept)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", ["int8", "float16", "bfloat16", "float32", "float64"])
def test_products(dtype: str, transposed: bool, size: tuple[int, int, int]) -> None:
    a, b, c = matrices(dtype, size)
    got = multiply(a, b, c, transposed=transposed)
    wanted = array(a).astype(np.float64) @ array(b).astype(np.float64)
    assert_right(got, wanted, ulp=4, at_least=np.abs(wanted).max())


@pytest.mark.parametrize("after", ["added", "accumulated", "softmax", "chained"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_follows_a_product(dtype: str, after: str) -> None:
    a, b, c = matrices(dtype, (32, 16, 16))
    exact = array(a) @ array(b)
    if after in ("added", "accumulated"):
        exact = exact + array(c)
    if after == "softmax":
        exact = np.exp(exact - exact.max(1, keepdims=True))
        exact /= exact.sum(1, keepdims=True)
    if after == "chained":
        exact = exact @ exact.T
    got = multiply(a, b, c, after)
    ulp = 4 if dtype == "float32" or after != "chained" else 2 * EPS["float16"] / EPS["float32"]
    assert_right(got, exact, ulp=8 * ulp, at_least=np.abs(exact).max())


@triton.jit
def batched_product(a_ptr, b_ptr, out_ptr, BATCH: tl.constexpr, SIDE: tl.constexpr):
    n, i, j = (
        tl.arange(0, BATCH)[:, None, None],
        tl.arange(0, SIDE)[None, :, None],
        tl.arange(0, SIDE)[None, None, :],
    )
    places = n * SIDE * SIDE + i * SIDE + j
    tl.store(out_ptr + places, tl.dot(tl.load(a_ptr + places), tl.load(b_ptr + places)))


@pytest.mark.parametrize("shape", [(1, 16), (2, 16), (4, 16), (2, 32)], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_batched_products(dtype: str, shape: tuple[int, int]) -> None:
    batch, side = shape
    a, b = values(dtype, 0, (batch, side, side)), values(dtype, 1, (batch, side, side))
    out = torch.empty(batch, side, side)
    batched_product[(1,)](a, b, out, batch, side)
    wanted = array(a) @ array(b)
    assert_right(out, wanted, ulp=4, at_least=np.abs(wanted).max())


@pytest.mark.parametrize("precision", ["ieee", "tf32", "tf32x3", "bf16x3"])
def test_precisions_of_products(precision: str, tmp_path: Path) -> None:
    """All are as precise as IEEE 754's here."""
    x = values("float32", shape=(16, 16))
    got = of_tile(tmp_path, f"tl.dot(x, x, input_precision='{precision}')", x, torch.empty(16, 16))
    wanted = array(x) @ array(x)
    assert_right(got, wanted, ulp=8, at_least=np.abs(wanted).max())


@pytest.mark.parametrize("dtype", ["int8", "int32", "float32", "float64"])
def test_sums_of_broadcast_products(dtype: str, tmp_path: Path) -> None:
    x = values(dtype, shape=(8, 8))
    if dtype in INTEGERS:
        x = x % 11
    out = torch.empty(8, 8, dtype=torch.int32 if dtype == "int8" else x.dtype)
    got = of_tile(tmp_path, "tl.sum(x[:, :, None] * x[None, :, :], 1)", x, out)
    wanted = array(x).astype(out.numpy().dtype) @ array(x).astype(out.numpy().dtype)
    if dtype == "int8":  # the products are bytes, and wrap around
        wanted = (array(x)[:, :, None] * array(x)[None]).astype(np.int32).sum(1)
    assert_right(got, wanted, ulp=4, at_least=np.abs(wanted).max())


# ---------------------------------------------------------------- atomics

ATOMICS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "max": np.maximum,
    "min": np.minimum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}
ATOMIC_CASES = [
    *((name, dtype) for name in ATOMICS for dtype in ("int32", "int64", "uint32")),
    *((name, dtype) for name in ("add", "max", "min") for dtype in ("float32", "float64")),
    *(("add", dtype) for dtype in ("float16", "bfloat16")),
]
ATOMIC_BODY = """
    i = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    tl.atomic_{name}(out_ptr + {place}, tl.load(x_ptr + i), mask={mask}{options})"""


@pytest.mark.parametrize(("name", "dtype"), ATOMIC_CASES)
def test_atomics_on_one_place(name: str, dtype: str, tmp_path: Path) -> None:
    """Each of 8 programs meets it with 16 lanes."""
    x = values(dtype)
    start = values(dtype, 1, 1)
    if dtype in ("float16", "bfloat16"):
        x, start = x.round(), start.round()  # sums of integers are exact
    out = start.clone()
    body = ATOMIC_BODY.format(name=name, place="0 * i", mask="i >= 0", options="")
    generated(tmp_path, "x_ptr, out_ptr, SIZE: tl.constexpr", body)[(8,)](x, out, SIZE=16)
    with np.errstate(all="ignore"):
        a = array(torch.cat([start, x]))
        wanted = np.array([ATOMICS[name].reduce(a)]).astype(a.dtype)
    assert_right(out, wanted, ulp=64, at_least=np.abs(a).sum() if dtype in FLOATS and name == "add" else 0)


@pytest.mark.parametrize(
    "options", [", sem='relaxed'", ", sem='acquire'", ", sem='release'", ", scope='cta'", ", scope='sys'"]
)
@pytest.mark.parametrize("name", ["add", "max"])
def test_orders_and_scopes_of_atomics(name: str, options: str, tmp_path: Path) -> None:
    x, out = values("int32"), torch.zeros(16, dtype=torch.int32)
    body = ATOMIC_BODY.format(name=name, place="tl.arange(0, SIZE)", mask="i % 3 > 0", options=options)
    generated(tmp_path, "x_ptr, out_ptr, SIZE: tl.constexpr", body)[(8,)](x, out, SIZE=16)
    a = np.where(np.arange(SIZE) % 3 > 0, array(x), 0 if name == "add" else np.iinfo(np.int32).min).reshape(
        8, 16
    )
    assert_right(out, np.maximum(a.max(0), 0) if name == "max" else a.sum(0, dtype=np.int32))


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("name", ["add", "xchg", "max"])
def test_atomics_return_what_was_there(name: str, dtype: str, tmp_path: Path) -> None:
    x, out = values(dtype), values(dtype, 1)
    before, first = torch.empty_like(out), out.clone()
    body = """
    i = tl.arange(0, SIZE)
    tl.store(before_ptr + i, tl.atomic_NAME(out_ptr + i, tl.load(x_ptr + i)))""".replace("NAME", name)
    generated(tmp_path, "x_ptr, out_ptr, before_ptr, SIZE: tl.constexpr", body)[(1,)](
        x, out, before, SIZE=SIZE
    )
    assert torch.equal(before, first)
    with np.errstate(all="ignore"):
        wanted = {
            "add": array(first) + array(x),
            "xchg": array(x),
            "max": np.maximum(array(first), array(x)),
        }[name]
    assert_right(out, wanted)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32", "uint64"])
@pytest.mark.parametrize("tile", [False, True])
def test_compare_and_swap(tile: bool, dtype: str, tmp_path: Path) -> None:
    """Programs take turns by a lock. A tile swaps where it finds what it expects."""
    if tile:
        body = """
    i = tl.arange(0, 16)
    tl.store(before_ptr + i, tl.atomic_cas(out_ptr + i, tl.load(x_ptr + i), i.to(out_ptr.dtype.element_ty) + 100))"""
        out = torch.from_numpy(np.arange(16).astype(dtype))
        x = torch.from_numpy((np.arange(16) * (np.arange(16) % 2)).astype(dtype))
        before = torch.empty_like(out)
        generated(tmp_path, "x_ptr, out_ptr, before_ptr", body)[(1,)](x, out, before)
        assert before.tolist() == list(range(16))
        assert out.tolist() == [i + 100 if i % 2 or i == 0 else i for i in range(16)]
    else:
        body = """
    free, held = tl.full((), 0, lock_ptr.dtype.element_ty), tl.full((), 1, lock_ptr.dtype.element_ty)
    while tl.atomic_cas(lock_ptr, free, held) == held:
        pass
    tl.store(out_ptr, tl.load(out_ptr) + 1)
    tl.debug_barrier()
    tl.atomic_xchg(lock_ptr, free)"""
        lock, out = torch.zeros(1, dtype=getattr(torch, dtype)), torch.zeros(1, dtype=torch.int32)
        generated(tmp_path, "lock_ptr, out_ptr", body)[(64,)](lock, out)
        assert out.item() == 64


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint8", "uint16"])
def test_atomics_of_short_integers_are_refused(dtype: str, tmp_path: Path) -> None:
    body = ATOMIC_BODY.format(name="add", place="i", mask="i >= 0", options="")
    with pytest.raises(CompilationError, match="atomic"):
        generated(tmp_path, "x_ptr, out_ptr, SIZE: tl.constexpr", body)[(1,)](
            values(dtype), values(dtype), SIZE=16
        )


# ---------------------------------------------------------------- control flow

LOOPS = {
    "for j in range(n):\n        total += j": lambda n: sum(range(n)),
    "for j in range(2, n):\n        total += j * j": lambda n: sum(j * j for j in range(2, n)),
    "for j in range(0, n, 3):\n        total += j": lambda n: sum(range(0, n, 3)),
    "for j in range(n, 0, -1):\n        total = total * 2 + j": lambda n: _folded(range(n, 0, -1)),
    "for j in range(n, 0, -2):\n        total = total * 2 + j": lambda n: _folded(range(n, 0, -2)),
    "for j in tl.range(n):\n        total += j": lambda n: sum(range(n)),
    "for j in tl.range(0, n, 2, num_stages=3):\n        total += j": lambda n: sum(range(0, n, 2)),
    "for j in tl.range(0, n, loop_unroll_factor=2):\n        total += j": lambda n: sum(range(n)),
    "for j in tl.static_range(5):\n        total += j * n": lambda n: 10 * n,
    "for j in range(n):\n        for k in range(j):\n            total += k": lambda n: sum(
        sum(range(j)) for j in range(n)
    ),
    "while total < n:\n        total += 2": lambda n: max(0, n + n % 2),
    "while total < n:\n        while total % 5 != 4:\n            total += 1\n        total += 1": lambda n: (
        -(-n // 5) * 5
    ),
    "if n > 4:\n        total += 10": lambda n: 10 * (n > 4),
    "if n > 4:\n        total += 10\n    else:\n        total -= n": lambda n: 10 if n > 4 else -n,
    "if n > 2:\n        if n > 6:\n            total = 3\n        else:\n            total = 4": lambda n: (
        0 if n <= 2 else 3 if n > 6 else 4
    ),
    "total = 5 if n % 2 else 7": lambda n: 5 if n % 2 else 7,
    "for j in range(n):\n        if j % 2:\n            total += j\n        else:\n            total -= 1": lambda n: (
        sum(j if j % 2 else -1 for j in range(n))
    ),
    "if n > 4 and n != 7:\n        total = 1": lambda n: int(n > 4 and n != 7),
    "if n < 2 or n == 7:\n        total = 1": lambda n: int(n < 2 or n == 7),
    "if not n > 4:\n        total = 1": lambda n: int(n <= 4),
}


def _folded(numbers: range) -> int:
    total = 0
    for number in numbers:
        total = total * 2 + number
    return total


@pytest.mark.parametrize("text", LOOPS)
def test_loops_and_branches(text: str, tmp_path: Path) -> None:
    """Python's own results, for bounds from 0 to 9."""
    body = f"    total = tl.full((), 0, tl.int32)\n    n = tl.load(n_ptr)\n    {text}\n    tl.store(out_ptr, total)"
    kernel = generated(tmp_path, "n_ptr, out_ptr", body)
    for n in (0, 1, 2, 5, 7, 9):
        out = torch.zeros(1, dtype=torch.int64)
        kernel[(1,)](torch.tensor([n], dtype=torch.int32), out)
        assert out.item() == LOOPS[text](n), n


@triton.jit
def twice(x):
    return x * 2


@triton.jit
def sum_and_difference(a, b):
    return a + b, a - b


@triton.jit(noinline=True)
def not_inlined(a, b):
    return a * 3 + b


@triton.jit
def pair_of(x):
    return (x, x * 3)


@triton.jit
def early(x, LIMIT: tl.constexpr):
    if LIMIT > 3:
        return x + LIMIT
    return x - LIMIT


@triton.jit
def applied(x_ptr, out_ptr, FUNCTION: tl.constexpr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(out_ptr + i, FUNCTION(tl.load(x_ptr + i)))


@triton.jit
def calling(x_ptr, out_ptr, HOW: tl.constexpr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    x = tl.load(x_ptr + i)
    if HOW == "inlined":
        y = twice(x) + twice(x + 1)
    elif HOW == "two results":
        total, difference = sum_and_difference(x, x * x)
        y = total * difference
    elif HOW == "not inlined":
        y = x + not_inlined(tl.load(x_ptr), tl.load(x_ptr + 1))
    elif HOW == "early return":
        y = early(x, 5) * early(x, 2)
    elif HOW == "tuple":
        pair = (x, x + 1, 3)
        y = pair[0] * pair[1] + pair[2]
    else:
        first, second = pair_of(x * 2)
        y = x + first * second
    tl.store(out_ptr + i, y)


CALLED = {
    "inlined": lambda a: 4 * a + 2,
    "two results": lambda a: (a + a * a) * (a - a * a),
    "not inlined": lambda a: a + a[0] * 3 + a[1],
    "early return": lambda a: (a + 5) * (a - 2),
    "tuple": lambda a: a * (a + 1) + 3,
    "a tuple from a function": lambda a: a + 12 * a * a,
}


@pytest.mark.parametrize("dtype", ["int32", "float64"])
@pytest.mark.parametrize("how", CALLED)
def test_calls(how: str, dtype: str) -> None:
    x = values(dtype) if dtype == "float64" else values(dtype) % 100
    out = torch.empty_like(x)
    calling[(1,)](x, out, how, SIZE)
    assert_right(out, CALLED[how](array(x)), ulp=8, at_least=10)


@pytest.mark.parametrize("function", [twice], ids=["twice"])
@pytest.mark.parametrize("dtype", ["int32", "int64", "float16", "float32"])
def test_a_function_among_the_arguments(dtype: str, function: Any) -> None:
    x = values(dtype)
    out = torch.empty_like(x)
    applied[(1,)](x, out, function, SIZE)
    with np.errstate(all="ignore"):
        assert_right(out, array(x) * 2)


@triton.jit
def branching(x_ptr, out_ptr, n, HOW: tl.constexpr):
    if HOW == "return":
        if n > 3:
            return
        tl.store(out_ptr, 1)
    elif HOW == "return in both":
        if n > 3:
            tl.store(out_ptr, 2)
            return
        else:
            tl.store(out_ptr, 3)
            return
    elif HOW == "constant":
        LIMIT: tl.constexpr = 3 if HOW == "constant" else 5
        i = tl.arange(0, 2**LIMIT)
        tl.store(out_ptr, tl.sum(i))
    elif HOW == "tile":
        i = tl.arange(0, 8)
        x = tl.load(x_ptr + i)
        if n > 3:
            x = x + 1
        else:
            x = -x
        tl.store(out_ptr + i, x)


@pytest.mark.parametrize("n", [2, 7])
@pytest.mark.parametrize("how", ["return", "return in both", "constant", "tile"])
def test_returns_and_branches(how: str, n: int) -> None:
    x, out = torch.arange(8), torch.zeros(8, dtype=torch.int64)
    branching[(1,)](x, out, n, how)
    wanted = {
        "return": [0 if n > 3 else 1] + [0] * 7,
        "return in both": [2 if n > 3 else 3] + [0] * 7,
        "constant": [28] + [0] * 7,
        "tile": (x + 1 if n > 3 else -x).tolist(),
    }[how]
    assert out.tolist() == wanted


@pytest.mark.parametrize("grid", [(1,), (7,), (3, 4), (2, 3, 5)], ids=str)
def test_programs_of_a_grid(grid: tuple[int, ...], tmp_path: Path) -> None:
    body = """
    x, y, z = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    place = x + tl.num_programs(0) * (y + tl.num_programs(1) * z)
    tl.store(out_ptr + place, place + 1000 * tl.num_programs(2))"""
    out = torch.zeros(math.prod(grid), dtype=torch.int32)
    generated(tmp_path, "out_ptr", body)[grid](out)
    depth = grid[2] if len(grid) == 3 else 1
    assert out.tolist() == [place + 1000 * depth for place in range(len(out))]


@pytest.mark.parametrize("axis", [-1, 3, 20])
def test_an_axis_that_no_grid_has_is_refused(axis: int, tmp_path: Path) -> None:
    with pytest.raises(CompilationError, match="program_id axis must be 0, 1, or 2"):
        generated(tmp_path, "out_ptr", f"    tl.store(out_ptr, tl.program_id({axis}))")[(1,)](torch.zeros(1))


@pytest.mark.parametrize(
    "options",
    [{"num_warps": 1}, {"num_warps": 8}, {"num_stages": 3}, {"num_ctas": 1}, {"maxnreg": 42}],
    ids=str,
)
def test_options_of_a_launch_change_nothing(options: dict[str, int]) -> None:
    x = values("float32")
    out = torch.empty_like(x)
    applied[(1,)](x, out, twice, SIZE, **options)
    assert torch.equal(out, 2 * x)


# ---------------------------------------------------------------- what is refused

REFUSED = {
    "e4m3 of NVIDIA": ("tl.load(x_ptr + i).to(tl.float8e4nv)", "fp8e4nv"),
    "e5m2": ("tl.load(x_ptr + i).to(tl.float8e5)", "fp8e5"),
    "e4b15": ("tl.load(x_ptr + i).to(tl.float8e4b15)", "target doesn't provide conversion for this type"),
    "e4m3 of AMD": ("tl.load(x_ptr + i).to(tl.float8e4b8)", "fp8e4b8"),
    "inline assembly": (
        "tl.inline_asm_elementwise('mov.b32 $0, $1;', '=r,r', [tl.load(x_ptr + i)], tl.float32, True, 1)",
        "tt.elementwise_inline_asm cannot be compiled for the CPU",
    ),
    "packed inline assembly": (
        "tl.inline_asm_elementwise('mov.b32 $0, $1;', '=r,r', [tl.load(x_ptr + i)], tl.float32, False, 1)",
        "tt.elementwise_inline_asm cannot be compiled for the CPU",
    ),
    "an unknown attribute": ("tl.no_such_function(tl.load(x_ptr + i))", "no_such_function"),
    "an unknown name": ("no_such_name + i", "no_such_name"),
    "shapes that do not fit": ("tl.load(x_ptr + i) + tl.arange(0, 64)", "incompatible"),
    "a mask that does not fit": (
        "tl.load(x_ptr + i, mask=tl.arange(0, 64) < 3)",
        "(?i)shape|broadcast|incompatible",
    ),
    "bits of a float": ("tl.load(x_ptr + i) & 3", "invalid operands of type"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compiled_is_named(name: str, tmp_path: Path) -> None:
    expression, said = REFUSED[name]
    body = f"    i = tl.arange(0, 32)\n    y = {expression}\n    tl.store(x_ptr + i, y.to(tl.float32))"
    with pytest.raises(CompilationError, match=said):
        generated(tmp_path, "x_ptr", body)[(1,)](torch.zeros(1024))


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz], ids=str
)
def test_tensors_of_8_bit_floats_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    body = "    i = tl.arange(0, 32)\n    tl.store(out_ptr + i, tl.load(x_ptr + i).to(tl.float32))"
    with pytest.raises(CompilationError, match="fp8"):
        generated(tmp_path, "x_ptr, out_ptr", body)[(1,)](torch.zeros(32).to(dtype), torch.zeros(32))


@pytest.mark.parametrize("kind", ["e2m1", "e4m3", "e5m2", "bf16"])
def test_scaled_products_are_refused(kind: str, tmp_path: Path) -> None:
    inner = 32 if kind == "e2m1" else 64
    loaded = "tl.full((32, 64), 1, tl.bfloat16)" if kind == "bf16" else f"tl.full((32, {inner}), 1, tl.uint8)"
    other = "tl.full((64, 32), 1, tl.bfloat16)" if kind == "bf16" else f"tl.full(({inner}, 32), 1, tl.uint8)"
    body = f"""
    scale = tl.full((32, 2), 127, tl.uint8)
    y = tl.dot_scaled({loaded}, scale, '{kind}', {other}, scale, '{kind}')
    tl.store(out_ptr + tl.arange(0, 32)[:, None] * 32 + tl.arange(0, 32)[None, :], y)"""
    with pytest.raises(CompilationError, match=r"tt\.dot_scaled cannot be compiled for the CPU|fp8"):
        generated(tmp_path, "out_ptr", body)[(1,)](torch.zeros(32, 32))
