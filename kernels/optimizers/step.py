"""The common part of the fused optimizers: gathering, the choice of path, one launch per dtype combination.

A class puts `FusedStep` in front of torch's own optimizer, which keeps its constructor, its checks and its state_dict.
So checkpoints are exchanged in both directions.

    kernel path   one launch for all parameters of a device and dtype combination, whatever their groups
    torch's step  torch's own fused CPU kernel, where it is right: fp32 and fp64, flat layouts, no loss scaling
    plain step    plain PyTorch for one parameter: any layout, any floating dtype, any device. It is the reference too
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from operator import attrgetter
from typing import Any, ClassVar

import torch
from torch import Tensor

from fusetune.errors import InvalidTypeError, InvalidValueError
from fusetune.kernels.launch import PATHS, Path, lies_in_memory, path_of
from fusetune.kernels.optimizers.rounding import RandomSource, stochastically_rounded
from fusetune.kernels.optimizers.tables import (
    TRITON_TYPES,
    MultiTensorTable,
    flat_combinations,
    is_being_captured,
)

_NARROW = (torch.float16, torch.bfloat16)
_GRAD, _LAYOUT, _DEVICE, _DTYPE = map(attrgetter, ("grad", "layout", "device", "dtype"))
_IS_CPU = attrgetter("is_cpu")

_increment_version = torch.autograd.graph.increment_version

Row = Sequence[float] | Tensor
Group = dict[str, Any]


@dataclass(frozen=True)
class LossScale:
    """The state that a GradScaler sets: gradients are divided by `grad_scale`, and `found_inf` skips the step."""

    grad_scale: Tensor | None
    found_inf: Tensor | None

    def on(self, device: torch.device) -> LossScale:
        """Return the same with both tensors on `device`."""
        if self.is_idle:
            return self
        both = (self.grad_scale, self.found_inf)
        return LossScale(*(t if t is None else t.to(device, non_blocking=True) for t in both))

    @property
    def is_idle(self) -> bool:
        """Whether no scaler takes part in this step."""
        return self.grad_scale is None and self.found_inf is None


@dataclass(frozen=True)
class Work:
    """The parameters of one group that have a gradient, of one device and dtype, with the data of their update.

    Args:
        columns: the parameters, their gradients, then each kind of state, with one tensor for each parameter in each.
        rows: scalars of an update, a row for each different one, or a table where the device computed them.
        row_of: for each parameter the index of its row.
    """

    columns: list[list[Tensor]]
    rows: list[Row] | Tensor
    row_of: list[int]


class _Bucket:
    """The updates of one launch: columns as in `Work`, gathered over groups."""

    def __init__(self, streams: int) -> None:
        self.columns: list[list[Tensor]] = [[] for _ in range(streams)]
        self.rows: list[Row] = []
        self.row_of: list[int] = []
        self._row_count = 0

    def add(self, work: Work, indices: Sequence[int]) -> None:
        """Add the parameters of `work` with these indices."""
        whole = len(indices) == len(work.row_of)
        for column, more in zip(self.columns, work.columns, strict=True):
            column += more if whole else [more[i] for i in indices]
        self.row_of += [work.row_of[i] + self._row_count for i in indices]
        self._row_count += len(work.rows)
        self.rows += [work.rows] if isinstance(work.rows, Tensor) else work.rows


@dataclass(frozen=True)
class _SingleLaunch:
    """The layout of a step that took one launch: contiguous tensors, on one device, each group with one row.

    A later step of the same layout needs no sorting. No tensor is known by identity: every step reads parameters,
    gradients, states and hyperparameters again, and compares addresses.

    Args:
        lengths: for each group with gradients, the number of tensors in each of its columns.
        dtypes, elements: of all tensors: group by group, column by column.
        addresses: of the same, when the table was last updated.
        row_of: as in `Work`.
        constants: the kernel's own constexprs.
    """

    device: torch.device
    table: MultiTensorTable
    lengths: list[list[int]]
    dtypes: list[torch.dtype]
    elements: list[int]
    addresses: list[int]
    row_of: list[int]
    constants: dict[str, Any]

    @cached_property
    def on_cpu(self) -> bool:
        """Whether the device is the CPU."""
        return self.device.type == "cpu"

    def addresses_if_alike(self, lengths: list[list[int]], tensors: list[Tensor]) -> list[int] | None:
        """Return the tensors' addresses if the layout is the same, else None."""
        try:
            alike = (
                lengths == self.lengths
                and list(map(_DTYPE, tensors)) == self.dtypes
                and self._are_here(tensors)
                and list(map(Tensor.numel, tensors)) == self.elements
                and all(map(Tensor.is_contiguous, tensors))
                and not any(map(Tensor.is_neg, tensors))
            )
            if not alike:
                return None
            addresses = list(map(Tensor.data_ptr, tensors))
        except RuntimeError:  # only strided tensors have an address
            return None
        # Empty tensors have the address 0, and so have nested ones, zeros without memory, and wrappers.
        if 0 in addresses and not all(map(lies_in_memory, tensors)):
            return None
        return addresses

    def _are_here(self, tensors: list[Tensor]) -> bool:
        """Return whether all tensors are on the device."""
        if self.on_cpu:  # avoids making a device object for each tensor
            return all(map(_IS_CPU, tensors))
        return list(map(_DEVICE, tensors)).count(self.device) == len(tensors)


