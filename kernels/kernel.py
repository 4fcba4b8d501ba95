"""What the suite knows of a kernel: enough to verify, compile, time and list it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

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


Inputs = dict[str, Any]
# A launch config by name: constexprs, `num_warps` and `num_stages`. A kernel launches with `**config`.
Config = Mapping[str, int]
MakeInputs = Callable[[int, torch.dtype, torch.device, int], Inputs]


@dataclass(frozen=True)
class Kernel:
    """A kernel and the function that defines what is right: all that verifying, timing and tuning it needs.

    Only the first four must be given. What is None is found on the kernel's inputs.

    Args:
        name: unique, e.g. `adam`.
        fused: called with what `make_inputs` returns as keyword arguments. It returns tensors, updates some, or both.
            Where `configs` are given and it has a parameter `config`, it is called with one of them too.
        reference: the same call with the same results, in plain PyTorch. It also works on float64 tensors.
        make_inputs: `(elements, dtype, device, seed)` -> keyword arguments of both. The same arguments give the same
            values.
        family: for reports, e.g. `optimizer`, `activation`, `matmul`.
        bytes_moved: keyword arguments -> bytes that must cross memory once. None: all tensors that are read, once, and
            all that are written, once.
        mutates: keyword arguments that are updated in place. None: those that the reference changes.
        configs: the launch-config space. Empty: there is nothing to tune.
        default: the config that is shipped. None: the first of `configs`.
        elements: sizes to verify and time by default. Empty: those of the spec.
        dtypes: dtypes to verify and time by default.
        tolerance: the largest error against float64, relative to the scale of the result. None: by the error of the
            reference in the same dtype.
        scratch_bytes: keyword arguments -> bytes that a call may allocate beside its results. None: none worth a name.
        atomics: results may differ from call to call in the last bits, because the order of additions is open.
        alignment: bytes that the address of each tensor must be a multiple of. 1: any address that fits the dtype.
        competitors: name -> another way to do the same work, called as `fused` is.
        static_cases: what to compile without a GPU.

    Example:
        >>> from fusetune.kernels.kernel import Kernel
        >>> def make_inputs(elements, dtype, device, seed):
        ...     generator = torch.Generator().manual_seed(seed)
        ...     return {"x": torch.randn(elements, generator=generator).to(device, dtype)}
        >>> twice = Kernel("twice", lambda x: x + x, lambda x: 2 * x, make_inputs)
        >>> twice.fused(**make_inputs(2, torch.float32, "cpu", 0)).shape
        torch.Size([2])
    """

    name: str
    fused: Callable[..., Any]
    reference: Callable[..., Any]
    make_inputs: MakeInputs
    family: str = "other"
    bytes_moved: Callable[[Inputs], int] | None = None
    mutates: tuple[str, ...] | None = None
    configs: tuple[Config, ...] = field(default=(), repr=False)
    default: Config | None = None
    elements: tuple[int, ...] = ()
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)
    tolerance: float | None = None
    scratch_bytes: Callable[[Inputs], int] | None = None
    atomics: bool = False
    alignment: int = 1
    competitors: Mapping[str, Callable[..., Any]] = field(default_factory=dict, repr=False)
    static_cases: tuple[StaticCase, ...] = field(default=(), repr=False)
