"""What is recorded: pieces of work on a CPU that take 0.2 to 0.5 ms on a processor of 2020, by one thread.

They are that short so that most calls end before another program takes the processor. A call changes nothing that the
time of the next depends on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import torch
from torch.nn import functional as F

from fusetune.kernels import FusedAdam

Work = Callable[[], object]


def _python_loop() -> Work:
    """Integer arithmetic in the interpreter."""

    def work() -> int:
        state = 1
        for _ in range(3_000):
            state = state * 1_103_515_245 + 12_345 & 0x7FFFFFFF
        return state

    return work


def _sort() -> Work:
    """Sorting of Python floats."""
    numbers = [number / 7 for number in random.Random(0).sample(range(10**9), 4_000)]
    return lambda: sorted(numbers)


def _json() -> Work:
    """Writing and reading of a nested object."""
    rows = [{"name": f"row {i}", "values": [i / 7, i / 11], "tags": {"a": i, "b": None}} for i in range(100)]
    return lambda: json.loads(json.dumps(rows))


def _normal(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def _matmul() -> Work:
    """A product of two matrices, bound by arithmetic."""
    a, b = _normal((192, 192), (192, 192))
    return lambda: a @ b


def _convolution() -> Work:
    """A convolution over a small picture."""
    picture, weights = _normal((1, 16, 32, 32), (32, 16, 3, 3))
    return lambda: F.conv2d(picture, weights, padding=1)


def _elementwise() -> Work:
    """A chain of operations over 4 MB, bound by memory."""
    (x,) = _normal((1_000_000,))
    return lambda: x.mul(1.5).add_(0.5).clamp_(min=0.0)


def _small_tensors() -> Work:
    """Many operations on small tensors, bound by what PyTorch does before each."""
    a, b = _normal((32,), (32,))

    def work() -> torch.Tensor:
        out = a
        for _ in range(200):
            out = torch.add(a, b)
        return out

    return work


def _training_step() -> Work:
    """Forward, backward and step of a small network. The rate is so small that the network stays what it is."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-9, momentum=0.9)
    (inputs,) = _normal((64, 64))
    labels = torch.arange(64) % 10

    def work() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(inputs), labels).backward()
        optimizer.step()

    return work


def _fused_adam() -> Work:
    """Our fused Adam, by the backend for CPUs where there is a compiler."""
    parameters = [torch.nn.Parameter(tensor) for tensor in _normal(*[(125_000,)] * 4)]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer = FusedAdam(parameters, lr=1e-9)
    return lambda: optimizer.step()


WORKLOADS: dict[str, Callable[[], Work]] = {
    "python loop": _python_loop,
    "sort": _sort,
    "json": _json,
    "matmul": _matmul,
    "convolution": _convolution,
    "elementwise": _elementwise,
    "small tensors": _small_tensors,
    "training step": _training_step,
    "fused adam": _fused_adam,
}
