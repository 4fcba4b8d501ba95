"""Validation of run.json and records. An edited file with a wrong type gives an error that names the field.

Most fields are optional, because earlier versions wrote fewer. Each kind of report has a class with its required
fields. Unknown keys are kept, because later versions may write more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from fusetune.bench.errors import RunDirectoryError
from fusetune.bench.kinds import AUTOTUNE, BATCH_SIZE, KERNELS, LR_RANGE, SEARCH, TRAINING, kind_of
from fusetune.bench.results.faults import bounded, first_fault
from fusetune.bench.results.first_version import second_version
from fusetune.bench.results.records import SCHEMA_VERSION, Record, Status
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.spec import field_of
from fusetune.errors import InvalidValueError
from fusetune.tuner.training import Target

Plain = Annotated[Any, BeforeValidator(bounded)]
Factors = dict[str, Plain]
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Index = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1, lt=2**63)]


class _Open(BaseModel):
    """A mapping that may have unknown keys. A null counts as missing where that is allowed."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, protected_namespaces=())


class _Machine(_Open):
    """The machine of a run."""

    device: str | None = None
    device_name: str | None = None
    cores: Index | None = None
    memory_bytes: Index | None = None


class _Target(_Open):
    """The target of a spec."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _can_be_reached(self) -> _Target:
        """Run the target's own validation."""
        Target(self.metric, at_least=self.at_least, at_most=self.at_most)
        return self


class _Train(_Open):
    """The `train` section of a spec."""

    epochs: Count | None = None
    batch_size: Count | None = None
    accumulation_steps: Count = 1


class _Range(_Open):
    """A factor's range in a search."""

    low: float
    high: float
    log: bool = False


class _Settings(_Open):
    """The settings of a search."""

    budget_epochs: Count
    prior: bool = True
    fresh_seeds: Index = 3


class _SearchDesign(_Open):
    """The design `search`."""

    search: _Settings


class _RandomDesign(_Open):
    """The design `random`."""

    random: Count


class _Spec(_Open):
    """The resolved spec."""

    name: str | None = None
    data: dict[str, Plain] | str | None = None
    model: dict[str, Plain] | str | None = None
    train: _Train | None = None
    factors: dict[str, list[Plain] | _Range | None] | None = None
    configurations: list[Factors] | None = None
    design: Literal["grid", "one-at-a-time"] | _SearchDesign | _RandomDesign | None = None
    seeds: list[Index] | Index | None = None
    target: _Target | None = None


class _Threads(_Open):
    """The number of threads, and the reason."""

    threads: Index | None = None
    asked: Plain = None
    reason: str | None = None


class _FileOfData(_Open):
    """The fingerprint of a data file."""

    bytes: Index
    sha256: str


class Run(_Open):
    """The content of run.json."""

    schema_version: Index
    run_id: str | None = None
    kind: str = "run"
    options: dict[str, Plain] = {}
    spec: _Spec | None = None
    spec_path: str | None = None
    overrides: list[str] | None = None
    profile: str | None = None
    profile_changes: list[str] | None = None
    command: list[str] | None = None
    baseline: Factors | None = None
    trials: Index | None = None
    same: list[str] | None = None
    jobs: Count = 1
    executor: str | None = None
    device: str | None = None
    data: list[str] | None = None
    classes: list[list[str]] | None = None
    stand_in: str | None = None
    fingerprint: dict[str, dict[str, _FileOfData]] | None = None
    machine: _Machine | None = None
    versions: dict[str, str | None] | None = None
    commit: str | None = None
    dirty: bool | None = None
    started: str | None = None


class _NamedSpec(_Spec):
    """A spec with a name."""

    name: str


class _TrainingRun(Run):
    """Required fields for the report of trainings."""

    spec: _Spec
    trials: Index


class _RangeOptions(_Open):
    """The options of a range test."""

    lr_min: float
    lr_max: float
    steps: Count
    repeats: Count
    mode: str
    validation: bool


