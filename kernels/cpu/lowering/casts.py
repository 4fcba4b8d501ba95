"""Conversions between number types, each rounded once, and reinterpretations of bits."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fusetune.kernels.cpu.diagnostics import unsupported
from fusetune.kernels.cpu.ir_tree import Operation
from fusetune.kernels.cpu.ir_types import FLOATS, SHORT_FLOATS, UNSIGNED
from fusetune.kernels.cpu.lowering.rule import Rule, widened

_ROUNDING = re.compile(r"rounding = (\w+)")


def _extend_float(operation: Operation, args: Sequence[str]) -> str:
    wide = widened(args[0], operation.operands[0].type.element)
    return f"({operation.result.type.c})({wide})"


def _truncate_float(operation: Operation, args: Sequence[str]) -> str:
    source, target = operation.operands[0].type.element, operation.result.type.element
    if target in SHORT_FLOATS:
        return f"{target}_of_f32({'odd_f32_of_f64' if source == 'f64' else ''}({args[0]}))"
    return f"({operation.result.type.c})({args[0]})"


def _convert_float(operation: Operation, args: Sequence[str]) -> str:
    """tt.fp_to_fp between the supported floats, to the nearest or towards zero. fp8 is not supported.

    fp16 and bf16 do not contain each other, so a conversion between them rounds, although their widths are equal.
    """
    for value in (operation.operands[0], operation.result):
        if value.type.element not in FLOATS:
            raise unsupported(operation, f"values of type {value.type.element}")
    source, target = operation.operands[0].type, operation.result.type
    named = _ROUNDING.search(operation.line)
    rounding = named[1] if named else "rtne"
    if rounding not in ("rtne", "rtz"):
        raise unsupported(operation, f"rounding {rounding}")
    if target.element in SHORT_FLOATS and source.element != target.element:
        wide = f"odd_f32_of_f64({args[0]})" if source.element == "f64" else widened(args[0], source.element)
        return f"{target.element}_of_f32{'_towards_zero' if rounding == 'rtz' else ''}({wide})"
    if rounding == "rtz" and source.width > target.width:
        raise unsupported(operation, f"rounding towards zero to {target.element}")
    return _extend_float(operation, args)


def _float_of_integer(unsigned: bool) -> Rule:
    def rule(operation: Operation, args: Sequence[str]) -> str:
        source, target = operation.operands[0].type, operation.result.type
        value = args[0]
        if unsigned:
            value = f"({UNSIGNED[source.c]}){value}"
        elif source.element == "i1":
            value = f"-(int){value}"
        if target.element not in SHORT_FLOATS:
            return f"({target.c})({value})"
        exact = f"odd_f64_of_{'u64' if unsigned else 'i64'}" if source.width == 64 else "(double)"
        if source.width <= 16:
            return f"{target.element}_of_f32((float)({value}))"
        return f"{target.element}_of_f32(odd_f32_of_f64({exact}({value})))"

    return rule


def _integer_of_float(unsigned: bool) -> Rule:
    """Truncation towards zero. Out of range it gives x86's result: the most negative integer, narrowed."""

    def rule(operation: Operation, args: Sequence[str]) -> str:
        source, target = operation.operands[0].type, operation.result.type
        value = widened(args[0], source.element)
        held = "f64" if source.element == "f64" else "f32"
        if target.element == "i1":
            return f"({value} != 0)"
        if unsigned and target.width == 64:
            return f"(int64_t)u64_of_f64({value})"
        wide = "i64" if target.width == 64 or (unsigned and target.width == 32) else "i32"
        return f"({target.c}){wide}_of_{held}({value})"

    return rule


def _extend_integer(unsigned: bool) -> Rule:
    def rule(operation: Operation, args: Sequence[str]) -> str:
        source, target = operation.operands[0].type, operation.result.type
        if source.element == "i1":
            return f"({target.c}){'' if unsigned else '-(int)'}{args[0]}"
        return f"({target.c}){f'({UNSIGNED[source.c]})' if unsigned else ''}{args[0]}"

    return rule


def _truncate_integer(operation: Operation, args: Sequence[str]) -> str:
    target = operation.result.type
    return f"(({args[0]} & 1) != 0)" if target.element == "i1" else f"({target.c}){args[0]}"


def _reinterpret(operation: Operation, args: Sequence[str]) -> str:
    source, target = operation.operands[0].type, operation.result.type
    if source.c == target.c:
        return args[0]
    if target.is_pointer:
        return f"({target.c}){args[0]}"
    if target.element in ("f32", "f64"):
        return f"{target.element}_of_bits({args[0]})"
    if source.element in ("f32", "f64"):
        return f"({target.c})bits_of_{source.element}({args[0]})"
    return f"({target.c}){args[0]}"


def _pointer_of_integer(operation: Operation, args: Sequence[str]) -> str:
    return f"({operation.result.type.c}){args[0]}"


RULES: dict[str, Rule] = {
    "arith.extf": _extend_float,
    "arith.truncf": _truncate_float,
    "tt.fp_to_fp": _convert_float,
    "arith.sitofp": _float_of_integer(False),
    "arith.uitofp": _float_of_integer(True),
    "arith.fptosi": _integer_of_float(False),
    "arith.fptoui": _integer_of_float(True),
    "arith.extsi": _extend_integer(False),
    "arith.extui": _extend_integer(True),
    "arith.trunci": _truncate_integer,
    "arith.bitcast": _reinterpret,
    "tt.bitcast": _reinterpret,
    "tt.int_to_ptr": _pointer_of_integer,
    "tt.ptr_to_int": _pointer_of_integer,
}
