"""Learning-rate schedules by name: multipliers of base_lr as functions of the step. No torch is imported."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.tuner.schedules.table import (
        SCHEDULES,
        Schedule,
        build_momentum,
        build_schedule,
        check_schedule,
    )
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "SCHEDULES",
    "Schedule",
    "build_momentum",
    "build_schedule",
    "check_schedule",
]
