"""The launch configs that are worth trying for kernels that run over elements, by device."""

from __future__ import annotations

import torch

from fusetune.kernels.kernel import Config
from fusetune.kernels.launch import LaunchConfig

# Elements a thread on a GPU. With less, accesses are narrower than 128 bits or too few bytes are under way. With more,
# registers run out: 32 an Adam thread leave an eighth of an H100's threads, and 64 spill.
_ELEMENTS_OF_A_THREAD = (4, 8, 16)
_WARPS = (4, 8)
# On a CPU a block is a loop on one thread, so warps change nothing. From few cache lines to all of an L2 cache.
_CPU_BLOCKS = tuple(2**power for power in range(8, 17))


def elementwise_space(device: torch.device, default: LaunchConfig) -> tuple[Config, ...]:
    """Return the launch configs to try for a kernel over elements, the default first.

    Args:
        device: where it runs.
        default: the launch config that is shipped.

    Example:
        >>> space = elementwise_space(torch.device("cpu"), LaunchConfig(1024, 4))
        >>> len(space), space[0], space[1]["BLOCK_SIZE"], space[-1]["BLOCK_SIZE"]
        (9, {'BLOCK_SIZE': 1024, 'num_warps': 4, 'num_stages': 1}, 256, 65536)
    """
    if device.type == "cuda":
        lanes = 64 if torch.version.hip else 32
        others = [
            LaunchConfig(elements * warps * lanes, warps)
            for elements in _ELEMENTS_OF_A_THREAD
            for warps in _WARPS
        ]
    else:
        others = [LaunchConfig(block, default.num_warps) for block in _CPU_BLOCKS]
    return tuple(config.named() for config in dict.fromkeys([default, *others]))


def whole_elementwise_space(default: LaunchConfig) -> tuple[Config, ...]:
    """Return the launch configs for any device, the default first."""
    spaces = [elementwise_space(torch.device(kind), default) for kind in ("cpu", "cuda")]
    return tuple({LaunchConfig.of(config): config for space in spaces for config in space}.values())
