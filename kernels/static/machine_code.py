"""Read a kernel's machine code: NVIDIA's SASS as `nvdisasm -c -g` prints it, AMD's assembly as LLVM does.

Both become a tuple of `Instruction` and from there a control-flow graph. The *path* of some instructions is every
basic block that holds one of them, and every block that dominates or post-dominates one. It runs whenever they run. It
leaves out the branches that a kernel keeps for other cases, such as a scalar one for misaligned tensors. A loop's body
counts once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["load", "store", "spill", "barrier", "branch", "call", "exit", "other"]

_SASS_LINE = re.compile(
    r"/\*[0-9a-f]{4,}\*/\s+(?:@(?P<guard>!?U?P[0-9T]+)\s+)?(?P<op>[A-Z][A-Z0-9_.]*)(?P<rest>.*)"
)
_SASS_SOURCE = re.compile(r'//## File "(?P<file>.*?)", line (?P<line>\d+)')
_SASS_LABEL = re.compile(r"(\.L_x_\d+):")
_SASS_TARGET = re.compile(r"\.L_x_\d+")
_SASS_ACCESS = re.compile(r"\.(?P<bits>U?8|S8|U?16|S16|64|128|256)\b")
_SASS_KINDS: dict[str, Kind] = {
    "LDG": "load",
    "STG": "store",
    "LDL": "spill",
    "STL": "spill",
    "BAR": "barrier",
    "BRA": "branch",
    "BRX": "branch",
    "CALL": "call",
    "EXIT": "exit",
    "RET": "exit",
}

_GCN_SOURCE = re.compile(r"\.loc\s+\d+\s+(?P<line>\d+)\s+\d+.*;\s*(?P<file>\S+?):\d+:\d+")
_GCN_LABEL = re.compile(r"(\.LBB\w+):")
_GCN_ACCESS = re.compile(
    r"(?P<space>global|buffer|flat|scratch)_(?P<kind>load|store)_"
    r"[su]?(?P<width>byte|short|dword(?:x[234])?)"
)
_GCN_BITS = {"byte": 8, "short": 16, "dword": 32, "dwordx2": 64, "dwordx3": 96, "dwordx4": 128}


@dataclass(frozen=True)
class Instruction:
    """One machine instruction.

    Args:
        opcode: as the disassembler prints it, e.g. `LDG.E.128`.
        kind: class of the instruction. Load and store are of global memory.
        bits: width of a load or store per thread, 0 for the rest.
        source: (base name of the file, line) it was compiled from, the innermost for inlined functions.
        conditional: it may be skipped, because it is predicated or a conditional branch.
        labels: the labels before it.
        target: the label that a branch goes to.
    """

    opcode: str
    kind: Kind
    bits: int = 0
    source: tuple[str, int] = ("", 0)
    conditional: bool = False
    labels: tuple[str, ...] = ()
    target: str = ""


def parse_sass(text: str) -> tuple[Instruction, ...]:
    """Return the instructions of the only function in `text`, the output of `nvdisasm -c -g`."""
    instructions: list[Instruction] = []
    labels: list[str] = []
    source = ("", 0)
    for line in text.splitlines():
        if found := _SASS_SOURCE.search(line):
            source = (_base_name(found["file"]), int(found["line"]))
        elif found := _SASS_LABEL.match(line):
            labels.append(found[1])
        elif found := _SASS_LINE.search(line):
            instructions.append(_sass_instruction(found, source, tuple(labels)))
            labels = []
    return tuple(_without_padding(instructions))


def with_one_line_per_asm(ptx: str) -> str:
    """Give every line of a block of inline assembly the source line of the block's first.

    Triton writes masked loads and stores as such blocks. LLVM as of Triton 3.8 numbers the lines of a block as if the
    Python source had one line for each. Machine code then names unrelated lines.

    Example:
        >>> print(with_one_line_per_asm(
        ...     "// begin inline asm\\n.loc 1 70 9\\nmov;\\n.loc 1 71 9\\nld;\\n// end inline asm\\n.loc 1 75 5"
        ... ))
        // begin inline asm
        .loc 1 70 9
        mov;
        .loc 1 70 9
        ld;
        // end inline asm
        .loc 1 75 5
    """
    lines = []
    first: str | None = None
    inside = False
    for line in ptx.split("\n"):
        if "// begin inline asm" in line or "// end inline asm" in line:
            inside, first = "begin" in line, None
        elif inside and re.match(r"\s*\.loc\s", line):
            first = first or line
            line = first
        lines.append(line)
    return "\n".join(lines)


def parse_gcn(text: str) -> tuple[Instruction, ...]:
    """Return the instructions of the only function in `text`, LLVM's assembly for AMD's GPUs."""
    instructions: list[Instruction] = []
    labels: list[str] = []
    source = ("", 0)
    body = text.partition(".Lfunc_begin0:")[2].partition("\t.section\t.rodata")[0]
    for line in body.splitlines():
        if found := _GCN_SOURCE.search(line):
            source = (_base_name(found["file"]), int(found["line"]))
        elif found := _GCN_LABEL.match(line):
            labels.append(found[1])
        elif re.match(r"\t[a-z]", line):
            instructions.append(_gcn_instruction(line.partition(";")[0], source, tuple(labels)))
            labels = []
    return tuple(instructions)


def path_through(
    instructions: tuple[Instruction, ...], wanted: Callable[[Instruction], bool]
) -> tuple[Instruction, ...]:
    """Return the instructions that run whenever those for which `wanted` holds do, and those of their own blocks.

    Args:
        instructions: one function, in order.
        wanted: picks the instructions whose path it is.
    """
    blocks = _basic_blocks(instructions)
    successors = _successors(blocks)
    chosen = {i for i, block in enumerate(blocks) if any(map(wanted, block))}
    dominators = _dominators(successors, entries=[0])
    exits = [i for i, follow in enumerate(successors) if not follow or _may_exit(blocks[i])]
    post_dominators = _dominators(_reversed(successors), entries=exits)
    path = set(chosen)
    for block in chosen:
        path |= dominators[block] | post_dominators[block]
    return tuple(instruction for i in sorted(path) for instruction in blocks[i])


def backward_branches(path: tuple[Instruction, ...]) -> int:
    """Return the branches that go to an earlier instruction of the path: one or more for each loop.

    Example:
        >>> backward_branches((Instruction("MOV", "other", labels=("a",)), Instruction("BRA", "branch", target="a")))
        1
    """
    seen: set[str] = set()
    count = 0
    for instruction in path:
        seen.update(instruction.labels)
        count += instruction.kind == "branch" and instruction.target in seen
    return count


def _sass_instruction(found: re.Match[str], source: tuple[str, int], labels: tuple[str, ...]) -> Instruction:
    """Classify one line of SASS."""
    opcode, rest = found["op"], found["rest"]
    stem, _, modifiers = opcode.partition(".")
    kind = _SASS_KINDS.get(stem, "other")
    bits = 0
    if kind in ("load", "store"):
        width = _SASS_ACCESS.search("." + modifiers)
        bits = int(width["bits"].lstrip("US")) if width else 32
    target = _SASS_TARGET.search(rest) if kind == "branch" else None
    # `BRA P0, label` carries its condition as an operand, `@P0 BRA label` as a guard.
    operand = kind in ("branch", "exit") and re.match(r"\s*!?U?P[0-9]", rest) is not None
    guarded = found["guard"] is not None and found["guard"] not in ("PT", "UPT")
    return Instruction(
        opcode, kind, bits, source, guarded or operand, labels, target.group() if target else ""
    )


def _without_padding(instructions: list[Instruction]) -> list[Instruction]:
    """Drop the padding of the last cache line, which never runs: a branch to itself, then NOPs."""
    end = len(instructions)
    while end and instructions[end - 1].opcode == "NOP":
        end -= 1
    last = instructions[end - 1] if end else None
    if last and last.kind == "branch" and not last.conditional and last.target in last.labels:
        end -= 1
    return instructions[:end]


def _gcn_instruction(line: str, source: tuple[str, int], labels: tuple[str, ...]) -> Instruction:
    """Classify one line of AMD assembly."""
    opcode, _, rest = line.strip().partition(" ")
    if found := _GCN_ACCESS.match(opcode):
        kind: Kind = "spill" if found["space"] == "scratch" else "load"
        if kind != "spill" and found["kind"] == "store":
            kind = "store"
        return Instruction(opcode, kind, _GCN_BITS[found["width"]], source, labels=labels)
    if opcode.startswith(("s_cbranch", "s_branch")):
        return Instruction(
            opcode, "branch", 0, source, opcode.startswith("s_cbranch"), labels, rest.strip().split()[0]
        )
    kinds: dict[str, Kind] = {"s_barrier": "barrier", "s_endpgm": "exit", "s_swappc_b64": "call"}
    return Instruction(opcode, kinds.get(opcode, "other"), 0, source, labels=labels)


def _basic_blocks(instructions: tuple[Instruction, ...]) -> list[list[Instruction]]:
    """Split the code before every label and after every branch and exit."""
    blocks: list[list[Instruction]] = [[]]
    for instruction in instructions:
        if instruction.labels and blocks[-1]:
            blocks.append([])
        blocks[-1].append(instruction)
        if instruction.kind in ("branch", "exit"):
            blocks.append([])
    return [block for block in blocks if block]


def _successors(blocks: list[list[Instruction]]) -> list[list[int]]:
    """Return, for every block, the blocks that can follow it."""
    at = {label: i for i, block in enumerate(blocks) for label in block[0].labels}
    successors: list[list[int]] = []
    for i, block in enumerate(blocks):
        last = block[-1]
        follow = [at[last.target]] if last.kind == "branch" and last.target in at else []
        falls_through = last.kind not in ("branch", "exit") or last.conditional
        if falls_through and i + 1 < len(blocks):
            follow.append(i + 1)
        successors.append(follow)
    return successors


def _may_exit(block: list[Instruction]) -> bool:
    return block[-1].kind == "exit"


def _reversed(successors: list[list[int]]) -> list[list[int]]:
    """Reverse every edge of a graph."""
    edges: list[list[int]] = [[] for _ in successors]
    for start, follow in enumerate(successors):
        for end in follow:
            edges[end].append(start)
    return edges


def _dominators(successors: list[list[int]], entries: Iterable[int]) -> list[set[int]]:
    """Return the dominators of every block: those on all paths to it from the entries. Unreachable: only itself."""
    count = len(successors)
    predecessors = _reversed(successors)
    starts = set(entries)
    reachable = set(starts)
    queue = list(starts)
    while queue:
        fresh = set(successors[queue.pop()]) - reachable
        reachable |= fresh
        queue.extend(fresh)
    dominators = [set(reachable) if i in reachable - starts else {i} for i in range(count)]
    changed = True
    while changed:
        changed = False
        for i in reachable - starts:
            ways = [dominators[j] for j in predecessors[i] if j in reachable]
            new = {i} | set.intersection(*ways)
            changed |= new != dominators[i]
            dominators[i] = new
    return dominators


def _base_name(path: str) -> str:
    return path.rpartition("/")[2]
