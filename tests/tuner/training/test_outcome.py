from __future__ import annotations

import math
from typing import Any

import pytest

from fusetune.tuner.training.outcome import (
    Crossing,
    EarlyStop,
    Target,
    Training,
    divergence,
    higher_is_better,
    metrics_of,
    status_of,
)


def _curve(accuracies: list[float | None], losses: list[float | None] | None = None) -> list[dict[str, Any]]:
    """Build a curve of 10 steps an epoch; the n-th epoch takes n tenths of a second."""
    losses = losses or [1.0] * len(accuracies)
    return [
        {
            "epoch": epoch,
            "step": 10 * epoch,
            "samples": 640 * epoch,
            "time_s": 0.1 * epoch * (epoch + 1) / 2,
            "train_loss": loss,
            "train_accuracy": 0.5,
            "val_loss": loss,
            "val_accuracy": accuracy,
        }
        for epoch, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True), start=1)
    ]


def _training(accuracies: list[float | None], **facts: object) -> Training:
    step_times_s = [0.01 * (step // 10 + 1) for step in range(10 * len(accuracies))]
    arguments: dict = {
        "curve": _curve(accuracies),
        "step_times_s": step_times_s,
        "samples_per_step": 64,
        "planned_epochs": 5,
        "first_step_s": 0.5,
        "evaluation_s": 0.25,
        "peak_bytes": 4096,
    }
    return Training(**(arguments | facts))


def test_first_crossing_is_the_first_epoch_at_which_the_target_holds_even_if_lost_again() -> None:
    crossing = Target("val_accuracy", at_least=0.9).first_crossing(_curve([0.5, 0.9, 0.8, 0.95]))
    assert crossing == Crossing(epoch=2, steps=20, samples=1280, time_s=pytest.approx(0.3))  # type: ignore[arg-type]


def test_a_loss_crosses_downwards_and_unknown_values_never_cross() -> None:
    curve = _curve([0.1] * 3, [None, 0.6, 0.5])
    assert Target("val_loss", at_most=0.5).first_crossing(curve).epoch == 3
    assert Target("val_loss", at_most=0.4).first_crossing(curve) is None
    assert Target("test_loss", at_most=0.4).first_crossing(curve) is None
    assert not Target("val_loss", at_most=0.5).reached(-math.inf)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "val_acc", "at_least": 0.5}, "unknown 'val_acc'; known: test_accuracy"),
        ({"metric": "val_accuracy"}, "takes at_least"),
        ({"metric": "val_accuracy", "at_most": 0.5}, "takes at_least"),
        ({"metric": "val_loss", "at_least": 0.5}, "takes at_most"),
        ({"metric": "val_loss", "at_least": 0.5, "at_most": 0.5}, "takes at_most"),
        ({"metric": "val_accuracy", "at_least": 90.0}, "not per cent"),
        ({"metric": "val_accuracy", "at_least": math.nan}, "at most 1"),
        ({"metric": "val_loss", "at_most": math.inf}, "finite"),
    ],
)
def test_a_target_that_cannot_be_meant_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Target(**arguments)


def test_early_stop_waits_for_patience_epochs_without_an_improvement_above_min_delta() -> None:
    stop = EarlyStop("val_accuracy", patience=2, min_delta=0.01)
    accuracies = [0.5, 0.6, 0.605, 0.61, 0.7]
    stopped = [stop.reason(_curve(accuracies[:epoch])) is not None for epoch in range(1, 6)]
    # Epochs 3 and 4 are not more than 0.01 above 0.6, the last value that counted.
    assert stopped == [False, False, False, True, False]


def test_early_stop_on_a_loss_counts_a_fall_as_improvement() -> None:
    stop = EarlyStop("val_loss", patience=1)
    assert stop.reason(_curve([0.5, 0.5], [1.0, 0.9])) is None
    assert "0.9 of epoch 2" in (stop.reason(_curve([0.5] * 3, [1.0, 0.9, 0.95])) or "")


def test_early_stop_names_a_metric_that_was_never_finite() -> None:
    assert "not been finite" in (EarlyStop(patience=2).reason(_curve([None, None])) or "")


@pytest.mark.parametrize(
    "arguments", [{"patience": 0}, {"min_delta": -0.1}, {"min_delta": math.nan}, {"metric": "lr"}]
)
def test_early_stop_refuses_numbers_out_of_range(arguments: dict) -> None:
    with pytest.raises(ValueError, match=r"early_stop|metric"):
        EarlyStop(**arguments)


@pytest.mark.parametrize("metric", ["val", "test", "train"])
def test_accuracies_rise_and_losses_fall(metric: str) -> None:
    assert higher_is_better(f"{metric}_accuracy")
    assert not higher_is_better(f"{metric}_loss")


