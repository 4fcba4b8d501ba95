"""Small real trainings that were made to have a fault, and healthy ones: what the diagnosis is checked against.

Each is drawn from (kind, seed): data, model, optimizer, schedule and how bad the fault is all vary. Seeds from 100 draw
from more data sets, activations, widths, optimizers and schedules; seeds from 200 from other data sets again, half of
their models call activations as functions, and sound ones come with batches of 1 and 2 as well. What was looked at
while the rules were written: seeds below 300, and below 340 of batches that are too small. Those above, with learning
rates that are too high in other ways as well, only judge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from fusetune.tuner.diagnosis import LayerStatistics
from fusetune.tuner.schedules import table as schedules
from fusetune.tuner.training import Plan, train
from fusetune.tuner.training.batches import Augment, Batches
from fusetune.tuner.training.outcome import Training

VARIED_FROM = 100
REVARIED_FROM = 200
JUDGED_FROM = 300
SMALL_BATCHES_JUDGED_FROM = 340


@dataclass(frozen=True)
class Case:
    """One training: everything it depends on."""

    kind: str
    seed: int
    data: str
    model: str = "mlp"
    activations_are: str = "modules"
    width: int = 48
    depth: int = 2
    activation: str = "relu"
    norm: bool = False
    dropout: float = 0.0
    optimizer: str = "momentum"
    lr: float = 0.05
    weight_decay: float = 0.0
    batch_size: int = 32
    epochs: int = 12
    schedule: str = "constant"
    augment: bool = False
    label_smoothing: float = 0.0
    grad_clip: float | None = None
    samples: int = 800
    held: int = 400  # validation samples, of the 400 that there are
    initialise: Callable[[nn.Module], None] | None = None
    inputs: Callable[[np.ndarray], np.ndarray] | None = None
    labels: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None
    note: str = ""


# ---- data


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return ((x - 4.88) / 6.0).astype(np.float32), y.astype(np.int64)


def _spirals(rng: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray]:
    y = rng.integers(0, 3, samples)
    r = rng.uniform(0.1, 1.0, samples)
    angle = 2 * math.pi * y / 3 + 4.5 * r + rng.normal(0, 0.08, samples)
    x = 1.7 * np.stack([r * np.cos(angle), r * np.sin(angle)], 1)
    return x.astype(np.float32), y


def _checkers(rng: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray]:
    x = rng.uniform(-1.7, 1.7, (samples, 2))
    y = (np.floor(x[:, 0] * 1.2) + np.floor(x[:, 1] * 1.2)).astype(int) % 2
    return x.astype(np.float32), y


def _rings(rng: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray]:
    y = rng.integers(0, 4, samples)
    r = 0.6 * (y + 1) + rng.normal(0, 0.09, samples)
    angle = rng.uniform(0, 2 * math.pi, samples)
    return np.stack([r * np.cos(angle), r * np.sin(angle)], 1).astype(np.float32), y


def _waves(rng: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray]:
    x = rng.uniform(-1.7, 1.7, (samples, 2))
    y = np.floor((x[:, 1] + 0.5 * np.sin(3 * x[:, 0])) / 1.2 + 0.5).astype(int) % 3
    return x.astype(np.float32), y


def _cubes(rng: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Each class about a corner of a cube in 15 dimensions."""
    corners = np.random.default_rng(9).choice([-1.0, 1.0], (6, 15))
    y = rng.integers(0, 6, samples)
    x = corners[y] + rng.normal(0, 0.9, (samples, 15))
    return (x / 1.35).astype(np.float32), y


