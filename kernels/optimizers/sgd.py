"""Stochastic gradient descent with momentum, Nesterov momentum and weight decay: one launch for all parameters.

    g = sign * gradient / loss_scale + weight_decay * p
    b = momentum * b + (1 - dampening) * g          (the first time: b = g)
    p = p - lr * (g + momentum * b   if nesterov else   b   if momentum != 0 else   g)

Bytes per fp32 parameter: 12 without momentum (p, g read, p written), 20 with it.
"""

# Triton: constexprs in capitals.
# ruff: noqa: N803
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fusetune.kernels.autotune import whole_elementwise_space
from fusetune.kernels.kernel import Kernel, StaticCase
from fusetune.kernels.launch import path_of
from fusetune.kernels.optimizers.rounding import rounded
from fusetune.kernels.optimizers.step import (
    FusedStep,
    Group,
    LossScale,
    Row,
    Work,
    device_rows,
    host_value,
    is_on_device,
    penalised,
    scaled_gradient,
    unrounded_parameter,
    working_dtype,
    write,
)
from fusetune.kernels.optimizers.tables import (
    TRITON_TYPES,
    UNIFORM,
    MultiTensorTable,
    kept_table,
    static_case,
    stream,
    unrounded,
    update_block,
)


@triton.jit
def _sgd_elements(
    record: tl.tensor,
    start: tl.tensor,
    begin: tl.tensor,
    end: tl.tensor,
    row: tl.tensor,
    factor: tl.tensor,
    random: tl.tensor,
    P: tl.constexpr,
    G: tl.constexpr,
    S: tl.constexpr,
    MOMENTUM: tl.constexpr,
    MASTER: tl.constexpr,
    SIZE: tl.constexpr,
    ALIGNED: tl.constexpr,
) -> None:
    """Update SIZE elements of one block from `begin` on, none past `end`."""
    offsets = begin + tl.arange(0, SIZE)
    mask = offsets < end
    p_ptr = stream(record, 0, start, P, ALIGNED) + offsets
    p = tl.load(p_ptr, mask=mask).to(tl.float32)
    if MASTER:
        master_ptr = stream(record, 2 + MOMENTUM, start, tl.float32, ALIGNED) + offsets
        p = unrounded(p, tl.load(master_ptr, mask=mask), P)
    g = tl.load(stream(record, 1, start, G, ALIGNED) + offsets, mask=mask).to(tl.float32) * factor
    # Without a penalty, 0 times an infinite parameter must not make NaN.
    g = tl.where(tl.load(row + 1) != 0, g + tl.load(row + 1) * p, g)
    if MOMENTUM:
        b_ptr = stream(record, 2, start, S, ALIGNED) + offsets
        b = tl.load(b_ptr, mask=mask).to(tl.float32)
        b = tl.load(row + 2) * b + tl.load(row + 3) * g
        tl.store(b_ptr, b.to(S), mask=mask)
        g = tl.where(tl.load(row + 4) != 0, g + tl.load(row + 2) * b, b)
    p -= tl.load(row + 5) * g
    if MASTER:
        tl.store(master_ptr, p, mask=mask)
    tl.store(p_ptr, rounded(p, P, random, offsets), mask=mask)


@triton.jit
def sgd_kernel(
    records: tl.tensor,
    chunks: tl.tensor,
    rows: tl.tensor,
    grad_scale: tl.tensor,
    found_inf: tl.tensor,
    random: tl.tensor,
    P: tl.constexpr,
    G: tl.constexpr,
    S: tl.constexpr,
    MOMENTUM: tl.constexpr,
    MASTER: tl.constexpr,
    VECTOR: tl.constexpr,
    VECTOR_ONLY: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
) -> None:
    """Update one block of one tensor. A row holds sign, weight decay, momentum, 1 - dampening, nesterov, lr."""
    update_block(
        records,
        chunks,
        rows,
        grad_scale,
        found_inf,
        random,
        _sgd_elements,
        P,
        G,
        S,
        MOMENTUM,
        MASTER,
        VECTOR,
        VECTOR_ONLY,
        BLOCK_SIZE,
    )


