"""Outlining: long functions are split, and loop nests become functions of their own.

The time of a C compilation grows faster than the size of a function. The text of the C code is split. Each name is
generated once in a function (see `FunctionState.name`), so it identifies a variable. Tiles are in scratch memory, where
an outlined part finds them by their place. Scalars are passed to it, and those that it may assign by their address.
Where a line is not understood, the function stays in one piece.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

from fusetune.kernels.cpu.ir_types import C_TYPES, UNSIGNED

# Functions with more lines are split, into parts of about so many. Splitting shorter ones would not pay.
MOST_LINES = 800
LINES_OF_A_PART = 200

_TYPES = {*C_TYPES.values(), *UNSIGNED.values(), "char", "int"}
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
# Generated variables, but no functions.
_NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*\b(?!\()")
_MADE_UP = re.compile(r"[a-z]+\d+$")
_DECLARATION = re.compile(r"(?:const )?(\w+)((?: ?\*)*) ?(?:const )?\b(\w+)(?: = (.*))?;$")
_DECLARED = re.compile(r"(?:^|[({;] ?)(?:const )?(\w+)(?: ?\*)* ?(?:const |restrict )*\b(\w+)(?=\[| =|;)")
_ANOTHER = re.compile(r", (\w+)(?= =|;)")
_TYPEDEF = re.compile(r"^typedef .*\b(\w+) __attribute__")
# An overestimate: for `x & y` it yields y as assigned.
_ASSIGNED = re.compile(r"(\w+) *(?:[-+*/%|&^]|<<|>>)?=(?!=)|(?:\+\+|--|&) *(\w+)|(\w+)(?:\+\+|--)")
_NUMBER = re.compile(r"\(?-?[\d.][\w.+-]*\)?$")
_LOOP = re.compile(r"for \((?:(int64_t) (j\d+) = [^,;]+;.*|;;)\) \{$")
_BRANCH = re.compile(r"(?:if \(.*\)|else) \{$")
_LEAVES = re.compile(r"\b(?:return|goto|case|default)\b|^\w+:")
_ALONE = ("if ", "else", "typedef ", "break", "continue")


class _NotUnderstoodError(Exception):
    """A line that the function cannot be split at."""


@dataclass(frozen=True)
class Function:
    """A function in C.

    Args:
        name: its name.
        parameters: their declarations.
        arrays: the declarations of its tiles.
        lines: the rest of its body. An element may be several lines.
    """

    name: str
    parameters: Sequence[str]
    arrays: Sequence[str]
    lines: Sequence[str]

    @property
    def head(self) -> str:
        return f"static void {self.name}({', '.join(self.parameters)})"


def definitions(function: Function) -> list[str]:
    """The function's definition, behind those of its parts if it was split."""
    body = list(function.lines)
    parts: list[str] = []
    lines = [line for each in body for line in each.split("\n")]
    if len(lines) > MOST_LINES:
        cutter = _Cutter(function, lines)
        try:
            body, parts = cutter.cut(lines, _types(function.parameters)), cutter.parts
        except _NotUnderstoodError:
            parts = []
    return [*parts, "\n".join([f"{function.head} {{", *function.arrays, *body, "}"])]


