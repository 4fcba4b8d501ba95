"""Operations that only move elements: the operand's element for each element of the result.

An index is a tuple of C expressions, one a dimension: a loop's variable, a number, or something computed from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fusetune.kernels.cpu.ir_tree import Operation, Value

Index = tuple[str, ...]


def linear(index: Index, shape: Sequence[int]) -> str:
    """The place of an element in row-major order.

    Example:
        >>> linear(("i0", "i1"), (4, 8))
        'i0 * 8 + i1'
    """
    terms = []
    stride = 1
    for place, size in reversed(list(zip(index, shape, strict=True))):
        if size != 1 and place != "0":
            terms.append(place if stride == 1 else f"{place} * {stride}")
        stride *= size
    return " + ".join(reversed(terms)) or "0"


def _expanded(operation: Operation, index: Index, place: int) -> Index:
    axis = operation.axis
    return index[:axis] + index[axis + 1 :]


def _broadcast(operation: Operation, index: Index, place: int) -> Index:
    shape = operation.operands[0].type.dimensions
    return tuple("0" if size == 1 else at for at, size in zip(index, shape, strict=True))


def _transposed(operation: Operation, index: Index, place: int) -> Index:
    order = operation.array("order")
    return tuple(index[order.index(dimension)] for dimension in range(len(order)))


def _reshaped(operation: Operation, index: Index, place: int) -> Index:
    """Dimensions of size 1 are dropped or inserted. Any other change of shape goes through the linear place."""
    old, new = operation.operands[0].type.dimensions, operation.result.type.dimensions
    kept = [at for at, size in zip(index, new, strict=True) if size != 1]
    if [size for size in old if size != 1] == [size for size in new if size != 1]:
        return tuple("0" if size == 1 else kept.pop(0) for size in old)
    flat = f"({linear(index, new)})"
    found: list[str] = []
    stride = 1
    for size in reversed(old):
        found.append("0" if size == 1 else f"({flat} / {stride} % {size})")
        stride *= size
    return tuple(reversed(found))


def _half(operation: Operation, index: Index, place: int) -> Index:
    return (*index, str(place))


VIEWS: dict[str, Callable[[Operation, Index, int], Index]] = {
    "tt.expand_dims": _expanded,
    "tt.broadcast": _broadcast,
    "tt.trans": _transposed,
    "tt.reshape": _reshaped,
    "tt.split": _half,
}


def viewed(value: Value, index: Index) -> tuple[Value, Index]:
    """The element of the operand that element `index` of a view is."""
    operation = value.producer
    assert operation is not None
    return operation.operands[0], VIEWS[operation.name](operation, index, value.place)
