"""Branches between the blocks of a function, which an early `return` leaves behind: labels and gotos.

A value that is defined in one block and used in a later one is kept in an array before the branch. Arguments of blocks
are variables and arrays that each branch assigns.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusetune.kernels.cpu.diagnostics import unsupported
from fusetune.kernels.cpu.ir_tree import Block, Operation, Value
from fusetune.kernels.cpu.lowering.control import assign, declare
from fusetune.kernels.cpu.lowering.emitter import Emitter, Lower


def emit_blocks(emitter: Emitter, blocks: Sequence[Block]) -> None:
    """Emit the blocks of a function, each behind its predecessors."""
    for block in blocks[1:]:
        emitter.labels[block] = emitter.name("block")
        for argument in block.arguments:
            declare(emitter, argument)
    for block in blocks:
        if block in emitter.labels:
            emitter.line(f"{emitter.labels.pop(block)}:;")
        with emitter.branch(own=block):
            emitter.block(block)


def _jump(emitter: Emitter, operation: Operation) -> None:
    _settle(emitter)
    _go(emitter, operation, operation.successors[0], operation.operands)


def _jump_if(emitter: Emitter, operation: Operation) -> None:
    _settle(emitter)
    condition, *handed_on = operation.operands
    first, second = operation.successors
    count = len(first.arguments)
    with emitter.braces(f"if ({emitter.scalars[condition]})"), emitter.branch():
        _go(emitter, operation, first, handed_on[:count])
    _go(emitter, operation, second, handed_on[count:])


def _settle(emitter: Emitter) -> None:
    """Emit the open loop nest, and keep in arrays the values that later blocks use."""
    emitter.before_effect()
    emitter.keep_for(list(emitter.labels))


def _go(emitter: Emitter, operation: Operation, block: Block, values: Sequence[Value]) -> None:
    if block not in emitter.labels:
        raise unsupported(operation, "a backward branch")
    assign(emitter, block.arguments, values, operation)
    emitter.line(f"goto {emitter.labels[block]};")


LOWERINGS: dict[str, Lower] = {"cf.br": _jump, "cf.cond_br": _jump_if}
