"""The compiler makes vector instructions of every loop of every shipped kernel whose lanes lie side by side."""

from __future__ import annotations

import platform
import re

import pytest

from fusetune.kernels import KERNELS
from tests.kernels.cpu.compiled_code import shipped_c, vectorised_lines

_LOOP = "#pragma omp simd\n"


def loops(c: str) -> list[tuple[str, range]]:
    """Each loop over lanes from its `for` on, and its lines from its pragma on, counted from 1."""
    found, at = [], c.find(_LOOP)
    while at >= 0:
        head = at + len(_LOOP)
        text = c[head : c.index("\n}", head)]
        first = c.count("\n", 0, at) + 1
        found.append((text, range(first, first + text.count("\n") + 2)))
        at = c.find(_LOOP, head)
    return found


@pytest.mark.slow
@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="elsewhere no library has vector functions for exp and erf"
)
@pytest.mark.parametrize("name", KERNELS)
def test_every_loop_over_neighbours_is_vectorised(name: str) -> None:
    c = shipped_c(name)
    # An access through a pointer of each lane's own may be anywhere: such loops are for rows of few elements. Those
    # that begin behind the last lane whose mask is set only fill up a block.
    neighbours = [
        lines
        for text, lines in loops(c)
        if not re.search(r"\*t\d+", text) and not re.match(r"for \(int32_t i0 = n\d+;", text)
    ]
    # Gated ones store two gradients, in a nest each.
    assert len(neighbours) >= (2 if name in ("swiglu_backward", "geglu_backward", "reglu_backward") else 1)
    reported = vectorised_lines(c, "avx2")
    assert all(reported.intersection(lines) for lines in neighbours)
