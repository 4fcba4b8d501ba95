"""The search for the largest batch under a byte limit: prediction, probes in fresh workers, and results.

SPEC --configurations--> [Trial] --predict--> prediction --largest_batch--> probes, each a Record
  records --study_batch_sizes--> BatchSizeStudy --render--> terminal, or JSON
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from pydantic import ValidationError

from fusetune.bench.errors import InputError
from fusetune.bench.results import (
    BatchSizeOptions,
    DeviceMemory,
    FailedMeasurement,
    Measurement,
    MemoryOnDevices,
    MemoryPrediction,
    MemoryProbe,
    Record,
    RecordKeeper,
    RehearsalOutcome,
    RunDirectory,
    RunInfo,
)
from fusetune.bench.run import RunPlan, named
from fusetune.bench.spec import LoadedSpec, Spec, Trial, field_of, freeze, without_factors
from fusetune.bench.stats import Caveat, caveats_of, configuration_label
from fusetune.bench.units import format_bytes
from fusetune.bench.workers import WorkerExecutor
from fusetune.tuner.batch_size import (
    CPU_OVERHEAD,
    CUDA_OVERHEAD,
    Overhead,
    Probe,
    fit_overhead,
    largest_batch,
)
from fusetune.tuner.memory import StepMemory

_FACTOR = "batch_size"
_NOTHING_RAN = "no batch ran in full under the limit"
_NO_ROOM = "one device has no room for a sample under the limit"
_STATUS_WORDS = {"ok": "fits", "out_of_memory": "does not fit"}

Announce = Callable[[str], None]


@dataclass(frozen=True)
class SizeRow:
    """The predicted, expected and measured memory of one batch size.

    Args:
        batch_size: samples of a device in a forward.
        status: `ok` (ran in full), `out_of_memory`, `failed`, or `predicted` (not run).
        predicted_bytes: the tensors' memory, from the traces.
        expected_bytes: the same with the overhead of libraries and allocator, by the fit before the run. None without
            the device.
        needed_bytes: the measured least limit under which it runs. A lower bound where it does not fit.
        peak_bytes: the measured growth of resident memory (CPU), or the peak of all tensors (CUDA).
        error: expected / needed - 1. None without a measurement.
        step_time_s: median of the probe's few steps, in seconds.
        reason: why it does not fit or failed.
        probe: the run's number, from 1. None if it was not run.
    """

    batch_size: int
    status: str
    predicted_bytes: float
    expected_bytes: float | None = None
    needed_bytes: float | None = None
    peak_bytes: float | None = None
    error: float | None = None
    step_time_s: float | None = None
    reason: str = ""
    probe: int | None = None


@dataclass(frozen=True)
class ConfigurationStudy:
    """The results for one configuration of the spec, which leaves out the batch size.

    Args:
        factors: factor -> value without batch_size. Empty for the `train` configuration.
        batch_size: the largest that ran in full, or without the device the largest predicted one. None: none.
        bound: `memory`, `samples` (all of the training set is one batch) or `nothing fits`.
        limit_bytes: the tightest limit.
        limit_source: the origin of the limit: --memory, the spec, the container, the shell, the device.
        samples: the most samples of a batch.
        phase: the phase of the largest batch's peak.
        parts: predicted bytes of each kind of tensor at that peak.
        method: `traced`, or `measured` for a model that cannot be traced.
        note: why it was measured, or what the prediction leaves out.
        overhead: fit of needed = offset + slope * predicted + curve * predicted^2. None if no size fitted.
        rows: every size that was run, and powers of two that were not, by size.
        probes: number of sizes that were run.
        failure: why there is no largest batch. Else empty.
    """

    factors: Mapping[str, Any]
    batch_size: int | None
    bound: str
    limit_bytes: int | None
    limit_source: str | None
    samples: int
    phase: str
    parts: Mapping[str, int]
    method: str
    note: str
    overhead: Overhead | None
    rows: tuple[SizeRow, ...]
    probes: int
    failure: str = ""


@dataclass(frozen=True)
class BatchSizeStudy:
    """The memory results of `bench batch-size`.

    Args:
        run: the run.
        accelerator: name of the absent device of a prediction. None for this machine's device.
        configurations: one for each configuration of the spec without its batch size.
        directory: the run's directory.
        caveats: warnings for the top of the report.
    """

    run: RunInfo
    accelerator: str | None
    configurations: tuple[ConfigurationStudy, ...]
    directory: str | None = None
    caveats: tuple[Caveat, ...] = ()

    @property
    def predicted_only(self) -> bool:
        """Whether nothing was run."""
        return self.accelerator is not None or BatchSizeOptions.from_dict(self.run.options).predict

    @property
    def memory_only(self) -> bool:
        """Whether neither throughput nor noise was asked for."""
        return "--memory-only" in self.run.command

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object that `--json` prints."""
        return {
            "spec": self.run.spec.name,
            "device": self.accelerator or self.run.device,
            "predicted_only": self.predicted_only,
            "stand_in": self.run.stand_in,
            "caveats": [caveat.as_dict() for caveat in self.caveats],
            "directory": self.directory,
            "configurations": [dataclasses.asdict(configuration) for configuration in self.configurations],
        }


