"""The on-disk format of results: records, run directories and their files."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.results.curve_columns import columns_of
    from fusetune.bench.results.directory import RunDirectory, find_run
    from fusetune.bench.results.faults import first_fault
    from fusetune.bench.results.fresh_directory import (
        acquire_lock,
        is_being_written,
        lock_for_appending,
        make_unique,
    )
    from fusetune.bench.results.keeper import RecordKeeper
    from fusetune.bench.results.line_file import LineFile
    from fusetune.bench.results.null_values import finite_or_null
    from fusetune.bench.results.outcomes import (
        AutoRate,
        ContendedEpochs,
        DeviceMemory,
        DeviceProbe,
        EarlierRangeTests,
        EarlierTrainings,
        FailedMeasurement,
        KernelOutcome,
        Measurement,
        MemoryOnDevices,
        MemoryPrediction,
        MemoryProbe,
        NoiseOutcome,
        NormsAlongTraining,
        NormsAtEpoch,
        PausedTraining,
        RangeTestOutcome,
        RateAtSize,
        RehearsalOutcome,
        Sharing,
        SimulatedBatch,
        SizeToTarget,
        StepTimes,
        ThroughputOutcome,
        TrainingOutcome,
        TuningOutcome,
        WorkerEvents,
    )
    from fusetune.bench.results.packed_values import Layout, PackedValues
    from fusetune.bench.results.pictures import Pictures, picture_text
    from fusetune.bench.results.records import STATUSES, Record, Status, ThreadsChoice
    from fusetune.bench.results.run_info import LOCAL, Machine, RunInfo
    from fusetune.bench.results.run_options import BatchSizeOptions, RangeTestOptions
    from fusetune.bench.results.schema import as_written
    from fusetune.bench.results.studies import study_run
    from fusetune.bench.results.whole_file import write_whole
    from fusetune.bench.results.written_spec import WrittenSpec
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "LOCAL",
    "STATUSES",
    "AutoRate",
    "BatchSizeOptions",
    "ContendedEpochs",
    "DeviceMemory",
    "DeviceProbe",
    "EarlierRangeTests",
    "EarlierTrainings",
    "FailedMeasurement",
    "KernelOutcome",
    "Layout",
    "LineFile",
    "Machine",
    "Measurement",
    "MemoryOnDevices",
    "MemoryPrediction",
    "MemoryProbe",
    "NoiseOutcome",
    "NormsAlongTraining",
    "NormsAtEpoch",
    "PackedValues",
    "PausedTraining",
    "Pictures",
    "RangeTestOptions",
    "RangeTestOutcome",
    "RateAtSize",
    "Record",
    "RecordKeeper",
    "RehearsalOutcome",
    "RunDirectory",
    "RunInfo",
    "Sharing",
    "SimulatedBatch",
    "SizeToTarget",
    "Status",
    "StepTimes",
    "ThreadsChoice",
    "ThroughputOutcome",
    "TrainingOutcome",
    "TuningOutcome",
    "WorkerEvents",
    "WrittenSpec",
    "acquire_lock",
    "as_written",
    "columns_of",
    "find_run",
    "finite_or_null",
    "first_fault",
    "is_being_written",
    "lock_for_appending",
    "make_unique",
    "picture_text",
    "study_run",
    "write_whole",
]
