"""Triton's IR as a tree of Python objects.

Structure, types, operands, names and the locations of results come from the bindings (`module.walk`). The bindings lack
the values of constants, array attributes, the targets of branches and (before Triton 3.7) integers. So each operation
also carries its line of the printed module. Walking both in the same order finds it. The bindings tell which operations
the printed module leaves out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fusetune.errors import InvalidValueError
from fusetune.kernels.cpu.ir_types import Type
from fusetune.kernels.triton_inside import ir

_OPERATION_LINE = re.compile(r'\s*(?:%[\w:, %#$.-]+ = )?"?([a-z_]\w*\.[\w.]+)"?(?=[\s(]|$)')
_WITH_EMPTY_ENDS_LEFT_OUT = (
    "scf.for",
    "scf.if",
)  # the yields of these are not printed where they yield no value
_SOURCE = re.compile(r'"([^"]+\.py)":(\d+):(\d+)')
_LOCATION = re.compile(r"^(#loc\d*) = (loc\(.*\))$", re.MULTILINE)
_LOCATION_OF_LINE = re.compile(r" loc\((#loc\d*)\)$")
_CLOSING_LINE = re.compile(r"(\s*)\}.* loc\((#loc\d*)\)$")
_SUCCESSOR = re.compile(r"\^bb(\d+)")
_GRID_AXES = "xyz"
_AXIS = re.compile(r"axis = (?P<number>\d+) : i32|get_(?:program_id|num_programs) (?P<letter>[xyz])")
_PREDICATE = re.compile(r"arith\.cmp[if] (\w+),")
_PREDICATES = {
    "arith.cmpi": ["eq", "ne", "slt", "sle", "sgt", "sge", "ult", "ule", "ugt", "uge"],
    "arith.cmpf": [
        "false",
        "oeq",
        "ogt",
        "oge",
        "olt",
        "ole",
        "one",
        "ord",
        "ueq",
        "ugt",
        "uge",
        "ult",
        "ule",
        "une",
        "uno",
        "true",
    ],
}
_BINDINGS_GIVE_INTEGERS = hasattr(ir.operation, "get_int_attr")  # since Triton 3.7


@dataclass(eq=False)
class Value:
    """An SSA value: the result of an operation, or an argument of a block, which has no producer."""

    type: Type
    producer: Operation | None = None
    place: int = 0
    users: list[Operation] = field(default_factory=list, repr=False)


@dataclass(eq=False)
class Block:
    """Operations in order."""

    arguments: list[Value]
    operations: list[Operation] = field(default_factory=list)

    def walk(self) -> Iterator[Operation]:
        """Yield every operation, nested ones before the one that holds them."""
        for operation in self.operations:
            for blocks in operation.regions:
                for block in blocks:
                    yield from block.walk()
            yield operation


@dataclass(eq=False)
class Operation:
    """One operation.

    Args:
        name: e.g. `arith.addf`.
        operands, results: its values.
        regions: the blocks of each region.
        successors: the target blocks of a branch between blocks.
        handle: the bindings' object.
        order: place in the module. Nested operations come after the one that holds them.
        line: its line of the printed module, empty where that leaves it out.
        source: file, line and column of the Python code, or None where Triton generated the operation.
    """

    name: str
    operands: list[Value]
    results: list[Value]
    regions: list[list[Block]]
    handle: Any = field(repr=False)
    order: int = -1
    line: str = ""
    successors: list[Block] = field(default_factory=list, repr=False)
    source: tuple[str, int, int] | None = None

    @property
    def result(self) -> Value:
        """The only result of an operation."""
        return self.results[0]

    def integer(self, attribute: str) -> int:
        """An integer attribute."""
        if _BINDINGS_GIVE_INTEGERS:
            return int(self.handle.get_int_attr(attribute))
        found = re.search(rf"\b{attribute} = (-?\d+)", self.line)
        assert found is not None, f"{self.name} has no {attribute}: {self.line}"
        return int(found[1])

    def text(self, attribute: str) -> str:
        """A string attribute."""
        return str(self.handle.get_str_attr(attribute))

    @property
    def axis(self) -> int:
        """The dimension of a reduction, of a scan or of the grid."""
        if _BINDINGS_GIVE_INTEGERS:
            return int(self.handle.get_int_attr("axis"))
        found = _AXIS.search(self.line)
        assert found is not None, f"{self.name} has no axis: {self.line}"
        return _GRID_AXES.index(found["letter"]) if found["letter"] else int(found["number"])

    @property
    def predicate(self) -> str:
        """A comparison's predicate in MLIR's notation: slt, ult, oeq, une and so on."""
        if _BINDINGS_GIVE_INTEGERS:
            return _PREDICATES[self.name][int(self.handle.get_int_attr("predicate"))]
        found = _PREDICATE.search(self.line)
        assert found is not None, f"{self.name} has no predicate: {self.line}"
        return found[1]

    def array(self, attribute: str) -> tuple[int, ...]:
        """An array attribute, from the printed line."""
        found = re.search(rf"{attribute} = array<i\d+: ([-\d, ]+)>", self.line)
        assert found is not None, f"{self.name} has no {attribute}: {self.line}"
        return tuple(int(item) for item in found[1].split(","))

    def flag(self, attribute: str) -> bool:
        """A boolean attribute."""
        return bool(self.handle.get_bool_attr(attribute))

    @property
    def nearest_source(self) -> tuple[str, int, int] | None:
        """Its source. Where Triton generated it, that of an operation that it is computed from or holds."""
        held = (each for blocks in self.regions for block in blocks for each in block.walk())
        made_from = (operand.producer for operand in self.operands if operand.producer is not None)
        return next((each.source for each in (self, *made_from, *held) if each.source is not None), None)


class UnreadableModuleError(InvalidValueError):
    """Triton's bindings and its printed module disagree.

    Args:
        operation: the first that they disagree about.
        why: one clause.
    """

    code = "unreadable-module"

    def __init__(self, operation: Operation, why: str) -> None:
        super().__init__(operation.name, why)
        self.operation = operation
        self.why = why


def read_module(module: Any) -> list[Operation]:
    """Return the functions of a module of Triton's bindings."""
    values: dict[int, Value] = {}
    blocks: dict[int, Block] = {}
    blocks_of_region: dict[int, list[Block]] = {}

    def value(handle: Any) -> Value:
        key = handle.id()
        if key not in values:
            values[key] = Value(Type.parse(str(handle.get_type())))
        return values[key]

    def block(handle: Any) -> Block:
        key = handle.id()
        if key not in blocks:
            arguments = [value(handle.get_argument(i)) for i in range(handle.get_num_arguments())]
            blocks[key] = Block(arguments)
            blocks_of_region.setdefault(handle.get_parent().id(), []).append(blocks[key])
        return blocks[key]

    functions: list[Operation] = []

    def visit(handle: Any) -> None:
        results = [handle.get_result(i) for i in range(handle.get_num_results())]
        operation = Operation(
            name=handle.get_name(),
            operands=[value(handle.get_operand(i)) for i in range(handle.get_num_operands())],
            results=[value(result) for result in results],
            regions=[
                blocks_of_region.get(handle.get_region(i).id(), []) for i in range(handle.get_num_regions())
            ],
            handle=handle,
            source=_source(str(results[0].get_loc())) if results else None,
        )
        for place, result in enumerate(operation.results):
            result.producer, result.place = operation, place
        for operand in operation.operands:
            operand.users.append(operation)
        if operation.name == "tt.func":
            functions.append(operation)
        if operation.name != "builtin.module":
            block(handle.get_block()).operations.append(operation)

    module.walk(visit)
    _add_lines(functions, module.str_nodebug())
    _add_sources(functions, str(module))
    for function in functions:
        _connect(function)
    for order, operation in enumerate(_in_printed_order(functions)):
        operation.order = order
    return functions


