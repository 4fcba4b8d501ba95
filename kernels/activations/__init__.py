"""Activations as fused kernels: the table of functions, the kernels, and the public call."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.kernels.activations.api import (
        KERNELS,
        Activation,
        activation,
        activation_path,
        parameter_values,
        reference,
    )
    from fusetune.kernels.activations.functions import FUNCTIONS
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "FUNCTIONS",
    "KERNELS",
    "Activation",
    "activation",
    "activation_path",
    "parameter_values",
    "reference",
]
