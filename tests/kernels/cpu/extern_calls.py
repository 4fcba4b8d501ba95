"""Calls of libdevice's functions, many in one generated kernel."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor


def called(
    folder: Path,
    expressions: Sequence[str],
    operands: Mapping[str, Tensor],
    dtype: torch.dtype,
    fuse: bool = False,
) -> Tensor:
    """Store one expression of operands a row.

    Args:
        folder: for the kernel's file.
        expressions: Python, over the operands' names, `tl` and `libdevice`.
        operands: vectors of one length, a power of 2.
        dtype: of the result.
        fuse: products and sums may become one operation.
    """
    size = len(next(iter(operands.values())))
    lines = [
        "import triton",
        "import triton.language as tl",
        "from triton.language.extra import libdevice",
        "",
        "@triton.jit",
        f"def kernel({', '.join(f'{name}_ptr' for name in operands)}, out_ptr, SIZE: tl.constexpr):",
        "    i = tl.arange(0, SIZE)",
        *(f"    {name} = tl.load({name}_ptr + i)" for name in operands),
        *(f"    tl.store(out_ptr + {row} * SIZE + i, {text})" for row, text in enumerate(expressions)),
    ]
    file = folder / "generated.py"
    file.write_text("\n".join(lines) + "\n")
    specification = importlib.util.spec_from_file_location("generated", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    out = torch.empty(len(expressions), size, dtype=dtype)
    module.kernel[(1,)](*operands.values(), out, SIZE=size, enable_fp_fusion=fuse)
    return out