@pytest.mark.parametrize(
    ("train_loss", "val_loss", "diverged"),
    [(8.0, 1.0, False), (8.1, 1.0, True), (None, 1.0, True), (1.0, None, True), (1.0, 100.0, False)],
)
def test_an_epoch_diverged_if_a_loss_is_not_finite_or_four_times_the_untrained_models(
    train_loss: float | None, val_loss: float | None, diverged: bool
) -> None:
    entry = {"epoch": 1, "train_loss": train_loss, "val_loss": val_loss}
    assert (divergence(entry, untrained_loss=2.0) is not None) == diverged


def test_a_loss_function_that_starts_at_or_below_zero_has_no_factor_to_exceed() -> None:
    entry = {"epoch": 1, "train_loss": 5.0, "val_loss": 5.0}
    assert divergence(entry, untrained_loss=0.0) is None
    assert divergence(entry, untrained_loss=-1.0) is None


TARGET = Target("val_accuracy", at_least=0.9)


@pytest.mark.parametrize(
    ("accuracies", "facts", "target", "status", "reason"),
    [
        ([0.5] * 5, {}, None, "ok", ""),
        ([0.5, 0.95, 0.5, 0.5, 0.5], {}, TARGET, "ok", ""),
        (
            [0.95, 0.5],
            {"stopped_early": "no gain"},
            TARGET,
            "ok",
            "val_accuracy >= 0.9 reached at epoch 1; then no gain",
        ),
        ([0.5, 0.5], {"stopped_early": "no gain"}, TARGET, "stopped_early", "no gain"),
        ([0.5, 0.5], {"stopped_early": "no gain"}, None, "stopped_early", "no gain"),
        (
            [0.5, 0.8731, 0.6, 0.5, 0.5],
            {},
            TARGET,
            "missed_target",
            "val_accuracy >= 0.9 was not reached; best: 0.8731 at epoch 2 of 5",
        ),
        ([0.5], {"diverged": "nan"}, TARGET, "diverged", "nan"),
        (
            [0.95, None],
            {"diverged": "nan"},
            TARGET,
            "diverged",
            "val_accuracy >= 0.9 reached at epoch 1; then nan",
        ),
        ([None], {"diverged": "nan", "stopped_early": "no gain"}, None, "diverged", "nan"),
    ],
)
def test_outcome_puts_diverged_before_ok_before_stopped_early_before_missed_target(
    accuracies: list[float | None], facts: dict, target: Target | None, status: str, reason: str
) -> None:
    assert status_of(_training(accuracies, **facts), target) == (status, reason)


def test_time_to_target_is_exactly_steps_to_target_times_the_step_time_up_to_the_target() -> None:
    numbers = metrics_of(_training([0.5, 0.9, 0.95]), TARGET)
    assert numbers["steps_to_target"] == 20
    assert numbers["epochs_to_target"] == 2
    assert numbers["samples_to_target"] == 1280
    assert numbers["step_time_s"] == pytest.approx((10 * 0.01 + 10 * 0.02) / 20)
    assert numbers["time_to_target_s"] == numbers["steps_to_target"] * numbers["step_time_s"]
    assert numbers["samples_per_s"] == pytest.approx(64 / numbers["step_time_s"])


def test_step_time_is_over_all_steps_where_the_target_was_missed() -> None:
    numbers = metrics_of(_training([0.5, 0.6, 0.7]), TARGET)
    assert numbers["step_time_s"] == pytest.approx(0.02)
    assert numbers["training_s"] == pytest.approx(0.6)
    assert not [name for name in numbers if name.endswith("_to_target") or name == "time_to_target_s"]


def test_best_and_final_values_are_those_of_the_curve() -> None:
    training = _training([0.5, 0.8, 0.7], curve=_curve([0.5, 0.8, 0.7], [2.0, 1.0, 1.5]))
    numbers = metrics_of(training)
    assert (numbers["best_val_accuracy"], numbers["final_val_accuracy"]) == (0.8, 0.7)
    assert (numbers["best_val_loss"], numbers["final_val_loss"]) == (1.0, 1.5)
    assert (numbers["final_train_loss"], numbers["final_train_accuracy"]) == (1.5, 0.5)
    assert (numbers["steps"], numbers["epochs"], numbers["samples"]) == (30, 3, 1920)
    assert numbers["peak_bytes"] == 4096


def test_what_is_not_known_or_not_finite_is_absent() -> None:
    numbers = metrics_of(_training([], step_times_s=[], compile_s=None))
    assert set(numbers) == {
        "peak_bytes",
        "steps",
        "epochs",
        "samples",
        "training_s",
        "evaluation_s",
        "first_step_s",
    }
    diverged = metrics_of(_training([0.5, None], curve=_curve([0.5, None], [1.0, None]), diverged="nan"))
    assert diverged["best_val_loss"] == 1.0
    assert "final_val_loss" not in diverged
    assert all(math.isfinite(number) for number in diverged.values())


def test_every_value_has_a_unit() -> None:
    from fusetune.bench.units import METRICS

    complete = _training([0.95], compile_s=1.0, test_loss=0.3, test_accuracy=0.9)
    assert set(metrics_of(complete, TARGET)) <= set(METRICS)
