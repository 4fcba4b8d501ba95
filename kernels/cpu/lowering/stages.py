"""The C code of a network's stages. Stages that differ only in the distance of a pair's lanes share a function.

A function's parameters are the distance of the lanes of a pair, the arrays and the scalars. The numbers by which it
finds an element or a bit of a lane's number are parameters too. Distances of 1, 2 and 4 have loops of their own. There
a vector holds several pairs, and the compiler vectorises them only if it knows the distance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from fusetune.kernels.cpu.ir_tree import Operation, Value
from fusetune.kernels.cpu.lowering.elementwise import RULES
from fusetune.kernels.cpu.lowering.functions import SharedFunctions
from fusetune.kernels.cpu.lowering.halves import (
    ONE,
    ZERO,
    Bits,
    Element,
    halved_bits,
    known,
    viewed_bits,
)
from fusetune.kernels.cpu.lowering.network import Stage, halved
from fusetune.kernels.cpu.lowering.shape import VIEWS
from fusetune.kernels.cpu.lowering.state import FunctionState

# A stage with more lines has no loops for short distances.
_MOST_LINES_COPIED = 160
_LOOPS = """\
static __attribute__((noinline)) void {name}(int64_t count, int64_t stride, {parameters}) {{
{short}  for (int64_t o = 0; o < count; ++o) {{
    #pragma omp simd
    for (int64_t l = 0; l < stride; ++l) {name}_at(2 * o * stride + l, o * stride + l, stride, {names});
  }}
}}"""
_SHORT = """\
  if (stride == {stride}) {{
    #pragma omp simd
    for (int64_t o = 0; o < count; ++o)
      for (int64_t l = 0; l < {stride}; ++l) {name}_at({twice} * o + l, {stride} * o + l, {stride}, {names});
    return;
  }}
