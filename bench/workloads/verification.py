"""A fused optimizer is checked against torch's before it trains: a wrong kernel has no speed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fusetune.bench.workloads.optimizers import build_optimizer
from fusetune.errors import StateError

# A scalar, one element, and sizes that neither vectors of 4 nor of 8 divide, beside one that they do.
_SHAPES = ((), (1,), (7, 3), (33, 65), (64, 64))
_STEPS = 3
# As `kernels` promises: at most this many times the error of torch's own step, plus this many roundings.
_TIMES_TORCH = 4.0
_ROUNDINGS = 8.0


def verify_optimizer(
    name: str, *, lr: float, options: Mapping[str, object], device: torch.device | str
) -> None:
    """Compare a few steps of the fused optimizer with torch's own, and with torch's in float64.

    max |fused - exact| <= 4 max |torch - exact| + 8 eps max |exact|        for each parameter

    Args:
        name: an optimizer that has a fused twin.
        lr: base learning rate.
        options: the optimizer's options, by PyTorch's names.
        device: where the training will run.

    Raises:
        RuntimeError: the fused optimizer is outside the bound. The message has the excess and the shape.

    Example:
        >>> verify_optimizer("adam", lr=0.01, options={}, device="cpu")
    """
    fused = _parameters_after(name, lr, options, device, torch.float32, "fused")
    plain = _parameters_after(name, lr, options, device, torch.float32, "torch")
    exact = _parameters_after(name, lr, options, device, torch.float64, "torch")
    for ours, theirs, truth in zip(fused, plain, exact, strict=True):
        error, torch_error = (float((value.double() - truth).abs().max()) for value in (ours, theirs))
        bound = _TIMES_TORCH * torch_error + _ROUNDINGS * torch.finfo(torch.float32).eps * float(
            truth.abs().max()
        )
        if not error <= bound:
            raise StateError(
                "implementation",
                f"the fused {name} is off by {error:.2e} after {_STEPS} steps on shape "
                f"{tuple(truth.shape)}, torch's by {torch_error:.2e}",
                f"at most {bound:.2e} is allowed",
            )


def _parameters_after(
    name: str,
    lr: float,
    options: Mapping[str, object],
    device: torch.device | str,
    dtype: torch.dtype,
    implementation: str,
) -> list[Tensor]:
    """Return the parameters after some steps on gradients that are the same for every implementation."""
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator) for shape in _SHAPES]
    parameters = [torch.nn.Parameter(value.to(device, dtype)) for value in values]
    optimizer = build_optimizer(name, parameters, lr=lr, implementation=implementation, **options)
    for _ in range(_STEPS):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(device, dtype)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]