class FusedStep(ABC):
    """The `step` of a fused optimizer. It precedes one of torch's optimizers in the list of bases.

    Args:
        params: as torch's.
        foreach, fused, differentiable: of torch's constructor, refused when True.
        master_weights: keep fp32 copies of 16-bit parameters.
        stochastic_rounding: round bf16 parameters stochastically. The seed is drawn from torch's global generator.
        options: the other arguments of torch's constructor.

    Raises:
        ValueError: an argument is not supported.
    """

    _step_supports_amp_scaling = True
    _kernel: ClassVar[Any]
    _torch_step_dtypes: ClassVar[tuple[torch.dtype, ...]] = (torch.float32, torch.float64)

    param_groups: list[Group]
    state: Any
    master_weights: bool = False
    _random_source: RandomSource | None = None
    _single_launch: _SingleLaunch | None = None

    def __init__(
        self,
        params: Any,
        *,
        foreach: bool | None,
        fused: bool | None,
        differentiable: bool,
        master_weights: bool,
        stochastic_rounding: bool,
        **options: Any,
    ) -> None:
        where = type(self).__name__
        _refuse(where, foreach, fused, differentiable)
        if stochastic_rounding and master_weights:
            raise InvalidValueError(
                where,
                "stochastic_rounding=True beside master_weights=True",
                "a master accumulates small updates, so rounding stays to nearest",
                "Choose one",
            )
        super().__init__(params, **options)  # type: ignore[call-arg]
        self.master_weights = master_weights
        if stochastic_rounding:
            self._random_source = RandomSource(int(torch.randint(2**62, ())))
            _refuse_without_bf16(where, [p for group in self.param_groups for p in group["params"]])

    @abstractmethod
    def _begin(self, group: Group, params: list[Tensor], grads: list[Tensor], scale: LossScale) -> Work:
        """Create the missing states, count the step and compute its scalars."""

    @abstractmethod
    def _ready_states(self, group: Group, params: list[Tensor]) -> list[list[Tensor]] | None:
        """Return the columns of states, masters aside, or None where `_begin` has more to do than count. Reads only."""

    @abstractmethod
    def _next_row(self, group: Group, params: list[Tensor]) -> tuple[float, ...]:
        """Count the step of parameters whose states are ready, and compute their scalars."""

    @abstractmethod
    def _constants(self, dtypes: Sequence[torch.dtype]) -> dict[str, Any]:
        """Return the kernel's constexprs for streams of these dtypes."""

    @abstractmethod
    def _torch_step(self, group: Group, work: Work) -> None:
        """Update with torch's own fused CPU kernel."""

    @abstractmethod
    def _plain_step(self, streams: Sequence[Tensor], row: Row, scale: LossScale) -> None:
        """Update one parameter with plain PyTorch."""

    def _keeps_master(self, dtype: torch.dtype) -> bool:
        """Return whether a parameter of this dtype has an fp32 master."""
        return self.master_weights and dtype in _NARROW

    def _source_for(self, dtype: torch.dtype) -> RandomSource | None:
        """Return the source of random bits for parameters of this dtype, or None."""
        return self._random_source if dtype == torch.bfloat16 else None

    def _generator(self, p: Tensor) -> torch.Generator | None:
        """Return the generator that rounds a parameter in plain PyTorch."""
        source = self._source_for(p.dtype)
        return None if source is None else source.generator(p.device)

    def _zeros_like(self, p: Tensor) -> Tensor:
        """Return a new state of the parameter's layout: fp32 beside a master, else of the parameter's dtype."""
        dtype = torch.float32 if self._keeps_master(p.dtype) else p.dtype
        return torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format)

    def _masters(self, params: list[Tensor], states: list[dict[str, Any]]) -> list[list[Tensor]]:
        """Return the column of masters, the missing ones created, or no column where there are none."""
        if not self.master_weights or not self._keeps_master(params[0].dtype):
            return []
        for p, state in zip(params, states, strict=True):
            if "master" not in state:
                state["master"] = p.detach().to(torch.float32)
        return [[state["master"] for state in states]]

    def __getstate__(self) -> dict[str, Any]:
        """Pickle torch's attributes and those of this class."""
        own = {"master_weights": self.master_weights, "_random_source": self._random_source}
        return {**super().__getstate__(), **own}  # type: ignore[misc]

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state and, with stochastic rounding, the position of its random bits.

        torch's classes load it and ignore the latter.
        """
        state_dict: dict[str, Any] = super().state_dict()  # type: ignore[misc]
        if self._random_source is not None:
            state_dict["stochastic_rounding"] = self._random_source.state_dict()
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint of this class or of torch's.

        torch rounds every state to the dtype of its parameter. Beside a master the saved values are taken instead.
        Masters are dropped without `master_weights`. Random bits continue at the checkpoint's position. Where it has
        none, they continue at the current one.

        Args:
            state_dict: as `state_dict` returned it.
        """
        super().load_state_dict(state_dict)  # type: ignore[misc]
        if self._random_source is not None and "stochastic_rounding" in state_dict:
            self._random_source.load_state_dict(state_dict["stochastic_rounding"])
        saved_ids = [saved for group in state_dict["param_groups"] for saved in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for saved_id, p in zip(saved_ids, params, strict=True):
            if not self._keeps_master(p.dtype):
                self.state.get(p, {}).pop("master", None)
                continue
            for name, value in state_dict["state"].get(saved_id, {}).items():
                if name != "step" and isinstance(value, Tensor):
                    self.state[p][name] = value.to(p.device, torch.float32, copy=True)

    @property
    def path(self) -> Path:
        """The path of the parameters: triton, triton-cpu, interpreter, or torch.

        A tensor that no kernel supports (fp64, gaps in its memory, a gradient in another layout) takes the plain step
        on every path.
        """
        params = [p for group in self.param_groups for p in group["params"]]
        paths = {path_of(self._kernel, p.device) for p in params}
        return next((path for path in PATHS if path in paths), "torch")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: evaluates the model again and returns the loss.

        Mutates: the parameters and their states. Gradients are only read.
        Raises:
            TypeError: a gradient is sparse, or a parameter is not real floating point.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self._repeat():
            with torch.no_grad():
                self._update()
        return loss

    def _update(self) -> None:
        """Do one step. Tensors for kernels are gathered over all groups, and the others are updated at once."""
        scale = LossScale(getattr(self, "grad_scale", None), getattr(self, "found_inf", None))
        self._single_launch = None
        works: list[Work] = []
        where = type(self).__name__
        buckets: dict[tuple[Any, ...], _Bucket] = {}
        for group in self.param_groups:
            _refuse_differentiable(where, group)
            for (device, _), (params, grads) in _with_gradient(where, group).items():
                here = scale.on(device)
                work = self._begin(group, params, grads, here)
                works.append(work)
                combinations = _combinations(work.columns)
                if path_of(self._kernel, device) != "torch":
                    self._gather(work, combinations, device, here, buckets)
                elif here.is_idle and self._fits_torch_step(work, combinations):
                    self._torch_step(group, work)
                    _increment_version(params)
                else:
                    self._plain_steps(work, range(len(work.row_of)), here)
        for (device, *dtypes), bucket in buckets.items():
            self._launch(device, dtypes, bucket, scale.on(device))
        if len(buckets) == 1:
            ((key, bucket),) = buckets.items()
            self._remember(works, bucket.row_of, self._tables[key], self._constants(key[1:]))

    def _remember(
        self, works: list[Work], row_of: list[int], table: MultiTensorTable, constants: dict[str, Any]
    ) -> None:
        """Keep the layout of this step for the next one, if that can be repeated."""
        if self.master_weights or self._random_source is not None:
            return
        tensors = [tensor for work in works for column in work.columns for tensor in column]
        if any(len(work.rows) != 1 for work in works) or not all(map(Tensor.is_contiguous, tensors)):
            return
        if len(row_of) == sum(len(work.row_of) for work in works):
            self._single_launch = _SingleLaunch(
                table.device,
                table,
                [list(map(len, work.columns)) for work in works],
                list(map(_DTYPE, tensors)),
                list(map(Tensor.numel, tensors)),
                [],
                row_of,
                constants,
            )

    def _repeat(self) -> bool:
        """Repeat the last step's launch if only addresses and scalars changed. Return whether it was repeated."""
        last = self._single_launch
        if last is None or self.master_weights or self._random_source is not None:
            return False
        own = self.__dict__  # a getattr of a missing attribute costs an exception
        if own.get("grad_scale") is not None or own.get("found_inf") is not None:
            return False
        table = last.table
        if not table.can_repeat() and (
            path_of(self._kernel, last.device) == "torch" or is_being_captured(last.device)
        ):
            return False
        tensors: list[Tensor] = []
        lengths: list[list[int]] = []
        parts: list[tuple[Group, list[list[Tensor]]]] = []
        for group in self.param_groups:
            params, grads = _params_and_grads(group)
            if params:
                states = self._ready_states(group, params)
                if states is None or group["differentiable"]:
                    return False
                columns = [params, grads, *states]
                parts.append((group, columns))
                lengths.append(list(map(len, columns)))
                for column in columns:
                    tensors += column
        addresses = last.addresses_if_alike(lengths, tensors)
        if addresses is None:
            return False
        rows = [self._next_row(group, columns[0]) for group, columns in parts]
        if addresses == last.addresses:
            table.update_host_rows(rows)
        else:
            by_column = zip(*(columns for _, columns in parts), strict=True)
            table.update([list(chain.from_iterable(column)) for column in by_column], last.row_of, rows)
            last.addresses[:] = addresses
        if not table.launch_again():
            table.launch(self._kernel, **last.constants)
        for _, columns in parts:
            _increment_version(columns[0])
        return True

    def _gather(
        self,
        work: Work,
        combinations: Mapping[Any, Sequence[int]],
        device: torch.device,
        scale: LossScale,
        buckets: dict[tuple[Any, ...], _Bucket],
    ) -> None:
        """Sort the parameters by device and dtypes. Those that no kernel supports are updated now."""
        for dtypes, indices in combinations.items():
            if dtypes is None or not all(map(TRITON_TYPES.__contains__, dtypes)):
                self._plain_steps(work, indices, scale)
                continue
            key = (device, *dtypes)
            if key not in buckets:
                buckets[key] = _Bucket(len(dtypes))
            buckets[key].add(work, indices)

    def _plain_steps(self, work: Work, indices: Sequence[int], scale: LossScale) -> None:
        """Update the parameters with these indices with plain PyTorch."""
        for i in indices:
            self._plain_step([column[i] for column in work.columns], work.rows[work.row_of[i]], scale)

    def _launch(
        self, device: torch.device, dtypes: Sequence[torch.dtype], bucket: _Bucket, scale: LossScale
    ) -> None:
        """Update all tensors of one device and dtype combination in one launch."""
        key = (device, *dtypes)
        if key not in self._tables:
            self._tables[key] = MultiTensorTable(dtypes, device)
        table = self._tables[key]
        table.update(bucket.columns, bucket.row_of, bucket.rows)
        source = self._source_for(dtypes[0])
        random = None if source is None else source.count(device)
        table.launch(self._kernel, scale.grad_scale, scale.found_inf, random, **self._constants(dtypes))
        if source is not None:
            source.advance(device)
        # Autograd does not see the kernels' writes.
        _increment_version(bucket.columns[0])

    @cached_property
    def _tables(self) -> dict[tuple[Any, ...], MultiTensorTable]:
        """The tables by device and dtypes. A copy of the optimizer makes its own."""
        return {}

    def _fits_torch_step(self, work: Work, combinations: Mapping[Any, Sequence[int]]) -> bool:
        """Return whether torch's fused CPU kernel is right for these tensors.

        In torch 2.13 its SGD is wrong in fp16 and bf16 from 16 elements on. Its AMSGrad, the only one with five streams
        here, loses a NaN in the gradient. Gaps and mixed layouts are wrong in all of them.
        """
        if len(combinations) != 1 or len(work.rows) != 1 or isinstance(work.rows[0], Tensor):
            return False
        if len(work.columns) > 4:
            return False
        first = work.columns[0][0]
        (dtypes,) = combinations
        return first.is_cpu and first.dtype in self._torch_step_dtypes and set(dtypes or ()) == {first.dtype}


def _refuse(where: str, foreach: bool | None, fused: bool | None, differentiable: bool) -> None:
    """Raise ValueError for a constructor argument that a fused optimizer does not support."""
    if foreach or fused:
        name = "foreach" if foreach else "fused"
        raise InvalidValueError(
            where,
            f"{name}=True picks one of torch's own implementations",
            "this class is one itself",
            "Leave it out",
        )
    _refuse_differentiable(where, {"differentiable": differentiable})


def _refuse_without_bf16(where: str, params: Sequence[Tensor]) -> None:
    """Raise ValueError when stochastic rounding would do nothing."""
    dtypes = sorted({str(p.dtype) for p in params})
    if "torch.bfloat16" not in dtypes:
        raise InvalidValueError(
            where,
            "stochastic_rounding=True rounds bfloat16 parameters only",
            f"these are {', '.join(dtypes)}",
            "Leave it out, or cast the model first",
        )


def _refuse_differentiable(where: str, group: Group) -> None:
    """Raise ValueError when autograd is to run through the step."""
    if group["differentiable"]:
        raise InvalidValueError(
            where,
            "differentiable=True needs a step that autograd can follow",
            "a fused step has no graph",
            f"Use {where.replace('Fused', 'torch.optim.')}",
        )


def _params_and_grads(group: Group) -> tuple[list[Tensor], list[Tensor]]:
    """Return the group's parameters that have a gradient, and their gradients."""
    params = group["params"]
    all_grads = list(map(_GRAD, params))
    grads = [grad for grad in all_grads if grad is not None]
    if len(grads) < len(params):
        params = [p for p, grad in zip(params, all_grads, strict=True) if grad is not None]
    return params, grads


def _with_gradient(where: str, group: Group) -> dict[Any, tuple[list[Tensor], list[Tensor]]]:
    """Return the group's parameters that have a gradient, and their gradients, by device and dtype."""
    params, grads = _params_and_grads(group)
    layouts = list(map(_LAYOUT, grads))
    if layouts.count(torch.strided) < len(layouts):
        sparse = next(grad for grad in grads if grad.layout is not torch.strided)
        raise InvalidTypeError(
            where,
            f"a parameter of shape {tuple(sparse.shape)} has a sparse gradient",
            "only dense gradients are supported",
            "Use torch.optim.SGD or torch.optim.SparseAdam for it",
        )
    devices, dtypes = list(map(_DEVICE, params)), list(map(_DTYPE, params))
    found: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
    if params and devices.count(devices[0]) == dtypes.count(dtypes[0]) == len(params):
        found[devices[0], dtypes[0]] = (params, grads)
    else:
        for key, p, grad in zip(zip(devices, dtypes, strict=True), params, grads, strict=True):
            of_key = found.setdefault(key, ([], []))
            of_key[0].append(p)
            of_key[1].append(grad)
    for (_, dtype), (params, _) in found.items():
        if not dtype.is_floating_point:
            raise InvalidTypeError(
                where,
                f"a parameter of shape {tuple(params[0].shape)} is {dtype}",
                "only real floating dtypes are supported",
                f"Use {where.replace('Fused', 'torch.optim.')} for it",
            )
    return found


def _combinations(columns: Sequence[Sequence[Tensor]]) -> Mapping[Any, Sequence[int]]:
    """Sort parameters as `flat_combinations` does. Those with a tensor that no kernel can read come under None too."""
    found = flat_combinations(columns)
    tensors = list(chain.from_iterable(columns))
    with suppress(RuntimeError):  # by C functions alone, because this runs at every step that is not repeated
        if all(map(Tensor.data_ptr, tensors)) and not any(map(Tensor.is_neg, tensors)):
            return found
    if all(map(lies_in_memory, tensors)):
        return found
    unread = {
        i for i, streams in enumerate(zip(*columns, strict=True)) if not all(map(lies_in_memory, streams))
    }
    plain = sorted(unread.union(found.get(None, ())))
    kept = {key: [i for i in indices if i not in unread] for key, indices in found.items() if key is not None}
    return {None: plain, **{key: left for key, left in kept.items() if left}}


def host_value(value: float | Tensor) -> float:
    """Read a hyperparameter that is a number or a one-element tensor."""
    if type(value) is float:
        return value
    return float(value.item()) if isinstance(value, Tensor) else float(value)


def is_on_device(value: float | Tensor) -> bool:
    """Return whether reading the value would make the host wait for a device."""
    if type(value) is float:
        return False
    return isinstance(value, Tensor) and not value.is_cpu


def device_rows(columns: Sequence[float | Tensor], count: int, device: torch.device) -> Tensor:
    """Build `count` rows in fp64 on the device from columns: numbers, or tensors of one or `count` elements."""
    # Numbers are filled in by the device, because a copy from pageable host memory cannot be captured in a graph.
    table = [
        column.to(device, torch.float64).reshape(-1).expand(count)
        if isinstance(column, Tensor)
        else torch.full((count,), column, dtype=torch.float64, device=device)
        for column in columns
    ]
    return torch.stack(table, dim=1)


def working_dtype(param: Tensor) -> torch.dtype:
    """Return the dtype that the plain step computes in: fp32, or fp64 for fp64 parameters."""
    return torch.float64 if param.dtype == torch.float64 else torch.float32


def unrounded_parameter(param: Tensor, master: Tensor) -> Tensor:
    """Return the master where the parameter is its rounded value, else the parameter, which was written since."""
    return torch.where(master.to(param.dtype) == param, master, param.to(master.dtype))


def scaled_gradient(grad: Tensor, dtype: torch.dtype, sign: float | Tensor, scale: LossScale) -> Tensor:
    """Return the direction's signed gradient without the loss scale, in `dtype`. `grad` keeps its values."""
    result = grad.to(dtype) * sign
    return result if scale.grad_scale is None else result / scale.grad_scale.to(dtype)


def penalised(g: Tensor, p: Tensor, penalty: float | Tensor) -> Tensor:
    """Return the gradient with the L2 penalty. Where that is 0, or would make NaN of infinity, without it."""
    if isinstance(penalty, Tensor):
        return torch.where(penalty != 0, g + penalty * p, g)
    return g + penalty * p if penalty != 0 else g


def write(target: Tensor, value: Tensor, scale: LossScale, generator: torch.Generator | None = None) -> None:
    """Store `value` in the target's dtype, unless the scaler found an infinity. A generator rounds stochastically."""
    if scale.found_inf is not None:
        value = torch.where(scale.found_inf.reshape(()) == 0, value, target.to(value.dtype))
    target.copy_(value if generator is None else stochastically_rounded(value.float(), generator))
