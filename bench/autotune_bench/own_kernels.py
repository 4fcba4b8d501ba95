"""Our own kernels: optimizer steps and activations, in the launch-config spaces that they ship with."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch

from fusetune.bench.autotune_bench.problem import Config, Problem, Tensors
from fusetune.kernels import KERNELS
from fusetune.kernels.autotune import forced_config

_CPU = torch.device("cpu")


def shipped(name: str, elements: int) -> Problem:
    """One of `KERNELS` on float32 tensors.

    Args:
        name: of the kernel.
        elements: of each tensor.
    """
    kernel = KERNELS[name]

    def make(seed: int) -> Tensors:
        inputs = kernel.make_inputs(elements, torch.float32, _CPU, seed)
        return {"inputs": inputs, "before": copy.deepcopy(inputs)}

    def launch(t: Tensors, config: Config) -> Any:
        with forced_config(config):
            t["result"] = kernel.fused(**t["inputs"])
        # Blocks of another size are other code.
        return SimpleNamespace(asm={"c": str(config)})

    def reset(t: Tensors) -> None:
        t["result"] = None
        for now, before in zip(_tensors(t["inputs"]), _tensors(t["before"]), strict=True):
            now.copy_(before)

    def results(t: Tensors) -> torch.Tensor:
        return _flat([t["result"], *(t["inputs"][key] for key in kernel.mutates or ())])

    def reference(t: Tensors) -> torch.Tensor:
        inputs = _doubled(t["before"])
        result = kernel.reference(**inputs)
        return _flat([result, *(inputs[key] for key in kernel.mutates or ())])

    # On a CPU a block is a loop, whatever the warps.
    configs = tuple({config["BLOCK_SIZE"]: dict(config) for config in reversed(kernel.configs)}.values())
    return Problem(name, str(elements), configs, make, launch, reference, 1e-5, reset=reset, results=results)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of a tree, in its order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)


def _flat(value: Any) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in _tensors(value)])


def _doubled(value: Any) -> Any:
    """Return a copy of a tree, its floating point tensors as float64."""
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value.clone()
    if isinstance(value, dict):
        return {key: _doubled(each) for key, each in value.items()}
    return type(value)(map(_doubled, value)) if isinstance(value, (list, tuple)) else value