_SCALARS = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")


def _host_row(group: Group, first: bool = False) -> tuple[float, ...]:
    """Return a group's scalars where all are on the host. No dict is built, because that would double the time."""
    return sgd_row(  # type: ignore[return-value]
        host_value(group["lr"]),
        group["momentum"],
        group["dampening"],
        host_value(group["weight_decay"]),
        group["nesterov"],
        group["maximize"],
        first,
    )


def sgd_row(
    lr: float | Tensor,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float | Tensor = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    first: bool = False,
) -> tuple[float | Tensor, ...]:
    """Return the scalars of one update, in the kernel's order.

    Args:
        lr: learning rate.
        momentum: the factor of the buffer.
        dampening: 1 minus the factor of the gradient in the buffer.
        weight_decay: L2 penalty.
        nesterov: Nesterov momentum.
        maximize: ascend.
        first: the buffer is new and all zeros, so the gradient enters it undamped.

    Example:
        >>> sgd_row(0.1, momentum=0.9, dampening=0.5, first=True)
        (1.0, 0.0, 0.9, 1.0, 0.0, 0.1)
    """
    kept = 1.0 if first else 1.0 - dampening
    return (-1.0 if maximize else 1.0, weight_decay, momentum, kept, float(nesterov), lr)


def sgd_reference_(
    streams: Sequence[Tensor],
    row: Row,
    scale: LossScale | None = None,
    master: bool = False,
    generator: torch.Generator | None = None,
) -> None:
    """Update one parameter with plain PyTorch, in fp32 (fp64 for fp64), each result rounded once.

    Args:
        streams: parameter, gradient, with momentum the buffer, and the master, in any layout.
        row: see `sgd_row`.
        scale: the loss scale, if there is one.
        master: whether the last stream is the parameter's fp32 master.
        generator: rounds the bf16 parameter stochastically.

    Mutates: the parameter and the buffer.

    Example:
        >>> p, g = torch.ones(2), torch.full((2,), 2.0)
        >>> sgd_reference_((p, g), sgd_row(0.25))
        >>> p
        tensor([0.5000, 0.5000])
    """
    scale = scale or LossScale(None, None)
    sign, weight_decay, momentum, kept, nesterov, lr = row
    param, grad, *buffers = streams[:-1] if master else streams
    dtype = working_dtype(param)
    p = unrounded_parameter(param, streams[-1]) if master else param.to(dtype)
    g = penalised(scaled_gradient(grad, dtype, sign, scale), p, weight_decay)
    for buffer in buffers:
        b = momentum * buffer.to(dtype) + kept * g
        write(buffer, b, scale)
        g = g + momentum * b if nesterov else b
    p = p - lr * g
    if master:
        write(streams[-1], p, scale)
    write(param, p, scale, generator)


