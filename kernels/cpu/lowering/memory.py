"""Loads and stores. Lanes whose mask is clear are never touched."""

from __future__ import annotations

from fusetune.kernels.cpu.ir_tree import Operation
from fusetune.kernels.cpu.lowering.emitter import Emitter, Lower


def _load(emitter: Emitter, operation: Operation) -> None:
    pointer = operation.operands[0]
    if operation.result.type.is_tile:
        _ = operation.result.type.c  # refuses types that have no counterpart
        emitter.load(operation)
        if operation.flag("isVolatile"):
            emitter.before_effect()  # it happens now, each time
        return
    emitter.before_access(operation)
    memory = f"*{emitter.scalars[pointer]}"
    if operation.flag("isVolatile"):
        memory = f"*(volatile {operation.result.type.c} *){emitter.scalars[pointer]}"
    conditions = [emitter.scalars[mask] for mask in operation.operands[1:2]]
    conditions += emitter.inside(operation, emitter.scalars[pointer])
    if conditions:
        other = emitter.scalars[operation.operands[2]] if len(operation.operands) > 2 else "0"
        memory = f"({' && '.join(conditions)} ? {memory} : {other})"
    emitter.scalar(operation.result, memory)
    emitter.done.add(operation)


def _store(emitter: Emitter, operation: Operation) -> None:
    if operation.operands[0].type.is_tile:
        emitter.store(operation)
        return
    emitter.before_effect()
    pointer, value, *mask = (emitter.scalars[operand] for operand in operation.operands)
    conditions = [*mask, *emitter.inside(operation, pointer)]
    condition = f"if ({' && '.join(conditions)}) " if conditions else ""
    differs = emitter.name("differs")
    if emitter.waits:
        emitter.line(f"const bool {differs} = {' && '.join([*conditions, f'*{pointer} != {value}'])};")
    emitter.line(f"{condition}*{pointer} = {value};")
    emitter.changed(differs)
    emitter.done.add(operation)


LOWERINGS: dict[str, Lower] = {"tt.load": _load, "tt.store": _store}
