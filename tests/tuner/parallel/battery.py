"""What each of several processes trains, and what it saw: started by torch's launcher, compared in the tests."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fusetune.tuner.measure import Stopwatch
from fusetune.tuner.parallel import DataParallel, joined
from fusetune.tuner.training import (
    ONE_RANK,
    Augment,
    Batches,
    EarlyStop,
    Plan,
    Ranks,
    train,
)

STEPS = 100
BATCH = 24
SAMPLES = 10 * BATCH
FEATURES = 12
CLASSES = 5


class Noted(nn.Module):
    """Notes the first feature of each sample that it is trained or evaluated on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.trained: list[float] = []
        self.evaluated: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        (self.trained if self.training and torch.is_grad_enabled() else self.evaluated).extend(
            x.detach().reshape(len(x), -1)[:, 0].tolist()
        )
        out: Tensor = self.model(x)
        return out


def vectors(dtype: torch.dtype, samples: int = SAMPLES) -> tuple[Tensor, Tensor]:
    """Return samples whose first feature is their number, over the number of samples."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, FEATURES, generator=generator, dtype=torch.float64)
    x[:, 0] = torch.arange(samples) / samples
    y = (x[:, 1:].sum(1) * 2).long().abs() % CLASSES
    return x.to(dtype), y


def vector_batches(dtype: torch.dtype, samples: int = SAMPLES, batch: int = BATCH) -> Batches:
    return Batches(*vectors(dtype, samples), batch, seed=3)


def image_batches() -> Batches:
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (SAMPLES, 1, 8, 8), generator=generator, dtype=torch.uint8)
    labels = images.reshape(SAMPLES, -1)[:, :CLASSES].argmax(1)
    return Batches(images, labels, BATCH, seed=4, augment=Augment(flip=True, translate=1, cutout=2))


def linear(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(FEATURES, CLASSES).to(dtype)


def perceptron(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    hidden = nn.Sequential(nn.Linear(FEATURES, 16), nn.GELU())
    model = nn.Sequential(hidden, nn.Linear(16, 16), nn.GELU(), nn.Linear(16, CLASSES)).to(dtype)
    model.register_parameter("unused", nn.Parameter(torch.zeros(3, dtype=dtype)))
    return model


def normalised(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 8),
        nn.BatchNorm1d(8),
        nn.Linear(8, CLASSES),
    ).to(dtype)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return whole parameters and buffers."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {
        name.removeprefix("module."): (t.full_tensor() if hasattr(t, "full_tensor") else t).detach().clone()
        for name, t in named
    }


class Trainings:
    """Trains what the tests compare, and notes what came of it.

    Args:
        ranks: makes the processes' part, from `DataParallel`'s arguments.
    """

    def __init__(self, ranks: Callable[..., Ranks]) -> None:
        self.ranks = ranks
        self.found: dict[str, Any] = {}

    def run(
        self, name: str, model: nn.Module, make: Any, data: Batches, plan: Plan, who: Ranks, **options: Any
    ) -> None:
        """Train, and keep weights, curve, steps and the reason for an early end."""
        training = train(model, make, data, plan=plan, ranks=who, **{"validation": data, **options})
        self.found[name] = {
            "weights": weights(model),
            "curve": [{k: v for k, v in e.items() if k != "time_s"} for e in training.curve],
            "steps": training.steps,
            "ended": training.diverged or training.stopped_early,
        }

    def the_least(self) -> None:
        """Train what any number of processes is held to: 100 steps, and what they saw of uneven data."""
        for dtype in (torch.float32, torch.float64):
            name = f"linear {dtype}".replace("torch.", "")
            plan = Plan(epochs=STEPS // 10)
            self.run(name, linear(dtype), sgd, vector_batches(dtype), plan, self.ranks())
        noted = Noted(linear(torch.float64))
        odd = vector_batches(torch.float64, samples=3 * BATCH + 7)
        few = vector_batches(torch.float64, samples=3)
        who = self.ranks()
        self.run("noted", noted, sgd, odd, Plan(epochs=2), who, validation=few, test=odd)
        self.found["noted"] |= {"trained": noted.trained, "evaluated": noted.evaluated}
        self.found["communication"] = getattr(who, "communication", lambda model: None)(noted)

    def the_rest(self) -> None:
        """Train what two processes are held to as well."""
        demanding = Plan(epochs=6, accumulation_steps=2, label_smoothing=0.1, grad_clip=0.5)
        for dtype in (torch.float32, torch.float64):
            name = f"perceptron {dtype}".replace("torch.", "")
            self.run(name, perceptron(dtype), adam, vector_batches(dtype), demanding, self.ranks())
        data = vector_batches(torch.float64)
        self.run("sharded", perceptron(torch.float64), adam, data, demanding, self.ranks(parallel="fsdp"))
        once, images = Plan(epochs=1), image_batches()
        who = self.ranks(sync_batchnorm=True)
        self.run("normalised", normalised(torch.float32), sgd, images, once, who)
        self.run("shares normalised", normalised(torch.float32), sgd, images, once, self.ranks())
        self.ends()

    def ends(self) -> None:
        """Train what ends early: one process alone notices that."""
        data = vector_batches(torch.float64)
        # A sample of the second epoch's third batch, which the last process has, makes its loss infinite.
        number = [x for x, _ in data.epoch(1)][2][-1, 0].item()
        seen: list[list[float]] = []
        model = linear(torch.float64)
        model.register_forward_pre_hook(lambda _, args: seen.append(args[0][:, 0].tolist()))

        def loss_fn(logits: Tensor, labels: Tensor) -> Tensor:
            loss = nn.functional.cross_entropy(logits, labels)
            return loss * math.inf if torch.is_grad_enabled() and number in seen[-1] else loss

        plan = Plan(epochs=4)
        self.run("broken", model, sgd, data, plan, self.ranks(), loss_fn=loss_fn)
        # Only the first process's clock gets on.
        ticks = iter(range(10**6))
        clock = (lambda: float(next(ticks))) if os.environ.get("RANK", "0") == "0" else (lambda: 0.0)
        late = Stopwatch("cpu", clock=clock)
        plan = Plan(epochs=50)
        model = linear(torch.float64)
        self.run("late", model, sgd, data, plan, self.ranks(), stopwatch=late, time_limit_s=100.0)
        stop = EarlyStop("val_loss", patience=1, min_delta=0.1)
        self.run("early", linear(torch.float64), sgd, data, plan, self.ranks(), early_stop=stop)


def alone() -> dict[str, Any]:
    """Train everything in this process."""
    trainings = Trainings(lambda **_: ONE_RANK)
    trainings.the_least()
    trainings.the_rest()
    return trainings.found


def as_rank(everything: bool) -> dict[str, Any]:
    """Train as one of several processes."""
    torch.set_num_threads(1)
    with joined("cpu", timeout_s=300.0):
        trainings = Trainings(partial(DataParallel, seed=0))
        trainings.the_least()
        if everything:
            trainings.the_rest()
        return trainings.found
