"""tl.dot: a matrix product of two tiles, added to a third; products in fp32 (fp64, or i32 of i8), never less."""

from __future__ import annotations

from kernels.cpu.diagnostics import unsupported
from kernels.cpu.ir_tree import Operation, Value
from kernels.cpu.ir_types import SHORT_FLOATS, Type
from kernels.cpu.lowering.emitter import Emitter, Lower
from kernels.cpu.lowering.rule import narrowed, widened

# Rows of the result that share each row of the second tile while it is in registers.
_ROWS = 4


def _dot(emitter: Emitter, operation: Operation) -> None:
    first, second, start = operation.operands
    *batch, rows, depth = first.type.dimensions
    columns = second.type.dimensions[-1]
    if len(batch) > 1:
        raise unsupported(operation, "a batch of more than one dimension")
    target = operation.result.type
    a, b = (_working_copy(emitter, operand) for operand in (first, second))
    accumulators = _working_copy(emitter, start)
    result = emitter.new_array(target if target.element not in SHORT_FLOATS else Type("f32", target.shape))
    wide = "float" if target.element in SHORT_FLOATS else target.c
    block = min(_ROWS, rows)
    with (
        emitter.braces(f"for (int32_t g = 0; g < {batch[0] if batch else 1}; ++g)"),
        emitter.braces(f"for (int32_t m = 0; m < {rows}; m += {block})"),
    ):
        emitter.line(f"{wide} *restrict row = {result} + (g * {rows} + m) * {columns};")
        emitter.line(
            f"memcpy(row, {accumulators} + (g * {rows} + m) * {columns}, {block} * {columns} * sizeof *row);"
        )
        with emitter.braces(f"for (int32_t k = 0; k < {depth}; ++k)"):
            emitter.line(f"const {_c(second)} *other = {b} + (g * {depth} + k) * {columns};")
            for r in range(block):
                emitter.line(f"const {wide} x{r} = {a}[(g * {rows} + m + {r}) * {depth} + k];")
            emitter.line("#pragma omp simd")
            with emitter.braces(f"for (int32_t n = 0; n < {columns}; ++n)"):
                for r in range(block):
                    emitter.line(f"row[{r * columns} + n] += x{r} * other[n];")
    if target.element in SHORT_FLOATS:
        emitter.arrays[operation.result] = emitter.new_array(target)
        into = emitter.arrays[operation.result]
        emitter.line("#pragma omp simd")
        with emitter.braces(f"for (int32_t l = 0; l < {target.elements}; ++l)"):
            emitter.line(f"{into}[l] = {narrowed(f'{result}[l]', target.element)};")
    else:
        emitter.arrays[operation.result] = result
    emitter.done.add(operation)


def _c(value: Value) -> str:
    return "float" if value.type.element in SHORT_FLOATS else value.type.c


def _working_copy(emitter: Emitter, value: Value) -> str:
    """A tile's array; of fp16 and bf16 a copy in fp32."""
    array = emitter.array_of(value)
    if value.type.element not in SHORT_FLOATS:
        return array
    copy = emitter.new_array(Type("f32", value.type.shape))
    emitter.line("#pragma omp simd")
    with emitter.braces(f"for (int32_t l = 0; l < {value.type.elements}; ++l)"):
        emitter.line(f"{copy}[l] = {widened(f'{array}[l]', value.type.element)};")
    return copy


LOWERINGS: dict[str, Lower] = {"tt.dot": _dot}