class _RangeRun(Run):
    """Required fields for the report of range tests."""

    spec: _NamedSpec
    options: _RangeOptions  # type: ignore[assignment]


class _BatchOptions(_Open):
    """The options of a batch-size search."""

    device: str | None = None
    max_batch: Count | None = None
    train_batch_size: Count = 1


class _BatchRun(Run):
    """Required fields for the report of a batch-size search."""

    spec: _NamedSpec
    options: _BatchOptions  # type: ignore[assignment]
    device: str


class _SearchTrain(_Train):
    """The `train` section of a search."""

    epochs: Count


class _SearchSpec(_NamedSpec):
    """The spec of a search."""

    train: _SearchTrain
    factors: dict[str, Annotated[list[Plain], Field(min_length=1)] | _Range | None]
    design: _SearchDesign
    seeds: Annotated[list[Index], Field(min_length=1)]


class _SearchRun(Run):
    """Required fields for the report of a search."""

    spec: _SearchSpec


class _KernelsRun(Run):
    """Required fields for the report of kernel benchmarks and tunings."""

    spec: _NamedSpec


_KINDS: dict[str, type[Run]] = {
    TRAINING.name: _TrainingRun,
    LR_RANGE.name: _RangeRun,
    BATCH_SIZE.name: _BatchRun,
    SEARCH.name: _SearchRun,
    KERNELS.name: _KernelsRun,
    AUTOTUNE.name: _KernelsRun,
}


class _Finding(_Open):
    """A diagnosis of a training."""

    name: str
    title: str
    sentence: str
    try_next: str


class _ChosenThreads(_Threads):
    """The number of threads of a trial, and the reason."""

    threads: Index
    asked: int | str
    reason: str


class _FirstAutoRate(_Open):
    """The rate of `base_lr: auto` in version 1."""

    base_lr: float
    interval: Annotated[list[float], Field(min_length=2, max_length=2)] | None


class _Attempt(_Open):
    """An attempt at a trial that was lost with its device."""

    node: str
    device_id: str
    reason: str


class Provenance(_Open):
    """The provenance of a record."""

    device: str | None = None
    device_name: str | None = None
    torch: str | None = None
    commit: str | None = None
    dirty: bool | None = None
    jobs: Count = 1
    timings_shared: bool | None = None
    node: str | None = None
    device_id: str | None = None
    device_speed: float | None = None
    device_slow: bool | None = None
    attempts: list[_Attempt] | None = None
    threads_choice: _ChosenThreads | None = None
    data: str | None = None
    stand_in: bool | None = None
    classes: list[str] | None = None
    precision: str | None = None
    threads: Index | None = None
    memory_limit_bytes: Index | None = None
    memory_limit_source: str | None = None
    memory_limit_note: str | None = None
    path: dict[str, str] | str | None = None
    path_reason: str | None = None
    tuned_configs: list[str] | None = None
    peak_bytes_of: str | None = None


# Reports compute ratios and logarithms of these.
_ABOVE_ZERO = (
    "step_time_s",
    "step_time_median_s",
    "time_to_target_s",
    "steps_to_target",
    "samples_per_s",
    "range_lr",
    "suggested_lr",
    "lr_low",
    "lr_high",
    "lr_interval_low",
    "lr_interval_high",
    "divergence_lr",
    "latency_s",
)


_TOGETHER = (
    ("steps_to_target", "time_to_target_s"),
    ("lr_low", "lr_high"),
    ("lr_interval_low", "lr_interval_high"),
)
# Factors that reports compute with.
_COUNTED = ("train.batch_size", "train.accumulation_steps")


def _countable(factors: dict[str, Any]) -> dict[str, Any]:
    """Return factors after a check that their counts are positive integers."""
    for name, value in factors.items():
        is_count = isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**63
        if field_of(name) in _COUNTED and not is_count:
            raise ValueError(f"{name} must be a whole number above 0")
    return factors


