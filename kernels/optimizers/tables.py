"""Multi-tensor launches: device tables with the elements that each program updates.

    records   int64 (tensors, 8)   addresses of the streams (parameter, gradient, states), elements, aligned, scalar row
    chunks    int32 (chunks, 2)    record, block: each program of the launch takes one block of BLOCK_SIZE elements
    rows      fp32  (rows, 16)     the scalars of an update, computed in double

Chunks change only with the sizes of the tensors, so a new gradient address costs 64 bytes a tensor and nothing a chunk.
A sixth stream takes the first place of a second record. Chunks then name every other record.
Addresses are compared at every step, because gradients move, `p.data` is swapped and states are loaded.
"""

# Triton: constexprs in capitals.
# ruff: noqa: N803
from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from fusetune.kernels.autotune import bucket, elementwise_space, forcing, tuned_config
from fusetune.kernels.kernel import StaticCase
from fusetune.kernels.launch import LaunchConfig, RepeatedLaunch, on_device_of
from fusetune.kernels.triton_inside import plain_function

RECORD_WIDTH = tl.constexpr(8)
ROW_WIDTH = tl.constexpr(16)
_SIZE = tl.constexpr(5)
_ALIGNED = tl.constexpr(6)
_ROW = tl.constexpr(7)
_STREAM_PLACES = (0, 1, 2, 3, 4, 8)
_DTYPE = attrgetter("dtype")
# On a CPU fewer elements are updated before another thread has woken up. torch's kernels have this threshold too.
_WORTH_A_THREAD = 32768
_ZEROS = (0.0,) * ROW_WIDTH.value

TRITON_TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}

# Eight elements a thread: at most 56 registers and 128-bit accesses. With a 16-bit stream beside an fp32 one, eight
# make the compiler exchange data through shared memory, behind barriers. Four do not.
UNIFORM = LaunchConfig(block_size=1024, num_warps=4)
MIXED = LaunchConfig(block_size=512, num_warps=4)


def launch_config(dtypes: Sequence[torch.dtype]) -> LaunchConfig:
    """Return the launch config for streams of these dtypes."""
    return UNIFORM if len({dtype.itemsize for dtype in dtypes}) == 1 else MIXED


def static_case(
    name: str,
    kernel: Any,
    dtypes: Sequence[torch.dtype],
    constants: dict[str, Any],
    vector_only: bool,
    stochastic: bool = False,
) -> StaticCase:
    """Describe one specialisation of an optimizer kernel as `MultiTensorTable` launches it.

    Args:
        name: `-any` is added where tensors may be misaligned or short of whole vectors.
        kernel: the `@triton.jit` function.
        dtypes: of the streams.
        constants: the kernel's own constexprs.
        vector_only: every tensor is aligned and whole vectors long.
        stochastic: parameters are rounded stochastically.
    """
    config = launch_config(dtypes)
    tables = {
        "records": "*i64",
        "chunks": "*i32",
        "rows": "*fp32",
        **({"random": "*i64"} if stochastic else {}),
    }
    return StaticCase(
        name=name if vector_only else f"{name}-any",
        jit=kernel,
        signature=tables,
        constants={
            "grad_scale": None,
            "found_inf": None,
            **({} if stochastic else {"random": None}),
            **constants,
            "VECTOR": 16 // min(dtype.itemsize for dtype in dtypes),
            "VECTOR_ONLY": vector_only,
            "BLOCK_SIZE": config.block_size,
        },
        config=config,
        elements=config.block_size,
        aligned=tuple(tables),
        vector_bytes=(16 if config is UNIFORM else 8) if vector_only else 0,
    )


@triton.jit
def unrounded(p: tl.tensor, master: tl.tensor, P: tl.constexpr) -> tl.tensor:
    """Return the master where the parameter is its rounded value, else the parameter, which was written since."""
    return tl.where(master.to(P).to(tl.float32) == p, master, p)


