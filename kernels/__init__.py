"""Fused kernels: maths on tensors, nothing of training, files or YAML (a leaf: imports neither `tuner` nor `bench`).

Names are imported when they are first used: Triton imports `kernels.cpu`, its backend for CPUs, in the middle of
`import triton`, when nothing here can import Triton yet.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernels.activations import Activation, activation
    from kernels.adam import FusedAdam, FusedAdamW
    from kernels.catalog import KERNELS
    from kernels.replace import replace_activations, verify_activation
    from kernels.sgd import FusedSGD

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

_HOME = {
    "KERNELS": "kernels.catalog",
    "Activation": "kernels.activations",
    "activation": "kernels.activations",
    "FusedAdam": "kernels.adam",
    "FusedAdamW": "kernels.adam",
    "FusedSGD": "kernels.sgd",
    "replace_activations": "kernels.replace",
    "verify_activation": "kernels.replace",
}


def __getattr__(name: str) -> Any:
    """Import the name's module (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'kernels' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
