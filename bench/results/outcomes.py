"""What a trial came to besides its metrics: one frozen class for each kind of work that a worker is given.

An outcome travels from the worker to the run in a field of its own, and is on disk as an object with its `kind`.
docs/records.md describes each field.
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

# JSON has lists and objects where these classes have tuples and classes. Everything else must be of its type.
Text = Annotated[str, Strict()]
Number = Annotated[float, Strict()]
Whole = Annotated[int, Strict()]
Flag = Annotated[bool, Strict()]
_FINITE = ConfigDict(allow_inf_nan=False)


@dataclass(frozen=True)
class AutoRate:
    """The learning rate that an LR range test found for `base_lr: auto`.

    Args:
        base_lr: the rate.
        interval: of 95 %, or None where the test has none.
        reason: how it comes about.
        warnings: what it may suffer from, a sentence each.
    """

    __pydantic_config__ = _FINITE

    base_lr: Number
    interval: tuple[Number, Number] | None
    reason: Text = ""
    warnings: tuple[Text, ...] = ()


@dataclass(frozen=True)
class ContendedEpochs:
    """Which epochs were timed while others had the processor.

    Args:
        epochs: their numbers, from 1.
        timed_again: numbers of the epochs whose first timing was replaced.
        involuntary_switches: of the training's thread by the kernel; None: not known.
        stolen: share of the processor that the hypervisor gave to others.
        load: the machine's load average; None: not known.
    """

    __pydantic_config__ = _FINITE

    epochs: tuple[Whole, ...]
    timed_again: tuple[Whole, ...] = ()
    involuntary_switches: Whole | None = None
    stolen: Number = 0.0
    load: Number | None = None


@dataclass(frozen=True)
class TrainingOutcome:
    """A training that is over.

    Args:
        base_lr_auto: what `base_lr: auto` came to, or None.
        contention: None where nothing was contended.
        epochs_made_again: of a search: epochs that were trained once more, because their worker was lost.
        from_log: of a search: whether the record was put together from the search's log, its worker being lost.
    """

    kind: ClassVar[str] = "training"
    __pydantic_config__ = _FINITE

    base_lr_auto: AutoRate | None = None
    contention: ContendedEpochs | None = None
    epochs_made_again: Whole = 0
    from_log: Flag = False


@dataclass(frozen=True)
class RehearsalOutcome:
    """A configuration that was built without being trained. Never on disk.

    Args:
        bad_input: whether the spec asks for what cannot be built.
        built: the model and the optimizer that were built, as text by name; None where nothing was.
    """

    kind: ClassVar[str] = "rehearsal"
    bad_input: Flag = False
    built: dict[str, Any] | None = None


@dataclass(frozen=True)
class PausedTraining:
    """A training of a search that waits in its worker for more epochs. Never on disk.

    Args:
        epochs_made_again: epochs that this step trained once more.
    """

    kind: ClassVar[str] = "paused_training"
    epochs_made_again: Whole = 0


@dataclass(frozen=True)
class RangeTestOutcome:
    """An LR range test.

    Args:
        reason: how the suggestion comes about, or why there is none.
        warnings: what it may suffer from, a sentence each.
        confirm_lrs: rates of the short trainings around the suggestion; None where there were none.
    """

    kind: ClassVar[str] = "range_test"
    __pydantic_config__ = _FINITE

    reason: Text = ""
    warnings: tuple[Text, ...] = ()
    confirm_lrs: tuple[Number, ...] | None = None


@dataclass(frozen=True)
class SimulatedBatch:
    """The largest batch on a device that is not there, by its allocator's rules.

    Args:
        batch_size: in samples; 0: none fits.
        reserved_bytes: what the allocator would reserve, or None where no batch fits.
        predicted_bytes: what the tensors need.
        allocator: whether the allocator was simulated, or the tensors alone were counted.
    """

    __pydantic_config__ = _FINITE

    batch_size: Whole
    reserved_bytes: Whole | None = None
    predicted_bytes: Number | None = None
    allocator: Flag = False


@dataclass(frozen=True)
class MemoryPrediction:
    """What each batch size of a configuration needs, traced before anything is run.

    Args:
        memory: lines in the batch size, see `tuner.memory.StepMemory.as_dict`.
        samples: the most samples that a batch can have.
        limit_bytes: the limit that counts; None: there is none.
        limit_source: who set it.
        loading_bytes: what loading the data took besides the data.
        simulated: for a device that is not there, else None.
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
class MemoryProbe:
    """A batch size that was run in small under the limit. Its numbers are the record's values."""

    kind: ClassVar[str] = "memory_probe"
    __pydantic_config__ = _FINITE


@dataclass(frozen=True)
class StepTimes:
    """Times of whole steps at several batch sizes, from one worker. Never on disk.

    Args:
        seconds: batch size -> seconds of a step in each round.
        processor_missing: share of the processor that the rounds missed; None: not known.
    """

    kind: ClassVar[str] = "step_times"
    seconds: dict[Whole, list[Number]]
    processor_missing: Number | None = None


