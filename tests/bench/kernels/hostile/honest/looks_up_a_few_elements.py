"""Reads three elements of a large table: its bytes are declared, since its inputs are not read whole."""
# expected: ok

import torch
from torch import Tensor

from fusetune.kernels.kernel import Kernel


def fused(table: Tensor, places: Tensor) -> Tensor:
    return table[places]


def reference(table: Tensor, places: Tensor) -> Tensor:
    return torch.stack([table[int(place)] for place in places])


def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(elements, (3,), generator=generator)
    return {
        "table": torch.randn(elements, generator=generator).to(device, dtype),
        "places": places.to(device),
    }


KERNEL = Kernel(
    "look up",
    fused,
    reference,
    make_inputs,
    elements=(1_000_003,),
    bytes_moved=lambda inputs: 3 * (4 + 4 + 8),
)
