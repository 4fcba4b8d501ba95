"""The compiler makes vector instructions of every loop of every shipped kernel whose lanes lie side by side."""

from __future__ import annotations

import platform
import re
import subprocess
from typing import Any

import pytest
import torch

from kernels import KERNELS
from kernels.activation_kernels import backward_kernel, forward_kernel
from kernels.adam import adam_kernel
from kernels.cpu import toolchain
from kernels.sgd import sgd_kernel

_FUNCTIONS: tuple[Any, ...] = (forward_kernel, backward_kernel, adam_kernel, sgd_kernel)
_LOOP = "#pragma omp simd\n"


def compiled(name: str) -> str:
    """The C that a kernel becomes in fp32."""
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


def loops(c: str) -> list[tuple[str, range]]:
    """Each loop over lanes, and its lines, from 1."""
    found, at = [], c.find(_LOOP)
    while at >= 0:
        head = at + len(_LOOP)
        text = c[head : c.index("\n}", head)]
        first = c.count("\n", 0, head) + 1
        found.append((text, range(first, first + text.count("\n") + 1)))
        at = c.find(_LOOP, head)
    return found


def vectorised(c: str) -> set[int]:
    """The lines of the loops that the compiler says it vectorised."""
    command = [*toolchain.command(), *toolchain.flags(), "-fopt-info-vec-optimized"]
    command += ["-S", "-x", "c", "-", "-o", "/dev/null"]
    done = subprocess.run(command, input=c, capture_output=True, text=True, check=True)
    lines = re.findall(r":(\d+):\d+: optimized: loop vectorized", done.stderr)
    return set(map(int, lines))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads what gcc says of x86")
@pytest.mark.parametrize("name", KERNELS)
def test_every_loop_over_neighbours_is_vectorised(name: str) -> None:
    if "clang" in toolchain.compiler_version():
        pytest.skip("reads what gcc says")
    c = compiled(name)
    # An access through a pointer of each lane's own may be anywhere: such loops are for rows of few elements. Those
    # that begin behind the last lane whose mask is set only fill up a block.
    neighbours = [
        lines
        for text, lines in loops(c)
        if not re.search(r"\*t\d+", text) and not re.match(r"for \(int32_t i0 = n\d+;", text)
    ]
    # Gated ones store two gradients, in a nest each; what is left of the first is kept for the second.
    assert len(neighbours) >= (3 if name in ("swiglu_backward", "geglu_backward", "reglu_backward") else 1)
    reported = vectorised(c)
    assert all(reported.intersection(lines) for lines in neighbours)
