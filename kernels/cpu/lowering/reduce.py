"""Reductions and scans with any combine region, over one axis of one or several tiles."""

from __future__ import annotations

import math

from kernels.cpu.ir_tree import Block, Operation
from kernels.cpu.lowering.emitter import Emitter, Lower

# Partial results that a reduction along neighbours keeps: four vectors of 512 bits of fp32 hide the latency of an add.
_LANES = 64


def _reduce(emitter: Emitter, operation: Operation) -> None:
    shape = operation.operands[0].type.dimensions
    axis = operation.axis
    outer, size, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    sources = [emitter.array_of(operand) for operand in operation.operands]
    emitter.flush()
    targets = []
    for result in operation.results:
        if result.type.is_tile:
            emitter.arrays[result] = emitter.new_array(result.type)
            targets.append(emitter.arrays[result] + "[{}]")
        else:
            targets.append(emitter.new_scalar(result))
    if inner == 1:
        _along_neighbours(emitter, operation, sources, targets, outer, size)
    else:
        _across_rows(emitter, operation, sources, targets, (outer, size, inner))
    emitter.done.add(operation)


def _along_neighbours(
    emitter: Emitter, operation: Operation, sources: list[str], targets: list[str], outer: int, size: int
) -> None:
    """Many partial results side by side, then halves onto halves."""
    lanes = min(size, _LANES)
    (block,) = operation.regions[0]
    with emitter.braces(f"for (int32_t o = 0; o < {outer}; ++o)"):
        partial = []
        for operand, source in zip(operation.operands, sources, strict=True):
            partial.append(emitter.name("p"))
            emitter.line(f"{operand.type.c} {partial[-1]}[{lanes}];")
            emitter.line(
                f"for (int32_t l = 0; l < {lanes}; ++l) {partial[-1]}[l] = {source}[o * {size} + l];"
            )
        own = [f"{name}[l]" for name in partial]
        if size > lanes:
            with emitter.braces(f"for (int32_t j = {lanes}; j < {size}; j += {lanes})"):
                emitter.line("#pragma omp simd")
                with emitter.braces(f"for (int32_t l = 0; l < {lanes}; ++l)"):
                    further = [f"{source}[o * {size} + j + l]" for source in sources]
                    combine(emitter, block, own, further, own)
        with emitter.braces(f"for (int32_t w = {lanes // 2}; w > 0; w /= 2)"):
            emitter.line("#pragma omp simd")
            with emitter.braces("for (int32_t l = 0; l < w; ++l)"):
                combine(emitter, block, own, [f"{name}[l + w]" for name in partial], own)
        for target, name in zip(targets, partial, strict=True):
            emitter.line(f"{target.format('o')} = {name}[0];")


def _across_rows(
    emitter: Emitter,
    operation: Operation,
    sources: list[str],
    targets: list[str],
    sizes: tuple[int, int, int],
) -> None:
    """Row onto row; neighbours are independent."""
    outer, size, inner = sizes
    (block,) = operation.regions[0]
    with emitter.braces(f"for (int32_t o = 0; o < {outer}; ++o)"):
        own = [target.format(f"o * {inner} + l") for target in targets]
        for target, source in zip(own, sources, strict=True):
            emitter.line(
                f"for (int32_t l = 0; l < {inner}; ++l) {target} = {source}[o * {size * inner} + l];"
            )
        with emitter.braces(f"for (int32_t j = 1; j < {size}; ++j)"):
            emitter.line("#pragma omp simd")
            with emitter.braces(f"for (int32_t l = 0; l < {inner}; ++l)"):
                further = [f"{source}[(o * {size} + j) * {inner} + l]" for source in sources]
                combine(emitter, block, own, further, own)


def _scan(emitter: Emitter, operation: Operation) -> None:
    shape = operation.operands[0].type.dimensions
    axis = operation.axis
    outer, size, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    (block,) = operation.regions[0]
    sources = [emitter.array_of(operand) for operand in operation.operands]
    emitter.flush()
    for result in operation.results:
        emitter.arrays[result] = emitter.new_array(result.type)
    targets = [emitter.arrays[result] for result in operation.results]
    backwards = operation.flag("reverse")
    start, step = (size - 1, -1) if backwards else (0, 1)
    with emitter.braces(f"for (int32_t o = 0; o < {outer}; ++o)"):
        for target, source in zip(targets, sources, strict=True):
            place = f"(o * {size} + {start}) * {inner} + l"
            emitter.line(f"for (int32_t l = 0; l < {inner}; ++l) {target}[{place}] = {source}[{place}];")
        with emitter.braces(f"for (int32_t n = 1; n < {size}; ++n)"):
            emitter.line(f"const int32_t j = {start} + n * {step};")
            emitter.line("#pragma omp simd")
            with emitter.braces(f"for (int32_t l = 0; l < {inner}; ++l)"):
                last = [f"{target}[(o * {size} + j - {step}) * {inner} + l]" for target in targets]
                new = [f"{source}[(o * {size} + j) * {inner} + l]" for source in sources]
                into = [f"{target}[(o * {size} + j) * {inner} + l]" for target in targets]
                combine(emitter, block, last, new, into)
    emitter.done.add(operation)


def combine(emitter: Emitter, block: Block, first: list[str], second: list[str], into: list[str]) -> None:
    """Emit a combine region on scalars: first and second are its arguments, results are assigned to `into`."""
    for argument, expression in zip(block.arguments, [*first, *second], strict=True):
        emitter.scalar(argument, expression)
    emitter.block(block)
    for target, value in zip(into, block.operations[-1].operands, strict=True):
        emitter.line(f"{target} = {emitter.scalars[value]};")


LOWERINGS: dict[str, Lower] = {"tt.reduce": _reduce, "tt.scan": _scan}
