"""The table of all elementwise operations."""

from __future__ import annotations

from collections.abc import Sequence

from fusetune.kernels.cpu.ir_tree import Operation, Value
from fusetune.kernels.cpu.lowering import arith, casts, math
from fusetune.kernels.cpu.lowering.addresses import DIVISIONS
from fusetune.kernels.cpu.lowering.rule import Rule


def _moved_pointer(operation: Operation, args: Sequence[str]) -> str:
    return f"({args[0]} + (int64_t){args[1]})"


RULES: dict[str, Rule] = {**arith.RULES, **casts.RULES, **math.RULES, "tt.addptr": _moved_pointer}

# Operations that are cheaper to compute again than to keep in memory.
CHEAP = {
    "arith.constant",
    "arith.addi",
    "arith.subi",
    "arith.muli",
    "arith.andi",
    "arith.ori",
    "arith.xori",
    "arith.cmpi",
    "arith.select",
    "arith.extsi",
    "arith.extui",
    "arith.trunci",
    "arith.sitofp",
    "arith.uitofp",
    "tt.addptr",
    "tt.make_range",
    "tt.splat",
    "tt.expand_dims",
    "tt.broadcast",
    "tt.trans",
    "tt.reshape",
    *DIVISIONS,
}
# A loop that computes quotients itself can be strip-mined into runs of lanes that share one (see `runs`). A loop that
# loads them from memory cannot.
_OPERATIONS_OF_A_DIVISION = 6
_MOST_OPERATIONS = 24


class Costs:
    """The values that are cheap to compute again: few integer operations on ranges and scalars."""

    def __init__(self) -> None:
        self._costs: dict[Value, int] = {}

    def declare_cheap(self, value: Value) -> None:
        """Declare a value without a producer to be cheap."""
        self._costs[value] = 1

    def is_cheap(self, value: Value) -> bool:
        return self._cost(value) <= _MOST_OPERATIONS

    def _cost(self, value: Value) -> int:
        """The number of operations of the whole expression, above the limit where one is expensive."""
        if value not in self._costs:
            self._costs[value] = self._count(value)
        return self._costs[value]

    def _count(self, value: Value) -> int:
        if not value.type.is_tile:
            return 0
        producer = value.producer
        if producer is None or producer.name not in CHEAP:
            return _MOST_OPERATIONS + 1
        own = _OPERATIONS_OF_A_DIVISION if producer.name in DIVISIONS else 1
        return min(_MOST_OPERATIONS + 1, own + sum(self._cost(operand) for operand in producer.operands))