class _Cutter:
    """The parts of a function.

    Args:
        function: the function.
        lines: of its body, one an element.
    """

    def __init__(self, function: Function, lines: Sequence[str]) -> None:
        self.parts: list[str] = []
        self._function = function
        self._assigned = {name for line in lines for name in _assigned(line)}
        self._constants: dict[str, str] = {}
        self._own_types: dict[str, str] = {}
        self._arrays: dict[str, str] = {}
        for line in function.arrays:
            found = re.search(r"(\w+) = ", line)
            assert found is not None, line
            self._arrays[found[1]] = line

    def cut(self, lines: Sequence[str], known: dict[str, str]) -> list[str]:
        """The remaining lines of a body, with calls in place of the lines that became parts.

        Args:
            lines: of the body.
            known: variable -> type, at its beginning.
        """
        left: list[str] = []
        group: list[str] = []

        def end_group() -> None:
            left.extend(self._part(group, known) if group else [])
            group.clear()

        hangs = False  # on a condition in the line before
        for statement in _statements(lines):
            head = statement[0]
            if not head:
                continue
            loop = _LOOP.match(head)
            if len(statement) > LINES_OF_A_PART and (loop or _BRANCH.match(head)) and statement[-1] == "}":
                end_group()
                inside = dict(known)
                if loop and loop[2]:
                    inside[loop[2]] = loop[1]
                left += [head, *self.cut(statement[1:-1], inside), "}"]
            elif not hangs and _can_move(statement):
                group += statement
                if len(group) >= LINES_OF_A_PART:
                    end_group()
            else:
                end_group()
                left += statement
                if len(statement) == 1 and not _LEAVES.search(head):
                    self._declare(head, known)
            hangs = len(statement) == 1 and not head.endswith((";", "}", ":"))
        end_group()
        return left

    def _declare(self, line: str, known: dict[str, str]) -> None:
        """Record a variable or a type that a line declares."""
        if line.startswith("typedef "):
            found = _TYPEDEF.match(line)
            if found is None:
                raise _NotUnderstoodError
            self._own_types[found[1]] = line
        elif _declares(line):
            declaration = _DECLARATION.match(line)
            if declaration is None:
                raise _NotUnderstoodError
            type_, stars, name, value = declaration.groups()
            if type_ not in _TYPES:
                return  # a local type: the lines that use the variable are not moved
            known[name] = type_ + stars
            if value is not None and _NUMBER.match(value) and name not in self._assigned:
                self._constants[name] = line

    def _part(self, lines: list[str], known: dict[str, str]) -> list[str]:
        """Make a part of lines, and return its call. The lines themselves where they use unknown variables."""
        text = [_STRING.sub('""', line) for line in lines]
        declared = {name for line in text for name in _declared(line, self._own_types)}
        names = dict.fromkeys(name for line in text for name in _NAME.findall(line) if name not in declared)
        places = (known, self._arrays, self._own_types)
        if any(_MADE_UP.match(name) and not any(name in place for place in places) for name in names):
            return lines
        assigned = {name for line in text for name in _assigned(line)}
        begin = [self._own_types[name] for name in names if name in self._own_types]
        begin += [self._arrays[name] for name in names if name in self._arrays]
        begin += [self._constants[name] for name in names if name in self._constants]
        end: list[str] = []
        parameters, arguments = ["const grid_t *grid", "char *scratch"], ["grid", "scratch"]
        for name in names:
            if name not in known or name in self._constants or name in arguments:
                continue
            if name in assigned:
                parameters.append(f"{known[name]} *{name}_left")
                arguments.append(f"&{name}")
                begin.append(f"{known[name]} {name} = *{name}_left;")
                end.append(f"*{name}_left = {name};")
            else:
                parameters.append(f"{known[name]} {name}")
                arguments.append(name)
        name = f"{self._function.name}_part{len(self.parts) + 1}"
        head = f"static __attribute__((noinline)) void {name}({', '.join(parameters)}) {{"
        self.parts.append("\n".join([head, *begin, *lines, *end, "}"]))
        return [f"{name}({', '.join(arguments)});"]


def _types(parameters: Iterable[str]) -> dict[str, str]:
    """Parameter -> type."""
    found = (re.fullmatch(r"(.*?) ?(\w+)", parameter) for parameter in parameters)
    return {each[2]: each[1] for each in found if each is not None}


def _statements(lines: Iterable[str]) -> Iterator[list[str]]:
    """Group lines into statements. An `else` is a statement of its own."""
    statement: list[str] = []
    depth = 0
    for line in lines:
        statement.append(line)
        plain = _STRING.sub("", line)
        depth += plain.count("{") - plain.count("}")
        if depth < 0:
            raise _NotUnderstoodError
        if depth == 0 and not line.startswith("#pragma"):
            yield statement
            statement = []
    if statement:
        raise _NotUnderstoodError


def _can_move(statement: list[str]) -> bool:
    """Return whether a statement has the same meaning in a function of its own."""
    head = statement[0]
    plain = [_STRING.sub("", line) for line in statement]
    if any(_LEAVES.search(line) for line in plain):
        return False
    if head.startswith("{"):
        return not any(re.search(r"\b(?:break|continue)\b", line) for line in plain)
    if head.startswith(("for ", "#pragma omp simd")):
        return True
    return len(statement) == 1 and head.endswith(";") and not _declares(head) and not head.startswith(_ALONE)


def _declares(line: str) -> bool:
    """Return whether a line begins with a type."""
    first = _NAME.match(line.removeprefix("const "))
    return first is not None and (first[0] in _TYPES or re.match(r"\w+ \*?\w+( =|;)", line) is not None)


def _declared(line: str, types: Container[str]) -> list[str]:
    """The variables that a line declares, with types and those of a loop's head."""
    found = [name for type_, name in _DECLARED.findall(line) if type_ in _TYPES or type_ in types]
    found += _ANOTHER.findall(line) if line.startswith("for (") else []
    return found + _TYPEDEF.findall(line)


def _assigned(line: str) -> list[str]:
    """The variables that a line may assign, except those that it declares at its beginning."""
    declaration = _DECLARATION.match(line)
    if declaration is not None and declaration[1] in _TYPES:
        line = declaration[4] or ""
    return [name for names in _ASSIGNED.findall(line) for name in names if name]
