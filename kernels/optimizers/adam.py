"""Adam and AdamW, with AMSGrad: one launch for all parameters.

    g = sign * gradient / loss_scale (+ weight_decay * p   for Adam)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g^2              (with amsgrad: vmax = max(vmax, v), used instead of v below)
    p = p (1 - lr * weight_decay   for AdamW) - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)

1 - beta and the corrections are computed in double, because 1 - 0.999 in fp32 has a relative error of 1.3e-5.
Bytes per fp32 parameter: 28 (p, g, m, v are read, p, m, v written), 36 with amsgrad.
"""

# Triton: constexprs in capitals.
# ruff: noqa: N803
from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from fusetune.errors import StateError
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

# Read for every parameter at every step, so by C functions alone.
_IS_CPU, _DEVICE, _DTYPE = map(attrgetter, ("is_cpu", "device", "dtype"))
_FEW = 8  # counts that Python increments faster than NumPy


@triton.jit
def _adam_elements(
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
    AMSGRAD: tl.constexpr,
    MASTER: tl.constexpr,
    SIZE: tl.constexpr,
    ALIGNED: tl.constexpr,
) -> None:
    """Update SIZE elements of one block from `begin` on, none past `end`."""
    offsets = begin + tl.arange(0, SIZE)
    mask = offsets < end
    p_ptr = stream(record, 0, start, P, ALIGNED) + offsets
    m_ptr = stream(record, 2, start, S, ALIGNED) + offsets
    v_ptr = stream(record, 3, start, S, ALIGNED) + offsets
    p = tl.load(p_ptr, mask=mask).to(tl.float32)
    g = tl.load(stream(record, 1, start, G, ALIGNED) + offsets, mask=mask).to(tl.float32) * factor
    m = tl.load(m_ptr, mask=mask).to(tl.float32)
    v = tl.load(v_ptr, mask=mask).to(tl.float32)
    if MASTER:
        master_ptr = stream(record, 4 + AMSGRAD, start, tl.float32, ALIGNED) + offsets
        p = unrounded(p, tl.load(master_ptr, mask=mask), P)
    # Without a penalty, 0 times an infinite parameter must not make NaN.
    g = tl.where(tl.load(row + 1) != 0, g + tl.load(row + 1) * p, g)
    p *= tl.load(row + 2)
    m += tl.load(row + 3) * (g - m)
    v = tl.load(row + 4) * v + tl.load(row + 5) * g * g
    tl.store(m_ptr, m.to(S), mask=mask)
    tl.store(v_ptr, v.to(S), mask=mask)
    if AMSGRAD:
        largest_ptr = stream(record, 4, start, S, ALIGNED) + offsets
        largest = tl.load(largest_ptr, mask=mask).to(tl.float32)
        v = tl.maximum(largest, v, propagate_nan=tl.PropagateNan.ALL)
        tl.store(largest_ptr, v.to(S), mask=mask)
    p -= tl.load(row + 7) * (m / (tl.sqrt(v) * tl.load(row + 6) + tl.load(row + 8)))
    if MASTER:
        tl.store(master_ptr, p, mask=mask)
    tl.store(p_ptr, rounded(p, P, random, offsets), mask=mask)


@triton.jit
def adam_kernel(
    records: tl.tensor,
    chunks: tl.tensor,
    rows: tl.tensor,
    grad_scale: tl.tensor,
    found_inf: tl.tensor,
    random: tl.tensor,
    P: tl.constexpr,
    G: tl.constexpr,
    S: tl.constexpr,
    AMSGRAD: tl.constexpr,
    MASTER: tl.constexpr,
    VECTOR: tl.constexpr,
    VECTOR_ONLY: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
) -> None:
    """Update one block of one tensor. A row holds the scalars of `adam_row`."""
    update_block(
        records,
        chunks,
        rows,
        grad_scale,
        found_inf,
        random,
        _adam_elements,
        P,
        G,
        S,
        AMSGRAD,
        MASTER,
        VECTOR,
        VECTOR_ONLY,
        BLOCK_SIZE,
    )


