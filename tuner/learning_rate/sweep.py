"""One sweep of the learning rate: a training step at each rate, from the lowest up, until the loss diverges."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode

from fusetune.errors import InvalidTypeError, InvalidValueError
from fusetune.tuner.learning_rate.blind_guess import blind_guess_loss
from fusetune.tuner.learning_rate.curve import DivergenceWatch
from fusetune.tuner.training import (
    Batches,
    LossFunction,
    RunningLoss,
    TrainingStep,
    autocast,
    check_finite,
    own_copy,
)

Mode = Literal["exponential", "linear"]
MakeOptimizerAt = Callable[[list[nn.Parameter], float], Optimizer]
BatchSource = Iterable[tuple[Tensor, Tensor]] | Batches

# Ten milliseconds at 10 GFLOP/s. Below it threads gain little, and on a busy machine they wait for each other. A test
# of a small CNN, 292 steps, took 106 s with two threads and 11 s with one, on two cores with other work.
_SMALL_STEP_FLOPS = 10**8
_KEPT_BATCHES = 30
# Large enough for single precision to show the step beside the weights.
_TRIAL_LR = 1e-3
_LARGER = 10.0
# Rates in single precision may be off by this much.
_SAME_RATIO = 1e-4


@dataclass(frozen=True)
class Sweep:
    """The losses of one sweep.

    Args:
        lrs: the rates of the steps that were made, increasing.
        losses: the training loss of each step's batch, before its update; only the last may be NaN or infinite.
        validation_losses: after each update, where there is validation data; else empty.
        divergence_lr: the rate at which the loss diverged, or None where the sweep was completed.
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    validation_losses: tuple[float, ...] = ()
    divergence_lr: float | None = None


@dataclass(frozen=True)
class StepSettings:
    """How each step of a sweep is made, as the training will make it.

    Args:
        accumulation_steps: batches a step, 1 or more.
        grad_clip: largest total norm of the gradients, or None.
        precision: fp32, bf16 or fp16.
    """

    accumulation_steps: int = 1
    grad_clip: float | None = None
    precision: str = "fp32"


def swept_rates(lr_min: float, lr_max: float, steps: int, mode: Mode) -> list[float]:
    """Return the rates of a sweep, both ends included.

        exponential:  lr_i = lr_min (lr_max / lr_min)^(i / (steps - 1))
        linear:       lr_i = lr_min + (lr_max - lr_min) i / (steps - 1)

    Example:
        >>> [round(lr, 6) for lr in swept_rates(0.001, 1.0, 4, "exponential")]
        [0.001, 0.01, 0.1, 1.0]
    """
    space = np.geomspace if mode == "exponential" else np.linspace
    return [float(lr) for lr in space(lr_min, lr_max, steps)]


def check_source(name: str, source: object) -> None:
    """Refuse a source that cannot be iterated repeatedly. No batch is taken."""
    if not isinstance(source, (Batches, Iterable)):
        raise InvalidTypeError(
            name, f"{type(source).__name__} cannot be iterated", to_do="Give a list or a DataLoader"
        )
    if isinstance(source, Iterator):
        raise InvalidTypeError(
            name,
            f"{type(source).__name__} can be iterated only once, and the test begins again",
            to_do="Give a list or a DataLoader",
        )


def check_resident(batches: object, validation: object) -> None:
    """Refuse `Batches` whose samples are not finite. Other sources are checked during the sweep.

    Raises:
        ValueError: names the first such sample by its index.
    """
    for split, source in (("training", batches), ("validation", validation)):
        if isinstance(source, Batches):
            source.check_finite(split)


