"""Leaves a mode on that computes when its placeholder is used (gpu-mode/reference-kernels#161)."""
# expected: forged | wrong | not a tensor

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_waiting: dict[int, Tensor] = {}
_modes: list[TorchFunctionMode] = []


class Later(TorchFunctionMode):
    """Computes a result when it is first used."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        for each in args:
            x = _waiting.pop(id(each), None)
            if x is not None:
                torch.mul(x, torch.sigmoid(x), out=each)
        return func(*args, **(kwargs or {}))


def fused(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    if not _modes:
        _modes.append(Later())
        _modes[0].__enter__()
    _waiting[id(y)] = x
    return y


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
