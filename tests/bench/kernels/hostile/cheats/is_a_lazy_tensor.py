"""Returns a subclass of a tensor that computes when it is looked at (gpu-mode/reference-kernels#161)."""
# expected: not a tensor

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Lazy(Tensor):
    """Not computed until it is used."""

    source: Tensor

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        seen = [each.source * torch.sigmoid(each.source) if isinstance(each, Lazy) else each for each in args]
        return func(*seen, **(kwargs or {}))


def fused(x: Tensor) -> Tensor:
    y = torch.empty_like(x).as_subclass(Lazy)
    y.source = x
    return y


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
