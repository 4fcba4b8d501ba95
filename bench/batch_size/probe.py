"""The jobs of a worker: here the memory of a batch size, predicted from traces. Others are in files of their own."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from fusetune.bench.batch_size.accelerators import Accelerator, accelerator
from fusetune.bench.batch_size.jobs import measure_noise, time_steps
from fusetune.bench.batch_size.run_size import probe, probe_devices
from fusetune.bench.batch_size.study import assumed_overhead
from fusetune.bench.results import (
    BatchSizeOptions,
    DeviceMemory,
    MemoryOnDevices,
    MemoryPrediction,
    Record,
    SimulatedBatch,
)
from fusetune.bench.run import (
    EVALUATION_BATCHES,
    DataSets,
    OptimizerMaker,
    load_sets,
    make_model,
    rehearse_trial,
    with_any_rate,
)
from fusetune.bench.spec import Trial
from fusetune.bench.workers import (
    SOURCE_NAMES,
    OnProgress,
    WorkerContext,
    address_space_left,
    measure_footprint,
    settle_footprint,
)
from fusetune.tuner.batch_size import largest_predicted, on_grid
from fusetune.tuner.memory import StepMemory, StepWork, trace_memory
from fusetune.tuner.training import Batches, resolve_precision


def run_job(trial: Trial, context: WorkerContext, on_progress: OnProgress) -> Record:
    """Run the job of `trial.options["job"]`: one of `JOBS`.

    Args:
        trial: a trial with its data source. A rehearsal builds everything for a training and trains nothing.
        context: the worker's device and cache.
        on_progress: not called, because a probe is short.

    Returns:
        A record. A prediction's outcome is `MemoryPrediction`.

    Raises:
        Any exception of the model's own code, out of memory included. The worker turns it into a record.
    """
    # The rate affects neither memory nor time of a step. Only the noise along a training depends on it.
    if trial.options.get("job") != "noise":
        trial = with_any_rate(trial)
    if trial.rehearsal:
        return rehearse_trial(trial, context)
    return JOBS[trial.options["job"]](trial, context)


def _predict(trial: Trial, context: WorkerContext) -> Record:
    """Trace the trial's training and predict each batch size's memory, on this device or an absent one."""
    options = BatchSizeOptions.from_dict(trial.options)
    card = accelerator(options.device) if options.device else None
    settle_footprint(context.device)
    before_bytes = measure_footprint(context.device).address_space_bytes
    data = load_sets(trial, context)
    loading_bytes = measure_footprint(context.device).address_space_bytes - before_bytes
    memory = _traced(trial, data, context, card)
    samples = data.training.samples // trial.spec.train.accumulation_steps
    limit_bytes, source = limit_in_force(options.memory_bytes, context, card, options.memory_source)
    on_cuda = card is not None or context.device.startswith("cuda")
    prediction = MemoryPrediction(
        memory.as_dict(),
        samples,
        limit_bytes,
        source,
        # Memory of loading beside the data themselves, which is that of imported libraries.
        loading_bytes=0 if on_cuda else max(0, loading_bytes - round(memory.resident_bytes)),
    )
    return Record(
        trial.id,
        trial.factors,
        trial.seed,
        "ok",
        outcome=dataclasses.replace(
            prediction, simulated=_without_a_run(memory, samples, prediction, options, context)
        ),
    )


def _predict_devices(trial: Trial, context: WorkerContext) -> Record:
    """Trace one rank of each number of devices in `trial.options["devices"]` above 1, which need not be there.

    `trial.options["prediction"]` is the outcome of `_predict`.
    """
    options = BatchSizeOptions.from_dict(trial.options)
    alone: MemoryPrediction = trial.options["prediction"]
    card = accelerator(options.device) if options.device else None
    data = load_sets(trial, context)
    found: list[DeviceMemory] = []
    memory: StepMemory | None = None
    for devices in (number for number in options.devices if number > 1):
        if memory is None or options.parallel == "fsdp":
            memory = _traced(trial, data, context, card, devices)
        held_out = max(data.validation.samples, data.test.samples)
        memory = dataclasses.replace(memory, evaluation_samples=math.ceil(held_out / devices))
        samples = alone.samples // devices
        found.append(
            DeviceMemory(
                devices,
                options.parallel,
                memory.as_dict(),
                samples,
                _without_a_run(memory, samples, alone, options, context),
            )
        )
    return Record(trial.id, trial.factors, trial.seed, "ok", outcome=MemoryOnDevices(tuple(found)))


def _traced(
    trial: Trial, data: DataSets, context: WorkerContext, card: Accelerator | None, devices: int = 1
) -> StepMemory:
    """Trace the trial's training on one device, or one of several devices that share it."""
    batches, validation, test = data.batches
    work = _work(trial, data, context, card)
    if devices > 1:
        parallel = BatchSizeOptions.from_dict(trial.options).parallel
        work = dataclasses.replace(work, devices=devices, parallel="fsdp" if parallel == "fsdp" else "ddp")
    on_cuda = card is not None or context.device.startswith("cuda")
    memory = trace_memory(
        work,
        device=context.device,
        resident_bytes=0 if on_cuda else _array_bytes(data, work.resident),
        evaluation_factor=EVALUATION_BATCHES,
        evaluation_samples=max(validation.samples, test.samples),
        most_samples=min(batches.samples, validation.samples),
        compare=card is None,
    )
    notes = [memory.note]
    if trial.spec.train.implementation == "fused":
        notes.append("traced with torch's optimizer and activations in place of the fused ones")
    if card is not None and not context.device.startswith("cuda"):
        notes.append("traced with the operators of a CPU")
    if devices > 1 and trial.spec.train.sync_batchnorm:
        notes.append("traced with batch normalisation over each device's share")
    return dataclasses.replace(memory, note="; ".join(filter(None, notes)))