def adam_row(
    step: float | Tensor,
    lr: float | Tensor,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    maximize: bool = False,
) -> tuple[float | Tensor, ...]:
    """Return the scalars of one update, in the kernel's order.

    Sign, L2 penalty, 1 - decay, 1 - beta1, beta2, 1 - beta2, 1 / sqrt(1 - beta2^step), lr / (1 - beta1^step), eps.

    Args:
        step: from 1 on. An fp64 tensor gives columns for many steps.
        lr: learning rate.
        betas: decay rates of the two moments, each in [0, 1).
        eps: added to the denominator.
        weight_decay: L2 penalty, or decay of the parameter itself when `decoupled`.
        decoupled: AdamW.
        maximize: ascend.

    Example:
        >>> adam_row(1.0, 0.5, betas=(0.5, 0.75), decoupled=True)
        (1.0, 0.0, 1.0, 0.5, 0.75, 0.25, 2.0, 1.0, 1e-08)
    """
    beta1, beta2 = betas
    return (
        -1.0 if maximize else 1.0,
        0.0 if decoupled else weight_decay,
        1.0 - lr * weight_decay if decoupled else 1.0,
        1.0 - beta1,
        beta2,
        1.0 - beta2,
        (1.0 - beta2**step) ** -0.5,
        lr / (1.0 - beta1**step),
        eps,
    )


def adam_reference_(
    streams: Sequence[Tensor],
    row: Row,
    scale: LossScale | None = None,
    master: bool = False,
    generator: torch.Generator | None = None,
) -> None:
    """Update one parameter with plain PyTorch, in fp32 (fp64 for fp64), each result rounded once.

    Args:
        streams: parameter, gradient, exp_avg, exp_avg_sq, with amsgrad max_exp_avg_sq, and the master, in any layout.
        row: see `adam_row`.
        scale: the loss scale, if there is one.
        master: whether the last stream is the parameter's fp32 master.
        generator: rounds the bf16 parameter stochastically.

    Mutates: the parameter and its states.

    Example:
        >>> p, g = torch.ones(2), torch.tensor([3.0, -3.0])
        >>> adam_reference_((p, g, torch.zeros(2), torch.zeros(2)), adam_row(1.0, lr=0.25))
        >>> p
        tensor([0.7500, 1.2500])
    """
    scale = scale or LossScale(None, None)
    sign, penalty, kept, weight, beta2, new, correction, step_size, eps = row
    param, grad, exp_avg, exp_avg_sq, *largest = streams[:-1] if master else streams
    dtype = working_dtype(param)
    p = unrounded_parameter(param, streams[-1]) if master else param.to(dtype)
    g = penalised(scaled_gradient(grad, dtype, sign, scale), p, penalty)
    p = p * kept
    m = exp_avg.to(dtype)
    m = m + weight * (g - m)
    v = beta2 * exp_avg_sq.to(dtype) + new * g * g
    write(exp_avg, m, scale)
    write(exp_avg_sq, v, scale)
    for maximum in largest:
        v = torch.maximum(maximum.to(dtype), v)
        write(maximum, v, scale)
    p = p - step_size * (m / (v.sqrt() * correction + eps))
    if master:
        write(streams[-1], p, scale)
    write(param, p, scale, generator)


