"""The inputs of one training: model, data, optimizer and plan, what is watched, and who is informed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from fusetune.errors import InvalidValueError
from fusetune.tuner.measure import PeakMemory, ReadProcessor, Stopwatch, read_processor
from fusetune.tuner.training.batches import Batches
from fusetune.tuner.training.evaluation import LossFunction
from fusetune.tuner.training.observer import MakeObserver
from fusetune.tuner.training.outcome import EarlyStop, Target
from fusetune.tuner.training.plan import Plan
from fusetune.tuner.training.progress import OnProgress
from fusetune.tuner.training.ranks import ONE_RANK, Ranks
from fusetune.tuner.training.step import MakeOptimizer


@dataclass(frozen=True)
class TrainingSetup:
    """The inputs of a training. `tuner.training.loop.train` documents each field, its keyword of the same name.

    Example:
        >>> data = Batches(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64), batch_size=2)
        >>> sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.1)
        >>> setup = TrainingSetup(nn.Linear(2, 2), sgd, data, Plan(epochs=3), validation=data)
        >>> setup.steps, setup.samples_per_step, setup.watches_test
        (6, 2, False)
    """

    model: nn.Module
    make_optimizer: MakeOptimizer
    batches: Batches
    plan: Plan
    validation: Batches
    test: Batches | None = None
    target: Target | None = None
    early_stop: EarlyStop | None = None
    time_limit_s: float | None = None
    loss_fn: LossFunction | None = None
    on_progress: OnProgress | None = None
    stopwatch: Stopwatch | None = None
    peak_memory: PeakMemory | None = None
    observer: MakeObserver | None = None
    retime: bool = False
    read: ReadProcessor = read_processor
    ranks: Ranks = ONE_RANK

    @property
    def device(self) -> torch.device:
        """The device of the batches, on which the training runs."""
        return self.batches.device

    @property
    def steps_per_epoch(self) -> int:
        """Updates in an epoch."""
        return len(self.batches) // self.plan.accumulation_steps

    @property
    def steps(self) -> int:
        """Updates in all epochs of the plan."""
        return self.plan.epochs * self.steps_per_epoch

    @property
    def samples_per_step(self) -> int:
        """Samples of an update."""
        return self.batches.batch_size * self.plan.accumulation_steps

    @property
    def watches_test(self) -> bool:
        """Whether plateau rule, target or early stop go by the test set, which each epoch's end then evaluates."""
        watched = [self.plan.plateau_metric] if self.plan.plateau is not None else []
        watched += [rule.metric for rule in (self.target, self.early_stop) if rule is not None]
        return any(metric.startswith("test_") for metric in watched)

    @property
    def held_out(self) -> dict[str, Batches]:
        """The data evaluated at each epoch's end: prefix of their metrics in the curve -> data."""
        held_out = {"val": self.validation}
        if self.test is not None and self.watches_test:
            held_out["test"] = self.test
        return held_out

    @property
    def evaluation_loss(self) -> LossFunction:
        """The loss of evaluations, which smooth no labels."""
        return self.loss_fn or nn.functional.cross_entropy

    def check(self) -> None:
        """Refuse parts that do not fit together, and samples that are not finite.

        Raises:
            ValueError: names the keyword, or the sample by its index.
        """
        batches, plan = self.batches, self.plan
        if plan.accumulation_steps > len(batches):
            raise InvalidValueError(
                "batch_size x accumulation_steps",
                f"{batches.batch_size} x {plan.accumulation_steps} = {self.samples_per_step} samples "
                f"a step are more than the {batches.samples} there are to train on",
                to_do="Lower one of them",
            )
        if self.watches_test and self.test is None:
            raise InvalidValueError("test", "there is no test set", "a metric of it is watched", "Give one")
        if self.loss_fn is not None and plan.label_smoothing:
            raise InvalidValueError(
                "label_smoothing",
                f"{plan.label_smoothing} is for cross entropy",
                to_do="Leave it out where loss_fn is given",
            )
        for split, samples in (("training", batches), ("validation", self.validation), ("test", self.test)):
            if samples is not None:
                samples.check_finite(split)
