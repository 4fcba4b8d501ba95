"""A batch size that is run in small, inside a worker: on one device, or on several that share it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fusetune.bench.results import DeviceProbe, MemoryProbe, Record, Status
from fusetune.bench.run import Workload, assemble, share_trial, sharing_ranks
from fusetune.bench.spec import Trial
from fusetune.bench.workers import OnProgress, WorkerContext
from fusetune.tuner.measure import PeakMemory, address_space_peak, resident_bytes
from fusetune.tuner.training import ONE_RANK, Batches, Training, metrics_of, train

if TYPE_CHECKING:
    from fusetune.tuner.parallel import DataParallel

# The first step creates the optimizer's state. The second runs with it. By the third the heap has settled.
PROBE_STEPS = 3
# Of several devices. Their processes start for these steps alone, and the steps are timed.
TIMED_STEPS = 20


class FirstBatches(Batches):
    """The first batches of a data set, which stays in memory as a whole.

    Args:
        batches: the set.
        count: number of batches per pass.
    """

    def __init__(self, batches: Batches, count: int) -> None:
        vars(self).update(vars(batches))
        self._count = count

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return min(self._count, super().__len__())

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the first batches in order."""
        return islice(super().in_order(), self._count)


def probe(trial: Trial, context: WorkerContext) -> Record:
    """Train a few steps and evaluate at the trial's batch size, and record the memory."""
    training, needed_bytes, _ = _run(trial, context, PROBE_STEPS, None)
    return _record(trial, context, training, needed_bytes, MemoryProbe())


def probe_devices(trial: Trial, context: WorkerContext) -> Record:
    """Do the same on `train.devices` devices that share the batch, each under the limit, and time the steps.

    Returns:
        A record with the outcome `DeviceProbe`. A device that runs out of memory ends it, and is named.
    """
    found = share_trial(trial, context, _ignore, run_rank="fusetune.bench.batch_size:probe_rank")
    section = trial.spec.train
    shared = found.outcome if isinstance(found.outcome, DeviceProbe) else None
    return dataclasses.replace(found, outcome=shared or DeviceProbe(section.devices, section.parallel))


def probe_rank(trial: Trial, context: WorkerContext, on_progress: OnProgress, *, started_s: float) -> Record:
    """Run the trial's batch as one of the processes that share it and have joined a group.

    Args:
        trial, context: as for a worker.
        on_progress: not called, because a probe is short.
        started_s: not used, because starting is no part of a probe.

    Returns:
        A record. That of the first process has the memory of the one that needed most.
    """
    ranks = sharing_ranks(trial)
    training, needed_bytes, workload = _run(trial, context, TIMED_STEPS, ranks)
    found = ranks.communication(workload.model)
    step_s = training.training_s / training.steps if training.steps else 0.0
    share = found.seconds / step_s if found and step_s else None
    outcome = DeviceProbe(ranks.count, trial.spec.train.parallel, share)
    training = dataclasses.replace(training, peak_bytes=ranks.most(training.peak_bytes))
    record = _record(trial, context, training, ranks.most(needed_bytes), outcome)
    missing = {k: v for k, v in metrics_of(training).items() if k == "processor_missing"}
    return dataclasses.replace(record, values={**record.values, **missing})


def _run(
    trial: Trial, context: WorkerContext, steps: int, ranks: DataParallel | None
) -> tuple[Training, int, Workload]:
    """Train some steps and evaluate. Return the training, what this process needed, and what was trained."""
    resident_before_bytes = resident_bytes()
    workload = assemble(trial, context, ranks or ONE_RANK)
    batches, validation, test = workload.data.batches
    forwards = steps * trial.spec.train.accumulation_steps
    epochs = 1 if ranks is None else math.ceil(forwards / len(batches))
    peak_memory = PeakMemory(context.device, footprint_bytes=resident_before_bytes)
    with address_space_peak() as address_space_peak_bytes:
        training = train(
            workload.model,
            workload.make_optimizer,
            FirstBatches(batches, forwards),
            plan=dataclasses.replace(workload.plan, epochs=epochs),
            validation=FirstBatches(validation, 1),
            test=FirstBatches(test, 1),
            peak_memory=peak_memory,
            ranks=ranks or ONE_RANK,
        )
        mapped_bytes = address_space_peak_bytes()
    needed_bytes = _needed_bytes(context, training.peak_bytes, mapped_bytes)
    if not context.device.startswith("cuda"):
        # The heap reuses memory of the start-up, so the address space grows by less than the tensors take.
        needed_bytes = max(needed_bytes, _tensor_bytes(workload.model, workload.data.batches))
    return training, needed_bytes, workload


def _record(
    trial: Trial,
    context: WorkerContext,
    training: Training,
    needed_bytes: int,
    outcome: MemoryProbe | DeviceProbe,
) -> Record:
    """Return what a run in small measured. A loss that is not finite ends its steps early, after their peak."""
    values = {"peak_bytes": float(training.peak_bytes), "needed_bytes": float(needed_bytes)}
    if context.memory.limit_bytes is not None:
        values["limit_bytes"] = float(context.memory.limit_bytes)
    status: Status = "ok"
    reason = ""
    if not context.memory.enforced and values["needed_bytes"] > values.get("limit_bytes", math.inf):
        status, reason = "out_of_memory", "took more than the limit, which this platform does not enforce"
        values["wanted_bytes"] = values["needed_bytes"]
    samples = {"step_time_s": [round(lap_s, 9) for lap_s in training.step_times_s]}
    provenance = {"memory_limit_source": context.memory.source, "memory_limit_note": context.memory.note}
    return Record(
        trial.id,
        trial.factors,
        trial.seed,
        status,
        reason,
        values,
        samples,
        provenance=provenance,
        outcome=outcome,
    )


def _tensor_bytes(model: nn.Module, sets: Iterable[Batches]) -> int:
    """Return the bytes of weights, gradients and data, a lower bound of the memory of a training."""
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [tensor.grad for tensor in model.parameters() if tensor.grad is not None]
    tensors += [value for each in sets for value in vars(each).values() if isinstance(value, Tensor)]
    # Of a parameter that several processes share, this one has a part.
    parts: list[Tensor] = [getattr(tensor, "_local_tensor", tensor) for tensor in tensors]
    dense = [tensor for tensor in parts if tensor.layout == torch.strided]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in dense}
    return sum(storages.values())


def _needed_bytes(context: WorkerContext, peak_bytes: int, mapped_bytes: int | None) -> int:
    """Return the least limit under which the training would have run, the peak of the limited quantity.

    On a CPU under a limit that is the address space. The resident set would be wrong. It also grows at the first read
    of a library's page, and by memory that the heap kept from the start-up.

    Args:
        context: the worker's device and limit.
        peak_bytes: the peak that the training reports.
        mapped_bytes: peak address space of the process. None: not known.
    """
    if context.device.startswith("cuda"):
        return torch.cuda.max_memory_reserved(context.device)
    if not context.memory.enforced or mapped_bytes is None:
        return peak_bytes
    return max(0, mapped_bytes - context.memory.footprint.address_space_bytes)


def _ignore(progress: dict[str, Any]) -> None:
    """Show no progress of a few steps."""
