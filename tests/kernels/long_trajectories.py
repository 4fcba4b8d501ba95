"""Many steps with weight decay on one small parameter, in lockstep with torch and with torch in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from fusetune.kernels import FusedAdam, FusedAdamW, FusedSGD

ELEMENTS = 24
PERIOD = 97  # of the gradients: prime to everything else that repeats

CASES = [
    pytest.param(
        FusedSGD, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}, id="momentum"
    ),
    pytest.param(FusedAdam, torch.optim.Adam, {"lr": 1e-3, "weight_decay": 1e-2, "eps": 1e-4}, id="adam"),
    pytest.param(FusedAdamW, torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.1, "eps": 1e-4}, id="adamw"),
]
# fp32 and bf16 are two parameters of one optimizer, and share the float64 trajectory; fp16 trains with a GradScaler.
DTYPES = [
    pytest.param((torch.float32, torch.bfloat16), id="fp32-bf16"),
    pytest.param((torch.float16,), id="fp16-scaler"),
]


def assert_long_trajectory_within_bound(
    fused_class: Any, torch_class: Any, options: dict[str, Any], dtypes: Sequence[torch.dtype], steps: int
) -> None:
    """Hold the fused optimizer to 4x the error of torch's default in each dtype, plus 8 eps of the largest value.

    The GradScaler doubles its scale every 500 steps, until gradients overflow and it skips a step.
    """
    values = _exact_in_any_dtype(torch.Generator().manual_seed(0))
    ours, theirs = ([torch.nn.Parameter(values.to(dtype)) for dtype in dtypes] for _ in range(2))
    exact = torch.nn.Parameter(values.double())
    optimizer = fused_class(ours, **options)
    references = [torch_class(theirs, **options), torch_class([exact], **options)]
    scaler = torch.amp.GradScaler(
        "cpu", init_scale=2.0**12, growth_interval=500, enabled=torch.float16 in dtypes
    )
    generator = torch.Generator().manual_seed(1)
    gradients = [_exact_in_any_dtype(generator) for _ in range(PERIOD)]
    skipped = 0
    for step in range(steps):
        gradient = gradients[step % PERIOD]
        scaled = scaler.scale(gradient)
        for p in ours:
            p.grad = scaled.to(p.dtype, copy=True)
        overflows = scaler.is_enabled() and not bool(ours[0].grad.isfinite().all())
        scaler.step(optimizer)
        scaler.update()
        if overflows:
            skipped += 1
            continue
        # torch's default step takes no scale; a power of two comes off without rounding.
        for p in (*theirs, exact):
            p.grad = gradient.to(p.dtype, copy=True)
        for reference in references:
            reference.step()
    assert (skipped > 0) == (scaler.is_enabled() and steps >= 5000)
    assert float((exact.detach() - values.double()).abs().max()) > 1e-3
    for dtype, our, their in zip(dtypes, ours, theirs, strict=True):
        eps = torch.finfo(dtype).eps * float(exact.detach().abs().max())
        assert _error(our, exact) <= 4 * _error(their, exact) + 8 * eps


def _exact_in_any_dtype(generator: torch.Generator) -> Tensor:
    """Draw multiples of 1/16 below 8, which even bf16 holds exactly."""
    return (torch.randn(ELEMENTS, generator=generator) * 16).round().clamp(-127, 127) / 16


def _error(found: Tensor, exact: Tensor) -> float:
    """Return the largest absolute difference."""
    return float((found.detach().double() - exact.detach()).abs().max())
