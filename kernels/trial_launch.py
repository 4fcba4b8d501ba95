"""One launch whose result is known: whether a release of Triton that the tests do not run on gets it right."""

# Triton: constexprs in capitals (N803).
# ruff: noqa: N803
from __future__ import annotations

import functools
from threading import Thread
from typing import Any

import torch
import triton
import triton.language as tl

from fusetune.kernels.triton_inside import METADATA, is_tested, warned

_SIZE, _ELEMENTS = 64, 50
_FACTORS = (0.5, -3.0)


@triton.jit
def _total(x_ptr, bias_ptr, y_ptr, total_ptr, n, factors, HAS_BIAS: tl.constexpr, SIZE: tl.constexpr):
    """y = exp(a x) + b, rounded to bf16 on the way. Its sum."""
    a, b = factors
    i = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    x = tl.load(x_ptr + i, mask=i < n, other=0.0).to(tl.float32)
    if HAS_BIAS:
        x += tl.load(bias_ptr)
    y = (tl.exp(x * a) + b).to(tl.bfloat16)
    tl.store(y_ptr + i, y, mask=i < n)
    tl.store(total_ptr, tl.sum(tl.where(i < n, y.to(tl.float32), 0.0), 0))


@functools.cache
def why_it_fails(device: str) -> str | None:
    """Return why launches on a device cannot be relied on, with what to do, or None where they can.

    A release that the tests run on is taken to be right. For another one this compiles a small kernel, and warns where
    that, or what it computes, is not as expected.

    Args:
        device: `cpu` or `cuda`.
    """
    if is_tested():
        return None
    found: list[str | None] = []
    # In a thread of its own: whatever modes the caller's tensors are in hold in the caller's alone.
    thread = Thread(target=lambda: found.append(_complaint(device)))
    thread.start()
    thread.join()
    (complaint,) = found
    return None if complaint is None else warned(complaint)


def _complaint(device: str) -> str | None:
    """Launch twice, by Triton's way and by the way that a kept launch takes. A clause where one of them goes wrong."""
    try:
        x = torch.linspace(-2, 2, _ELEMENTS, device=device).half()
        y, total = torch.zeros(_ELEMENTS, dtype=torch.bfloat16, device=device), torch.zeros(1, device=device)
        wanted = torch.exp(x.double() * _FACTORS[0]) + _FACTORS[1]
        arguments = (x, None, y, total, _ELEMENTS, _FACTORS)
        compiled: Any = _total[(1,)](
            *arguments, HAS_BIAS=False, SIZE=_SIZE, num_warps=1, num_stages=1, enable_fp_fusion=True
        )
        if why := _differs(y, total, wanted):
            return why
        lacking = [name for name in METADATA if not hasattr(compiled.metadata, name)]
        if lacking:
            return f"a compiled kernel's metadata lacks {', '.join(lacking)}"
        y.zero_()
        total.zero_()
        compiled[1, 1, 1](*arguments, None, None)
        return _differs(y, total, wanted)
    except Exception as error:  # Triton's code in a release that was not tested, which may raise anything
        said = str(error).strip().splitlines() or [""]
        return f"a first launch ends with {type(error).__name__}: {said[-1].strip()}"


def _differs(y: torch.Tensor, total: torch.Tensor, wanted: torch.Tensor) -> str | None:
    """A clause if results are off by more than two roundings to bf16, or their sum by more than all of these."""
    error = (y.double() - wanted).abs()
    allowed = wanted.abs() * 2.0**-7
    off = (total.double().sum() - wanted.sum()).abs()
    if bool((error <= allowed).all()) and bool(off <= allowed.sum()):
        return None
    return "a first launch computes wrong numbers"
