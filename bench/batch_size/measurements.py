"""Throughput and noise of each batch size, results of earlier runs, and the recommendation.

largest batch --measure_batch_sizes--> records of throughput and noise
  records --study_measurements--> Measurements --render--> terminal, plot, or JSON
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusetune.bench.batch_size.devices import DevicesRow, choose_devices, devices_rows
from fusetune.bench.batch_size.earlier_runs import range_tests_of, trainings_of
from fusetune.bench.batch_size.study import BatchSizeStudy, ConfigurationStudy, study_batch_sizes
from fusetune.bench.results import (
    BatchSizeOptions,
    DeviceProbe,
    EarlierRangeTests,
    EarlierTrainings,
    FailedMeasurement,
    Measurement,
    MemoryPrediction,
    NoiseOutcome,
    NormsAlongTraining,
    Record,
    RecordKeeper,
    RunDirectory,
    RunInfo,
    SizeToTarget,
    StepTimes,
    ThroughputOutcome,
)
from fusetune.bench.run import RunPlan, measure_threads, most_threads
from fusetune.bench.spec import Trial, by_field
from fusetune.bench.stats import configuration_label
from fusetune.bench.workers import WorkerExecutor
from fusetune.tuner.batch_size import (
    LEAST_SIZES,
    CriticalBatch,
    DeviceChoice,
    NoiseScale,
    Recommendation,
    Throughput,
    estimate_noise_scale,
    fit_critical_batch,
    recommend,
    throughput,
)
from fusetune.tuner.learning_rate import LEAST_SIZES as LEAST_RATES
from fusetune.tuner.learning_rate import LRScaling, fit_lr_scaling

NOISE_EPOCHS = (0, 1, 4)
# More sizes would include some that are 4000 times smaller than the largest, which have no use.
_MOST_SIZES = 12
_NOISE = "noise"

Announce = Callable[[str], None]


@dataclass(frozen=True)
class NoiseAtEpoch:
    """The noise scale after `epoch` epochs and `steps` updates at `batch_size`."""

    epoch: int
    steps: int
    batch_size: int
    scale: NoiseScale


@dataclass(frozen=True)
class Measurements:
    """Measurements of a configuration's batch sizes other than memory.

    Args:
        factors: the configuration without its batch size.
        throughputs: one per batch size. Empty if not measured.
        noise: noise scales along training. Empty if not measured.
        failures: a sentence on each failed measurement.
        noise_note: the rate that `base_lr: auto` chose for the noise, or why noise was measured only before training.
        runs: earlier trainings to a target at several batch sizes, or None.
        critical: the critical batch size from `runs`, or None with too few of them.
        rates: LR range tests at several batch sizes, or None.
        scaling: the power law of learning rate over batch size from `rates`, or None with too few of them.
        lr: the rate by `scaling` at the recommended batch size.
        wanted: the spec's samples per forward.
        accumulation_steps: forwards per step.
        recommendation: None if no batch fits, or none was run.
        devices: the memory on each number of devices. Empty: one device alone.
        device_choice: the devices to take and their batch, or None.
        device_rates: number of devices -> throughput of all together, where it was measured on several.
        processor_missing: share of the processor that the timings did not get, or None.
    """

    factors: Mapping[str, Any]
    throughputs: tuple[Throughput, ...]
    noise: tuple[NoiseAtEpoch, ...]
    failures: tuple[str, ...]
    runs: EarlierTrainings | None
    critical: CriticalBatch | None
    rates: EarlierRangeTests | None
    scaling: LRScaling | None
    lr: float | None
    wanted: int
    accumulation_steps: int
    recommendation: Recommendation | None
    processor_missing: float | None = None
    noise_note: str = ""
    devices: tuple[DevicesRow, ...] = ()
    device_choice: DeviceChoice | None = None
    device_rates: Mapping[int, tuple[Throughput, ...]] = dataclasses.field(default_factory=dict)

    @property
    def has_noise(self) -> bool:
        """Whether the noise was measured, or could not be."""
        return bool(self.noise) or any(said.startswith(f"{_NOISE}: ") for said in self.failures)

    @property
    def noise_scale(self) -> NoiseScale | None:
        """The noise scale at the latest epoch. It grows along training, and most steps come late."""
        return self.noise[-1].scale if self.noise else None

    @property
    def critical_batch(self) -> tuple[float | None, str]:
        """The critical batch size and its name. It is fitted to trainings, or else the noise scale."""
        if self.critical is not None and self.critical.value is not None:
            return self.critical.value, "the critical batch size"
        return (self.noise_scale.value if self.noise_scale else None), "the noise scale"

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object for `--json`. A number that is not finite becomes null."""
        content = _plain({field.name: getattr(self, field.name) for field in dataclasses.fields(self)})
        assert isinstance(content, dict)
        return content


