"""Constants: from MLIR's notation to exact C literals."""

from __future__ import annotations

import math
import re
import string
import struct
from decimal import Decimal

from fusetune.kernels.cpu.diagnostics import unsupported
from fusetune.kernels.cpu.ir_tree import Operation
from fusetune.kernels.cpu.ir_types import FLOATS, SHORT_FLOATS
from fusetune.kernels.cpu.rounding import nearest_bits

_SPLAT = re.compile(r"dense<([^\[\]>]+)> : ")
_SCALAR = re.compile(r"arith\.constant (?:\{.*?\} )?(\S+)")
_PLAIN = frozenset(string.ascii_letters + string.digits + string.punctuation + " ") - {'"', "\\", "?"}


def literal(operation: Operation) -> str:
    """The C literal of an `arith.constant` that is a scalar or a splat.

    Raises:
        CompilationError: the elements of the tile differ.
    """
    found = _SPLAT.search(operation.line) or _SCALAR.search(operation.line)
    if found is None or found[1].startswith(("dense", '"')):
        raise unsupported(operation, "the elements of a constant tile differ")
    text, element = found[1], operation.result.type.element
    if text in ("true", "false"):
        return "1" if text == "true" else "0"
    if element in FLOATS:
        return _float(text, element)
    return integer(int(text, 0), operation.result.type.width)


def decimal(operation: Operation) -> float | None:
    """The number of an `arith.constant` in decimals. None where it is printed in bits (NaN, infinity) or no splat."""
    found = _SPLAT.search(operation.line) or _SCALAR.search(operation.line)
    try:
        return float(found[1]) if found is not None else None
    except ValueError:
        return None


def integer(value: int, width: int) -> str:
    """An integer literal of at least 32 bits."""
    if width < 64:
        return f"({value})" if value > -(2**31) else "INT32_MIN"
    return f"INT64_C({value})" if value > -(2**63) else "INT64_MIN"


def c_string(message: str) -> str:
    """A C string literal of bytes, given as the characters of the same numbers.

    All bytes except letters, digits, blanks and plain marks are escaped in octal. An octal escape ends after three
    digits, but a hexadecimal one includes all digits that follow. Question marks are escaped because of trigraphs.
    """
    return '"' + "".join(each if each in _PLAIN else f"\\{ord(each):03o}" for each in message) + '"'


def _float(text: str, element: str) -> str:
    """A literal with the exact bits of a number, which may be printed with fewer digits than are needed for them.

    Literals of fp16 and bf16 are their bits.
    """
    bits = int(text, 16) if text.startswith("0x") else nearest_bits(Decimal(text), element)
    if element in SHORT_FLOATS:
        return f"((uint16_t){bits:#x})"
    code, bits_code, function = ("<f", "<I", "f32") if element == "f32" else ("<d", "<Q", "f64")
    value = struct.unpack(code, struct.pack(bits_code, bits))[0]
    if not math.isfinite(value):
        return f"{function}_of_bits({bits:#x}{'u' if element == 'f32' else 'ull'})"
    return f"({value.hex()}{'f' if element == 'f32' else ''})"
