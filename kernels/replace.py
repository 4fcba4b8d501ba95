"""Put the fused activations into a model: verify them against PyTorch in float64, then swap them in.

Activations have neither parameters nor buffers, so a swap leaves the state_dict as it was.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from kernels.activation_functions import FUNCTIONS
from kernels.activations import Activation, activation, parameter_values, reference

# torch.nn class -> its name here; a function's parameters are attributes of the same names.
_NAMES: dict[type[nn.Module], Callable[[Any], str]] = {
    nn.ReLU: lambda module: "relu",
    nn.LeakyReLU: lambda module: "leaky_relu",
    nn.Sigmoid: lambda module: "sigmoid",
    nn.Tanh: lambda module: "tanh",
    nn.GELU: lambda module: "gelu" if module.approximate == "none" else "gelu_tanh",
    nn.SiLU: lambda module: "silu",
    nn.ELU: lambda module: "elu",
    nn.Softplus: lambda module: "softplus",
    nn.Mish: lambda module: "mish",
    nn.Hardswish: lambda module: "hardswish",
}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def replace_activations(module: nn.Module, *, approximate: bool = False) -> list[str]:
    """Swap the activations of a module tree for `Activation`, in place; the state_dict stays the same.

    Parameters (`ELU(alpha=2)`) are carried over. `inplace=True` is dropped: the fused kernel writes a new tensor, and
    keeps it for backward where that suffices. Left alone, with a warning that says why: a parameter that the kernels
    are not right for (`LeakyReLU(-0.1)`), an activation with hooks, and `module` itself. Subclasses and functional
    calls (`F.relu`) are not touched.

    Args:
        module: the root of the tree.
        approximate: as in `activation`.

    Mutates:
        module: its activation children at any depth.

    Returns:
        The names of what was swapped, as in `module.named_modules()`, every place of a shared activation included.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True), nn.Sequential(nn.GELU()))
        >>> replace_activations(model)
        ['1', '2.0']
    """
    swapped, twins = [], dict[nn.Module, Activation]()
    for path, parent in list(module.named_modules()):
        for key, child in list(parent._modules.items()):
            if child is None or type(child) not in _NAMES:
                continue
            name = f"{path}.{key}" if path else key
            twin = twins.get(child) or _twin(child, name, approximate)
            if twin is None:
                continue
            twins[child] = parent._modules[key] = twin
            swapped.append(name)
    if type(module) in _NAMES:
        _left_alone("the module itself", module, "it has no parent to swap it in")
    return swapped


def _twin(child: nn.Module, name: str, approximate: bool) -> Activation | None:
    """The fused twin of an activation that can be swapped; otherwise warn."""
    known = _NAMES[type(child)](child)
    if any(getattr(child, hooks) for hooks in _HOOKS):
        _left_alone(name, child, "it has hooks")
        return None
    parameters = {key: getattr(child, key) for key in FUNCTIONS[known].parameters}
    try:
        return Activation(known, approximate=approximate, **parameters).train(child.training)
    except ValueError as error:
        _left_alone(name, child, str(error))
        return None


def _left_alone(name: str, module: nn.Module, reason: str) -> None:
    """Say what was not swapped, and why."""
    warnings.warn(f"replace_activations: {name}: {module} left alone; {reason}", stacklevel=4)


def verify_activation(
    name: str, dtype: torch.dtype, device: torch.device, bias: bool = False, **parameters: float
) -> None:
    """Compare value and gradients with PyTorch in float64, and stop where they are wrong.

    The largest error may be twice that of PyTorch in `dtype`, plus 2 eps of the largest value.

    Args:
        name: a key of `kernels.activation_functions.FUNCTIONS`.
        dtype: what to verify in.
        device: where to verify.
        bias: add a bias, and compare its gradient as well.
        parameters: of the function, as in `activation`.

    Raises:
        ValueError: unknown name, or a parameter out of its range.
        TypeError: the function does not take a parameter.
        RuntimeError: a value or a gradient is wrong, or is NaN where PyTorch's is not.

    Example:
        >>> verify_activation("silu", torch.float32, torch.device("cpu"))
    """
    parameter_values(name, parameters)  # an unknown name or parameter stops here
    generator = torch.Generator().manual_seed(0)
    # 67 x 62: neither length is a multiple of 16, so the tail and rows that begin misaligned are met.
    x = (4 * torch.randn(67, 62, generator=generator)).to(device, dtype)
    inputs = [x, torch.randn(62, generator=generator).to(device, dtype)] if bias else [x]
    width = 31 if FUNCTIONS[name].gated else 62
    dy = torch.randn(67, width, generator=generator).to(device, dtype)
    call: dict[str, Any] = {"name": name, **parameters}
    twin = partial(reference, **call)
    ours = _value_and_gradients(partial(activation, **call), inputs, dy)
    theirs = _value_and_gradients(twin, inputs, dy)
    exact = _value_and_gradients(twin, [tensor.double() for tensor in inputs], dy.double())
    what = ("value", "gradient", "bias gradient")
    for label, mine, other, true in zip(what, ours, theirs, exact, strict=False):
        allowed = 2 * _largest(other - true) + 2 * torch.finfo(dtype).eps * _largest(true)
        error = _largest(mine - true)
        if not error <= allowed:
            raise RuntimeError(
                f"verify_activation: {name} in {dtype} on {device}: the {label} is off by {error:.3g}; "
                f"{allowed:.3g} is allowed. Do not train with it; use the PyTorch activation"
            )


def _value_and_gradients(
    function: Callable[..., torch.Tensor], inputs: list[torch.Tensor], dy: torch.Tensor
) -> list[torch.Tensor]:
    """y, dx and dbias in float64, for comparison."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    with torch.enable_grad(), torch.autocast(dy.device.type, enabled=False):
        y = function(leaves[0], bias=leaves[1] if len(leaves) > 1 else None)
        gradients = torch.autograd.grad(y, leaves, dy)
    return [tensor.detach().double() for tensor in (y, *gradients)]


def _largest(tensor: torch.Tensor) -> float:
    """The largest magnitude; NaN if there is one."""
    return float(tensor.abs().max())