@triton.jit
def locate(
    records: tl.tensor, chunks: tl.tensor, rows: tl.tensor, found_inf: tl.tensor, BLOCK_SIZE: tl.constexpr
) -> tl.tensor:
    """Return this program's work: its record, first element, elements left, whether aligned, and scalars."""
    chunk = chunks + 2 * tl.program_id(0).to(tl.int64)
    record = records + tl.load(chunk).to(tl.int64) * RECORD_WIDTH
    start = tl.load(chunk + 1).to(tl.int64) * BLOCK_SIZE
    left = tl.minimum(tl.load(record + _SIZE) - start, BLOCK_SIZE).to(tl.int32)
    if found_inf is not None:
        left = tl.where(tl.load(found_inf) == 0, left, 0)
    row = rows + tl.load(record + _ROW) * ROW_WIDTH
    return record, start, left, tl.load(record + _ALIGNED) != 0, row


@triton.jit
def update_block(
    records: tl.tensor,
    chunks: tl.tensor,
    rows: tl.tensor,
    grad_scale: tl.tensor,
    found_inf: tl.tensor,
    random: tl.tensor,
    ELEMENTS: tl.constexpr,
    P: tl.constexpr,
    G: tl.constexpr,
    S: tl.constexpr,
    VARIANT: tl.constexpr,
    MASTER: tl.constexpr,
    VECTOR: tl.constexpr,
    VECTOR_ONLY: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
) -> None:
    """Update one block of one tensor by ELEMENTS: whole vectors where it is aligned, the rest in small pieces.

    VARIANT is the optimizer's own: momentum or not, amsgrad or not.
    """
    record, start, left, aligned, row = locate(records, chunks, rows, found_inf, BLOCK_SIZE)
    factor = gradient_factor(row, grad_scale)
    # Accesses stay 128 bits wide only if their limit is known to be a multiple of the vector.
    vector_end = left // VECTOR * VECTOR
    if VECTOR_ONLY:
        ELEMENTS(
            record, start, 0, vector_end, row, factor, random, P, G, S, VARIANT, MASTER, BLOCK_SIZE, True
        )
    else:
        if aligned:
            ELEMENTS(
                record, start, 0, vector_end, row, factor, random, P, G, S, VARIANT, MASTER, BLOCK_SIZE, True
            )
        size: tl.constexpr = BLOCK_SIZE // 4
        for begin in range(tl.where(aligned, vector_end, 0), left, size):
            ELEMENTS(record, start, begin, left, row, factor, random, P, G, S, VARIANT, MASTER, size, False)


@triton.jit
def stream(
    record: tl.tensor, COLUMN: tl.constexpr, start: tl.tensor, DTYPE: tl.constexpr, ALIGNED: tl.constexpr
) -> tl.tensor:
    """Return the pointer to element `start` of one stream. ALIGNED promises the compiler a multiple of 16 bytes."""
    pointer = tl.load(record + (COLUMN if COLUMN < _SIZE else COLUMN + 3)).to(tl.pointer_type(DTYPE)) + start
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def gradient_factor(row: tl.tensor, grad_scale: tl.tensor) -> tl.tensor:
    """Return the factor of each gradient: the sign of the direction over the loss scale."""
    factor = tl.load(row)
    if grad_scale is not None:
        factor = factor / tl.load(grad_scale).to(tl.float32)
    return factor


def is_flat(tensors: Sequence[Tensor]) -> bool:
    """Return whether the tensors fill their memory without gaps and in the same order, so that index i is one element.

    Example:
        >>> x = torch.zeros(4, 6)
        >>> is_flat((x, x.clone())), is_flat((x.t(), x.clone().t())), is_flat((x, x.t().contiguous().t()))
        (True, True, False)
    """
    first = tensors[0]
    elements = first.numel()
    for tensor in tensors:
        if not tensor.is_contiguous() or tensor.numel() != elements:
            break
    else:
        return True
    same = [(tensor.shape, tensor.stride()) for tensor in tensors]
    return same.count(same[0]) == len(same) and _is_dense(first)


