"""Distinguish accesses of scalars (addresses, sizes, a learning rate) from accesses of streams, in machine code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from fusetune.kernels.static.machine_code import Instruction


def scalar_accesses(instructions: tuple[Instruction, ...], ttgir: str, ptx: str) -> set[int]:
    """Return the ids of the loads and stores that access one scalar for the whole program.

    Their source lines identify them. ptxas gives a few of the instructions that it moves the line of a neighbour, so
    its input gives the number that there must be. A missing one is an access without a mask, narrower than the others
    of its line. Where there is none such, it is narrower than the kernel's widest.

    Args:
        instructions: the machine code.
        ttgir: Triton's last IR that distinguishes scalars from blocks.
        ptx: the input of ptxas, empty for AMD.
    """
    lines = _scalar_lines(ttgir)
    # Triton's scalars have at most 64 bits.
    scalar = [i for i in instructions if i.bits <= 64 and _place(i) in lines]
    missing = _scalars_in_ptx(ptx, lines)
    missing.subtract((i.kind, i.bits) for i in scalar)
    widest: dict[tuple[str, str, int], int] = {}
    for i in instructions:
        widest[_place(i)] = max(i.bits, widest.get(_place(i), 0))
    widest_of_all = max(widest.values(), default=0)
    ids = set(map(id, scalar))
    # Where two neighbours have swapped their lines, the scalar is the widest of its line, but not of the kernel.
    narrow: tuple[Callable[[Instruction], bool], ...] = (
        lambda i: i.bits < widest[_place(i)],
        lambda i: i.bits < widest_of_all,
    )
    for is_narrow in narrow:
        for i in instructions:
            if id(i) not in ids and not i.conditional and is_narrow(i) and missing[i.kind, i.bits] > 0:
                missing[i.kind, i.bits] -= 1
                ids.add(id(i))
    return ids


def _place(instruction: Instruction) -> tuple[str, str, int]:
    """Return the kind, file and line of an instruction."""
    return (instruction.kind, *instruction.source)


def _scalars_in_ptx(ptx: str, lines: set[tuple[str, str, int]]) -> Counter[tuple[str, int]]:
    """Count the loads and stores in PTX that come from lines that access scalars, by kind and bits."""
    counts: Counter[tuple[str, int]] = Counter()
    source = ("", 0)
    for line in ptx.splitlines():
        if found := re.match(r"\s*\.loc\s.*//\s*(\S+?):(\d+):\d+", line):
            source = (found[1], int(found[2]))
        elif found := re.search(r"\b(ld|st)\.global\.b(\d+)", line):
            kind = "load" if found[1] == "ld" else "store"
            if (kind, *source) in lines:
                counts[kind, int(found[2])] += 1
    return counts


def _scalar_lines(ttgir: str) -> set[tuple[str, str, int]]:
    """Return (kind, file, line) of the loads and stores that access scalars only."""
    locations = dict(re.findall(r"^(#loc\d*) = loc\((.*)\)$", ttgir, re.MULTILINE))
    accesses = re.findall(r"^\s*(.*?\b\w+\.\w*(load|store)\w*\b.*) loc\((.*)\)$", ttgir, re.MULTILINE)
    scalar: set[tuple[str, str, int]] = set()
    block: set[tuple[str, str, int]] = set()
    for operation, kind, location in accesses:
        (block if "tensor<" in operation else scalar).add((kind, *_source_of(location, locations)))
    return scalar - block


def _source_of(location: str, locations: dict[str, str]) -> tuple[str, int]:
    """Resolve MLIR's location aliases to the innermost file and line."""
    while not (found := re.match(r'"([^"]*)":(\d+):\d+', location)):
        alias = re.search(r"#loc\d*", location)
        if alias is None:
            return "", 0
        location = locations[alias.group()]
    return found[1].rpartition("/")[2], int(found[2])
