"""Kernels that a test writes as text: whole ones, and many calls in one."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_HEAD = """import triton
import triton.language as tl
from triton.language.extra import libdevice

@triton.jit
def kernel({parameters}):
"""


def generated(folder: Path, parameters: str, body: str) -> Any:
    """A kernel of Triton.

    Args:
        folder: for the kernel's file.
        parameters: Python, as in a function's head.
        body: Python, indented by four.
    """
    file = folder / "generated.py"
    file.write_text(_HEAD.format(parameters=parameters) + body.lstrip("\n") + "\n")
    specification = importlib.util.spec_from_file_location("generated", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.kernel


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
    body = [
        "    i = tl.arange(0, SIZE)",
        *(f"    {name} = tl.load({name}_ptr + i)" for name in operands),
        *(f"    tl.store(out_ptr + {row} * SIZE + i, {text})" for row, text in enumerate(expressions)),
    ]
    names = ", ".join(f"{name}_ptr" for name in operands)
    kernel = generated(folder, f"{names}, out_ptr, SIZE: tl.constexpr", "\n".join(body))
    out = torch.empty(len(expressions), size, dtype=dtype)
    kernel[(1,)](*operands.values(), out, SIZE=size, enable_fp_fusion=fuse)
    return out