def _source(location: str) -> tuple[str, int, int] | None:
    """The outermost place in Python code within a location."""
    places = _SOURCE.findall(location)
    return (places[-1][0], int(places[-1][1]), int(places[-1][2])) if places else None


def _add_lines(functions: list[Operation], text: str) -> None:
    """Give each printed operation its line."""
    lines = text.splitlines()
    for operation, number in _numbered(functions, lines):
        operation.line = lines[number].strip()


def _add_sources(functions: list[Operation], text: str) -> None:
    """Find the sources of operations without results. Only the printed module has them, behind nested operations."""
    definitions = dict(_LOCATION.findall(text))
    lines = text.splitlines()
    names: dict[int, str] = {}  # number of a line -> the name of its operation's location
    ends: dict[str, str] = {}  # indentation -> the same, of the operation that ends next at it
    for number in reversed(range(len(lines))):
        line = lines[number]
        if closing := _CLOSING_LINE.match(line):
            ends[closing[1]] = closing[2]
        elif found := _LOCATION_OF_LINE.search(line):
            names[number] = found[1]
        elif line.endswith("{"):
            names[number] = ends.get(line[: -len(line.lstrip())], "")
    for operation, number in _numbered(functions, lines):
        if operation.source is None:
            operation.source = _source(_spelt_out(names.get(number, ""), definitions))


