"""Assertions and prints."""

from __future__ import annotations

import re

from kernels.cpu.ir_tree import Operation
from kernels.cpu.ir_types import SHORT_FLOATS, UNSIGNED, Type
from kernels.cpu.lowering.constants import c_string
from kernels.cpu.lowering.emitter import Emitter, Lower
from kernels.cpu.lowering.rule import widened

_ESCAPE = re.compile(r"\\(\\|[0-9A-F]{2})")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')


def _assert(emitter: Emitter, operation: Operation) -> None:
    """A failed assertion does not stop the program; the launch raises it when all programs have ended."""
    (condition,) = operation.operands
    message = f"*grid->failure = {_text(operation)};"
    if condition.type.is_tile:
        holds = emitter.array_of(condition)
        emitter.line(
            f"for (int32_t l = 0; l < {condition.type.elements}; ++l) if (!{holds}[l]) {{ {message} }}"
        )
    else:
        emitter.line(f"if (!{emitter.scalars[condition]}) {{ {message} }}")
    emitter.done.add(operation)


def _print(emitter: Emitter, operation: Operation) -> None:
    """One line for each element: the program, the place in the tile, the prefix, the value."""
    emitter.before_effect()
    place = "grid->place[0], grid->place[1], grid->place[2]"
    hexadecimal = "hex = true" in operation.line
    text = _text(operation)
    if not operation.operands:
        emitter.line(f'printf("pid (%d, %d, %d)%s\\n", {place}, {text});')
    signs = operation.array("isSigned") if operation.operands else ()
    for operand, signed in zip(operation.operands, signs, strict=True):
        tile = operand.type.is_tile
        name = f"{emitter.array_of(operand)}[l]" if tile else emitter.scalars[operand]
        form, value = _format(name, operand.type, hexadecimal, bool(signed))
        with emitter.braces(f"for (int32_t l = 0; l < {operand.type.elements if tile else 1}; ++l)"):
            idx = "idx (%d)" if tile else "idx ()"
            lane = ", l" if tile else ""
            emitter.line(f'printf("pid (%d, %d, %d) {idx}%s{form}\\n", {place}{lane}, {text}, {value});')
    emitter.line("fflush(stdout);")
    emitter.done.add(operation)


def _text(operation: Operation) -> str:
    """The operation's message as a C string."""
    found = _STRING.search(operation.line.partition("tt.")[2])
    return c_string(_ESCAPE.sub(_unescaped, found[1]) if found else "")


def _unescaped(escape: re.Match[str]) -> str:
    """What an escape of the printed IR stands for: a backslash, or one byte of UTF-8."""
    return "\\" if escape[1] == "\\" else chr(int(escape[1], 16))


def _format(name: str, type_: Type, hexadecimal: bool, signed: bool) -> tuple[str, str]:
    """How a value is printed, and the expression to print."""
    if type_.is_pointer:
        return "%p", f"(void *){name}"
    if type_.element in SHORT_FLOATS:
        return "%f", f"(double){widened(name, type_.element)}"
    if not type_.is_integer:
        return "%f", f"(double){name}"
    if signed and not hexadecimal:
        return "%lld", f"(long long){name}"
    return "0x%llx" if hexadecimal else "%llu", f"(unsigned long long)({UNSIGNED[type_.c]}){name}"


LOWERINGS: dict[str, Lower] = {"tt.assert": _assert, "tt.print": _print}
