"""Worker processes: trials run in them, under limits, and do not harm each other."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.workers.compile_cache import keep_headers_private
    from fusetune.bench.workers.executors import Executor, WorkerExecutor, run_all
    from fusetune.bench.workers.memory_limit import (
        SOURCE_NAMES,
        address_space_left,
        measure_footprint,
        settle_footprint,
        why_not_enforced,
    )
    from fusetune.bench.workers.programs import running_program
    from fusetune.bench.workers.worker import (
        OnProgress,
        Progress,
        WorkerContext,
        WorkerSetup,
        record_without_result,
    )
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "SOURCE_NAMES",
    "Executor",
    "OnProgress",
    "Progress",
    "WorkerContext",
    "WorkerExecutor",
    "WorkerSetup",
    "address_space_left",
    "keep_headers_private",
    "measure_footprint",
    "record_without_result",
    "run_all",
    "running_program",
    "settle_footprint",
    "why_not_enforced",
]
