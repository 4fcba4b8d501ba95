"""What a pointer tile points at: an affine function of the lanes where it is one, and which root it grows from.

    pointer(i0, i1, ...) = base + constant + coefficient0 * i0 + coefficient1 * i1 + ...

makes a load or store a plain indexed one, which the C compiler turns into vector accesses where the innermost
coefficient is 1. Offsets are taken not to wrap around within one tile: where they did, the tile's elements would lie
2^32 elements apart.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

from kernels.cpu.ir_tree import Operation, Value
from kernels.cpu.lowering.constants import integer
from kernels.cpu.lowering.shape import VIEWS, Index, viewed

_VARIABLE = re.compile(r"i\d+$")
_INTEGERS = ("i32", "i64")
DIVISIONS = ("arith.divsi", "arith.remsi")
_ARITHMETIC = ("arith.addi", "arith.subi", "arith.muli", "arith.extsi", "tt.addptr", *DIVISIONS)
_SIGNED_COMPARISONS = {"slt": ("<", 0), "sle": ("<", 1), "sgt": (">", 0), "sge": (">", 1)}

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
    """

    width: int
    constant: Number
    coefficients: Mapping[str, Number]
    base: str | None = None

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
class Carried:
    """A tile that a loop moves on by the same step each time: first + step * count."""

    first: Value
    step: Value
    count: str


class Addresses:
    """Answers for the values of one function; scalars are known by their C names.

    Args:
        scalars: value -> C expression.
        carried: tiles that a loop moves on.
        arguments: of the function.

    Attributes:
        quotients: divisions of tiles whose quotient is one number for the lanes at hand -> its C name.
    """

    def __init__(
        self, scalars: Mapping[Value, str], carried: Mapping[Value, Carried], arguments: Container[Value]
    ) -> None:
        self._scalars = scalars
        self._carried = carried
        self._arguments = arguments
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

    def root(self, pointer: Value) -> object | None:
        """What a pointer grows from: an argument or an operation. None: anything."""
        while True:
            producer = pointer.producer
            if pointer in self._carried:
                pointer = self._carried[pointer].first
            elif producer is not None and producer.name in ("tt.addptr", "tt.splat", "tt.bitcast", *VIEWS):
                pointer = producer.operands[0]
            elif producer is None:
                return pointer if pointer in self._arguments else None
            else:
                return pointer if producer.name == "tt.int_to_ptr" else None

    def prefix_limits(self, mask: Value, index: Index, inner: str, size: int) -> list[str] | None:
        """Limits below all of which the innermost lanes have the mask set, and clear from the least of them on.

        None: the mask is of another kind. Limits depend on the outer loops' variables only.
        """
        producer = mask.producer
        if not mask.type.is_tile:
            return [f"({self._scalars[mask]} ? {size} : 0)"]
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
        if producer.name != "arith.cmpi" or producer.predicate not in _SIGNED_COMPARISONS:
            return None
        direction, further = _SIGNED_COMPARISONS[producer.predicate]
        low, high = (self.affine(operand, index) for operand in producer.operands)
        if direction == ">":
            low, high = high, low
        if low is None or high is None or high.coefficients.get(inner, 0) != 0:
            return None
        lanes = low.coefficients.get(inner, 0)
        if lanes == 0:
            return [f"({low.c()} < {high.c()} + {further} ? {size} : 0)"]
        if lanes != 1:
            return None
        return [f"prefix({low.c(without=inner)}, {high.c()} + {further}, {size})"]

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
        name = self._scalars.get(value)
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
    start = int(re.search(r"start = (\d+)", operation.line)[1])  # type: ignore[index]
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
    return replace(
        a,
        width=64,
        constant=a.constant if isinstance(a.constant, int) else f"(int64_t){a.constant}",
        coefficients={k: f if isinstance(f, int) else f"(int64_t){f}" for k, f in a.coefficients.items()},
    )


def _sum(a: Affine, b: Affine) -> Affine:
    coefficients = dict(a.coefficients)
    for variable, factor in b.coefficients.items():
        coefficients[variable] = _plus(coefficients.get(variable, 0), factor, a.width)
    return Affine(a.width, _plus(a.constant, b.constant, a.width), coefficients, a.base or b.base)


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
