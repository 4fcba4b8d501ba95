"""What random kernels work out: in Triton's words, and in NumPy's.

A NaN, an infinity, a subnormal or a negative zero may stand in any operand; wrap-around of integers is meant.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.kernels.cpu.number_formats import FLOATS, SIGNED, Array

# An expression, what it does, and whether the interpreter does it right. All operands have one format, and so has the
# result after conversion.
Form = tuple[str, Callable[..., Array], bool]


def _wide(a: Array) -> Array:
    """Triton divides short floats in float32."""
    return a.astype(np.float32) if a.dtype == np.float16 else a


def _quotient(a: Array, b: Array) -> Array:
    """Towards zero; the most negative number over -1 is itself."""
    with np.errstate(all="ignore"):
        floor = a // b
        return floor + ((a - floor * b != 0) & ((a < 0) != (b < 0))).astype(a.dtype)


def remainder(a: Array, b: Array) -> Array:
    return a - _quotient(a, b) * b


def _at_most(a: Array, b: Array) -> Array:
    """The smaller; a NaN is handed on, and -0 is smaller than 0."""
    smaller = np.where((a < b) | ((a == b) & np.signbit(a)), a, b)
    return np.asarray(np.where(np.isnan(a), a, smaller))


def _unless_nan(a: Array, b: Array) -> Array:
    return np.asarray(np.where(np.isnan(a), b, a))


def _high_product(a: Array, b: Array) -> Array:
    width = a.dtype.itemsize * 8
    unsigned = np.dtype(f"uint{width}")
    exact = a.view(unsigned).astype(object) * b.view(unsigned).astype(object) >> width
    return exact.astype(unsigned).view(a.dtype)


_ANY_FLOAT: tuple[Form, ...] = (
    ("{a} + {b}", lambda a, b: a + b, True),
    ("{a} - {b}", lambda a, b: a - b, True),
    ("{a} * {b}", lambda a, b: a * b, True),
    ("{a} * 0.25", lambda a: a * a.dtype.type(0.25), True),
    ("{a} / {b}", lambda a, b: _wide(a) / _wide(b), True),
    ("1.0 / {a}", lambda a: np.float32(1) / _wide(a), True),
    ("{a} % {b}", lambda a, b: np.fmod(_wide(a), _wide(b)), False),
    ("-{a} + 0.0", lambda a: -a + a.dtype.type(0), True),
    ("tl.abs({a})", np.abs, True),
    ("tl.maximum({a}, {b}) + 0.0", lambda a, b: np.fmax(a, b) + a.dtype.type(0), False),
    ("tl.minimum({a}, {b}) + 0.0", lambda a, b: np.fmin(a, b) + a.dtype.type(0), False),
    ("tl.maximum({a}, {b}, propagate_nan=tl.PropagateNan.ALL)", lambda a, b: -_at_most(-a, -b), False),
    ("tl.minimum({a}, {b}, propagate_nan=tl.PropagateNan.ALL)", _at_most, False),
    (
        "tl.maximum({a}, {b}, propagate_nan=tl.PropagateNan.ALL) + 0.0",
        lambda a, b: -_at_most(-a, -b) + a.dtype.type(0),
        True,
    ),
    ("tl.clamp({a}, -1.5, 2.5)", lambda a: np.fmin(np.fmax(a, a.dtype.type(-1.5)), a.dtype.type(2.5)), False),
    (
        "tl.clamp({a}, -1.5, 2.5, propagate_nan=tl.PropagateNan.ALL)",
        lambda a: np.clip(a, -1.5, 2.5).astype(a.dtype),
        True,
    ),
    ("tl.where({a} == {a}, {a}, {b})", _unless_nan, True),
)
_LONG_FLOAT: tuple[Form, ...] = (
    ("tl.sqrt(tl.abs({a}))", lambda a: np.sqrt(np.abs(a)), True),
    ("tl.floor({a})", np.floor, True),
    ("tl.ceil({a})", np.ceil, True),
)
_SINGLE_FLOAT: tuple[Form, ...] = (
    ("tl.div_rn({a}, {b})", lambda a, b: a / b, True),
    ("tl.sqrt_rn(tl.abs({a}))", lambda a: np.sqrt(np.abs(a)), True),
)
_ANY_INTEGER: tuple[Form, ...] = (
    ("{a} + {b}", lambda a, b: a + b, True),
    ("{a} - {b}", lambda a, b: a - b, True),
    ("{a} * {b}", lambda a, b: a * b, True),
    ("{a} & {b}", lambda a, b: a & b, True),
    ("{a} | {b}", lambda a, b: a | b, True),
    ("{a} ^ {b}", lambda a, b: a ^ b, True),
    ("~{a}", lambda a: ~a, True),
    ("{a} << ({b} & 7)", lambda a, b: a << (b & a.dtype.type(7)), True),
    ("{a} >> ({b} & 7)", lambda a, b: a >> (b & a.dtype.type(7)), True),
    ("{a} // (({b} & 31) + 1)", lambda a, b: _quotient(a, (b & a.dtype.type(31)) + a.dtype.type(1)), True),
    ("{a} % (({b} & 31) + 1)", lambda a, b: remainder(a, (b & a.dtype.type(31)) + a.dtype.type(1)), True),
    ("{a} // ({b} | 1)", lambda a, b: _quotient(a, b | a.dtype.type(1)), False),
    ("{a} % ({b} | 1)", lambda a, b: remainder(a, b | a.dtype.type(1)), False),
    ("{a} // 7", lambda a: _quotient(a, np.full_like(a, 7)), True),
    ("{a} % 5", lambda a: remainder(a, np.full_like(a, 5)), True),
    ("{a} % 16", lambda a: remainder(a, np.full_like(a, 16)), True),
    ("{a} * 3 + 7", lambda a: a * a.dtype.type(3) + a.dtype.type(7), True),
    ("tl.maximum({a}, {b})", np.maximum, True),
    ("tl.minimum({a}, {b})", np.minimum, True),
)
_SIGNED_INTEGER: tuple[Form, ...] = (
    ("-{a}", lambda a: -a, True),
    ("tl.abs({a})", np.abs, True),
)
_LONG_INTEGER: tuple[Form, ...] = (("tl.umulhi({a}, {b})", _high_product, False),)
_BIT: tuple[Form, ...] = (
    ("{a} & {b}", lambda a, b: a & b, False),
    ("{a} | {b}", lambda a, b: a | b, False),
    ("{a} ^ {b}", lambda a, b: a ^ b, False),
    ("~{a}", lambda a: ~a, False),
    ("tl.where({a}, {b}, ~{a})", lambda a, b: np.where(a, b, ~a), False),
)
COMPARISONS: dict[str, Callable[[Array, Array], Array]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}
# Of any finite argument that is not too large, or of one that is positive besides.
FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "exp2": np.exp2,
    "sin": np.sin,
    "cos": np.cos,
}
OF_POSITIVE: dict[str, Callable[[Array], Array]] = {
    "log": np.log,
    "log2": np.log2,
    "rsqrt": lambda a: 1 / np.sqrt(a),
}
REDUCTIONS: dict[str, Callable[..., Array]] = {
    "tl.sum({a}, {axis})": lambda a, axis: a.sum(axis, dtype=a.dtype),
    "tl.max({a}, {axis})": lambda a, axis: a.max(axis),
    "tl.min({a}, {axis})": lambda a, axis: a.min(axis),
    "tl.xor_sum({a}, {axis})": lambda a, axis: np.bitwise_xor.reduce(a, axis),
    "tl.reduce({a}, {axis}, multiply)": lambda a, axis: np.multiply.reduce(a, axis, dtype=a.dtype),
    "tl.reduce({a}, {axis}, either)": lambda a, axis: np.bitwise_or.reduce(a, axis),
}
SCANS: dict[str, np.ufunc] = {
    "tl.cumsum({a}, {axis}, reverse={back})": np.add,
    "tl.cumprod({a}, {axis}, reverse={back})": np.multiply,
    "tl.associative_scan({a}, {axis}, multiply, reverse={back})": np.multiply,
}
UPDATES: dict[str, np.ufunc] = {
    "add": np.add,
    "max": np.maximum,
    "min": np.minimum,
    "xor": np.bitwise_xor,
    "or": np.bitwise_or,
    "and": np.bitwise_and,
}


def forms(letter: str) -> tuple[Form, ...]:
    """The expressions on operands of one format."""
    if letter in FLOATS:
        return _ANY_FLOAT + (_LONG_FLOAT if letter in "fd" else ()) + (_SINGLE_FLOAT if letter == "f" else ())
    if letter == "m":
        return _BIT
    more = _SIGNED_INTEGER if letter in SIGNED else ()
    return _ANY_INTEGER + more + (_LONG_INTEGER if letter in "ilIL" else ())
