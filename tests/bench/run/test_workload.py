"""What a trial trains with: its weights and draws are those of its seed, whatever was done on the way."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from fusetune.bench.run.assembly import assemble
from fusetune.bench.run.auto_lr import with_any_rate
from fusetune.bench.run.workload import Workload, build_workload
from fusetune.bench.spec.design import Trial, expand
from fusetune.bench.spec.spec import Spec
from fusetune.bench.workers.worker import WorkerContext
from fusetune.bench.workloads.datasets import DataRequest, locate
from fusetune.bench.workloads.models import build_model


def trial(**train: Any) -> Trial:
    section = {
        "optimizer": "momentum",
        "base_lr": 0.05,
        "batch_size": 32,
        "epochs": 3,
        "label_smoothing": 0.1,
        **train,
    }
    data, model = {"name": "spirals", "limit": 600}, {"name": "mlp"}
    content = {"name": "a", "data": data, "model": model, "train": section, "seeds": [5]}
    spec = Spec.model_validate(content)
    return dataclasses.replace(expand(spec)[0], source=locate(DataRequest("spirals")))


def weights(workload: Workload) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in workload.model.state_dict().items()}


def test_the_model_is_the_first_thing_that_the_seed_draws() -> None:
    torch.rand(3)
    built = build_workload(trial(), WorkerContext())
    drawn_next = torch.rand(4)
    torch.manual_seed(5)
    model = build_model("mlp", input_shape=(2,), num_classes=built.data.splits.num_classes)
    for name, tensor in model.state_dict().items():
        assert torch.equal(weights(built)[name], tensor)
    assert torch.equal(torch.rand(4), drawn_next)


def test_a_range_test_leaves_the_model_and_the_draws_of_the_training_as_they_were() -> None:
    context = WorkerContext()
    named = assemble(trial(), context)
    drawn_next = torch.rand(4)
    found = assemble(trial(base_lr="auto"), context)
    assert torch.equal(torch.rand(4), drawn_next)
    for name, tensor in weights(named).items():
        assert torch.equal(weights(found)[name], tensor)
    rate = found.spec.train.base_lr
    assert isinstance(rate, float)
    assert found.chosen_lr is not None
    assert found.chosen_lr.base_lr == rate
    assert found.make_optimizer(found.model.parameters()).param_groups[0]["lr"] == rate
    assert named.chosen_lr is None


def test_plan_and_loss_are_the_specs() -> None:
    built = build_workload(trial(accumulation_steps=2, schedule="cosine"), WorkerContext())
    assert (built.plan.epochs, built.plan.accumulation_steps) == (3, 2)
    assert (built.plan.schedule(0), built.plan.schedule(3 * (600 // 64))) == (
        1.0,
        pytest.approx(0.0, abs=1e-6),
    )
    logits, y = torch.randn(7, 3), torch.arange(7) % 3
    likelihood = logits.log_softmax(1)
    smoothed = -(0.9 * likelihood[torch.arange(7), y] + 0.1 * likelihood.mean(1)).mean()
    assert built.loss_fn(logits, y).item() == pytest.approx(smoothed.item(), rel=1e-5)


def test_a_workload_does_not_change() -> None:
    built = build_workload(trial(), WorkerContext())
    with pytest.raises(dataclasses.FrozenInstanceError):
        built.seed = 6  # type: ignore[misc]


def test_any_rate_stands_for_auto_alone() -> None:
    assert with_any_rate(trial(base_lr=0.3)).spec.train.base_lr == 0.3
    assert isinstance(with_any_rate(trial(base_lr="auto")).spec.train.base_lr, float)