class FusedSGD(FusedStep, torch.optim.SGD):
    """`torch.optim.SGD` with one launch for all parameters. Arguments, states and checkpoints are torch's.

    Maths: see the head of this module.

    Args:
        params: tensors or groups. Those in fp32, fp16 or bf16 take the kernel, fp64 and gapped layouts plain PyTorch.
        lr: a number or a one-element tensor. A tensor on the GPU is read there.
        momentum, dampening, weight_decay, nesterov, maximize: as in torch.optim.SGD.
        foreach, fused: of torch.optim.SGD, None or False here.
        differentiable: False.
        master_weights: keep an fp32 copy of every fp16 or bf16 parameter, as state "master", and an fp32 buffer.
            Updates too small for the parameter's dtype accumulate there. The parameter is the master, rounded.
        stochastic_rounding: round bf16 parameters up or down at random, without bias. Updates too small for bf16 then
            move them on average, without a copy. See `kernels.optimizers.rounding`.

    Memory: traffic of 12 bytes per fp32 parameter, 20 with momentum. It is half of that per 16-bit one, and 14 and 22
        with a master.
    Raises:
        ValueError: an argument is out of range or not supported.

    With a GradScaler, the first step with both momentum and dampening reads `found_inf` on the host. A buffer that is
    still new takes the whole of the next gradient.

    Example:
        >>> p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> optimizer = FusedSGD([p], lr=0.5)
        >>> p.grad = torch.tensor([1.0, 1.0])
        >>> optimizer.step()
        >>> p.tolist()
        [0.5, 1.5]

    Source: Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning", in torch's form.
    """

    _kernel = sgd_kernel

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        master_weights: bool = False,
        stochastic_rounding: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=maximize,
            foreach=foreach,
            differentiable=differentiable,
            fused=fused,
            master_weights=master_weights,
            stochastic_rounding=stochastic_rounding,
        )

    def _begin(self, group: Group, params: list[Tensor], grads: list[Tensor], scale: LossScale) -> Work:
        """Create missing buffers. A new one takes the gradient undamped, so it has a row of its own."""
        columns = [params, grads]
        is_new = [False] * len(params)
        has_states = group["momentum"] != 0 or self.master_weights
        states = list(map(self.state.__getitem__, params)) if has_states else []
        if group["momentum"] != 0:
            buffers = [state.get("momentum_buffer") for state in states]
            is_new = [buffer is None for buffer in buffers]
            if any(is_new):
                if group["dampening"] != 0 and scale.found_inf is not None and scale.found_inf.item():
                    return Work([[], [], []], [], [])
                for p, state, new in zip(params, states, is_new, strict=True):
                    if new:
                        state["momentum_buffer"] = self._zeros_like(p)
                buffers = [state["momentum_buffer"] for state in states]
            columns.append(buffers)
        columns += self._masters(params, states)
        if group["dampening"] == 0 or not any(is_new):
            return Work(columns, [self._row(group, False, params[0].device)], [0] * len(params))
        rows = [self._row(group, first, params[0].device) for first in (False, True)]
        return Work(columns, rows, [int(new) for new in is_new])

    def _ready_states(self, group: Group, params: list[Tensor]) -> list[list[Tensor]] | None:
        """Return the buffers if every parameter has one."""
        if is_on_device(group["lr"]) or is_on_device(group["weight_decay"]):
            return None
        if group["momentum"] == 0:
            return []
        buffers = [self.state[p].get("momentum_buffer") for p in params]
        return None if any([b is None for b in buffers]) else [buffers]  # noqa: C419  a generator costs more

    def _next_row(self, group: Group, params: list[Tensor]) -> tuple[float, ...]:
        return _host_row(group)

    def _row(self, group: Group, first: bool, device: torch.device) -> Row:
        """Return the group's scalars, as a tensor when one of them is on a device."""
        if is_on_device(group["lr"]) or is_on_device(group["weight_decay"]):
            values = {name: group[name] for name in _SCALARS}
            return device_rows(sgd_row(**values, first=first), 1, device)[0]
        return _host_row(group, first)

    def _constants(self, dtypes: Sequence[torch.dtype]) -> dict[str, Any]:
        """Return the kernel's constexprs: the dtypes of the streams, whether there are a buffer and a master."""
        return sgd_constants(dtypes, self._keeps_master(dtypes[0]))

    def _torch_step(self, group: Group, work: Work) -> None:
        sign, weight_decay, momentum, kept, nesterov, lr = work.rows[0]
        torch._fused_sgd_(
            work.columns[0],
            work.columns[1],
            work.columns[2] if momentum else [],
            weight_decay=weight_decay,
            momentum=momentum,
            lr=lr,
            dampening=1.0 - kept,
            nesterov=bool(nesterov),
            maximize=sign < 0,
            is_first_step=False,
        )

    def _plain_step(self, streams: Sequence[Tensor], row: Row, scale: LossScale) -> None:
        p = streams[0]
        sgd_reference_(streams, row, scale, self._keeps_master(p.dtype), self._generator(p))