def flat_combinations(
    columns: Sequence[Sequence[Tensor]],
) -> dict[tuple[torch.dtype, ...] | None, Sequence[int]]:
    """Sort parameters by the dtypes of their streams. Those that are not `is_flat` come under None.

    Args:
        columns: the parameters, their gradients, then each kind of state, with one tensor for each parameter in each.

    Returns: dtypes of a parameter's streams -> the indices of the parameters.

    Example:
        >>> x = torch.zeros(4, 6)
        >>> flat_combinations([[x, x], [x, x.t().contiguous().t()]])
        {(torch.float32, torch.float32): [0], None: [1]}
    """
    alike = _dtypes_if_alike(columns)
    if alike:
        return {alike: range(len(columns[0]))}
    found: dict[tuple[torch.dtype, ...] | None, Any] = {}
    for i, streams in enumerate(zip(*columns, strict=True)):
        key = tuple(tensor.dtype for tensor in streams) if is_flat(streams) else None
        found.setdefault(key, []).append(i)
    return found


def _dtypes_if_alike(columns: Sequence[Sequence[Tensor]]) -> tuple[torch.dtype, ...]:
    """Return the dtypes of the columns where all tensors are contiguous and each column has one dtype, else ()."""
    elements = list(map(Tensor.numel, columns[0]))
    found = []
    for column in columns:
        dtypes = list(map(_DTYPE, column))
        if (
            dtypes.count(dtypes[0] if dtypes else None) != len(elements)
            or not all(map(Tensor.is_contiguous, column))
            or list(map(Tensor.numel, column)) != elements
        ):
            return ()
        found += dtypes[:1]
    return tuple(found)


