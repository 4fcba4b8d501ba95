"""What a trial's spec asks for, as torch objects: data on the device, model, optimizer, plan.

Training, the LR range test and the batch-size search all build their pieces here, so they work on the same thing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any, cast

import torch
from torch import nn

from fusetune.bench.catalog import MODELS, OPTIMIZERS
from fusetune.bench.errors import InputError
from fusetune.bench.results import Record, RehearsalOutcome
from fusetune.bench.run.threads import samples_of
from fusetune.bench.spec import AUTO, Data, OptimizerFactory, Source, Spec, Trial
from fusetune.bench.workers import WorkerContext, keep_headers_private
from fusetune.bench.workloads import (
    Splits,
    build_model,
    build_model_from_factory,
    build_optimizer,
    build_optimizer_from_factory,
    full_arguments,
    load,
    load_factory,
    narrowed,
    split,
    verify_optimizer,
)
from fusetune.tuner.measure import Stopwatch, time_thread_counts
from fusetune.tuner.schedules import SCHEDULES, build_momentum, build_schedule
from fusetune.tuner.training import (
    Augment,
    Batches,
    Plan,
    RunningLoss,
    Target,
    channel_statistics,
    planned_step,
    resolve_precision,
)

VALIDATION_SHARE = 10
# An evaluation keeps no activations for a backward pass, so four batches take about the memory of a training step.
EVALUATION_BATCHES = 4
_ANY_LR = 1e-3


@dataclass(frozen=True)
class PreparedData:
    """A data set split for training, and its training part's statistics; kept from trial to trial."""

    splits: Splits
    mean: list[float]
    std: list[float]


def rehearse_trial(trial: Trial, context: WorkerContext) -> Record:
    """Build what the trial will build, so that a wrong spec is refused before anything is trained."""
    # What a range test is to find does not decide whether anything can be built.
    spec = trial.spec if trial.spec.train.base_lr != AUTO else with_base_lr(trial.spec, _ANY_LR)
    try:
        data = prepare_data(trial, context)
        batches, validation, _ = make_batches(trial, data, context.device)
        needed = spec.train.batch_size * spec.train.accumulation_steps
        if needed > batches.samples:
            raise InputError(
                "train.batch_size",
                f"{spec.train.batch_size} x {spec.train.accumulation_steps} accumulation steps are "
                f"more than the {batches.samples} training samples",
                to_do="Use a smaller batch or more data",
            )
        torch.manual_seed(trial.seed)
        model = make_model(spec, data.splits)
        check_output(model, validation, data.splits.num_classes)
        training_plan(spec, len(batches))
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise InputError("model", "the model has no parameters to train", to_do="Use one that has")
        OptimizerMaker(spec)(model.parameters())
        resolve_precision(spec.train.precision, context.device)
    except (InputError, ValueError) as error:
        reason = " ".join(str(error).split())
        outcome = RehearsalOutcome(bad_input=True)
        return Record(trial.id, trial.factors, trial.seed, "failed", reason, outcome=outcome)
    times = _time_threads(replace(trial, spec=spec), context) if trial.thread_counts else {}
    outcome = RehearsalOutcome(built=_built(spec, data.splits))
    return Record(trial.id, trial.factors, trial.seed, "ok", samples=samples_of(times), outcome=outcome)


def _time_threads(trial: Trial, context: WorkerContext) -> dict[int, list[float]]:
    """Time whole training steps with each number of threads."""
    data = prepare_data(trial, context)
    batches, _, _ = make_batches(trial, data, context.device)
    step = make_step(trial, context, batches)
    one = step(batches.batch_size)
    return time_thread_counts(one, trial.thread_counts, stopwatch=Stopwatch(context.device))


def make_step(trial: Trial, context: WorkerContext, batches: Batches) -> Callable[[int], Callable[[], None]]:
    """Build a model and its optimizer, and return: batch size -> what makes one whole training step of it."""
    spec = trial.spec
    model = ready_model(trial, context, batches)
    plan = training_plan(spec, len(batches))
    optimizer = OptimizerMaker(spec)(model.parameters())
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


def ready_model(trial: Trial, context: WorkerContext, batches: Batches) -> nn.Module:
    """Build the model as a training has it."""
    data = prepare_data(trial, context)
    torch.manual_seed(trial.seed)
    model = make_model(trial.spec, data.splits)
    if trial.spec.train.implementation == "fused":
        fuse_activations(trial.spec, model, context)
    model.to(device=batches.device)
    if batches.memory_format == torch.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.train()


