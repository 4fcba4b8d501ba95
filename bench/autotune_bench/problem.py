"""What a landscape is recorded of: a kernel, its inputs and its launch-config space."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Config = dict[str, int]
Tensors = dict[str, Any]  # of a call


def _forget(tensors: Tensors) -> None:
    tensors["out"].fill_(math.nan)


def _out(tensors: Tensors) -> torch.Tensor:
    out: torch.Tensor = tensors["out"]
    return out


@dataclass(frozen=True)
class Problem:
    """One kernel at one size, with every launch config that is tried.

    Args:
        family: e.g. `softmax`.
        size: e.g. `256x1024`.
        configs: the space.
        make: `make(seed)` returns the tensors of a call, `out` among them.
        launch: `launch(tensors, config)` fills `out`, and returns what Triton compiled.
        reference: `reference(tensors)` returns what `out` must be, in float64.
        tolerance: the largest error, relative to the largest result.
        reset: undoes an earlier call, before one that is verified.
        results: `results(tensors)` returns what a call came to.

    Example:
        >>> from fusetune.bench.autotune_bench.problems import PROBLEMS
        >>> PROBLEMS["softmax/64x512"].family
        'softmax'
    """

    family: str
    size: str
    configs: tuple[Config, ...]
    make: Callable[[int], Tensors]
    launch: Callable[[Tensors, Config], Any]
    reference: Callable[[Tensors], torch.Tensor]
    tolerance: float = 1e-5
    reset: Callable[[Tensors], None] = _forget
    results: Callable[[Tensors], torch.Tensor] = _out

    @property
    def name(self) -> str:
        """E.g. `softmax/256x1024`."""
        return f"{self.family}/{self.size}"


def product(**choices: Sequence[int]) -> tuple[Config, ...]:
    """Return every combination. The last name varies fastest.

    Example:
        >>> product(BLOCK_SIZE=(64, 128), num_warps=(1, 2))[1]
        {'BLOCK_SIZE': 64, 'num_warps': 2}
    """
    return tuple(dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values()))


def normal(seed: int, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    """Return standard normal float32 tensors."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def empty(*shape: int) -> torch.Tensor:
    """Return a tensor full of NaN, so that a result that is not written is noticed."""
    return torch.full(shape, float("nan"))
