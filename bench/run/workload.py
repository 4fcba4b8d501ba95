"""A workload: what a trial's spec asks for, as torch objects. Data on the device, model, optimizer, plan.

Training, LR range test, batch-size jobs and rehearsal all put it together here, so they work on the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import cast

import torch
from torch import nn

from fusetune.bench.catalog import MODELS
from fusetune.bench.results import AutoRate
from fusetune.bench.run.data_sets import DataSets, place_sets, prepare_data
from fusetune.bench.run.optimizer_maker import OptimizerMaker
from fusetune.bench.spec import Spec, Trial
from fusetune.bench.workers import WorkerContext, keep_headers_private
from fusetune.bench.workloads import Splits, build_model, build_model_from_factory
from fusetune.tuner.schedules import SCHEDULES, build_momentum, build_schedule
from fusetune.tuner.training import (
    EarlyStop,
    LossFunction,
    Plan,
    Target,
    place,
)


@dataclass(frozen=True)
class Workload:
    """All that one trial trains with.

    Args:
        spec: the trial's.
        seed: the trial's.
        data: on the worker's device.
        model: newly initialised from the seed. A training moves it to the data's device.
        make_optimizer: parameters -> the spec's optimizer.
        activations_path: which way fused activations take; "torch" where nothing is fused.
        chosen_lr: what `base_lr: auto` came to. None for any other rate.
    """

    spec: Spec
    seed: int
    data: DataSets
    model: nn.Module
    make_optimizer: OptimizerMaker
    activations_path: str = "torch"
    chosen_lr: AutoRate | None = None

    @cached_property
    def plan(self) -> Plan:
        """How to train."""
        return training_plan(self.spec, len(self.data.training))

    @property
    def loss_fn(self) -> LossFunction:
        """The loss of the training: cross entropy in nats, with the spec's label smoothing."""
        return partial(nn.functional.cross_entropy, label_smoothing=self.spec.train.label_smoothing)

    @property
    def target(self) -> Target | None:
        """The target of the training, if it has one."""
        return Target(**self.spec.target.model_dump()) if self.spec.target else None

    @property
    def early_stop(self) -> EarlyStop | None:
        """When the training gives up."""
        return EarlyStop(**self.spec.early_stop.model_dump()) if self.spec.early_stop else None

    def place(self) -> None:
        """Move the model to its data."""
        place(self.model, self.data.training)

    def at_rate(self, lr: float, chosen: AutoRate) -> Workload:
        """Return the workload with a number in the place of `base_lr: auto`, and what the record says of it."""
        spec = with_base_lr(self.spec, lr)
        return replace(self, spec=spec, make_optimizer=OptimizerMaker(spec), chosen_lr=chosen)


def build_workload(trial: Trial, context: WorkerContext) -> Workload:
    """Put a trial's workload together as its spec describes it: `base_lr` may be auto, and nothing is fused."""
    prepared = prepare_data(trial, context)
    torch.manual_seed(trial.seed)
    model = make_model(trial.spec, prepared.splits)
    data = place_sets(trial, prepared, context.device)
    return Workload(trial.spec, trial.seed, data, model, OptimizerMaker(trial.spec))


def make_model(spec: Spec, splits: Splits) -> nn.Module:
    """Build the model that the spec names, for the data's shape."""
    shape = tuple(splits.x_train.shape[1:])
    if spec.model.factory is not None:
        return build_model_from_factory(
            spec.model.factory,
            "model.factory",
            input_shape=shape,
            num_classes=splits.num_classes,
            parameters=spec.model.arguments,
        )
    name = cast(str, spec.model.name)
    given = spec.model.model_dump(exclude_none=True, exclude={"name", "factory"})
    taken = {key: value for key, value in given.items() if key in MODELS[name].parameters}
    return build_model(name, input_shape=shape, num_classes=splits.num_classes, **taken)


def with_base_lr(spec: Spec, lr: float) -> Spec:
    """Return the spec with another base_lr."""
    return spec.model_copy(update={"train": spec.train.model_copy(update={"base_lr": lr})})


def training_plan(spec: Spec, batches_per_epoch: int) -> Plan:
    """Translate `train` into the training's plan. If it compiles, torch's directories are made private."""
    section = spec.train
    if section.compile:
        keep_headers_private()
    plan = Plan(
        epochs=section.epochs,
        accumulation_steps=section.accumulation_steps,
        label_smoothing=section.label_smoothing,
        grad_clip=section.grad_clip,
        precision=section.precision,
        compile=section.compile,
    )
    name, parameters = section.schedule.name, section.schedule.parameters
    if SCHEDULES[name].follows == "metric":
        arguments = SCHEDULES[name].function(mode="min", **parameters)
        return replace(plan, plateau=arguments, plateau_metric="val_loss")
    steps_per_epoch = batches_per_epoch // section.accumulation_steps
    length = {"total_steps": section.epochs * steps_per_epoch, "steps_per_epoch": steps_per_epoch}
    return replace(
        plan,
        schedule=build_schedule(name, **length, **parameters),
        momentum=build_momentum(name, **length, **parameters),
    )
