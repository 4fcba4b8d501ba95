"""Put the fused activations into a model: verify them against PyTorch in float64, then swap them in.

Activations have neither parameters nor buffers, so nothing here changes the state_dict.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from fusetune.errors import StateError
from fusetune.kernels.activations import FUNCTIONS, Activation, activation, parameter_values, reference
from fusetune.kernels.replace.calls import (
    FUNCTIONAL,
    HeldActivation,
    ReplacedActivation,
    calls_are_fused,
    fuse_calls,
    names_in_code,
)
from fusetune.kernels.replace.forward_graph import read

# torch.nn class -> its name here. A function's parameters are attributes of the same names.
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
_HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
    *("_state_dict_hooks", "_state_dict_pre_hooks"),
    *("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
)
# Modules that compute on quantized integers, for which there is no kernel.
_QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")


def replace_activations(module: nn.Module, *, approximate: bool = False) -> list[str]:
    """Put the fused activations in the place of torch's in a module tree. The state_dict stays the same.

    The model computes the same function, up to the rounding of an activation. Replaced are

    - modules (`nn.GELU()`), by `Activation` with their parameters (`ELU(alpha=2)`),
    - functions that a module holds as an attribute, as `TransformerEncoderLayer(activation="gelu")` does,
    - calls of functions in a forward (`F.gelu(x)`, `torch.relu(x)`, `x.relu()`), those in its children included. Such
      a module becomes one of a subclass whose forward intercepts them, which costs 4 us a call of any torch function.

    An activation with `inplace=True` is replaced where `torch.fx` can trace that nothing else reads its input. The
    fused kernel then writes a new tensor.

    Left alone, with one warning that says why, are

    - an activation whose input is used again, or may be,
    - an activation with a parameter that the kernels do not support (`LeakyReLU(-0.1)`),
    - an activation with hooks,
    - modules that are scripted, quantized or compiled already, and `module` itself.

    Activations without a kernel (`ReLU6`) are not mentioned.

    Args:
        module: the root of the tree, before `torch.compile`.
        approximate: as in `activation`.

    Mutates:
        module: its activation children at any depth, and the class of modules that call functions.

    Returns:
        The names of the replaced activations. Of modules and attributes they are those in `module.named_modules()`,
            every place of a shared activation included. Of calls they are like `block.forward:gelu`.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True), nn.Sequential(nn.GELU()))
        >>> replace_activations(model)
        ['1', '2.0']
    """
    replacement = _Replacement(module, approximate)
    replacement.run()
    if replacement.left:
        kept = "; ".join(replacement.left)
        warnings.warn(f"replace_activations: left alone: {kept}", stacklevel=2)
    return replacement.replaced


class _Replacement:
    """One walk over a module tree: the replaced activations, and those left alone with the reasons."""

    def __init__(self, root: nn.Module, approximate: bool) -> None:
        self.root = root
        self.approximate = approximate
        self.replaced: list[str] = []
        self.left: list[str] = []
        self._twins: dict[nn.Module, Activation | None] = {}

    def run(self) -> None:
        """Replace held functions, which then are modules, then modules, then calls."""
        if reason := _unfit(self.root):
            self.left.append(f"the whole model, because {reason}")
            return
        if isinstance(self.root, torch.jit.ScriptModule):
            self.left.append("the whole model, because it is scripted: activations are part of its code")
            return
        for path, parent in list(self.root.named_modules()):
            if not isinstance(parent, torch.jit.ScriptModule):
                self._replace_held(path, parent)
        self.left += [
            f"{name}, because it is scripted: activations are part of its code"
            for name, parent in self.root.named_modules()
            if isinstance(parent, torch.jit.ScriptModule)
            and not isinstance(self.root.get_submodule(name.rpartition(".")[0]), torch.jit.ScriptModule)
        ]
        places = [
            (f"{path}.{key}" if path else key, parent, key, child)
            for path, parent in list(self.root.named_modules())
            for key, child in list(parent._modules.items())
            if child is not None
        ]
        in_place = {
            child for *_, child in places if type(child) in _NAMES and getattr(child, "inplace", False)
        }
        self._reading = read(self.root, in_place)
        for name, parent, key, child in places:
            twin = self._twin(child, name)
            if twin is not None:
                parent._modules[key] = twin
                self.replaced.append(name)
        if type(self.root) in _NAMES:
            self.left.append(f"{self.root}, because it has no parent to replace it in")
        for path, parent in list(self.root.named_modules()):
            self._replace_calls(path, parent)

    def _twin(self, child: nn.Module, name: str) -> Activation | None:
        """The fused counterpart of an activation that can be replaced, the same one in each of its places."""
        if child not in self._twins:
            self._twins[child] = self._new_twin(child, name)
        return self._twins[child]

    def _new_twin(self, child: nn.Module, name: str) -> Activation | None:
        """The fused counterpart. None where there is none, whose reason is added to those left alone."""
        if type(child) not in _NAMES:
            return None
        known = _NAMES[type(child)](child)
        reason = self._reading.unsafe.get(child)
        if any(getattr(child, hooks, None) for hooks in _HOOKS):
            reason = "it has hooks"
        elif "forward" in vars(child) or child._modules or child._parameters or child._buffers:
            reason = "it has submodules, state or a forward of its own"
        try:
            parameters = {key: getattr(child, key) for key in FUNCTIONS[known].parameters}
            twin = ReplacedActivation(known, approximate=self.approximate, **parameters).train(child.training)
        except ValueError as error:
            reason = reason or str(error)
        if reason:
            self.left.append(f"{name} ({child}), because {reason}")
            return None
        return twin

    def _replace_held(self, path: str, parent: nn.Module) -> None:
        """Replace functions that are attributes. Unknown ones of torch's transformer layers are reported."""
        for key, value in list(vars(parent).items()):
            name = f"{path}.{key}" if path else key
            if inspect.isroutine(value) and value in FUNCTIONAL:
                setattr(
                    parent, key, HeldActivation(value, approximate=self.approximate).train(parent.training)
                )
                self.replaced.append(name)
            elif key == "activation" and isinstance(parent, _TRANSFORMER_LAYERS) and callable(value):
                self.left.append(f"{name}, because it is none of torch's activations")

    def _replace_calls(self, path: str, parent: nn.Module) -> None:
        forward = f"{path}.forward" if path else "forward"
        called = self._reading.called.get(parent, set())
        kept = sorted(self._reading.kept.get(parent, ()))
        if (
            parent in self._reading.untraced
            and (called := names_in_code(parent))
            and "forward" in vars(parent)
        ):
            kept, called = sorted(called), set()
        if kept:
            self.left.append(f"{', '.join(kept)} in {forward}, because there is no kernel for such calls")
        if called and not calls_are_fused(parent):
            fuse_calls(parent, approximate=self.approximate)
            self.replaced += [f"{forward}:{name}" for name in sorted(called)]


