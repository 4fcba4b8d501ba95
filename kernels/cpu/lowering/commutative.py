"""Commutativity: which combine regions of reductions may take their operands in any order."""

from __future__ import annotations

import itertools

from fusetune.kernels.cpu.ir_tree import Block, Value

_OF_TWO = {
    f"arith.{name}"
    for name in (
        "addf", "addi", "mulf", "muli", "andi", "ori", "xori", "maximumf", "maxnumf", "maxsi", "maxui",
        "minimumf", "minnumf", "minsi", "minui",
    )
}  # fmt: skip
_MOST_PAIRS = 4
# The result of a comparison where the first operand is less, equal, greater. NaN is left aside: with NaN among the
# operands, a choice by comparisons depends on their order anyway.
_SAYS = {"eq": (0, 1, 0), "ne": (1, 0, 1), "lt": (1, 0, 0), "le": (1, 1, 0), "gt": (0, 0, 1), "ge": (0, 1, 1)}


def is_commutative(block: Block) -> bool:
    """Return whether a region is known to be commutative, NaN and rounding aside.

    Args:
        block: its arguments are the parts of the first operand, then those of the second. It returns as many parts.
    """
    return _combines_part_by_part(block) or _chooses_alike(block)


def _combines_part_by_part(block: Block) -> bool:
    """Return whether each part of the result is a commutative operation on the same part of both operands."""
    half = len(block.arguments) // 2
    for place, value in enumerate(block.operations[-1].operands):
        operands = {block.arguments[place], block.arguments[place + half]}
        producer = value.producer
        if producer is None or producer.name not in _OF_TWO or set(producer.operands) != operands:
            return False
    return True


def _chooses_alike(block: Block) -> bool:
    """Return whether the result is one of the operands, as of argmax, and comparisons choose it in either order."""
    half = len(block.arguments) // 2
    if half > _MOST_PAIRS:
        return False
    for relations in itertools.product((0, 1, 2), repeat=half):
        kept = _takes_first(block, relations)
        exchanged = _takes_first(block, tuple(2 - relation for relation in relations))
        all_equal = set(relations) == {1}
        if kept is None or exchanged is None or (kept == exchanged and not all_equal):
            return False
    return True


def _takes_first(block: Block, relations: tuple[int, ...]) -> bool | None:
    """Return whether the first operand is chosen. None: the region is not only a choice by comparisons.

    Args:
        relations: of each part of the first operand to that of the second: 0 less, 1 equal, 2 greater.
    """
    half = len(relations)
    places = {argument: place for place, argument in enumerate(block.arguments)}
    known: dict[Value, bool] = {}
    chosen: dict[Value, int] = {}  # of the arguments
    for operation in block.operations[:-1]:
        operands = operation.operands
        if operation.name in ("arith.cmpf", "arith.cmpi"):
            first, second = (places.get(operand, -1) for operand in operands)
            says = _SAYS.get(operation.predicate[-2:])
            if says is None or min(first, second) < 0 or abs(first - second) != half:
                return None
            relation = relations[min(first, second)]
            known[operation.result] = bool(says[relation if first < second else 2 - relation])
        elif operation.name in ("arith.andi", "arith.ori") and all(operand in known for operand in operands):
            of = all if operation.name == "arith.andi" else any
            known[operation.result] = of(known[operand] for operand in operands)
        elif operation.name == "arith.select" and operands[0] in known:
            taken = operands[1 if known[operands[0]] else 2]
            if taken not in places:
                return None
            chosen[operation.result] = places[taken]
        else:
            return None
    taken_from = {chosen.get(value, -1) - place for place, value in enumerate(block.operations[-1].operands)}
    return {frozenset({0}): True, frozenset({half}): False}.get(frozenset(taken_from))