def devices_to_consider(spec: Spec, asked: Sequence[int]) -> list[int]:
    """Return the numbers of devices to consider: those asked for, else one and those of the spec. Empty: one alone.

    Raises:
        InputError: the spec's training cannot be shared by devices.
    """
    known = {1, spec.train.devices}
    for key, levels in spec.factors.items():
        if field_of(key) == "train.devices":
            known |= set(levels or ())
    devices = sorted(set(asked) or known)
    if devices[-1] == 1:
        return []
    try:
        spec.train.model_validate(
            {**spec.train.model_dump(), "devices": devices[-1], "batch_size": devices[-1]}
        )
    except ValueError as error:
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise InputError("--devices" if asked else "train.devices", said) from None
    return devices


def with_limits(
    loaded: LoadedSpec, memory_bytes: int | None, *, grid: bool, device: str | None
) -> LoadedSpec:
    """Return the spec for the search: no factors of batch size and devices, one device, one seed, and the limit.

    Args:
        loaded: the spec as loaded.
        memory_bytes: the limit. None: the spec's own.
        grid: whether to keep the other factors. Else only the `train` configuration remains.
        device: name of an absent device to predict for, or None.

    Raises:
        InputError: neither the command nor the spec has a limit.
    """
    spec = loaded.spec
    limit = memory_bytes or spec.limits.memory
    if limit is None and device is None:
        raise InputError(
            "--memory", "is missing, and the spec has no limits.memory", to_do="Add it, like --memory 8GiB"
        )
    spec = without_factors(
        spec, lambda key: not grid or field_of(key) in ("train.batch_size", "train.devices")
    )
    limits = spec.limits.model_copy(update={"memory": limit})
    section = spec.train.model_copy(update={"batch_size": 1, "devices": 1})
    changes = {"limits": limits, "seeds": spec.seeds[:1], "train": section}
    there = loaded.device if device is None else _device_at_hand()
    return dataclasses.replace(loaded, spec=spec.model_copy(update=changes), device=there)