def sgd_constants(dtypes: Sequence[torch.dtype], master: bool = False) -> dict[str, Any]:
    """Return the kernel's constexprs for streams of these dtypes: parameter, gradient, perhaps buffer and master."""
    p, g, s = (TRITON_TYPES[dtype] for dtype in (*dtypes, torch.float32)[:3])
    return {"P": p, "G": g, "S": s, "MOMENTUM": len(dtypes) - master == 3, "MASTER": master}


def sgd_(streams: Sequence[Tensor] | Sequence[Sequence[Tensor]], row: Row, table: MultiTensorTable) -> None:
    """Update one parameter or many by one launch, or with the reference where no kernel can run.

    Args:
        streams: parameter, gradient and, with momentum, the buffer: `is_flat`, on one device.
            Each may also be a list, with a tensor for each of many parameters.
        row: see `sgd_row`.
        table: made once for these dtypes and this device.

    Mutates: the parameters and the buffers.
    """
    columns = [[each] if isinstance(each, Tensor) else each for each in streams]
    if path_of(sgd_kernel, columns[0][0].device) == "torch":
        for tensors in zip(*columns, strict=True):
            sgd_reference_(tensors, row)
        return
    table.update(columns, [0] * len(columns[0]), [row])
    table.launch(sgd_kernel, **sgd_constants([column[0].dtype for column in columns]))


def _reference(streams: Sequence[Tensor], row: Row, table: MultiTensorTable) -> None:
    """The same as `sgd_`, in plain PyTorch."""
    sgd_reference_(streams, row)


def _inputs(count: int, elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Any]:
    """Make `count` random streams and the scalars of an ordinary step."""
    generator = torch.Generator().manual_seed(seed)
    streams = [torch.randn(elements, generator=generator).to(device, dtype) for _ in range(count)]
    row = sgd_row(0.1, momentum=0.9 if count == 3 else 0.0, weight_decay=5e-4)
    return {"streams": streams, "row": row, "table": kept_table((dtype,) * count, device)}


def _bytes_moved(inputs: dict[str, Any]) -> int:
    """Each stream is read once, and each except the gradient is written once."""
    return sum((1 if i == 1 else 2) * tensor.nbytes for i, tensor in enumerate(inputs["streams"]))


def _static_cases(
    name: str, dtypes: Sequence[torch.dtype], stochastic: bool = False
) -> tuple[StaticCase, ...]:
    """Describe one specialisation, for whole vectors and for any tensors."""
    constants = sgd_constants(dtypes)
    return tuple(
        static_case(name, sgd_kernel, dtypes, constants, vector_only, stochastic)
        for vector_only in (True, False)
    )


_FP32, _BF16 = torch.float32, torch.bfloat16
STATIC_CASES = (
    *_static_cases("sgd-fp32", [_FP32] * 2),
    *_static_cases("sgd-bf16", [_BF16] * 2),
    *_static_cases("momentum-fp32", [_FP32] * 3),
    *_static_cases("momentum-bf16", [_BF16] * 3),
    *_static_cases("momentum-bf16-stochastic", [_BF16] * 3, stochastic=True),
    *_static_cases("momentum-fp32-bf16-gradient", [_FP32, _BF16, _FP32]),
)


def _kernel(name: str, count: int) -> Kernel:
    """Describe the kernel with (three streams) or without (two) momentum."""
    return Kernel(
        name=name,
        family="optimizer",
        fused=sgd_,
        reference=_reference,
        make_inputs=lambda elements, dtype, device, seed: _inputs(count, elements, dtype, device, seed),
        bytes_moved=_bytes_moved,
        mutates=("streams",),
        configs=whole_elementwise_space(UNIFORM),
        static_cases=tuple(case for case in STATIC_CASES if case.name.startswith(f"{name}-")),
    )


SGD: Kernel = _kernel("sgd", 2)
MOMENTUM: Kernel = _kernel("momentum", 3)
