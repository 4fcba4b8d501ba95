"""A model may write to its input, and a loss to logits and labels: nothing else may come out different.

The truth is each time a twin that works on a copy of its own, and the data as they were before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fusetune.tuner.batch_size.noise import gradient_norms
from fusetune.tuner.diagnosis.layer_statistics import LayerStatistics
from fusetune.tuner.learning_rate.blind_guess import blind_guess_loss
from fusetune.tuner.learning_rate.confirmation import Candidates, confirm
from fusetune.tuner.learning_rate.range import lr_range_test
from fusetune.tuner.learning_rate.sweep import mean_loss
from fusetune.tuner.memory.peak import peak_tensor_bytes
from fusetune.tuner.training import Plan, train
from fusetune.tuner.training.batches import Batches
from fusetune.tuner.training.evaluation import evaluate

SEED = 3


class Shifting(nn.Module):
    """A small classifier that shifts its input by -0.5 first: in place, or on a copy."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.in_place else x.clone()
        return self.layers(x.sub_(0.5))


def twins() -> tuple[Shifting, Shifting]:
    """Return the model that writes to its input, and the same one that does not."""
    torch.manual_seed(SEED)
    careless = Shifting(in_place=True)
    careful = copy.deepcopy(careless)
    careful.in_place = False
    return careless, careful


def samples(count: int = 256) -> tuple[Tensor, Tensor]:
    """Draw samples and labels."""
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(SEED))
    return x, x[:, :3].argmax(1)


def pairs() -> list[tuple[Tensor, Tensor]]:
    """Return batches that a person holds, as slices of one tensor."""
    x, y = samples()
    return list(zip(x.split(32), y.split(32), strict=True))


def sgd(parameters: Any, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr)


