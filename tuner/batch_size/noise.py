"""The gradient noise scale: how many samples a step needs before more of them stop saving steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from fusetune.errors import InvalidTypeError, InvalidValueError
from fusetune.tuner.batch_size.noise_estimate import NoiseScale, check_sizes, estimate_noise_scale
from fusetune.tuner.training import (
    Batches,
    LearningRate,
    MakeOptimizer,
    Plan,
    RunningLoss,
    autocast,
    leaving_no_trace,
    place,
    planned_step,
    resolve_precision,
)

# Parts of the first pass that later ones are held against, and the chance below which an equal order is none.
_KEPT_PARTS = 64
_NO_CHANCE = 1e-4

LossOf = Callable[[Any, Any], Tensor]
Source = Iterable[tuple[Tensor, Tensor]] | Batches


@dataclass(frozen=True)
class GradientNorms:
    """Squared gradient norms of pairs of batches, raw.

    Args:
        small_squares: mean of |g_b|^2 over the small batches of each pair.
        big_squares: |g_B|^2 of each pair.
        small: b.
        big: B.
    """

    small_squares: tuple[float, ...]
    big_squares: tuple[float, ...]
    small: int
    big: int


@dataclass(frozen=True)
class NoisePoint:
    """The norms at one moment of a training: after `epoch` epochs and `steps` updates."""

    epoch: int
    steps: int
    norms: GradientNorms


def noise_scale(
    model: nn.Module,
    loss_fn: LossOf,
    batches: Source,
    *,
    small: int,
    big: int,
    repeats: int = 10,
    samples: int | None = None,
    confidence: float = 0.9,
    precision: str = "fp32",
) -> NoiseScale:
    """Measure the noise scale at the model's weights as they are.

        B_simple = tr(Sigma) / |G|^2        Sigma: covariance of one sample's gradient, G: its mean

    A step with B_simple samples has as much noise as gradient. Well below it, twice the batch halves the steps. Well
    above it, hardly any are saved. Each pair is a big batch cut into small ones: the big one's gradient is the mean of
    theirs, so nothing is computed twice. At the end everything is as before, see `tuner.training.restore`.

    In a model with BatchNorm, "one sample's gradient" is that inside a batch of `small`, whose statistics it uses.
    Take the size of the training's batches for `small` there. Noise that the model draws (dropout) is counted too.

    Args:
        model: on its device. Batches are brought there. It is looked at in training mode.
        loss_fn: (model(x), y) -> mean loss of the batch, a scalar.
        batches: of (x, y), to be iterated again and again, each pass shuffled anew: `Batches`, a DataLoader. A batch is
            cut into parts of `small` samples. The rest is not used.
        small: b, samples of a small batch, 1 or more.
        big: B, samples of a big one, a multiple of `small` and above it. Near the noise scale or above is best.
        repeats: pairs, 4 or more.
        samples: see `estimate_noise_scale`.
        confidence: of the interval.
        precision: auto, fp32 or bf16.

    Memory: parameters and buffers once, and two gradients.

    Raises:
        ValueError: sizes that do not fit, too few samples in a pass, nothing to train, a loss that is no scalar.
        TypeError: batches that can be iterated only once.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(4096, 8)
        >>> y = (x @ torch.randn(8, 3)).argmax(1)
        >>> found = noise_scale(nn.Linear(8, 3), nn.functional.cross_entropy, Batches(x, y, 256), small=16, big=256)
        >>> found.low < found.value < found.high
        True

    Source: S. McCandlish et al., "An empirical model of large-batch training" (2018), section 2.2 and appendix A.1.
    """
    check_sizes(small, big, repeats, samples, confidence)
    norms = gradient_norms(
        model, loss_fn, batches, small=small, big=big, repeats=repeats, precision=precision
    )
    return estimate_noise_scale(
        norms.small_squares, norms.big_squares, small=small, big=big, samples=samples, confidence=confidence
    )


def gradient_norms(
    model: nn.Module,
    loss_fn: LossOf,
    batches: Source,
    *,
    small: int,
    big: int,
    repeats: int,
    precision: str = "fp32",
) -> GradientNorms:
    """Measure what `noise_scale` is estimated from. Arguments, memory and errors are those of `noise_scale`."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise InvalidValueError("model", "has no parameters to train", to_do="Give a model with parameters")
    if small < 1 or big <= small or big % small:
        raise InvalidValueError("big", f"{big} must be a multiple of small, {small}, and above it")
    if isinstance(batches, Iterator):
        raise InvalidTypeError(
            "batches",
            f"{type(batches).__name__} can be iterated only once",
            to_do="Give `Batches` or a DataLoader",
        )
    device = parameters[0].device
    precision = resolve_precision(precision, device)
    if precision == "fp16":
        raise InvalidValueError(
            "precision", "small gradients vanish in fp16", to_do="Measure the noise scale in fp32 or bf16"
        )
    if isinstance(batches, Batches):
        batches.check_finite("training")
    small_squares, big_squares = [], []
    with leaving_no_trace(model, batches):
        model.train()
        gradients = _Gradients(model, loss_fn, parameters, precision)
        pairs = _pairs(batches, small, big // small, device)
        for _ in range(repeats):
            small_square, big_square = gradients.squares(next(pairs))
            small_squares.append(small_square)
            big_squares.append(big_square)
    return GradientNorms(
        tuple(torch.stack(small_squares).tolist()), tuple(torch.stack(big_squares).tolist()), small, big
    )


def norms_along_training(
    model: nn.Module,
    make_optimizer: MakeOptimizer,
    batches: Batches,
    *,
    plan: Plan,
    epochs: Sequence[int],
    small: int,
    big: int,
    repeats: int = 10,
    loss_fn: LossOf | None = None,
) -> list[NoisePoint]:
    """Train for a while, and measure gradient norms before it and after some of its epochs.

    The noise scale grows along training, for the gradient shrinks and its noise hardly does.

    Args:
        model: trained in place, up to the last of `epochs`.
        make_optimizer: parameters -> torch optimizer.
        batches: training data. Their device becomes the model's.
        plan: how to train. Of its schedule the first epochs are seen. A plateau rule has not begun by then.
        epochs: after which of them to measure, increasing. 0 is before the first.
        small: see `noise_scale`.
        big: see `noise_scale`.
        repeats: pairs at each point.
        loss_fn: (logits, labels) -> mean loss. Cross entropy with the plan's label smoothing by default.

    Mutates: the model.

    Raises:
        ValueError: as `noise_scale`, or epochs that do not increase.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(512, 4)
        >>> data = Batches(x, (x[:, 0] > 0).long(), 32)
        >>> points = norms_along_training(nn.Linear(4, 2), lambda p: torch.optim.SGD(p, lr=0.5), data,
        ...                               plan=Plan(epochs=2), epochs=[0, 2], small=8, big=64)
        >>> [(point.epoch, point.steps) for point in points]
        [(0, 0), (2, 32)]
    """
    if not epochs or list(epochs) != sorted(set(epochs)) or epochs[0] < 0:
        raise InvalidValueError("epochs", f"{list(epochs)} must be 0 or more and increase, such as [0, 1, 4]")
    place(model, batches)
    model.train()
    loss_fn = loss_fn or partial(nn.functional.cross_entropy, label_smoothing=plan.label_smoothing)
    precision = resolve_precision(plan.precision, batches.device)
    step = planned_step(plan, model, loss_fn=loss_fn, device=batches.device)
    optimizer = make_optimizer(model.parameters())
    rate = LearningRate(optimizer, plan.schedule, momentum=plan.momentum)
    running = RunningLoss(batches.device)
    measure = partial(
        gradient_norms,
        model,
        loss_fn,
        batches,
        small=small,
        big=big,
        repeats=repeats,
        precision="fp32" if precision == "fp16" else precision,
    )
    points, steps = [], 0
    for epoch in range(epochs[-1] + 1):
        if epoch in epochs:
            points.append(NoisePoint(epoch, steps, measure()))
        if epoch == epochs[-1]:
            break
        stream = batches.epoch(epoch)
        for _ in range(len(batches) // plan.accumulation_steps):
            rate.set(steps)
            step.accumulate(stream, running)
            step.update(optimizer)
            steps += 1
    step.drop_gradients()
    return points


class _Gradients:
    """Squared norms of a model's gradients. The parameters' own `.grad` is left alone."""

    def __init__(
        self, model: nn.Module, loss_fn: LossOf, parameters: list[nn.Parameter], precision: str
    ) -> None:
        self._model = model
        self._loss_fn = loss_fn
        self._parameters = parameters
        self._autocast = autocast(precision, parameters[0].device)

    def squares(self, parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return the mean squared norm of the parts' gradients, and that of their mean, in float64 on the device."""
        totals: list[Tensor] | None = None
        square = torch.zeros((), dtype=torch.float64, device=self._parameters[0].device)
        for x, y in parts:
            gradients = self._gradients(x, y)
            square += _square(gradients)
            if totals is None:
                totals = [gradient.clone() for gradient in gradients]
            else:
                torch._foreach_add_(totals, gradients)
        return square / len(parts), _square(totals or []) / len(parts) ** 2

    def _gradients(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Return the gradient of the mean loss of one part. A parameter that plays no part has zeros."""
        with self._autocast:
            loss = self._loss_fn(self._model(x), y)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise InvalidValueError(
                "loss_fn", f"gave {shape}, not a scalar", to_do="Return the batch's mean loss"
            )
        if not loss.requires_grad:
            raise InvalidValueError(
                "loss_fn", "the loss does not depend on the parameters", to_do="Return one that does"
            )
        found = torch.autograd.grad(
            loss.reshape(()), self._parameters, allow_unused=True, materialize_grads=True
        )
        return list(found)


def _square(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of squares of all elements, in float64: the two norms are subtracted from each other."""
    return (
        torch.stack([torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in tensors])
        .square()
        .sum()
    )


def _pairs(
    source: Source, small: int, parts: int, device: torch.device
) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Yield big batches without end, each as its small ones. Each lies within one pass."""
    order = None if isinstance(source, Batches) else _Order()
    for index in count():
        taken: list[tuple[Tensor, Tensor]] = []
        found = 0
        for part in _parts(source.epoch(index) if isinstance(source, Batches) else source, small, device):
            if order is not None:
                order.see(part[0], new_pass=not found and not taken)
            taken.append(part)
            if len(taken) == parts:
                yield taken
                taken = []
                found += 1
        if not found:
            raise InvalidValueError(
                "batches",
                f"a pass has {len(taken)} small batches of {small} samples, and a big one needs {parts}",
                to_do="Give more data, or take a smaller big batch",
            )


class _Order:
    """Refuses passes that all come in the order of the first, once that is no chance.

    A shuffled pass begins with the same m of n parts with a probability of 1 / (n (n - 1) ... (n - m + 1)), more where
    parts are alike. Few and distinct rows come in the same order now and then. `Batches` are known to be shuffled.
    """

    def __init__(self) -> None:
        self._first: list[Tensor] = []
        self._length = 0
        self._place = 0
        self._passes = 0
        self._chance = 1.0
        self._shuffled = False

    def see(self, part: Tensor, *, new_pass: bool) -> None:
        """Look at the next part.

        Raises:
            ValueError: the passes come in one order, by a chance below 1 in 10,000.
        """
        if new_pass:
            self._passes += 1
            self._place = 0
        place, self._place = self._place, self._place + 1
        if self._passes == 1:
            self._length += 1
            if place < _KEPT_PARTS:
                self._first.append(part.clone())
        elif not self._shuffled and place < len(self._first):
            self._shuffled = not torch.equal(self._first[place], part)
            alike = sum(torch.equal(part, other) for other in self._first[place:])
            self._chance *= alike / (self._length - place)
            if not self._shuffled and self._chance < _NO_CHANCE:
                raise InvalidValueError(
                    "batches",
                    "come in the same order in every pass, and one pass has too few samples for all repeats",
                    to_do="Shuffle them, or take fewer repeats",
                )


def _parts(batches: Iterable[Any], small: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut batches into parts of `small` samples, leaving out what is left over of each."""
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise InvalidValueError(
                "batches", f"a {type(batch).__name__} is not a pair (x, y)", to_do="Give pairs of tensors"
            )
        x, y = (item.to(device) for item in batch)
        for start in range(0, len(y) - small + 1, small):
            # Copies, for a model may change its input in place, and others hold the batch.
            yield x[start : start + small].clone(), y[start : start + small].clone()