def _device_at_hand() -> str:
    """Return the local device that traces the model for an absent one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def search_batch_sizes(plan: RunPlan, directory: RunDirectory, announce: Announce) -> list[Record]:
    """Search for the largest batch of every configuration.

    Each record is on disk before the next probe starts.

    Args:
        plan: its trials are the configurations. Their options hold memory_bytes and device.
        directory: the run's directory, which gets the records.
        announce: called with each line of progress.

    Raises:
        InputError: a configuration cannot be built, or the limit is too small for any batch. A run without records is
            removed.
    """
    keeper = RecordKeeper(plan.run, directory)
    for trial in plan.trials:
        try:
            _search(trial, plan, keeper, announce)
        except InputError:
            if not keeper.records:
                directory.remove()
            raise
    return keeper.records


def _search(trial: Trial, plan: RunPlan, keeper: RecordKeeper, announce: Announce) -> None:
    """Predict the memory of one configuration, then probe sizes."""
    label = configuration_label(trial.factors)
    announce(f"{label}: loading the data and tracing the model")
    prediction = _prediction(trial, plan, keeper, announce)
    if prediction is None or prediction.simulated is not None:
        return
    memory = StepMemory.from_dict(prediction.memory)
    limit_bytes = prediction.limit_bytes or 0
    try:
        check_room(label, prediction, memory.at(1).parts["parameters"], memory.at(1).peak_bytes)
    except InputError as error:
        if not _several_have_room(keeper.records, trial, limit_bytes):
            raise
        announce(f"{label}: one device has no room: {error}")
        return

    def probe(batch_size: int) -> Probe:
        announce(
            f"{label}: running batch size {batch_size}, whose tensors need "
            f"{format_bytes(memory.at(batch_size).peak_bytes)}, under {format_bytes(limit_bytes)}"
        )
        return tell_probe(
            batch_size, _run_probe(trial, batch_size, prediction, plan, keeper, announce), announce
        )

    largest_batch(
        lambda batch_size: memory.at(batch_size).peak_bytes,
        probe,
        limit_bytes=limit_bytes,
        max_batch=min(
            prediction.samples, BatchSizeOptions.from_dict(trial.options).max_batch or prediction.samples
        ),
        overhead=assumed_overhead(plan.run.device, prediction.loading_bytes),
    )


def tell_probe(size: int, record: Record, announce: Announce) -> Probe:
    """Announce what came of running a size, and return it."""
    fits, broken = record.status == "ok", record.status not in ("ok", "out_of_memory")
    needed = record.values.get("needed_bytes" if fits else "wanted_bytes")
    outcome = "failed" if broken else _STATUS_WORDS[record.status]
    announce(f"  {outcome}: {record.reason or format_bytes(needed or 0)}")
    return Probe(size, fits, None if needed is None else int(needed), record.reason, broken)


def _prediction(
    trial: Trial, plan: RunPlan, keeper: RecordKeeper, announce: Announce
) -> MemoryPrediction | None:
    """Rehearse and predict in a worker without a limit. Return None when the model cannot run."""
    setup = dataclasses.replace(plan.setup, limit_bytes=None)
    job = dataclasses.replace(trial, id=f"{trial.id},prediction", options={**trial.options, "job": "predict"})
    executor = WorkerExecutor(setup, log=keeper.worker_log, hard_timeout_s=plan.hard_timeout_s)
    try:
        rehearsal = executor.run(dataclasses.replace(trial, rehearsal=True), _ignore)
        if isinstance(rehearsal.outcome, RehearsalOutcome) and rehearsal.outcome.bad_input:
            raise InputError("", named(plan.run.spec_path, rehearsal.reason))
        record = keeper.keep(executor.run(job, _ignore), trial.source)
        prediction = record.outcome if isinstance(record.outcome, MemoryPrediction) else None
        devices = [number for number in BatchSizeOptions.from_dict(trial.options).devices if number > 1]
        if prediction is not None and devices:
            announce(
                f"{configuration_label(trial.factors)}: tracing one of {', '.join(map(str, devices))} devices"
            )
            options = {**trial.options, "job": "devices", "prediction": prediction}
            job = dataclasses.replace(trial, id=f"{trial.id},devices", options=options)
            for found in _device_records(trial, executor.run(job, _ignore)):
                keeper.keep(found, trial.source)
    finally:
        executor.close()
    return prediction


def _device_records(trial: Trial, record: Record) -> list[Record]:
    """Split a worker's record into one per number of devices. A failure stays one record."""
    if not isinstance(record.outcome, MemoryOnDevices):
        return [dataclasses.replace(record, outcome=FailedMeasurement("devices"))]
    return [
        Record(f"{trial.id},devices={each.devices}", trial.factors, trial.seed, "ok", outcome=each)
        for each in record.outcome.found
    ]


def _several_have_room(records: Sequence[Record], trial: Trial, limit_bytes: int) -> bool:
    """Return whether each of several devices has room for a sample of this configuration."""
    found = [
        record.outcome
        for record in records
        if isinstance(record.outcome, DeviceMemory) and record.factors == trial.factors
    ]
    return any(StepMemory.from_dict(each.memory).at(1).peak_bytes <= limit_bytes for each in found)


def _run_probe(
    trial: Trial,
    batch_size: int,
    prediction: MemoryPrediction,
    plan: RunPlan,
    keeper: RecordKeeper,
    announce: Announce,
) -> Record:
    """Run one batch size under the limit."""
    section = trial.spec.train.model_copy(update={_FACTOR: batch_size})
    number = sum(_is_probe_of(record, trial.factors) for record in keeper.records) + 1
    job = dataclasses.replace(
        trial,
        id=f"{trial.id},{_FACTOR}={batch_size},probe={number}",
        factors={**trial.factors, _FACTOR: batch_size},
        spec=trial.spec.model_copy(update={"train": section}),
        options={**trial.options, "job": "probe"},
    )
    record = run_under_limit(job, prediction, plan, keeper, announce, plan.hard_timeout_s)
    return keeper.keep(dataclasses.replace(record, outcome=MemoryProbe()), trial.source)


