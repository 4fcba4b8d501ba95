"""Time, contention, threads, and the ways in which memory runs out."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.tuner.measure.cache_levels import CacheFlush, CacheLevel, caches_of, level_of
    from fusetune.tuner.measure.call_clock import (
        CallClock,
        ClockName,
        Sample,
        TimedDevice,
        TimedSample,
        clocks_of,
    )
    from fusetune.tuner.measure.contention import (
        CONTENDED,
        Contention,
        ProcessorWatch,
        ReadProcessor,
        is_contended,
        load_average,
        read_processor,
        total,
    )
    from fusetune.tuner.measure.freed_memory import give_back_freed_memory, keep_freed_memory
    from fusetune.tuner.measure.out_of_memory import (
        is_out_of_memory,
        reports_out_of_memory,
        requested_bytes,
        shortage_in,
    )
    from fusetune.tuner.measure.reference_loop import gpu_reference_rounds, reference_rounds
    from fusetune.tuner.measure.stopwatch import PeakMemory, Stopwatch, address_space_peak, resident_bytes
    from fusetune.tuner.measure.thread_count import candidate_counts, choose_thread_count, time_thread_counts
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "CONTENDED",
    "CacheFlush",
    "CacheLevel",
    "CallClock",
    "ClockName",
    "Contention",
    "PeakMemory",
    "ProcessorWatch",
    "ReadProcessor",
    "Sample",
    "Stopwatch",
    "TimedDevice",
    "TimedSample",
    "address_space_peak",
    "caches_of",
    "candidate_counts",
    "choose_thread_count",
    "clocks_of",
    "give_back_freed_memory",
    "gpu_reference_rounds",
    "is_contended",
    "is_out_of_memory",
    "keep_freed_memory",
    "level_of",
    "load_average",
    "read_processor",
    "reference_rounds",
    "reports_out_of_memory",
    "requested_bytes",
    "resident_bytes",
    "shortage_in",
    "time_thread_counts",
    "total",
]