class EndlessBatches:
    """The batches of a source, repeated without end. Each sweep continues behind the last one.

    So sweeps see different batches, or the same ones in another order. `Batches` reshuffle each epoch, and a list is
    reshuffled for each pass. Other sources keep their own order.

    Args:
        source: to be iterated more than once, of (x, y).
        device: where the batches are brought, if they are not there.
        seed: of the shuffling of a list.

    Raises:
        TypeError: something that cannot be iterated, or only once.
        ValueError: no batch in it, or one that is not a pair.
    """

    def __init__(self, source: BatchSource, device: torch.device, seed: int) -> None:
        check_source("batches", source)
        self._source = source
        self._device = device
        self._random = np.random.default_rng(seed)
        self._given: list[tuple[int, Any]] = []

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches without end."""
        for index in count():
            empty = True
            for number, batch in self._pass(index):
                empty = False
                x, y = _pair("batches", batch, self._device)
                # The source's own tensor, because the model may change its copy. `Batches` were checked before.
                if not isinstance(self._source, Batches):
                    self._given.append((number, batch[0]))
                yield x, y
            if empty:
                if index == 0:
                    raise InvalidValueError("batches", "there is none", to_do="Give at least one")
                raise InvalidValueError(
                    "batches", "gave none when iterated again", to_do="Give a list or a DataLoader"
                )

    def forget_given(self) -> None:
        """Begin a step: `check_given` checks the batches that are given after this."""
        self._given.clear()

    def check_given(self) -> None:
        """Refuse a batch of this step that is not finite, after a loss that is not finite.

        Raises:
            ValueError: names the batch, by its index in a list or by its place in the pass, and the sample in it.
        """
        for number, x in self._given:
            check_finite(f"batches: batch {number}", x)

    def _pass(self, index: int) -> Iterable[tuple[int, Any]]:
        """Return the batches of one pass, each with its index."""
        if isinstance(self._source, Batches):
            return enumerate(self._source.epoch(index))
        if isinstance(self._source, Sequence):
            # One at a time: a sequence may load each batch when it is asked for it.
            source, order = self._source, self._random.permutation(len(self._source))
            return ((i, source[i]) for i in order.tolist())
        return enumerate(self._source)


def _pair(name: str, batch: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Check one batch and return copies on the device, which a model may change. Items need not be tensors."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise InvalidValueError(
            name, f"a {type(batch).__name__} is not a pair (x, y)", to_do="Give pairs of tensors"
        )
    x, y = (own_copy(item, device) for item in batch)
    return x, y


class Sweeper:
    """Makes sweeps of one model, one step at each rate. It restores nothing.

    Args:
        model: trained, in training mode.
        make_optimizer: (parameters, lr) -> optimizer; groups that it gives other rates keep their ratio to the first.
        loss_fn: (model(x), y) -> mean loss, a scalar.
        batches: endless.
        rates: increasing.
        settings: of the steps.
        validation: evaluated after every step, or None.

    Raises:
        ValueError, TypeError: nothing to train, a loss that is not a scalar of the parameters, or an optimizer that
            cannot be swept.
    """

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: MakeOptimizerAt,
        loss_fn: LossFunction,
        batches: EndlessBatches,
        rates: Sequence[float],
        *,
        settings: StepSettings,
        validation: BatchSource | None,
    ) -> None:
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not self._parameters:
            raise InvalidValueError(
                "model", "has no parameters to train", to_do="Give a model with parameters"
            )
        self._model = model
        self._make_optimizer = make_optimizer
        self._source = batches
        self._batches = iter(batches)
        self._rates = rates
        self._device = self._parameters[0].device
        self._settings = settings
        self._loss = _CheckedLoss(loss_fn)
        self._validation = validation
        self._check_optimizer()

    @property
    def groups(self) -> int:
        """How many parameter groups the optimizer makes."""
        return len(self._optimizer().param_groups)

    def normalised_step(self) -> float | None:
        """Return the root mean square of the optimizer's first step, at a rate of 1.

        None where the step grows with the gradients, as SGD's does; Adam's is 1 whatever they are. Other optimizers
        make two more steps with random gradients, one with ten times the other's.

        Mutates: the gradients; everything else is put back.
        """
        options = self._optimizer().param_groups[0]
        if "dampening" in options:  # SGD
            return None
        if "betas" in options or "centered" in options:  # Adam and its kin, RMSprop
            return 1.0
        small, large = (self._trial_step(scale) for scale in (1.0, _LARGER))
        return small if 0 < large < math.sqrt(_LARGER) * small else None

    def _trial_step(self, scale: float) -> float:
        """Make a step with gradients from N(0, scale^2), undo it and return the weights' movement for a rate of 1."""
        optimizer = self._make_optimizer(list(self._parameters), _TRIAL_LR)
        random = torch.Generator().manual_seed(0)
        weights = [parameter.detach().clone() for parameter in self._parameters]
        for parameter in self._parameters:
            drawn = scale * torch.randn(parameter.shape, generator=random)
            parameter.grad = torch.empty_like(parameter).copy_(drawn)
        optimizer.step()
        moved, count = 0.0, 0
        with torch.no_grad():
            for parameter, before in zip(self._parameters, weights, strict=True):
                squares = float((parameter - before).double().square().sum())
                # Parameters of no group, or with a rate of 0, do not move.
                moved, count = moved + squares, count + (parameter.numel() if squares else 0)
                parameter.copy_(before)
                parameter.grad = None
        return math.sqrt(moved / count) / _TRIAL_LR if count else 0.0

    @property
    def usual_lr(self) -> float | None:
        """A usual rate for SGD with this momentum; None for optimizers without a usual rate."""
        # Momentum sums 1 / (1 - momentum) gradients, and 0.1 is usual with 0.9.
        momentum = self._optimizer().param_groups[0].get("momentum")
        return 1 - float(momentum) if momentum is not None and momentum < 1 else None

    @property
    def blind_loss(self) -> float | None:
        """The loss of the best output that is the same for every sample, once a sweep was made; None: unknown."""
        return blind_guess_loss(self._loss.function, self._loss.seen)

    def sweep(self, group: int | None = None) -> Sweep:
        """Make one sweep; with `group`, of that parameter group alone, the others held still.

        Mutates: parameters, buffers, gradients and training mode of the model, and the random states.
        """
        optimizer = self._optimizer()
        ratios = _ratios(optimizer, self._rates[0])
        step = TrainingStep(
            self._model,
            self._parameters,
            loss_fn=self._loss,
            accumulation_steps=self._settings.accumulation_steps,
            grad_clip=self._settings.grad_clip,
            precision=self._settings.precision,
            device=self._device,
        )
        with _threads_put_back():
            return self._steps(optimizer, ratios, step, group)

    def _steps(
        self, optimizer: Optimizer, ratios: Sequence[float], step: TrainingStep, group: int | None
    ) -> Sweep:
        """Make the steps of a sweep; those of small models on a CPU with one thread."""
        watch = DivergenceWatch()
        losses: list[float] = []
        validation_losses: list[float] = []
        running = _LossAlone(self._device)
        for lr in self._rates:
            for index, (entry, ratio) in enumerate(zip(optimizer.param_groups, ratios, strict=True)):
                _set_rate(entry, lr * ratio if group in (None, index) else 0.0)
            self._model.train()
            running.reset()
            self._source.forget_given()
            if losses or self._device.type != "cpu":
                step.accumulate(self._batches, running)
            else:
                with FlopCounterMode(display=False) as operations:
                    step.accumulate(self._batches, running)
                if operations.get_total_flops() < _SMALL_STEP_FLOPS:
                    torch.set_num_threads(1)
            losses.append(running.mean().item())
            if not math.isfinite(losses[-1]):
                self._source.check_given()
            if watch.diverged(losses[-1]):
                return self._seen(losses, validation_losses, divergence_lr=lr)
            step.update(optimizer)
            if self._validation is not None:
                loss = mean_loss(
                    self._model, self._validation, self._loss.function, self._device, self._settings.precision
                )
                validation_losses.append(loss)
                if not math.isfinite(validation_losses[-1]):
                    return self._seen(losses, validation_losses, divergence_lr=lr)
        return self._seen(losses, validation_losses, divergence_lr=None)

    def _seen(
        self, losses: Sequence[float], validation_losses: Sequence[float], divergence_lr: float | None
    ) -> Sweep:
        rates = tuple(self._rates[: len(losses)])
        return Sweep(rates, tuple(losses), tuple(validation_losses), divergence_lr)

    def _optimizer(self) -> Optimizer:
        """Make an optimizer at the lowest rate, without state."""
        optimizer = self._make_optimizer(list(self._parameters), self._rates[0])
        if not isinstance(optimizer, Optimizer):
            raise InvalidTypeError(
                "make_optimizer",
                f"gave a {type(optimizer).__name__}, not a torch.optim.Optimizer",
                to_do="Let (parameters, lr) -> optimizer",
            )
        return optimizer

    def _check_optimizer(self) -> None:
        """Refuse an optimizer that has other parameters, needs a closure or does not use the given rate."""
        lr = self._rates[0]
        optimizer = self._optimizer()
        name = type(optimizer).__name__
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if not any(id(parameter) in held for parameter in self._parameters):
            raise InvalidValueError(
                "make_optimizer",
                "the optimizer holds none of the model's parameters",
                to_do="Give it those that it is handed",
            )
        closure = inspect.signature(optimizer.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise InvalidValueError(
                "make_optimizer",
                f"{name} needs a closure for each step, which a sweep of the rate has not",
                to_do="Give an optimizer that steps without",
            )
        doubled = self._make_optimizer(list(self._parameters), 2 * lr)
        for index, (group, other) in enumerate(
            zip(optimizer.param_groups, doubled.param_groups, strict=False)
        ):
            if "lr" not in group or not math.isclose(
                float(other["lr"]), 2 * float(group["lr"]), rel_tol=_SAME_RATIO
            ):
                raise InvalidValueError(
                    "make_optimizer",
                    f"the rate of {name}'s parameter group {index} is {group.get('lr')} for {lr:g} and "
                    f"{other.get('lr')} for {2 * lr:g}: it does not follow",
                    to_do="Use lr, or a multiple of it",
                )


def mean_loss(
    model: nn.Module, samples: BatchSource, loss_fn: LossFunction, device: torch.device, precision: str
) -> float:
    """Return the mean loss over all samples, in evaluation mode, in which it leaves the model.

    Raises:
        ValueError: there are no samples, or one is not finite where the loss is not.
    """
    total, seen = torch.zeros((), dtype=torch.float64, device=device), 0
    model.eval()
    with torch.no_grad():
        for batch in samples.in_order() if isinstance(samples, Batches) else samples:
            x, y = _pair("validation", batch, device)
            with autocast(precision, device):
                loss = loss_fn(model(x), y)
            size = _size(x, y)
            total += loss.double() * size
            seen += size
    if not seen:
        raise InvalidValueError(
            "validation", "there are no samples", to_do="Give at least one batch or leave it out"
        )
    mean = total.item() / seen
    if not math.isfinite(mean) and not isinstance(samples, Batches):
        for number, batch in enumerate(samples):
            check_finite(f"validation: batch {number}", _pair("validation", batch, device)[0])
    return mean


def _size(x: Any, y: Any) -> int:
    """Return how many samples a batch has; 1 where neither inputs nor labels are tensors with a batch dimension."""
    return next((len(item) for item in (y, x) if isinstance(item, Tensor) and item.dim()), 1)


class _LossAlone(RunningLoss):
    """A running loss that counts no correct predictions, because outputs need not be logits."""

    def add_predictions(self, logits: Tensor, y: Tensor) -> None:
        """Ignore them."""


class _CheckedLoss:
    """A loss function whose result is checked: a scalar that depends on parameters.

    It keeps y and the shape of the output of the first batches.
    """

    def __init__(self, function: LossFunction) -> None:
        self.function = function
        self.seen: list[tuple[Tensor, Any]] = []

    def __call__(self, logits: Any, y: Any) -> Tensor:
        keep = len(self.seen) < _KEPT_BATCHES and isinstance(logits, Tensor) and logits.dim() > 0
        # The loss may change both in place.
        kept = (logits.new_empty(()).expand(logits.shape), own_copy(y, logits.device)) if keep else None
        loss = self.function(logits, y)
        if not isinstance(loss, Tensor):
            raise InvalidTypeError(
                "loss_fn", f"gave a {type(loss).__name__}, not a tensor", to_do="Return the batch's mean loss"
            )
        if loss.numel() != 1:
            raise InvalidValueError(
                "loss_fn",
                f"gave the shape {tuple(loss.shape)}, not a scalar",
                to_do="Return the batch's mean loss",
            )
        if not loss.requires_grad:
            raise InvalidValueError(
                "loss_fn", "the loss does not depend on the parameters", to_do="Return one that does"
            )
        if kept is not None:
            self.seen.append(kept)
        return loss.reshape(())


@contextmanager
def _threads_put_back() -> Iterator[None]:
    """Restore torch's number of threads at the end, and after an error."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _ratios(optimizer: Optimizer, lr: float) -> list[float]:
    """Return the ratio of each group's rate to the rate that was asked for."""
    return [float(group["lr"]) / lr for group in optimizer.param_groups]


def _set_rate(group: dict[str, Any], lr: float) -> None:
    """Set a group's rate, in place where it is a tensor."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr
