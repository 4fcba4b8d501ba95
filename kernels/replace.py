"""Put the fused activations into a model: verify them against PyTorch in float64, then swap them in.

Activations have neither parameters nor buffers, so a swap leaves the state_dict as it was.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from kernels.activation import Activation, activation, reference
from kernels.activation_functions import FUNCTIONS

# torch.nn class -> its name here, or None where a parameter has a value that the kernels do not know.
_NAMES: dict[type[nn.Module], Callable[[Any], str | None]] = {
    nn.ReLU: lambda module: "relu",
    nn.LeakyReLU: lambda module: "leaky_relu" if module.negative_slope == 0.01 else None,
    nn.Sigmoid: lambda module: "sigmoid",
    nn.Tanh: lambda module: "tanh",
    nn.GELU: lambda module: {"none": "gelu", "tanh": "gelu_tanh"}.get(module.approximate),
    nn.SiLU: lambda module: "silu",
    nn.ELU: lambda module: "elu" if module.alpha == 1 else None,
    nn.Softplus: lambda module: "softplus" if (module.beta, module.threshold) == (1, 20) else None,
    nn.Mish: lambda module: "mish",
    nn.Hardswish: lambda module: "hardswish",
}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def replace_activations(module: nn.Module) -> list[str]:
    """Swap the activations of a module tree for `Activation`, in place; the state_dict stays the same.

    `inplace=True` is dropped: the fused kernel writes a new tensor, and keeps it for backward where that suffices.
    Left alone, with a warning that says why: a parameter the kernels do not know (`ELU(alpha=2)`), an activation with
    hooks, and `module` itself. Subclasses and functional calls (`F.relu`) are not touched.

    Args:
        module: the root of the tree.

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
            known = _fused_name(child, name)
            if known is None:
                continue
            if child not in twins:
                twins[child] = Activation(known).train(child.training)
            parent._modules[key] = twins[child]
            swapped.append(name)
    if type(module) in _NAMES:
        _left_alone("the module itself", module, "it has no parent to swap it in")
    return swapped


def _fused_name(child: nn.Module, name: str) -> str | None:
    """The table's name of an activation that can be swapped; otherwise warn."""
    known = _NAMES[type(child)](child)
    if known is None:
        _left_alone(name, child, "the kernels do not know this parameter")
    elif any(getattr(child, hooks) for hooks in _HOOKS):
        _left_alone(name, child, "it has hooks")
        return None
    return known


def _left_alone(name: str, module: nn.Module, reason: str) -> None:
    """Say what was not swapped, and why."""
    warnings.warn(f"replace_activations: {name}: {module} left alone; {reason}", stacklevel=4)


def verify_activation(name: str, dtype: torch.dtype, device: torch.device, bias: bool = False) -> None:
    """Compare value and gradients with PyTorch in float64, and stop where they are wrong.

    The largest error may be twice that of PyTorch in `dtype`, plus 2 eps of the largest value.

    Args:
        name: a key of `kernels.activation_functions.FUNCTIONS`.
        dtype: what to verify in.
        device: where to verify.
        bias: add a bias, and compare its gradient as well.

    Raises:
        ValueError: unknown name.
        RuntimeError: a value or a gradient is wrong, or is NaN where PyTorch's is not.

    Example:
        >>> verify_activation("silu", torch.float32, torch.device("cpu"))
    """
    Activation(name)  # an unknown name stops here
    generator = torch.Generator().manual_seed(0)
    # 67 x 62: neither length is a multiple of 16, so the tail and rows that begin misaligned are met.
    x = (4 * torch.randn(67, 62, generator=generator)).to(device, dtype)
    inputs = [x, torch.randn(62, generator=generator).to(device, dtype)] if bias else [x]
    width = 31 if FUNCTIONS[name].gated else 62
    dy = torch.randn(67, width, generator=generator).to(device, dtype)
    ours = _value_and_gradients(activation, name, inputs, dy)
    theirs = _value_and_gradients(reference, name, inputs, dy)
    exact = _value_and_gradients(reference, name, [tensor.double() for tensor in inputs], dy.double())
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
    function: Callable[..., torch.Tensor], name: str, inputs: list[torch.Tensor], dy: torch.Tensor
) -> list[torch.Tensor]:
    """y, dx and dbias in float64, for comparison."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    with torch.enable_grad(), torch.autocast(dy.device.type, enabled=False):
        y = function(leaves[0], name, *leaves[1:])
        gradients = torch.autograd.grad(y, leaves, dy)
    return [tensor.detach().double() for tensor in (y, *gradients)]


def _largest(tensor: torch.Tensor) -> float:
    """The largest magnitude; NaN if there is one."""
    return float(tensor.abs().max())
