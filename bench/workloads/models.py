"""Models by name, with an initialisation that suits the activation.

Weights come from torch's global generator, so a caller seeds with `torch.manual_seed`. Every activation is a separate
module in its own place, so that one can be replaced without the others.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from fusetune.bench.catalog import MODELS, NORMS
from fusetune.errors import InvalidValueError

Shape = tuple[int, ...]


def build_model(name: str, *, input_shape: Shape, num_classes: int, **parameters: object) -> nn.Module:
    """Build the classifier `name`: a batch (N, *input_shape) of floats in, logits (N, num_classes) out.

    Weights before sigmoid, tanh and identity are N(0, 2 gain^2 / (fan_in + fan_out)) (Xavier). Weights before other
    activations are N(0, gain^2 / fan_in) (Kaiming). The classifier is Xavier's with a gain of 1. Biases are 0. A cnn of
    width 32 and depth 3, the default, has 94,186 parameters for (1, 28, 28) and 10 classes.

    Args:
        name: a key of `bench.catalog.MODELS`.
        input_shape: (C, H, W), or (D,) for linear and mlp. ints >= 1.
        num_classes: int >= 1.
        parameters: those that `fusetune.bench.catalog.MODELS[name]` lists. None means the default.
            width: int >= 1, units or channels of the first layer (mlp 128, cnn 32, resnet9 64).
            depth: int >= 1, hidden layers (mlp, 2), stages (cnn, 3), residual blocks a stage (resnet9, 1).
            activation: a key of `bench.catalog.ACTIVATIONS` (relu).
            norm: a key of `bench.catalog.NORMS` (mlp none, others batch). A layer before a norm has no bias.
            dropout: float in [0, 1), after each hidden layer (mlp) or before the classifier (0).

    Raises:
        ValueError: an unknown name or parameter, a value out of range, an input that the model cannot read.

    Example:
        >>> import torch
        >>> model = build_model("cnn", input_shape=(3, 8, 8), num_classes=10, width=4, activation="gelu")
        >>> model(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 10])

    Source: He et al., Delving Deep into Rectifiers (2015); Glorot and Bengio, Understanding the Difficulty of
    Training Deep Feedforward Neural Networks (2010).
    """
    if name not in _BUILDERS:
        raise InvalidValueError.unknown("model", name, _BUILDERS)
    given = {key: value for key, value in parameters.items() if value is not None}
    _check_parameters(name, given)
    if not input_shape or min(input_shape) < 1 or num_classes < 1:
        raise InvalidValueError(
            f"model {name}",
            f"input_shape {tuple(input_shape)} and {num_classes} classes",
            "every number must be at least 1",
            "Check the data",
        )
    if name in _IMAGE_MODELS and len(input_shape) != 3:
        raise InvalidValueError(
            f"model {name}",
            f"input_shape {tuple(input_shape)} is not (C, H, W)",
            "known for such an input: linear, mlp",
            "Use one of these or give the data as images",
        )
    return _BUILDERS[name](tuple(input_shape), num_classes, **given)


@dataclass(frozen=True)
class _Activation:
    """An activation's module, and the initialisation of the weights before it."""

    module: Callable[[], nn.Module]
    initialise: Callable[[Tensor], object]


def _kaiming(weight: Tensor) -> None:
    """Draw with relu's gain, sqrt(2), because relu halves the second moment."""
    nn.init.kaiming_normal_(weight, nonlinearity="relu")


def _kaiming_leaky(weight: Tensor) -> None:
    """Draw with leaky relu's gain, sqrt(2 / (1 + slope^2)), for torch's slope of 0.01."""
    nn.init.kaiming_normal_(weight, a=0.01, nonlinearity="leaky_relu")


def _xavier(weight: Tensor) -> None:
    """Draw with a gain of 1."""
    nn.init.xavier_normal_(weight)


def _xavier_tanh(weight: Tensor) -> None:
    """Draw with tanh's gain, 5/3."""
    nn.init.xavier_normal_(weight, gain=5 / 3)


_ACTIVATIONS: dict[str, _Activation] = {
    "relu": _Activation(nn.ReLU, _kaiming),
    "leaky_relu": _Activation(nn.LeakyReLU, _kaiming_leaky),
    "sigmoid": _Activation(nn.Sigmoid, _xavier),
    "tanh": _Activation(nn.Tanh, _xavier_tanh),
    "gelu": _Activation(nn.GELU, _kaiming),
    "silu": _Activation(nn.SiLU, _kaiming),
    "elu": _Activation(nn.ELU, _kaiming),
    "softplus": _Activation(nn.Softplus, _kaiming),
    "mish": _Activation(nn.Mish, _kaiming),
    "hardswish": _Activation(nn.Hardswish, _kaiming),
    "identity": _Activation(nn.Identity, _xavier),
}


def _linear(input_shape: Shape, num_classes: int) -> nn.Module:
    return nn.Sequential(
        OrderedDict(flatten=nn.Flatten(), classifier=_classifier(math.prod(input_shape), num_classes))
    )


def _mlp(
    input_shape: Shape,
    num_classes: int,
    *,
    width: int = 128,
    depth: int = 2,
    activation: str = "relu",
    norm: str = "none",
    dropout: float = 0.0,
) -> nn.Module:
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    features = math.prod(input_shape)
    for index in range(1, depth + 1):
        hidden = nn.Linear(features, width, bias=norm == "none")
        layers[f"hidden{index}"] = _activated(hidden, width, activation, norm)
        if dropout:
            layers[f"dropout{index}"] = nn.Dropout(dropout)
        features = width
    layers["classifier"] = _classifier(features, num_classes)
    return nn.Sequential(layers)


