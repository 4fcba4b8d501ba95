"""Activations that a model calls as functions (`F.gelu(x)`, `torch.relu(x)`, `x.sigmoid()`), by the fused kernels.

A call is intercepted when it happens, so the code around it stays unchanged, with its branches and hooks. Calls that
the kernels do not support stay torch's: in place, with `out`, on integers, out of a parameter's range.
"""

from __future__ import annotations

import copyreg
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.compiler import is_compiling
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._device import DeviceContext

from fusetune.kernels.activations import FUNCTIONS, Activation, activation, parameter_values

# The functions' parameters after the tensor, in order, with torch's defaults. `inplace` is the last one of many.
_IN_PLACE = {"inplace": False}
_TAKES: dict[str, dict[str, Any]] = {
    "relu": _IN_PLACE,
    "leaky_relu": {"negative_slope": 0.01, **_IN_PLACE},
    "sigmoid": {},
    "tanh": {},
    "gelu": {"approximate": "none"},
    "silu": _IN_PLACE,
    "elu": {"alpha": 1.0, **_IN_PLACE},
    "softplus": {"beta": 1.0, "threshold": 20.0},
    "mish": _IN_PLACE,
    "hardswish": _IN_PLACE,
}
_METHODS = ("relu", "sigmoid", "tanh")
_OF_TORCH = {**{getattr(torch, name): name for name in _METHODS}, torch.special.expit: "sigmoid"}
_OF_TENSORS = {getattr(torch.Tensor, name): name for name in _METHODS}
FUNCTIONAL: dict[Any, str] = {**{getattr(F, name): name for name in _TAKES}, **_OF_TORCH, **_OF_TENSORS}
METHODS: Mapping[str, str] = {name: name for name in _METHODS}


def fused_name(
    function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[str, dict[str, Any]] | None:
    """Return the name and the parameters of the fused activation for a call. None where there is none for it.

    Args:
        function: the called function, as in `FUNCTIONAL`.
        args: without the tensor.
        kwargs: by torch's names.

    Example:
        >>> fused_name(F.gelu, (), {"approximate": "tanh"})
        ('gelu_tanh', {})
        >>> fused_name(F.relu, (), {"inplace": True}) is None
        True
    """
    name = FUNCTIONAL.get(function) if callable(function) else METHODS.get(function)
    if name is None:
        return None
    takes = _TAKES[name] if function not in _OF_TENSORS and function not in _OF_TORCH else {}
    if len(args) > len(takes) or not kwargs.keys() <= takes.keys():
        return None
    parameters = {**takes, **dict(zip(list(takes)[: len(args)], args, strict=True)), **kwargs}
    if parameters.pop("inplace", False):
        return None
    if name == "gelu":
        name = {"none": "gelu", "tanh": "gelu_tanh"}.get(parameters.pop("approximate"), "")
    try:
        parameter_values(name, parameters)
    except (TypeError, ValueError):
        return None
    return name, parameters


def call(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], approximate: bool) -> Any:
    """Call the fused activation in place of `function`, or `function` itself where there is none for the call."""
    x = args[0] if args else kwargs.get("input")
    if (
        not isinstance(x, torch.Tensor)
        or not x.is_floating_point()
        or x.layout != torch.strided
        or x.is_nested
    ):
        return function(*args, **kwargs)
    found = fused_name(function, args[1:], {key: value for key, value in kwargs.items() if key != "input"})
    return (
        function(*args, **kwargs)
        if found is None
        else activation(x, found[0], approximate=approximate, **found[1])
    )


class ReplacedActivation(Activation):
    """An `Activation` in the place of PyTorch's, which takes the same input: integers, complex and sparse tensors too.

    Example:
        >>> ReplacedActivation("relu")(torch.tensor([-1, 2]))
        tensor([0, 2])
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_floating_point() and x.layout == torch.strided and not x.is_nested:
            return super().forward(x)
        return FUNCTIONS[self.name].torch_value(x, *parameter_values(self.name, self.options))

    def _get_name(self) -> str:
        return "Activation"


class HeldActivation(Activation):
    """A function that a module held as an attribute, as `TransformerEncoderLayer.activation`. It is called as before.

    Args:
        function: as in `FUNCTIONAL`.
        approximate: as in `activation`.

    Example:
        >>> HeldActivation(F.relu)(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """

    def __init__(self, function: Any, *, approximate: bool = False) -> None:
        super().__init__(FUNCTIONAL[function], approximate=approximate)
        self._function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return call(self._function, args, kwargs, self.approximate)


class _FusedCalls(TorchFunctionMode):
    """Replaces the calls that happen inside."""

    def __init__(self, approximate: bool) -> None:
        super().__init__()
        self.approximate = approximate

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in FUNCTIONAL and (is_compiling() or not _is_watched()):
            return call(func, args, kwargs or {}, self.approximate)
        return func(*args, **(kwargs or {}))


def _is_watched() -> bool:
    """Return whether another mode intercepts torch's functions, and so must see the call that the model makes."""
    return any(
        not isinstance(mode, (_FusedCalls, DeviceContext)) for mode in _get_current_function_mode_stack()
    )


def fuse_calls(module: nn.Module, *, approximate: bool = False) -> None:
    """Let the module's forward call the fused activations: the module becomes one of a subclass of its class.

    Mutates:
        module: its class. Its attributes and state_dict stay. `copy`, `pickle` and `isinstance` work as before.
    """
    module.__class__ = _class_with_fused_calls(type(module), approximate)


def calls_are_fused(module: nn.Module) -> bool:
    """Return whether `fuse_calls` was applied to the module."""
    return hasattr(type(module), "_unfused_class")


_CLASSES: dict[tuple[Any, bool], Any] = {}


def _class_with_fused_calls(unfused: Any, approximate: bool) -> Any:
    """The subclass whose forward runs that of `unfused` with its calls replaced. It is cached."""
    if (unfused, approximate) in _CLASSES:
        return _CLASSES[unfused, approximate]
    unfused_forward = unfused.forward

    @functools.wraps(unfused_forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with _FusedCalls(approximate):
            return unfused_forward(self, *args, **kwargs)

    def reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
        made, arguments, *rest = unfused.__reduce_ex__(self, protocol)
        if made is copyreg.__newobj__:  # type: ignore[attr-defined]
            made, arguments = _remade, (unfused, approximate)
        return (made, arguments, *rest)

    fused = type(
        unfused.__name__,
        (unfused,),
        {
            "forward": forward,
            "__reduce_ex__": reduce,
            "_unfused_class": unfused,
            "__module__": unfused.__module__,
            "__qualname__": unfused.__qualname__,
            "__doc__": unfused.__doc__,
        },
    )
    _CLASSES[unfused, approximate] = fused
    return fused


def _remade(unfused: Any, approximate: bool) -> nn.Module:
    """An empty module of the subclass, which `copy` and `pickle` fill."""
    fused = _class_with_fused_calls(unfused, approximate)
    module: nn.Module = fused.__new__(fused)
    return module


def names_in_code(module: nn.Module) -> set[str]:
    """The names of activations that the code of a module's own classes calls: a guess, where it cannot be traced."""
    names: set[str] = set()
    for cls in type(module).__mro__:
        if cls.__module__.startswith("torch.") or cls is object:
            continue
        for member in vars(cls).values():
            if inspect.isfunction(member):
                names.update(member.__code__.co_names)
    return {name for name in names & _TAKES.keys() if not hasattr(module, name)}
