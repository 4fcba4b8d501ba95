"""Every name that a spec can use, with what it accepts. Plain tables: no torch, so `bench list` is instant.

The builders stand in `bench.workloads`; a test holds the two together. Schedules have their own table in
`tuner.schedules.table`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One name: a line for people, and the spec's keys that apply to it with what stands for each that is left out."""

    summary: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


MODELS: dict[str, Entry] = {
    "linear": Entry("softmax regression on the flattened input"),
    "mlp": Entry(
        "`depth` hidden layers of `width` units (2 x 128)",
        {"width": 128, "depth": 2, "activation": "relu", "norm": "none", "dropout": 0.0},
    ),
    "cnn": Entry(
        "`depth` stages of 3x3 convolutions, widths doubling from `width` (3 stages from 32)",
        {"width": 32, "depth": 3, "activation": "relu", "norm": "batch", "dropout": 0.0},
    ),
    "resnet9": Entry(
        "David Page's ResNet-9: `width` 64, `depth` residual blocks in each of two stages (1)",
        {"width": 64, "depth": 1, "activation": "relu", "norm": "batch", "dropout": 0.0},
    ),
}

NORMS: dict[str, Entry] = {
    "batch": Entry("batch normalisation"),
    "group": Entry("group normalisation, up to 8 groups of at least 4 channels"),
    "layer": Entry("layer normalisation (one group)"),
    "none": Entry("no normalisation"),
}

ACTIVATIONS: dict[str, Entry] = {
    "relu": Entry("torch.nn.ReLU"),
    "leaky_relu": Entry("torch.nn.LeakyReLU"),
    "sigmoid": Entry("torch.nn.Sigmoid"),
    "tanh": Entry("torch.nn.Tanh"),
    "gelu": Entry("torch.nn.GELU (erf)"),
    "silu": Entry("torch.nn.SiLU (swish)"),
    "elu": Entry("torch.nn.ELU"),
    "softplus": Entry("torch.nn.Softplus"),
    "mish": Entry("torch.nn.Mish"),
    "hardswish": Entry("torch.nn.Hardswish"),
    "identity": Entry("torch.nn.Identity: none at all"),
}

# Parameters have PyTorch's names and, where a spec gives none, PyTorch's defaults;
# `momentum` and `nesterov` are torch.optim.SGD with a momentum of 0.9 unless the spec says otherwise.
_ALL: dict[str, Any] = {"weight_decay": 0, "maximize": False, "foreach": None}
_WITH_FUSED = {**_ALL, "fused": None}
_ADAM = {"betas": [0.9, 0.999], "eps": 1e-8, "amsgrad": False, **_WITH_FUSED}
OPTIMIZERS: dict[str, Entry] = {
    "sgd": Entry("torch.optim.SGD without momentum", _WITH_FUSED),
    "momentum": Entry(
        "torch.optim.SGD, momentum 0.9",
        {"momentum": 0.9, "dampening": 0, "nesterov": False, **_WITH_FUSED},
    ),
    "nesterov": Entry("torch.optim.SGD, momentum 0.9, nesterov", {"momentum": 0.9, **_WITH_FUSED}),
    "adam": Entry("torch.optim.Adam", _ADAM),
    "adamw": Entry("torch.optim.AdamW", {**_ADAM, "weight_decay": 0.01}),
    "rmsprop": Entry(
        "torch.optim.RMSprop", {"alpha": 0.99, "eps": 1e-8, "momentum": 0, "centered": False, **_ALL}
    ),
    "adagrad": Entry(
        "torch.optim.Adagrad",
        {"lr_decay": 0, "eps": 1e-10, "initial_accumulator_value": 0, **_WITH_FUSED},
    ),
}

DATASETS: dict[str, Entry] = {
    "cifar10": Entry("CIFAR-10, binary version: 50,000 + 10,000 colour images, 32x32, 10 classes"),
    "digits": Entry(
        "scikit-learn's handwritten digits: 1,797 real 8x8 scans, a stratified fifth held for the test"
    ),
    "npz": Entry("your own arrays x_train, y_train, x_test, y_test in one .npz file", {"path": None}),
    "folder": Entry(
        "your own images: a folder with one subfolder a class, or with a CSV file of labels (needs Pillow)",
        {"path": None, "labels": None, "size": None},
    ),
    "cifar10-like": Entry("generated: 50,000 + 10,000 colour textures, 32x32, 10 classes"),
    "mnist-like": Entry("generated: 60,000 + 10,000 grey strokes, 28x28, 10 classes"),
    "spirals": Entry("generated: 3,600 + 1,200 points of three interleaved spirals, 2 features"),
}

IMPLEMENTATIONS: dict[str, Entry] = {
    "torch": Entry("PyTorch's own optimizers and activations"),
    "fused": Entry("the suite's kernels: sgd, momentum, nesterov, adam, adamw, and the model's activations"),
}

# `fusetune.kernels.KERNELS`, whose import needs Triton. A backward kernel has `_backward` after the name.
_FUNCTIONS = (
    *(
        "relu",
        "leaky_relu",
        "relu_squared",
        "sigmoid",
        "tanh",
        "gelu",
        "gelu_tanh",
        "silu",
        "elu",
        "softplus",
    ),
    *("mish", "hardswish", "swiglu", "geglu", "reglu"),
)
KERNELS = (
    *("sgd", "momentum", "adam", "adamw"),
    *(name for function in _FUNCTIONS for name in (function, f"{function}_backward")),
)
KERNEL_SHAPES = ("a number of elements", "resnet50", "vit_b_16", "gpt2_124m")

GENERATED = ("cifar10-like", "mnist-like", "spirals")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
METRICS_TO_REACH = ("val_accuracy", "val_loss", "test_accuracy", "test_loss", "train_accuracy", "train_loss")