def _measured(values: dict[str, float]) -> dict[str, float]:
    """Return values after a check of their signs, and of values that come in pairs."""
    signed, apart = _signs(tuple(values))
    for name, is_above_zero in signed if min(values.values(), default=1) <= 0 else ():
        value = values[name]
        if value < 0 or (is_above_zero and value == 0):
            raise ValueError(f"{name} is {value}, which is not a possible measurement")
    for one, other in apart:
        raise ValueError(f"{one} and {other} must both be there")
    return values


@lru_cache(maxsize=1024)
def _signs(names: tuple[str, ...]) -> tuple[list[tuple[str, bool]], list[tuple[str, str]]]:
    """Return which values cannot be negative, and whether they must be above 0, and which pairs lack one.

    The records of a run have few different sets of names, and some runs have 100,000 records.
    """
    signed = [
        (name, name in _ABOVE_ZERO)
        for name in names
        if name in _ABOVE_ZERO or name.endswith(("_s", "_bytes"))
    ]
    return signed, [(one, other) for one, other in _TOGETHER if (one in names) != (other in names)]


class _RecordFields(_Open):
    """The fields of records of every version."""

    model_config = ConfigDict(extra="forbid")

    trial: str
    factors: Annotated[Factors, AfterValidator(_countable)]
    seed: Index
    status: Status
    reason: str = ""
    values: Annotated[dict[str, float], AfterValidator(_measured)] = {}
    samples: dict[str, list[float]] = {}
    curve: list[dict[str, float | None]] = []
    findings: list[_Finding] = []


class WrittenRecord(_RecordFields):
    """One line of records.jsonl, see `bench.results.records.Record`."""

    schema_version: Index
    provenance: Provenance = Provenance()
    # `bench.results.outcomes` validates these when it builds the objects.
    outcome: Plain = None
    worker: Plain = None


class _FirstProvenance(Provenance):
    """The provenance of version 1, which includes outcomes."""

    reason: str | None = None
    note: str | None = None
    warnings: list[str] = []
    confirm_lrs: list[float] | None = None
    base_lr_auto: _FirstAutoRate | None = None
    measurement: str | None = None
    prediction: dict[str, Plain] | None = None


class FirstRecord(_RecordFields):
    """One line of records.jsonl in version 1, which has no schema version."""

    provenance: _FirstProvenance = _FirstProvenance()


def checked_factors(factors: dict[str, Any]) -> dict[str, Any]:
    """Return a record's factors after the checks that its schema makes of them.

    Raises:
        ValueError: the factors are not those of a record.
    """
    return _countable({name: bounded(value) for name, value in factors.items()})


def checked_values(values: dict[str, float]) -> dict[str, float]:
    """Return a record's values after the checks that its schema makes of numbers.

    Args:
        values: metric -> number, not a bool.

    Raises:
        ArithmeticError, ValueError: the values are not those of a record, or are too large to be added up.
    """
    if not math.isfinite(math.fsum(values.values())):
        raise ValueError("the sum of the values is not finite")
    return _measured(values)


def check_run(content: Any, where: str) -> None:
    """Check the type of each field of run.json.

    Raises:
        RunDirectoryError: a field has a wrong type. The message names it.
    """
    _check(Run, content, where)
    _check_levels(content, where)


def check_reportable(content: Mapping[str, Any], path: Path) -> None:
    """Check that run.json has the required fields for the report of its kind. An unknown kind requires none.

    Raises:
        RunDirectoryError: a field is missing. The message names it.
    """
    model = _KINDS.get(str(content.get("kind", TRAINING.name)))
    if model is not None:
        _check(model, content, str(path / "run.json"))


