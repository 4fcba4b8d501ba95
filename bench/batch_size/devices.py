"""Several devices that share a training: the largest batch of each number of them, and which number to take."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusetune.bench.batch_size.study import (
    BatchSizeStudy,
    ConfigurationStudy,
    SizeRow,
    assumed_overhead,
    overhead_of,
    probe_rows,
)
from fusetune.bench.results import (
    BatchSizeOptions,
    DeviceMemory,
    DeviceProbe,
    MemoryPrediction,
    Record,
    SimulatedBatch,
)
from fusetune.tuner.batch_size import (
    DeviceChoice,
    DeviceOption,
    Overhead,
    Throughput,
    largest_predicted,
    on_grid,
    recommend_devices,
)
from fusetune.tuner.memory import StepMemory

# What exchanging gradients takes is in no run of one device.
_MORE_OVERHEAD = 1.05


@dataclass(frozen=True)
class DevicesRow:
    """A number of devices, and the memory of one of them.

    Args:
        devices: how many share the training.
        parallel: `ddp` or `fsdp`. Empty for one device.
        share: the most samples of one device in a forward, of those that ran in full where any ran. 0: none fits.
        batch_size: of all devices together, `devices` x `share`.
        ran: whether that size ran in full on so many devices. Else it is predicted.
        expected_bytes: memory of a device with `share` samples, or with one where none fits, overhead included.
        phase: the phase of the peak.
        parts: predicted bytes of each kind of tensor at the peak.
        wanted_share: samples of a device in the batch that the spec asks for.
        wanted_bytes: memory of a device with these, overhead included.
        method: `traced` or `measured`.
        note: what the prediction leaves out.
        runs: the batches that so many devices shared under the limit of each, by the samples of one. Empty for one.
    """

    devices: int
    parallel: str
    share: int
    batch_size: int
    ran: bool
    expected_bytes: float
    phase: str
    parts: Mapping[str, int]
    wanted_share: int
    wanted_bytes: float
    method: str
    note: str
    runs: tuple[SizeRow, ...] = ()


@dataclass(frozen=True)
class SharedMemory:
    """What is known of a number of devices before a batch is run on them.

    Args:
        devices: 2 or more.
        parallel: `ddp` or `fsdp`.
        memory: of one of them, by its samples.
        overhead: as the runs on one device have it, and a little more.
        most: the most samples of one device.
        limit_bytes: of each.
        simulated: one device's largest batch, where nothing is run.
    """

    devices: int
    parallel: str
    memory: StepMemory
    overhead: Overhead
    most: int
    limit_bytes: int
    simulated: SimulatedBatch | None


def shared_memories(
    study: BatchSizeStudy, configuration: ConfigurationStudy, records: Sequence[Record]
) -> list[SharedMemory]:
    """Return what is known of each number of devices above one, fewest first.

    Args:
        study: the memory results of the run.
        configuration: one of its configurations.
        records: those of this configuration.
    """
    alone = prediction_of(records)
    if alone is None:
        return []
    most = BatchSizeOptions.from_dict(study.run.options).max_batch or alone.samples
    overhead = _overhead(study, configuration, alone)
    if not study.predicted_only:
        overhead = dataclasses.replace(overhead, slope=_MORE_OVERHEAD * overhead.slope)
    spread = [record.outcome for record in records if isinstance(record.outcome, DeviceMemory)]
    return [
        SharedMemory(
            each.devices,
            each.parallel,
            StepMemory.from_dict(each.memory),
            overhead,
            min(each.samples, most // each.devices),
            alone.limit_bytes or 0,
            each.simulated,
        )
        for each in sorted(spread, key=lambda each: each.devices)
    ]


def prediction_of(records: Sequence[Record]) -> MemoryPrediction | None:
    """Return the prediction for one device, among the records of a configuration."""
    return next((each.outcome for each in records if isinstance(each.outcome, MemoryPrediction)), None)


def devices_rows(
    study: BatchSizeStudy, configuration: ConfigurationStudy, records: Sequence[Record], wanted: int
) -> tuple[DevicesRow, ...]:
    """Return a row for each number of devices that was asked for, fewest first. Empty: one device alone.

    Args:
        study: the memory results of the run.
        configuration: one of its configurations.
        records: those of this configuration.
        wanted: the spec's batch size, of all devices together.
    """
    options = BatchSizeOptions.from_dict(study.run.options)
    alone = prediction_of(records)
    shared = shared_memories(study, configuration, records)
    if alone is None or not shared:
        return ()
    overhead = _overhead(study, configuration, alone)
    rows = [_alone(study, configuration, alone, overhead, wanted)] if 1 in options.devices else []
    return (*rows, *(_shared(each, records, wanted) for each in shared))


def _shared(known: SharedMemory, records: Sequence[Record], wanted: int) -> DevicesRow:
    """Return the row of several devices, whose batches have run where so many are there."""
    probes = [
        record
        for record in records
        if isinstance(record.outcome, DeviceProbe) and record.outcome.devices == known.devices
    ]
    runs = probe_rows(known.memory, probes, known.overhead, known.devices)
    overhead = overhead_of(runs, known.overhead)
    if not runs:
        return _row(known.devices, known.parallel, known.memory, _largest(known), overhead, wanted)
    best = max((run for run in runs if run.status == "ok"), key=lambda run: run.batch_size, default=None)
    share = best.batch_size if best else 0
    row = _row(known.devices, known.parallel, known.memory, share, overhead, wanted)
    needed = (best.needed_bytes if best else None) or row.expected_bytes
    return dataclasses.replace(row, ran=best is not None, expected_bytes=needed, runs=tuple(runs))


def _alone(
    study: BatchSizeStudy,
    configuration: ConfigurationStudy,
    alone: MemoryPrediction,
    overhead: Overhead,
    wanted: int,
) -> DevicesRow:
    """Return the row of one device, whose sizes have run where anything has."""
    share = configuration.batch_size or 0
    row = _row(1, "", StepMemory.from_dict(alone.memory), share, overhead, wanted)
    if study.predicted_only or not share:
        return row
    needed = next(each.needed_bytes for each in configuration.rows if each.batch_size == share)
    return dataclasses.replace(row, ran=True, expected_bytes=needed or row.expected_bytes)


def _row(
    devices: int, parallel: str, memory: StepMemory, share: int, overhead: Overhead, wanted: int
) -> DevicesRow:
    """Return the row of a number of devices whose shares are predicted."""
    at_share = memory.at(share or 1)
    wanted_share = math.ceil(wanted / devices)
    return DevicesRow(
        devices,
        parallel,
        share,
        devices * share,
        False,
        overhead.needed_at_least(at_share.peak_bytes),
        at_share.phase,
        at_share.parts,
        wanted_share,
        overhead.needed_at_least(memory.at(wanted_share).peak_bytes),
        memory.method,
        memory.note,
    )


def _largest(known: SharedMemory) -> int:
    """Return the most samples of one device that are predicted to fit. 0: none."""
    if known.simulated is not None:
        return min(known.simulated.batch_size, known.most)
    share = largest_predicted(
        lambda size: known.overhead.needed_at_least(known.memory.at(size).peak_bytes),
        known.limit_bytes,
        known.most,
    )
    return share if share == known.most else on_grid(share)


def _overhead(
    study: BatchSizeStudy, configuration: ConfigurationStudy, prediction: MemoryPrediction
) -> Overhead:
    """Return the overhead by the fit of what has run, else the assumed one. An absent device has none of this one's."""
    if study.accelerator is not None:
        return Overhead(0.0, 1.0)
    return configuration.overhead or assumed_overhead(study.run.device, prediction.loading_bytes)


def choose_devices(
    rows: Sequence[DevicesRow],
    rates: Mapping[int, tuple[Throughput, ...]],
    *,
    wanted: int,
    critical: float | None,
    critical_source: str,
    accumulation_steps: int,
) -> DeviceChoice | None:
    """Return the devices and the batch to take. None without rows, or where no batch fits on any."""
    return recommend_devices(
        [DeviceOption(row.devices, row.share, rates.get(row.devices, ())) for row in rows],
        wanted=wanted,
        critical=critical,
        critical_source=critical_source,
        accumulation_steps=accumulation_steps,
    )
