"""Worker processes: trials run in them, under limits, and do not harm each other."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.workers.compile_cache import keep_compiled_code_private, keep_headers_private
    from fusetune.bench.workers.executors import Executor, WorkerExecutor
    from fusetune.bench.workers.gpus import DeviceLock, gpu_uuids, show_gpus, visible_gpus
    from fusetune.bench.workers.memory_limit import (
        SOURCE_NAMES,
        MemoryBudget,
        address_space_left,
        classify,
        classify_text,
        limit_lifted,
        limited_memory,
        measure_footprint,
        settle_footprint,
        why_not_enforced,
    )
    from fusetune.bench.workers.messages import Message, encode
    from fusetune.bench.workers.pool import (
        LATER,
        MOST_LOSSES,
        NOTHING,
        ClusterListener,
        ExecutorLostError,
        InOrder,
        Listener,
        Pool,
        Source,
        run_all,
    )
    from fusetune.bench.workers.programs import running_program
    from fusetune.bench.workers.worker import (
        OnProgress,
        Progress,
        WorkerContext,
        WorkerSetup,
        attempt,
        begin,
        describe_exception,
        is_library,
        make_context,
        named_function,
        next_job,
        record_without_result,
        wait_passively,
    )
    from fusetune.bench.workers.worker_process import (
        ForeignMessageError,
        WorkerLostError,
        WorkerProcess,
        describe_exit,
        with_tail,
    )
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "LATER",
    "MOST_LOSSES",
    "NOTHING",
    "SOURCE_NAMES",
    "ClusterListener",
    "DeviceLock",
    "Executor",
    "ExecutorLostError",
    "ForeignMessageError",
    "InOrder",
    "Listener",
    "MemoryBudget",
    "Message",
    "OnProgress",
    "Pool",
    "Progress",
    "Source",
    "WorkerContext",
    "WorkerExecutor",
    "WorkerLostError",
    "WorkerProcess",
    "WorkerSetup",
    "address_space_left",
    "attempt",
    "begin",
    "classify",
    "classify_text",
    "describe_exception",
    "describe_exit",
    "encode",
    "gpu_uuids",
    "is_library",
    "keep_compiled_code_private",
    "keep_headers_private",
    "limit_lifted",
    "limited_memory",
    "make_context",
    "measure_footprint",
    "named_function",
    "next_job",
    "record_without_result",
    "run_all",
    "running_program",
    "settle_footprint",
    "show_gpus",
    "visible_gpus",
    "wait_passively",
    "why_not_enforced",
    "with_tail",
]
