"""The launch-config spaces of this package's kernels, and that no launch config of them changes a result by a bit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fusetune.errors import InvalidValueError
from fusetune.kernels import KERNELS, activation
from fusetune.kernels.autotune import elementwise_space, forced_config, whole_elementwise_space
from fusetune.kernels.kernel import Config
from fusetune.kernels.launch import LaunchConfig

CPU = torch.device("cpu")
DEFAULT = LaunchConfig(1024, 4)


def test_on_a_gpu_threads_have_4_to_16_elements_and_blocks_4_or_8_warps() -> None:
    space = elementwise_space(torch.device("cuda"), DEFAULT)
    assert space[0] == DEFAULT.named()
    lanes = 64 if torch.version.hip else 32
    assert {(each["BLOCK_SIZE"] // each["num_warps"] // lanes, each["num_warps"]) for each in space} >= {
        (elements, warps) for elements in (4, 8, 16) for warps in (4, 8)
    }
    assert len(space) in (6, 7)


def test_on_a_cpu_blocks_alone_vary() -> None:
    space = elementwise_space(CPU, LaunchConfig(1024, 2))
    assert sorted(each["BLOCK_SIZE"] for each in space) == [2**power for power in range(8, 17)]
    assert {each["num_warps"] for each in space} == {2}


@pytest.mark.parametrize("name", list(KERNELS))
def test_the_space_of_each_kernel_begins_with_its_default(name: str) -> None:
    kernel = KERNELS[name]
    assert kernel.configs[0] == DEFAULT.named()
    assert kernel.configs == whole_elementwise_space(DEFAULT)
    for each in kernel.configs:
        assert LaunchConfig.of(each).named() == each


@pytest.mark.parametrize(
    "config", [{}, {"num_warps": 4}, {"BLOCK_SIZE": "8"}, {"BLOCK_SIZE": 64, "num_warps": 3}]
)
def test_what_is_no_launch_config_is_refused(config: Any) -> None:
    with pytest.raises(InvalidValueError, match="launch config: "):
        LaunchConfig.of(config)


def results(
    name: str, elements: int, dtype: torch.dtype, config: Config, misaligned: bool, device: torch.device
) -> list[torch.Tensor]:
    """What a call gives with a launch config: its results, or what it changed."""
    kernel = KERNELS[name]
    inputs = kernel.make_inputs(elements, dtype, device, 0)
    if misaligned:
        for key in ("x", "dy"):
            if key in inputs:
                inputs[key] = torch.cat([inputs[key].flatten()[:1], inputs[key].flatten()])[1:].view(
                    inputs[key].shape
                )
    with forced_config(config):
        y = kernel.fused(**inputs)
    return [y] if y is not None else list(inputs["streams"])


SMALLEST, LARGEST = ({"BLOCK_SIZE": size} for size in (256, 65536))
SIZES = (1, 4096, 70_001)
FEW_SIZES = (70_001,)


def assert_same_bits(
    name: str,
    dtype: torch.dtype,
    configs: Sequence[Config],
    sizes: Sequence[int] = SIZES,
    device: torch.device = CPU,
) -> None:
    """Hold each launch config's results to the default's."""
    for elements in sizes:
        for misaligned in (False, True)[: len(sizes)]:
            expected = results(name, elements, dtype, DEFAULT.named(), misaligned, device)
            for config in configs:
                for ours, theirs in zip(
                    results(name, elements, dtype, config, misaligned, device), expected, strict=True
                ):
                    assert torch.equal(ours.view(torch.uint8), theirs.view(torch.uint8)), (elements, config)


@pytest.mark.usefixtures("cpu_driver")
@pytest.mark.parametrize("name", ["gelu", "adam"])
def test_launch_configs_give_the_same_bits(name: str, cache: Path) -> None:
    assert_same_bits(name, torch.float32, [SMALLEST, LARGEST], FEW_SIZES)


@pytest.mark.slow
@pytest.mark.usefixtures("cpu_driver")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(KERNELS))
def test_the_ends_of_all_spaces_give_the_same_bits(name: str, dtype: torch.dtype, cache: Path) -> None:
    assert_same_bits(name, dtype, [SMALLEST, LARGEST], FEW_SIZES)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("cpu_driver")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(KERNELS))
def test_all_launch_configs_give_the_same_bits(name: str, dtype: torch.dtype, cache: Path) -> None:
    assert_same_bits(name, dtype, elementwise_space(CPU, DEFAULT))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["gelu", "swiglu_backward", "adam", "momentum"])
def test_launch_configs_give_the_same_bits_on_a_gpu(name: str, dtype: torch.dtype, cache: Path) -> None:
    device = torch.device("cuda")
    assert_same_bits(name, dtype, elementwise_space(device, DEFAULT), device=device)


@pytest.mark.usefixtures("cpu_driver")
@pytest.mark.parametrize("name", ["sigmoid"])
def test_the_gradient_of_a_bias_has_the_same_bits_too(name: str, cache: Path) -> None:
    """Its partial sums go over rows, whose number the launch config leaves alone. A block is a run of columns."""
    found = []
    for config in (DEFAULT.named(), SMALLEST, LARGEST):
        torch.manual_seed(0)
        x, bias = torch.randn(130, 1000, requires_grad=True), torch.randn(1000, requires_grad=True)
        with forced_config(config):
            activation(x, name, bias).backward(torch.randn(130, 1000))
        assert bias.grad is not None
        found.append((x.grad, bias.grad))
    for dx, dbias in found[1:]:
        assert torch.equal(dx, found[0][0])
        assert torch.equal(dbias, found[0][1])
