"""The place of a program in the grid, calls, and returns."""

from __future__ import annotations

import re

from fusetune.kernels.cpu.diagnostics import unsupported
from fusetune.kernels.cpu.ir_tree import Operation
from fusetune.kernels.cpu.lowering.emitter import Emitter, Lower

_REPEATING = {"scf.for", "scf.while", "cf.br", "cf.cond_br", "tt.dot", "tt.atomic_poll"}
# A parallel region costs 1 to 5 microseconds, and an elementwise kernel 1 microsecond per few thousand lanes.
_LANES_OF_A_REGION = 8192


def _program_id(emitter: Emitter, operation: Operation) -> None:
    emitter.scalar(operation.result, f"grid->place[{operation.axis}]")


def _program_count(emitter: Emitter, operation: Operation) -> None:
    emitter.scalar(operation.result, f"grid->size[{operation.axis}]")


def _call(emitter: Emitter, operation: Operation) -> None:
    """A function that was not inlined. Triton lets it take only scalars, and results are written through pointers."""
    emitter.before_effect()
    callee = operation.handle.get_flat_symbol_ref_attr("callee")
    arguments = [emitter.scalars[operand] for operand in operation.operands]
    for result in operation.results:
        if result.type.is_tile:
            emitter.arrays[result] = emitter.new_array(result.type)
            arguments.append(emitter.arrays[result])
        else:
            arguments.append(f"&{emitter.new_scalar(result)}")
    emitter.line(f"{function_name(callee)}({', '.join(['grid', 'scratch', *arguments])});")
    emitter.done.add(operation)


def _return(emitter: Emitter, operation: Operation) -> None:
    emitter.done.add(operation)
    for place, operand in enumerate(operation.operands):
        if operand.type.is_tile:
            size = operand.type.elements * operand.type.bytes
            emitter.line(f"memcpy(result{place}, {emitter.array_of(operand)}, {size});")
        else:
            emitter.line(f"*result{place} = {emitter.scalars[operand]};")
    emitter.flush()
    emitter.line("return;")


def _assume(emitter: Emitter, operation: Operation) -> None:
    """Emit nothing."""


def _barrier(emitter: Emitter, operation: Operation) -> None:
    """Emit nothing: a program runs on one thread, so earlier stores are visible to later accesses."""
    emitter.before_effect()


def _poison(emitter: Emitter, operation: Operation) -> None:
    if operation.result.type.is_tile:
        raise unsupported(operation, "a tile without a value")
    emitter.scalar(operation.result, f"({operation.result.type.c})0")


def function_name(symbol: str) -> str:
    """The C name of a function of the module. A character that C does not allow becomes its number.

    Example:
        >>> function_name("add.f32")
        'tt_add_2ef32'
    """
    return "tt_" + re.sub(r"\W", lambda found: f"_{ord(found[0]):x}", symbol)


def programs_worth_a_thread(functions: list[Operation]) -> int:
    """The fewest programs of a grid that are worth several threads, by the size of their largest tile.

    A kernel with a loop may do any amount of work, so two of its programs are enough.
    """
    operations = [
        operation for function in functions for block in function.regions[0] for operation in block.walk()
    ]
    if any(operation.name in _REPEATING for operation in operations):
        return 2
    lanes = max((result.type.elements for operation in operations for result in operation.results), default=1)
    return max(2, -(-_LANES_OF_A_REGION // lanes))


LOWERINGS: dict[str, Lower] = {
    "tt.get_program_id": _program_id,
    "tt.get_num_programs": _program_count,
    "tt.call": _call,
    "tt.return": _return,
    "tt.reduce.return": _assume,
    "tt.scan.return": _assume,
    "llvm.intr.assume": _assume,
    "gpu.barrier": _barrier,
    "ttg.barrier": _barrier,
    "ttg.local_barrier": _barrier,
    # These wait for an earlier launch that may still run. Here each launch ends before the next begins.
    "tt.grid_dependency_wait": _barrier,
    "tt.grid_dependency_launch_dependents": _assume,
    "ub.poison": _poison,
}
