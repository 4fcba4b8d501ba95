"""The type of an elementwise rule, and the widening of short floats for arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fusetune.kernels.cpu.ir_tree import Operation
from fusetune.kernels.cpu.ir_types import SHORT_FLOATS

# The operation and the C expressions of its operands, each a name or in brackets -> the C expression of its result.
Rule = Callable[[Operation, Sequence[str]], str]


def widened(expression: str, element: str) -> str:
    """A float's value in float or double."""
    return f"f32_of_{element}({expression})" if element in SHORT_FLOATS else expression


def narrowed(expression: str, element: str) -> str:
    """A result, rounded to `element` if that is a short float."""
    return f"{element}_of_f32({expression})" if element in SHORT_FLOATS else expression
