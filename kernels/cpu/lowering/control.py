"""Loops and branches. Loop-carried tiles live in arrays, but an induction variable stays an expression."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fusetune.kernels.cpu.diagnostics import unsupported
from fusetune.kernels.cpu.ir_tree import Block, Operation, Value
from fusetune.kernels.cpu.lowering import waiting
from fusetune.kernels.cpu.lowering.addresses import Carried
from fusetune.kernels.cpu.lowering.emitter import Emitter, Lower
from fusetune.kernels.cpu.lowering.shape import VIEWS

_UNSIGNED = re.compile(r"scf\.for unsigned |\bunsignedCmp\b")


def _for(emitter: Emitter, operation: Operation) -> None:
    (body,) = operation.regions[0]
    _before(emitter, operation)
    lower, upper, step, *first = operation.operands
    variable, *carried = body.arguments
    yielded = body.operations[-1].operands
    count = emitter.name("k")
    emitter.line(f"int64_t {count} = 0;")
    moved = {
        argument
        for argument, start, end in zip(carried, first, yielded, strict=True)
        if _declare_moved(emitter, argument, start, end, count, body)
    }
    kept = [argument for argument in carried if argument not in moved]
    starts = dict(zip(carried, first, strict=True))
    _begin(emitter, kept, [starts[argument] for argument in kept])
    c = variable.type.c
    unsigned = _UNSIGNED.search(operation.line) is not None
    low, high, by = (
        f"(int64_t)({'u' if unsigned else ''}{c}){emitter.scalars[value]}" for value in (lower, upper, step)
    )
    name = emitter.scalars[variable] = emitter.name("v")
    counter = emitter.name("j")
    with emitter.braces(f"for (int64_t {counter} = {low}; {counter} < {high}; {counter} += {by}, ++{count})"):
        emitter.line(f"const {c} {name} = ({c}){counter};")
        with emitter.branch():
            emitter.block(body)
            ends = dict(zip(carried, yielded, strict=True))
            assign(emitter, kept, [ends[argument] for argument in kept], body.operations[-1])
    for argument, result in zip(carried, operation.results, strict=True):
        if argument in moved:
            emitter.carried[result] = emitter.carried[argument]
            emitter.costs.declare_cheap(result)
        else:
            _alias(emitter, argument, result)
    emitter.done.add(operation)


def _if(emitter: Emitter, operation: Operation) -> None:
    _before(emitter, operation)
    for result in operation.results:
        declare(emitter, result)
    condition = emitter.scalars[operation.operands[0]]
    for head, blocks in zip((f"if ({condition})", "else"), operation.regions, strict=True):
        if blocks:
            with emitter.braces(head), emitter.branch():
                emitter.block(blocks[0])
                end = blocks[0].operations[-1]
                assign(emitter, operation.results, end.operands, end)
    emitter.done.add(operation)


def _while(emitter: Emitter, operation: Operation) -> None:
    (before,), (after,) = operation.regions
    _before(emitter, operation)
    _begin(emitter, before.arguments, operation.operands)
    for value in (*after.arguments, *operation.results):
        declare(emitter, value)
    condition, *handed_on = before.operations[-1].operands
    turns_wait = emitter.waits and waiting.waits(operation)
    with emitter.braces("for (;;)"):
        with emitter.branch():
            emitter.block(before)
            assign(emitter, after.arguments, handed_on, before.operations[-1])
            emitter.line(f"if (!{emitter.scalars[condition]}) break;")
        with emitter.branch():
            emitter.block(after)
            end = after.operations[-1]
            assign(emitter, before.arguments, end.operands, end)
            if turns_wait:
                waiting.emit_turn(emitter, operation)
    if turns_wait:
        emitter.line("wait_over(grid);")
    for argument, result in zip(after.arguments, operation.results, strict=True):
        _copy(emitter, argument, result)
    emitter.done.add(operation)


def _nothing(emitter: Emitter, operation: Operation) -> None:
    """Emit nothing, because the operation that holds a yield emits it."""


def _before(emitter: Emitter, operation: Operation) -> None:
    """Emit the open loop nest and pending loads. Keep the tiles that nested blocks use in arrays."""
    emitter.before_effect()
    blocks = [block for region in operation.regions for block in region]
    if any(len(region) > 1 for region in operation.regions):
        raise unsupported(operation, "a region of several blocks")
    emitter.keep_for(blocks)


def _declare_moved(
    emitter: Emitter, argument: Value, start: Value, end: Value, count: str, body: Block
) -> bool:
    """Recognise an induction variable: a tile that each iteration advances by the same step."""
    move = end.producer
    if not argument.type.is_tile or move is None or move.name not in ("arith.addi", "tt.addptr"):
        return False
    if argument.type.element == "i1":
        return False  # addition of single bits is no addition of integers
    operands = list(move.operands)
    if move.name == "arith.addi" and operands[1] is argument:
        operands.reverse()
    step = operands[1]
    if operands[0] is not argument or not _is_fixed(step, body):
        return False
    if not (emitter.costs.is_cheap(start) and emitter.costs.is_cheap(step)):
        return False
    emitter.carried[argument] = Carried(start, step, count)
    emitter.costs.declare_cheap(argument)
    return True


def _is_fixed(value: Value, body: Block) -> bool:
    """Return whether a value is loop-invariant: it is defined outside, or is a constant."""
    producer = value.producer
    if producer is None:
        return value not in body.arguments
    if producer.name == "arith.constant" or producer not in set(body.walk()):
        return True
    return producer.name in ("tt.splat", *VIEWS) and _is_fixed(producer.operands[0], body)


def _begin(emitter: Emitter, arguments: Sequence[Value], first: Sequence[Value]) -> None:
    """Declare loop-carried values, with their initial values."""
    for argument, value in zip(arguments, first, strict=True):
        if argument.type.is_tile:
            emitter.arrays[argument] = emitter.new_array(argument.type)
            emitter.fill({emitter.arrays[argument]: value})
        else:
            emitter.scalar(argument, emitter.scalars[value])


def declare(emitter: Emitter, value: Value) -> None:
    """Declare a variable or an array that is assigned later."""
    if value.type.is_tile:
        emitter.arrays[value] = emitter.new_array(value.type)
    else:
        emitter.new_scalar(value)


def assign(emitter: Emitter, targets: Sequence[Value], values: Sequence[Value], end: Operation) -> None:
    """Assign in parallel, because a value may be computed from another target."""
    emitter.done.add(end)
    changed = [(target, value) for target, value in zip(targets, values, strict=True) if target is not value]
    tiles = [(target, value) for target, value in changed if target.type.is_tile]
    scalars = [(target, value) for target, value in changed if not target.type.is_tile]
    shapes = {target.type.shape for target, _ in tiles}
    if len(shapes) == 1 and all(_reads_only_own_lane(emitter, value, targets) for _, value in tiles):
        stored = (operand for store in emitter.pending_stores for operand in store.operands)
        joining = all(_is_lanewise(emitter, operand, targets) for operand in stored)
        emitter.fill({emitter.arrays[target]: value for target, value in tiles}, joining)
        emitter.before_effect()
    else:
        emitter.before_effect()
        copies = {target: emitter.new_array(target.type) for target, _ in tiles}
        for target, value in tiles:
            emitter.fill({copies[target]: value})
        for target, copy in copies.items():
            _move(emitter, copy, target)
    names = [emitter.name("v") for _ in scalars]
    for name, (_, value) in zip(names, scalars, strict=True):
        emitter.line(f"{value.type.c} const {name} = {emitter.scalars[value]};")
    for name, (target, _) in zip(names, scalars, strict=True):
        emitter.line(f"{emitter.scalars[target]} = {name};")


def _reads_only_own_lane(emitter: Emitter, value: Value, targets: Sequence[Value]) -> bool:
    """Return whether a tile is computed elementwise, from the targets' elements at the same place only."""
    if value in targets:
        return False  # a bare copy may be read after its source was overwritten
    return _is_lanewise(emitter, value, targets)


