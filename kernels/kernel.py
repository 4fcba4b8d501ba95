"""What the suite knows of a kernel: enough to verify, compile, time and list it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from fusetune.kernels.launch import LaunchConfig


@dataclass(frozen=True)
class StaticCase:
    """One specialisation of a `@triton.jit` function, to be compiled without a GPU.

    Args:
        name: e.g. `adam-fp32`.
        jit: the `@triton.jit` function.
        signature: argument name -> Triton type (`*fp32`, `i64`, `fp32`, ...), for a tuple a tuple of them. Constexprs
            are left out.
        constants: constexpr name -> value, BLOCK_SIZE included.
        config: the launch config that is shipped.
        elements: elements that one program handles.
        aligned: names of the arguments that are multiples of 16 (pointers: aligned to 16 bytes).
        vector_bytes: the width in bytes that the accesses of each stream of memory must have. It is 16, or 8 for the
            narrow one of a mixed pair, or 0 where nothing is promised.
    """

    name: str
    jit: Any
    signature: Mapping[str, Any]
    constants: Mapping[str, Any]
    config: LaunchConfig
    elements: int
    aligned: tuple[str, ...] = ()
    vector_bytes: int = 16


@dataclass(frozen=True)
class Kernel:
    """A fused kernel and its plain-PyTorch twin.

    Args:
        name: unique, e.g. `adam`.
        family: `optimizer` or `activation`.
        fused: called with the mapping that `make_inputs` returns. It returns (or updates) tensors.
        reference: the twin that defines correctness, with the same call and the same results.
        make_inputs: (elements, dtype, device, seed) -> keyword arguments of both.
        bytes_moved: keyword arguments -> bytes that must cross memory once.
        mutates: keyword arguments that are updated in place.
        static_cases: what to compile without a GPU.
    """

    name: str
    family: Literal["optimizer", "activation"]
    fused: Callable[..., Any]
    reference: Callable[..., Any]
    make_inputs: Callable[[int, torch.dtype, torch.device, int], dict[str, Any]]
    bytes_moved: Callable[[dict[str, Any]], int]
    mutates: tuple[str, ...] = ()
    static_cases: tuple[StaticCase, ...] = field(default=(), repr=False)
