"""Assertions and prints."""

from __future__ import annotations

import math
import re

from fusetune.kernels.cpu.failures import ASSERTION
from fusetune.kernels.cpu.ir_tree import Operation
from fusetune.kernels.cpu.ir_types import SHORT_FLOATS, UNSIGNED, Type
from fusetune.kernels.cpu.lowering.constants import c_string
from fusetune.kernels.cpu.lowering.emitter import Emitter, Lower
from fusetune.kernels.cpu.lowering.rule import widened

_ESCAPE = re.compile(r"\\(\\|[0-9A-F]{2})")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')


def _assert(emitter: Emitter, operation: Operation) -> None:
    """A failed assertion does not stop the program. The launch raises it when all programs have ended."""
    (condition,) = operation.operands
    message = f"*grid->failure = {_text(operation, ASSERTION)};"
    if condition.type.is_tile:
        holds = emitter.array_of(condition)
        emitter.line(
            f"for (int32_t l = 0; l < {condition.type.elements}; ++l) if (!{holds}[l]) {{ {message} }}"
        )
    else:
        emitter.line(f"if (!{emitter.scalars[condition]}) {{ {message} }}")
    emitter.done.add(operation)


def _print(emitter: Emitter, operation: Operation) -> None:
    """Print one line for each element, as on a GPU: the program, the place in the tile, the prefix, the value."""
    emitter.before_effect()
    hexadecimal = "hex = true" in operation.line
    text = _text(operation)
    place = "grid->place[0], grid->place[1], grid->place[2]"
    if not operation.operands:
        emitter.line(f'printf("pid (%u, %u, %u)%s\\n", {place}, {text});')
    signs = operation.array("isSigned") if operation.operands else ()
    for number, (operand, signed) in enumerate(zip(operation.operands, signs, strict=True)):
        tile = operand.type.is_tile
        name = f"{emitter.array_of(operand)}[l]" if tile else emitter.scalars[operand]
        form, value = _format(name, operand.type, hexadecimal, bool(signed))
        which = f"(operand {number}) " if len(operation.operands) > 1 else ""
        shape = operand.type.dimensions
        idx = ", ".join(f"%{len(str(size - 1)) if size > 1 else ''}d" for size in shape)
        lanes = "".join(f", l / {math.prod(shape[d + 1 :])} % {size}" for d, size in enumerate(shape))
        with emitter.braces(f"for (int32_t l = 0; l < {operand.type.elements}; ++l)"):
            line = f'"pid (%u, %u, %u) idx ({idx})%s{which}{form}\\n"'
            emitter.line(f"printf({line}, {place}{lanes}, {text}, {value});")
    emitter.line("fflush(stdout);")
    emitter.done.add(operation)


def _text(operation: Operation, begin: str = "") -> str:
    """The operation's message as a C string, behind `begin`."""
    found = _STRING.search(operation.line.partition("tt.")[2])
    return c_string(begin + (_ESCAPE.sub(_unescaped, found[1]) if found else ""))


def _unescaped(escape: re.Match[str]) -> str:
    """The character of an escape of the printed IR: a backslash, or one byte of UTF-8."""
    return "\\" if escape[1] == "\\" else chr(int(escape[1], 16))


def _format(name: str, type_: Type, hexadecimal: bool, signed: bool) -> tuple[str, str]:
    """The format of a value for printf, and the expression to print.

    As on a GPU, integers below 32 bits are sign-extended first, and hexadecimal has the digits of the type.
    """
    if type_.is_pointer:
        return "%p", f"(void *){name}"
    if not type_.is_integer:
        value = widened(name, type_.element) if type_.element in SHORT_FLOATS else name
        return "%a" if hexadecimal else "%f", f"(double){value}"
    own = name if signed else f"({UNSIGNED[type_.c]}){name}"
    c, length = ("long long", "ll") if type_.width == 64 else ("int", "")
    if hexadecimal:
        return f"0x%0{type_.width // 4}{length}x", f"(unsigned {c}){own}"
    return (f"%{length}d", f"({c}){own}") if signed else (f"%{length}u", f"(unsigned {c}){own}")


LOWERINGS: dict[str, Lower] = {"tt.assert": _assert, "tt.print": _print}
