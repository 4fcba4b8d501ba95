"""`bench lr-range` and `base_lr: auto`."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.learning_rate.study import (
        LR_RANGE,
        MOST_SPREAD,
        LRStudy,
        Tested,
        study_learning_rates,
        with_swept_factors,
    )
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "LR_RANGE",
    "MOST_SPREAD",
    "LRStudy",
    "Tested",
    "study_learning_rates",
    "with_swept_factors",
]
