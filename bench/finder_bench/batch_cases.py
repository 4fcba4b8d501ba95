"""What batches are found for: a model, an optimizer and a byte limit, and a training that shows whether a size fits.

The limit is on the address space of a process, over what it has mapped once its libraries are imported and settled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fusetune.bench.workers import MemoryBudget, limited_memory, measure_footprint, settle_footprint
from fusetune.bench.workloads import build_model

MIB = 2**20
# The first step creates the optimizer's state, and by the third the heap has settled.
STEPS = 5
_HELD_OUT = 64


@dataclass(frozen=True)
class BatchCase:
    """A training whose largest batch is to be found.

    Args:
        name: of the case.
        shape: of a sample, of floats.
        samples: in the training set. Far above what fits.
        optimizer: `momentum` or `adam`.
        limit_bytes: the limit.
        build: returns the model.
    """

    name: str
    shape: tuple[int, ...]
    samples: int
    optimizer: str
    limit_bytes: int
    build: Callable[[], nn.Module]

    def make_optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        """Return torch's optimizer."""
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=1e-3)
        return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)


BATCH_CASES = {
    case.name: case
    for case in (
        BatchCase(
            "CNN, momentum, 192 MiB",
            (1, 16, 16),
            4096,
            "momentum",
            192 * MIB,
            lambda: build_model("cnn", input_shape=(1, 16, 16), num_classes=10, width=32, depth=2),
        ),
        BatchCase(
            "MLP, Adam, 192 MiB",
            (64,),
            16384,
            "adam",
            192 * MIB,
            lambda: build_model("mlp", input_shape=(64,), num_classes=10, width=1024, depth=4),
        ),
        BatchCase(
            "ResNet, momentum, 128 MiB",
            (3, 16, 16),
            4096,
            "momentum",
            128 * MIB,
            lambda: build_model("resnet9", input_shape=(3, 16, 16), num_classes=10, width=16),
        ),
    )
}


def draw(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return random samples of a case with ten classes: x_train, y_train, x_test, y_test. A data factory of a spec."""
    drawn, rng = BATCH_CASES[case], np.random.default_rng(0)

    def some(samples: int) -> tuple[np.ndarray, np.ndarray]:
        x: np.ndarray = rng.standard_normal((samples, *drawn.shape), dtype=np.float32)
        return x, rng.integers(0, 10, samples)

    return *some(drawn.samples + _HELD_OUT), *some(_HELD_OUT)


def build(case: str, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return the model of a case. A model factory of a spec."""
    return BATCH_CASES[case].build()


@contextmanager
def limited(case: BatchCase) -> Iterator[None]:
    """Enforce the case's limit inside the block, over what this process has mapped by now."""
    settle_footprint("cpu")
    with limited_memory(MemoryBudget(limit_bytes=case.limit_bytes, footprint=measure_footprint("cpu"))):
        yield


def tensors(case: BatchCase) -> tuple[Tensor, Tensor]:
    """Return the training set."""
    x, y, _, _ = draw(case.name)
    return torch.from_numpy(x[: case.samples]), torch.from_numpy(y[: case.samples])


def train_steps(case: BatchCase, x: Tensor, y: Tensor, batch_size: int) -> None:
    """Train a new model for a few steps."""
    model = case.build()
    optimizer = case.make_optimizer(model.parameters())
    for step in range(STEPS):
        chosen = torch.arange(step * batch_size, (step + 1) * batch_size) % len(x)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()


def trains(case: str, batch_size: int) -> bool:
    """Say whether a few steps run under the case's limit, in a fork of this process that has trained nothing."""
    _import_all()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            made = BATCH_CASES[case]
            with limited(made):
                train_steps(made, *tensors(made), batch_size)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


@cache
def _import_all() -> None:
    """Import what torch imports at an optimizer's first step. No backward pass, for no fork could then make one."""
    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    for optimizer in (torch.optim.SGD([weight], 0.1), torch.optim.Adam([weight], 0.1)):
        optimizer.step()