def check_records(run: RunInfo, records: Sequence[Record], path: Path) -> None:
    """Check that each record has what the report of the run's kind needs.

    Raises:
        RunDirectoryError: a record lacks a factor, or has an invalid curve. The message names the trial.
    """
    kind = kind_of(run.kind)
    wanted = run.spec.levels.keys() if kind in (TRAINING, LR_RANGE) else set()
    # Records that were read from one file share equal factors.
    lacking = {
        id(factors): sorted(wanted - factors.keys())
        for factors in {id(record.factors): record.factors for record in records}.values()
    }
    for record in records:
        missing = lacking[id(record.factors)]
        fault = f"lacks the factor {missing[0]}" if missing else ""
        if kind is LR_RANGE and not fault:
            fault = _curve_fault(record.curve)
        if fault:
            raise RunDirectoryError(
                path / "records.jsonl",
                f"the record of trial {record.trial} {fault}",
                to_do="Remove its line, and the trial will be run again on --resume.",
            )


@contextmanager
def as_written(path: Path, *, by_this_process: bool) -> Iterator[None]:
    """Turn exceptions of a report on damaged records into an error that names the file.

    Args:
        path: the run's directory.
        by_this_process: whether this process made the records. An exception is then a bug, and is not converted.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if by_this_process:
            raise
        raise RunDirectoryError(
            path / "records.jsonl",
            "records hold what no run writes",
            f"{type(error).__name__}: {error}",
            "Restore the file, or start a new run.",
        ) from error


def _curve_fault(curve: Sequence[Mapping[str, float | None]]) -> str:
    """Return the fault of a range test's curve, or an empty text."""
    last = 0.0
    for number, entry in enumerate(curve):
        lr = entry.get("lr")
        if lr is None or lr <= last:
            return f"has a curve whose entry {number} has no rate above the one before"
        if entry.keys() != curve[0].keys() or "smoothed" not in entry:
            return f"has a curve whose entry {number} has other losses than the first"
        last = lr
    return ""


def record_of(content: Any, kind: str) -> Record:
    """Return the record of a JSON object of any known schema version.

    Args:
        content: one line of records.jsonl.
        kind: the run's kind.

    Raises:
        LaterVersionError: a later version of this program wrote it.
        ValueError: it is not a record. The message names the field.
    """
    version = version_of(content, default=1)
    model = FirstRecord if version == 1 else WrittenRecord
    try:
        model.model_validate(content)
    except ValidationError as error:
        raise InvalidValueError("", first_fault(error)) from None
    if version == 1:
        try:
            return Record.from_dict(second_version(content, kind))
        except ValueError as error:
            raise InvalidValueError("", f"as version 2 names it, {error}") from None
    return Record.from_dict(content)


class LaterVersionError(Exception):
    """A file or a line has a schema version above this program's."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version

    def at(self, where: object) -> RunDirectoryError:
        """Return the error for the file or the line."""
        return RunDirectoryError(
            where,
            f"schema_version {self.version} is newer than this program",
            f"known: up to {SCHEMA_VERSION}",
            "Update fusetune.",
        )


def version_of(content: Any, *, default: int | None = None) -> int | None:
    """Return the schema version of a file or a line.

    Args:
        content: the content of the file or the line.
        default: the version if none is given.

    Raises:
        LaterVersionError: the version is above this program's.
    """
    version = content.get("schema_version", default) if isinstance(content, Mapping) else default
    if not isinstance(version, int):
        return None
    if version > SCHEMA_VERSION:
        raise LaterVersionError(version)
    return version


def _check(model: type[BaseModel], content: Any, where: str) -> None:
    try:
        model.model_validate(content)
    except ValidationError as error:
        raise RunDirectoryError(
            where, "is broken", first_fault(error), "Restore it, or start a new run."
        ) from None


def _check_levels(content: Any, where: str) -> None:
    """Raise an error for data that are nested too deeply."""
    try:
        bounded(content)
    except ValueError as error:
        raise RunDirectoryError(where, "is broken", str(error), "Restore it, or start a new run.") from None
