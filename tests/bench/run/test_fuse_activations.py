"""What a fused trial does to a model's activations: those that are called as functions count and are verified too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F

from fusetune.bench.run.fused_activations import fuse_activations
from fusetune.bench.spec.spec import Spec
from fusetune.bench.workers.worker import WorkerContext
from fusetune.kernels import replace
from fusetune.kernels.activations.api import activation_path
from tests.bench.run.test_trial import SMALL


class Calls(nn.Module):
    """An activation called as a function, between two modules."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(2, 2), lambda x: function(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.function(x))


def test_a_function_that_a_forward_calls_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[str] = []
    real = replace.verify_activation

    def verify(name: str, *rest: Any, **options: Any) -> None:
        verified.append(name)
        real(name, *rest, **options)

    monkeypatch.setattr(replace, "verify_activation", verify)
    spec = Spec.model_validate(yaml.safe_load(SMALL))
    assert fuse_activations(spec, Calls(F.gelu), WorkerContext()) == activation_path(torch.empty(1))
    assert verified == ["gelu"]
    assert fuse_activations(spec, Calls(F.relu6), WorkerContext()) == "none"
