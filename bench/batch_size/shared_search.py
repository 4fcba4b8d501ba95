"""The search for the largest batch that several devices share, each under the limit: on those that are there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from fusetune.bench.batch_size.devices import SharedMemory, prediction_of, shared_memories
from fusetune.bench.batch_size.study import (
    Announce,
    BatchSizeStudy,
    run_under_limit,
    tell_probe,
)
from fusetune.bench.kinds import BATCH_SIZE
from fusetune.bench.results import (
    BatchSizeOptions,
    DeviceProbe,
    MemoryPrediction,
    Record,
    RecordKeeper,
    RunDirectory,
    ThroughputOutcome,
)
from fusetune.bench.run import RunPlan, hard_timeout, most_threads
from fusetune.bench.spec import Trial
from fusetune.bench.stats import configuration_label
from fusetune.bench.units import format_bytes
from fusetune.tuner.batch_size import Probe, largest_batch

_FACTOR = "batch_size"


def search_on_devices(
    plan: RunPlan, directory: RunDirectory, study: BatchSizeStudy, announce: Announce, *, timed: bool
) -> list[Record]:
    """Search for the largest batch of each number of devices that is there, by the rules for one device.

    A process for each device trains the batch together, as in a run, each under its limit. One that runs out of memory
    makes it a batch that does not fit. Each record is on disk before the next batch starts.

    Args:
        plan: its trials are the configurations.
        directory: of the run, which has the records of memory.
        study: the largest batch of each configuration on one device.
        announce: called with each line of progress.
        timed: also run the spec's own batch where it is smaller, for its time.
    """
    keeper = RecordKeeper(plan.run, directory)
    there = devices_there(plan.run.device)
    known = directory.records()[0]
    for trial in plan.trials:
        records = [each for each in known if _without_size(each) == trial.factors]
        prediction = prediction_of(records)
        configuration = next((each for each in study.configurations if each.factors == trial.factors), None)
        if prediction is None or configuration is None:
            continue
        ready = dataclasses.replace(trial, threads=_threads(records))
        for shared in shared_memories(study, configuration, records):
            label = f"{configuration_label(trial.factors)}: {shared.devices} devices"
            if shared.devices > there:
                announce(f"{label}: not run, because {there} are here. Their batch stays predicted")
            elif shared.most and shared.memory.at(1).peak_bytes <= shared.limit_bytes:
                _Runs(ready, shared, label, prediction, plan, keeper, announce).search(timed=timed)
            else:
                announce(f"{label}: no batch can fit under the limit of each")
    return keeper.records


def devices_there(device: str) -> int:
    """Return how many devices this machine has. Of a CPU each core counts as one."""
    if device == "cpu":
        return most_threads(1)
    import torch

    return torch.cuda.device_count()


def _without_size(record: Record) -> dict[str, object]:
    """Return the factors of a record's configuration."""
    return {key: value for key, value in record.factors.items() if key != _FACTOR}


def _threads(records: Sequence[Record]) -> int | None:
    """Return the threads that one device was timed with. None: it was not."""
    timed = (record for record in records if isinstance(record.outcome, ThroughputOutcome))
    return next((record.provenance.get("threads") for record in timed), None)


@dataclasses.dataclass
class _Runs:
    """The batches of a configuration that so many devices run."""

    trial: Trial
    shared: SharedMemory
    label: str
    prediction: MemoryPrediction
    plan: RunPlan
    keeper: RecordKeeper
    announce: Announce
    count: int = 0

    def search(self, *, timed: bool) -> None:
        """Search for the largest, and run the spec's own batch too where it is asked for and fits."""
        shared = self.shared
        found = largest_batch(
            lambda share: shared.memory.at(share).peak_bytes,
            self.run,
            limit_bytes=shared.limit_bytes,
            max_batch=shared.most,
            overhead=shared.overhead,
        )
        own = BatchSizeOptions.from_dict(self.trial.options).train_batch_size or 0
        tried = {probe.batch_size for probe in found.probes}
        if (
            timed
            and 0 < own // shared.devices < (found.batch_size or 0)
            and own // shared.devices not in tried
        ):
            self.run(own // shared.devices)

    def run(self, share: int) -> Probe:
        """Run a batch with so many samples on each device."""
        shared, self.count = self.shared, self.count + 1
        self.announce(
            f"{self.label}: running batch size {shared.devices * share}, {share} on each, under "
            f"{format_bytes(shared.limit_bytes)} each"
        )
        job = self._job(share)
        hard_timeout_s = hard_timeout([job], job.spec.limits.trial_time, BATCH_SIZE)
        record = run_under_limit(job, self.prediction, self.plan, self.keeper, self.announce, hard_timeout_s)
        if not isinstance(record.outcome, DeviceProbe):  # its worker died
            record = dataclasses.replace(record, outcome=DeviceProbe(shared.devices, shared.parallel))
        return tell_probe(share, self.keeper.keep(record, self.trial.source), self.announce)

    def _job(self, share: int) -> Trial:
        """Return the trial that runs it."""
        trial, devices = self.trial, self.shared.devices
        size = devices * share
        section = trial.spec.train.model_copy(update={_FACTOR: size, "devices": devices})
        return dataclasses.replace(
            trial,
            id=f"{trial.id},devices={devices},{_FACTOR}={size},probe={self.count}",
            factors={**trial.factors, _FACTOR: size},
            spec=trial.spec.model_copy(update={"train": section}),
            options={**trial.options, "job": "probe devices"},
        )
