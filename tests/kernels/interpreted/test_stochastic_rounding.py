"""Stochastic rounding as the kernels do it, in the interpreter: the law, and bits of its own for every element."""

# Triton: constexprs in capitals.
# ruff: noqa: N803
from __future__ import annotations

from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from fusetune.kernels import FusedAdamW, FusedSGD
from fusetune.kernels.optimizers.rounding import rounded
from tests.kernels import rounding_laws
from tests.kernels.trajectories import largest_error, parameters, set_gradients


@triton.jit
def round_kernel(
    x_ptr: tl.tensor, y_ptr: tl.tensor, random: tl.tensor, n: tl.tensor, BLOCK: tl.constexpr
) -> None:
    """Round `n` fp32 values to bf16."""
    offsets = tl.arange(0, BLOCK)
    places = tl.program_id(0) * BLOCK + offsets
    x = tl.load(x_ptr + places, mask=places < n)
    tl.store(y_ptr + places, rounded(x, tl.bfloat16, random, offsets), mask=places < n)


def by_kernel() -> rounding_laws.Round:
    """Return a function that rounds with the kernels' code, other bits at every call."""
    random = torch.tensor([0x1234_5678_9ABC, 0])

    def round_(x: Tensor) -> Tensor:
        y = torch.empty(x.shape, dtype=torch.bfloat16)
        round_kernel[(-(-x.numel() // 1024),)](x.contiguous(), y, random, x.numel(), BLOCK=1024)
        random[1] += 1
        return y

    return round_


@pytest.mark.parametrize(
    "law",
    [
        rounding_laws.assert_neighbours_with_the_right_frequency,
        rounding_laws.assert_exact_values_stay,
        rounding_laws.assert_only_infinities_become_infinite,
        rounding_laws.assert_elements_are_independent,
    ],
)
def test_kernels_obey_the_law(law: Any) -> None:
    law(by_kernel())


def test_the_random_words_are_those_of_the_published_philox() -> None:
    """With all counters and the key zero, ten rounds give the known answer of Random123; rounds are Triton's own."""
    words = torch.empty(4, dtype=torch.int64)
    philox_kernel[(1,)](words)
    assert [word & 0xFFFFFFFF for word in words.tolist()] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@triton.jit
def philox_kernel(words_ptr: tl.tensor) -> None:
    """Store one call of Philox for counter and key zero."""
    zero = tl.arange(0, 1)
    a, b, c, d = tl.philox(0, zero, zero, zero, zero, 10)
    tl.store(words_ptr + zero, a.to(tl.int64))
    tl.store(words_ptr + 1 + zero, b.to(tl.int64))
    tl.store(words_ptr + 2 + zero, c.to(tl.int64))
    tl.store(words_ptr + 3 + zero, d.to(tl.int64))


def draws_of(params: list[Tensor], optimizer: Any) -> list[Tensor]:
    """Step from 1 to half-way to the next value, and say which elements went up."""
    for p in params:
        p.data.fill_(1)
    optimizer.step()
    return [(p.detach() > 1).clone() for p in params]


def test_every_launch_parameter_block_and_path_has_bits_of_its_own() -> None:
    storage = torch.ones(2049, dtype=torch.bfloat16)
    values = [torch.ones(2048, dtype=torch.bfloat16), torch.ones(2048, dtype=torch.bfloat16), storage[1:]]
    params = [torch.nn.Parameter(value) for value in values]
    for p in params:
        p.grad = torch.full_like(p, -(2.0**-8))
    params[1].grad_dtype = None
    params[1].grad = params[1].grad.float()  # another combination of dtypes: a launch of its own
    torch.manual_seed(0)
    optimizer = FusedSGD(params, lr=1.0, stochastic_rounding=True)
    draws = [piece for _ in range(2) for draw in draws_of(params, optimizer) for piece in draw.split(1024)]  # type: ignore[arg-type]
    for i, one in enumerate(draws):
        assert abs(float(one.double().mean()) - 0.5) < 5 * 0.5 / 1024**0.5
        for another in draws[:i]:
            assert abs(float((one == another).double().mean()) - 0.5) < 5 * 0.5 / 1024**0.5


def test_small_updates_move_a_weight_on_average() -> None:
    steps, change, elements = 16, 2.0**-11, 4096
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.ones(elements, dtype=torch.bfloat16))
    p.grad = torch.ones_like(p)
    optimizer = FusedSGD([p], lr=change, stochastic_rounding=True)
    for _ in range(steps):
        optimizer.step()
    deviation = 2**-8 * (steps * 7 / 64 / elements) ** 0.5
    assert abs(float((1 - p.detach().double()).mean()) - steps * change) <= 5 * deviation


@pytest.mark.parametrize("options", [{"amsgrad": True}, {}])
def test_same_seed_same_numbers_within_one_neighbour_of_the_unrounded(options: Any) -> None:
    results = []
    for stochastic in (True, True, False):
        params = parameters(torch.bfloat16)
        torch.manual_seed(0)
        optimizer = FusedAdamW(params, lr=0.01, **options, stochastic_rounding=stochastic)
        set_gradients(0, params)
        optimizer.step()
        results.append(params)
    assert largest_error(results[0], results[1]) == 0
    assert largest_error(results[0], results[2]) > 0
    for p, nearest in zip(results[0], results[2], strict=True):
        # The interpreter cuts where a GPU rounds to nearest: at most the next value away from zero.
        assert bool(((p.view(torch.int16).int() - nearest.view(torch.int16).int()).abs() <= 1).all())
