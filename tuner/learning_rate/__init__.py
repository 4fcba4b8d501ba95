"""The LR range test: sweeps, a suggested rate with its interval, and its growth with the batch size."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.tuner.learning_rate.confirmation import Candidates, Confirmation, candidates_around, confirm
    from fusetune.tuner.learning_rate.range import LRRange, lr_range_test
    from fusetune.tuner.learning_rate.scaling import LEAST_SIZES, LRScaling, fit_lr_scaling
    from fusetune.tuner.learning_rate.sweep import StepSettings
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "LEAST_SIZES",
    "Candidates",
    "Confirmation",
    "LRRange",
    "LRScaling",
    "StepSettings",
    "candidates_around",
    "confirm",
    "fit_lr_scaling",
    "lr_range_test",
]
