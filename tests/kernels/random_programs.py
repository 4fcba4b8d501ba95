"""Random straight-line models whose in-place activations share tensors with whatever comes before and after them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import torch
from torch import nn

WIDTH = 4
_ACTIVATIONS: list[Callable[[], nn.Module]] = [
    lambda: nn.ReLU(inplace=True),
    lambda: nn.SiLU(inplace=True),
    lambda: nn.ELU(inplace=True),
    nn.GELU,
]
_OTHERS: list[Callable[[], nn.Module]] = [lambda: nn.Linear(WIDTH, WIDTH), nn.Identity, nn.Flatten]


def _increased(x: torch.Tensor) -> torch.Tensor:
    """In place, but not by a method that says so."""
    x += 0.5
    return x


_FUNCTIONS: list[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = [
    lambda x, y: x + y,
    lambda x, y: x * y,
    lambda x, y: _increased(x),
    lambda x, y: x.view(-1, WIDTH),
    lambda x, y: torch.cat([x, y])[: len(x)],
    lambda x, y: nn.functional.gelu(x),
]


class Program(nn.Module):
    """Each instruction takes one or two of the tensors so far, mostly the last, and adds one."""

    def __init__(self, random: Random, depth: int = 2) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        self.instructions: list[tuple[int | Callable[..., torch.Tensor], int, int]] = []
        for count in range(1, random.randint(3, 7)):
            what = random.random()
            operation: int | Callable[..., torch.Tensor] = len(self.steps)
            if what < 0.4:
                self.steps.append(random.choice(_ACTIVATIONS)())
            elif what < 0.55:
                self.steps.append(random.choice(_OTHERS)())
            elif what < 0.7 and depth:
                parts = (random.choice([*_ACTIVATIONS, *_OTHERS])() for _ in range(random.randint(1, 3)))
                self.steps.append(Program(random, depth - 1) if what < 0.62 else nn.Sequential(*parts))
            elif what < 0.75 and len(self.steps):
                operation = random.randrange(len(self.steps))  # one that was called before
            else:
                operation = random.choice(_FUNCTIONS)
            first = count - 1 if random.random() < 0.6 else random.randrange(count)
            self.instructions.append((operation, first, random.randrange(count)))
        self.returned = random.randrange(len(self.instructions) + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tensors = [x]
        for operation, first, second in self.instructions:
            if isinstance(operation, int):
                tensors.append(self.steps[operation](tensors[first]))
            else:
                tensors.append(operation(tensors[first], tensors[second]))
        return tensors[self.returned] + tensors[-1]
