"""Fused kernels: maths on tensors, nothing of training, files or YAML (a leaf: imports neither `tuner` nor `bench`)."""

from __future__ import annotations

from kernels.activation import KERNELS as ACTIVATIONS
from kernels.activation import Activation, activation
from kernels.adam import ADAM, ADAMW, FusedAdam, FusedAdamW
from kernels.kernel import Kernel
from kernels.replace import replace_activations, verify_activation
from kernels.sgd import MOMENTUM, SGD, FusedSGD

__all__ = [
    "KERNELS",
    "Activation",
    "FusedAdam",
    "FusedAdamW",
    "FusedSGD",
    "activation",
    "replace_activations",
    "verify_activation",
]

KERNELS: dict[str, Kernel] = {
    "sgd": SGD,
    "momentum": MOMENTUM,
    "adam": ADAM,
    "adamw": ADAMW,
    **ACTIVATIONS,
}
