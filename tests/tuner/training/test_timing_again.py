"""Contended epochs are timed again: by counters and a clock that the tests make up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fusetune.tuner.measure.contention import Contention, ProcessorReading
from fusetune.tuner.measure.stopwatch import Stopwatch
from fusetune.tuner.training import Plan, train
from fusetune.tuner.training.batches import Batches
from fusetune.tuner.training.outcome import Target, Training, metrics_of


class _Processor:
    """Counters of a thread that misses the share `missing(seconds)` of the processor, by a clock of the test's own."""

    def __init__(self, missing: Callable[[int], float]) -> None:
        self.missing = missing
        self.readings = 0
        self.running_s = self.waiting_s = 0.0

    def __call__(self) -> ProcessorReading:
        share = self.missing(self.readings)
        self.readings += 1
        self.running_s += 1.0
        self.waiting_s += share / (1 - share)
        return ProcessorReading(0.0, 0.0, {1: (self.running_s, self.waiting_s)})


def _clocked(tick_s: Callable[[], float]) -> Callable[[], float]:
    """A clock that goes on by `tick_s` at each look."""
    now_s = 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += tick_s()
        return now_s

    return clock


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_contended_epochs_are_timed_again_and_the_training_is_the_same_bit_for_bit(optimizer: type) -> None:
    # Readings go by pairs, one pair an epoch: epochs 2 and 3 of 4 are contended, and nothing is afterwards.
    processor = _Processor(lambda reading: 0.6 if reading in (3, 5) else 0.0)

    def run(**options: Any) -> tuple[Training, list[Tensor]]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 3))
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
        data = Batches(x, x.argmax(1).clamp(max=2), batch_size=16)
        training = train(
            model, lambda p: optimizer(p, lr=0.1), data, plan=Plan(epochs=4), validation=data, **options
        )
        return training, [tensor.clone() for tensor in model.state_dict().values()]

    clock = _clocked(lambda: 0.001)
    again, state = run(retime=True, read=processor, stopwatch=Stopwatch("cpu", clock=clock))
    plain, plain_state = run(stopwatch=Stopwatch("cpu", clock=_clocked(lambda: 0.001)))
    assert sorted(again.replaced_step_times_s) == [2, 3]
    assert [part.contended for part in again.contention] == [False] * 4
    assert len(again.step_times_s) == len(plain.step_times_s) == 16
    assert again.curve[-1]["time_s"] == pytest.approx(sum(again.step_times_s), abs=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(state, plain_state, strict=True))
    for key in ("val_loss", "train_loss", "grad_norm"):
        assert [entry[key] for entry in again.curve] == [entry[key] for entry in plain.curve]


def test_what_is_still_contended_at_the_end_stays_as_it_was_and_costs_little() -> None:
    processor = _Processor(lambda reading: 0.6)
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    data = Batches(x, (x[:, 0] > 0).long(), batch_size=4)
    updates = 0

    class Counted(torch.optim.SGD):
        def step(self, *args: Any, **kwargs: Any) -> None:
            nonlocal updates
            updates += 1
            super().step(*args, **kwargs)

    training = train(
        nn.Linear(4, 2),
        lambda p: Counted(p, lr=0.1),
        data,
        plan=Plan(epochs=3),
        validation=data,
        retime=True,
        read=processor,
        stopwatch=Stopwatch("cpu", clock=_clocked(lambda: 0.02)),
    )
    assert training.replaced_step_times_s == {}
    assert all(part.contended for part in training.contention)
    # The burn-in, 3 x 16 steps, the second optimizer's first step, and the steps of 0.1 s until the first look.
    assert updates <= 1 + 48 + 1 + 5


def test_only_epochs_up_to_the_target_are_timed_again() -> None:
    processor = _Processor(lambda reading: 0.6 if reading % 2 and reading < 8 else 0.0)
    torch.manual_seed(0)
    x = torch.randn(256, 2)
    data = Batches(x, (x[:, 0] > 0).long(), batch_size=16)
    target = Target("val_accuracy", at_least=0.5)
    training = train(
        nn.Linear(2, 2),
        lambda p: torch.optim.SGD(p, lr=1.0),
        data,
        plan=Plan(epochs=4),
        validation=data,
        target=target,
        retime=True,
        read=processor,
        stopwatch=Stopwatch("cpu", clock=_clocked(lambda: 0.001)),
    )
    crossing = target.first_crossing(training.curve)
    assert crossing is not None
    assert sorted(training.replaced_step_times_s) == list(range(1, crossing.epoch + 1)) != [1, 2, 3, 4]


def test_a_trial_s_numbers_say_what_was_missing_and_a_stall_does_not_move_the_median_step_time() -> None:
    laps = [0.1] * 9 + [5.0]
    curve = [{"epoch": 1, "step": 10, "samples": 160, "time_s": 5.9, "val_accuracy": 0.9}]
    contention = [Contention(running_s=1.0, waiting_s=1.0)]
    numbers = metrics_of(
        Training(curve, laps, 16, 1, 0.1, 0.0, 0, contention=contention), Target("val_accuracy", 0.8)
    )
    assert numbers["step_time_median_s"] == numbers["step_time_q1_s"] == numbers["step_time_q3_s"] == 0.1
    assert numbers["steps_to_target"] * numbers["step_time_s"] == pytest.approx(sum(laps))
    assert numbers["processor_missing"] == 0.5


def test_a_training_rebuilt_from_its_curve_has_no_times_of_single_steps() -> None:
    curve = [{"epoch": 1, "step": 10, "samples": 160, "time_s": 5.0, "val_accuracy": 0.9}]
    numbers = metrics_of(Training(curve, [], 16, 1, 0.1, 0.0, 0), Target("val_accuracy", 0.8))
    assert numbers["step_time_s"] == 0.5
    assert "step_time_median_s" not in numbers
