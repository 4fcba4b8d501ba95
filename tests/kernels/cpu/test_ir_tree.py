"""What is read of Triton's IR, by its bindings and, where those of an older Triton say less, from the printed lines."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

from fusetune.kernels.cpu import ir_tree


@triton.jit
def many_numbers(x_ptr, k_ptr, y_ptr, SIZE: tl.constexpr):
    place = tl.program_id(0) + tl.program_id(1) * tl.num_programs(2)
    rows = place + tl.arange(0, SIZE)[:, None]
    columns = tl.arange(0, SIZE)[None, :]
    x = tl.load(x_ptr + rows * SIZE + columns, mask=(rows < SIZE) & (columns <= SIZE), other=0.0)
    k = tl.load(k_ptr + rows * SIZE + columns).to(tl.uint32, bitcast=True)
    y = tl.sum(x, axis=1)[:, None] + tl.sum(x, axis=0)[None, :] + tl.cumsum(x, axis=1) + tl.cumsum(x, axis=0)
    y += tl.gather(x, (k % SIZE).to(tl.int32), axis=0)
    y = tl.where((x < 1.0) & (x <= 2.0) & (x == x) | (x > 3.0) | (x >= 4.0) & (x != 5.0), y, -y)
    y = tl.where((k < 7) | (k <= 9) | (k > 3) & (k >= 4) & (k == 5) | (k != 6), y, 2 * y)
    y = tl.where((rows > columns) | (rows >= 3) & (rows != columns), y, 3 * y)
    tl.store(y_ptr + rows * SIZE + columns, y)


def test_the_printed_lines_say_what_the_bindings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(16, 16), torch.empty(16, 16)
    k = torch.arange(256, dtype=torch.int32)
    said = []
    with triton.knobs.cache.scope():
        for bindings in (ir_tree._BINDINGS_GIVE_INTEGERS, False):
            monkeypatch.setattr(ir_tree, "_BINDINGS_GIVE_INTEGERS", bindings)
            triton.knobs.cache.dir = str(tmp_path / str(bindings))
            many_numbers.device_caches.clear()
            said.append(many_numbers[(1, 1, 1)](x, k, y, SIZE=16).asm["c"])
    many_numbers.device_caches.clear()
    assert said[0] == said[1]
    for number in ("oge", "ult", "slt", "une"):
        assert number in many_numbers[(1, 1, 1)](x, k, y, SIZE=16).asm["ttir"]
