"""Returns a placeholder, and makes the methods that read tensors compute it (gpu-mode/reference-kernels#161)."""
# expected: forged | wrong

from typing import Any

import torch
from torch import Tensor

_waiting: dict[int, Tensor] = {}
_numpy, _clone, _copy = Tensor.numpy, Tensor.clone, Tensor.copy_


def _compute(y: Tensor) -> None:
    x = _waiting.pop(id(y), None)
    if x is not None:
        _copy(y, x * torch.sigmoid(x))


def _read(y: Tensor, *args: Any, **kwargs: Any) -> Any:
    _compute(y)
    return _numpy(y, *args, **kwargs)


def _cloned(y: Tensor, *args: Any, **kwargs: Any) -> Any:
    _compute(y)
    return _clone(y, *args, **kwargs)


def _copied(target: Tensor, source: Tensor, *args: Any) -> Any:
    _compute(source)
    return _copy(target, source, *args)


def fused(x: Tensor) -> Tensor:
    Tensor.numpy, Tensor.clone, Tensor.copy_ = _read, _cloned, _copied  # type: ignore[method-assign,assignment]
    y = torch.empty_like(x)
    _waiting[id(y)] = x
    return y


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
