"""What learning rates are found for: a data set, a model, an optimizer, and the training that judges a rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fusetune.bench.search_bench import WORKLOADS, Workload
from fusetune.bench.workloads import build_model

OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]] = {
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "Adam": (torch.optim.Adam, {}),
}


@dataclass(frozen=True)
class RateWorkload:
    """A training whose learning rate is to be found.

    Args:
        name: of the workload.
        data: name of a data set of `bench.search_bench`.
        model: name of a model of `bench.workloads`.
        optimizer: a key of `OPTIMIZERS`.
        batch_size: samples a step.
        epochs: of the training that judges a rate.
        samples: the first so many training samples are used.
        shape: of one sample, as the model reads it. Empty: flat.
        parameters: of the model.
    """

    name: str
    data: str
    model: str
    optimizer: str
    batch_size: int
    epochs: int
    samples: int = 4000
    shape: tuple[int, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def make_model(self, seed: int) -> nn.Module:
        """Return a new model, the same for the same seed."""
        drawn = draw(self.data)
        shape = self.shape or tuple(drawn.x.shape[1:])
        torch.manual_seed(seed)
        built = build_model(
            self.model, input_shape=shape, num_classes=int(drawn.y.max()) + 1, **self.parameters
        )
        return nn.Sequential(nn.Unflatten(1, self.shape), built) if self.shape else built

    def make_optimizer(self, parameters: Any, lr: float) -> torch.optim.Optimizer:
        """Return torch's optimizer."""
        kind, settings = OPTIMIZERS[self.optimizer]
        return kind(parameters, lr=lr, **settings)

    def loader(self, seed: int, *, held: int = 0) -> DataLoader[Any]:
        """Return full batches of the training data but the last `held` samples, shuffled in each pass."""
        x, y = self.training_data()
        data, generator = TensorDataset(x[: len(x) - held], y[: len(y) - held]), torch.Generator()
        return DataLoader(
            data, self.batch_size, shuffle=True, drop_last=True, generator=generator.manual_seed(seed)
        )

    def held(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the last samples of the training data."""
        x, y = self.training_data()
        return x[-count:], y[-count:]

    def training_data(self) -> tuple[Tensor, Tensor]:
        """Return the samples that are trained on."""
        drawn = draw(self.data)
        return drawn.x[: self.samples], drawn.y[: self.samples]


_MLP = {"width": 64, "depth": 2}
_CNN = {"width": 8, "depth": 2}

RATE_WORKLOADS = {
    workload.name: workload
    for workload in (
        RateWorkload("digits, MLP, momentum", "digits", "mlp", "momentum", 32, 5, parameters=_MLP),
        RateWorkload(
            "digits, sigmoid MLP, momentum",
            "digits",
            "mlp",
            "momentum",
            32,
            8,
            parameters={"width": 64, "depth": 1, "activation": "sigmoid"},
        ),
        RateWorkload(
            "digits, CNN, Adam",
            "digits",
            "cnn",
            "Adam",
            32,
            4,
            shape=(1, 8, 8),
            parameters=_CNN,
        ),
        RateWorkload(
            "strokes, CNN, momentum",
            "strokes",
            "cnn",
            "momentum",
            32,
            3,
            samples=2000,
            shape=(1, 14, 14),
            parameters=_CNN,
        ),
        RateWorkload("clusters, MLP, momentum", "clusters", "mlp", "momentum", 64, 6, parameters=_MLP),
        RateWorkload("digit sums, MLP, Adam", "digit-sums", "mlp", "Adam", 64, 6, parameters=_MLP),
        RateWorkload(
            "tones, BatchNorm MLP, momentum",
            "tones",
            "mlp",
            "momentum",
            128,
            10,
            parameters={**_MLP, "norm": "batch"},
        ),
    )
}


@cache
def draw(name: str) -> Workload:
    """Return a data set, drawn once a process."""
    return WORKLOADS[name].draw()


def train(workload: str, lr: float, seed: int) -> dict[str, float | None]:
    """Train at a constant rate, and return the share of the held-out samples that the model then gets right.

    The seed decides the initial weights and the order of the samples.

    Args:
        workload: a key of `RATE_WORKLOADS`.
        lr: the learning rate, above 0.
        seed: 0 or more.

    Returns:
        `accuracy` in 0..1, and the last `loss`, None where it is not finite.
    """
    made = RATE_WORKLOADS[workload]
    drawn, (x, y) = draw(made.data), made.training_data()
    model = made.make_model(seed)
    optimizer = made.make_optimizer(model.parameters(), lr)
    for _ in range(made.epochs):
        for batch in torch.randperm(len(x)).split(made.batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
    last = loss.item()
    model.eval()
    with torch.no_grad():
        right = (model(drawn.x_val).argmax(1) == drawn.y_val).double().mean()
    return {"accuracy": float(right), "loss": last if math.isfinite(last) else None}
