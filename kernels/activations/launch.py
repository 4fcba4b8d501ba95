"""The allocations and the launch of one call of an activation, on tensors that a kernel can read.

All that depends only on sizes, layout and dtypes is computed once and cached. So a call in a training loop is little
more than an allocation and a launch. With small tensors the host time of a call dominates.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch

from fusetune.kernels.activations.functions import FUNCTIONS, ActivationFunction
from fusetune.kernels.activations.kernels import (
    backward_kernel,
    backward_rows_kernel,
    forward_kernel,
    index_types,
    launch_config,
    precision,
)
from fusetune.kernels.autotune import bucket, elementwise_space, forcing, tuned_config
from fusetune.kernels.launch import LaunchConfig, PreparedLaunch, on_device_of
from fusetune.kernels.triton_inside import driver


class Sizes(NamedTuple):
    """The numbers that a launch over elements depends on.

    Args:
        elements: the number that it covers.
        whole: of the largest tensor.
        channels: of the bias, or 1 without one.
        inner: elements from one channel to the next, or 1 without a bias.
        half: length of a row of a gated output, or 1 for others.
    """

    elements: int
    whole: int
    channels: int
    inner: int
    half: int


class Call(NamedTuple):
    """The arguments of a call other than its tensors: the last arguments of the registered operators."""

    name: str
    bias_dim: int
    parameters: list[float]
    approximate: bool = False


def empty_result(x: torch.Tensor, row: ActivationFunction) -> torch.Tensor:
    """The output: in x's layout where that is dense, contiguous for a gated pair."""
    if row.gated:
        return x.new_empty((*x.shape[:-1], x.shape[-1] // 2))
    return torch.empty_like(x)


def empty_gradient(saved: torch.Tensor, row: ActivationFunction) -> torch.Tensor:
    """The gradient of x: in the layout of the output, contiguous for a gated pair."""
    return saved.new_empty(saved.shape) if row.gated else torch.empty_like(saved)


def laid_out_like(tensor: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    """`tensor`, copied if its strides are not those of `dense`: the slow path of gaps and mismatches."""
    if tensor.stride() == dense.stride():
        return tensor
    return torch.empty_like(dense, dtype=tensor.dtype).copy_(tensor)


def launch_over(
    kernel: Any,
    tensors: tuple[torch.Tensor | None, ...],
    dense: torch.Tensor,
    whole: torch.Tensor,
    bias: torch.Tensor | None,
    call: Call,
) -> None:
    """Launch over the elements of `dense`. `whole` is the tensor whose dimension `bias_dim` has the bias."""
    if dense.numel():
        with on_device_of(dense):
            _prepared_for(kernel, dense, whole, bias, call)(tensors, tuple(call.parameters))


def _prepared_for(
    kernel: Any, dense: torch.Tensor, whole: torch.Tensor, bias: torch.Tensor | None, call: Call
) -> PreparedLaunch:
    """The launch for tensors like these, as in `launch_over`."""
    # Neither a length nor a stride is 0 where anything is launched, except a stride of a dimension of size 1.
    channels, inner = (1, 1) if bias is None else (bias.shape[0], max(1, whole.stride(call.bias_dim)))
    half = dense.shape[-1] if FUNCTIONS[call.name].gated else 1
    sizes = Sizes(dense.numel(), whole.numel(), channels, inner, half)
    return _prepare(kernel, call.name, call.approximate, dense.device, dense.dtype, sizes, forcing.number)


@functools.lru_cache(maxsize=1024)
def _prepare(
    kernel: Any,
    name: str,
    approximate: bool,
    device: torch.device,
    dtype: torch.dtype,
    sizes: Sizes,
    number: int,
) -> PreparedLaunch:
    """The launch over elements of `dtype` on one device. `number` is that of `forcing`."""
    elements, whole, channels, inner, half = sizes
    row = FUNCTIONS[name]
    tail = elements % 16
    n = elements - tail
    functions = {"VALUE": row.value} if kernel is forward_kernel else {"VALUE": row.value, "SLOPE": row.slope}
    constants = {
        "GATED": row.gated,
        "PRECISION": precision(row, dtype, approximate),
        "HAS_TAIL": tail > 0,
        **index_types(whole, max(channels, inner, half)),
    }
    size = bucket(elements) + (f" in rows of {bucket(half)}" if row.gated else "")
    layout = "flat" if channels == 1 else f"{bucket(channels)} channels, {bucket(inner)} apart"
    backward = kernel is backward_kernel
    default = launch_config(dtype, row.gated and backward)
    config = _tuned(
        f"{name}_backward" if backward else name,
        (kernel, *functions.values()),
        constants,
        dtype,
        size,
        layout,
        device,
        default,
    )
    return PreparedLaunch(
        kernel,
        -(-n // config.block_size) or 1,
        (n, tail, channels, inner, half),
        config,
        **constants,
        **functions,
    )


def _tuned(
    name: str,
    functions: tuple[Any, ...],
    constants: dict[str, Any],
    dtype: torch.dtype,
    size: str,
    layout: str,
    device: torch.device,
    default: LaunchConfig,
) -> LaunchConfig:
    """The launch config that was tuned for such a launch, or the default. The rest is as for `tuned_config`."""
    config = tuned_config(
        name,
        functions,
        constants,
        str(dtype).removeprefix("torch."),
        size,
        layout,
        device,
        default.named(),
        lambda: elementwise_space(device, default),
    )
    return LaunchConfig.of(config)


# Rows whose gradients one program sums: few partial sums, and enough programs for many threads.
_ROWS_OF_A_SUM = 64


@functools.lru_cache(maxsize=1024)
def _prepare_rows(
    name: str, approximate: bool, dtype: torch.dtype, rows: int, columns: int, number: int
) -> PreparedLaunch:
    """The launch of the backward kernel that also sums dx, for `rows` rows of `columns` elements.

    The sums are the same bits whatever the launch config is, because each column is added up row by row.
    """
    row = FUNCTIONS[name]
    constants = {
        "PRECISION": precision(row, dtype, approximate),
        "POSITION": index_types(rows * columns, 1)["POSITION"],
        "ROWS": _ROWS_OF_A_SUM,
    }
    config = _tuned(
        f"{name}_backward_with_sums",
        (backward_rows_kernel, row.slope),
        constants,
        dtype,
        f"{bucket(rows)} rows of {bucket(columns)}",
        "rows",
        torch.device("cpu"),
        launch_config(dtype, False),
    )
    return PreparedLaunch(
        backward_rows_kernel,
        -(-rows // _ROWS_OF_A_SUM),
        (rows, columns),
        config,
        SLOPE=row.slope,
        **constants,
    )


def backward_with_sums(
    dy: torch.Tensor, saved: torch.Tensor, bias: torch.Tensor | None, call: Call
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the backward kernel that sums dx over all rows in a fixed order, for a CPU and contiguous `saved`."""
    dx = torch.empty_like(saved)
    columns = saved.shape[-1]
    rows = saved.numel() // columns
    sums = torch.zeros((-(-rows // _ROWS_OF_A_SUM), columns), dtype=torch.float32)
    bias = None if bias is None else bias.contiguous()
    prepared = _prepare_rows(call.name, call.approximate, saved.dtype, rows, columns, forcing.number)
    prepared((laid_out_like(dy, dx), saved, bias, dx, sums), tuple(call.parameters))
    return dx, sums.sum(0)


class EagerCall:
    """A call on tensors of one shape, layout and dtype, computed and checked once.

    Only the tensors and the parameters' values are missing. So a call in an eager training loop is little more than
    an allocation and a launch. It is for tensors that the kernels read in place.
    """

    def __init__(self, x: torch.Tensor, bias: torch.Tensor | None, call: Call) -> None:
        row = FUNCTIONS[call.name]
        y = empty_result(x, row)
        self.call = call
        self.driver = driver.active
        self.defaults = tuple(call.parameters)
        self.saves_output = row.saves == "output"
        self._shape = y.shape if row.gated else None
        self._strides = y.stride()
        self._saved_strides = y.stride() if self.saves_output else x.stride()
        self._forward = _prepared_for(forward_kernel, y, x, bias, call)
        self._backward = _prepared_for(backward_kernel, y, x, None if self.saves_output else bias, call)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None, floats: tuple[float, ...]) -> torch.Tensor:
        """Run the forward kernel."""
        y = torch.empty_like(x) if self._shape is None else x.new_empty(self._shape)
        with on_device_of(x):
            self._forward((x, bias, y), floats)
        return y

    def takes(self, dy: torch.Tensor, saved: torch.Tensor, bias: torch.Tensor | None) -> bool:
        """Return whether the backward kernel can read these in place, by the driver that ran forward.

        Saved tensors may come back in another layout, because hooks for saved tensors may return any.
        """
        return (
            dy.stride() == self._strides
            and saved.stride() == self._saved_strides
            and (bias is None or bias.is_contiguous())
            and driver.active is self.driver
        )

    def backward(
        self, dy: torch.Tensor, saved: torch.Tensor, bias: torch.Tensor | None, floats: tuple[float, ...]
    ) -> torch.Tensor:
        """Run the backward kernel on tensors that it `takes`."""
        dx = torch.empty_like(saved)
        with on_device_of(saved):
            self._backward((dy, saved, bias, dx), floats)
        return dx
