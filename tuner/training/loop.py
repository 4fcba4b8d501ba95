"""The training loop: data on the device, no wait for it inside a step, and everything but training off the clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from functools import partial

import torch
from torch import nn

from fusetune.tuner.measure import PeakMemory, ProcessorWatch, ReadProcessor, Stopwatch, read_processor
from fusetune.tuner.training.batches import Batches
from fusetune.tuner.training.evaluation import Evaluation, LossFunction, evaluate
from fusetune.tuner.training.loss import RunningLoss
from fusetune.tuner.training.observer import MakeObserver, Observer, Snapshot
from fusetune.tuner.training.outcome import EarlyStop, Target, Training, divergence
from fusetune.tuner.training.plan import Plan, planned_step
from fusetune.tuner.training.precision import resolve_precision
from fusetune.tuner.training.progress import OnProgress, Progress
from fusetune.tuner.training.ranks import ONE_RANK, Ranks
from fusetune.tuner.training.rate import LearningRate
from fusetune.tuner.training.setup import TrainingSetup
from fusetune.tuner.training.step import MakeOptimizer, TrainingStep, burn_in
from fusetune.tuner.training.timing_again import TimedEpoch, time_again


def train(
    model: nn.Module,
    make_optimizer: MakeOptimizer,
    batches: Batches,
    *,
    plan: Plan,
    validation: Batches,
    test: Batches | None = None,
    target: Target | None = None,
    early_stop: EarlyStop | None = None,
    time_limit_s: float | None = None,
    loss_fn: LossFunction | None = None,
    on_progress: OnProgress | None = None,
    stopwatch: Stopwatch | None = None,
    peak_memory: PeakMemory | None = None,
    observer: MakeObserver | None = None,
    retime: bool = False,
    read: ReadProcessor = read_processor,
    ranks: Ranks = ONE_RANK,
) -> Training:
    """Train a model and return what happened.

    Before the clock starts, a burn-in step pays what only a first step costs, and is undone (with `plan.compile`, two:
    the first compiles). From then on every step is a lap of the stopwatch. Evaluation, progress and the gradient norm
    are off the clock. Within a step nothing waits for the device. Losses and counts are summed there and read at the
    end of each epoch.

    The training ends after `plan.epochs`, or before for one of three reasons. Reaching the target ends nothing.

    - It diverged: the loss is not finite, or an epoch's mean training loss is above 4 times the untrained model's. A
      loss that is not finite is noticed at that step on a CPU, and a few steps later on CUDA.
    - `early_stop` gives a reason.
    - The time limit has passed. It is looked at between steps, so the training ends within it and one step. Without a
      whole epoch the curve is empty and nothing is evaluated.

    Args:
        model: maps a batch x to logits of shape (batch, classes).
        make_optimizer: parameters -> torch optimizer, whose lr is the base_lr. Called twice, once for the burn-in,
            and once more where epochs are timed again.
        batches: training data. Their device and memory format become the model's.
        plan: how to train.
        validation: held-out data, evaluated at the end of each epoch.
        test: evaluated once, at the end, and after each epoch where target, early_stop or plateau go by it.
        target: decides whether the test set is evaluated after each epoch. `tuner.training.outcome` judges it.
        early_stop: when to give up.
        time_limit_s: seconds from the call of this function, evaluations included. None: no limit.
        loss_fn: (logits, labels) -> mean loss, for training and evaluation. Cross entropy (nats) by default.
        on_progress: called with phase (burn-in, training, evaluation), epoch, epochs, step, steps, loss, val_accuracy,
            samples_per_s and processor_missing (None where not known): twice a second, and at the end of each epoch.
        stopwatch: its device must be that of `batches`. Default: a new one.
        peak_memory: made before data and model were, to count them. Default: made now.
        observer: looks at the model before training and at the end of each epoch, off the clock. The class
            `tuner.diagnosis.LayerStatistics` is one. The model learns the same, bit for bit. None: nothing looks.
        retime: time contended epochs again at the end, see `tuner.training.timing_again`, those up to the target where
            it was reached. It takes at most as long as the training did, keeps to `time_limit_s`, and leaves no trace.
        read: reads the processor's counters, at both ends of each epoch and with each progress report.
        ranks: the processes that share the training, see `tuner.parallel`. Each calls this function with the same
            arguments, whole data included, and takes its share of each batch. Times are those of its own clock, and
            losses, accuracies and decisions are the same in all. `retime` is for one process.

    Mutates: the model's parameters and buffers, in place. Its modules are left in training mode.

    Raises:
        ValueError: data, plan, target and test set that do not fit together.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(64, 2)
        >>> data = Batches(x, (x[:, 0] > 0).long(), batch_size=16)
        >>> training = train(torch.nn.Linear(2, 2), lambda parameters: torch.optim.SGD(parameters, lr=1.0), data,
        ...                  plan=Plan(epochs=5), validation=data)
        >>> training.steps, training.curve[-1]["val_accuracy"] > 0.9
        (20, True)
    """
    setup = TrainingSetup(
        model,
        make_optimizer,
        batches,
        plan,
        validation,
        test=test,
        target=target,
        early_stop=early_stop,
        time_limit_s=time_limit_s,
        loss_fn=loss_fn,
        on_progress=on_progress,
        stopwatch=stopwatch,
        peak_memory=peak_memory,
        observer=observer,
        retime=retime,
        read=read,
        ranks=ranks,
    )
    epochs = train_epochs(setup)
    while True:
        try:
            next(epochs)
        except StopIteration as end:
            training: Training = end.value
            return training


def train_epochs(setup: TrainingSetup) -> Generator[dict[str, float | None], str | None, Training]:
    """Train as `train` does, pausing after each epoch: yield its entry of the curve, return the Training at the end.

    While it is paused, no clock runs (training, time limit) and others may draw from torch's generators: their states
    are put back when it goes on. A pause holds the model, its gradients, the optimizer's state and the data, all where
    they are. Closing the generator drops them. Sending a reason instead of resuming ends the training early.

    Mutates, Raises: as for `train`.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(64, 2)
        >>> data = Batches(x, (x[:, 0] > 0).long(), batch_size=16)
        >>> sgd = lambda parameters: torch.optim.SGD(parameters, lr=1.0)
        >>> epochs = train_epochs(TrainingSetup(torch.nn.Linear(2, 2), sgd, data, Plan(epochs=5), validation=data))
        >>> next(epochs)["epoch"], next(epochs)["epoch"]
        (1, 2)
        >>> epochs.close()
    """
    model, plan = setup.model, setup.plan
    stopwatch = setup.stopwatch or Stopwatch(setup.device)
    started_s = stopwatch.clock()
    peak_memory = setup.peak_memory or PeakMemory(setup.device)
    setup.check()
    setup.ranks.place(model, setup.batches)
    model.train()
    batches = setup.batches.share(setup.ranks.rank, setup.ranks.count)
    make_step = _step_maker(setup, batches)
    progress = Progress(
        setup.on_progress,
        stopwatch.clock,
        epochs=plan.epochs,
        steps=setup.steps,
        samples_per_step=setup.samples_per_step,
    )
    progress.report("burn-in", 0)
    warm_up = partial(
        burn_in, model, make_optimizer=setup.make_optimizer, batches=batches, stopwatch=stopwatch
    )
    compile_s = warm_up(step=make_step()) if plan.compile else None
    first_step_s = warm_up(step=make_step())
    loop = _Loop(setup, batches, make_step, stopwatch, progress, started_s)
    yield from loop.run()
    final_test = loop.final_evaluation()
    peak_bytes = peak_memory.peak_bytes()
    replaced = loop.time_again() if setup.retime and setup.ranks.count == 1 else {}
    return Training(
        curve=loop.curve,
        step_times_s=[lap_s for timed in loop.timed for lap_s in timed.laps_s],
        samples_per_step=setup.samples_per_step,
        planned_epochs=plan.epochs,
        first_step_s=first_step_s,
        compile_s=compile_s,
        evaluation_s=loop.evaluation_s,
        peak_bytes=peak_bytes,
        diverged=loop.diverged,
        stopped_early=loop.stopped_early,
        test_loss=final_test.loss if final_test else None,
        test_accuracy=final_test.accuracy if final_test else None,
        statistics=loop.statistics,
        statistics_s=loop.statistics_s,
        contention=[timed.contention for timed in loop.timed],
        replaced_step_times_s=replaced,
    )


def _step_maker(setup: TrainingSetup, batches: Batches) -> Callable[[], TrainingStep]:
    """Return what makes the training's steps, each with a gradient scale of its own."""
    model, plan = setup.model, setup.plan
    if plan.compile:
        # A process that has compiled some models of one class would else run the next of them uncompiled.
        torch.compiler.reset()
    loss_fn = setup.loss_fn or partial(nn.functional.cross_entropy, label_smoothing=plan.label_smoothing)
    forward = setup.ranks.wrap(model, batches, loss_fn)
    return partial(
        planned_step,
        plan,
        model,
        forward=torch.compile(forward) if plan.compile else forward,
        loss_fn=loss_fn,
        device=setup.device,
        ranks=setup.ranks,
    )


