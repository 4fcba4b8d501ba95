"""Atomic accesses: one lane after another, each sequentially consistent, for any requested order and scope."""

from __future__ import annotations

import re
from collections.abc import Callable

from fusetune.kernels.cpu.diagnostics import unsupported
from fusetune.kernels.cpu.ir_tree import Operation, Value
from fusetune.kernels.cpu.ir_types import UNSIGNED, Type
from fusetune.kernels.cpu.lowering.emitter import Emitter, Lower
from fusetune.kernels.cpu.lowering.rule import narrowed, widened
from fusetune.kernels.cpu.lowering.waiting import where

FUNCTIONS = r"""
#define ATOMIC(suffix, type)                                                                     \
  INLINE type atomic_swap_##suffix(type *p, type expected, type wanted) {                        \
    __atomic_compare_exchange_n(p, &expected, wanted, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
    return expected;                                                                             \
  }
ATOMIC(16, uint16_t)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)
"""
_UPDATES = {
    "and": "{a} & {b}",
    "or": "{a} | {b}",
    "xor": "{a} ^ {b}",
    "add": "{a} + {b}",
    "fadd": "{a} + {b}",
    "max": "{a} > {b} ? {a} : {b}",
    "min": "{a} < {b} ? {a} : {b}",
    "umax": "{a} > {b} ? {a} : {b}",
    "umin": "{a} < {b} ? {a} : {b}",
    "exch": "{b}",
}


def _update(emitter: Emitter, operation: Operation) -> None:
    found = re.search(r"tt\.atomic_rmw (\w+),", operation.line)
    if found is None or found[1] not in _UPDATES:
        raise unsupported(operation, f"the update is not known; known: {', '.join(_UPDATES)}")
    kind, type_ = found[1], operation.operands[1].type
    _check(operation, type_)
    element = type_.element

    def lane(pointer: str, value: str, result: str) -> None:
        bits = f"uint{type_.width}_t"
        cast = f"({UNSIGNED[type_.c]})" if kind in ("umax", "umin") else ""
        a, b = (
            f"{cast}{widened(_of_bits(expression, type_), element)}" for expression in ("seen", "further")
        )
        emitter.line(f"const {bits} further = {_bits(value, type_)};")
        emitter.line(f"{bits} *const at = ({bits} *)({pointer});")
        emitter.line(f"{bits} seen = __atomic_load_n(at, __ATOMIC_SEQ_CST);")
        updated = narrowed(f"({_UPDATES[kind].format(a=a, b=b)})", element)
        with emitter.braces("for (;;)"):
            emitter.line(f"const {type_.c} updated = {updated};")
            emitter.line(
                f"const {bits} found = atomic_swap_{type_.width}(at, seen, {_bits('updated', type_)});"
            )
            emitter.line("if (found == seen) break;")
            emitter.line("seen = found;")
        emitter.changed(f"{_bits(updated, type_)} != seen")
        emitter.line(f"{result} = {_of_bits('seen', type_)};")

    _each_lane(emitter, operation, operation.operands[:2], operation.operands[2:], lane)


def _compare_and_swap(emitter: Emitter, operation: Operation) -> None:
    type_ = operation.operands[1].type
    _check(operation, type_)

    def lane(pointer: str, expected: str, wanted: str, result: str) -> None:
        bits = f"uint{type_.width}_t"
        swapped = f"atomic_swap_{type_.width}(({bits} *)({pointer}), {_bits(expected, type_)}, {_bits(wanted, type_)})"
        if emitter.waits:
            emitter.line(f"const {bits} found = {swapped};")
            emitter.changed(
                f"found == {_bits(expected, type_)} && {_bits(expected, type_)} != {_bits(wanted, type_)}"
            )
            swapped = "found"
        emitter.line(f"{result} = {_of_bits(swapped, type_)};")

    _each_lane(emitter, operation, operation.operands, [], lane)


def _load(emitter: Emitter, operation: Operation) -> None:
    """An atomic load, of any type. It is emitted at its place in program order."""
    type_ = operation.result.type

    def lane(pointer: str, result: str) -> None:
        bits = _bits_type(type_)
        emitter.line(f"const {bits} seen = __atomic_load_n((const {bits} *)({pointer}), __ATOMIC_SEQ_CST);")
        emitter.line(f"{result} = {_of_bits('seen', type_)};")

    _each_lane(emitter, operation, operation.operands[:1], operation.operands[1:], lane)