def run_under_limit(
    job: Trial,
    prediction: MemoryPrediction,
    plan: RunPlan,
    keeper: RecordKeeper,
    announce: Announce,
    hard_timeout_s: float | None,
) -> Record:
    """Run a job in a fresh worker under the limit, once more after an unexplained kill. Its record is not kept yet.

    Args:
        job: runs one batch size.
        prediction: has the limit.
        plan: of the run.
        keeper: has the file for the worker's output.
        announce: takes news of a kill.
        hard_timeout_s: the worker is killed after so many seconds. None: never.
    """
    setup = dataclasses.replace(
        plan.setup,
        limit_bytes=prediction.limit_bytes,
        limit_source=prediction.limit_source or plan.setup.limit_source,
    )
    executor = WorkerExecutor(setup, log=keeper.worker_log, hard_timeout_s=hard_timeout_s)
    try:
        record = executor.run(job, _ignore)
        if record.worker.unexplained_kill:
            announce(f"  killed, and no memory limit explains it. Running it again: {record.reason}")
            record = executor.run(job, _ignore)
        if record.worker.unexplained_kill:
            reason = f"killed twice, which counts as too large: {record.reason}"
            record = dataclasses.replace(record, status="out_of_memory", reason=reason)
        return record
    finally:
        executor.close()


def check_room(label: str, prediction: MemoryPrediction, weights_bytes: int, one_sample_bytes: int) -> None:
    """Raise an InputError for a limit that is used up, or too small for a batch of one sample."""
    limit_bytes, source = prediction.limit_bytes, prediction.limit_source
    if not limit_bytes:
        raise InputError(
            source, "leaves no memory", "the process holds all of it already", "Raise that limit, or use less"
        )
    limit = format_bytes(limit_bytes)
    if weights_bytes > limit_bytes:
        raise InputError(
            source,
            f"{limit} is less than the weights of {label}, which take {format_bytes(weights_bytes)}",
            to_do="Raise the limit, or use a smaller model",
        )
    if one_sample_bytes > limit_bytes:
        raise InputError(
            source,
            f"{limit} holds no batch of {label}",
            f"one sample needs at least {format_bytes(one_sample_bytes)}, the weights alone "
            f"{format_bytes(weights_bytes)}",
            "Raise the limit, or use a smaller model or data set",
        )


def study_batch_sizes(run: RunInfo, records: Sequence[Record], directory: str | None) -> BatchSizeStudy:
    """Return the memory results of a search from its records.

    Args:
        run: the run.
        records: predictions and probes in their order on disk. Other measurements are ignored.
        directory: the run's directory.
    """
    caveats = caveats_of(run, records)
    records = [record for record in records if not isinstance(record.outcome, Measurement)]
    predictions = [record for record in records if not isinstance(record.outcome, MemoryProbe)]
    configurations = tuple(
        _study(run, prediction, [record for record in records if _is_probe_of(record, prediction.factors)])
        for prediction in predictions
    )
    accelerator = BatchSizeOptions.from_dict(run.options).device
    return BatchSizeStudy(run, accelerator, configurations, directory, caveats)


def _study(run: RunInfo, record: Record, probes: Sequence[Record]) -> ConfigurationStudy:
    prediction = record.outcome
    if not isinstance(prediction, MemoryPrediction):
        return ConfigurationStudy(
            record.factors, None, "nothing fits", None, None, 0, "", {}, "", "", None, (), 0, record.reason
        )
    memory = StepMemory.from_dict(prediction.memory)
    rows = probe_rows(memory, probes, assumed_overhead(run.device, prediction.loading_bytes))
    fitted = [row for row in rows if row.status == "ok"]
    simulated = prediction.simulated
    best = max((row.batch_size for row in fitted), default=None)
    overhead = None
    options = BatchSizeOptions.from_dict(run.options)
    if simulated:
        best = simulated.batch_size or None
        if options.device is None:
            overhead = assumed_overhead(run.device, prediction.loading_bytes)
    elif fitted:
        overhead = overhead_of(rows, assumed_overhead(run.device, prediction.loading_bytes))
    most = min(prediction.samples, options.max_batch or prediction.samples)
    at_best = memory.at(best or 1)
    failed = [probe.reason for probe in probes if probe.status not in ("ok", "out_of_memory")]
    return ConfigurationStudy(
        factors=record.factors,
        batch_size=best,
        bound="nothing fits" if best is None else "samples" if best == most else "memory",
        limit_bytes=prediction.limit_bytes,
        limit_source=prediction.limit_source,
        samples=prediction.samples,
        phase=at_best.phase,
        parts=at_best.parts,
        method=at_best.method,
        note=at_best.note,
        overhead=overhead,
        rows=tuple(
            sorted([*rows, *_unrun_rows(memory, rows, overhead, prediction)], key=lambda row: row.batch_size)
        ),
        probes=len(probes),
        failure="" if best else failed[0] if failed else _NOTHING_RAN if probes else _NO_ROOM,
    )


