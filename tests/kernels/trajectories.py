"""Train the same parameters with a fused optimizer, with torch's own and with torch's in float64, and compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

SHAPES: tuple[tuple[int, ...], ...] = ((0,), (), (1,), (7,), (33, 5), (1030,))


def parameters(dtype: torch.dtype, seed: int = 0, shapes: Sequence[tuple[int, ...]] = SHAPES) -> list[Tensor]:
    """Make parameters of many shapes; the last begins one element past an aligned address."""
    generator = torch.Generator().manual_seed(seed)
    values = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    values.append(torch.randn(302, generator=generator).to(dtype)[1:])
    return [torch.nn.Parameter(value) for value in values]


def copies(params: Sequence[Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
    """Return fresh parameters with the same values, in `dtype`."""
    return [torch.nn.Parameter(p.detach().clone().to(dtype or p.dtype)) for p in params]


def set_gradients(step: int, *lists: Sequence[Tensor]) -> None:
    """Give corresponding parameters the same random gradient, rounded to the dtype of the first list."""
    generator = torch.Generator().manual_seed(1000 + step)
    for together in zip(*lists, strict=True):
        gradient = torch.randn(together[0].shape, generator=generator).to(together[0].dtype)
        for p in together:
            p.grad = gradient.to(p.dtype, copy=True)


def largest_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest absolute difference over all tensors."""
    return max(
        (
            float((f.detach().double() - e.detach()).abs().max())
            for f, e in zip(found, expected, strict=True)
            if f.numel()
        ),
        default=0.0,
    )


def assert_within_bound(
    fused_class: Any, torch_class: Any, options: dict[str, Any], dtype: torch.dtype, steps: int
) -> None:
    """Hold the fused optimizer to 4x the error of torch's default in this dtype, plus 8 eps of the largest value."""
    ours = parameters(dtype)
    theirs, exact = copies(ours), copies(ours, torch.float64)
    optimizers = [
        fused_class(ours, **options),
        torch_class(theirs, **options),
        torch_class(exact, **options),
    ]
    for step in range(steps):
        set_gradients(step, ours, theirs, exact)
        for optimizer in optimizers:
            optimizer.step()
    largest = max(float(e.detach().abs().max()) for e in exact if e.numel())
    allowed = 4 * largest_error(theirs, exact) + 8 * torch.finfo(dtype).eps * largest
    assert largest_error(ours, exact) <= allowed
    assert any(not torch.equal(p, q) for p, q in zip(ours, parameters(dtype), strict=True))