def _store(emitter: Emitter, operation: Operation) -> None:
    type_ = operation.operands[1].type

    def lane(pointer: str, value: str) -> None:
        bits = _bits_type(type_)
        emitter.line(f"__atomic_store_n(({bits} *)({pointer}), {_bits(value, type_)}, __ATOMIC_SEQ_CST);")
        emitter.changed()

    _each_lane(emitter, operation, operation.operands[:2], operation.operands[2:], lane)


def _poll(emitter: Emitter, operation: Operation) -> None:
    """Wait until memory holds the expected values. Return of each lane whether it did before the common time was up."""
    pointers, expected, *timeout = operation.operands
    type_ = expected.type
    _check(operation, type_)
    endless, budget = ("false", f"(uint64_t){emitter.scalars[timeout[0]]}") if timeout else ("true", "0")
    since, place = emitter.name("since"), where(operation)

    def lane(pointer: str, wanted: str, result: str) -> None:
        bits = _bits_type(type_)
        arguments = f"(const {bits} *)({pointer}), {_bits(wanted, type_)}, {endless}, {since}, {budget}"
        emitter.line(f"{result} = poll_{type_.width}(grid, {arguments}, {place});")

    emitter.before_effect()
    emitter.line(f"const uint64_t {since} = {'now_ns()' if timeout else '0'};")
    _each_lane(emitter, operation, [pointers, expected], [], lane)


def _each_lane(
    emitter: Emitter,
    operation: Operation,
    operands: list[Value],
    mask: list[Value],
    lane: Callable[..., None],
) -> None:
    """Emit the access of each lane whose mask is set. The result of other lanes, if there is one, is 0."""
    emitter.before_effect()
    pointers = operands[0].type
    results = operation.results
    if not pointers.is_tile:
        names = [emitter.new_scalar(result) for result in results]
        for name in names:
            emitter.line(f"{name} = 0;")
        scalars = [emitter.scalars[operand] for operand in operands]
        conditions = [emitter.scalars[each] for each in mask] + emitter.inside(operation, scalars[0])
        with emitter.braces(f"if ({' && '.join(conditions) or 1})"):
            lane(*scalars, *names)
    else:
        arrays = [f"{emitter.array_of(operand)}[l]" for operand in operands]
        masks = [f"{emitter.array_of(operand)}[l]" for operand in mask]
        masks += emitter.inside(operation, arrays[0])
        for result in results:
            emitter.arrays[result] = emitter.new_array(result.type)
        names = [f"{emitter.arrays[result]}[l]" for result in results]
        with emitter.braces(f"for (int32_t l = 0; l < {pointers.elements}; ++l)"):
            for name in names:
                emitter.line(f"{name} = 0;")
            with emitter.braces(f"if ({' && '.join(masks) or 1})"):
                lane(*arrays, *names)
    emitter.done.add(operation)


def _check(operation: Operation, type_: Type) -> None:
    if type_.width not in (16, 32, 64):
        raise unsupported(operation, f"atomic updates of {type_.width} bits")


def _bits_type(type_: Type) -> str:
    """The unsigned integer of a value's width in memory."""
    _ = type_.c  # refuses types that have no counterpart
    return f"uint{8 * type_.bytes}_t"


def _bits(expression: str, type_: Type) -> str:
    """A value's bits as the unsigned integer of its width."""
    if type_.element in ("f32", "f64"):
        return f"bits_of_{type_.element}({expression})"
    return f"(uint{type_.width}_t)({expression})"


def _of_bits(expression: str, type_: Type) -> str:
    if type_.element in ("f32", "f64"):
        return f"{type_.element}_of_bits({expression})"
    return f"({type_.c})({expression})"


LOWERINGS: dict[str, Lower] = {
    "tt.atomic_rmw": _update,
    "tt.atomic_cas": _compare_and_swap,
    "tt.atomic_load": _load,
    "tt.atomic_store": _store,
    "tt.atomic_poll": _poll,
}
