"""Compile kernels for GPUs that are not there, and derive limits of their speed from the machine code.

Triton ships every tool for this: ptxas, nvdisasm and LLVM. Registers, spills, barriers and the width of each memory
access decide whether a memory-bound kernel can reach the memory's bandwidth. A test holds them to committed
values. `python -m fusetune.kernels.static` prints them for every shipped kernel.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal, NoReturn, TextIO, cast

import triton
from rich.console import Console
from rich.table import Table

from fusetune.errors import InvalidTypeError, InvalidValueError
from fusetune.kernels.catalog import KERNELS
from fusetune.kernels.kernel import StaticCase
from fusetune.kernels.static.gpu_targets import TARGETS, gpu_target, occupancy
from fusetune.kernels.static.machine_code import (
    Instruction,
    backward_branches,
    parse_gcn,
    parse_sass,
    path_through,
    with_one_line_per_asm,
)
from fusetune.kernels.static.scalar_accesses import scalar_accesses
from fusetune.kernels.triton_inside import ASTSource, GPUTarget, JITFunction, fuses_our_kernels, knobs

_TABLE_WIDTH = 100  # where there is no terminal to ask


@dataclass(frozen=True)
class Access:
    """Loads or stores of global memory with the same width and source line.

    Args:
        kind: load or store.
        bits: width of each access, per thread.
        count: the number of these instructions.
        line: `file:line` of the `tl.load` or `tl.store`, innermost for inlined functions.
        stream: every element of a block is accessed. False for a scalar that the whole program shares.
        on_path: they run on the vector path.
    """

    kind: Literal["load", "store"]
    bits: int
    count: int
    line: str
    stream: bool
    on_path: bool


@dataclass(frozen=True)
class StaticReport:
    """The static analysis of one case for one target.

    The *vector path* is every basic block with a stream's widest accesses, and every block that runs whenever one of
    those does. It leaves out the branches for misaligned or short tensors, which few programs take.

    Args:
        case: name of the case.
        target: e.g. `sm_90`.
        registers: per thread (VGPRs and AGPRs on AMD).
        spills: loads and stores of local memory, or spilled registers on AMD.
        shared_bytes: shared memory of a program.
        barriers: barrier instructions.
        branches: branch instructions.
        calls: calls of functions that were not inlined.
        instructions: all instructions.
        accesses: every access of global memory.
        instructions_per_element: instructions of the vector path over the elements of a thread.
        occupancy: resident warps over those that the hardware can hold, 0 to 1.
        bytes_in_flight: bytes that a thread loads from streams on the vector path.
        loops: branches on the vector path that go back. Above 0, its instructions run more than once.
    """

    case: str
    target: str
    registers: int
    spills: int
    shared_bytes: int
    barriers: int
    branches: int
    calls: int
    instructions: int
    accesses: tuple[Access, ...]
    instructions_per_element: float
    occupancy: float
    bytes_in_flight: int
    loops: int = 0

    @property
    def narrowest_stream_bytes(self) -> int:
        """Width in bytes of the narrowest access of a stream on the vector path."""
        return min((a.bits for a in self.accesses if a.stream and a.on_path), default=0) // 8

    def stream_widths(self, kind: Literal["load", "store"]) -> str:
        """Return the accesses of streams on the vector path as count x bits, e.g. `8x128`."""
        counts: dict[int, int] = {}
        for access in self.accesses:
            if access.kind == kind and access.stream and access.on_path:
                counts[access.bits] = counts.get(access.bits, 0) + access.count
        return " ".join(f"{count}x{bits}" for bits, count in sorted(counts.items(), reverse=True))


def analyse(case: StaticCase, target: str) -> StaticReport:
    """Compile `case` for `target` and analyse its machine code. No GPU is needed.

    Args:
        case: what to compile.
        target: one of `TARGETS`.

    Raises:
        ValueError: an unknown target, or the compiler printed something. It reports some errors on stderr and then
            returns code that does nothing.
        TypeError: the kernel is interpreted (TRITON_INTERPRET was set when it was imported).

    Example:
        >>> from fusetune.kernels.launch import LaunchConfig
        >>> analyse(StaticCase("x", None, {}, {}, LaunchConfig(1024, 4), 1024), "sm_90")
        Traceback (most recent call last):
        ...
        fusetune.errors.InvalidTypeError: x: nothing to compile; NoneType is not a JITFunction. Unset TRITON_INTERPRET.
    """
    gpu = gpu_target(target)
    if not isinstance(case.jit, JITFunction):
        raise InvalidTypeError(
            case.name,
            "nothing to compile",
            f"{type(case.jit).__name__} is not a JITFunction",
            "Unset TRITON_INTERPRET.",
        )
    compiled = _compile(case, gpu)
    if target.startswith("sm_"):
        instructions = parse_sass(_disassemble(compiled.asm["cubin"]))
        registers, spills = _sass_registers(compiled.asm["cubin"], instructions)
    else:
        instructions = parse_gcn(compiled.asm["amdgcn"])
        registers, spills = _gcn_registers(compiled.asm["amdgcn"])
    return _report(case, target, compiled, instructions, registers, spills)


def shipped_cases() -> list[StaticCase]:
    """Return the static cases of every kernel in `kernels.KERNELS`, each once."""
    cases = {case.name: case for kernel in KERNELS.values() for case in kernel.static_cases}
    return list(cases.values())


def to_table(reports: Sequence[StaticReport]) -> Table:
    """Lay out reports, one a line. Loads and stores are those of streams on the vector path, as count x bits."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("case", no_wrap=True)
    table.add_column("target", no_wrap=True)
    for heading in ("ins/el", "regs", "spill", "smem", "bar/bra/call", "loads", "stores", "occ", "B/thr"):
        table.add_column(heading, justify="right", no_wrap=True)
    for r in reports:
        table.add_row(
            r.case,
            r.target,
            f"{r.instructions_per_element:.1f}",
            str(r.registers),
            str(r.spills),
            str(r.shared_bytes),
            f"{r.barriers}/{r.branches}/{r.calls}",
            r.stream_widths("load"),
            r.stream_widths("store"),
            f"{r.occupancy:.2f}",
            str(r.bytes_in_flight),
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the static analysis of every shipped kernel."""
    parser = argparse.ArgumentParser(prog="python -m fusetune.kernels.static", description=main.__doc__)
    parser.add_argument(
        "--target", action="append", choices=TARGETS, help="may be given several times (default: all)"
    )
    parser.add_argument(
        "--case", action="append", help="name of a case, may be given several times (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON with every access instead of a table")
    options = parser.parse_args(arguments)
    cases = {case.name: case for case in shipped_cases()}
    for name in options.case or ():
        if name not in cases:
            parser.error(f"--case: unknown '{name}'; known: {', '.join(sorted(cases))}. Use one of these.")
    chosen = [cases[name] for name in options.case or cases]
    reports = [analyse(case, target) for case in chosen for target in options.target or TARGETS]
    if options.json:
        print(json.dumps([asdict(report) for report in reports], indent=1))
    else:
        Console(width=max(Console().width, _TABLE_WIDTH)).print(to_table(reports))


def _report(
    case: StaticCase,
    target: str,
    compiled: Any,
    instructions: tuple[Instruction, ...],
    registers: int,
    spills: int,
) -> StaticReport:
    """Count the instructions by kind."""
    scalars = scalar_accesses(instructions, compiled.asm["ttgir"], compiled.asm.get("ptx", ""))

    def is_stream(instruction: Instruction) -> bool:
        return instruction.kind in ("load", "store") and id(instruction) not in scalars

    widest = max((i.bits for i in instructions if is_stream(i)), default=0)
    path = path_through(instructions, lambda i: is_stream(i) and i.bits == widest)
    threads = case.config.num_warps * gpu_target(target).warp_size
    return StaticReport(
        case=case.name,
        target=target,
        registers=registers,
        spills=spills,
        shared_bytes=compiled.metadata.shared,
        barriers=_count(instructions, "barrier"),
        branches=_count(instructions, "branch"),
        calls=_count(instructions, "call"),
        instructions=len(instructions),
        accesses=_accesses(instructions, path, is_stream),
        instructions_per_element=len(path) * threads / case.elements,
        occupancy=occupancy(target, registers, compiled.metadata.shared, case.config.num_warps),
        bytes_in_flight=sum(i.bits for i in path if is_stream(i) and i.kind == "load") // 8,
        loops=backward_branches(path),
    )


def _compile(case: StaticCase, gpu: GPUTarget) -> Any:
    """Run Triton's compiler with an empty cache, so that it prints its messages every time."""
    constexprs = dict.fromkeys(case.constants, "constexpr")
    given = {**case.signature, **constexprs}
    names = case.jit.arg_names
    if set(given) != set(names):
        raise InvalidValueError(
            case.name, f"arguments {sorted(given)} given", f"the kernel takes {sorted(names)}."
        )
    source = ASTSource(
        case.jit,
        {name: given[name] for name in names},
        constexprs=dict(case.constants),
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in case.aligned},
    )
    options = {
        "num_warps": case.config.num_warps,
        "num_stages": case.config.num_stages,
        "enable_fp_fusion": fuses_our_kernels(),
    }
    with tempfile.TemporaryDirectory() as cache, knobs.cache.scope(), knobs.runtime.scope():
        knobs.cache.dir = cache
        knobs.runtime.add_stages_inspection_hook = _keep_source_lines
        compile_it = functools.partial(triton.compile, source, target=gpu, options=options)
        if printed := _stderr_of_child(compile_it):
            raise InvalidValueError(
                f"{case.name} on {gpu.backend} {gpu.arch}: the compiler printed on stderr", f"{printed}"
            )
        return compile_it()  # from the cache that the child has filled


