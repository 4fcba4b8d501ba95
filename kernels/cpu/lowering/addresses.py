"""What a pointer tile points at: an affine function of the lanes where it is one, and which root it grows from.

    pointer(i0, i1, ...) = base + constant + coefficient0 * i0 + coefficient1 * i1 + ...

makes a load or store a plain indexed one, which the C compiler turns into vector accesses where the innermost
coefficient is 1. Offsets are taken not to wrap around within one tile: where they did, the tile's elements would lie
2^32 elements apart.
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

Number = int | str  # known while compiling, or a C expression
Division = tuple[Value, Value, Index]  # dividend and divisor, at an index


@dataclass(frozen=True)
class Affine:
    """A number or pointer that depends on the lanes linearly.

    Args:
        width: bits of the numbers; 64 for offsets of a pointer.
        constant: what every lane has in common.
        coefficients: loop variable -> its factor.
        base: C expression of the pointer that the rest is an offset of; None for a number.
        may_have_wrapped: it holds a sum of 32 bits that differs from lane to lane, widened after it was made.
    """

    width: int
    constant: Number
    coefficients: Mapping[str, Number]
    base: str | None = None
    may_have_wrapped: bool = False

    def c(self, without: str = "") -> str:
        """A C expression of 64 bits, leaving out the variable `without`."""
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
    """Where lanes cease to have a mask set.

    Args:
        count: C expression of the lanes, from the first on, that have it set.
        wraps: C condition: the sum that is compared wraps around within the lanes, and the mask may be set again behind
            those. Empty: never.
        complaint: C string that says so.
    """

    count: str
    wraps: str = ""
    complaint: str = ""


@dataclass(frozen=True)
class Carried:
    """A tile that a loop advances by a constant step, an induction variable: first + step * count."""

    first: Value
    step: Value
    count: str


class Addresses:
    """Answers for the values of one function; scalars are known by their C names.

    Args:
        scalars: value -> C expression.
        carried: induction variables, tiles that a loop advances by a constant step.
        arguments: of the function -> which it is.

    Attributes:
        quotients: divisions of tiles whose quotient is one number for the lanes at hand -> its C name.
    """

    def __init__(
        self, scalars: Mapping[Value, str], carried: Mapping[Value, Carried], arguments: Mapping[Value, int]
    ) -> None:
        self.scalars = scalars
        self._carried = carried
        self.arguments = arguments
        self.quotients: dict[Division, str] = {}

    def affine(self, value: Value, index: Index) -> Affine | None:
        """The element `index` of a tile of integers or pointers as an affine function of the loops' variables."""
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
        """What a pointer grows from: an argument or an operation. None: anything."""
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
        """Whether two pointers, or tiles of them, lie equally far from their roots in every lane."""
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
        """Limits below all of which the innermost lanes have the mask set.

        None: the mask is of another kind. Limits depend on the outer loops' variables only.
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
        """A side of a comparison, in the width that its sums are made in; None: they may wrap around in another way."""
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
        """A quotient or remainder that is the same in all lanes, or in all of the run at hand."""
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
            step = _widened(step)  # a pointer goes further than a number of 32 bits
        travelled = _product(step, Affine(step.width, f"(int{step.width}_t){carried.count}", {}))
        return None if travelled is None else _sum(first, travelled)


def _known(constant: Operation) -> int | None:
    """The integer that a constant has throughout, if it has one."""
    found = re.search(r"(?:dense<|arith\.constant )(-?\d+)[> ]", constant.line)
    return int(found[1]) if found and constant.result.type.is_integer else None


def _range(operation: Operation, place: str) -> Affine | None:
    start = operation.integer("start")
    if place.isdigit():
        return Affine(32, start + int(place), {})
    return Affine(32, start, {place: 1}) if _VARIABLE.match(place) else None


def _combined(operation: Operation, parts: list[Affine | None]) -> Affine | None:
    """The affine function that an operation makes of affine functions."""
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
    """Extended to 64 bits by its sign."""
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
    """A product, where one side is the same in all lanes."""
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
