"""Statistics of the outputs of layers and activations in a forward pass, by hooks and intercepted functions.

    with watching(model) as watch:
        with watch.forward():
            model(x)
    watch.probes

An activation is seen whether it is a module (`nn.ReLU()`) or a function that a module calls in its `forward`
(`functional.relu(x)`, `torch.relu(x)`, `x.relu()`). Outputs are read, and never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

MOST_LAYERS = 64
# Beyond this, on a scale from -1 to 1, the slope of a sigmoid or a tanh is below a tenth of its largest.
SATURATED = 0.95

_RECTIFIERS = ("relu", "relu6")
# Activation -> (factor, shift) that bring its outputs to -1..1.
_SQUASHING = {
    "sigmoid": (2.0, -1.0),
    "hardsigmoid": (2.0, -1.0),
    "tanh": (1.0, 0.0),
    "hardtanh": (1.0, 0.0),
    "softsign": (1.0, 0.0),
}
# These do not saturate at both ends: only mean and deviation are measured.
_OPEN = ("celu", "elu", "gelu", "hardswish", "leakyrelu", "mish", "selu", "silu", "softplus")
_ACTIVATIONS = frozenset((*_RECTIFIERS, *_SQUASHING, *_OPEN))
# Functions that are not named after their activation.
_ALIASES = {"special_expit": "sigmoid"}

ProbeKey = tuple[str, int]
"""Name of a layer, and which of its calls in a forward pass."""


class Probe:
    """Statistics of the outputs of one call of a layer, over chunks of the samples.

        saturated: |a| > 0.95            with a the output brought to -1..1
        dead: the unit (feature, or channel) of a rectifier is 0 on every sample and everywhere in the image

    Args:
        kind: class of a layer with weights, or name of an activation.
        function: whether it is a function's call and no module's.

    Example:
        >>> probe = Probe("relu")
        >>> probe.add(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
        >>> {name: number.item() for name, number in probe.numbers().items() if name.endswith("share")}
        {'zero_share': 0.75, 'dead_share': 0.5}
    """

    def __init__(self, kind: str, *, function: bool = False) -> None:
        self.kind = kind
        self.function = function
        self._chunks: list[dict[str, Tensor]] = []
        self._alive: Tensor | None = None

    def add(self, output: Tensor) -> None:
        """Take in a chunk's output, samples first."""
        output = output.detach().float()
        chunk = {"mean": output.mean(), "std": output.std(), "sample_std": output.std(0).mean()}
        if self.kind in _RECTIFIERS:
            # NaN is not 0: a non-finite output is another fault than a dead unit.
            nonzero = ~(output <= 0)
            chunk["zero_share"] = 1 - nonzero.float().mean()
            alive = nonzero.any(dim=[d for d in range(output.ndim) if d != _unit_dimension(output)])
            self._alive = alive if self._alive is None else self._alive | alive
        elif self.kind in _SQUASHING:
            factor, shift = _SQUASHING[self.kind]
            chunk["saturated_share"] = ((output * factor + shift).abs() > SATURATED).float().mean()
        self._chunks.append(chunk)

    def numbers(self) -> dict[str, Tensor]:
        """Return means over the chunks, and the share of units that were dead in all."""
        means = {name: torch.stack([c[name] for c in self._chunks]).mean() for name in self._chunks[0]}
        return means if self._alive is None else {**means, "dead_share": 1 - self._alive.float().mean()}


class Watch:
    """The probes of a model's layers, filled by its forward passes.

    A function's call is named after the module in whose forward it happens, as in `block1.relu`; a second call in
    the same pass is another probe. Functions that an activation module calls are not seen again.

    Args:
        model: whose modules are watched.

    Example:
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.first, self.last = nn.Linear(2, 4), nn.Linear(4, 2)
        ...     def forward(self, x):
        ...         return self.last(torch.tanh(self.first(x)))
        >>> with watching(net := Net()) as watch, watch.forward():
        ...     _ = net(torch.randn(8, 2))
        >>> [(name, probe.kind) for (name, call), probe in watch.probes.items()]
        [('first', 'Linear'), ('tanh', 'tanh'), ('last', 'Linear')]
    """

    def __init__(self, model: nn.Module) -> None:
        self.probes: dict[ProbeKey, Probe] = {}
        self._modules = dict(model.named_modules())
        self._calls: dict[str, int] = {}
        self._running: list[str] = []

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Intercept the calls of functions in this context. Calls are counted from 0 again."""
        self._calls.clear()
        self._running.clear()
        # No function is intercepted in compiled code, and tracing the probes fails: run the model uncompiled.
        with torch.compiler.set_stance("force_eager"), _Interception(self._saw_function):
            yield

    def saw(self, name: str, kind: str, output: Any, *, function: bool = False) -> None:
        """Take in a call's output, where it is a floating-point tensor with samples."""
        if not (isinstance(output, Tensor) and output.is_floating_point() and output.ndim > 0):
            return
        key = (name, self._calls.get(name, 0))
        self._calls[name] = key[1] + 1
        self.probes.setdefault(key, Probe(kind, function=function)).add(output)

    def _saw_function(self, kind: str, output: Any) -> None:
        """Take in an activation function's output, unless a module that is that activation called it."""
        owner = self._running[-1] if self._running else ""
        if activation_of(self._modules[owner]) is None:
            name = f"{owner}.{kind}" if owner else kind
            # A module may have that very name.
            self.saw(f"{name}()" if name in self._modules else name, kind, output, function=True)

    def entered(self, name: str) -> None:
        """Note that a module's forward begins."""
        self._running.append(name)

    def left(self) -> None:
        """Note that the innermost forward has ended."""
        if self._running:
            self._running.pop()


class _Interception(TorchFunctionMode):
    """Calls `saw(kind, output)` after each activation function; torch does not intercept what that one calls."""

    def __init__(self, saw: Callable[[str, Any], None]) -> None:
        super().__init__()
        self._saw = saw

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        kind = _activation_called(getattr(func, "__name__", ""))
        # A gate maps a parameter, which is the same for every sample: that is no activation.
        if kind is not None and not any(isinstance(a, nn.Parameter) for a in (*args, *kwargs.values())):
            self._saw(kind, output)
        return output


@contextmanager
def watching(model: nn.Module) -> Iterator[Watch]:
    """Attach probes to a model's layers and activations. The hooks are removed at the end.

    Args:
        model: parts that are compiled run uncompiled, parts in TorchScript are passed over. Of more than 64 layers,
            64 evenly spaced are looked at, first and last among them.

    Mutates: the model's forward hooks, while this is open.
    """
    watch = Watch(model)
    watched = dict(watched_layers(model))

    def enter(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, inputs: watch.entered(name)

    def leave(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def see(module: nn.Module, inputs: Any, output: Any) -> None:
            watch.left()
            if name in watched:
                watch.saw(name, kind_of(module) or "", output)

        return see

    handles = []
    try:
        for name, module in _open_modules(model):
            handles.append(module.register_forward_pre_hook(enter(name)))
            # Called after a forward that raises as well, because a model may catch it.
            handles.append(module.register_forward_hook(leave(name), always_call=True))
        yield watch
    finally:
        for handle in handles:
            handle.remove()


def watched_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return names and modules of the layers with weights and of the activations: at most 64, evenly spaced."""
    return thinned([(name, module) for name, module in _open_modules(model) if kind_of(module) is not None])


def _open_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return names and modules that can be looked into: TorchScript's take no hooks."""
    modules = model.named_modules()
    return [(name, module) for name, module in modules if not isinstance(module, torch.jit.ScriptModule)]


def kind_of(module: nn.Module) -> str | None:
    """Return the class of a layer with weights, or the name of an activation; None for others."""
    return type(module).__name__ if weight_of(module) is not None else activation_of(module)


def weight_of(module: nn.Module) -> nn.Parameter | None:
    """Return a module's own weight matrix, or None; a norm's scale, a vector, is none."""
    weight = module._parameters.get("weight")
    return weight if weight is not None and weight.ndim > 1 else None


def activation_of(module: nn.Module) -> str | None:
    """Return which activation a module is, or None."""
    # An activation that stands for several functions says which one by an attribute `name`.
    name = str(getattr(module, "name", type(module).__name__)).lower().replace("_", "")
    return name if name in _ACTIVATIONS else None


def _activation_called(function: str) -> str | None:
    """Return which activation a function of that name is, in place or not, or None."""
    name = _ALIASES.get(function, function.replace("_", ""))
    return name if name in _ACTIVATIONS else None


def _unit_dimension(output: Tensor) -> int:
    """Return where a unit stands: channels of an image (N, C, H, W), else the last dimension."""
    return 1 if output.ndim == 4 else output.ndim - 1


_Item = TypeVar("_Item")


def thinned(items: Sequence[_Item]) -> list[_Item]:
    """Keep at most 64, evenly spaced, first and last among them.

    Example:
        >>> kept = thinned(range(127))
        >>> len(kept), kept[0], kept[1], kept[-1]
        (64, 0, 2, 126)
    """
    if len(items) <= MOST_LAYERS:
        return list(items)
    last = len(items) - 1
    return [items[round(place * last / (MOST_LAYERS - 1))] for place in range(MOST_LAYERS)]
