"""Outcomes: results of a trial beside its metrics, with one frozen class for each kind of work.

A record has a field for its outcome, which is a JSON object with its `kind` on disk. docs/records.md describes each
field.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Strict, TypeAdapter, ValidationError

from fusetune.bench.results.faults import first_fault
from fusetune.errors import InvalidValueError

# Lists convert to tuples and objects to classes, because JSON has neither. Other types must match.
Text = Annotated[str, Strict()]
Number = Annotated[float, Strict()]
Whole = Annotated[int, Strict()]
Flag = Annotated[bool, Strict()]
_FINITE = ConfigDict(allow_inf_nan=False)


@dataclass(frozen=True)
class AutoRate:
    """The learning rate that an LR range test chose for `base_lr: auto`.

    Args:
        base_lr: the rate.
        interval: the 95 % interval, or None if the test has none.
        reason: the reason for the rate.
        warnings: a sentence on each doubt about the rate.
    """

    __pydantic_config__ = _FINITE

    base_lr: Number
    interval: tuple[Number, Number] | None
    reason: Text = ""
    warnings: tuple[Text, ...] = ()


@dataclass(frozen=True)
class ContendedEpochs:
    """Epochs that were timed while other processes used the processor.

    Args:
        epochs: numbers of the contended epochs, from 1.
        timed_again: numbers of the epochs whose first timing was replaced.
        involuntary_switches: involuntary context switches of the training's thread. None: not known.
        stolen: steal time, the share of the processor that the hypervisor gave to other guests.
        load: the machine's load average. None: not known.
    """

    __pydantic_config__ = _FINITE

    epochs: tuple[Whole, ...]
    timed_again: tuple[Whole, ...] = ()
    involuntary_switches: Whole | None = None
    stolen: Number = 0.0
    load: Number | None = None


@dataclass(frozen=True)
class Sharing:
    """How several devices shared the batches of a training. Times are those of rank 0.

    Args:
        devices: number of devices, each with a process.
        parallel: `ddp` or `fsdp`.
        threads: PyTorch's threads in each process. The provenance has those of all together.
        batch_norm: over what batch normalisation worked: `share` (each device's own), `batch`, or None without any.
        communication_s: mean seconds in a step from the first exchange of gradients to the end of the last. None: not
            measured.
        communication_share: `communication_s` / mean step time. None: not measured.
        overlap: share of `communication_s` in which the backward pass computed, 0 to 1. None: not measured.
        bytes_per_step: gradients that each device exchanges in a step. None: not known.
    """

    __pydantic_config__ = _FINITE

    devices: Whole
    parallel: Text
    threads: Whole
    batch_norm: Text | None = None
    communication_s: Number | None = None
    communication_share: Number | None = None
    overlap: Number | None = None
    bytes_per_step: Whole | None = None


@dataclass(frozen=True)
class TrainingOutcome:
    """A training that has ended.

    Args:
        base_lr_auto: the rate that `base_lr: auto` chose, or None.
        contention: contended epochs, or None.
        epochs_made_again: in a search, number of epochs that were repeated because their worker was lost.
        from_log: in a search, whether the record was rebuilt from the search's log because its worker was lost.
        sharing: how several devices shared the batches, or None for one device.
    """

    kind: ClassVar[str] = "training"
    __pydantic_config__ = _FINITE

    base_lr_auto: AutoRate | None = None
    contention: ContendedEpochs | None = None
    epochs_made_again: Whole = 0
    from_log: Flag = False
    sharing: Sharing | None = None


@dataclass(frozen=True)
class RehearsalOutcome:
    """A rehearsal, which builds a configuration without training it. Never on disk.

    Args:
        bad_input: whether the spec is the reason that the configuration cannot be built.
        built: name -> text of the model and the optimizer, or None if they were not built.
    """

    kind: ClassVar[str] = "rehearsal"
    bad_input: Flag = False
    built: dict[str, Any] | None = None


@dataclass(frozen=True)
class PausedTraining:
    """A training of a search that is paused in its worker. Never on disk.

    Args:
        epochs_made_again: number of epochs that this step repeated.
    """

    kind: ClassVar[str] = "paused_training"
    epochs_made_again: Whole = 0


@dataclass(frozen=True)
class RangeTestOutcome:
    """An LR range test.

    Args:
        reason: the reason for the suggestion, or why there is none.
        warnings: a sentence on each doubt about the suggestion.
        confirm_lrs: rates of the short trainings around the suggestion, or None.
    """

    kind: ClassVar[str] = "range_test"
    __pydantic_config__ = _FINITE

    reason: Text = ""
    warnings: tuple[Text, ...] = ()
    confirm_lrs: tuple[Number, ...] | None = None


@dataclass(frozen=True)
class SimulatedBatch:
    """The predicted largest batch where nothing is run. For an absent device its allocator is simulated.

    Args:
        batch_size: in samples. 0: none fits.
        reserved_bytes: memory that the allocator would reserve, or that the process would need. None: no batch fits.
        predicted_bytes: memory of the tensors.
        allocator: whether the allocator was simulated. Else only the tensors were counted.
    """

    __pydantic_config__ = _FINITE

    batch_size: Whole
    reserved_bytes: Whole | None = None
    predicted_bytes: Number | None = None
    allocator: Flag = False


@dataclass(frozen=True)
class MemoryPrediction:
    """The predicted memory of each batch size of a configuration, from traces.

    Args:
        memory: linear functions of the batch size, see `tuner.memory.StepMemory.as_dict`.
        samples: the most samples of a batch.
        limit_bytes: the tightest limit. None: there is none.
        limit_source: the origin of the limit.
        loading_bytes: memory of loading beside the data themselves.
        simulated: the largest batch on an absent device, else None.
    """

    kind: ClassVar[str] = "memory_prediction"
    __pydantic_config__ = _FINITE

    memory: dict[str, Any]
    samples: Whole
    limit_bytes: Whole | None
    limit_source: Text | None
    loading_bytes: Whole
    simulated: SimulatedBatch | None = None


@dataclass(frozen=True)
class DeviceMemory:
    """The predicted memory of one of several devices that share a training.

    Args:
        devices: how many share it.
        parallel: `ddp` or `fsdp`.
        memory: linear functions of the samples of one device, see `tuner.memory.StepMemory.as_dict`.
        samples: the most samples of a device in a forward.
        simulated: one device's largest batch where nothing is run, else None.
    """

    kind: ClassVar[str] = "device_memory"
    __pydantic_config__ = _FINITE

    devices: Whole
    parallel: Text
    memory: dict[str, Any]
    samples: Whole
    simulated: SimulatedBatch | None = None


@dataclass(frozen=True)
class MemoryOnDevices:
    """The memory on each number of devices, from one worker. Never on disk."""

    kind: ClassVar[str] = "memory_on_devices"
    found: tuple[DeviceMemory, ...]


@dataclass(frozen=True)
class MemoryProbe:
    """A batch size that ran a few steps under the limit. The record's values hold the measurements."""

    kind: ClassVar[str] = "memory_probe"
    __pydantic_config__ = _FINITE


@dataclass(frozen=True)
class StepTimes:
    """Times of whole steps at several batch sizes, from one worker. Never on disk.

    Args:
        seconds: batch size -> seconds per step in each round.
        processor_missing: share of the processor that the rounds did not get. None: not known.
    """

    kind: ClassVar[str] = "step_times"
    seconds: dict[Whole, list[Number]]
    processor_missing: Number | None = None


@dataclass(frozen=True)
class NormsAtEpoch:
    """Squared gradient norms of pairs of batches after some epochs.

    Args:
        epoch: number of epochs before.
        steps: number of updates before.
        small: samples of a small batch.
        big: samples of a big batch.
        small_squares: squared gradient norms of the small batches, one per pair.
        big_squares: squared gradient norms of the big batches, one per pair.
    """

    epoch: Whole
    steps: Whole
    small: Whole
    big: Whole
    small_squares: tuple[Number, ...]
    big_squares: tuple[Number, ...]


@dataclass(frozen=True)
class NormsAlongTraining:
    """Gradient norms along a short training, from one worker. Never on disk.

    Args:
        points: the norms by epoch.
        samples: number of samples of the training set.
        note: a note on `base_lr: auto`. Empty without it.
        base_lr_auto: the rate that `base_lr: auto` chose, or None.
    """

    kind: ClassVar[str] = "gradient_norms"
    points: tuple[NormsAtEpoch, ...]
    samples: Whole
    note: Text = ""
    base_lr_auto: AutoRate | None = None


@dataclass(frozen=True)
class ThroughputOutcome:
    """Timed steps at one batch size. The record's values and samples hold the measurements."""

    kind: ClassVar[str] = "throughput"
    __pydantic_config__ = _FINITE


@dataclass(frozen=True)
class DeviceProbe:
    """A batch that several devices shared for some steps, each under the limit. Values and samples hold the numbers.

    Args:
        devices: how many shared it.
        parallel: `ddp` or `fsdp`.
        communication_share: share of a step in which gradients were exchanged. None: not measured.
    """

    kind: ClassVar[str] = "device_probe"
    __pydantic_config__ = _FINITE

    devices: Whole
    parallel: Text
    communication_share: Number | None = None


@dataclass(frozen=True)
class NoiseOutcome:
    """Gradient noise after some epochs. The record's samples hold the squared norms.

    Args:
        small: samples of a small batch.
        big: samples of a big batch.
        samples: number of samples of the training set.
        train_batch_size: batch size of the training along which noise was measured.
        note: a note on `base_lr: auto`. Empty without it.
        base_lr_auto: the rate that `base_lr: auto` chose, or None.
    """

    kind: ClassVar[str] = "gradient_noise"
    __pydantic_config__ = _FINITE

    small: Whole
    big: Whole
    samples: Whole
    train_batch_size: Whole
    note: Text = ""
    base_lr_auto: AutoRate | None = None


@dataclass(frozen=True)
class FailedMeasurement:
    """A measurement of a batch-size search without a result. The record's reason explains it.

    Args:
        measurement: `throughput`, `noise` or `devices`.
    """

    kind: ClassVar[str] = "failed_measurement"
    __pydantic_config__ = _FINITE

    measurement: Text


@dataclass(frozen=True)
class SizeToTarget:
    """Steps and time to the target of trainings at one batch size.

    Args:
        batch_size: samples per forward.
        samples_per_step: batch size times accumulation steps.
        factors: factors of the fastest configuration at this size, as in its records.
        n: number of its trainings.
        steps: steps to the target of each training that reached it.
        times_s: seconds to the target of the same trainings.
    """

    __pydantic_config__ = _FINITE

    batch_size: Whole
    samples_per_step: Whole
    factors: dict[str, Any]
    n: Whole
    steps: tuple[Number, ...]
    times_s: tuple[Number, ...]

    @property
    def median_steps(self) -> float:
        """The median. A missed target counts as infinite."""
        return median([*self.steps, *[math.inf] * (self.n - len(self.steps))])

    @property
    def median_time_s(self) -> float:
        """The median. A missed target counts as infinite."""
        return median([*self.times_s, *[math.inf] * (self.n - len(self.times_s))])


@dataclass(frozen=True)
class EarlierTrainings:
    """An earlier run of trainings that varied the batch size.

    Args:
        directory: the run's directory.
        baseline: factor -> value of its `train` configuration.
        rows: one for each batch size and choice of other factors.
    """

    kind: ClassVar[str] = "earlier_trainings"
    __pydantic_config__ = _FINITE

    directory: Text
    baseline: dict[str, Any]
    rows: tuple[SizeToTarget, ...]


@dataclass(frozen=True)
class RateAtSize:
    """The learning rate that a range test suggested at a batch size.

    Args:
        batch_size: samples per forward.
        lr: the suggested rate.
        factors: factors of the test's record.
    """

    __pydantic_config__ = _FINITE

    batch_size: Whole
    lr: Number
    factors: dict[str, Any]


@dataclass(frozen=True)
class EarlierRangeTests:
    """An earlier run of LR range tests that varied the batch size.

    Args:
        directory: the run's directory.
        baseline: factor -> value of its `train` configuration.
        rows: one for each test with a suggestion.
    """

    kind: ClassVar[str] = "earlier_range_tests"
    __pydantic_config__ = _FINITE

    directory: Text
    baseline: dict[str, Any]
    rows: tuple[RateAtSize, ...]


@dataclass(frozen=True)
class KernelOutcome:
    """A kernel at one shape, dtype and direction, with its competitors.

    Args:
        row: a `bench.kernels.Row` as plain data. The latencies of the kernel itself by the row's first policy are
            left out, because they are the record's sample `latency_s`.
    """

    kind: ClassVar[str] = "kernel"
    __pydantic_config__ = _FINITE

    row: dict[str, Any]


@dataclass(frozen=True)
class TuningOutcome:
    """What tuning a kernel at one shape and dtype came to.

    Args:
        tuning: a `bench.autotune.Tuning` as plain data.
    """

    kind: ClassVar[str] = "tuning"
    __pydantic_config__ = _FINITE

    tuning: dict[str, Any]


Outcome = (
    TrainingOutcome
    | RehearsalOutcome
    | PausedTraining
    | RangeTestOutcome
    | MemoryPrediction
    | DeviceMemory
    | MemoryOnDevices
    | MemoryProbe
    | StepTimes
    | NormsAlongTraining
    | ThroughputOutcome
    | DeviceProbe
    | NoiseOutcome
    | FailedMeasurement
    | EarlierTrainings
    | EarlierRangeTests
    | KernelOutcome
    | TuningOutcome
)
# Outcomes of a batch-size search beside those of memory on one device.
Measurement = (
    DeviceMemory
    | DeviceProbe
    | ThroughputOutcome
    | NoiseOutcome
    | FailedMeasurement
    | EarlierTrainings
    | EarlierRangeTests
)
_ON_DISK: tuple[type[Any], ...] = (
    TrainingOutcome,
    RangeTestOutcome,
    MemoryPrediction,
    DeviceMemory,
    MemoryProbe,
    ThroughputOutcome,
    DeviceProbe,
    NoiseOutcome,
    FailedMeasurement,
    EarlierTrainings,
    EarlierRangeTests,
    KernelOutcome,
    TuningOutcome,
)
_IN_TRANSIT: tuple[type[Any], ...] = (
    RehearsalOutcome,
    PausedTraining,
    MemoryOnDevices,
    StepTimes,
    NormsAlongTraining,
)
# Kind on disk -> its class.
OUTCOMES: dict[str, type[Any]] = {each.kind: each for each in _ON_DISK}
_ADAPTERS = {each.kind: TypeAdapter(each) for each in (*_ON_DISK, *_IN_TRANSIT)}


@dataclass(frozen=True)
class WorkerEvents:
    """Events of the process that ran a trial.

    Args:
        put_back: process state that the trial changed and that was restored.
        replaced_for: process state that could not be restored, so that the process was replaced.
        unexplained_kill: whether SIGKILL ended it and no memory limit explains that. Any process can send SIGKILL.
    """

    __pydantic_config__ = _FINITE

    put_back: tuple[Text, ...] = ()
    replaced_for: tuple[Text, ...] = ()
    unexplained_kill: Flag = False


_WORKER_EVENTS = TypeAdapter(WorkerEvents)


def outcome_as_dict(outcome: Outcome) -> dict[str, Any]:
    """Return the JSON object of an outcome.

    Example:
        >>> outcome_as_dict(PausedTraining(2))
        {'kind': 'paused_training', 'epochs_made_again': 2}
    """
    return {"kind": outcome.kind, **dataclasses.asdict(outcome)}


def outcome_from_dict(content: Any) -> Outcome:
    """Return the outcome of a JSON object.

    Raises:
        ValueError: `content` is not an outcome. The message names the field.

    Example:
        >>> outcome_from_dict({"kind": "range_test", "reason": "it falls"}).reason
        'it falls'
    """
    if not isinstance(content, Mapping):
        raise InvalidValueError("outcome", f"must be an object, is {content!s:.60}")
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in _ADAPTERS:
        raise InvalidValueError.unknown("outcome.kind", kind, OUTCOMES, in_order=True)
    fields = {name: value for name, value in content.items() if name != "kind"}
    if kind == RehearsalOutcome.kind:  # arguments of factories need not be JSON-able
        return RehearsalOutcome(**fields)
    outcome: Outcome = _validated(_ADAPTERS[kind], fields, "outcome")
    return outcome


def worker_events_from_dict(content: Any) -> WorkerEvents:
    """Return the worker events of a JSON object.

    Raises:
        ValueError: `content` does not hold worker events.
    """
    events: WorkerEvents = _validated(_WORKER_EVENTS, content, "worker")
    return events


def _validated(adapter: TypeAdapter[Any], content: Any, where: str) -> Any:
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        raise InvalidValueError("", first_fault(error, where)) from None
