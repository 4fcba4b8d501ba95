"""What becomes of a kernel on the CPU: its C, and the assembly and remarks that a compiler makes of that."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from typing import Any

import torch

from fusetune.kernels import KERNELS
from fusetune.kernels.activations.kernels import backward_kernel, forward_kernel
from fusetune.kernels.cpu import toolchain
from fusetune.kernels.optimizers.adam import adam_kernel
from fusetune.kernels.optimizers.sgd import sgd_kernel

_FUNCTIONS: tuple[Any, ...] = (forward_kernel, backward_kernel, adam_kernel, sgd_kernel)


def shipped_c(name: str) -> str:
    """The C that a shipped kernel becomes in fp32."""
    for function in _FUNCTIONS:
        function.device_caches.clear()
    KERNELS[name].fused(**KERNELS[name].make_inputs(4096, torch.float32, torch.device("cpu"), 0))
    found = [
        kernel.asm["c"]
        for function in _FUNCTIONS
        for caches in function.device_caches.values()
        for kernel in caches[0].values()
    ]
    assert len(found) == 1
    return str(found[0])


def forget_compiler() -> None:
    """Have the compiler looked for again: $CC has changed."""
    for known in (
        toolchain.command,
        toolchain.compiler_version,
        toolchain._has_openmp,
        toolchain._why_it_fails,
    ):
        known.cache_clear()


# The processors whose code is read, whatever runs the tests: their vectors hold 8 and 16 numbers of fp32.
X86 = {"avx2": ("-march=haswell",), "avx512": ("-march=skylake-avx512", "-mprefer-vector-width=512")}


def flags_for(*target: str) -> list[str]:
    """The backend's flags, for another processor than this one."""
    own = toolchain._flags_for_this_cpu()
    return [*(flag for flag in toolchain.flags() if flag not in own), *target]


def assembly(c: str, options: Sequence[str]) -> str:
    """What the compiler in use makes of C code."""
    return _compile(c, options, "-").stdout


def vectorised_lines(c: str, target: str) -> set[int]:
    """The lines of C at which the compiler in use says that it vectorised a loop, for one of `X86`."""
    option, words = (
        ("-Rpass=loop-vectorize", "remark: vectorized loop")
        if toolchain.is_clang()
        else ("-fopt-info-vec-optimized", "optimized: loop vectorized")
    )
    said = _compile(c, [*flags_for(*X86[target]), option], "/dev/null").stderr
    return set(map(int, re.findall(rf":(\d+):\d+: {words}", said)))


def _compile(c: str, options: Sequence[str], output: str) -> subprocess.CompletedProcess[str]:
    command = [*toolchain.command(), *options, "-S", "-x", "c", "-", "-o", output]
    done = subprocess.run(command, input=c, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done