"""


def emit_stage(state: FunctionState, stage: Stage, sources: Mapping[Value, str]) -> None:
    """Emit the call of a stage.

    Args:
        state: the function that the stage is part of.
        stage: the stage.
        sources: the arrays of its inputs.
    """
    text = _Text(state, stage, sources)
    free = [value for value in stage.owned if text.reads_its_own_pair(value)]
    targets = []
    for value in stage.outputs:
        taken = next((each for each in free if each.type.c == value.type.c), None)
        if taken is None:
            targets.append(state.new_array(value.type))
        else:
            free.remove(taken)
            targets.append(state.arrays.pop(taken))
    state.line(text.call(state.functions, targets))
    state.arrays.update(zip(stage.outputs, targets, strict=True))


@dataclass
class _Parameters:
    """The parameters of a function other than arrays: C types, and the arguments of a call."""

    types: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    _scalars: dict[Value, str] = field(default_factory=dict)

    def number(self, value: int) -> str:
        """The name of the parameter for a number that differs between stages."""
        return self._add("int32_t", str(value))

    def scalar(self, value: Value, expression: str) -> str:
        """The name of the parameter for a scalar."""
        if value not in self._scalars:
            self._scalars[value] = self._add(value.type.c, expression)
        return self._scalars[value]

    def _add(self, type_: str, argument: str) -> str:
        self.types.append(type_)
        self.arguments.append(argument)
        return f"n{len(self.types)}"


class _Text:
    """The body of a stage's function.

    Args:
        state: the function that the stage is part of.
        stage: the stage.
        sources: the arrays of its inputs.
    """

    def __init__(self, state: FunctionState, stage: Stage, sources: Mapping[Value, str]) -> None:
        self._state = state
        self._stage = stage
        self._sources = sources
        self._parameters = _Parameters()
        self._lines: list[str] = []
        self._names: dict[Element, str] = {}
        self._places: dict[Bits, str] = {}
        self._own = tuple(range(stage.bits))
        for element in stage.elements:
            if element not in self._names:
                self._work_out(element)

    def reads_its_own_pair(self, value: Value) -> bool:
        """Return whether an input's elements are read only by the lanes of their own pair."""
        places = [bits for each, bits in self._stage.elements if each is value]
        return self._stage.pairs and all(bits in self._of_pair() for bits in places)

    def call(self, functions: SharedFunctions, targets: list[str]) -> str:
        """The call. The function is added to those of the module."""
        stage, given = self._stage, self._parameters
        lines = list(self._lines)
        places = self._of_pair() if stage.pairs else [self._own]
        for place in places:
            for number, value in enumerate(stage.outputs):
                lines.append(f"out{number}[{self._place(place)}] = {self._names[value, place]};")
        arrays = [f"{value.type.c} *out{number}" for number, value in enumerate(stage.outputs)]
        arrays += [f"const {value.type.c} *in{number}" for number, value in enumerate(self._sources)]
        numbers = [f"{type_} n{number}" for number, type_ in enumerate(given.types, 1)]
        parameters = [*arrays, *numbers]
        names = ", ".join(each.split()[-1].strip("*") for each in parameters)
        short = ""
        if stage.exchanged is not None and len(lines) <= _MOST_LINES_COPIED:
            for stride in (1, 2, 4):
                short += _SHORT.format(stride=stride, twice=2 * stride, names=names, name="{name}")
        head = "INLINE void {name}_at(int64_t first, int64_t place, int64_t stride, "
        text = "\n".join(
            [
                f"{head}{', '.join(parameters)}) {{",
                *lines,
                "}",
                _LOOPS.format(parameters=", ".join(parameters), names=names, short=short, name="{name}"),
            ]
        )
        lanes = 1 << (stage.bits - stage.pairs)
        stride = lanes if stage.exchanged is None else 1 << stage.exchanged
        arguments = [lanes // stride, stride, *targets, *self._sources.values(), *given.arguments]
        return f"{functions.name(text, 'stage')}({', '.join(map(str, arguments))});"

    def _of_pair(self) -> list[Bits]:
        assert self._stage.exchanged is not None
        return [halved(self._own, self._stage.exchanged, half) for half in (ZERO, ONE)]

    def _work_out(self, element: Element) -> None:
        """Emit a line for an element, behind those that it depends on."""
        value, bits = element
        operation = value.producer
        if value in self._sources and value not in self._stage.outputs:
            place = list(self._sources).index(value)
            self._name(element, f"in{place}[{self._place(bits)}]")
            return
        assert operation is not None
        if operation.name == "tt.reduce":
            self._combine(operation, bits)
        elif operation.name in VIEWS:
            self._names[element] = self._names[viewed_bits(value, bits)]
        elif operation.name == "tt.splat":
            self._name(element, self._scalar(operation.operands[0]))
        elif operation.name == "tt.make_range":
            start = re.search(r"start = (\d+)", operation.line)
            assert start is not None
            self._name(element, f"(int32_t)({self._place(bits)} + {start[1]})")
        elif operation.name == "tt.join":
            first, second = (self._names[operand, bits[1:]] for operand in operation.operands)
            if known(bits[0]):
                self._name(element, second if bits[0] == ONE else first)
            else:
                self._name(element, f"({self._place(bits[:1])} == 0 ? {first} : {second})")
        else:
            self._name(
                element,
                RULES[operation.name](operation, [self._read(each, bits) for each in operation.operands]),
            )

    def _combine(self, operation: Operation, bits: Bits) -> None:
        """Emit the lines of a reduction of two halves."""
        ((block,),) = operation.regions
        known_names = {}
        halves = [
            (operand, halved_bits(operation, bits, half))
            for half in (ZERO, ONE)
            for operand in operation.operands
        ]
        for argument, half in zip(block.arguments, halves, strict=True):
            known_names[argument] = self._names[half]
        *inner, end = block.operations
        for each in inner:
            operands = [known_names[o] if o in known_names else self._scalar(o) for o in each.operands]
            known_names[each.result] = self._line(each.result.type.c, RULES[each.name](each, operands))
        for result, value in zip(operation.results, end.operands, strict=True):
            self._names[result, bits] = known_names[value] if value in known_names else self._scalar(value)

    def _read(self, value: Value, bits: Bits) -> str:
        return self._names[value, bits] if value.type.is_tile else self._scalar(value)

    def _scalar(self, value: Value) -> str:
        """A literal, or the parameter of a scalar."""
        producer = value.producer
        if producer is not None and producer.name == "arith.constant":
            return RULES[producer.name](producer, [])
        return self._parameters.scalar(value, self._state.scalars[value])

    def _name(self, element: Element, expression: str) -> None:
        self._names[element] = self._line(element[0].type.c, expression)

    def _line(self, type_: str, expression: str) -> str:
        name = f"t{len(self._lines)}"
        self._lines.append(f"{type_} const {name} = {expression};")
        return name

    def _place(self, bits: Bits) -> str:
        """The C expression of a number, by its bits."""
        if bits not in self._places:
            self._places[bits] = self._own_place(bits) or self._bit_by_bit(bits)
        return self._places[bits]

    def _own_place(self, bits: Bits) -> str:
        """The place of a lane of the pair, or that of the pair."""
        stage = self._stage
        if stage.exchanged is not None and not stage.pairs:
            lower, upper = self._own[: stage.exchanged], self._own[stage.exchanged :]
            halves = [(*lower, half, *upper) for half in (ZERO, ONE)]
        elif stage.pairs:
            halves = self._of_pair()
            if bits == tuple(bit for bit in halves[0] if not known(bit)):
                return "place"
        else:
            halves = []
        if bits in halves:
            return ("first", "(first + stride)")[halves.index(bits)]
        return "place" if not stage.pairs and bits == self._own else ""

    def _bit_by_bit(self, bits: Bits) -> str:
        """The C expression of a number. Runs of bits that are also neighbours in the lane's number move together."""
        lane = "first" if self._stage.pairs else "place"
        terms = []
        at = 0
        constant = sum(1 << place for place, bit in enumerate(bits) if bit == ONE)
        while at < len(bits):
            end = at + 1
            if not known(bits[at]):
                while end < len(bits) and bits[end] == bits[end - 1] + 1:
                    end += 1
                shift, mask = (self._parameters.number(each) for each in (bits[at], (1 << (end - at)) - 1))
                term = f"((int32_t){lane} >> {shift} & {mask})"
                terms.append(f"({term} << {self._parameters.number(at)})" if at else term)
            at = end
        if constant or not terms:
            # A single bit is the half of a pair, which every stage has.
            terms.append(self._parameters.number(constant) if len(bits) > 1 else str(constant))
        return f"({' + '.join(terms)})"
