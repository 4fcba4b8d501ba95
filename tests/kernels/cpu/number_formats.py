"""The number formats of random kernels, by one letter each, and conversions between them that round once.

bf16 has no type in NumPy: its values are held in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Format:
    """One number format.

    Args:
        triton, torch: its names there.
        held: the NumPy type that values are held in.
        precision: bits of a float's significand, 0 for integers.
        least_exponent: of a normal float.
    """

    triton: str
    torch: str
    held: type[Any]
    precision: int = 0
    least_exponent: int = 0

    @property
    def is_signed(self) -> bool:
        return np.dtype(self.held).kind != "u"


FORMATS = {
    "f": Format("tl.float32", "float32", np.float32, 24, -126),
    "d": Format("tl.float64", "float64", np.float64, 53, -1022),
    "h": Format("tl.float16", "float16", np.float16, 11, -14),
    "w": Format("tl.bfloat16", "bfloat16", np.float32, 8, -126),
    "b": Format("tl.int8", "int8", np.int8),
    "s": Format("tl.int16", "int16", np.int16),
    "i": Format("tl.int32", "int32", np.int32),
    "l": Format("tl.int64", "int64", np.int64),
    "B": Format("tl.uint8", "uint8", np.uint8),
    "S": Format("tl.uint16", "uint16", np.uint16),
    "I": Format("tl.uint32", "uint32", np.uint32),
    "L": Format("tl.uint64", "uint64", np.uint64),
    "m": Format("tl.int1", "bool", np.bool_),
}
FLOATS = "fdhw"
SIGNED, UNSIGNED = "bsil", "BSIL"
INTEGERS = SIGNED + UNSIGNED


def convert(values: Array, letter: str) -> Array:
    """Values in another format, rounded once to nearest, ties to even; integers wrap around."""
    wanted = FORMATS[letter]
    if letter == "m":
        return np.asarray(values != 0)
    if letter in INTEGERS or (values.dtype == wanted.held and letter != "w"):
        return values.astype(wanted.held)
    with np.errstate(all="ignore"):
        return nearest(values, wanted).astype(wanted.held)


def nearest(values: Array, wanted: Format) -> Array:
    """The nearest values of a float format: exact arithmetic in extended precision, which holds every int64."""
    exact = values.astype(np.longdouble)
    finite = np.isfinite(exact)
    _, exponent = np.frexp(np.where(finite, exact, 1))
    unit = np.maximum(exponent, wanted.least_exponent + 1) - wanted.precision
    rounded = np.ldexp(np.rint(np.ldexp(np.where(finite, exact, 0), -unit)), unit)
    largest = np.ldexp(
        np.longdouble(2) - np.ldexp(np.longdouble(1), 1 - wanted.precision), 1 - wanted.least_exponent
    )
    overflown = np.where(np.abs(rounded) > largest, np.copysign(np.longdouble(np.inf), exact), rounded)
    return np.asarray(np.where(finite, np.copysign(overflown, exact), exact))


def equal(got: Array, wanted: Array) -> Array:
    """Where two arrays agree: all NaN are one, zeros differ by their sign."""
    with np.errstate(invalid="ignore"):
        same = got == wanted
    if got.dtype.kind == "f":
        same &= np.signbit(got) == np.signbit(wanted)
        same |= np.isnan(got) & np.isnan(wanted)
    return np.asarray(same)
