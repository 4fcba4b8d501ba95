"""Returns fp16 where fp32 is due (thinking-machines-lab/batch_invariant_ops#11)."""
# expected: wrong: float16

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return (2 * x).half()


def reference(x: Tensor) -> Tensor:
    return 2 * x


def make_inputs(seed: int) -> tuple[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(-8, 8, (4099,), generator=generator).float(),)