def _mixture(
    rng: np.random.Generator, samples: int, flips: float, classes: int = 5, dimensions: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """Each class two Gaussians, some labels drawn anew."""
    centres = np.random.default_rng(7).normal(0, 1, (2 * classes, dimensions))
    which = rng.integers(0, 2 * classes, samples)
    x = centres[which] + rng.normal(0, 0.9, (samples, dimensions))
    y = which % classes
    y = np.where(rng.random(samples) < flips, rng.integers(0, classes, samples), y)
    return (x / 1.35).astype(np.float32), y


FEATURES = {
    "digits": 64,
    "spirals": 2,
    "checkers": 2,
    "rings": 2,
    "waves": 2,
    "mixture": 20,
    "noisy": 20,
    "murky": 16,
    "blobs": 30,
    "cubes": 15,
}
CLASSES = {
    "digits": 10,
    "spirals": 3,
    "checkers": 2,
    "rings": 4,
    "waves": 3,
    "mixture": 5,
    "noisy": 5,
    "murky": 4,
    "blobs": 8,
    "cubes": 6,
}
PLANE = ("spirals", "checkers", "rings", "waves")
NOISY = ("noisy", "murky")


def arrays(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw training and validation data."""
    rng = np.random.default_rng([case.seed, 11])
    held = 400
    total = case.samples + held
    if case.data == "digits":
        x, y = _digits()
        order = rng.permutation(len(x))[: min(total, len(x))]
        x, y = x[order], y[order]
        if case.model == "cnn":
            x = x.reshape(-1, 1, 8, 8)
    elif case.data == "spirals":
        x, y = _spirals(rng, total)
    elif case.data == "checkers":
        x, y = _checkers(rng, total)
    elif case.data == "rings":
        x, y = _rings(rng, total)
    elif case.data == "waves":
        x, y = _waves(rng, total)
    elif case.data == "cubes":
        x, y = _cubes(rng, total)
    elif case.data == "murky":
        x, y = _mixture(rng, total, 0.3, classes=4, dimensions=16)
    elif case.data == "blobs":
        x, y = _mixture(rng, total, 0.0, classes=8, dimensions=30)
    else:
        x, y = _mixture(rng, total, 0.0 if case.data == "mixture" else 0.25)
    return x[held:], y[held:].astype(np.int64), x[:held], y[:held].astype(np.int64)


# ---- models

ACTIVATIONS = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
}
FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "relu": (functional.relu, torch.relu, Tensor.relu),
    "tanh": (torch.tanh, Tensor.tanh),
    "sigmoid": (torch.sigmoid, Tensor.sigmoid),
    "gelu": (functional.gelu,),
    "silu": (functional.silu,),
    "elu": (functional.elu,),
}


class Calling(nn.Module):
    """A chain of layers whose activations are function calls in its own `forward`."""

    def __init__(
        self, chain: nn.Sequential, activation: type[nn.Module], call: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer for layer in chain if not isinstance(layer, activation))
        self.called_after = {
            len([layer for layer in chain[:place] if not isinstance(layer, activation)])  # type: ignore[attr-defined]
            for place, layer in enumerate(chain)
            if isinstance(layer, activation)
        }
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        for done, layer in enumerate(self.layers, start=1):
            x = layer(x)
            if done in self.called_after:
                x = self.call(x)
        return x


def model_of(case: Case) -> nn.Module:
    """Build the model, its activations being modules or calls of functions."""
    chain = _chain(case)
    if case.activations_are == "modules":
        return chain
    calls = FUNCTIONS[case.activation]
    return Calling(chain, ACTIVATIONS[case.activation], calls[case.seed % len(calls)])


def _chain(case: Case) -> nn.Sequential:
    """Build a chain of modules with torch's own initialisation."""
    activation = ACTIVATIONS[case.activation]
    classes = CLASSES[case.data]
    features = FEATURES[case.data]
    layers: list[nn.Module] = []
    if case.model == "linear":
        return nn.Sequential(nn.Linear(features, classes))
    if case.model == "cnn":
        channels = 1
        for index in range(case.depth):
            wider = case.width // 4 * (index + 1)
            layers.append(nn.Conv2d(channels, wider, 3, padding=1, bias=not case.norm))
            layers += [nn.BatchNorm2d(wider)] if case.norm else []
            layers.append(activation())
            channels = wider
        layers += [nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(case.dropout), nn.Linear(channels * 16, classes)]
        return nn.Sequential(*layers)
    for _ in range(case.depth):
        layers.append(nn.Linear(features, case.width))
        layers += [nn.BatchNorm1d(case.width)] if case.norm else []
        layers += [activation(), *([nn.Dropout(case.dropout)] if case.dropout else [])]
        features = case.width
    return nn.Sequential(*layers, nn.Linear(features, classes))


def optimizer_of(case: Case) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    """Return the maker of the case's optimizer."""
    if case.optimizer == "adam":
        return lambda p: torch.optim.AdamW(p, lr=case.lr, weight_decay=case.weight_decay)
    if case.optimizer == "rmsprop":
        return lambda p: torch.optim.RMSprop(p, lr=case.lr, weight_decay=case.weight_decay)
    momentum = 0.0 if case.optimizer == "sgd" else 0.9
    return lambda p: torch.optim.SGD(
        p,
        lr=case.lr,
        momentum=momentum,
        weight_decay=case.weight_decay,
        nesterov=case.optimizer == "nesterov",
    )


def run(case: Case) -> Training:
    """Train the case, with one thread: on models so small a second one only waits, and minutes where others work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _run(case)
    finally:
        torch.set_num_threads(threads)


def _run(case: Case) -> Training:
    """Train the case with the threads that there are."""
    x, y, x_val, y_val = arrays(case)
    x_val, y_val = x_val[: case.held], y_val[: case.held]
    if case.inputs is not None:
        x, x_val = case.inputs(x), case.inputs(x_val)
    if case.labels is not None:
        y = case.labels(y, np.random.default_rng([case.seed, 5]))
    torch.manual_seed(case.seed)
    model = model_of(case)
    if case.initialise is not None:
        with torch.no_grad():
            case.initialise(model)
    augment = Augment(translate=1, cutout=2) if case.augment else None
    batches = Batches(x, y, case.batch_size, seed=case.seed, augment=augment)
    steps = len(batches)
    plan = Plan(
        epochs=case.epochs,
        schedule=schedules.build_schedule(
            case.schedule, total_steps=case.epochs * steps, steps_per_epoch=steps
        ),
        label_smoothing=case.label_smoothing,
        grad_clip=case.grad_clip,
    )
    return train(
        model,
        optimizer_of(case),
        batches,
        plan=plan,
        validation=Batches(x_val, y_val, 400),
        observer=LayerStatistics,
    )


# ---- good settings, from which every fault departs


def good_lr(case: Case) -> float:
    """A learning rate near the best: found by a grid of half decades for each optimizer and activation."""
    lr = {"sgd": 0.2, "momentum": 0.05, "nesterov": 0.05, "adam": 0.004, "rmsprop": 0.002}[case.optimizer]
    if case.activation == "sigmoid" and case.optimizer not in ("adam", "rmsprop"):
        lr *= 4
    if case.data in PLANE and case.model == "mlp":
        lr *= 2
    return lr * (case.batch_size / 32) ** 0.5


def _draw(kind: str, seed: int, rng: np.random.Generator, **fixed: Any) -> Case:
    """Draw an ordinary, sound case; `fixed` overrides."""
    pick = lambda *items: items[rng.integers(len(items))]  # noqa: E731
    data = str(fixed.get("data") or pick("digits", "digits", "spirals", "mixture", "checkers", "noisy"))
    model = "cnn" if data == "digits" and rng.random() < 0.45 else "mlp"
    case = Case(
        kind,
        seed,
        data,
        model=model,
        width=int(pick(32, 48, 64)),
        depth=int(pick(1, 2, 2, 3)) if data != "spirals" else int(pick(2, 3)),
        activation=str(pick("relu", "relu", "tanh", "gelu", "sigmoid")),
        optimizer=str(pick("momentum", "adam", "sgd")),
        batch_size=int(pick(16, 32, 64)),
        epochs=int(pick(12, 20)),
    )
    if seed >= VARIED_FROM:
        case = replace(
            case,
            data={"checkers": "rings", "mixture": "blobs"}.get(case.data, case.data),
            width=int(pick(24, 48, 96)),
            activation=str(pick(case.activation, "relu", "tanh", "silu", "elu")),
            optimizer=str(pick(case.optimizer, "nesterov", "adam", "rmsprop")),
        )
    case = replace(case, **fixed)
    if seed >= REVARIED_FROM:
        others = {"rings": "waves", "blobs": "cubes", "noisy": "murky"}
        case = replace(
            case,
            data=others.get(case.data, case.data),
            activations_are=str(pick("modules", "functions")),
            width=int(pick(32, 40, 80)),
        )
    if case.activation == "sigmoid":
        case = replace(case, depth=min(case.depth, 1 if case.model == "cnn" else 2))
        if case.optimizer == "sgd":
            case = replace(case, optimizer="momentum")
    return case if "lr" in fixed else replace(case, lr=good_lr(case))


def healthy(seed: int) -> Case:
    """Draw what one would call a sound training: any schedule, short or long, an lr up to 3 times off."""
    rng = np.random.default_rng([seed, 1])
    pick = lambda *items: items[rng.integers(len(items))]  # noqa: E731
    case = _draw("healthy", seed, rng)
    schedule = str(
        pick("constant", "constant", "cosine", "one-cycle", "step", "cosine", "one-cycle", "exponential")
    )
    if seed >= VARIED_FROM:
        schedule = str(pick(schedule, "warmup-stable-decay", "polynomial", "cosine-restarts"))
    easy = case.data not in ("spirals", "checkers", "waves") and case.activation != "sigmoid"
    epochs = int(pick(3, 5, 8, 12, 20, 40)) if easy else int(pick(25, 40))
    if case.data in ("mixture", "blobs", "cubes", *NOISY):
        epochs = min(epochs, 8)
    case = replace(
        case,
        schedule=schedule,
        epochs=epochs,
        norm=bool(rng.random() < 0.3) and case.batch_size >= 16,
        dropout=float(pick(0.0, 0.0, 0.2)) if case.data not in ("spirals", "rings", "waves") else 0.0,
        augment=case.model == "cnn" and bool(rng.random() < 0.4),
        label_smoothing=float(pick(0.0, 0.0, 0.0, 0.1)),
        weight_decay=float(pick(0.0, 1e-4)),
        samples=int(pick(800, 1200)) if case.data != "digits" else 1200,
    )
    if case.data in NOISY:
        case = replace(case, width=32, depth=1, samples=1600)
    if epochs <= 5:
        case = replace(case, batch_size=16, lr=good_lr(replace(case, batch_size=16)))
    if seed % 8 == 7 and easy:
        sizes = (4, 8) if seed < REVARIED_FROM else (1, 2, 4)
        case = replace(case, batch_size=int(pick(*sizes)), epochs=min(epochs, 8), norm=False)
        return replace(case, lr=good_lr(case) * float(pick(0.5, 1)))
    return replace(case, lr=case.lr * float(pick(0.5, 1, 1, 1, 2) if epochs > 5 else pick(1, 2)))


def short(seed: int) -> Case:
    """Draw a sound training of 2 to 21 steps: few samples, one to three epochs."""
    rng = np.random.default_rng([seed, 16])
    pick = lambda *items: items[rng.integers(len(items))]  # noqa: E731
    while True:
        data, samples, size, epochs = (
            str(pick("spirals", "spirals", "digits", "mixture")),
            int(pick(65, 130, 300)),
            int(pick(4, 16, 32, 64)),
            int(pick(1, 2, 3)),
        )
        if 2 <= samples // size * epochs <= 21:
            break
    case = Case(
        "short", seed, data, samples=samples, batch_size=size, epochs=epochs, held=int(pick(30, 90, 400))
    )
    case = replace(case, width=int(pick(8, 32, 64)), norm=bool(pick(False, True)))
    case = replace(case, optimizer=str(pick("sgd", "momentum", "adam", "rmsprop")))
    return replace(case, lr=good_lr(case))


# What a sound model of this family reaches on validation data, less some points.
SOUND_ACCURACY = {
    "digits": 0.91,
    "spirals": 0.93,
    "checkers": 0.9,
    "rings": 0.93,
    "waves": 0.88,
    "mixture": 0.9,
    "blobs": 0.9,
    "cubes": 0.9,
    "noisy": 0.72,
    "murky": 0.67,
}


def is_as_made(case: Case, training: Training) -> bool:
    """Return whether the training came out as its kind says: a fault that does no harm is none."""
    accuracy = training.curve[-1]["val_accuracy"]
    sound = SOUND_ACCURACY[case.data]
    reached = accuracy is not None and accuracy >= sound
    if case.kind == "healthy":
        return reached
    if case.kind == "overfitting":
        losses = [entry["val_loss"] for entry in training.curve]
        return losses[-1] > 1.15 * min(losses)
    if case.kind == "batch_too_small":
        # A divergence is the learning rate's, and some points are the price of noisy steps in any case.
        return training.diverged is None and accuracy is not None and accuracy < sound - 0.04
    in_the_making = (
        "vanishing",
        "exploding",
        "saturated",
        "dead",
        "labels_shuffled",
        "labels_wrong",
        "inputs_wrong",
    )
    return case.kind in in_the_making or not reached


# ---- faults


def lr_too_high(seed: int) -> Case:
    rng = np.random.default_rng([seed, 2])
    case = _draw("lr_too_high", seed, rng)
    schedule = ("constant", "cosine", "one-cycle")[rng.integers(3)]
    case = replace(case, lr=30 * case.lr, schedule=schedule, norm=bool(rng.random() < 0.25))
    if seed < JUDGED_FROM:
        return case
    schedule = ("exponential", "polynomial", "warmup-stable-decay", schedule)[rng.integers(4)]
    return replace(case, schedule=schedule, lr=case.lr * float(rng.choice([1, 2])))


def lr_diverges(seed: int) -> Case:
    rng = np.random.default_rng([seed, 3])
    case = _draw("lr_diverges", seed, rng)
    case = replace(
        case, optimizer=("sgd", "momentum")[rng.integers(2)], activation=("relu", "gelu")[rng.integers(2)]
    )
    return replace(case, lr=good_lr(case) * float(rng.choice([200, 1000, 3000])))


def lr_too_low(seed: int) -> Case:
    rng = np.random.default_rng([seed, 4])
    case = _draw("lr_too_low", seed, rng)
    schedule = ("constant", "cosine", "one-cycle")[rng.integers(3)]
    return replace(case, lr=case.lr / 100, schedule=schedule)


def too_few_epochs(seed: int) -> Case:
    rng = np.random.default_rng([seed, 5])
    case = _draw("too_few_epochs", seed, rng)
    hard = case.data in PLANE or case.activation == "sigmoid"
    epochs = int(rng.choice([4, 6])) if hard else int(rng.choice([2, 3]))
    size = 64 if hard else 256
    case = replace(case, epochs=epochs, batch_size=size)
    return replace(case, lr=good_lr(replace(case, batch_size=32)))


def overfitting(seed: int) -> Case:
    rng = np.random.default_rng([seed, 6])
    case = _draw("overfitting", seed, rng, data="noisy")
    few = int(rng.choice([100, 200, 300]))
    return replace(
        case,
        samples=few,
        width=128,
        depth=2,
        activation=("relu", "tanh", "gelu")[rng.integers(3)],
        model="mlp",
        epochs=int(rng.choice([40, 60])),
        batch_size=16,
        lr=good_lr(replace(case, batch_size=16, activation="relu")),
    )


def underfitting(seed: int) -> Case:
    rng = np.random.default_rng([seed, 7])
    case = _draw(
        "underfitting",
        seed,
        rng,
        data=("spirals", "checkers" if seed < VARIED_FROM else "rings")[rng.integers(2)],
    )
    if rng.random() < 0.6:
        return replace(case, model="linear", epochs=20, lr=good_lr(replace(case, activation="relu")))
    case = replace(case, width=int(rng.choice([2, 3])), depth=1, epochs=30)
    return replace(case, lr=good_lr(case))


def vanishing(seed: int) -> Case:
    rng = np.random.default_rng([seed, 8])
    case = _draw("vanishing", seed, rng, model="mlp", activation="sigmoid")
    case = replace(case, depth=int(rng.choice([6, 8, 10])), epochs=12)
    return replace(case, lr=good_lr(case))


def _scale_weights(factor: float) -> Callable[[nn.Module], None]:
    def scale(model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                module.weight.mul_(factor)

    return scale


def exploding(seed: int) -> Case:
    rng = np.random.default_rng([seed, 9])
    case = _draw("exploding", seed, rng, model="mlp", activation=("relu", "gelu")[rng.integers(2)])
    # torch's initialisation halves the signal at each relu layer or so; times 6 it grows threefold.
    return replace(
        case,
        depth=int(rng.choice([6, 8, 10])),
        initialise=_scale_weights(float(rng.choice([5, 6, 8]))),
        width=64,
    )


def saturated(seed: int) -> Case:
    rng = np.random.default_rng([seed, 10])
    activation = ("tanh", "tanh", "sigmoid")[rng.integers(3)]
    case = _draw("saturated", seed, rng, activation=activation)
    case = replace(case, depth=max(2, case.depth))
    return replace(
        case, initialise=_scale_weights(float(rng.choice([15, 30] if activation == "tanh" else [40, 80])))
    )


def _bias(value: float) -> Callable[[nn.Module], None]:
    def shift(model: nn.Module) -> None:
        layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        for module in layers[:-1]:
            assert module.bias is not None
            module.bias.fill_(value)

    return shift


def dead(seed: int) -> Case:
    rng = np.random.default_rng([seed, 11])
    case = _draw("dead", seed, rng, activation="relu")
    return replace(case, initialise=_bias(float(rng.choice([-3, -6, -10]))))


def labels_shuffled(seed: int) -> Case:
    rng = np.random.default_rng([seed, 12])
    case = _draw("labels_shuffled", seed, rng, data=("digits", "mixture", "spirals")[rng.integers(3)])
    case = replace(case, epochs=int(rng.choice([12, 20, 30])))
    return replace(case, labels=lambda y, r: r.permutation(y))


def labels_wrong(seed: int) -> Case:
    rng = np.random.default_rng([seed, 13])
    case = _draw("labels_wrong", seed, rng, data=("digits", "mixture", "spirals")[rng.integers(3)])
    classes = CLASSES[case.data]
    if rng.random() < 0.5:
        return replace(case, labels=lambda y, r: (y + 1) % classes, note="off by one")
    return replace(case, labels=lambda y, r: np.full_like(y, 1), note="constant")


def inputs_wrong(seed: int) -> Case:
    rng = np.random.default_rng([seed, 14])
    case = _draw("inputs_wrong", seed, rng)
    which = int(rng.integers(4))
    change: Callable[[np.ndarray], np.ndarray] = (
        lambda x: x + 100,
        lambda x: 0 * x,
        lambda x: 100 * x,
        lambda x: x / 1000,
    )[which]
    return replace(case, inputs=change, note=("mean 100", "zero", "times 100", "divided by 1000")[which])


def batch_too_small(seed: int) -> Case:
    rng = np.random.default_rng([seed, 15])
    case = _draw("batch_too_small", seed, rng, data="noisy", model="mlp")
    size = int(rng.choice([1, 2]))
    case = replace(case, batch_size=size, epochs=3 + size, depth=min(case.depth, 2))
    # Steps of SGD grow with the noise; those of Adam and RMSprop do not, so it takes more to harm them.
    factors = [0.3, 0.6, 1] if case.optimizer in ("sgd", "momentum", "nesterov") else [1, 2, 4]
    # The mildest harm few models, and their runs would count for nothing.
    factors = factors if seed < REVARIED_FROM else factors[1:]
    return replace(case, lr=good_lr(replace(case, batch_size=32)) * float(rng.choice(factors)))


FAULTS: dict[str, tuple[Callable[[int], Case], str]] = {
    "lr_too_high": (lr_too_high, "learning_rate_too_high"),
    "lr_diverges": (lr_diverges, "learning_rate_too_high"),
    "lr_too_low": (lr_too_low, "learning_rate_too_low"),
    "too_few_epochs": (too_few_epochs, "too_few_epochs"),
    "overfitting": (overfitting, "overfitting"),
    "underfitting": (underfitting, "underfitting"),
    "vanishing": (vanishing, "vanishing_gradients"),
    "exploding": (exploding, "exploding_gradients"),
    "saturated": (saturated, "saturated_units"),
    "dead": (dead, "dead_relus"),
    "labels_shuffled": (labels_shuffled, "label_fault"),
    "labels_wrong": (labels_wrong, "label_fault"),
    "inputs_wrong": (inputs_wrong, "input_fault"),
    "batch_too_small": (batch_too_small, "batch_too_small"),
}


def judged_from(kind: str) -> int:
    """Return the first seed of a kind that nobody looked at while the rules were written."""
    return SMALL_BATCHES_JUDGED_FROM if kind == "batch_too_small" else JUDGED_FROM
