"""Address analysis: a pointer tile as an affine function of the lanes, and the root pointer that it is derived from.

    pointer(i0, i1, ...) = base + constant + coefficient0 * i0 + coefficient1 * i1 + ...

makes an access a plain indexed one. The C compiler vectorises it where the innermost coefficient is 1. Offsets are
assumed not to wrap around within one tile, because its elements would then be 2^32 elements apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from fusetune.kernels.cpu.diagnostics import place
from fusetune.kernels.cpu.failures import ASSERTION
from fusetune.kernels.cpu.ir_tree import Operation, Value
from fusetune.kernels.cpu.lowering.constants import c_string, integer
from fusetune.kernels.cpu.lowering.shape import VIEWS, Index, viewed

_VARIABLE = re.compile(r"i\d+$")
_INTEGERS = ("i32", "i64")
DIVISIONS = ("arith.divsi", "arith.remsi")
_ARITHMETIC = ("arith.addi", "arith.subi", "arith.muli", "arith.extsi", "tt.addptr", *DIVISIONS)
SIGNED_COMPARISONS = {"slt": ("<", False), "sle": ("<", True), "sgt": (">", False), "sge": (">", True)}
_C_TYPES = {32: "int32_t", 64: "int64_t"}
_MOST_LANES = 1 << 20  # of a tile, in Triton

Number = int | str  # a constant of the compilation, or a C expression
Division = tuple[Value, Value, Index]  # dividend and divisor, at an index


@dataclass(frozen=True)
class Affine:
    """A number or pointer that is an affine function of the lanes.

    Args:
        width: bits of the numbers, 64 for offsets of a pointer.
        constant: the term that is the same in every lane.
        coefficients: loop variable -> its coefficient.
        base: C expression of the base pointer, or None for a number.
        may_have_wrapped: it holds a sum of 32 bits that differs from lane to lane and was widened afterwards.
    """

    width: int
    constant: Number
    coefficients: Mapping[str, Number]
    base: str | None = None
    may_have_wrapped: bool = False

    def c(self, without: str = "") -> str:
        """A C expression of 64 bits, without the term of the variable `without`."""
        terms = [
            f"(int64_t){_text(factor, 64)} * {variable}" if factor != 1 else variable
            for variable, factor in self.coefficients.items()
            if variable != without
        ]
        if self.constant != 0 or not terms:
            terms.insert(0, f"(int64_t){_text(self.constant, 64)}")
        return " + ".join(terms)


@dataclass(frozen=True)
class Limit:
    """The lane from which on a mask is clear.

    Args:
        count: C expression of the number of leading lanes that have it set.
        wraps: C condition that the compared sum wraps around within the lanes, so that the mask may be set again in
            later ones. Empty: it never does.
        complaint: C string of the error for that case.
    """

    count: str
    wraps: str = ""
    complaint: str = ""


@dataclass(frozen=True)
class Carried:
    """An induction variable: a tile that a loop advances by a constant step, first + step * count."""

    first: Value
    step: Value
    count: str


class Addresses:
    """The address analysis of one function. Scalars are known by their C names.

    Args:
        scalars: value -> C expression.
        carried: induction variables, tiles that a loop advances by a constant step.
        arguments: of the function -> which it is.

    Attributes:
        quotients: divisions of tiles whose quotient is uniform over the current lanes -> its C name.
    """

    def __init__(
        self, scalars: Mapping[Value, str], carried: Mapping[Value, Carried], arguments: Mapping[Value, int]
    ) -> None:
        self.scalars = scalars
        self._carried = carried
        self.arguments = arguments
        self.quotients: dict[Division, str] = {}

    def affine(self, value: Value, index: Index) -> Affine | None:
        """Element `index` of a tile of integers or pointers, as an affine function of the loop variables, or None."""
        if not value.type.is_pointer and value.type.element not in _INTEGERS:
            return None
        producer = value.producer
        if not value.type.is_tile:
            return self._scalar(value)
        if value in self._carried:
            return self._moved(self._carried[value], index)
        if producer is None:
            return None
        if producer.name in VIEWS:
            return self.affine(*viewed(value, index))
        if producer.name == "tt.splat":
            return self.affine(producer.operands[0], ())
        if producer.name == "tt.make_range":
            return _range(producer, index[0])
        if producer.name == "arith.constant":
            number = _known(producer)
            return None if number is None else Affine(value.type.width, number, {})
        if producer.name not in _ARITHMETIC:
            return None
        parts = [self.affine(operand, index) for operand in producer.operands]
        if producer.name in DIVISIONS:
            return self._divided(producer, index, *parts)
        return _combined(producer, parts)

    def root(self, pointer: Value) -> Value | None:
        """The root of a pointer: an argument or an operation. None where it may be any."""
        while True:
            producer = pointer.producer
            if pointer in self._carried:
                pointer = self._carried[pointer].first
            elif producer is not None and producer.name in ("tt.addptr", "tt.splat", "tt.bitcast", *VIEWS):
                pointer = producer.operands[0]
            elif producer is None:
                return pointer if pointer in self.arguments else None
            else:
                return pointer if producer.name == "tt.int_to_ptr" else None

    def is_same_place(self, first: Value, second: Value) -> bool:
        """Return whether two pointers, or tiles of them, have equal offsets from their roots in every lane."""
        while first is not second:
            one, other = first.producer, second.producer
            if first.type.element != second.type.element or first.type.dimensions != second.type.dimensions:
                return False
            if one is None or other is None:
                return one is other and first in self.arguments and second in self.arguments
            if one.name != other.name or one.name not in (
                "tt.addptr",
                "tt.splat",
                "tt.broadcast",
                "tt.expand_dims",
            ):
                return False
            if one.name == "tt.addptr" and one.operands[1] is not other.operands[1]:
                return False
            if one.name == "tt.expand_dims" and one.axis != other.axis:
                return False
            first, second = one.operands[0], other.operands[0]
        return True

    def prefix_limits(self, mask: Value, index: Index, inner: str, size: int) -> list[Limit] | None:
        """Limits of a prefix mask: it is set in the innermost lanes below all of them.

        None: the mask is of another kind. Limits depend on the outer loop variables only.
        """
        producer = mask.producer
        if not mask.type.is_tile:
            return [Limit(f"({self.scalars[mask]} ? {size} : 0)")]
        if producer is None:
            return None
        if producer.name in VIEWS:
            return self.prefix_limits(*viewed(mask, index), inner, size)
        if producer.name == "tt.splat":
            return self.prefix_limits(producer.operands[0], (), inner, size)
        if producer.name == "arith.constant":
            return [] if "true" in producer.line.partition(" : ")[0] else None
        if producer.name == "arith.andi":
            parts = [self.prefix_limits(operand, index, inner, size) for operand in producer.operands]
            return None if None in parts else [limit for part in parts for limit in part or ()]
        if producer.name != "arith.cmpi" or producer.predicate not in SIGNED_COMPARISONS:
            return None
        direction, or_equal = SIGNED_COMPARISONS[producer.predicate]
        low, high = (self.compared(operand, index) for operand in producer.operands)
        if direction == ">":
            low, high = high, low
        if low is None or high is None or high.coefficients.get(inner, 0) != 0:
            return None
        start, end = (f"({_C_TYPES[side.width]})({side.c(without=inner)})" for side in (low, high))
        lanes = low.coefficients.get(inner, 0)
        if lanes == 0:
            return [Limit(f"({start} {'<=' if or_equal else '<'} {end} ? {size} : 0)")]
        if lanes != 1:
            return None
        outer = any(factor != 0 for variable, factor in low.coefficients.items() if variable != inner)
        is_known = isinstance(low.constant, int) and not outer and low.constant < 1 << 30
        count = f"prefix_i{low.width}({start}, {end}, {or_equal:d}, {size})"
        if is_known:
            return [Limit(count)]
        where = f"{ASSERTION}{place(producer)}"
        complaint = f"{where}: what a mask compares, a sum of {low.width} bits, wraps around within a tile"
        text = c_string(complaint.encode().decode("latin-1"))
        return [Limit(count, f"wraps_i{low.width}({start}, {size})", text)]

    def compared(self, value: Value, index: Index) -> Affine | None:
        """A side of a comparison, in the width of its sums. None where they may wrap around in another way."""
        producer = value.producer
        while producer is not None and producer.name in VIEWS:
            value, index = viewed(value, index)
            producer = value.producer
        if producer is not None and producer.name == "arith.extsi":
            inside = self.compared(producer.operands[0], index)
            if inside is not None and inside.width == 32:
                return inside
        found = self.affine(value, index)
        return None if found is None or found.may_have_wrapped else found

    def _divided(
        self, division: Operation, index: Index, a: Affine | None, b: Affine | None
    ) -> Affine | None:
        """A quotient or remainder that is uniform over all lanes, or over the current run."""
        if a is None or b is None or b.coefficients:
            return None
        dividend, divisor = division.operands
        known = self.quotients.get((dividend, divisor, index))
        if known is not None:
            quotient = Affine(a.width, known, {})
        elif a.coefficients:
            return None
        else:
            operands = f"{_text(a.constant, a.width)}, {_text(b.constant, b.width)}"
            quotient = Affine(a.width, f"div_i{a.width}({operands})", {})
        return quotient if division.name == "arith.divsi" else _difference(a, _product(quotient, b))

    def _scalar(self, value: Value) -> Affine | None:
        name = self.scalars.get(value)
        if name is None:
            return None
        if value.type.is_pointer:
            return Affine(64, 0, {}, base=name)
        if value.producer is not None and value.producer.name == "arith.constant":
            number = _known(value.producer)
            return Affine(value.type.width, name if number is None else number, {})
        return Affine(value.type.width, name, {})

    def _moved(self, carried: Carried, index: Index) -> Affine | None:
        first, step = self.affine(carried.first, index), self.affine(carried.step, index)
        if first is None or step is None:
            return None
        if first.base:
            step = _widened(step)  # a pointer's range exceeds that of a number of 32 bits
        travelled = _product(step, Affine(step.width, f"(int{step.width}_t){carried.count}", {}))
        return None if travelled is None else _sum(first, travelled)


def _known(constant: Operation) -> int | None:
    """The integer that a constant holds in every lane, or None."""
    found = re.search(r"(?:dense<|arith\.constant )(-?\d+)[> ]", constant.line)
    return int(found[1]) if found and constant.result.type.is_integer else None


def _range(operation: Operation, place: str) -> Affine | None:
    start = operation.integer("start")
    if place.isdigit():
        return Affine(32, start + int(place), {})
    return Affine(32, start, {place: 1}) if _VARIABLE.match(place) else None


def _combined(operation: Operation, parts: list[Affine | None]) -> Affine | None:
    """The affine function that results from an operation on affine functions, or None."""
    a = parts[0] if parts else None
    b = parts[1] if len(parts) > 1 else None
    if operation.name == "arith.extsi" and a is not None:
        return _widened(a)
    if a is None or b is None:
        return None
    if operation.name == "arith.addi":
        return _sum(a, b)
    if operation.name == "tt.addptr":
        return _sum(a, _widened(b)) if a.base else None
    if operation.name == "arith.subi":
        return _difference(a, b)
    if operation.name == "arith.muli":
        return _product(a, b)
    return None


def _widened(a: Affine) -> Affine:
    """Sign-extended to 64 bits."""
    if a.width == 64:
        return a
    numbers = (a.constant, *a.coefficients.values())
    largest = sum(abs(each) for each in numbers if isinstance(each, int)) * _MOST_LANES
    is_small = all(isinstance(each, int) for each in numbers) and largest < 1 << 31
    return replace(
        a,
        may_have_wrapped=bool(a.coefficients) and not is_small,
        width=64,
        constant=a.constant if isinstance(a.constant, int) else f"(int64_t){a.constant}",
        coefficients={k: f if isinstance(f, int) else f"(int64_t){f}" for k, f in a.coefficients.items()},
    )


def _sum(a: Affine, b: Affine) -> Affine:
    coefficients = dict(a.coefficients)
    for variable, factor in b.coefficients.items():
        coefficients[variable] = _plus(coefficients.get(variable, 0), factor, a.width)
    wrapped = a.may_have_wrapped or b.may_have_wrapped
    return Affine(a.width, _plus(a.constant, b.constant, a.width), coefficients, a.base or b.base, wrapped)


def _difference(a: Affine, b: Affine | None) -> Affine | None:
    minus = None if b is None else _product(b, Affine(b.width, -1, {}))
    return None if minus is None else _sum(a, minus)


def _product(a: Affine, b: Affine) -> Affine | None:
    """A product, where one factor is uniform over the lanes."""
    if a.base or b.base:
        return None
    if b.coefficients:
        a, b = b, a
    if b.coefficients:
        return None
    factor = b.constant
    return Affine(
        a.width,
        _times(a.constant, factor, a.width),
        {variable: _times(each, factor, a.width) for variable, each in a.coefficients.items()},
        may_have_wrapped=a.may_have_wrapped,
    )


def _plus(a: Number, b: Number, width: int) -> Number:
    if isinstance(a, int) and isinstance(b, int):
        return _wrapped(a + b, width)
    if a == 0:
        return b
    return a if b == 0 else f"({_text(a, width)} + {_text(b, width)})"


def _times(a: Number, b: Number, width: int) -> Number:
    if isinstance(a, int) and isinstance(b, int):
        return _wrapped(a * b, width)
    if a == 0 or b == 0:
        return 0
    if a == 1:
        return b
    return a if b == 1 else f"({_text(a, width)} * {_text(b, width)})"


def _wrapped(number: int, width: int) -> int:
    half = 1 << (width - 1)
    return (number + half) % (2 * half) - half


def _text(number: Number, width: int) -> str:
    return integer(number, width) if isinstance(number, int) else number