def _endless(batches: Batches, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield training batches of another size without end."""
    twin = copy.copy(batches)
    twin.batch_size = size
    for index in count():
        yield from twin.epoch(index)


def _built(spec: Spec, splits: Splits) -> dict[str, Any]:
    """Say what only building tells: samples of each part, and the arguments of factories with their own defaults."""
    found: dict[str, Any] = {"samples": [len(part) for part in (splits.y_train, splits.y_val, splits.y_test)]}
    optimizer = spec.train.optimizer
    own = optimizer if isinstance(optimizer, OptimizerFactory) else None
    for name, factory, arguments in (
        ("model", spec.model.factory, spec.model.arguments),
        ("data", spec.data.factory, spec.data.factory_options),
        ("optimizer", own.factory if own else None, own.extras if own else {}),
    ):
        if factory is not None:
            found[name] = full_arguments(load_factory(factory, f"{name}.factory"), arguments)
    return found


def prepare_data(trial: Trial, context: WorkerContext) -> PreparedData:
    """Load and split the data, or take them from the cache; another data set replaces the one that is there."""
    assert trial.source is not None
    source, data = trial.source, trial.spec.data
    key = (source.name, source.path, repr(source.options), data.validation, data.limit, data.seed)
    have, prepared = context.cache.get("data", (None, None))
    if have != key:
        context.cache.pop("data", None)
        splits = _load_splits(source, data)
        prepared = PreparedData(splits, *channel_statistics(splits.x_train))
        context.cache["data"] = (key, prepared)
    return cast(PreparedData, prepared)


def _load_splits(source: Source, data: Data) -> Splits:
    """Load what the split needs, and hold out validation samples: a tenth where the spec does not say."""
    tenth_of_limit = (data.limit or 0) // VALIDATION_SHARE
    arrays = load(narrowed(source, validation=data.validation or tenth_of_limit, limit=data.limit))
    tenth = tenth_of_limit or len(arrays.x_train) // VALIDATION_SHARE
    validation = data.validation or max(arrays.num_classes, tenth)
    return split(arrays, validation=validation, limit=data.limit, seed=data.seed)


def make_batches(trial: Trial, prepared: PreparedData, device: str) -> tuple[Batches, Batches, Batches]:
    """Put the three parts of the data on the device: training, validation, test."""
    splits = prepared.splits
    size = trial.spec.train.batch_size

    def on_device(x: Any, y: Any, batch_size: int, augment: Augment | None = None) -> Batches:
        return Batches(
            x,
            y,
            batch_size,
            seed=trial.seed,
            device=device,
            mean=prepared.mean,
            std=prepared.std,
            augment=augment,
        )

    return (
        on_device(splits.x_train, splits.y_train, size, _augment(trial.spec.data)),
        on_device(splits.x_val, splits.y_val, EVALUATION_BATCHES * size),
        on_device(splits.x_test, splits.y_test, EVALUATION_BATCHES * size),
    )


def _augment(data: Data) -> Augment:
    """Translate the spec's augmentation."""
    return Augment(**data.augment.model_dump())


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


def check_output(model: nn.Module, batches: Batches, classes: int) -> None:
    """Run two samples through the model: it must give one logit for each class."""
    x, _ = next(iter(batches.in_order()))
    model.to(batches.device).eval()
    with torch.no_grad():
        logits = model(x[:2])
    expected = (len(x[:2]), classes)
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != expected:
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise InputError(
            "model", f"gives {got} for two samples, not {expected}", to_do="Return one logit for each class"
        )


def with_base_lr(spec: Spec, lr: float) -> Spec:
    """Return the spec with another base_lr."""
    return spec.model_copy(update={"train": spec.train.model_copy(update={"base_lr": lr})})


class OptimizerMaker:
    """Makes the spec's optimizer, and remembers the last one for the path that it took."""

    def __init__(self, spec: Spec) -> None:
        self._train = spec.train
        self._last: torch.optim.Optimizer | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The optimizer's options; parameters of other optimizers in play are left out."""
        if isinstance(self._train.optimizer, OptimizerFactory):
            return self._train.optimizer.extras
        names = OPTIMIZERS[self._train.optimizer].parameters
        return {key: value for key in names if (value := getattr(self._train, key)) is not None}

    def __call__(self, parameters: Any) -> torch.optim.Optimizer:
        return self.at(parameters, self._train.lr)

    def at(self, parameters: Any, lr: float) -> torch.optim.Optimizer:
        """Make the optimizer at another rate than the spec's."""
        optimizer, implementation = self._train.optimizer, self._train.implementation
        if isinstance(optimizer, str):
            self._last = build_optimizer(
                optimizer, parameters, lr=lr, implementation=implementation, **self.options
            )
        elif implementation == "fused":
            raise InputError(
                "train.implementation",
                f"fused is not for an optimizer of your own, {optimizer.factory}",
                "the suite has no kernel for it",
                "Use implementation: torch",
            )
        else:
            self._last = build_optimizer_from_factory(
                optimizer.factory, "train.optimizer", parameters, lr=lr, options=self.options
            )
        return self._last

    def path(self, activations: str) -> dict[str, str]:
        """Say which way the optimizer and the activations took: triton, triton-cpu, interpreter or torch."""
        path = getattr(self._last, "path", "torch")
        # An optimizer of a person's own may mean something else by this name.
        return {"optimizer": path if isinstance(path, str) else "torch", "activations": activations}


def fuse_activations(spec: Spec, model: nn.Module, context: WorkerContext) -> str:
    """Put the suite's activations into the model, verify them and the optimizer, and return the activations' path.

    What was verified once for a device is not verified again.
    """
    from fusetune.kernels.activations import Activation, activation_path
    from fusetune.kernels.replace import replace_activations, verify_activation

    verified = context.cache.setdefault("verified", set())
    options, optimizer = OptimizerMaker(spec).options, spec.train.optimizer_name
    checks: dict[str, Callable[[], None]] = {
        f"{optimizer} {options}": partial(
            verify_optimizer,
            optimizer,
            lr=spec.train.lr,
            options=options,
            device=context.device,
        )
    }
    replaced = replace_activations(model)
    fused = [(module.name, module.options) for module in model.modules() if isinstance(module, Activation)]
    fused += [(name, {}) for _, call, name in (each.rpartition(":") for each in replaced) if call]
    for name, parameters in fused:
        checks[f"{name} {parameters}"] = partial(
            verify_activation, name, torch.float32, torch.device(context.device), **parameters
        )
    for key, check in checks.items():
        if key not in verified:
            check()
            verified.add(key)
    return activation_path(torch.empty(1, device=context.device)) if fused else "none"


def training_plan(spec: Spec, batches_per_epoch: int) -> Plan:
    """Translate `train` into the training's plan. Where it compiles, torch's directories are made private."""
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


def make_target(spec: Spec) -> Target | None:
    """Translate the spec's target."""
    return Target(**spec.target.model_dump()) if spec.target else None
