"""Infinities and NaN in parameters, gradients and states, beside torch's default implementation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fusetune.kernels import FusedAdam, FusedAdamW, FusedSGD

VALUES = [float("inf"), -float("inf"), float("nan"), 1.0, 0.0]

NON_FINITE_CASES = [
    pytest.param(FusedSGD, torch.optim.SGD, {"lr": 0.1}, id="sgd"),
    pytest.param(FusedSGD, torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.1}, id="sgd-decay"),
    pytest.param(FusedSGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}, id="momentum"),
    pytest.param(FusedSGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, id="nesterov"),
    pytest.param(FusedAdam, torch.optim.Adam, {"lr": 0.1}, id="adam"),
    pytest.param(FusedAdam, torch.optim.Adam, {"lr": 0.1, "weight_decay": 0.1}, id="adam-decay"),
    pytest.param(FusedAdamW, torch.optim.AdamW, {"lr": 0.1, "amsgrad": True}, id="adamw-amsgrad"),
    pytest.param(FusedAdamW, torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.0}, id="adamw-no-decay"),
]


def assert_non_finite_as_torch(
    fused_class: Any, torch_class: Any, options: dict[str, Any], which: str
) -> None:
    """Put the values into parameters, gradients or states after a first step; compare all of them after two more."""
    ours, theirs = (torch.nn.Parameter(torch.ones(len(VALUES))) for _ in range(2))
    optimizers = [fused_class([ours], **options), torch_class([theirs], **options)]
    values = torch.tensor(VALUES)
    for p, optimizer in zip((ours, theirs), optimizers, strict=True):
        p.grad = torch.full_like(p, 0.5)
        optimizer.step()
        if which == "parameter":
            p.data.copy_(values)
        elif which == "gradient":
            p.grad.copy_(values)
        else:
            for name, state in optimizer.state[p].items():
                if name != "step" and isinstance(state, torch.Tensor):
                    state.copy_(values.abs() if name.endswith("_sq") else values)
        optimizer.step()
        p.grad = torch.full_like(p, 0.5)
        optimizer.step()
    torch.testing.assert_close(ours, theirs, equal_nan=True)
    for name, state in optimizers[1].state[theirs].items():
        if isinstance(state, torch.Tensor):
            torch.testing.assert_close(optimizers[0].state[ours][name], state, equal_nan=True)
