"""Stochastic rounding of fp32 to bf16: up or down at random, without bias.

    round(x) = x's upper neighbour with probability (x - lower) / (upper - lower), else its lower one

so the expectation of round(x) is x, and updates far below half a unit in the last place move a weight on average.
bf16 is the upper half of fp32: 16 random bits are added to the lower half, which is then truncated. Exact values,
infinities and NaN are unchanged. Finite values beyond the largest bf16 become it, so no finite value becomes infinite.

Source: Gupta et al. 2015, "Deep Learning with Limited Numerical Precision", section 3.1. Salmon et al. 2011, "Parallel
Random Numbers: As Easy as 1, 2, 3", for Philox.
"""

# Triton: constexprs in capitals.
# ruff: noqa: N803
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_LARGEST = torch.finfo(torch.bfloat16).max
_LIMIT = tl.constexpr(_LARGEST)
# The fewest rounds that pass every test of BigCrush. The usual ten would add two instructions an element.
_PHILOX_ROUNDS = tl.constexpr(7)
_LAUNCHES_OF_A_DEVICE = 2**48


@triton.jit
def rounded(x: tl.tensor, DTYPE: tl.constexpr, random: tl.tensor, offsets: tl.tensor) -> tl.tensor:
    """Round fp32 to DTYPE: to nearest without `random`, else to bf16 stochastically. `offsets` count in the program."""
    if random is not None:
        bits = x.to(tl.uint32, bitcast=True)
        bits = tl.where(tl.abs(x) <= _LIMIT, bits + _random_halves(random, offsets), bits)
        y = (bits >> 16).to(tl.uint16).to(DTYPE, bitcast=True)
    else:
        y = x.to(DTYPE)
    return y


@triton.jit
def _random_halves(random: tl.tensor, offsets: tl.tensor) -> tl.tensor:
    """Return 16 random bits an element, by the seed and the launch count in `random`.

    Eight neighbours share a call of Philox. Where they are in one thread, the compiler merges their eight calls.
    """
    launch = tl.load(random + 1)
    group = offsets >> 3
    nothing = group * 0
    a, b, c, d = tl.philox(
        tl.load(random),
        group,
        nothing + tl.program_id(0),
        nothing + launch.to(tl.int32),
        nothing + (launch >> 32).to(tl.int32),
        _PHILOX_ROUNDS,
    )
    place = offsets & 7
    word = tl.where(place < 4, tl.where(place < 2, a, b), tl.where(place < 6, c, d))
    return (word >> ((place & 1) * 16).to(tl.uint32)) & 0xFFFF


def stochastically_rounded(x: Tensor, generator: torch.Generator) -> Tensor:
    """Round fp32 to bf16 stochastically, with plain PyTorch.

    Args:
        x: any shape and layout, fp32.
        generator: on the device of `x`.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.full((10_000,), 1 + 2**-7 * 0.2)  # a fifth of the way to the next bf16
        >>> y = stochastically_rounded(x, generator)
        >>> sorted(set(y.tolist())), round(float((y > 1).float().mean()), 1)
        ([1.0, 1.0078125], 0.2)
    """
    halves = torch.empty(x.shape, dtype=torch.int32, device=x.device).random_(0, 1 << 16, generator=generator)
    bits = x.view(torch.int32)
    cut = torch.where(x.abs() <= _LARGEST, bits + halves, bits) & -(1 << 16)
    return cut.view(torch.float32).to(torch.bfloat16)


class RandomSource:
    """The random bits of one optimizer: a seed, and the position of each device in its sequence.

    Kernels read the seed and a count of launches from the device. So a captured graph continues the count, and the host
    never waits. Plain PyTorch draws from a generator. No number is drawn twice on a device.

    Args:
        seed: the same seed and the same steps give the same numbers.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._counts: dict[torch.device, Tensor] = {}
        self._generators: dict[torch.device, torch.Generator] = {}
        self._loaded: dict[str, dict[str, Any]] = {"launches": {}, "generators": {}}

    def count(self, device: torch.device) -> Tensor:
        """Return the seed and the number of the next launch, on the device."""
        if device not in self._counts:
            self._counts[device] = self._first_count(device).to(device)
        return self._counts[device]

    def advance(self, device: torch.device) -> None:
        """Count a launch, on the device."""
        self._counts[device][1] += 1

    def generator(self, device: torch.device) -> torch.Generator:
        """Return the generator of the plain steps on `device`."""
        if device not in self._generators:
            generator = torch.Generator(device).manual_seed(self.seed + (device.index or 0))
            if str(device) in self._loaded["generators"]:
                generator.set_state(self._loaded["generators"][str(device)])
            self._generators[device] = generator
        return self._generators[device]

    def state_dict(self) -> dict[str, Any]:
        """Return the seed and the position of each device. Reads the counts from their devices."""
        launches = {str(device): int(count[1]) for device, count in self._counts.items()}
        generators = {str(device): each.get_state() for device, each in self._generators.items()}
        return {
            "seed": self.seed,
            "launches": {**self._loaded["launches"], **launches},
            "generators": {**self._loaded["generators"], **generators},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at the position of `state_dict`. A device that it does not name begins anew."""
        self.seed = state_dict["seed"]
        self._loaded = {name: dict(state_dict[name]) for name in ("launches", "generators")}
        self._generators.clear()
        for device, count in self._counts.items():  # a captured graph has their addresses
            count.copy_(self._first_count(device))

    def __getstate__(self) -> dict[str, Any]:
        return self.state_dict()

    def __setstate__(self, state: dict[str, Any]) -> None:
        RandomSource.__init__(self, state["seed"])
        self.load_state_dict(state)

    def _first_count(self, device: torch.device) -> Tensor:
        """Return the initial state of the kernels of `device`. The upper bits of the launches distinguish devices."""
        first = self._loaded["launches"].get(str(device), (device.index or 0) * _LAUNCHES_OF_A_DEVICE)
        return torch.tensor([self.seed, first], dtype=torch.int64)
