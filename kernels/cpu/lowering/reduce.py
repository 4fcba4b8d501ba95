"""Reductions and scans with any combine region, over one axis of one or several tiles."""

from __future__ import annotations

import math

from fusetune.kernels.cpu.ir_tree import Block, Operation
from fusetune.kernels.cpu.lowering.commutative import is_commutative
from fusetune.kernels.cpu.lowering.emitter import Emitter, Lower

# Partial results of a reduction along neighbours: four vectors of 512 bits of fp32 hide the latency of an addition.
_LANES = 64
# Neighbours that are combined pairwise: few enough for the L1 cache.
_STRETCH = 256


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
    """Reduce many partial results at once, then halve them. Reduce neighbours pairwise where the order may matter."""
    (block,) = operation.regions[0]
    with emitter.braces(f"for (int32_t o = 0; o < {outer}; ++o)"):
        if is_commutative(block):
            partial = _halves_onto_halves(emitter, operation, sources, size)
        else:
            partial = _neighbours_onto_neighbours(emitter, operation, sources, size)
        for target, name in zip(targets, partial, strict=True):
            emitter.line(f"{target.format('o')} = {name}[0];")


def _halves_onto_halves(emitter: Emitter, operation: Operation, sources: list[str], size: int) -> list[str]:
    """Reduce one row into the first elements of arrays, and return these arrays."""
    lanes = min(size, _LANES)
    (block,) = operation.regions[0]
    partial = _partial(emitter, operation, lanes)
    own = [f"{name}[l]" for name in partial]
    for name, source in zip(partial, sources, strict=True):
        emitter.line(f"for (int32_t l = 0; l < {lanes}; ++l) {name}[l] = {source}[o * {size} + l];")
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
    return partial


def _neighbours_onto_neighbours(
    emitter: Emitter, operation: Operation, sources: list[str], size: int
) -> list[str]:
    """The same in order: pairwise reduction of neighbours within a stretch of the row, then of the stretches."""
    stretch = min(size, _STRETCH)
    (block,) = operation.regions[0]
    total, partial = _partial(emitter, operation, 1), _partial(emitter, operation, stretch)
    with emitter.braces(f"for (int32_t j = 0; j < {size}; j += {stretch})"):
        for name, source in zip(partial, sources, strict=True):
            emitter.line(f"for (int32_t l = 0; l < {stretch}; ++l) {name}[l] = {source}[o * {size} + j + l];")
        with emitter.braces(f"for (int32_t w = {stretch // 2}; w > 0; w /= 2)"):
            # Lanes write only elements that have already been read.
            emitter.line("#pragma omp simd")
            with emitter.braces("for (int32_t l = 0; l < w; ++l)"):
                left, right = ([f"{name}[2 * l + {side}]" for name in partial] for side in (0, 1))
                combine(emitter, block, left, right, [f"{name}[l]" for name in partial])
        done, next_ = ([f"{name}[0]" for name in names] for names in (total, partial))
        with emitter.braces("if (j == 0)"):
            for into, value in zip(done, next_, strict=True):
                emitter.line(f"{into} = {value};")
        with emitter.braces("else"):
            combine(emitter, block, done, next_, done)
    return total


def _partial(emitter: Emitter, operation: Operation, elements: int) -> list[str]:
    """Declare an array for each operand."""
    names = [emitter.name("p") for _ in operation.operands]
    for operand, name in zip(operation.operands, names, strict=True):
        emitter.line(f"{operand.type.c} {name}[{elements}];")
    return names


def _across_rows(
    emitter: Emitter,
    operation: Operation,
    sources: list[str],
    targets: list[str],
    sizes: tuple[int, int, int],
) -> None:
    """Reduce row onto row. The lanes of a row are independent."""
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
    """Emit a combine region on scalars: first and second are its arguments, and results are assigned to `into`."""
    for argument, expression in zip(block.arguments, [*first, *second], strict=True):
        emitter.scalar(argument, expression)
    emitter.block(block)
    for target, value in zip(into, block.operations[-1].operands, strict=True):
        emitter.line(f"{target} = {emitter.scalars[value]};")


LOWERINGS: dict[str, Lower] = {"tt.reduce": _reduce, "tt.scan": _scan}