def _numbered(functions: list[Operation], lines: list[str]) -> list[tuple[Operation, int]]:
    """Each printed operation, with the number of its line. Both orders are the same.

    Raises:
        UnreadableModuleError: the orders differ.
    """
    printed = list(_printed(functions))
    found = [
        (match[1], number)
        for number, line in enumerate(lines)
        if (match := _OPERATION_LINE.match(line)) and match[1] != "builtin.module"
    ]
    for operation, (name, number) in zip(printed, found, strict=False):
        if name != operation.name:
            raise UnreadableModuleError(
                operation, f"the printed module has {lines[number].strip()} in its place"
            )
    if len(printed) > len(found):
        raise UnreadableModuleError(printed[len(found)], "the printed module ends before it")
    if len(printed) < len(found):
        further = lines[found[len(printed)][1]].strip()
        raise UnreadableModuleError(printed[-1], f"the printed module goes on behind it, with {further}")
    return [(operation, number) for operation, (_, number) in zip(printed, found, strict=True)]


def _printed(operations: list[Operation], holder: Operation | None = None) -> Iterator[Operation]:
    """The operations that have a line of their own, in the order of the lines."""
    for operation in operations:
        is_empty_end = operation.name == "scf.yield" and not operation.operands
        if not (is_empty_end and holder is not None and holder.name in _WITH_EMPTY_ENDS_LEFT_OUT):
            yield operation
        for block in itertools.chain.from_iterable(operation.regions):
            yield from _printed(block.operations, operation)


def _spelt_out(name: str, definitions: dict[str, str]) -> str:
    """A location in which each reference to another location is replaced by that location."""
    return re.sub(r"#loc\d*", lambda found: _spelt_out(found[0], definitions), definitions.get(name, ""))


def _connect(function: Operation) -> None:
    """Find the targets of branches, and sort the blocks topologically: each behind its predecessors."""
    (blocks,) = function.regions
    for block in blocks:
        end = block.operations[-1]
        end.successors = [blocks[int(number)] for number in _SUCCESSOR.findall(end.line)]
    seen: set[Block] = set()
    left: list[Block] = []

    def visit(block: Block) -> None:
        seen.add(block)
        for successor in reversed(block.operations[-1].successors):
            if successor not in seen:
                visit(successor)
        left.append(block)

    visit(blocks[0])
    blocks[:] = reversed(left)


def _in_printed_order(operations: list[Operation]) -> Iterator[Operation]:
    """Yield each operation before those that it holds."""
    for operation in operations:
        yield operation
        for blocks in operation.regions:
            for block in blocks:
                yield from _in_printed_order(block.operations)