def _is_dense(tensor: Tensor) -> bool:
    """Return whether the tensor's elements fill one run of memory, each place once."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


class MultiTensorTable:
    """The tables of one launch. Only tables that changed since the last step are uploaded.

    Args:
        dtypes: of the streams, in the order of a record.
        device: where the tensors are.

    Memory: 64 bytes a tensor (128 with six streams), 64 a scalar row, and 8 for every 512 or 1024 elements.
    """

    def __init__(self, dtypes: Sequence[torch.dtype], device: torch.device) -> None:
        self.device = device
        self.dtypes = tuple(dtypes)
        self.config = launch_config(dtypes)
        self._chosen_for: Any = None
        self._number = 0
        self._configs: dict[int, LaunchConfig] = {}
        self.vector = 16 // min(dtype.itemsize for dtype in dtypes)
        self.vector_only = True
        self._fields: dict[int, list[int]] = {}
        self._host_records = np.empty((0, 0), np.int64)
        self._host_rows = np.empty((0, 0), np.float32)
        self._host_floats: Any = None
        self._row_values: list[Any] | None = None
        # A launch on the CPU is synchronous, so its kernel reads the host's arrays, which are rewritten in place.
        self._reads_host = device.type == "cpu"
        self._chunks = self._records = self._rows = torch.empty(0)
        self._launched: tuple[Any, ...] | None = None
        self._kept_for_graphs: list[Tensor] = []
        self._chunks_of: dict[int, Tensor] = {}
        self._launches: dict[LaunchConfig, RepeatedLaunch] = {}
        self._launch = RepeatedLaunch()

    def update(self, columns: Sequence[Sequence[Tensor]], row_of: Sequence[int], rows: Sequence[Any]) -> None:
        """Update the tables for this step's tensors and scalars.

        Args:
            columns: the parameters, their gradients, then each kind of state, at most six columns. The streams of each
                parameter are `is_flat`.
            row_of: for each parameter the index of its scalars in `rows`.
            rows: the scalars of an update, at most 16 a row. A row is Python floats, or a tensor on the device that
                holds one row or a table of them.
        """
        self._update_records(columns, row_of)
        self.update_rows(rows)

    def launch(
        self,
        kernel: Any,
        grad_scale: Tensor | None = None,
        found_inf: Tensor | None = None,
        random: Tensor | None = None,
        **constants: Any,
    ) -> None:
        """Launch `kernel` once, one program a chunk. The tensors are read on the device."""
        if self._chosen_for is not kernel or self._number != forcing.number:
            self._choose_config(kernel, constants, random)
        if is_being_captured(self.device):
            # Later steps replace the tables. The graph reads these at every replay.
            self._kept_for_graphs += [self._records, self._chunks, self._rows]
        self._launched = None
        programs = len(self._chunks)
        if not programs:
            return
        with on_device_of(self._records):
            self._launch(
                kernel,
                programs,
                self._records,
                self._chunks,
                self._rows,
                grad_scale,
                found_inf,
                random,
                config=self.config,
                one_thread=sum(self._fields[_SIZE.value]) < _WORTH_A_THREAD,
                VECTOR=self.vector,
                VECTOR_ONLY=self.vector_only,
                **constants,
            )
        if self._reads_host and grad_scale is None and found_inf is None and random is None:
            self._launched = (self._records, self._chunks, self._rows, self.vector_only)

    def launch_again(self) -> bool:
        """Repeat the last launch, if only the contents of the tables have changed. Return whether it was repeated."""
        if self._launched is None:
            return False
        records, chunks, rows, vector_only = self._launched
        return (
            records is self._records
            and chunks is self._chunks
            and rows is self._rows
            and vector_only is self.vector_only
            and self._number == forcing.number
            and self._launch.again()
        )

    def can_repeat(self) -> bool:
        """Return whether the last launch was on the CPU, and by the driver that is still Triton's."""
        return self._launch.can_repeat()

    def _choose_config(self, kernel: Any, constants: dict[str, Any], random: Tensor | None) -> None:
        """Take the launch config for such a launch, and list its chunks."""
        if self._chosen_for is not kernel:
            self._configs.clear()
        config = self._configs.get(forcing.number)
        if config is None:
            config = self._configs[forcing.number] = self._tuned_config(kernel, constants, random)
        if config != self.config:
            self._chunks = self._chunks_by(config.block_size, self._fields.get(_SIZE.value, []))
            self._launches[self.config] = self._launch
            self._launch = self._launches.setdefault(config, RepeatedLaunch())
            self.config = config
        self._chosen_for, self._number = kernel, forcing.number

    def _tuned_config(self, kernel: Any, constants: dict[str, Any], random: Tensor | None) -> LaunchConfig:
        """The launch config that was tuned for such a launch, or the default."""
        default = launch_config(self.dtypes)
        if random is not None:  # which random number an element gets depends on the blocks
            return default
        sizes = self._fields.get(_SIZE.value, [])
        config = tuned_config(
            plain_function(kernel).__name__.removesuffix("_kernel"),
            (kernel,),
            {**constants, "VECTOR": self.vector, "VECTOR_ONLY": self.vector_only},
            " ".join(str(dtype).removeprefix("torch.") for dtype in self.dtypes),
            f"{bucket(sum(sizes))} in {bucket(len(sizes))} tensors",
            "whole vectors" if self.vector_only else "any",
            self.device,
            default.named(),
            lambda: elementwise_space(self.device, default),
        )
        return LaunchConfig.of(config)

    def _chunks_by(self, block_size: int, sizes: Sequence[int]) -> Tensor:
        """The chunks of tensors of these sizes, kept until a size changes."""
        if block_size not in self._chunks_of:
            chunks = _chunks(sizes, block_size)
            chunks[:, 0] *= self._host_records.shape[1] // RECORD_WIDTH.value
            self._chunks_of[block_size] = self._upload(chunks)
        return self._chunks_of[block_size]

    def _update_records(self, columns: Sequence[Sequence[Tensor]], row_of: Sequence[int]) -> None:
        """Write changed addresses, sizes and rows into the records. List the chunks again if a size changed."""
        streams = list(_STREAM_PLACES[: len(columns)])
        fields = {
            place: list(map(Tensor.data_ptr, column)) for place, column in zip(streams, columns, strict=True)
        }
        fields[_SIZE.value] = list(map(Tensor.numel, columns[0]))
        fields[_ROW.value] = list(row_of)
        changed = [place for place, values in fields.items() if values != self._fields.get(place)]
        if not changed:
            return
        resized = _SIZE.value in changed
        if resized:
            width = RECORD_WIDTH.value * (1 + streams[-1] // RECORD_WIDTH.value)
            self._host_records = np.zeros((len(row_of), width), np.int64)
            changed = list(fields)
        records, were_vectors = self._host_records, self.vector_only
        for place in changed:
            records[:, place] = fields[place]
        still_aligned = not any(address % 16 for place in changed for address in fields[place])
        if resized or not self.vector_only or not still_aligned:
            aligned = np.bitwise_or.reduce(records[:, streams], axis=1) % 16 == 0
            records[:, _ALIGNED.value] = aligned
            self.vector_only = bool(aligned.all() and not (records[:, _SIZE.value] % self.vector).any())
        if resized or not self._reads_host:
            self._records = self._upload(torch.from_numpy(records))
        if resized:
            self._chunks_of.clear()
            self._chunks = self._chunks_by(self.config.block_size, fields[_SIZE.value])
        if resized or self.vector_only is not were_vectors:
            self._chosen_for = None
        self._fields = fields

    def update_rows(self, rows: Sequence[Any]) -> None:
        """Update only the scalars for this step. Those on a device are never copied to the host.

        Args:
            rows: as in `update`, and as many as then.
        """
        if any([isinstance(row, Tensor) for row in rows]):  # noqa: C419  a generator costs more than a short list
            self._row_values = None
            self._host_rows = np.empty((0, 0), np.float32)
            on_device = [
                row if isinstance(row, Tensor) else self._upload(torch.tensor(row, dtype=torch.float64))
                for row in rows
            ]
            table = torch.cat([torch.atleast_2d(row) for row in on_device]).float()
            self._rows = torch.nn.functional.pad(table, (0, ROW_WIDTH.value - table.shape[1]))
        else:
            self.update_host_rows(list(rows))

    def update_host_rows(self, rows: list[Any]) -> None:
        """Update the scalars as `update_rows` does, where all are on the host.

        Args:
            rows: of Python floats. The remaining columns become 0.
        """
        if rows == self._row_values:
            return
        resized = len(rows) != len(self._host_rows)
        if resized:
            self._host_rows = np.zeros((len(rows), ROW_WIDTH.value), np.float32)
            self._host_floats = (ctypes.c_float * self._host_rows.size).from_buffer(self._host_rows.data)
        self._row_values = None  # in case writing fails halfway
        # ctypes takes a third of NumPy's time for one row.
        start = 0
        for row in rows:
            self._host_floats[start : start + ROW_WIDTH.value] = (*row, *_ZEROS[len(row) :])
            start += ROW_WIDTH.value
        if resized or not self._reads_host:
            self._rows = self._upload(torch.from_numpy(self._host_rows))
        self._row_values = rows

    def _upload(self, table: Tensor) -> Tensor:
        """Copy a table to the device asynchronously. A captured copy reads its source again at every replay."""
        if self.device.type != "cuda":
            return table.to(self.device)
        pinned = table.pin_memory()
        if is_being_captured(self.device):
            self._kept_for_graphs.append(pinned)
        return pinned.to(self.device, non_blocking=True)


class KeptTable(MultiTensorTable):
    """The table of the calls of a kernel that is verified or timed: one in a process, however often it is copied.

    An optimizer makes its table once, and later steps change addresses alone. So should the calls that are timed.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Be opened as the table of the process that opens it."""
        return kept_table, (self.dtypes, self.device)


@functools.cache
def kept_table(dtypes: tuple[torch.dtype, ...], device: torch.device) -> KeptTable:
    """Return this process's table for streams of these dtypes on this device.

    Example:
        >>> cpu = torch.device("cpu")
        >>> kept_table((torch.float32,) * 4, cpu) is kept_table((torch.float32,) * 4, cpu)
        True
    """
    return KeptTable(dtypes, device)


def is_being_captured(device: torch.device) -> bool:
    """Return whether work for the device is being captured in a CUDA graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _chunks(sizes: Sequence[int], block_size: int) -> Tensor:
    """List (record, block) for every block of every tensor, in order."""
    counts = torch.tensor([-(-size // block_size) for size in sizes], dtype=torch.int64)
    record = torch.repeat_interleave(torch.arange(len(sizes)), counts)
    first = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    return torch.stack([record, torch.arange(len(record)) - first], dim=1).to(torch.int32)
