"""The types of Triton's IR, and their representations in C.

fp16 and bf16 are stored as their 16 bits. Arithmetic on them is in float, rounded after each operation, so any C
compiler suffices.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from fusetune.errors import InvalidValueError

C_TYPES = {
    "i1": "bool",
    "i8": "int8_t",
    "i16": "int16_t",
    "i32": "int32_t",
    "i64": "int64_t",
    "f16": "uint16_t",
    "bf16": "uint16_t",
    "f32": "float",
    "f64": "double",
}
UNSIGNED = {
    "bool": "bool",
    "int8_t": "uint8_t",
    "int16_t": "uint16_t",
    "int32_t": "uint32_t",
    "int64_t": "uint64_t",
}
WIDTHS = {"i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64, "f16": 16, "bf16": 16, "f32": 32, "f64": 64}
FLOATS = ("f16", "bf16", "f32", "f64")
SHORT_FLOATS = ("f16", "bf16")
_POINTER = re.compile(r"!tt\.ptr<(.+?)(?:, \d+)?>$")
_TENSOR = re.compile(r"tensor<((?:\d+x)+)(.+)>$")


class UnsupportedTypeError(InvalidValueError):
    """A type that has no C counterpart here."""

    code = "unsupported-type"


@dataclass(frozen=True)
class Type:
    """A scalar or a tile.

    Args:
        element: `f32`, `i1`, ..., or `!tt.ptr<f32>`.
        shape: of a tile, or None for a scalar.
    """

    element: str
    shape: tuple[int, ...] | None = None

    @staticmethod
    def parse(text: str) -> Type:
        """Read MLIR's notation.

        Example:
            >>> Type.parse("tensor<4x!tt.ptr<f32>>")
            Type(element='!tt.ptr<f32>', shape=(4,))
        """
        tensor = _TENSOR.match(text)
        if tensor is None:
            return Type(text)
        return Type(tensor[2], tuple(map(int, tensor[1].split("x")[:-1])))

    @property
    def is_tile(self) -> bool:
        return self.shape is not None

    @property
    def dimensions(self) -> tuple[int, ...]:
        """The tile's shape, which is () for a scalar."""
        return self.shape or ()

    @property
    def elements(self) -> int:
        return math.prod(self.dimensions)

    @property
    def is_pointer(self) -> bool:
        return self.element.startswith("!tt.ptr<")

    @property
    def is_integer(self) -> bool:
        return self.element.startswith("i")

    @property
    def pointee(self) -> str:
        """The element type that a pointer points to."""
        match = _POINTER.match(self.element)
        if match is None:
            raise UnsupportedTypeError("", f"{self.element} is no pointer")
        return match[1]

    @property
    def c(self) -> str:
        """The C type of one element."""
        if self.is_pointer:
            return f"{Type(self.pointee).c} *"
        if self.element not in C_TYPES:
            raise UnsupportedTypeError(
                "", f"values of type {self.element} are not supported", f"known: {', '.join(C_TYPES)}"
            )
        return C_TYPES[self.element]

    @property
    def width(self) -> int:
        """Bits of one element."""
        return 64 if self.is_pointer else WIDTHS[self.element]

    @property
    def bytes(self) -> int:
        """Bytes of one element in memory."""
        return max(1, self.width // 8)