@dataclass(frozen=True)
class MeasuredStudy:
    """The results of a run: memory, and the other measurements of each configuration."""

    study: BatchSizeStudy
    measurements: tuple[Measurements, ...]

    @property
    def anything_fits(self) -> bool:
        """Whether a batch fits any configuration, on one device or on several."""
        return any(configuration.batch_size for configuration in self.study.configurations) or any(
            row.share for measured in self.measurements for row in measured.devices
        )

    @property
    def finished(self) -> int:
        """How many configurations have all of their records, as far as these tell.

        The noise is measured last. A search in which a batch has run, and that is followed by no measurement, counts as
        over.
        """
        if self.study.predicted_only:
            return len(self.measurements)
        return sum(
            measured.has_noise
            if configuration.batch_size and not self.study.memory_only
            else configuration.probes > 0 or configuration.limit_bytes is None
            for configuration, measured in zip(self.study.configurations, self.measurements, strict=True)
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object that `--json` prints: the study, with each configuration's measurements in it."""
        content = self.study.as_dict()
        for configuration, measured in zip(content["configurations"], self.measurements, strict=True):
            configuration["measurements"] = measured.as_dict()
        return content


def measure_batch_sizes(
    plan: RunPlan,
    directory: RunDirectory,
    study: BatchSizeStudy,
    announce: Announce,
    runs: EarlierTrainings | None,
    rates: EarlierRangeTests | None,
) -> list[Record]:
    """Measure throughput and noise of every configuration with a batch that fits.

    Each record is written to disk at once. The worker has no limit, because every size has run under it before.

    Args:
        plan: its trials are the configurations.
        directory: the run's directory, which gets the records.
        study: the largest batch of each configuration.
        announce: called with each line of progress.
        runs: earlier trainings to a target, which are copied to the records.
        rates: earlier LR range tests, which are copied to the records.
    """
    keeper = RecordKeeper(plan.run, directory)
    largest = {_key(configuration.factors): configuration for configuration in study.configurations}
    for trial in plan.trials:
        configuration = largest.get(_key(trial.factors))
        if not study.predicted_only and configuration is not None and configuration.batch_size:
            _measure(trial, configuration.batch_size, plan, keeper, announce)
        if runs is not None:
            keeper.keep(_earlier_record(trial, "runs", trainings_of(runs, trial.factors)), trial.source)
        if rates is not None:
            keeper.keep(_earlier_record(trial, "rates", range_tests_of(rates, trial.factors)), trial.source)
    return keeper.records


def _measure(
    trial: Trial,
    largest: int,
    plan: RunPlan,
    keeper: RecordKeeper,
    announce: Announce,
) -> None:
    label = configuration_label(trial.factors)
    sizes = measured_sizes(largest)
    setup = dataclasses.replace(plan.setup, limit_bytes=None)
    executor = WorkerExecutor(setup, log=keeper.worker_log, hard_timeout_s=plan.hard_timeout_s)
    try:
        trial = _with_threads(trial, largest, plan, executor, announce)
        announce(f"{label}: timing steps at batch sizes {', '.join(map(str, sizes))}")
        job = _job(trial, "throughput", largest, sizes=sizes)
        for record in _throughput_records(trial, executor.run(job, _ignore)):
            keeper.keep(record, trial.source)
        epochs = _noise_epochs(trial)
        announce(f"{label}: measuring the gradient noise after {', '.join(map(str, epochs))} epochs")
        job = _job(trial, "noise", min(largest, _own_batch_size(trial)), noise_epochs=epochs)
        for record in _noise_records(trial, executor.run(job, _ignore), job.spec.train.batch_size):
            keeper.keep(record, trial.source)
    finally:
        executor.close()


def _with_threads(
    trial: Trial, largest: int, plan: RunPlan, executor: WorkerExecutor, announce: Announce
) -> Trial:
    """Return the trial with the number of threads that is fastest at the spec's batch size."""
    if plan.setup.threads is not None or plan.run.device != "cpu":
        return trial
    timed = _job(trial, "probe", min(largest, _own_batch_size(trial)))
    threads, reason, _ = measure_threads([timed], executor, most_threads(plan.jobs), _ignore)
    announce(f"threads: {threads}; {reason}")
    return dataclasses.replace(trial, threads=threads)


def measured_sizes(largest: int) -> list[int]:
    """Return the powers of two from 2 up to the largest batch, and the largest.

    A single sample is left out unless it is the largest, because BatchNorm refuses it.

    Example:
        >>> measured_sizes(100), measured_sizes(1)
        ([2, 4, 8, 16, 32, 64, 100], [1])
    """
    powers = [2**exponent for exponent in range(1, largest.bit_length()) if 2**exponent < largest]
    return [*powers, largest][-_MOST_SIZES:]


def _noise_epochs(trial: Trial) -> list[int]:
    """Return the epochs after which noise is measured."""
    asked = BatchSizeOptions.from_dict(trial.options).noise_epochs
    return [epoch for epoch in asked if epoch <= trial.spec.train.epochs] or [0]


def _own_batch_size(trial: Trial) -> int:
    """Return the batch size of the spec before the search replaced it."""
    return BatchSizeOptions.from_dict(trial.options).train_batch_size or trial.spec.train.batch_size


def _job(trial: Trial, name: str, batch_size: int, **options: Any) -> Trial:
    section = trial.spec.train.model_copy(update={"batch_size": batch_size})
    return dataclasses.replace(
        trial,
        id=f"{trial.id},{name}",
        spec=trial.spec.model_copy(update={"train": section}),
        options={**trial.options, "job": name, **options},
    )


def _throughput_records(trial: Trial, record: Record) -> list[Record]:
    """Split a worker's record into one per batch size. A failure stays one record."""
    measured = record.outcome
    if not isinstance(measured, StepTimes):
        return [dataclasses.replace(record, outcome=FailedMeasurement("throughput"))]
    found = []
    share = measured.processor_missing
    missing = {} if share is None else {"processor_missing": share}
    for size, times in measured.seconds.items():
        rate = throughput(size, times, accumulation_steps=trial.spec.train.accumulation_steps)
        found.append(
            Record(
                f"{trial.id},batch_size={size},throughput",
                {**trial.factors, "batch_size": size},
                trial.seed,
                "ok",
                values={"samples_per_s": rate.samples_per_s, "step_time_s": rate.step_time_s, **missing},
                samples={"step_time_s": times},
                provenance={"threads": trial.threads},
                outcome=ThroughputOutcome(),
            )
        )
    return found


def _noise_records(trial: Trial, record: Record, batch_size: int) -> list[Record]:
    """Split a worker's record into one per measured epoch. A failure stays one record."""
    measured = record.outcome
    if not isinstance(measured, NormsAlongTraining):
        return [dataclasses.replace(record, outcome=FailedMeasurement(_NOISE))]
    found = []
    for point in measured.points:
        squares = {
            "small_gradient_square": list(point.small_squares),
            "big_gradient_square": list(point.big_squares),
        }
        finite = all(math.isfinite(value) for values in squares.values() for value in values)
        found.append(
            Record(
                f"{trial.id},noise,epoch={point.epoch}",
                trial.factors,
                trial.seed,
                "ok" if finite else "diverged",
                reason="" if finite else f"a gradient was not finite after {point.epoch} epochs",
                values={"epochs": float(point.epoch), "steps": float(point.steps)},
                samples=squares if finite else {},
                outcome=NoiseOutcome(
                    small=point.small,
                    big=point.big,
                    samples=measured.samples,
                    train_batch_size=batch_size,
                    note=measured.note,
                    base_lr_auto=measured.base_lr_auto,
                ),
            )
        )
    return found


def _earlier_record(trial: Trial, name: str, earlier: EarlierTrainings | EarlierRangeTests) -> Record:
    """Return a record of an earlier run's results, so that the report does not depend on that run."""
    return Record(f"{trial.id},{name}", trial.factors, trial.seed, "ok", outcome=earlier)


def study_measured(run: RunInfo, records: Sequence[Record], directory: str | None) -> MeasuredStudy:
    """Return the results of a run: the batches that fit, the measurements, and a recommendation.

    Args:
        run: the run.
        records: the run's records.
        directory: the run's directory.
    """
    study = study_batch_sizes(run, records, directory)
    return MeasuredStudy(study, tuple(study_measurements(study, records)))


def study_measurements(study: BatchSizeStudy, records: Iterable[Record]) -> list[Measurements]:
    """Return the measurements and the recommendation of every configuration.

    Args:
        study: the memory results of the run.
        records: the run's records.
    """
    measured = [record for record in records if isinstance(record.outcome, Measurement | MemoryPrediction)]
    return [_measurements(study, configuration, measured) for configuration in study.configurations]


def _measurements(
    study: BatchSizeStudy, configuration: ConfigurationStudy, records: Sequence[Record]
) -> Measurements:
    own = [
        record
        for record in records
        if _key({key: value for key, value in record.factors.items() if key != "batch_size"})
        == _key(configuration.factors)
    ]
    timed = [record for record in own if isinstance(record.outcome, ThroughputOutcome)]
    noise = [(record, record.outcome) for record in own if isinstance(record.outcome, NoiseOutcome)]
    accumulation_steps = _accumulation_steps(study.run, configuration)
    throughputs = tuple(
        throughput(
            record.factors["batch_size"], record.samples["step_time_s"], accumulation_steps=accumulation_steps
        )
        for record in timed
    )
    runs = next((record.outcome for record in own if isinstance(record.outcome, EarlierTrainings)), None)
    rates = next((record.outcome for record in own if isinstance(record.outcome, EarlierRangeTests)), None)
    wanted = BatchSizeOptions.from_dict(study.run.options).train_batch_size
    found = Measurements(
        factors=configuration.factors,
        throughputs=tuple(sorted(throughputs, key=lambda each: each.batch_size)),
        noise=tuple(_noise_at(record, outcome) for record, outcome in noise if record.status == "ok"),
        failures=tuple(_failure(record) for record in own if _has_failed(record)),
        runs=runs,
        critical=_critical(runs.rows) if runs else None,
        rates=rates,
        scaling=_scaling(rates) if rates else None,
        lr=None,
        wanted=wanted or 1,
        accumulation_steps=accumulation_steps,
        recommendation=None,
        processor_missing=max(
            (
                record.values["processor_missing"]
                for record in own
                if isinstance(record.outcome, ThroughputOutcome | DeviceProbe)
                and not study.memory_only
                and "processor_missing" in record.values
            ),
            default=None,
        ),
        noise_note=next((outcome.note for _, outcome in noise if outcome.note), ""),
    )
    critical, source = found.critical_batch
    wanted_together = wanted or 1
    rows = devices_rows(study, configuration, own, wanted_together)
    speeds = {} if study.memory_only else _rates(found.throughputs, own, accumulation_steps)
    found = dataclasses.replace(
        found,
        devices=rows,
        device_rates=speeds if len(speeds) > 1 else {},
        device_choice=choose_devices(
            rows,
            speeds,
            wanted=wanted_together,
            critical=critical or None,
            critical_source=source,
            accumulation_steps=accumulation_steps,
        ),
    )
    if configuration.batch_size is None or study.predicted_only:
        return found
    recommendation = recommend(
        found.throughputs,
        largest=configuration.batch_size,
        memory_binds=configuration.bound == "memory",
        critical=critical or None,
        critical_source=source,
        wanted=wanted,
        accumulation_steps=accumulation_steps,
    )
    lr = found.scaling.lr_at(recommendation.batch_size) if found.scaling else None
    return dataclasses.replace(found, recommendation=recommendation, lr=lr)


def _accumulation_steps(run: RunInfo, configuration: ConfigurationStudy) -> int:
    """Return a configuration's forwards per step."""
    own = by_field(configuration.factors)
    return int(own.get("train.accumulation_steps", run.spec.accumulation_steps))


def _rates(
    alone: tuple[Throughput, ...], records: Sequence[Record], accumulation_steps: int
) -> dict[int, tuple[Throughput, ...]]:
    """Return the throughput of each number of devices at the batch sizes of all together."""
    rates = {1: alone} if alone else {}
    for record in records:
        if (
            isinstance(record.outcome, DeviceProbe)
            and record.status == "ok"
            and record.samples["step_time_s"]
        ):
            rate = throughput(
                record.factors["batch_size"],
                record.samples["step_time_s"],
                accumulation_steps=accumulation_steps,
            )
            devices = record.outcome.devices
            rates[devices] = (*rates.get(devices, ()), rate)
    return rates


def _has_failed(record: Record) -> bool:
    """Whether a measurement has no result. A batch that does not fit on several devices is one."""
    does_not_fit = isinstance(record.outcome, DeviceProbe) and record.status == "out_of_memory"
    return record.status != "ok" and not does_not_fit


def _failure(record: Record) -> str:
    failed = record.outcome
    if isinstance(failed, DeviceProbe):
        return f"batch size {record.factors['batch_size']} on {failed.devices} devices: {record.reason}"
    return f"{failed.measurement if isinstance(failed, FailedMeasurement) else _NOISE}: {record.reason}"


def _noise_at(record: Record, outcome: NoiseOutcome) -> NoiseAtEpoch:
    scale = estimate_noise_scale(
        record.samples["small_gradient_square"],
        record.samples["big_gradient_square"],
        small=outcome.small,
        big=outcome.big,
        samples=outcome.samples,
    )
    epoch, steps = (int(record.values[name]) for name in ("epochs", "steps"))
    return NoiseAtEpoch(epoch, steps, outcome.train_batch_size, scale)


def _critical(rows: Sequence[SizeToTarget]) -> CriticalBatch | None:
    """Return the critical batch size, or None if too few sizes reached the target."""
    pairs = [(row.samples_per_step, steps) for row in rows for steps in row.steps]
    if len({size for size, _ in pairs}) < LEAST_SIZES:
        return None
    return fit_critical_batch([size for size, _ in pairs], [steps for _, steps in pairs])


def _scaling(rates: EarlierRangeTests) -> LRScaling | None:
    """Return the power law of learning rate over batch size, or None with too few sizes."""
    if len({row.batch_size for row in rates.rows}) < LEAST_RATES:
        return None
    return fit_lr_scaling([row.batch_size for row in rates.rows], [row.lr for row in rates.rows])


def _key(factors: Mapping[str, Any]) -> str:
    """Return factors as a text that does not depend on their order."""
    return repr(sorted(factors.items(), key=lambda item: item[0]))


def _plain(value: Any) -> Any:
    """Convert dataclasses and tuples for JSON, and numbers that are not finite to None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _ignore(progress: dict[str, Any]) -> None:
    """Show no progress of a measurement."""
