"""What each of several processes trains, and what it saw: started by torch's launcher, compared in the tests."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fusetune.tuner.measure import Stopwatch
from fusetune.tuner.training import (
    ONE_RANK,
    Augment,
    Batches,
    EarlyStop,
    Plan,
    Ranks,
    Training,
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


def everything(ranks: Callable[..., Ranks]) -> dict[str, Any]:
    """Train all that the tests compare. `ranks` makes the processes' part, from `DataParallel`'s arguments."""
    plain = Plan(epochs=STEPS // 10)
    found: dict[str, Any] = {}

    def run(
        name: str, model: nn.Module, make: Any, data: Batches, plan: Plan, who: Ranks, **options: Any
    ) -> Training:
        training = train(model, make, data, plan=plan, ranks=who, **{"validation": data, **options})
        found[name] = {
            "weights": weights(model),
            "curve": [{k: v for k, v in e.items() if k != "time_s"} for e in training.curve],
            "steps": training.steps,
            "ended": training.diverged or training.stopped_early,
        }
        return training

    for dtype in (torch.float32, torch.float64):
        name = str(dtype).removeprefix("torch.")
        run(f"linear {name}", linear(dtype), sgd, vector_batches(dtype), plain, ranks())
        demanding = Plan(epochs=6, accumulation_steps=2, label_smoothing=0.1, grad_clip=0.5)
        run(f"perceptron {name}", perceptron(dtype), adam, vector_batches(dtype), demanding, ranks())
    synced = ranks(sync_batchnorm=True)
    run("normalised", normalised(torch.float32), sgd, image_batches(), Plan(epochs=1), synced)
    run("shares normalised", normalised(torch.float32), sgd, image_batches(), Plan(epochs=1), ranks())
    sharded = ranks(parallel="fsdp")
    run("sharded", perceptron(torch.float64), adam, vector_batches(torch.float64), demanding, sharded)

    noted = Noted(linear(torch.float64))
    odd = vector_batches(torch.float64, samples=3 * BATCH + 7)
    few = vector_batches(torch.float64, samples=3, batch=BATCH)
    who = ranks()
    run("noted", noted, sgd, odd, Plan(epochs=2), who, validation=few, test=odd)
    found["noted"] |= {"trained": noted.trained, "evaluated": noted.evaluated}
    found["communication"] = getattr(who, "communication", lambda model: None)(noted)

    # The last sample of the second epoch's third batch makes the loss infinite, for one of the processes.
    broken = vector_batches(torch.float64)
    number = [x for x, _ in broken.epoch(1)][2][-1, 0].item()
    model = linear(torch.float64)

    def loss_fn(logits: Tensor, labels: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(logits, labels)
        return loss * math.inf if seen and number in seen[-1] else loss

    seen: list[list[float]] = []
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0][:, 0].tolist()))
    run("broken", model, sgd, broken, Plan(epochs=4), ranks(), loss_fn=loss_fn)
    # Only the first process's clock gets on.
    ticks = iter(range(10**6))
    clock = (lambda: float(next(ticks))) if os.environ.get("RANK", "0") == "0" else (lambda: 0.0)
    late = Stopwatch("cpu", clock=clock)
    plan, data = Plan(epochs=50), vector_batches(torch.float64)
    run("late", linear(torch.float64), sgd, data, plan, ranks(), stopwatch=late, time_limit_s=100.0)
    stop = EarlyStop("val_loss", patience=1, min_delta=0.1)
    run("early", linear(torch.float64), sgd, data, plan, ranks(), early_stop=stop)
    return found


def alone() -> dict[str, Any]:
    """Train everything in this process."""
    return everything(lambda **_: ONE_RANK)


def as_rank(threads: int = 1) -> Mapping[str, Any]:
    """Train everything as one of several processes."""
    from fusetune.tuner.parallel import DataParallel, joined

    torch.set_num_threads(threads)
    with joined("cpu", timeout_s=120.0):
        return everything(partial(DataParallel, seed=0))