def _cnn(
    input_shape: Shape,
    num_classes: int,
    *,
    width: int = 32,
    depth: int = 3,
    activation: str = "relu",
    norm: str = "batch",
    dropout: float = 0.0,
) -> nn.Module:
    """Build `depth` stages of convolution and pooling, then the mean over the remaining pixels."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, *size = input_shape
    for index in range(depth):
        wider = width * 2**index
        layers[f"stage{index + 1}"] = nn.Sequential(
            _convolution(channels, wider, activation, norm), _halving(size)
        )
        channels, size = wider, _halved(size)
    return nn.Sequential(layers | _head(nn.AdaptiveAvgPool2d(1), channels, num_classes, dropout))


def _resnet9(
    input_shape: Shape,
    num_classes: int,
    *,
    width: int = 64,
    depth: int = 1,
    activation: str = "relu",
    norm: str = "batch",
    dropout: float = 0.0,
) -> nn.Module:
    """Build the residual network of David Page, How to Train Your ResNet (2018), part 4.

    There are residual stages of 2 and 8 times `width`, and a plain one of 4 times between them. The maximum over the
    remaining pixels and a classifier without bias follow. Its logits are scaled by 1/8.
    """
    channels, *size = input_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict(prep=_convolution(channels, width, activation, norm))
    channels = width
    for index, blocks in ((1, depth), (2, 0), (3, depth)):
        wider = 2 * channels
        residual = [_Residual(wider, activation, norm) for _ in range(blocks)]
        layers[f"layer{index}"] = nn.Sequential(
            _convolution(channels, wider, activation, norm), _halving(size), *residual
        )
        channels, size = wider, _halved(size)
    head = _head(nn.AdaptiveMaxPool2d(1), channels, num_classes, dropout, bias=False)
    return nn.Sequential(layers | head | OrderedDict(scale=_Scale(0.125)))


_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "linear": _linear,
    "mlp": _mlp,
    "cnn": _cnn,
    "resnet9": _resnet9,
}
_IMAGE_MODELS = ("cnn", "resnet9")


class _Residual(nn.Module):
    """x + two convolutions of x."""

    def __init__(self, channels: int, activation: str, norm: str) -> None:
        """Make both convolutions with their norms and activations."""
        super().__init__()
        self.body = nn.Sequential(*(_convolution(channels, channels, activation, norm) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's input to its output."""
        changed: Tensor = self.body(x)
        return x + changed


class _Scale(nn.Module):
    """The input times a constant."""

    def __init__(self, factor: float) -> None:
        """Keep the constant."""
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Multiply."""
        return x * self.factor


def _convolution(channels: int, wider: int, activation: str, norm: str) -> nn.Sequential:
    """Build a 3x3 convolution that keeps the size, its norm and its activation."""
    layer = nn.Conv2d(channels, wider, kernel_size=3, padding=1, bias=norm == "none")
    return _activated(layer, wider, activation, norm)


def _activated(layer: nn.Linear | nn.Conv2d, channels: int, activation: str, norm: str) -> nn.Sequential:
    """Initialise `layer` for its activation and put norm and activation after it."""
    kind = _ACTIVATIONS[activation]
    kind.initialise(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    modules = [layer, *_norm(norm, channels, image=isinstance(layer, nn.Conv2d)), kind.module()]
    return nn.Sequential(*modules)


def _norm(norm: str, channels: int, *, image: bool) -> list[nn.Module]:
    """Build the norm over `channels`. None for `none`."""
    if norm == "none":
        return []
    if norm == "batch":
        return [nn.BatchNorm2d(channels) if image else nn.BatchNorm1d(channels)]
    return [nn.GroupNorm(1 if norm == "layer" else _groups(channels), channels)]


def _groups(channels: int) -> int:
    """Return the largest divisor of the channels up to 8 that leaves 4 channels a group, or 1."""
    # A group of one number (a unit of an mlp, a channel of one pixel) is normalised to 0 and of two to +-1.
    return max(
        count for count in range(1, 9) if channels % count == 0 and (count == 1 or channels >= 4 * count)
    )


def _head(
    pool: nn.Module, channels: int, num_classes: int, dropout: float, *, bias: bool = True
) -> OrderedDict[str, nn.Module]:
    """Build the layers after the convolutions: pooling over all pixels, dropout and the classifier."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(pool=pool, flatten=nn.Flatten())
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["classifier"] = _classifier(channels, num_classes, bias=bias)
    return layers


def _classifier(features: int, num_classes: int, *, bias: bool = True) -> nn.Linear:
    """Build the last layer, which no activation follows."""
    layer = nn.Linear(features, num_classes, bias=bias)
    _xavier(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def _halving(size: list[int]) -> nn.MaxPool2d:
    """Build 2x2 max pooling that keeps a side of one pixel."""
    return nn.MaxPool2d(tuple(min(2, side) for side in size))


def _halved(size: list[int]) -> list[int]:
    return [max(1, side // 2) for side in size]


def _check_parameters(name: str, given: dict[str, object]) -> None:
    """Raise ValueError for a parameter that the model does not take or that is out of range."""
    known = MODELS[name].parameters
    for key, value in given.items():
        where = f"model {name}: {key}"
        if not known:
            raise InvalidValueError(where, "unknown parameter", f"{name} takes none", "Leave it out")
        if key not in known:
            raise InvalidValueError.unknown(f"model {name}", key, known)
        if key in ("activation", "norm"):
            table = _ACTIVATIONS if key == "activation" else NORMS
            if value not in table:
                raise InvalidValueError.unknown(where, value, table)
        elif key == "dropout":
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise InvalidValueError(
                    where, f"{value!r} is out of range", "known: [0, 1)", "Choose a number in it"
                )
        elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidValueError(
                where, f"{value!r} is out of range", "known: integers from 1", "Choose one of these"
            )
