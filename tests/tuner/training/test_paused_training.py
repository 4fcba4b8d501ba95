"""Trainings that pause between epochs: the same numbers as without a pause, and no clock that runs meanwhile."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fusetune.tuner.measure.stopwatch import Stopwatch
from fusetune.tuner.training import Plan, TrainingSetup, train, train_epochs
from fusetune.tuner.training.batches import Batches
from fusetune.tuner.training.outcome import status_of


def model() -> nn.Module:
    """A model that draws from torch's generator in every forward pass."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))


def batches() -> Batches:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(96, 4, generator=generator)
    return Batches(x, x[:, :3].argmax(1), batch_size=16, seed=2)


def momentum(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)  # type: ignore[arg-type]


def test_trainings_that_take_turns_learn_the_same_as_one_after_the_other_bit_for_bit() -> None:
    plan = Plan(epochs=4)
    alone, expected = model(), []
    for seed in (5, 6):
        alone = model()
        torch.manual_seed(seed)
        training = train(alone, momentum, batches(), plan=plan, validation=batches())
        expected.append((training.curve, [parameter.clone() for parameter in alone.parameters()]))

    models = [model(), model()]
    turns = []
    for seed, each in zip((5, 6), models, strict=True):
        torch.manual_seed(seed)
        turn = train_epochs(TrainingSetup(each, momentum, batches(), plan, validation=batches()))
        next(turn)
        turns.append(turn)
    for _ in range(3):
        for turn in turns:
            next(turn)
            torch.rand(7)  # somebody else draws
    for turn, each, (curve, parameters) in zip(turns, models, expected, strict=True):
        with pytest.raises(StopIteration) as end:
            next(turn)
        timeless = [[{**entry, "time_s": 0} for entry in c] for c in (end.value.value.curve, curve)]
        assert timeless[0] == timeless[1]
        assert all(torch.equal(a, b) for a, b in zip(each.parameters(), parameters, strict=True))


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class OneSecond(nn.Module):
    """Takes a second of a clock for a forward pass in training."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.layer, self.clock = nn.Linear(4, 3), clock

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now_s += float(self.training)
        return self.layer(x)


def test_neither_the_training_clock_nor_the_time_limit_runs_while_paused() -> None:
    clock = FakeClock()
    setup = TrainingSetup(
        OneSecond(clock),
        momentum,
        batches(),
        plan=Plan(epochs=3),
        validation=batches(),
        stopwatch=Stopwatch(clock=clock),
        time_limit_s=30.0,  # 18 steps and a burn-in of a second each
    )
    turn = train_epochs(setup)
    for epoch in (1, 2, 3):
        assert next(turn)["time_s"] == 6.0 * epoch
        clock.now_s += 1000.0
    with pytest.raises(StopIteration) as end:
        next(turn)
    assert end.value.value.stopped_early is None
    assert end.value.value.training_s == 18.0


def test_a_reason_that_is_sent_ends_the_training_there() -> None:
    setup = TrainingSetup(
        model(), momentum, batches(), plan=Plan(epochs=4), validation=batches(), test=batches()
    )
    turn = train_epochs(setup)
    next(turn)
    next(turn)
    with pytest.raises(StopIteration) as end:
        turn.send("others promise more")
    training = end.value.value
    assert training.epochs == 2
    assert training.test_accuracy is not None
    assert status_of(training) == ("stopped_early", "others promise more")


def test_a_training_that_diverged_does_not_pause_as_if_it_could_go_on() -> None:
    def explosive(parameters: object) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=300.0)  # type: ignore[arg-type]

    turn = train_epochs(
        TrainingSetup(model(), explosive, batches(), plan=Plan(epochs=3), validation=batches())
    )
    with pytest.raises(StopIteration) as end:
        next(turn)
    assert end.value.value.diverged
    assert len(end.value.value.curve) == 1
