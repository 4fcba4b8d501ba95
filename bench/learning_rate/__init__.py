"""`bench lr-range`: range tests in workers, their results, the report and its pictures."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.learning_rate.for_papers import learning_rate_table
    from fusetune.bench.learning_rate.page_sections import lr_range_part
    from fusetune.bench.learning_rate.report import show_learning_rates
    from fusetune.bench.learning_rate.study import (
        LRStudy,
        run_lr_range,
        study_learning_rates,
        with_swept_factors,
    )
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "LRStudy",
    "learning_rate_table",
    "lr_range_part",
    "run_lr_range",
    "show_learning_rates",
    "study_learning_rates",
    "with_swept_factors",
]
