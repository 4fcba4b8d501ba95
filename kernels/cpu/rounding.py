"""Conversion of exact numbers to a float format, rounded once, to nearest with ties to even.

Python's floats have 53 bits of precision, and the decimals of the printed IR any number. A conversion by way of another
format would round twice.
"""

from __future__ import annotations

import struct
from decimal import Decimal

# The precision in bits, with the implicit one, the exponent of the least normal number, and the bits of the format.
_FORMATS = {"f16": (11, -14, 16), "bf16": (8, -126, 16), "f32": (24, -126, 32), "f64": (53, -1022, 64)}


def nearest_bits(number: float | Decimal, element: str) -> int:
    """The bits of the number of a format that is nearest to an exact number.

    Args:
        number: any number. NaN gives the quiet NaN of its sign. From half a unit beyond the largest on: infinity.
        element: f16, bf16, f32 or f64.

    Example:
        >>> hex(nearest_bits(0.3, "bf16"))
        '0x3e9a'
    """
    precision, least, width = _FORMATS[element]
    exact = Decimal(number)
    sign = exact.is_signed() << (width - 1)
    infinity = ((1 << (width - precision)) - 1) << (precision - 1)
    if exact.is_nan():
        return sign | infinity | 1 << (precision - 2)
    if exact.is_infinite():
        return sign | infinity
    if exact.is_zero():
        return sign
    numerator, denominator = exact.copy_abs().as_integer_ratio()
    exponent = numerator.bit_length() - denominator.bit_length()
    if numerator << max(0, -exponent) < denominator << max(0, exponent):
        exponent -= 1
    exponent = max(exponent, least)
    shift = precision - 1 - exponent
    units, rest = divmod(numerator << max(0, shift), denominator << max(0, -shift))
    half = 2 * rest - (denominator << max(0, -shift))
    units += half > 0 or (half == 0 and units % 2 == 1)
    # The implicit first bit of the significand adds 1 to the exponent's field, and so does a carry out of it.
    return sign | min(((exponent - least) << (precision - 1)) + units, infinity)


def nearest(number: float, element: str) -> float:
    """The number of f16 or bf16 that is nearest to another.

    Example:
        >>> nearest(0.3, "bf16")
        0.30078125
    """
    bits = nearest_bits(number, element)
    if element == "f16":
        return float(struct.unpack("<e", struct.pack("<H", bits))[0])
    return float(struct.unpack("<f", struct.pack("<I", bits << 16))[0])
