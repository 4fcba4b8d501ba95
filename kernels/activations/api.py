"""Activations fused with the bias before them: one forward and one backward kernel for a table of functions.

    y = f(x + bias)                              relu, leaky_relu, relu_squared, sigmoid, tanh, gelu, gelu_tanh,
                                                 silu, elu, softplus, mish, hardswish
    y = f(a + bias_a) * (b + bias_b)             swiglu (f = silu), geglu (gelu), reglu (relu), for x = [a | b]

The kernels run for fp32, fp16 and bf16 tensors on a GPU, with all arithmetic in fp32 and one rounding at the end.
Elsewhere (CPU tensors, fp64) the same call is plain PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch._C import _are_functorch_transforms_active, _len_torch_dispatch_stack
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from fusetune.errors import InvalidTypeError, InvalidValueError
from fusetune.kernels.activations.functions import FUNCTIONS, ActivationFunction
from fusetune.kernels.activations.kernels import (
    DTYPES,
    backward_case,
    backward_kernel,
    forward_case,
    forward_kernel,
    launch_config,
)
from fusetune.kernels.activations.launch import (
    Call,
    EagerCall,
    backward_with_sums,
    empty_gradient,
    empty_result,
    laid_out_like,
    launch_over,
)
from fusetune.kernels.autotune import forcing, whole_elementwise_space
from fusetune.kernels.kernel import Kernel, StaticCase
from fusetune.kernels.launch import Path, lies_in_memory, path_of
from fusetune.kernels.triton_inside import driver


def activation(
    x: torch.Tensor,
    name: str,
    bias: torch.Tensor | None = None,
    *,
    bias_dim: int = -1,
    approximate: bool = False,
    **parameters: float,
) -> torch.Tensor:
    """Add the bias and apply the activation `name`, in one pass over memory.

    y = f(x + bias). For the gated pairs y = f(a + bias_a) * (b + bias_b), where a and b are the halves of the last
    dimension. The first is the gate, as in a fused gate-and-up projection.

    Args:
        x: any floating dtype and any shape and layout. A dense layout (channels_last, transposed) is kept. Gaps and
            expanded dimensions cost one copy. The last dimension of a gated pair must be even.
        name: a key of `kernels.activations.functions.FUNCTIONS`.
        bias: 1-D, as long as dimension `bias_dim` of x. It has any floating dtype, and the result has x's.
        bias_dim: the dimension of x that the bias belongs to: -1 after a linear layer, 1 after a convolution. A gated
            pair takes -1 only.
        approximate: allow faster fp16 and bf16 results, within `ActivationFunction.approximate_ulp` (1 ulp at most). It
            has an effect only for functions with such a variant, in fp16 and bf16, on NVIDIA's GPUs.
        parameters: of the function, by PyTorch's names: `negative_slope` of leaky_relu, `alpha` of elu, `beta` and
            `threshold` of softplus. Another value does not recompile the kernel.

    Memory: forward reads N and writes N (gated: reads 2N). Backward reads 2N and writes N (gated: 3N and 2N). The
        output or the input is kept for backward, see `ActivationFunction.saves`. The bias's gradient is the sum of dx,
        a second pass over it in a fixed order, so it is deterministic.

    Infinities and NaN: the limit of f. It is NaN where f is x times a factor that vanishes (gelu, gelu_tanh, silu, mish
        and hardswish at -inf). NaN stays NaN. Plain PyTorch may differ: its fp32 gelu(inf) may be NaN.

    Raises:
        ValueError: unknown name, a bias or a last dimension that does not fit, or a parameter out of its range.
        TypeError: x or bias is not a floating-point tensor, or the function does not take a parameter.

    Example:
        >>> activation(torch.tensor([-1.0, 2.0]), "relu", bias=torch.tensor([0.5, 0.5]))
        tensor([0.0000, 2.5000])
        >>> activation(torch.tensor([[1.0, -1.0, 3.0, 5.0]]), "reglu")
        tensor([[3., 0.]])
        >>> activation(torch.tensor([-1.0, 2.0]), "leaky_relu", negative_slope=0.25)
        tensor([-0.2500,  2.0000])

    Source: for gelu Hendrycks and Gimpel 2016, for silu Elfwing et al. 2017, for mish Misra 2019, for hardswish Howard
        et al. 2019 (section 5.2), for gated pairs Shazeer 2020 (section 2), relu_squared So et al. 2021 (section 3.1).
    """
    if _is_eager(x, bias):
        eager = _eager_call(x, name, bias, bias_dim, approximate)
        if eager is not None:
            floats = tuple(parameter_values(name, parameters)) if parameters else eager.defaults
            if torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)):
                traced: torch.Tensor = _Eagerly.apply(x, bias, eager, floats)  # type: ignore[no-untyped-call]
                return traced
            return eager.forward(x, bias, floats)
    _check(x, name, bias, bias_dim)
    if activation_path(x) == "torch" or _is_transformed():
        return reference(x, name, bias, bias_dim=bias_dim, **parameters)
    values = parameter_values(name, parameters)
    y: torch.Tensor = _activation(x, bias, name, bias_dim % max(1, x.dim()), values, approximate)
    return y


class Activation(nn.Module):
    """`activation` as a module without parameters or buffers, so the state_dict of a model is unchanged.

    Args:
        name: a key of `kernels.activations.functions.FUNCTIONS`.
        approximate: as in `activation`.
        parameters: of the function, as in `activation`.

    Raises:
        ValueError: unknown name, or a parameter out of its range.
        TypeError: the function does not take a parameter.

    Example:
        >>> Activation("relu")(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
        >>> Activation("elu", alpha=0.5)
        Activation(elu, alpha=0.5)
    """

    def __init__(self, name: str, *, approximate: bool = False, **parameters: float) -> None:
        super().__init__()
        parameter_values(name, parameters)
        self.name = name
        self.approximate = approximate
        self.options: dict[str, Any] = parameters  # nn.Module has another meaning for `parameters`

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return activation(x, self.name, approximate=self.approximate, **self.options)

    def extra_repr(self) -> str:
        options = {**self.options, **({"approximate": True} if self.approximate else {})}
        return ", ".join([self.name, *(f"{key}={value}" for key, value in options.items())])


def activation_path(x: torch.Tensor) -> Path:
    """Return the path of `activation` for `x`: triton, triton-cpu, interpreter or torch.

    Example:
        >>> activation_path(torch.zeros(1, dtype=torch.float64))
        'torch'
    """
    return _path_on(x.device) if x.dtype in DTYPES else "torch"


@torch.compiler.assume_constant_result
def _path_on(device: torch.device) -> Path:
    """The path on one device. A compiled graph keeps the path of its tracing."""
    return path_of(forward_kernel, device)


def reference(
    x: torch.Tensor,
    name: str,
    bias: torch.Tensor | None = None,
    *,
    bias_dim: int = -1,
    **parameters: float,
) -> torch.Tensor:
    """The counterpart of `activation` in plain PyTorch, with the same arguments except `approximate`.

    Example:
        >>> reference(torch.tensor([-1.0, 2.0]), "relu")
        tensor([0., 2.])
    """
    return _torch_forward(x, bias, Call(name, bias_dim, parameter_values(name, parameters)))


def parameter_values(name: str, given: Mapping[str, float]) -> list[float]:
    """The values of all parameters of `name`, in its order: those given, the default for the others.

    Raises:
        ValueError: unknown name, or a value out of the parameter's range.
        TypeError: a parameter that the function does not take.

    Example:
        >>> parameter_values("softplus", {"threshold": 5.0})
        [1.0, 5.0]
    """
    known = _row(name).parameters
    if unknown := [key for key in given if key not in known]:
        raise InvalidTypeError(
            "activation",
            f"'{name}' takes no '{unknown[0]}'",
            f"known: {', '.join(known) or 'none'}",
            "Leave it out",
        )
    values = []
    for key, parameter in known.items():
        value = float(given.get(key, parameter.default))
        if not parameter.lowest <= value <= parameter.highest:
            raise InvalidValueError(
                "activation",
                f"{key} of '{name}' is {value}",
                f"it can be from {parameter.lowest:g} to {parameter.highest:g}",
                "Use PyTorch's own function for others",
            )
        values.append(value)
    return values


def _row(name: str) -> ActivationFunction:
    """The table's row, or an error that lists the known names and the closest."""
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    raise InvalidValueError.unknown("activation", name, FUNCTIONS)


def _check(x: torch.Tensor, name: str, bias: torch.Tensor | None, bias_dim: int) -> None:
    """Raise for arguments that the kernels would misread."""
    row = _row(name)
    if not x.is_floating_point() or (bias is not None and not bias.is_floating_point()):
        other = x.dtype if not x.is_floating_point() or bias is None else bias.dtype
        raise InvalidTypeError(
            "activation", f"got {other}", "only floating-point tensors have one", "Convert it first"
        )
    if row.gated and (x.dim() == 0 or x.shape[-1] % 2):
        raise InvalidValueError(
            "activation",
            f"'{name}' splits the last dimension in halves",
            f"got shape {tuple(x.shape)}",
            "Give it an even last dimension",
        )
    if bias is None:
        return
    if not -x.dim() <= bias_dim < x.dim() or (row.gated and bias_dim % x.dim() != x.dim() - 1):
        allowed = "the last dimension" if row.gated else f"{-x.dim()}..{x.dim() - 1}"
        raise InvalidValueError(
            "activation",
            f"bias_dim {bias_dim} does not suit '{name}' and {x.dim()} dimensions",
            f"known: {allowed}",
            "Name the dimension that the bias belongs to",
        )
    if bias.dim() != 1 or bias.shape[0] != x.shape[bias_dim] or bias.device != x.device:
        raise InvalidValueError(
            "activation",
            f"bias of shape {tuple(bias.shape)} on {bias.device} does not fit dimension "
            f"{bias_dim} of {tuple(x.shape)} on {x.device}",
            to_do="Give one value per channel on x's device, or another bias_dim",
        )


def _with_bias(x: torch.Tensor, bias: torch.Tensor | None, bias_dim: int) -> torch.Tensor:
    """x + bias along one dimension."""
    if bias is None:
        return x
    shape = [1] * x.dim()
    shape[bias_dim] = -1
    return x + bias.view(shape)


def _torch_forward(x: torch.Tensor, bias: torch.Tensor | None, call: Call) -> torch.Tensor:
    """The counterpart of the forward kernel, by PyTorch's own functions."""
    row, dtype = FUNCTIONS[call.name], x.dtype
    x = _with_bias(x, bias, call.bias_dim)
    if row.gated:
        a, b = x.chunk(2, dim=-1)
        y = row.torch_value(a, *call.parameters) * b
    else:
        y = row.torch_value(x, *call.parameters)
    return y if y.dtype == dtype else y.to(dtype)


def _torch_backward(
    dy: torch.Tensor, saved: torch.Tensor, bias: torch.Tensor | None, call: Call
) -> torch.Tensor:
    """The counterpart of the backward kernel, by PyTorch's own backward functions."""
    row, dtype = FUNCTIONS[call.name], saved.dtype
    saved = _with_bias(saved, bias, call.bias_dim)
    dy = dy.to(saved.dtype)
    if not row.gated:
        return row.torch_slope(dy, saved, *call.parameters).to(dtype)
    a, b = saved.chunk(2, dim=-1)
    da = row.torch_slope(dy * b, a, *call.parameters)
    return torch.cat([da, dy * row.torch_value(a, *call.parameters)], dim=-1).to(dtype)


def _forward(x: torch.Tensor, bias: torch.Tensor | None, *call_fields: Any) -> torch.Tensor:
    """Run the forward kernel, or its counterpart where no kernel can run."""
    call = Call(*call_fields)
    row = FUNCTIONS[call.name]
    y = empty_result(x, row)
    if activation_path(x) == "torch":
        return laid_out_like(_torch_forward(x, bias, call), y)
    x = x.contiguous() if row.gated else laid_out_like(x, y)
    bias = None if bias is None else bias.contiguous()
    launch_over(forward_kernel, (x, bias, y), y, x, bias, call)
    return y


def _backward(
    dy: torch.Tensor, saved: torch.Tensor, bias: torch.Tensor | None, *call_fields: Any
) -> torch.Tensor:
    """Run the backward kernel, or its counterpart where no kernel can run."""
    call = Call(*call_fields)
    row = FUNCTIONS[call.name]
    dx = empty_gradient(saved, row)
    if activation_path(saved) == "torch":
        return laid_out_like(_torch_backward(dy, saved, bias, call), dx)
    saved = laid_out_like(saved, dx)
    dy = dy.contiguous() if row.gated else laid_out_like(dy, dx)
    bias = None if bias is None else bias.contiguous()
    launch_over(backward_kernel, (dy, saved, bias, dx), dy, dx, bias, call)
    return dx


def _sums_by_kernel(saved: torch.Tensor, call: Call) -> bool:
    """Return whether the bias's gradient comes from the kernel that computes dx: on a CPU, along contiguous rows.

    This avoids a second read of dx, a third of the traffic of a backward pass.
    """
    along_rows = saved.is_contiguous() and call.bias_dim == saved.dim() - 1 and saved.numel() > 0
    return along_rows and not FUNCTIONS[call.name].gated and activation_path(saved) == "triton-cpu"


def _backward_with_sums(
    dy: torch.Tensor, saved: torch.Tensor, bias: torch.Tensor | None, *call_fields: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the backward kernel that also sums dx over all rows."""
    return backward_with_sums(dy, saved, bias, Call(*call_fields))


_CALL_SCHEMA = "str name, int bias_dim, float[] parameters, bool approximate"
_activation = torch.library.custom_op(
    "fusetune::activation",
    _forward,
    mutates_args=(),
    schema=f"(Tensor x, Tensor? bias, {_CALL_SCHEMA}) -> Tensor",
)
_activation_backward = torch.library.custom_op(
    "fusetune::activation_backward",
    _backward,
    mutates_args=(),
    schema=f"(Tensor dy, Tensor saved, Tensor? bias, {_CALL_SCHEMA}) -> Tensor",
)


_activation_backward_with_sums = torch.library.custom_op(
    "fusetune::activation_backward_with_sums",
    _backward_with_sums,
    mutates_args=(),
    schema=f"(Tensor dy, Tensor saved, Tensor? bias, {_CALL_SCHEMA}) -> (Tensor, Tensor)",
)


@_activation.register_fake
def _(x: torch.Tensor, bias: torch.Tensor | None, name: str, *call_fields: Any) -> torch.Tensor:
    return empty_result(x, FUNCTIONS[name])


@_activation_backward.register_fake
def _(
    dy: torch.Tensor, saved: torch.Tensor, bias: torch.Tensor | None, name: str, *call_fields: Any
) -> torch.Tensor:
    return empty_gradient(saved, FUNCTIONS[name])


@_activation_backward_with_sums.register_fake
def _(
    dy: torch.Tensor, saved: torch.Tensor, bias: torch.Tensor | None, name: str, *call_fields: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(saved), saved.new_empty(saved.shape[-1:], dtype=torch.float32)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    """Save the least that backward needs: the bias only where the input is saved."""
    x, bias, *call_fields = inputs
    ctx.call = Call(*call_fields)
    ctx.bias_dtype = None if bias is None else bias.dtype
    from_output = FUNCTIONS[ctx.call.name].saves == "output"
    ctx.save_for_backward(output if from_output else x, None if from_output else bias)


def _differentiate(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """Gradients of x and bias, by the registered operators."""
    return _gradients(ctx, dy, *ctx.saved_tensors)


def _gradients(
    ctx: Any,
    dy: torch.Tensor,
    saved: torch.Tensor,
    bias: torch.Tensor | None,
    backward: Any = _activation_backward,
    backward_with_sums: Any = _activation_backward_with_sums,
) -> tuple[torch.Tensor | None, ...]:
    """Gradients of x and bias, by the registered operators or the given functions."""
    if _is_transformed():  # for a batch of dy, or a dy with a tangent, only PyTorch's own functions are right
        dx = _torch_backward(dy, saved, bias, ctx.call)
    elif ctx.needs_input_grad[1] and _sums_by_kernel(saved, ctx.call):
        dx, sums = backward_with_sums(dy, saved, bias, *ctx.call)
        return dx, sums.to(ctx.bias_dtype), None, None, None, None
    else:
        dx = backward(dy, saved, bias, *ctx.call)
    dbias = None
    if ctx.needs_input_grad[1]:
        others = [dim for dim in range(dx.dim()) if dim != ctx.call.bias_dim]
        dbias = dx.to(ctx.bias_dtype) if not others else dx.sum(others, dtype=ctx.bias_dtype)
    return dx, dbias, None, None, None, None


_EAGER_CALLS: dict[Any, EagerCall] = {}
_MANY_CALLS = 1024


def _eager_call(
    x: torch.Tensor, name: str, bias: torch.Tensor | None, bias_dim: int, approximate: bool
) -> EagerCall | None:
    """The call for such tensors, or None where they must be copied first, or where no kernel is launched.

    Raises: as `activation`, where it is not None.
    """
    if x.dtype not in DTYPES:
        return None
    of_bias = None if bias is None else (bias.dtype, bias.device, bias.shape, bias.stride())
    key = (name, approximate, bias_dim, x.dtype, x.device, x.shape, x.stride(), of_bias, forcing.number)
    known = _EAGER_CALLS.get(key)
    if not lies_in_memory(x) or not (bias is None or lies_in_memory(bias)):
        return None
    if known is not None and known.driver is driver.active:
        return known
    if activation_path(x) not in ("triton", "triton-cpu") or not x.numel():
        return None
    _check(x, name, bias, bias_dim)
    dense = torch.empty_like(x, device="meta")
    read_in_place = x.is_contiguous() if FUNCTIONS[name].gated else x.stride() == dense.stride()
    if not read_in_place or (bias is not None and not bias.is_contiguous()):
        return None
    call = Call(name, bias_dim % max(1, x.dim()), parameter_values(name, {}), approximate)
    if len(_EAGER_CALLS) >= _MANY_CALLS:
        _EAGER_CALLS.clear()
    made = _EAGER_CALLS[key] = EagerCall(x, bias, call)
    return made


class _Eagerly(torch.autograd.Function):
    """The registered operator without the dispatcher, whose layers of Python take longer than a small tensor."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, bias: torch.Tensor | None, eager: EagerCall, floats: tuple[float, ...]
    ) -> torch.Tensor:
        y = eager.forward(x, bias, floats)
        ctx.eager, ctx.floats = eager, floats
        ctx.bias_dtype = None if bias is None else bias.dtype
        if eager.saves_output:
            ctx.save_for_backward(y, None)
        else:
            ctx.save_for_backward(x, bias)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        saved, bias = ctx.saved_tensors  # once: checkpointing gives them no second time
        directly = (
            not torch.is_grad_enabled()  # else dx is to be differentiated, which only the operators support
            and _is_eager(dy, saved)
            and lies_in_memory(dy)
            and lies_in_memory(saved)
            and (bias is None or lies_in_memory(bias))
        )
        if directly and not ctx.needs_input_grad[1] and ctx.eager.takes(dy, saved, bias):
            return ctx.eager.backward(dy, saved, bias, ctx.floats), None, None, None
        ctx.call = ctx.eager.call._replace(parameters=list(ctx.floats))
        functions = (_backward, _backward_with_sums) if directly else ()
        return *_gradients(ctx, dy, saved, bias, *functions)[:2], None, None


def _is_transformed() -> bool:
    """Return whether a transform of torch.func (grad, vmap, ...) or forward-mode differentiation is active.

    They refuse operators with gradients of their own, or lose tangents in them.
    """
    return not is_compiling() and (_are_functorch_transforms_active() or forward_ad._current_level >= 0)


_PLAIN = (torch.Tensor, nn.Parameter)


def _is_eager(tensor: torch.Tensor, other: torch.Tensor | None) -> bool:
    """Return whether no operator is traced, transformed or intercepted: plain tensors, no mode, no dual level."""
    return (
        not is_compiling()
        and type(tensor) in _PLAIN
        and (other is None or type(other) in _PLAIN)
        and not _are_functorch_transforms_active()
        and not _len_torch_dispatch_stack()
        and forward_ad._current_level < 0  # so no tensor has a tangent
    )


def _save_for_double_backward(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    """Save the arguments of the first derivative, which the second one needs too."""
    dy, saved, bias, *call_fields = inputs
    ctx.call = Call(*call_fields)
    ctx.save_for_backward(dy, saved, bias)


def _stand_in(tensor: torch.Tensor) -> torch.Tensor:
    """A detached tensor to differentiate by: dy may depend on saved, which partial derivatives ignore."""
    return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()


def _differentiate_twice(ctx: Any, ddx: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """Gradients of dy, saved and bias, by PyTorch's own derivatives of the counterpart."""
    row = FUNCTIONS[ctx.call.name]
    with torch.enable_grad():
        dy, saved = (_stand_in(tensor) for tensor in ctx.saved_tensors[:2])
        bias = None if ctx.saved_tensors[2] is None else _stand_in(ctx.saved_tensors[2])
        if row.saves == "output":
            dx = _torch_backward(dy, saved, bias, ctx.call)
        else:
            y = _torch_forward(saved, bias, ctx.call)
            (dx,) = torch.autograd.grad(y, saved, dy, create_graph=True)
    inputs = zip((dy, saved, bias), ctx.needs_input_grad, strict=False)
    wanted = [tensor for tensor, needed in inputs if needed and tensor is not None]
    found = iter(
        torch.autograd.grad(
            dx, wanted, ddx, create_graph=torch.is_grad_enabled(), allow_unused=True, materialize_grads=True
        )
    )
    return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)


def _differentiate_with_sums_twice(
    ctx: Any, ddx: torch.Tensor, ddsums: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    """The same, where the sums over dx were returned too. The gradient of a sum is that of each of its terms."""
    return _differentiate_twice(ctx, ddx + ddsums.to(ddx.dtype))


_activation.register_autograd(_differentiate, setup_context=_save_for_backward)
_activation_backward.register_autograd(_differentiate_twice, setup_context=_save_for_double_backward)
_activation_backward_with_sums.register_autograd(
    _differentiate_with_sums_twice, setup_context=_save_for_double_backward
)


def _make_inputs(
    gated: bool, backward: bool
) -> Callable[[int, torch.dtype, torch.device, int], dict[str, Any]]:
    """Inputs of `elements` results: a normal sample of standard deviation 3, so that every branch is taken."""

    def make(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)
        shape = (elements, 2) if gated else (elements,)
        x = 3 * torch.randn(shape, generator=generator)
        if gated:
            x = x.view(1, -1)
        inputs = {"x": x.to(device, dtype)}
        if backward:
            dy = torch.randn((1, elements) if gated else (elements,), generator=generator)
            inputs["dy"] = dy.to(device, dtype)
        return inputs

    return make


# The bias is read in the same way for all functions, so one plain and one gated case suffice.
_CASES_WITH_BIAS = ("gelu", "swiglu")


def _kernel(name: str, backward: bool) -> Kernel:
    """The entry of one function's forward or backward kernel."""
    row = FUNCTIONS[name]

    call = Call(name, -1, parameter_values(name, {}))

    def fused(x: torch.Tensor, dy: torch.Tensor | None = None) -> torch.Tensor:
        return _forward(x, None, *call) if dy is None else _backward(dy, x, None, *call)

    def twin(x: torch.Tensor, dy: torch.Tensor | None = None) -> torch.Tensor:
        return _torch_forward(x, None, call) if dy is None else _torch_backward(dy, x, None, call)

    def bytes_moved(inputs: dict[str, Any]) -> int:
        size: int = inputs["x"].numel() * inputs["x"].element_size()
        result = size // 2 if row.gated else size
        return 2 * size + result if backward else size + result

    dtypes = (torch.float32, torch.bfloat16)
    case = backward_case if backward else forward_case
    cases = [case(name, dtype) for dtype in dtypes]
    # A backward from the output uses no function that could be approximated.
    if row.approximate_ulp and not (backward and row.saves == "output"):
        cases.append(case(name, torch.bfloat16, approximate=True))
    if name in _CASES_WITH_BIAS and not backward:
        cases += [forward_case(name, dtype, bias=True) for dtype in dtypes]
    return Kernel(
        name=f"{name}_backward" if backward else name,
        family="activation",
        fused=fused,
        reference=twin,
        make_inputs=_make_inputs(row.gated, backward),
        bytes_moved=bytes_moved,
        configs=whole_elementwise_space(launch_config(torch.float32, row.gated and backward)),
        static_cases=tuple(cases),
    )


KERNELS: dict[str, Kernel] = {
    kernel.name: kernel for name in FUNCTIONS for kernel in (_kernel(name, False), _kernel(name, True))
}
STATIC_CASES: tuple[StaticCase, ...] = tuple(
    case for kernel in KERNELS.values() for case in kernel.static_cases
)
