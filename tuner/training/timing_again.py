"""Times epochs once more whose first timing was contended: the same steps on the trained model, leaving no trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from fusetune.tuner.measure import Contention, ProcessorWatch, Stopwatch, is_out_of_memory
from fusetune.tuner.training.batches import Batches
from fusetune.tuner.training.loss import RunningLoss
from fusetune.tuner.training.rate import LearningRate
from fusetune.tuner.training.step import MakeOptimizer, TrainingStep, restored

# A processor that is still busy shows after this time. The rest is then not worth the wait.
_FIRST_LOOK_S = 0.1


@dataclass(frozen=True)
class TimedEpoch:
    """The steps of one epoch, their times, and what they missed of the processor.

    Args:
        epoch: from 1.
        first_step: updates made before it.
        laps_s: seconds of each step.
        contention: of the whole epoch.
    """

    epoch: int
    first_step: int
    laps_s: list[float]
    contention: Contention


def time_again(
    epochs: Sequence[TimedEpoch],
    model: nn.Module,
    make_step: Callable[[], TrainingStep],
    make_optimizer: MakeOptimizer,
    make_rate: Callable[[Optimizer], LearningRate],
    batches: Batches,
    *,
    stopwatch: Stopwatch,
    watch: ProcessorWatch,
    budget_s: float,
) -> list[TimedEpoch]:
    """Return those of `epochs` that were less contended at a second timing, with their new times.

    Each is the same work: the batches of that epoch, forward, backward and update. It ends with the first epoch that
    is contended after 0.1 s already, for the machine is busy still, or when the budget is used up.

    Args:
        epochs: contended ones, in their order.
        model: trained, and in training mode. Parameters, buffers and torch's random states are put back.
        make_step, make_optimizer, make_rate: make what a training takes.
        batches: of the training.
        stopwatch: whose device and clock are used. It takes no lap.
        watch: of the thread that calls this.
        budget_s: seconds of the host.

    Memory: one copy of the parameters and buffers, and the states of one more optimizer. If that is too much, the
    epochs stay as they are.
    """
    if budget_s <= 0:
        return []
    start_s = stopwatch.clock()
    devices = [batches.device] if batches.device.type == "cuda" else []
    found: list[TimedEpoch] = []
    try:
        with (
            torch.random.fork_rng(devices=devices),
            restored(model.named_buffers),
            restored(model.named_parameters),
        ):
            optimizer, step = make_optimizer(model.parameters()), make_step()
            rate = make_rate(optimizer)
            # The first step of an optimizer makes its states.
            step.accumulate(batches.epoch(0), RunningLoss(batches.device))
            step.update(optimizer)
            for epoch in epochs:
                left_s = budget_s - (stopwatch.clock() - start_s)
                if math.fsum(epoch.laps_s) * (1 - (epoch.contention.missing or 0.0)) > left_s:
                    break
                timed = _timed(epoch, step, optimizer, rate, batches, stopwatch, watch)
                if timed is None:
                    break
                if (timed.contention.missing or 0.0) < (epoch.contention.missing or 0.0):
                    found.append(timed)
            step.drop_gradients()
    except Exception as error:  # a person's model, where memory may run out in any class of error
        if not is_out_of_memory(error):
            raise
    return found


def _timed(
    epoch: TimedEpoch,
    step: TrainingStep,
    optimizer: Optimizer,
    rate: LearningRate,
    batches: Batches,
    stopwatch: Stopwatch,
    watch: ProcessorWatch,
) -> TimedEpoch | None:
    """Take the steps of one epoch again. None when the processor is still not to be had."""
    laps = Stopwatch(stopwatch.device, clock=stopwatch.clock)
    running = RunningLoss(batches.device)
    stream = batches.epoch(epoch.epoch - 1)
    begun_s = stopwatch.clock()
    looked = False
    watch.start()
    laps.resume()
    for index in range(len(epoch.laps_s)):
        rate.set(epoch.first_step + index)
        step.accumulate(stream, running)
        step.update(optimizer)
        laps.lap()
        running.seen_mean()
        if not looked and stopwatch.clock() - begun_s >= _FIRST_LOOK_S:
            looked = True
            laps.pause()
            if watch.so_far().contended:
                return None
            laps.resume()
    laps.pause()
    return TimedEpoch(epoch.epoch, epoch.first_step, laps.laps_s(), watch.stop())
