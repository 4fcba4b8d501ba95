"""From a trial to what it trains with, in one call, and to whole training steps of any batch size."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count

import torch
from torch import nn

from fusetune.bench.run.auto_lr import resolve_auto
from fusetune.bench.run.fused_activations import fuse_activations
from fusetune.bench.run.workload import Workload, build_workload
from fusetune.bench.spec import AUTO, Trial
from fusetune.bench.workers import WorkerContext
from fusetune.tuner.training import ONE_RANK, Batches, Ranks, RunningLoss, planned_step


def assemble(trial: Trial, context: WorkerContext, ranks: Ranks = ONE_RANK) -> Workload:
    """Put together what a trial trains with: built, with a number for `base_lr: auto`, and fused where it says so.

    Args:
        trial: with its source filled in.
        context: the worker's device and cache. Data that the next trials need again stay in the cache.
        ranks: the processes that share the trial. The first alone finds a rate.

    Raises:
        InputError: the spec asks for something impossible, or a range test finds no rate.
    """
    workload = build_workload(trial, context)
    if workload.spec.train.base_lr == AUTO:
        chosen = ranks.from_first(resolve_auto(workload).chosen_lr if ranks.rank == 0 else None)
        assert chosen is not None
        workload = workload.at_rate(chosen.base_lr, chosen)
    if workload.spec.train.implementation != "fused":
        return workload
    path = fuse_activations(workload.spec, workload.model, context)
    return replace(workload, activations_path=path)


def make_step(workload: Workload) -> Callable[[int], Callable[[], None]]:
    """Return: batch size -> what makes one whole training step of it, all with one model and one optimizer.

    Mutates: moves the model to its data.
    """
    workload.place()
    model, plan, batches = workload.model.train(), workload.plan, workload.data.training
    optimizer = workload.make_optimizer(model.parameters())
    step = planned_step(
        plan,
        model,
        forward=torch.compile(model) if plan.compile else model,
        loss_fn=partial(nn.functional.cross_entropy, label_smoothing=plan.label_smoothing),
        device=batches.device,
    )
    running = RunningLoss(batches.device)

    def of_size(size: int) -> Callable[[], None]:
        stream = _endless(batches, size)

        def one() -> None:
            step.accumulate(stream, running)
            step.update(optimizer)

        return one

    return of_size


def _endless(batches: Batches, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield training batches of another size without end."""
    twin = copy.copy(batches)
    twin.batch_size = size
    for index in count():
        yield from twin.epoch(index)
