"""All kernels by name."""

from __future__ import annotations

from fusetune.kernels.activations import KERNELS as ACTIVATIONS
from fusetune.kernels.kernel import Kernel
from fusetune.kernels.optimizers import ADAM, ADAMW, MOMENTUM, SGD

KERNELS: dict[str, Kernel] = {
    "sgd": SGD,
    "momentum": MOMENTUM,
    "adam": ADAM,
    "adamw": ADAMW,
    **ACTIVATIONS,
}