def _is_lanewise(emitter: Emitter, value: Value, targets: Sequence[Value]) -> bool:
    if not value.type.is_tile or value in emitter.arrays or value.producer is None:
        return True
    producer = value.producer
    if producer.name in VIEWS or producer.name == "tt.join":
        return not any(_depends(emitter, operand, targets) for operand in producer.operands)
    return all(_is_lanewise(emitter, operand, targets) for operand in producer.operands)


def _depends(emitter: Emitter, value: Value, targets: Sequence[Value]) -> bool:
    if value in targets:
        return True
    if value in emitter.arrays or value.producer is None:
        return False
    return any(_depends(emitter, operand, targets) for operand in value.producer.operands)


def _alias(emitter: Emitter, argument: Value, result: Value) -> None:
    """Let the result have the name of the loop-carried value, whose last value it is."""
    names = emitter.arrays if argument.type.is_tile else emitter.scalars
    names[result] = names[argument]


def _copy(emitter: Emitter, source: Value, target: Value) -> None:
    if target.type.is_tile:
        _move(emitter, emitter.arrays[source], target)
    else:
        emitter.line(f"{emitter.scalars[target]} = {emitter.scalars[source]};")


def _move(emitter: Emitter, source: str, target: Value) -> None:
    size = target.type.elements * target.type.bytes
    emitter.line(f"memcpy({emitter.arrays[target]}, {source}, {size});")
    emitter.kept.moved(source, emitter.arrays[target])


LOWERINGS: dict[str, Lower] = {
    "scf.for": _for,
    "scf.if": _if,
    "scf.while": _while,
    "scf.yield": _nothing,
    "scf.condition": _nothing,
}
