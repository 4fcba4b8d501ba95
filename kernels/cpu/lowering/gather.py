"""Operations across lanes other than reductions: gather, histogram, concatenation, and unsplat."""

from __future__ import annotations

import math

from fusetune.kernels.cpu.ir_tree import Operation
from fusetune.kernels.cpu.ir_types import UNSIGNED
from fusetune.kernels.cpu.lowering.emitter import Emitter, Lower


def _gather(emitter: Emitter, operation: Operation) -> None:
    """Indices out of range are taken modulo the size, because on a GPU they give any value."""
    source, indices = operation.operands
    axis = operation.axis
    shape = source.type.dimensions
    inner, size = math.prod(shape[axis + 1 :]), shape[axis]
    taken = indices.type.dimensions[axis]
    values, places = emitter.array_of(source), emitter.array_of(indices)
    target = emitter.arrays[operation.result] = emitter.new_array(operation.result.type)
    with emitter.braces(f"for (int32_t l = 0; l < {indices.type.elements}; ++l)"):
        emitter.line(f"const uint64_t at = (uint64_t)({UNSIGNED[indices.type.c]}){places}[l] % {size};")
        emitter.line(f"{target}[l] = {values}[(l / {inner * taken} * {size} + at) * {inner} + l % {inner}];")
    emitter.done.add(operation)


def _histogram(emitter: Emitter, operation: Operation) -> None:
    source, *mask = operation.operands
    bins = operation.result.type
    values = emitter.array_of(source)
    masks = [emitter.array_of(operand) for operand in mask]
    target = emitter.arrays[operation.result] = emitter.new_array(bins)
    emitter.line(f"memset({target}, 0, {bins.elements * bins.bytes});")
    counted = f" && {masks[0]}[l]" if masks else ""
    with emitter.braces(f"for (int32_t l = 0; l < {source.type.elements}; ++l)"):
        emitter.line(f"const uint64_t at = ({UNSIGNED[source.type.c]}){values}[l];")
        emitter.line(f"if (at < {bins.elements}{counted}) {target}[at] += 1;")
    emitter.done.add(operation)


def _concatenate(emitter: Emitter, operation: Operation) -> None:
    first, second = operation.operands
    arrays = [emitter.array_of(operand) for operand in (first, second)]
    target = emitter.arrays[operation.result] = emitter.new_array(operation.result.type)
    half = first.type.elements
    emitter.line(f"memcpy({target}, {arrays[0]}, {half * first.type.bytes});")
    emitter.line(f"memcpy({target} + {half}, {arrays[1]}, {half * first.type.bytes});")
    emitter.done.add(operation)


def _unsplat(emitter: Emitter, operation: Operation) -> None:
    emitter.scalar(operation.result, f"{emitter.array_of(operation.operands[0])}[0]")
    emitter.done.add(operation)


LOWERINGS: dict[str, Lower] = {
    "tt.gather": _gather,
    "tt.histogram": _histogram,
    "tt.cat": _concatenate,
    "tt.unsplat": _unsplat,
}
