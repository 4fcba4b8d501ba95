"""What stochastic rounding to bf16 must obey, whatever does it: plain PyTorch, or a kernel in the interpreter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Round = Callable[[Tensor], Tensor]

LARGEST = torch.finfo(torch.bfloat16).max
# Between two bf16 neighbours: near one, exact halves, negative, large, tiny, subnormal, straddling a power of two.
BETWEEN = [
    1 + 2**-9,
    1 + 2**-8,
    -(1 + 3 * 2**-9),
    1 + 2**-23,
    2 - 2**-20,
    -3.1415927,
    0.1,
    1e30,
    -1e-30,
    3e-39,
    -1e-40,
]


def neighbours(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest bf16 not above and the smallest not below each fp32 value, in float64."""
    nearest = x.to(torch.bfloat16)
    infinity = torch.full_like(nearest, float("inf"))
    lower = torch.where(nearest.double() > x.double(), torch.nextafter(nearest, -infinity), nearest)
    upper = torch.where(nearest.double() < x.double(), torch.nextafter(nearest, infinity), nearest)
    return lower.double(), upper.double()


def assert_neighbours_with_the_right_frequency(round_: Round, draws: int = 20_000) -> None:
    """Hold the number of draws that go up to five standard deviations of the binomial distribution."""
    for value in BETWEEN:
        x = torch.full((draws,), value, dtype=torch.float32)
        lower, upper = neighbours(x[:1])
        found = round_(x).double()
        assert bool(((found == lower) | (found == upper)).all()), value
        chance = float((x[0].double() - lower) / (upper - lower))
        assert 0 < chance < 1, value
        ups = int((found == upper).sum())
        assert abs(ups - draws * chance) <= 5 * (draws * chance * (1 - chance)) ** 0.5 + 1, value


def assert_exact_values_stay(round_: Round) -> None:
    """Round every bf16 there is; NaN stays NaN."""
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16)
    found = round_(every.float())
    assert torch.equal(found.isnan(), every.isnan())
    numbers = ~every.isnan()
    assert torch.equal(found.view(torch.int16)[numbers], every.view(torch.int16)[numbers])


def assert_only_infinities_become_infinite(round_: Round) -> None:
    """Look at both ends of the range and beyond, and at NaN whose bits would carry over into the sign."""
    inside = torch.tensor([LARGEST, -LARGEST, LARGEST * (1 - 2**-9), -LARGEST * (1 - 2**-9)]).repeat(1000)
    assert bool(round_(inside).isfinite().all())
    outside = torch.tensor([LARGEST * (1 + 2**-10), torch.finfo(torch.float32).max])
    assert round_(outside).tolist() == [LARGEST, LARGEST]
    assert round_(-outside).tolist() == [-LARGEST, -LARGEST]
    nans = torch.tensor([0x7FC00000, 0x7FFFFFFF, -1, -0x400000], dtype=torch.int32).view(torch.float32)
    assert bool(round_(nans).isnan().all())
    assert round_(torch.tensor([float("inf"), -float("inf")])).tolist() == [float("inf"), -float("inf")]


def assert_elements_are_independent(round_: Round, count: int = 1 << 14) -> None:
    """Compare draws at distances at which bits could be shared: halves, words, groups, blocks."""
    up = (round_(torch.full((count,), 1 + 2**-8)) > 1).double()
    for distance in (1, 2, 4, 7, 8, 16, 128, 512, 1024, 4096):
        agreeing = float((up[distance:] == up[:-distance]).double().mean())
        assert abs(agreeing - 0.5) <= 5 * 0.5 / (count - distance) ** 0.5, distance
