"""What Triton compiled for a call, read from the objects that it keeps. For lanes only."""

from __future__ import annotations

import gc
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# From the most to the least like machine code.
_STAGES = ("so", "hsaco", "cubin", "c", "amdgcn", "ptx")
_ACCESS = re.compile(r"\b(?:ld|st)\.global\S*?\.[bfsu](\d+)\b")
_VECTOR = re.compile(r"\.v(\d)\b")


@dataclass(frozen=True)
class CompiledFacts:
    """What is known of the machine code of a call, before it is timed.

    Args:
        code: digest of all that was compiled. Equal digests: equal code. Empty where nothing new was seen.
        arch: e.g. `sm_90`. Empty on a CPU.
        num_warps: of a program.
        registers: of a thread, the most of all kernels. None where it is not known, as on a CPU.
        spills: registers that lie in memory, the most of all kernels.
        shared_bytes: of a program, the most of all kernels.
        widest_bytes: width of the widest access of global memory. None where it is not known.
    """

    code: str = ""
    arch: str = ""
    num_warps: int = 1
    registers: int | None = None
    spills: int | None = None
    shared_bytes: int | None = None
    widest_bytes: int | None = None


def compiled_kernels() -> dict[int, Any]:
    """Return all compiled kernels of this process, by identity."""
    from fusetune.kernels import CompiledKernel

    return {id(found): found for found in gc.get_objects() if type(found) is CompiledKernel}


def facts_of(kernels: Iterable[Any]) -> CompiledFacts:
    """Return what is known of some compiled kernels together.

    Args:
        kernels: Triton's, in any order.

    Example:
        >>> facts_of([]).code
        ''
    """
    kernels = list(kernels)
    if not kernels:
        return CompiledFacts()
    digests, registers, spills, shared, widths, warps = [], [], [], [], [], [1]
    arch = ""
    for kernel in kernels:
        # C has no names but the kernel's own. A shared object has those of files too.
        stages = [stage for stage in ("c", *_STAGES) if stage in kernel.asm]
        text = kernel.asm[stages[0]] if stages else ""
        digests.append(hashlib.sha256(text if isinstance(text, bytes) else text.encode()).hexdigest())
        registers.append(getattr(kernel, "n_regs", None))
        spills.append(getattr(kernel, "n_spills", None))
        metadata = kernel.metadata
        shared.append(getattr(metadata, "shared", None))
        warps.append(int(getattr(metadata, "num_warps", 1)))
        if metadata.target.backend == "cuda":
            arch = f"sm_{metadata.target.arch}"
        elif metadata.target.backend == "hip":
            arch = str(metadata.target.arch)
        if "ptx" in kernel.asm:
            widths.append(widest_access(kernel.asm["ptx"]))
    return CompiledFacts(
        hashlib.sha256("".join(sorted(digests)).encode()).hexdigest(),
        arch,
        max(warps),
        _most(registers),
        _most(spills),
        _most(shared),
        min(widths, default=None),
    )


def widest_access(ptx: str) -> int:
    """Return the width in bytes of the widest access of global memory, 0 without one.

    Example:
        >>> widest_access("ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 ]; st.global.b16 [ %rd2 ], { %h1 };")
        16
    """
    widths = [0]
    for found in _ACCESS.finditer(ptx):
        vector = _VECTOR.search(found.group())
        widths.append(int(found.group(1)) // 8 * (int(vector.group(1)) if vector else 1))
    return max(widths)


def _most(values: list[Any]) -> int | None:
    """The largest of those that are numbers."""
    return max((value for value in values if isinstance(value, int)), default=None)