@dataclass(frozen=True)
class NormsAtEpoch:
    """Squared gradient norms of pairs of batches after some epochs.

    Args:
        epoch: whole epochs before.
        steps: updates before.
        small: samples of a small batch.
        big: samples of a big batch.
        small_squares: squared norms of the gradients of small batches, one a pair.
        big_squares: of the big ones.
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
        points: by epoch.
        samples: of the training set.
        note: what became of `base_lr: auto`; empty without it.
        base_lr_auto: what it came to, or None.
    """

    kind: ClassVar[str] = "gradient_norms"
    points: tuple[NormsAtEpoch, ...]
    samples: Whole
    note: Text = ""
    base_lr_auto: AutoRate | None = None


@dataclass(frozen=True)
class ThroughputOutcome:
    """Steps that were timed at one batch size. Their numbers are the record's values and samples."""

    kind: ClassVar[str] = "throughput"
    __pydantic_config__ = _FINITE


@dataclass(frozen=True)
class NoiseOutcome:
    """The gradient's noise after some epochs. The squared norms are the record's samples.

    Args:
        small: samples of a small batch.
        big: samples of a big batch.
        samples: of the training set.
        train_batch_size: of the training along which it was measured.
        note: what became of `base_lr: auto`; empty without it.
        base_lr_auto: what it came to, or None.
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
    """A measurement of a batch-size search that has no result. The record's reason says why.

    Args:
        measurement: `throughput` or `noise`.
    """

    kind: ClassVar[str] = "failed_measurement"
    __pydantic_config__ = _FINITE

    measurement: Text


@dataclass(frozen=True)
class SizeToTarget:
    """What trainings at one batch size needed to the target.

    Args:
        batch_size: samples in a forward.
        samples_per_step: the same times the accumulation steps.
        factors: of the configuration that was the fastest at this size, as in its records.
        n: its trainings.
        steps: steps to the target of each of those that reached it.
        times_s: seconds to the target of the same.
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
        """The median, a miss being infinite."""
        return median([*self.steps, *[math.inf] * (self.n - len(self.steps))])

    @property
    def median_time_s(self) -> float:
        """The median, a miss being infinite."""
        return median([*self.times_s, *[math.inf] * (self.n - len(self.times_s))])


@dataclass(frozen=True)
class EarlierTrainings:
    """An earlier run of trainings that varied the batch size.

    Args:
        directory: of the run.
        baseline: factor -> value of its `train` configuration.
        rows: by batch size.
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
        batch_size: samples in a forward.
        lr: the suggestion.
        factors: of its record.
    """

    __pydantic_config__ = _FINITE

    batch_size: Whole
    lr: Number
    factors: dict[str, Any]


@dataclass(frozen=True)
class EarlierRangeTests:
    """An earlier run of LR range tests that varied the batch size.

    Args:
        directory: of the run.
        baseline: factor -> value of its `train` configuration.
        rows: one for each test that had a suggestion.
    """

    kind: ClassVar[str] = "earlier_range_tests"
    __pydantic_config__ = _FINITE

    directory: Text
    baseline: dict[str, Any]
    rows: tuple[RateAtSize, ...]


Outcome = (
    TrainingOutcome
    | RehearsalOutcome
    | PausedTraining
    | RangeTestOutcome
    | MemoryPrediction
    | MemoryProbe
    | StepTimes
    | NormsAlongTraining
    | ThroughputOutcome
    | NoiseOutcome
    | FailedMeasurement
    | EarlierTrainings
    | EarlierRangeTests
)
# Outcomes of measurements that a batch-size search makes beside its search of the largest batch.
Measurement = ThroughputOutcome | NoiseOutcome | FailedMeasurement | EarlierTrainings | EarlierRangeTests
_ON_DISK: tuple[type[Any], ...] = (
    TrainingOutcome,
    RangeTestOutcome,
    MemoryPrediction,
    MemoryProbe,
    ThroughputOutcome,
    NoiseOutcome,
    FailedMeasurement,
    EarlierTrainings,
    EarlierRangeTests,
)
_IN_TRANSIT: tuple[type[Any], ...] = (RehearsalOutcome, PausedTraining, StepTimes, NormsAlongTraining)
# Kind on disk -> its class.
OUTCOMES: dict[str, type[Any]] = {each.kind: each for each in _ON_DISK}
_ADAPTERS = {each.kind: TypeAdapter(each) for each in (*_ON_DISK, *_IN_TRANSIT)}


@dataclass(frozen=True)
class WorkerEvents:
    """What became of the process that ran a trial.

    Args:
        put_back: what the trial had changed in it, and was put back.
        replaced_for: what could not be put back, so that the process was replaced.
        unexplained_kill: whether SIGKILL ended it and no memory limit says why: any process may have sent it.
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
    """Rebuild an outcome.

    Raises:
        ValueError: `content` is none; the message names the field.

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
    if kind == RehearsalOutcome.kind:  # arguments of factories are more than JSON can hold
        return RehearsalOutcome(**fields)
    outcome: Outcome = _validated(_ADAPTERS[kind], fields, "outcome")
    return outcome


def worker_events_from_dict(content: Any) -> WorkerEvents:
    """Rebuild what became of a worker. Raises ValueError when `content` is none."""
    events: WorkerEvents = _validated(_WORKER_EVENTS, content, "worker")
    return events


def _validated(adapter: TypeAdapter[Any], content: Any, where: str) -> Any:
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        raise InvalidValueError("", first_fault(error, where)) from None
