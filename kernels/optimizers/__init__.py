"""Optimizer updates as fused kernels: maths, reference, kernel and torch.optim class of each family."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.kernels.optimizers.adam import ADAM, ADAMW, FusedAdam, FusedAdamW
    from fusetune.kernels.optimizers.sgd import MOMENTUM, SGD, FusedSGD
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "ADAM",
    "ADAMW",
    "MOMENTUM",
    "SGD",
    "FusedAdam",
    "FusedAdamW",
    "FusedSGD",
]