class FusedAdam(FusedStep, torch.optim.Adam):
    """`torch.optim.Adam` with one launch for all parameters. Arguments, states and checkpoints are torch's.

    Maths: see the head of this module.

    Args:
        params: tensors or groups. Those in fp32, fp16 or bf16 take the kernel, fp64 and gapped layouts plain PyTorch.
        lr: a number or a one-element tensor. A tensor on the GPU is read there.
        betas, eps, weight_decay, amsgrad, maximize, decoupled_weight_decay: as in torch.optim.Adam.
        capturable: keep the step count and its corrections on the device, for a CUDA graph.
        foreach, fused: of torch.optim.Adam, None or False here.
        differentiable: False.
        master_weights: keep an fp32 copy of every fp16 or bf16 parameter, as state "master", and fp32 moments. Updates
            too small for the parameter's dtype accumulate there. The parameter is the master, rounded.
        stochastic_rounding: round bf16 parameters up or down at random, without bias. Updates too small for bf16 then
            move them on average, without a copy. See `kernels.optimizers.rounding`.

    Memory: traffic of 28 bytes per fp32 parameter, 36 with amsgrad. It is 14 and 18 per 16-bit one, 30 with a master.
    Raises:
        ValueError: an argument is out of range or not supported.

    Example:
        >>> p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> optimizer = FusedAdam([p], lr=0.5)
        >>> p.grad = torch.tensor([3.0, -3.0])
        >>> optimizer.step()
        >>> [round(value, 6) for value in p.tolist()]
        [0.5, 2.5]

    Source: Kingma and Ba 2015, "Adam", algorithm 1. Reddi et al. 2018, "On the Convergence of Adam and Beyond".
    """

    _kernel = adam_kernel

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        master_weights: bool = False,
        stochastic_rounding: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=decoupled_weight_decay,
            master_weights=master_weights,
            stochastic_rounding=stochastic_rounding,
        )

    def _begin(self, group: Group, params: list[Tensor], grads: list[Tensor], scale: LossScale) -> Work:
        """Create missing states and count the step. Each different step count has a row."""
        names = ("step", "exp_avg", "exp_avg_sq") + (("max_exp_avg_sq",) if group["amsgrad"] else ())
        states = list(map(self.state.__getitem__, params))
        try:
            counts, *moments = ([state[name] for state in states] for name in names)
        except KeyError:
            for p in params:
                self._create_state(group, p)
            counts, *moments = ([state[name] for state in states] for name in names)
        columns = [params, grads, *moments, *self._masters(params, states)]
        if self._counts_on_device(group, counts, scale):
            rows = self._rows_on_device(group, states, counts, params[0].device, scale)
            return Work(columns, rows, list(range(len(params))))
        if params[0].is_cuda and torch.cuda.is_current_stream_capturing():
            raise StateError(
                type(self).__name__,
                "a CUDA graph is being captured with capturable=False",
                "every replay would count the same step",
                "Pass capturable=True",
            )
        # The key is only a hint, because the counter compares addresses itself.
        values = self._counters.setdefault(id(params[0]), _Counter()).count(states, counts)
        if values.count(values[0]) == len(values):
            return Work(columns, [self._row(group, values[0])], [0] * len(values))
        different = sorted(set(values))
        host_rows: list[Row] = [self._row(group, value) for value in different]
        place = {value: index for index, value in enumerate(different)}
        return Work(columns, host_rows, [place[value] for value in values])

    def _ready_states(self, group: Group, params: list[Tensor]) -> list[list[Tensor]] | None:
        """Return the moments if all states exist and the parameters have been counted together, on the host."""
        counter = self._counters.get(id(params[0]))
        if counter is None or group["capturable"] or is_on_device(group["lr"]):
            return None
        states = list(map(self.state.__getitem__, params))
        try:
            moments = [[state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states]]
            if group["amsgrad"]:
                moments.append([state["max_exp_avg_sq"] for state in states])
            return moments if counter.counts_alike([state["step"] for state in states]) else None
        except KeyError:
            return None

    def _next_row(self, group: Group, params: list[Tensor]) -> tuple[float, ...]:
        row: tuple[float, ...] = self._row(group, self._counters[id(params[0])].count_alike())
        return row

    @cached_property
    def _counters(self) -> dict[int, _Counter]:
        """The counters by the identity of their first parameter. A copy of the optimizer makes its own."""
        return {}

    def _create_state(self, group: Group, p: Tensor) -> None:
        """Create the states of torch's Adam for a parameter, if they are missing."""
        state = self.state[p]
        if not state:
            dtype = torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32
            state["step"] = torch.zeros((), dtype=dtype, device=p.device if group["capturable"] else "cpu")
            state["exp_avg"] = self._zeros_like(p)
            state["exp_avg_sq"] = self._zeros_like(p)
        if group["amsgrad"] and "max_exp_avg_sq" not in state:
            state["max_exp_avg_sq"] = self._zeros_like(p)

    @staticmethod
    def _counts_on_device(group: Group, counts: list[Tensor], scale: LossScale) -> bool:
        """Return whether the host must not read the step counts: a graph, a scaler that may skip, or a checkpoint."""
        return (
            group["capturable"]
            or scale.found_inf is not None
            or is_on_device(group["lr"])
            or not all(map(_IS_CPU, counts))
        )

    def _rows_on_device(
        self,
        group: Group,
        states: list[dict[str, Any]],
        counts: list[Tensor],
        device: torch.device,
        scale: LossScale,
    ) -> Tensor:
        """Count the step on the device, where it is taken, and compute the scalars there in fp64."""
        if set(map(_DEVICE, counts)) != {device}:
            counts = [count.to(device, non_blocking=True) for count in counts]
            for state, count in zip(states, counts, strict=True):
                state["step"] = count
        torch._foreach_add_(counts, 1.0)
        if scale.found_inf is not None:
            torch._foreach_sub_(
                counts, [(scale.found_inf.reshape(()) != 0).to(counts[0].dtype)] * len(counts)
            )
        columns = self._row(group, torch.stack(counts).double())
        return device_rows(columns, len(counts), device)

    @staticmethod
    def _row(group: Group, step: Any) -> Any:
        """Return the group's scalars after `step` steps, as columns when the steps are a tensor."""
        lr = group["lr"]
        if isinstance(step, Tensor) and isinstance(lr, Tensor):
            lr = lr.to(step.device, torch.float64).reshape(())
        beta1, beta2 = group["betas"]
        return adam_row(
            step,
            lr if isinstance(step, Tensor) else host_value(lr),
            betas=(host_value(beta1), host_value(beta2)),
            eps=group["eps"],
            weight_decay=host_value(group["weight_decay"]),
            decoupled=group["decoupled_weight_decay"],
            maximize=group["maximize"],
        )

    def _constants(self, dtypes: Sequence[torch.dtype]) -> dict[str, Any]:
        """Return the kernel's constexprs: the streams' dtypes, whether there are a running maximum and a master."""
        return adam_constants(dtypes, self._keeps_master(dtypes[0]))

    def _torch_step(self, group: Group, work: Work) -> None:
        beta1, beta2 = group["betas"]
        function = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        function(
            work.columns[0],
            work.columns[1],
            work.columns[2],
            work.columns[3],
            work.columns[4] if group["amsgrad"] else [],
            [self.state[p]["step"] for p in work.columns[0]],
            lr=host_value(group["lr"]),
            beta1=host_value(beta1),
            beta2=host_value(beta2),
            weight_decay=host_value(group["weight_decay"]),
            eps=group["eps"],
            amsgrad=group["amsgrad"],
            maximize=group["maximize"],
        )

    def _plain_step(self, streams: Sequence[Tensor], row: Row, scale: LossScale) -> None:
        p = streams[0]
        adam_reference_(streams, row, scale, self._keeps_master(p.dtype), self._generator(p))