def wild_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Cross entropy that leaves nothing of what it was given."""
    loss = functional.cross_entropy(logits.clone(), y.clone())
    with torch.no_grad():
        y.zero_()
        logits.zero_()
    return loss


def test_a_batch_in_order_is_nobody_elses() -> None:
    x, y = samples(10)
    for data in (
        x,
        x.numpy(),
        x.to(torch.float16),
        x[:, :4].reshape(10, 1, 2, 2),
        (x.abs() * 50).to(torch.uint8),
    ):
        batches = Batches(data, y, 4)
        before = [(a.clone(), b.clone()) for a, b in batches.in_order()]
        for source in (batches.in_order, lambda batches=batches: batches.epoch(0)):
            for a, b in source():
                a.fill_(7)
                b.fill_(1)
        after = list(batches.in_order())
        assert all(
            torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(before, after, strict=True)
        )
    assert torch.equal(x, samples(10)[0])


def test_evaluations_do_not_add_up() -> None:
    careless, careful = twins()
    x, y = samples()
    batches = Batches(x, y, 32)
    expected = evaluate(careful, batches)
    assert [evaluate(careless, batches) for _ in range(3)] == [expected] * 3


def test_an_accuracy_is_that_of_the_models_own_logits() -> None:
    _, careful = twins()
    batches = Batches(*samples(), 32)
    assert evaluate(careful, batches, loss_fn=wild_loss) == evaluate(careful, batches)


@pytest.mark.parametrize("loss_fn", [None, wild_loss])
def test_a_training_is_that_of_a_model_that_works_on_a_copy(loss_fn: Callable[..., Tensor] | None) -> None:
    curves = []
    for model, loss in zip(twins(), (loss_fn, None), strict=True):
        x, y = samples()
        training = train(
            model,
            sgd,
            Batches(x, y, 32),
            plan=Plan(epochs=3, precision="fp32"),
            validation=Batches(x[:90], y[:90], 40),
            test=Batches(x[90:], y[90:], 40),
            loss_fn=loss,
            observer=LayerStatistics,
        )
        timeless = [{k: v for k, v in entry.items() if k != "time_s"} for entry in training.curve]
        curves.append((timeless, training.test_loss, training.test_accuracy, training.statistics))
    assert curves[0] == curves[1]


@pytest.mark.parametrize("batch_size", [4, 32])
def test_layers_are_looked_at_with_the_data_as_they_are(batch_size: int) -> None:
    snapshots = []
    for model, loss in zip(twins(), (wild_loss, functional.cross_entropy), strict=True):
        batches = Batches(*samples(), batch_size)
        look = LayerStatistics(model, batches, loss_fn=loss, precision="fp32")  # type: ignore[arg-type]
        snapshots.append([look.snapshot(epoch) for epoch in range(2)])
    assert snapshots[0] == snapshots[1]
    held = torch.cat([x for x, _ in Batches(*samples(), batch_size).epoch(0)])[: snapshots[0][0]["samples"]]
    assert snapshots[0][0]["input_mean"] == pytest.approx(held.double().mean().item(), abs=1e-6)


@pytest.mark.parametrize("kind", ["list", "loader", "batches"])
def test_a_range_test_leaves_the_batches_alone(kind: str) -> None:
    found, unchanged = [], []
    for model in twins():
        held = pairs()
        x, y = samples()
        source: Any = {
            "list": held,
            "batches": Batches(x, y, 32),
            # Without collation a data set hands out what it holds.
            "loader": torch.utils.data.DataLoader(held, batch_size=None),  # type: ignore[arg-type]
        }[kind]
        test = lr_range_test(
            model, sgd, functional.cross_entropy, source, steps=20, repeats=2, lr_min=1e-3, validation=source
        )
        found.append(test.sweeps)
        unchanged.append(all(torch.equal(a, b) for (a, _), (b, _) in zip(held, pairs(), strict=True)))
    assert found[0] == found[1]
    assert unchanged == [True, True]


def test_what_a_model_makes_of_its_input_is_not_blamed_on_the_data() -> None:
    class Spoiling(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.fill_(float("nan")))

    test = lr_range_test(
        Spoiling(6, 3), sgd, functional.cross_entropy, pairs(), steps=10, repeats=1, lr_min=1e-3
    )
    assert test.suggestion is None
    assert "before any update" in test.reason


def test_nested_inputs_are_copied_too() -> None:
    class OfMapping(Shifting):
        def forward(self, x: Any) -> Tensor:
            return super().forward(x["x"][0])

    torch.manual_seed(SEED)
    model = OfMapping(in_place=True)
    held = [({"x": [x]}, y) for x, y in pairs()]
    losses = [
        mean_loss(model, held, functional.cross_entropy, torch.device("cpu"), "fp32")  # type: ignore[arg-type]
        for _ in range(3)
    ]
    assert losses[0] == losses[1] == losses[2]


def test_confirmed_rates_leave_the_validation_data_alone() -> None:
    found = []
    for model in twins():
        held = pairs()
        found.append(
            confirm(model, sgd, functional.cross_entropy, held, held, Candidates([0.01, 0.1]), steps=9).losses
        )
    assert found[0] == found[1]


def test_a_blind_guess_is_judged_by_the_labels_as_they_are() -> None:
    def seen() -> list[tuple[Tensor, Tensor]]:
        return [(torch.zeros(32, 3), y) for _, y in pairs()]

    expected = blind_guess_loss(functional.cross_entropy, seen())
    assert expected is not None
    assert blind_guess_loss(wild_loss, seen()) == expected


@pytest.mark.parametrize("as_batches", [True, False])
def test_gradient_norms_are_those_of_the_data(as_batches: bool) -> None:
    found = []
    for model in twins():
        x, y = samples()
        held = list(zip(x.split(64), y.split(64), strict=True))
        source: Any = Batches(x, y, 64) if as_batches else held
        norms = gradient_norms(model, functional.cross_entropy, source, small=8, big=32, repeats=8)
        found.append((norms, torch.equal(x, samples()[0])))
    assert found[0] == found[1]
    assert found[0][1]


def test_counting_tensors_leaves_the_data_alone() -> None:
    careless, _ = twins()
    x, y = samples()
    batches, held = Batches(x, y, 32), Batches(x, y, 32)
    peak_tensor_bytes(careless, sgd, batches, plan=Plan(epochs=1), held_out=[held])
    assert np.array_equal(torch.cat([a for a, _ in held.in_order()]).numpy(), samples()[0].numpy())
