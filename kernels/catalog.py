"""All kernels by name."""

from __future__ import annotations

from kernels.activations import KERNELS as ACTIVATIONS
from kernels.adam import ADAM, ADAMW
from kernels.kernel import Kernel
from kernels.sgd import MOMENTUM, SGD

KERNELS: dict[str, Kernel] = {
    "sgd": SGD,
    "momentum": MOMENTUM,
    "adam": ADAM,
    "adamw": ADAMW,
    **ACTIVATIONS,
}
