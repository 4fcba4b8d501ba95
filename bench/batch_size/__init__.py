"""`bench batch-size`: the largest batch under a byte limit, what each size is worth, and one recommendation."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.batch_size.accelerators import ACCELERATORS, accelerator
    from fusetune.bench.batch_size.earlier_runs import find_rate_run, find_target_run
    from fusetune.bench.batch_size.measurements import (
        Measurements,
        measure_batch_sizes,
        study_as_dict,
        study_measurements,
    )
    from fusetune.bench.batch_size.study import (
        BATCH_SIZE,
        BatchSizeStudy,
        ConfigurationStudy,
        SizeRow,
        search_batch_sizes,
        study_batch_sizes,
        with_limits,
    )
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "ACCELERATORS",
    "BATCH_SIZE",
    "BatchSizeStudy",
    "ConfigurationStudy",
    "Measurements",
    "SizeRow",
    "accelerator",
    "find_rate_run",
    "find_target_run",
    "measure_batch_sizes",
    "search_batch_sizes",
    "study_as_dict",
    "study_batch_sizes",
    "study_measurements",
    "with_limits",
]