def probe_rows(
    memory: StepMemory, probes: Sequence[Record], assumed: Overhead, devices: int = 1
) -> list[SizeRow]:
    """Return a row for each probe, with its expected memory by the fit before it.

    Args:
        memory: of one device.
        probes: records of the sizes that ran, in their order.
        assumed: the overhead before the first.
        devices: how many shared each batch. The size of a row is the share of one.
    """
    rows: list[SizeRow] = []
    for number, record in enumerate(probes, start=1):
        size = int(record.factors[_FACTOR]) // devices
        predicted = float(memory.at(size).peak_bytes)
        expected = overhead_of(rows, assumed).needed(predicted)
        fits = record.status == "ok"
        needed = record.values.get("needed_bytes" if fits else "wanted_bytes")
        rows.append(
            SizeRow(
                batch_size=size,
                status=record.status,
                predicted_bytes=predicted,
                expected_bytes=expected,
                needed_bytes=needed,
                peak_bytes=record.values.get("peak_bytes"),
                error=expected / needed - 1 if fits and needed else None,
                step_time_s=median(record.samples["step_time_s"])
                if record.samples.get("step_time_s")
                else None,
                reason=record.reason,
                probe=number,
            )
        )
    return rows


def overhead_of(rows: Sequence[SizeRow], assumed: Overhead) -> Overhead:
    """Return the linear or quadratic fit of the probes so far, or what is assumed before them."""
    seen = [(row.predicted_bytes, row.needed_bytes, row.status == "ok") for row in rows if row.needed_bytes]
    return fit_overhead(
        [(predicted, needed) for predicted, needed, fits in seen if fits],
        assumed,
        failures=sum(row.status != "ok" for row in rows),
        bounds=[(predicted, needed) for predicted, needed, fits in seen if not fits],
    )


def _unrun_rows(
    memory: StepMemory, run: Sequence[SizeRow], overhead: Overhead | None, prediction: MemoryPrediction
) -> list[SizeRow]:
    """Return a row for each power of two that was not run, up to the first that needs twice the limit."""
    rows = []
    sizes = {row.batch_size for row in run}
    simulated = prediction.simulated
    wanted = {2**exponent for exponent in range(int(math.log2(max(1, prediction.samples))) + 1)}
    for size in sorted(wanted | ({simulated.batch_size} if simulated else set()) - {0}):
        predicted = float(memory.at(size).peak_bytes)
        expected = overhead.needed_at_least(predicted) if overhead else None
        if size not in sizes:
            rows.append(SizeRow(size, "predicted", predicted, expected))
        if prediction.limit_bytes and (expected or predicted) > 2 * prediction.limit_bytes:
            break
    return rows


def assumed_overhead(device: str, loading_bytes: int) -> Overhead:
    """Return the overhead to assume before the first probe. Its loading part was measured."""
    assumed = CUDA_OVERHEAD if device.startswith("cuda") else CPU_OVERHEAD
    return Overhead(assumed.offset_bytes + loading_bytes, assumed.slope)


def _is_probe_of(record: Record, factors: Mapping[str, Any]) -> bool:
    """Whether a record is a probe of the configuration with these factors."""
    return isinstance(record.outcome, MemoryProbe) and freeze({**record.factors, _FACTOR: None}) == freeze(
        {**factors, _FACTOR: None}
    )


def _ignore(progress: dict[str, Any]) -> None:
    """Show nothing, because a probe is short."""
