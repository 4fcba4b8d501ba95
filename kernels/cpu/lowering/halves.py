"""Reductions over a dimension of two, and how views permute the bits of an element's place.

The size of a tile is a power of two, so the place of an element in row-major order is a number of log2(size) bits. Each
dimension has some of them. A view removes bits, adds known ones or permutes them. A reduction over a dimension of
two combines the two elements whose places differ in one bit. So for each lane it is an expression of halves.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusetune.kernels.cpu.ir_tree import Operation, Value
from fusetune.kernels.cpu.ir_types import C_TYPES
from fusetune.kernels.cpu.lowering.elementwise import RULES
from fusetune.kernels.cpu.lowering.shape import VIEWS

# The bits of an element's place, the lowest first. Each is a bit of the lane, by its number, or known.
Bits = tuple[int, ...]
Element = tuple[Value, Bits]
ZERO, ONE = -2, -1
_MADE = ("tt.splat", "tt.make_range", "tt.join", *VIEWS)


def known(bit: int) -> bool:
    """Return whether a bit is `ZERO` or `ONE`."""
    return bit < 0


def count_bits(shape: Sequence[int]) -> int:
    """The number of bits of an element's place.

    Example:
        >>> count_bits((4, 2))
        3
    """
    return sum(size.bit_length() - 1 for size in shape)


def is_lanewise(operation: Operation) -> bool:
    """Return whether each element of the results is an expression of single elements of the operands."""
    return (operation.name in RULES or operation.name in _MADE) and all(
        _is_of_bits(value) for value in (*operation.operands, *operation.results)
    )


def is_exchange(operation: Operation) -> bool:
    """Return whether an operation is a reduction over a dimension of two by elementwise operations alone."""
    if operation.name != "tt.reduce" or not all(map(_is_of_bits, (*operation.operands, *operation.results))):
        return False
    if operation.operands[0].type.dimensions[operation.axis] != 2 or not operation.result.type.is_tile:
        return False
    ((block,),) = operation.regions
    return all(inner.name in RULES for inner in block.operations[:-1])


def viewed_bits(value: Value, bits: Bits) -> Element:
    """The element of the operand that an element of a view is."""
    operation = value.producer
    assert operation is not None
    operand = operation.operands[0]
    if operation.name == "tt.split":
        return operand, (ONE if value.place else ZERO, *bits)
    if operation.name == "tt.broadcast":
        groups = _of_dimensions(value.type.dimensions, bits)
        sizes = operand.type.dimensions
        return operand, _together(
            [group if size != 1 else () for group, size in zip(groups, sizes, strict=True)]
        )
    if operation.name == "tt.trans":
        groups = _of_dimensions(value.type.dimensions, bits)
        order = operation.array("order")
        return operand, _together([groups[order.index(dimension)] for dimension in range(len(order))])
    return operand, bits  # the place in row-major order is unchanged


def halved_bits(operation: Operation, bits: Bits, half: int) -> Bits:
    """The bits of an element in one half of a reduction's operand, by those of the result's element."""
    at = exchanged_bit(operation)
    return (*bits[:at], half, *bits[at:])


def exchanged_bit(operation: Operation) -> int:
    """The bit of an operand's place that a reduction over a dimension of two removes."""
    return count_bits(operation.operands[0].type.dimensions[operation.axis + 1 :])


def _is_of_bits(value: Value) -> bool:
    """Return whether a value is a scalar, or a tile whose dimensions are powers of two."""
    sizes = value.type.dimensions
    return value.type.element in C_TYPES and all(size > 0 and size & (size - 1) == 0 for size in sizes)


def _of_dimensions(shape: Sequence[int], bits: Bits) -> list[Bits]:
    """The bits of each dimension."""
    groups: list[Bits] = []
    at = 0
    for size in reversed(shape):
        end = at + size.bit_length() - 1
        groups.insert(0, bits[at:end])
        at = end
    return groups


def _together(groups: Sequence[Bits]) -> Bits:
    return tuple(bit for group in reversed(groups) for bit in group)
