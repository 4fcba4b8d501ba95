"""The other ways to do a kernel's work, as functions that a lane builds: called as the kernel is.

`eager` is the reference as it stands, `compile` the same through torch.compile. Optimizer kernels also meet PyTorch's
own updates of many tensors, `foreach` and `fused`, by the functions that its optimizers call. `liger` is liger-kernel,
where it is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fusetune.bench.errors import InputError
from fusetune.bench.kernels.lane import LaneError

if TYPE_CHECKING:
    from torch import Tensor

    from fusetune.kernels import Kernel

EAGER, COMPILE, FOREACH, FUSED, LIGER = "eager", "compile", "foreach", "fused", "liger"
# In the order of a report. A kernel's own follow.
BUILT_IN = (EAGER, FOREACH, FUSED, COMPILE, LIGER)

Call = Callable[..., Any]

# The settings of the optimizers' kernels, see `kernels.optimizers`. They make the tenth step.
_STEPS_BEFORE = 9.0
_ADAM = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 1e-2}
_SGD = {"lr": 0.1, "weight_decay": 5e-4, "dampening": 0.0}
_OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")
_OF_LIGER = ("swiglu", "swiglu_backward", "geglu", "geglu_backward")
# liger-kernel takes a row a program, of at most so many columns.
_MOST_COLUMNS = 65536
_COLUMNS = 4096


def competitors_of(kernel: Kernel) -> tuple[str, ...]:
    """Return the names of the other ways to do a kernel's work, in the order of a report.

    Example:
        >>> from fusetune.kernels import KERNELS
        >>> competitors_of(KERNELS["adam"]), competitors_of(KERNELS["swiglu"])
        (('eager', 'foreach', 'fused', 'compile'), ('eager', 'compile', 'liger'))
    """
    there = {
        EAGER: True,
        COMPILE: True,
        FOREACH: kernel.name in _OPTIMIZERS,
        FUSED: kernel.name in _OPTIMIZERS,
        LIGER: kernel.name in _OF_LIGER,
    }
    return (*(name for name in BUILT_IN if there[name]), *kernel.competitors)


def build_competitor(kernel: Kernel, name: str) -> Call:
    """Return a function that does the work of `kernel.fused`, with the same arguments and results.

    Args:
        kernel: as `model_shapes.kernel_on` returns it.
        name: one of `competitors_of(kernel)`.

    Raises:
        LaneError: `skipped`, because it is not installed or computes something else.
        InputError: the kernel has no competitor of that name.

    Example:
        >>> import torch
        >>> from fusetune.kernels import KERNELS
        >>> build_competitor(KERNELS["relu"], "eager")(x=torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """
    if name in kernel.competitors:
        return kernel.competitors[name]
    if name not in competitors_of(kernel):
        raise InputError.unknown(f"{kernel.name}: competitors", name, competitors_of(kernel))
    if name == EAGER:
        return kernel.reference
    if name == COMPILE:
        import torch

        compiled: Call = torch.compile(kernel.reference, dynamic=False)
        return compiled
    if name == LIGER:
        return _liger(kernel.name)
    return _of_torch_optim(kernel.name, foreach=name == FOREACH, fused=name == FUSED)


def _of_torch_optim(name: str, *, foreach: bool, fused: bool) -> Call:
    """Return torch's own update of many tensors by the settings of one of our optimizer kernels."""
    way = {"foreach": foreach, "fused": fused, "maximize": False}
    if name in ("sgd", "momentum"):
        sgd = partial(
            import_module("torch.optim.sgd").sgd, nesterov=False, has_sparse_grad=False, **_SGD, **way
        )

        def step(streams: Sequence[Any], row: Any, table: Any) -> None:
            params, grads, *buffers = _columns(streams)
            kept = buffers[0] if buffers else [None] * len(params)
            sgd(params, grads, kept, momentum=0.9 if buffers else 0.0)

        return step
    function = getattr(import_module(f"torch.optim.{name}"), name)
    adam = partial(function, amsgrad=False, capturable=False, **_ADAM, **way)
    steps: list[Tensor] = []

    def adam_step(streams: Sequence[Any], row: Any, table: Any) -> None:
        import torch

        params, grads, exp_avgs, exp_avg_sqs = _columns(streams)
        if len(steps) != len(params):
            # The fused kernel reads the step on the device, and the others on the host.
            place = params[0].device if fused else "cpu"
            steps[:] = [torch.zeros((), device=place) for _ in params]
        torch._foreach_zero_(steps)
        torch._foreach_add_(steps, _STEPS_BEFORE)
        adam(params, grads, exp_avgs, exp_avg_sqs, [], steps)

    return adam_step


def _columns(streams: Sequence[Any]) -> list[list[Tensor]]:
    """Return each stream as a list of tensors. A stream of one tensor is that tensor."""
    return [list(each) if isinstance(each, (list, tuple)) else [each] for each in streams]


def _liger(name: str) -> Call:
    """Return liger-kernel's function for a gated activation, on halves that lie apart in memory.

    Raises:
        LaneError: it is not installed, or computes another function.
    """
    if name.startswith("geglu"):
        raise LaneError("skipped", "liger-kernel's GEGLU is the tanh approximation, and this one is exact")
    if name.endswith("_backward"):
        raise LaneError("skipped", "liger-kernel's backward overwrites its inputs")
    if find_spec("liger_kernel") is None:
        raise LaneError("skipped", "liger-kernel is not installed")
    ops = import_module("liger_kernel.ops.swiglu")

    def forward(x: Tensor) -> Tensor:
        a, b = _halves(x)
        *_, y = ops.swiglu_forward(a, b)
        result: Tensor = y.view(*x.shape[:-1], -1)
        return result

    return forward


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return both halves of the last dimension as contiguous matrices of few enough columns.

    Raises:
        LaneError: there are none.
    """
    a, b = (half.contiguous() for half in x.chunk(2, dim=-1))
    elements = a.numel()
    columns = next(
        (c for c in (_COLUMNS, elements) if c <= min(elements, _MOST_COLUMNS) and elements % c == 0), None
    )
    if columns is None:
        said = f"liger-kernel takes rows of at most {_MOST_COLUMNS:,} columns, and {elements:,} elements have none"
        raise LaneError("skipped", said)
    return a.view(-1, columns), b.view(-1, columns)
