"""Several devices that share a training: the largest batch of each number of them, and which number to take."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusetune.bench.batch_size.study import BatchSizeStudy, ConfigurationStudy, assumed_overhead
from fusetune.bench.results import BatchSizeOptions, DeviceMemory, MemoryPrediction, Record, SimulatedBatch
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


@dataclass(frozen=True)
class DevicesRow:
    """A number of devices, and the memory of one of them.

    Args:
        devices: how many share the training.
        parallel: `ddp` or `fsdp`. Empty for one device.
        share: the most samples of one device in a forward. 0: none fits.
        batch_size: of all devices together, `devices` x `share`.
        ran: whether that size ran in full. Else it is predicted.
        expected_bytes: memory of a device with `share` samples, or with one where none fits, overhead included.
        phase: the phase of the peak.
        parts: predicted bytes of each kind of tensor at the peak.
        wanted_share: samples of a device in the batch that the spec asks for.
        wanted_bytes: memory of a device with these, overhead included.
        method: `traced` or `measured`.
        note: what the prediction leaves out.
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
    alone = next((each.outcome for each in records if isinstance(each.outcome, MemoryPrediction)), None)
    spread = [each.outcome for each in records if isinstance(each.outcome, DeviceMemory)]
    if alone is None or not spread:
        return ()
    overhead = _overhead(study, configuration, alone)
    rows = [_alone(study, configuration, alone, overhead, wanted)] if 1 in options.devices else []
    for each in spread:
        memory = StepMemory.from_dict(each.memory)
        most = min(each.samples, (options.max_batch or alone.samples) // each.devices)
        share = _largest(memory, each.simulated, overhead, most, alone.limit_bytes or 0)
        rows.append(_row(each.devices, each.parallel, memory, share, overhead, wanted))
    return tuple(sorted(rows, key=lambda row: row.devices))


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


def _largest(
    memory: StepMemory, simulated: SimulatedBatch | None, overhead: Overhead, most: int, limit_bytes: int
) -> int:
    """Return the most samples of one device that are predicted to fit. 0: none."""
    if simulated is not None:
        return min(simulated.batch_size, most)
    share = largest_predicted(
        lambda size: overhead.needed_at_least(memory.at(size).peak_bytes), limit_bytes, most
    )
    return share if share == most else on_grid(share)


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