def _work(
    trial: Trial,
    data: DataSets,
    context: WorkerContext,
    card: Accelerator | None,
) -> StepWork:
    spec = trial.spec
    section = spec.train.model_copy(update={"implementation": "torch"})
    make_optimizer = OptimizerMaker(spec.model_copy(update={"train": section}))
    batches, validation, _ = data.batches

    def make_batch(size: int) -> tuple[Tensor, Tensor]:
        return next(iter(_resized(batches, size).epoch(0)))

    def make_evaluation_batch(size: int) -> tuple[Tensor, Tensor]:
        return next(iter(_resized(validation, size).in_order()))

    def loss_fn(logits: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, y, label_smoothing=spec.train.label_smoothing)

    memory_format = batches.memory_format
    if card is None:
        precision = resolve_precision(spec.train.precision, context.device)
    else:
        precision = spec.train.precision
        precision = ("bf16" if card.bf16 else "fp32") if precision == "auto" else precision
        if len(data.splits.x_train.shape) == 4:
            memory_format = torch.channels_last
    return StepWork(
        make_model=lambda: make_model(spec, data.splits),
        make_optimizer=make_optimizer,
        make_batch=make_batch,
        loss_fn=loss_fn,
        make_evaluation_batch=make_evaluation_batch,
        accumulation_steps=spec.train.accumulation_steps,
        grad_clip=spec.train.grad_clip,
        precision=precision,
        memory_format=memory_format,
        foreach=card is not None,
        own_memory=card is not None or batches.device.type == "cuda",
        resident=tuple(
            value for each in data.batches for value in vars(each).values() if isinstance(value, Tensor)
        ),
    )


def _resized(batches: Batches, size: int) -> Batches:
    twin = copy.copy(batches)
    twin.batch_size = size
    return twin


def _array_bytes(data: DataSets, tensors: tuple[Tensor, ...]) -> int:
    """Return the bytes of the loaded arrays that share no memory with a tensor."""
    shared = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    arrays = [value for value in vars(data.splits).values() if isinstance(value, np.ndarray)]
    return sum(array.nbytes for array in arrays if array.ctypes.data not in shared)


def limit_in_force(
    asked_bytes: int | None, context: WorkerContext, card: Accelerator | None, asked_by: str = "--memory"
) -> tuple[int | None, str | None]:
    """Return the tightest of the requested and the existing limits, and its origin."""
    limits = [(asked_bytes, asked_by)]
    if card is not None:
        limits.append((card.usable_bytes, card.title))
    elif context.device.startswith("cuda"):
        limits.append((torch.cuda.mem_get_info(context.device)[0], "the device"))
    else:
        memory = context.memory
        limits.append((memory.limit_bytes, SOURCE_NAMES[memory.source or "container"]))
        footprint = memory.footprint if memory.enforced else measure_footprint("cpu")
        limits.append((address_space_left(footprint), SOURCE_NAMES["shell"]))
    there = [(limit, source) for limit, source in limits if limit is not None]
    return min(there, key=lambda item: item[0]) if there else (None, None)


def _without_a_run(
    memory: StepMemory,
    samples: int,
    prediction: MemoryPrediction,
    options: BatchSizeOptions,
    context: WorkerContext,
) -> SimulatedBatch | None:
    """Return the largest batch as predicted, where nothing is run. None where sizes are run."""
    if options.device:
        limit_bytes = prediction.limit_bytes or accelerator(options.device).usable_bytes
        return _simulate(memory, samples, limit_bytes)
    if not options.predict:
        return None
    overhead = assumed_overhead(context.device, prediction.loading_bytes)

    def needed(size: int) -> float:
        return overhead.needed(memory.at(size).peak_bytes)

    return _simulated(memory, needed, samples, prediction.limit_bytes or 0, allocator=False)


def _simulate(memory: StepMemory, samples: int, limit_bytes: int) -> SimulatedBatch:
    """Return the largest batch that fits an absent device, by a simulation of the caching allocator."""

    def reserved(size: int) -> int:
        found = memory.reserved(size, limit_bytes)
        if found is None:
            return memory.at(size).peak_bytes
        return found.reserved_bytes if found.fits else limit_bytes + 1

    return _simulated(memory, reserved, samples, limit_bytes, allocator=memory.traces is not None)


def _simulated(
    memory: StepMemory, need: Callable[[int], float], samples: int, limit_bytes: int, *, allocator: bool
) -> SimulatedBatch:
    """Return the largest batch by what each size needs."""
    size = largest_predicted(need, limit_bytes, samples)
    size = size if size == samples else on_grid(size)
    return SimulatedBatch(
        size,
        reserved_bytes=round(need(size)) if size else None,
        predicted_bytes=memory.at(max(1, size)).peak_bytes,
        allocator=allocator,
    )


JOBS: dict[str, Callable[[Trial, WorkerContext], Record]] = {
    "predict": _predict,
    "devices": _predict_devices,
    "probe": probe,
    "throughput": time_steps,
    "probe devices": probe_devices,
    "noise": measure_noise,
}