def _keep_source_lines(
    backend: Any = None, stages: Any = None, options: Any = None, language: Any = None, capability: Any = None
) -> tuple[str, str] | None:
    """Pass PTX through `with_one_line_per_asm` on its way to ptxas: a hook of Triton's compiler.

    Called without arguments, it returns its part of the key of Triton's cache.
    """
    if stages is None:
        return "source lines", "source lines"
    if make_ptx := stages.get("ptx"):
        stages["ptx"] = lambda source, metadata: with_one_line_per_asm(make_ptx(source, metadata))
    return None


# A forked process inherits the locks that other threads held at that moment, and may deadlock.
_LONGEST_S = 100.0
_FORKS = 2


def _stderr_of_child(work: Callable[[], object]) -> str:
    """Do `work` in a forked process and return all that it and its own children print on stderr.

    On some errors LLVM ends the whole process. After others it goes on to return code that does nothing. A child that
    does not end is killed, and another one is forked.
    """
    for _ in range(_FORKS):
        with tempfile.TemporaryFile("w+") as file:
            child = os.fork()
            if child == 0:
                _work_and_exit(work, file)
            ended = _wait(child)
            file.seek(0)
            printed = file.read().strip()
        if ended is None:
            continue
        if ended and not printed:
            return f"nothing, but the compiler ended with status {os.waitstatus_to_exitcode(ended)}"
        return printed
    return f"nothing, but the compiler had not ended after {_LONGEST_S:g} s, {_FORKS} times"