_TRANSFORMER_LAYERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def _unfit(root: nn.Module) -> str | None:
    """Return why nothing in a tree can be replaced, or None."""
    for module in root.modules():
        if type(module).__module__.startswith(_QUANTIZED):
            return "it is quantized: there are no kernels for quantized integers"
        if hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
            return "it is compiled: replace its activations before torch.compile"
    return None


def verify_activation(
    name: str, dtype: torch.dtype, device: torch.device, bias: bool = False, **parameters: float
) -> None:
    """Compare value and gradients with PyTorch in float64, and stop where they are wrong.

    The largest error may be twice that of PyTorch in `dtype`, plus 2 eps of the largest value.

    Args:
        name: a key of `kernels.activations.functions.FUNCTIONS`.
        dtype: dtype of the verified computation.
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
    parameter_values(name, parameters)  # raises for an unknown name or parameter
    generator = torch.Generator().manual_seed(0)
    # 67 x 62: neither length is a multiple of 16, so the tail and misaligned rows are covered.
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
            raise StateError(
                f"verify_activation: {name} in {dtype} on {device}",
                f"the {label} is off by {error:.3g}",
                f"{allowed:.3g} is allowed",
                "Do not train with it: use the PyTorch activation",
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
    """The largest magnitude, or NaN if there is one."""
    return float(tensor.abs().max())
