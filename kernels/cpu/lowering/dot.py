"""tl.dot: a matrix product of two tiles, added to a third, with products in at least fp32 (fp64, or i32 of i8).

The tiles are in the L1 cache. A register block of results, a few rows by a few vectors, stays in registers for the
whole depth of the product.
"""

from __future__ import annotations

import itertools
import math

from fusetune.kernels.cpu.diagnostics import unsupported
from fusetune.kernels.cpu.ir_tree import Operation, Value
from fusetune.kernels.cpu.ir_types import SHORT_FLOATS, Type
from fusetune.kernels.cpu.lowering.emitter import Emitter, Lower
from fusetune.kernels.cpu.lowering.rule import narrowed, widened
from fusetune.kernels.cpu.toolchain import cpu_features

# A register block: 8 vectors of results, 2 of the second tile and one element of the first are 11 of 16 registers.
_ROWS, _VECTORS = 4, 2


def _dot(emitter: Emitter, operation: Operation) -> None:
    first, second, _ = operation.operands
    if len(first.type.dimensions) > 3:
        raise unsupported(operation, "a batch of more than one dimension")
    target = _held(operation.result.type)
    a, b, c = (_working_copy(emitter, operand) for operand in operation.operands)
    result = emitter.new_array(target)
    _multiply(emitter, (a, _held(first.type)), (b, _held(second.type)), c, (result, target))
    if target == operation.result.type:
        emitter.arrays[operation.result] = result
    else:
        emitter.arrays[operation.result] = emitter.new_array(operation.result.type)
        rounded = narrowed(f"{result}[l]", operation.result.type.element)
        _for_each(emitter, target, f"{emitter.arrays[operation.result]}[l] = {rounded};")
    emitter.done.add(operation)


def _multiply(
    emitter: Emitter, a: tuple[str, Type], b: tuple[str, Type], start: str, result: tuple[str, Type]
) -> None:
    """Emit result = a b + start, one register block after another."""
    *batch, rows, depth = a[1].dimensions
    columns = result[1].dimensions[-1]
    lanes = min(columns, _vector_bytes() // result[1].bytes)
    height, across = min(_ROWS, rows), min(_VECTORS, columns // lanes)
    sums, factors = (_vector_type(emitter, type_, lanes) for type_ in (result[1], b[1]))
    block = list(itertools.product(range(height), range(across)))
    with (
        emitter.braces(f"for (int32_t g = 0; g < {math.prod(batch)}; ++g)"),
        emitter.braces(f"for (int32_t m = 0; m < {rows}; m += {height})"),
        emitter.braces(f"for (int32_t n = 0; n < {columns}; n += {across * lanes})"),
    ):
        place = f"(g * {rows} + m) * {columns} + n"
        for r, v in block:
            emitter.line(f"{sums} s{r}_{v} = *({sums} *)({start} + {place} + {r * columns + v * lanes});")
        with emitter.braces(f"for (int32_t k = 0; k < {depth}; ++k)"):
            for v in range(across):
                loaded = f"*({factors} *)({b[0]} + (g * {depth} + k) * {columns} + n + {v * lanes})"
                emitter.line(f"const {sums} y{v} = __builtin_convertvector({loaded}, {sums});")
            for r in range(height):
                emitter.line(f"const {result[1].c} x{r} = {a[0]}[(g * {rows} + m + {r}) * {depth} + k];")
            for r, v in block:
                emitter.line(f"s{r}_{v} += x{r} * y{v};")
        for r, v in block:
            emitter.line(f"*({sums} *)({result[0]} + {place} + {r * columns + v * lanes}) = s{r}_{v};")


def _vector_type(emitter: Emitter, type_: Type, lanes: int) -> str:
    """Declare a C vector type with its element's alignment."""
    name = emitter.name("vector")
    attributes = f"vector_size({lanes * type_.bytes}), aligned({type_.bytes}), may_alias"
    emitter.line(f"typedef {type_.c} {name} __attribute__(({attributes}));")
    return name


def _vector_bytes() -> int:
    features = cpu_features().split()
    return 64 if "avx512f" in features else 32 if "avx" in features else 16


def _held(type_: Type) -> Type:
    """The type in which a tile's products are computed."""
    return Type("f32", type_.shape) if type_.element in SHORT_FLOATS else type_


def _working_copy(emitter: Emitter, value: Value) -> str:
    """The array of a tile. For fp16 and bf16 it is a copy in fp32."""
    array = emitter.array_of(value)
    held = _held(value.type)
    if held == value.type:
        return array
    copy = emitter.new_array(held)
    _for_each(emitter, held, f"{copy}[l] = {widened(f'{array}[l]', value.type.element)};")
    return copy


def _for_each(emitter: Emitter, type_: Type, line: str) -> None:
    """Emit a line for every element `l` of a tile."""
    emitter.line("#pragma omp simd")
    with emitter.braces(f"for (int32_t l = 0; l < {type_.elements}; ++l)"):
        emitter.line(line)


LOWERINGS: dict[str, Lower] = {"tt.dot": _dot}
