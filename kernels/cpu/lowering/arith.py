"""The arith dialect and Triton's own arithmetic, one C expression an operation.

Integers wrap around. Shifts by the width or more shift out every bit. Division is guarded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fusetune.kernels.cpu.diagnostics import unsupported
from fusetune.kernels.cpu.ir_tree import Operation, Value
from fusetune.kernels.cpu.ir_types import UNSIGNED
from fusetune.kernels.cpu.lowering.constants import decimal, literal
from fusetune.kernels.cpu.lowering.rule import Rule, narrowed, widened

# By MLIR's names. Of two integers, s and u stand for signed and unsigned. Of two floats, o and u (ordered, unordered)
# give the result for a NaN: false or true. {a} {b} are the operands.
_EQUALITIES = {"eq": "==", "ne": "!="}
_ORDERS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_SIGNED_BIT = "-(int)"  # a set bit is -1 as a signed integer
_FLOAT_COMPARISONS = {
    "false": "0",
    "oeq": "({a} == {b})",
    "ogt": "({a} > {b})",
    "oge": "({a} >= {b})",
    "olt": "({a} < {b})",
    "ole": "({a} <= {b})",
    "one": "({a} < {b} || {a} > {b})",
    "ord": "({a} == {a} && {b} == {b})",
    "ueq": "(!({a} < {b} || {a} > {b}))",
    "ugt": "(!({a} <= {b}))",
    "uge": "(!({a} < {b}))",
    "ult": "(!({a} >= {b}))",
    "ule": "(!({a} > {b}))",
    "une": "({a} != {b})",
    "uno": "({a} != {a} || {b} != {b})",
    "true": "1",
}


def _integer_binary(operator: str, on_bits: str) -> Rule:
    """An operation that wraps around. Single bits take another operator."""

    def rule(operation: Operation, args: Sequence[str]) -> str:
        result = operation.result.type
        chosen = on_bits if result.element == "i1" else operator
        return f"({result.c})({args[0]} {chosen} {args[1]})"

    return rule


def _float_binary(template: str) -> Rule:
    """An operation on two floats, rounded once."""

    def rule(operation: Operation, args: Sequence[str]) -> str:
        element = operation.result.type.element
        a, b = (widened(arg, element) for arg in args)
        return narrowed(template.format(a=a, b=b), element)

    return rule


def _division(name: str) -> Rule:
    """A guarded division or remainder."""

    def rule(operation: Operation, args: Sequence[str]) -> str:
        element = operation.result.type.element
        if element == "i1":
            raise unsupported(operation, "division of single bits")
        kind, signedness = name.split("_")
        c = operation.result.type.c
        called = f"{kind}_{'u' if signedness == 'unsigned' else ''}{element}"
        return f"({c}){called}({args[0]}, {args[1]})"

    return rule


def _shift(kind: str) -> Rule:
    """Shift left, right with zeros (logical) or right with the sign (arithmetic)."""

    def rule(operation: Operation, args: Sequence[str]) -> str:
        type_ = operation.result.type
        c, width = type_.c, type_.width
        unsigned = UNSIGNED[c]
        value, count = args[0], f"({unsigned}){args[1]}"
        if kind == "arithmetic":
            return f"({c})({value} >> ({count} < {width} ? {count} : {width - 1}))"
        operator = "<<" if kind == "left" else ">>"
        return f"({c})({count} < {width} ? ({unsigned}){value} {operator} ({count} & {width - 1}) : 0)"

    return rule


def _extreme(operator: str, unsigned: bool) -> Rule:
    """The minimum or the maximum of two integers."""

    def rule(operation: Operation, args: Sequence[str]) -> str:
        c = operation.result.type.c
        cast = f"({UNSIGNED[c]})" if unsigned else _SIGNED_BIT if c == "bool" else ""
        return f"({cast}{args[0]} {operator} {cast}{args[1]} ? {args[0]} : {args[1]})"

    return rule


def _extreme_float(function: str) -> Rule:
    """The minimum or maximum of two floats: by a function of the prelude, or one comparison with a known number."""
    beyond, zero_that_wins = ("<", 1.0) if function == "maximum" else (">", -1.0)

    def rule(operation: Operation, args: Sequence[str]) -> str:
        element = operation.result.type.element
        held = "f64" if element == "f64" else "f32"
        a, b = (widened(arg, element) for arg in args)
        for x, bound, value in ((a, b, operation.operands[1]), (b, a, operation.operands[0])):
            number = _known_number(value)
            if number is None:
                continue
            # A NaN compares as false, so it is propagated. Both zeros compare equal to zero: then the bound is returned
            # if it is the one that wins, else x itself.
            keeps_equal = number == 0 and math.copysign(1.0, number) != zero_that_wins
            comparison = beyond if keeps_equal else f"{beyond}="
            return narrowed(f"({x} {comparison} {bound} ? {bound} : {x})", element)
        return narrowed(f"{function}_{held}({a}, {b})", element)

    return rule


def _known_number(value: Value) -> float | None:
    """The number that a constant holds in every lane. None where it is not known or NaN."""
    producer = value.producer
    if producer is not None and producer.name == "tt.splat":
        producer = producer.operands[0].producer
    if producer is None or producer.name != "arith.constant":
        return None
    return decimal(producer)


def _compare_integers(operation: Operation, args: Sequence[str]) -> str:
    predicate = operation.predicate
    if predicate in _EQUALITIES:
        return f"({args[0]} {_EQUALITIES[predicate]} {args[1]})"
    signedness, order = predicate[0], _ORDERS[predicate[1:]]
    operand = operation.operands[0].type
    cast = f"({UNSIGNED[operand.c]})" if signedness == "u" else _SIGNED_BIT if operand.element == "i1" else ""
    return f"({cast}{args[0]} {order} {cast}{args[1]})"


def _compare_floats(operation: Operation, args: Sequence[str]) -> str:
    element = operation.operands[0].type.element
    a, b = (widened(arg, element) for arg in args)
    return _FLOAT_COMPARISONS[operation.predicate].format(a=a, b=b)


def _select(operation: Operation, args: Sequence[str]) -> str:
    return f"({args[0]} ? {args[1]} : {args[2]})"


def _negate(operation: Operation, args: Sequence[str]) -> str:
    element = operation.result.type.element
    return narrowed(f"(-{widened(args[0], element)})", element)


def _high_product(operation: Operation, args: Sequence[str]) -> str:
    """The upper half of an unsigned product."""
    type_ = operation.result.type
    unsigned, wide = (
        (UNSIGNED[type_.c], "uint64_t") if type_.width == 32 else ("uint64_t", "unsigned __int128")
    )
    return f"({type_.c})((({wide})({unsigned}){args[0]} * ({unsigned}){args[1]}) >> {type_.width})"


def _clamp(operation: Operation, args: Sequence[str]) -> str:
    """min(max(x, low), high). NaN becomes low, unless it is propagated."""
    element = operation.result.type.element
    x, low, high = (widened(arg, element) for arg in args)
    if "propagateNan = all" in operation.line:
        return narrowed(f"({x} < {low} ? {low} : {x} > {high} ? {high} : {x})", element)
    return narrowed(f"(!({x} >= {low}) ? {low} : {x} > {high} ? {high} : {x})", element)


def _constant(operation: Operation, args: Sequence[str]) -> str:
    return literal(operation)


RULES: dict[str, Rule] = {
    "arith.constant": _constant,
    "arith.addi": _integer_binary("+", "^"),
    "arith.subi": _integer_binary("-", "^"),
    "arith.muli": _integer_binary("*", "&"),
    "arith.andi": _integer_binary("&", "&"),
    "arith.ori": _integer_binary("|", "|"),
    "arith.xori": _integer_binary("^", "^"),
    "arith.divsi": _division("div_signed"),
    "arith.divui": _division("div_unsigned"),
    "arith.remsi": _division("rem_signed"),
    "arith.remui": _division("rem_unsigned"),
    "arith.shli": _shift("left"),
    "arith.shrui": _shift("logical"),
    "arith.shrsi": _shift("arithmetic"),
    "arith.minsi": _extreme("<", False),
    "arith.maxsi": _extreme(">", False),
    "arith.minui": _extreme("<", True),
    "arith.maxui": _extreme(">", True),
    "arith.cmpi": _compare_integers,
    "arith.cmpf": _compare_floats,
    "arith.select": _select,
    "arith.addf": _float_binary("({a} + {b})"),
    "arith.subf": _float_binary("({a} - {b})"),
    "arith.mulf": _float_binary("({a} * {b})"),
    "arith.divf": _float_binary("({a} / {b})"),
    "arith.negf": _negate,
    # maxnum and minnum ignore a NaN, maximum and minimum propagate it.
    "arith.maxnumf": _float_binary("({a} >= {b} || {b} != {b} ? {a} : {b})"),
    "arith.minnumf": _float_binary("({a} <= {b} || {b} != {b} ? {a} : {b})"),
    "arith.maximumf": _extreme_float("maximum"),
    "arith.minimumf": _extreme_float("minimum"),
    "tt.clampf": _clamp,
    "tt.mulhiui": _high_product,
    # It may differ by two roundings, and does not.
    "tt.approx_divf": _float_binary("({a} / {b})"),
    "tt.precise_divf": _float_binary("({a} / {b})"),
}