def _work_and_exit(work: Callable[[], object], file: IO[str]) -> NoReturn:
    """Do the work in the child, with its stderr in the file."""
    os.dup2(file.fileno(), 2)
    sys.stderr = cast("TextIO", file)
    status = 1
    try:
        work()
        status = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=file)
    finally:
        file.flush()
        os._exit(status)


def _wait(child: int) -> int | None:
    """Return the exit status of a child, or None where it took too long and was killed."""
    until = time.monotonic() + _LONGEST_S
    while time.monotonic() < until:
        done, ended = os.waitpid(child, os.WNOHANG)
        if done:
            return ended
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _disassemble(cubin: bytes) -> str:
    """Return the SASS of a cubin, with source lines and branch labels."""
    return _run_on_cubin([knobs.nvidia.nvdisasm.path, "-c", "-g"], cubin)


def _run_on_cubin(command: list[str], cubin: bytes) -> str:
    """Run one of NVIDIA's binary tools on a cubin and return its output."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "kernel.cubin"
        path.write_bytes(cubin)
        return subprocess.run([*command, str(path)], check=True, capture_output=True, text=True).stdout


def _sass_registers(cubin: bytes, instructions: tuple[Instruction, ...]) -> tuple[int, int]:
    """Return registers per thread, and the number of loads and stores of spills."""
    usage = _run_on_cubin([knobs.nvidia.cuobjdump.path, "-res-usage"], cubin)
    found = re.search(r"REG:(\d+)", usage)
    assert found is not None, usage
    return int(found[1]), _count(instructions, "spill")


def _gcn_registers(assembly: str) -> tuple[int, int]:
    """Return vector registers per lane, and the number of spilled registers."""
    fields = dict(re.findall(r"\.(vgpr_count|vgpr_spill_count|sgpr_spill_count):\s+(\d+)", assembly))
    return int(fields["vgpr_count"]), int(fields["vgpr_spill_count"]) + int(fields["sgpr_spill_count"])


def _count(instructions: tuple[Instruction, ...], kind: str) -> int:
    return sum(instruction.kind == kind for instruction in instructions)


def _accesses(
    instructions: tuple[Instruction, ...],
    path: tuple[Instruction, ...],
    is_stream: Callable[[Instruction], bool],
) -> tuple[Access, ...]:
    """Group loads and stores by kind, width, source line and path, in the order of the first of each."""
    on_path = set(map(id, path))
    counts: dict[tuple[Any, int, str, bool, bool], int] = {}
    for i in instructions:
        if i.kind in ("load", "store"):
            line = f"{i.source[0]}:{i.source[1]}"
            key = (i.kind, i.bits, line, is_stream(i), id(i) in on_path)
            counts[key] = counts.get(key, 0) + 1
    return tuple(
        Access(kind, bits, count, line, stream, on)
        for (kind, bits, line, stream, on), count in counts.items()
    )