class GeneratorStates:
    """The states of torch's own random generators, to be put back after others have drawn from them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def put_back(self) -> None:
        """Make the generators go on from where they were."""
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self._device)


class _Loop:
    """The epochs of one training, and what is known of them so far."""

    def __init__(
        self,
        setup: TrainingSetup,
        batches: Batches,
        make_step: Callable[[], TrainingStep],
        stopwatch: Stopwatch,
        progress: Progress,
        started_s: float,
    ) -> None:
        model, plan = setup.model, setup.plan
        self.setup = setup
        self.plan = plan
        self.ranks = setup.ranks
        self.batches = batches
        self.held_out = setup.held_out
        self.stopwatch = stopwatch
        self.progress = progress
        self.started_s = started_s
        self.optimizer = setup.make_optimizer(model.parameters())
        self.make_step = make_step
        self.step = make_step()
        self.make_rate = partial(
            LearningRate, schedule=plan.schedule, momentum=plan.momentum, plateau=plan.plateau
        )
        self.rate = self.make_rate(self.optimizer)
        self.watch = ProcessorWatch(setup.read, threads=torch.get_num_threads())
        loss_fn, precision = setup.evaluation_loss, resolve_precision(plan.precision, setup.device)
        self.evaluate = partial(evaluate, model, loss_fn=loss_fn, precision=precision, total=self.ranks.sum)
        self.observer: Observer | None = None
        if setup.observer is not None and self.ranks.observes:
            self.observer = setup.observer(model, setup.batches, loss_fn=loss_fn, precision=precision)

        self.running = RunningLoss(setup.device)
        self.untrained_loss = torch.zeros((), device=setup.device)
        self.steps = 0
        self.timed: list[TimedEpoch] = []
        self.curve: list[dict[str, float | None]] = []
        self.evaluation_s = 0.0
        self.statistics: list[Snapshot] = []
        self.statistics_s = 0.0
        self.diverged: str | None = None
        self.stopped_early: str | None = None

    def run(self) -> Generator[dict[str, float | None], str | None, None]:
        """Train until the last epoch or a reason to stop, pausing after each epoch that gives none."""
        for epoch in range(1, self.plan.epochs + 1):
            self.train_epoch(epoch)
            if self.diverged:
                self.curve.append(self.trained(epoch))
            elif not self.stopped_early:
                self.end_epoch(epoch)
            if self.diverged or self.stopped_early:
                return
            paused_s, generators = self.stopwatch.clock(), GeneratorStates(self.batches.device)
            stop = yield self.curve[-1]
            generators.put_back()
            self.started_s += self.stopwatch.clock() - paused_s
            if stop and epoch < self.plan.epochs:
                self.stopped_early = stop
                return

    def train_epoch(self, epoch: int) -> None:
        """Make the updates of an epoch: all that is on the training clock."""
        self.progress.begin_epoch(epoch, self.steps)
        self.ranks.begin_epoch()
        self.running.reset()
        self.step.gradient_norm = None
        stream = self.batches.epoch(epoch - 1)
        first_step = self.steps
        self.watch.start()
        self.stopwatch.resume()
        steps = self.setup.steps_per_epoch
        for index in range(steps):
            if self.out_of_time(epoch):
                break
            self.rate.set(self.steps)
            self.step.accumulate(stream, self.running)
            if not self.steps and self.observer is not None:
                # The first gradients are there and nothing is trained yet.
                self.stopwatch.pause()
                self.step.unscale(self.optimizer)
                self.look_into_layers(0)
                self.stopwatch.resume()
            if index == steps - 1 and self.plan.grad_clip is None:
                self.stopwatch.pause()
                self.step.measure_gradient_norm(self.optimizer)
                self.stopwatch.resume()
            self.step.update(self.optimizer)
            self.stopwatch.lap()
            if not self.steps:
                self.untrained_loss = self.running.mean()
            self.steps += 1
            loss = self.running.seen_mean()
            agreed = self.ranks.agreed_loss(loss, self.is_late)
            if agreed is not None and not math.isfinite(agreed):
                loss = agreed
                self.diverged = f"the training loss was {loss} at step {self.steps}, in epoch {epoch}"
                break
            if self.progress.due():
                self.stopwatch.pause()
                self.report("training", loss, self.watch.so_far().missing)
                self.stopwatch.resume()
        self.stopwatch.pause()
        contention = self.watch.stop()
        self.timed.append(TimedEpoch(epoch, first_step, self.stopwatch.laps_s()[first_step:], contention))

    def out_of_time(self, epoch: int) -> bool:
        """Return whether the time limit has passed, and note the reason."""
        limit_s = self.setup.time_limit_s
        if limit_s is None or not self.ranks.late(self.is_late):
            return False
        self.stopped_early = (
            f"the time limit of {limit_s:g} s passed after step {self.steps}, "
            f"in epoch {epoch} of {self.plan.epochs}"
        )
        return True

    def is_late(self) -> bool:
        """Return whether the time limit has passed, by this process's clock."""
        limit_s = self.setup.time_limit_s
        return limit_s is not None and self.stopwatch.clock() - self.started_s >= limit_s

    def trained(self, epoch: int) -> dict[str, float | None]:
        """Return the curve's entry for an epoch's training, whole or cut short."""
        loss, accuracy = self.running.read(self.ranks.sum)
        norm = self.step.gradient_norm
        return {
            "epoch": epoch,
            "step": self.steps,
            "samples": self.steps * self.setup.samples_per_step,
            "time_s": math.fsum(self.stopwatch.laps_s()),
            "train_loss": _finite(loss),
            "train_accuracy": accuracy,
            "val_loss": None,
            "val_accuracy": None,
            "lr": self.rate.current,
            "grad_norm": None if norm is None else _finite(norm.item()),
        }

    def end_epoch(self, epoch: int) -> None:
        """Evaluate, note the epoch and decide whether to go on."""
        entry = self.trained(epoch)
        self.report("evaluation", entry["train_loss"], self.timed[-1].contention.missing)
        self.ranks.before_evaluation(self.setup.model)
        for name, samples in self.held_out.items():
            loss, accuracy = self.timed_evaluation(samples)
            entry[f"{name}_loss"], entry[f"{name}_accuracy"] = _finite(loss), accuracy
        self.look_into_layers(epoch)
        self.curve.append(entry)
        self.report("training", entry["train_loss"], self.timed[-1].contention.missing)
        untrained = self.ranks.sum(self.untrained_loss).item() / self.ranks.count
        if self.statistics:
            # Of hundreds of samples, where a first batch may have been an easy one or two.
            untrained = max(untrained, self.statistics[0]["loss"] or 0.0)
        # The first process alone has looked into layers.
        self.diverged = self.ranks.from_first(divergence(entry, untrained))
        if self.diverged or epoch == self.plan.epochs:
            return
        self.rate.end_epoch(entry.get(self.plan.plateau_metric))
        if self.setup.early_stop is not None:
            self.stopped_early = self.setup.early_stop.reason(self.curve)

    def report(self, phase: str, loss: float | None, processor_missing: float | None) -> None:
        """Tell the caller how far the training is."""
        self.progress.report(
            phase,
            self.steps,
            loss=loss,
            val_accuracy=self.val_accuracy(),
            processor_missing=processor_missing,
        )

    def time_again(self) -> dict[int, list[float]]:
        """Time contended epochs again, and return the first timing of those that the second replaced."""
        contended = self.contended_epochs()
        if not contended:
            return {}
        self.progress.report("timing again", self.steps)
        timed_again = time_again(
            contended,
            self.setup.model,
            self.make_step,
            self.setup.make_optimizer,
            self.make_rate,
            self.batches,
            stopwatch=self.stopwatch,
            watch=self.watch,
            budget_s=self.retiming_budget_s(),
        )
        return {timed.epoch: self.replace_timing(timed) for timed in timed_again}

    def contended_epochs(self) -> list[TimedEpoch]:
        """Return the contended epochs that the step time is taken from: all, or those up to the target."""
        target = self.setup.target
        crossing = target.first_crossing(self.curve) if target else None
        last = crossing.epoch if crossing else self.plan.epochs
        return [timed for timed in self.timed if timed.contention.contended and timed.epoch <= last]

    def retiming_budget_s(self) -> float:
        """Return how long epochs may be timed again: as long as the training took, within the time limit."""
        training_s = math.fsum(lap_s for timed in self.timed for lap_s in timed.laps_s)
        limit_s = self.setup.time_limit_s
        if limit_s is None:
            return training_s
        return min(training_s, limit_s - (self.stopwatch.clock() - self.started_s))

    def replace_timing(self, again: TimedEpoch) -> list[float]:
        """Put a second timing of an epoch in place of the first, in the curve's clock too. Return the first."""
        position = next(place for place, timed in enumerate(self.timed) if timed.epoch == again.epoch)
        replaced, self.timed[position] = self.timed[position], again
        clock_s: list[float] = []
        for timed, entry in zip(self.timed, self.curve, strict=False):
            clock_s += timed.laps_s
            entry["time_s"] = math.fsum(clock_s)
        return replaced.laps_s

    def look_into_layers(self, epoch: int) -> None:
        """Take a snapshot of the layers, where that is asked for, and add its seconds to `statistics_s`."""
        if self.observer is None:
            return
        start_s = self.stopwatch.now_s()
        self.statistics.append(self.observer.snapshot(epoch))
        self.statistics_s += self.stopwatch.now_s() - start_s

    def val_accuracy(self) -> float | None:
        """Return the validation accuracy of the last epoch."""
        return self.curve[-1]["val_accuracy"] if self.curve else None

    def timed_evaluation(self, samples: Batches) -> Evaluation:
        """Evaluate, and add its seconds to `evaluation_s`."""
        start_s = self.stopwatch.now_s()
        evaluation = self.evaluate(samples.share(self.ranks.rank, self.ranks.count))
        self.evaluation_s += self.stopwatch.now_s() - start_s
        return evaluation

    def final_evaluation(self) -> Evaluation | None:
        """Evaluate the test set, or return the last epoch's evaluation where the model is still the same.

        None without a test set, after a divergence, and where no epoch came to its end in time.
        """
        test, last = self.setup.test, self.curve[-1] if self.curve else {}
        if test is None or self.diverged or (self.stopped_early and not self.curve):
            return None
        loss, accuracy = last.get("test_loss"), last.get("test_accuracy")
        if loss is not None and accuracy is not None and last["step"] == self.steps:
            return Evaluation(loss, accuracy)
        return self.timed_evaluation(test)


def _finite(number: float) -> float | None:
    """Return a number, or None for one that is not finite."""
    return number if math.isfinite(number) else None