class FusedAdamW(FusedAdam, torch.optim.AdamW):
    """`torch.optim.AdamW` with one launch for all parameters: `FusedAdam` with decoupled weight decay.

    Args:
        params, lr, betas, eps, amsgrad, maximize, capturable: as in `FusedAdam`.
        weight_decay: each step multiplies the parameters by 1 - lr * weight_decay.
        foreach, fused, differentiable, master_weights, stochastic_rounding: as in `FusedAdam`.

    Memory: traffic of 28 bytes per fp32 parameter, 36 with amsgrad. It is 14 and 18 per 16-bit one, 30 with a master.

    Example:
        >>> p = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = FusedAdamW([p], lr=0.5, weight_decay=0.5)
        >>> p.grad = torch.tensor([0.0])
        >>> optimizer.step()
        >>> p.tolist()
        [0.75]

    Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        master_weights: bool = False,
        stochastic_rounding: bool = False,
    ) -> None:
        FusedStep.__init__(
            self,
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            master_weights=master_weights,
            stochastic_rounding=stochastic_rounding,
        )


class _Counter:
    """The step counts of a group on the host, contiguous in one array.

    Its elements are the `step` states of torch's format, so one addition replaces one for each parameter. Counts
    elsewhere (loaded, or of a late gradient) are moved into it. The array is kept alive, so that no other tensor can
    have its addresses.
    """

    def __init__(self) -> None:
        self._dtype: torch.dtype | None = None
        self._addresses: list[int] = []
        self._values: Any = np.empty(0)
        self._view: Any = self._values.data

    def count(self, states: Sequence[dict[str, Any]], counts: list[Tensor]) -> list[float]:
        """Add one to the counts and return them.

        Mutates: the states whose counts are moved.
        """
        if not self._holds(counts):
            self._bring_together(states, counts)
        self._add_one()
        new: list[float] = self._values.tolist()
        return new

    def counts_alike(self, counts: list[Tensor]) -> bool:
        """Return whether these are the counts of this array, all of one value."""
        values = self._values.tolist()
        return self._holds(counts) and values.count(values[0]) == len(values)

    def count_alike(self) -> float:
        """Add one to the counts, which are all of one value, and return it."""
        self._add_one()
        return float(self._values[0])

    def _add_one(self) -> None:
        if len(self._values) > _FEW:
            self._values += 1
            return
        values = self._view
        for i, value in enumerate(values):
            values[i] = value + 1.0

    def _holds(self, counts: list[Tensor]) -> bool:
        """Return whether these are the counts of this array.

        The array is kept alive, and on the host, so comparing addresses suffices.
        """
        if list(map(Tensor.data_ptr, counts)) != self._addresses:
            return False
        return list(map(_DTYPE, counts)).count(self._dtype) == len(counts)

    def _bring_together(self, states: Sequence[dict[str, Any]], counts: list[Tensor]) -> None:
        """Replace the count of every state by an element of one new tensor."""
        together = torch.stack(counts)
        together = together.to(torch.promote_types(together.dtype, torch.float32))
        counts = list(together.unbind())
        for state, count in zip(states, counts, strict=True):
            state["step"] = count
        self._dtype = together.dtype
        self._addresses = list(map(Tensor.data_ptr, counts))
        self._values = together.numpy()
        self._view = self._values.data


def adam_constants(dtypes: Sequence[torch.dtype], master: bool = False) -> dict[str, Any]:
    """Return the kernel's constexprs for streams of these dtypes. The last one may be the master."""
    p, g, s = (TRITON_TYPES[dtype] for dtype in dtypes[:3])
    return {"P": p, "G": g, "S": s, "AMSGRAD": len(dtypes) - master == 5, "MASTER": master}


def adam_(streams: Sequence[Tensor] | Sequence[Sequence[Tensor]], row: Row, table: MultiTensorTable) -> None:
    """Update one parameter or many by one launch, or with the reference where no kernel can run.

    Args:
        streams: parameter, gradient, exp_avg, exp_avg_sq and, with amsgrad, max_exp_avg_sq: `is_flat`, on one device.
            Each may also be a list, with a tensor for each of many parameters.
        row: see `adam_row`.
        table: made once for these dtypes and this device.

    Mutates: the parameters and their states.
    """
    columns = [[each] if isinstance(each, Tensor) else each for each in streams]
    if path_of(adam_kernel, columns[0][0].device) == "torch":
        for tensors in zip(*columns, strict=True):
            adam_reference_(tensors, row)
        return
    table.update(columns, [0] * len(columns[0]), [row])
    table.launch(adam_kernel, **adam_constants([column[0].dtype for column in columns]))


def _reference(streams: Sequence[Tensor], row: Row, table: MultiTensorTable) -> None:
    """The same as `adam_`, in plain PyTorch."""
    adam_reference_(streams, row)


def _inputs(
    decoupled: bool, elements: int, dtype: torch.dtype, device: torch.device, seed: int
) -> dict[str, Any]:
    """Make random streams and the scalars of the tenth step."""
    generator = torch.Generator().manual_seed(seed)
    p, g, m, v = (torch.randn(elements, generator=generator) for _ in range(4))
    streams = [tensor.to(device, dtype) for tensor in (p, g, m, v.square())]
    row = adam_row(10.0, 1e-3, weight_decay=1e-2, decoupled=decoupled)
    return {"streams": streams, "row": row, "table": kept_table((dtype,) * 4, device)}


def _bytes_moved(inputs: dict[str, Any]) -> int:
    """Each stream is read once, and each except the gradient is written once."""
    return sum((1 if i == 1 else 2) * tensor.nbytes for i, tensor in enumerate(inputs["streams"]))


def _static_cases(
    name: str, dtypes: Sequence[torch.dtype], master: bool = False, stochastic: bool = False
) -> tuple[StaticCase, ...]:
    """Describe one specialisation, for whole vectors and for any tensors."""
    constants = adam_constants(dtypes, master)
    return tuple(
        static_case(name, adam_kernel, dtypes, constants, vector_only, stochastic)
        for vector_only in (True, False)
    )


_FP32, _BF16 = torch.float32, torch.bfloat16
STATIC_CASES = (
    *_static_cases("adam-fp32", [_FP32] * 4),
    *_static_cases("adam-bf16", [_BF16] * 4),
    *_static_cases("amsgrad-fp32", [_FP32] * 5),
    *_static_cases("amsgrad-bf16", [_BF16] * 5),
    *_static_cases("adam-bf16-master", [_BF16] * 2 + [_FP32] * 3, master=True),
    *_static_cases("adam-bf16-stochastic", [_BF16] * 4, stochastic=True),
    *_static_cases("adam-fp32-bf16-gradient", [_FP32, _BF16, _FP32, _FP32]),
)


def _kernel(name: str, decoupled: bool, static_cases: tuple[StaticCase, ...]) -> Kernel:
    """Describe the kernel as Adam or as AdamW. Both are the same machine code."""
    return Kernel(
        name=name,
        family="optimizer",
        fused=adam_,
        reference=_reference,
        make_inputs=lambda elements, dtype, device, seed: _inputs(decoupled, elements, dtype, device, seed),
        bytes_moved=_bytes_moved,
        mutates=("streams",),
        configs=whole_elementwise_space(UNIFORM),
        static_cases=static_cases,
    )


ADAM: Kernel = _kernel("adam", False, STATIC_CASES)
ADAMW: Kernel = _kernel("adamw", True, ())
