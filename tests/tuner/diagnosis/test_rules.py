from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from fusetune.tuner.diagnosis import Finding, diagnose
from fusetune.tuner.training.outcome import Training
from tests.tuner.faulty_runs import FAULTS, JUDGED_FROM, Case, healthy, is_as_made, judged_from, run, short

MADE = 12  # runs of each fault that count
SOUND_RUNS = 60
QUICK_HEALTHY = (304, 306, 310, 314, 315, 319, 320)  # about a second each


def _curve(train: list[float | None], val: list[float | None], **columns: Any) -> list[dict[str, Any]]:
    """Write a curve of 100 steps an epoch."""
    return [
        {
            "epoch": index + 1,
            "step": 100 * (index + 1),
            "train_loss": t,
            "val_loss": v,
            "train_accuracy": None,
            "val_accuracy": None,
            "lr": 0.1,
            "grad_norm": 1.0,
        }
        | {name: values[index] for name, values in columns.items()}
        for index, (t, v) in enumerate(zip(train, val, strict=True))
    ]


def _snapshot(epoch: int, loss: float | None = 2.3, **changes: Any) -> dict[str, Any]:
    """Write what a sound, untrained classifier of 10 classes looks like."""
    layers = [
        {"name": "first", "kind": "Linear", "weight_norm": 5.0, "grad_norm": 0.5, "moved": 0.5 * epoch},
        {"name": "relu", "kind": "relu", "zero_share": 0.5, "dead_share": 0.0},
        {"name": "middle", "kind": "Linear", "weight_norm": 5.0, "grad_norm": 0.6, "moved": 0.5 * epoch},
        {"name": "tanh", "kind": "tanh", "saturated_share": 0.05},
        {"name": "last", "kind": "Linear", "weight_norm": 2.0, "grad_norm": 0.7, "moved": 0.5 * epoch},
    ]
    for name, numbers in changes.pop("layers", {}).items():
        next(layer for layer in layers if layer["name"] == name).update(numbers)
    return {
        "epoch": epoch,
        "samples": 256,
        "loss": loss,
        "accuracy": 0.1,
        "classes": 10,
        "label_entropy": math.log(10),
        "label_majority": 0.1,
        "predicted_majority": 0.3,
        "input_mean": 0.0,
        "input_std": 1.0,
        "input_largest": 3.0,
        "input_constant": 0.0,
        "output_std": 0.2,
        "parameters": 5000,
        "training_samples": 1000,
        "layers": layers,
    } | changes


SOUND = [1.0, 0.5, 0.3, 0.2, 0.15, 0.12]
SOUND_VALIDATION = [0.9, 0.5, 0.35, 0.3, 0.28, 0.27]


def _snapshots(losses: list[float], **changes: Any) -> list[dict[str, Any]]:
    return [_snapshot(epoch, loss, **changes) for epoch, loss in enumerate([2.3, *losses])]


def _names(*arguments: Any, **keywords: Any) -> list[str]:
    return [finding.name for finding in diagnose(*arguments, **keywords)]


# ---- rules, on numbers written by hand


def test_a_sound_curve_has_no_findings_with_snapshots_and_without() -> None:
    curve = _curve(SOUND, SOUND_VALIDATION)
    assert diagnose(curve, initial={"loss": 2.3}) == []
    assert diagnose(curve, statistics=_snapshots(SOUND), batch_size=32) == []
    assert diagnose(curve) == []


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"input_std": 0.0, "input_mean": 0.0}, ["input_fault"]),
        ({"input_std": 80.0, "input_mean": 120.0}, ["input_fault"]),
        ({"input_std": 1.0, "input_mean": 100.0}, ["input_fault"]),
        ({"input_std": 0.003}, ["input_fault"]),
        ({"input_mean": None, "input_std": None}, ["input_fault"]),
        ({"input_mean": 0.13, "input_std": 0.31}, []),
        ({"input_mean": 4.9, "input_std": 6.0}, []),
        ({"label_majority": 1.0, "label_entropy": 0.0}, ["label_fault"]),
        ({"label_majority": 1.0, "label_entropy": 0.0, "samples": 8}, []),
    ],
)
def test_faults_of_the_data_are_named_first(changes: dict[str, Any], names: list[str]) -> None:
    assert _names(_curve(SOUND, SOUND_VALIDATION), statistics=_snapshots(SOUND, **changes)) == names


@pytest.mark.parametrize(
    ("layers", "name"),
    [
        ({"relu": {"dead_share": 0.9}}, "dead_relus"),
        ({"tanh": {"saturated_share": 0.8}}, "saturated_units"),
        ({"first": {"grad_norm": 1e-6}}, "vanishing_gradients"),
    ],
)
def test_signals_that_do_not_pass_a_layer_are_named_with_the_layer(layers: dict[str, Any], name: str) -> None:
    losses = [2.3] * 6
    (finding,) = diagnose(_curve(losses, losses), statistics=_snapshots(losses, layers=layers))
    assert finding.name == name
    assert next(iter(layers)) in finding.sentence
    assert finding.confidence == "sure"


def test_relus_that_die_while_training_are_told_from_relus_that_were_dead() -> None:
    losses = [2.3] * 6
    snapshots = [
        _snapshot(0),
        *(_snapshot(e, 2.3, layers={"relu": {"dead_share": 0.95}}) for e in range(1, 7)),
    ]
    (finding,) = diagnose(_curve(losses, losses), statistics=snapshots)
    assert (finding.name, finding.confidence) == ("dead_relus", "likely")
    assert "before training 0%" in finding.sentence


def test_an_untrained_loss_of_many_entropies_is_exploding_and_a_loss_in_other_units_is_not() -> None:
    curve = _curve(SOUND, SOUND_VALIDATION)
    exploding = [_snapshot(0, 300.0, output_std=150.0), *_snapshots(SOUND)[1:]]
    (finding,) = diagnose(curve, statistics=exploding)
    assert finding.name == "exploding_gradients"
    assert finding.evidence["untrained_loss"] == 300.0
    # A loss that is a sum over a batch of 32: large, although the outputs are near 0.
    summed = [_snapshot(epoch, 32 * loss) for epoch, loss in enumerate([2.3, *SOUND])]
    assert (
        diagnose(_curve([32 * t for t in SOUND], [32 * v for v in SOUND_VALIDATION]), statistics=summed) == []
    )


@pytest.mark.parametrize(
    ("train", "diverged"),
    [
        ([1.0, None], "the training loss was nan at step 120"),
        ([1.0, None], None),
        ([1.0, 30.0], "above 4 times"),
    ],
)
def test_a_training_that_diverged_had_too_high_a_learning_rate(
    train: list[float | None], diverged: str | None
) -> None:
    (finding,) = diagnose(_curve(train, [1.0, None]), initial={"loss": 2.3}, diverged=diverged)
    assert (finding.name, finding.confidence) == ("learning_rate_too_high", "sure")
    assert (diverged or "not finite") in finding.sentence


@pytest.mark.parametrize(
    "train", [[5.0, 2.4, 2.3, 2.3, 2.3], [1.5, 2.2, 1.2, 2.4, 1.4, 2.3]], ids=["thrown", "oscillating"]
)
def test_too_high_a_learning_rate_shows_in_the_curve_alone(train: list[float]) -> None:
    assert _names(_curve(train, train), initial={"loss": 2.3}) == ["learning_rate_too_high"]


def test_oscillation_counts_only_where_the_learning_rate_is_high() -> None:
    train = [1.0, 0.6, 1.6, 0.7, 1.7, 0.8, 0.5, 0.3]
    rates = {"lr": [0.1] * 6 + [0.05, 0.001]}
    assert _names(_curve(train, train, **rates), initial={"loss": 2.3}) == ["learning_rate_too_high"]
    rates = {"lr": [0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.1, 0.05]}
    assert _names(_curve(train, train, **rates), initial={"loss": 2.3}) == []


def test_weights_that_went_far_are_thrown_about_unless_all_is_learnt_or_the_model_is_small() -> None:
    def names(train: list[float], val: list[float], per_root_step: float, **changes: Any) -> list[str]:
        snapshots = [
            _snapshot(
                epoch, loss, layers={"first": {"moved": per_root_step * 10 * math.sqrt(epoch)}}, **changes
            )
            for epoch, loss in enumerate([2.3, *train])
        ]
        return _names(_curve(train, val), statistics=snapshots)

    high = [1.6, 1.4, 1.2, 1.1, 1.1, 1.1]
    assert names(high, high, 0.6) == ["learning_rate_too_high"]
    assert names(high, high, 0.3) == []
    learnt = [0.8, 0.4, 0.2, 0.1, 0.05, 0.05]
    assert names(learnt, learnt, 0.6) == []
    assert names(high, high, 0.6, parameters=50) == ["underfitting"]


def test_a_loss_that_stays_at_chance_is_explained_by_what_the_weights_did() -> None:
    losses = [2.3] * 6
    curve = _curve(losses, losses)

    def moving(moved: float, **changes: Any) -> list[dict[str, Any]]:
        layers = {name: {"moved": moved} for name in ("first", "middle", "last")}
        return [_snapshot(epoch, 2.3, layers=layers, **changes) for epoch in range(7)]

    assert _names(curve, statistics=moving(0.01)) == ["learning_rate_too_low"]
    assert _names(curve, statistics=moving(2.0)) == ["label_fault"]
    assert _names(curve, statistics=moving(2.0, parameters=50)) == ["underfitting"]
    assert _names(curve, statistics=moving(60.0)) == ["learning_rate_too_high"]
    few = [entry | {"step": entry["epoch"] * 10} for entry in curve]
    assert _names(few, statistics=moving(0.5)) == ["too_few_epochs"]
    shrinking = _curve(losses, losses, grad_norm=[1.0, 0.1, 0.01, 0.01, 0.01, 0.01])
    assert _names(shrinking, statistics=moving(0.01)) == ["plateau"]


def test_weights_that_hardly_moved_are_no_evidence_of_too_small_a_model() -> None:
    losses = [2.25, 2.17, 2.12, 2.08, 2.05, 2.04, 2.03, 2.03]
    decayed = _curve(losses, losses, lr=[0.1, 0.096, 0.085, 0.069, 0.05, 0.031, 0.015, 0.004])

    def moving(*moved: float, **changes: Any) -> list[dict[str, Any]]:
        return [_snapshot(0, 2.3, **changes)] + [
            _snapshot(
                epoch, loss, layers={name: {"moved": far} for name in ("first", "middle", "last")}, **changes
            )
            for epoch, (loss, far) in enumerate(zip(losses, moved, strict=True), start=1)
        ]

    # Half of all movement in the first epoch, and no fall while the rate is low.
    soon = (0.10, 0.11, 0.12, 0.13, 0.14, 0.15, 0.15, 0.15)
    assert _names(decayed, statistics=moving(*soon)) == ["learning_rate_too_low"]
    far = (1.5, 1.8, 2.0, 2.1, 2.2, 2.2, 2.2, 2.2)
    assert "underfitting" in _names(decayed, statistics=moving(*far, parameters=50))


def test_a_loss_that_falls_nearly_every_epoch_is_not_underfitting_by_the_curve_alone() -> None:
    falling = [2.25, 2.17, 2.12, 2.08, 2.05, 2.04, 2.03, 2.025, 2.024, 2.023]
    restless = [2.25, 2.2, 2.24, 2.19, 2.21, 2.18, 2.2, 2.17, 2.19, 2.18]
    assert "underfitting" not in _names(_curve(falling, restless), initial={"loss": 2.3})
    settled = [2.25, 2.17, 2.06, 2.03, 2.04, 2.03, 2.04, 2.02, 2.03, 2.03]
    assert _names(_curve(settled, restless), initial={"loss": 2.3}) == ["underfitting"]


def test_weights_thrown_far_in_the_first_steps_are_forgiven_where_the_model_has_learnt_since() -> None:
    moved = [0.7 * math.sqrt(100)] + [0.35 * math.sqrt(100 * epoch) for epoch in range(2, 7)]

    def names(end: float) -> list[str]:
        losses = [0.9 * 2.3, 1.2, 0.8, 0.5, 0.35, end * 2.3]
        snapshots = [_snapshot(0)] + [
            _snapshot(epoch, loss, layers={"first": {"moved": far}})
            for epoch, (loss, far) in enumerate(zip(losses, moved, strict=True), start=1)
        ]
        return _names(_curve(losses, losses), statistics=snapshots)

    assert names(0.12) == []
    assert names(0.2) == ["learning_rate_too_high"]


def test_labels_learnt_by_heart_or_by_another_rule_are_a_label_fault() -> None:
    train = [2.2, 1.8, 1.2, 0.7, 0.3, 0.1]
    accuracies = {"val_accuracy": [0.1, 0.11, 0.12, 0.1, 0.09, 0.1]}
    snapshots = [_snapshot(epoch, loss, accuracy=0.95) for epoch, loss in enumerate([2.3, *train])]
    by_heart = _curve(train, [2.32, 2.4, 2.6, 3.0, 4.0, 5.0], **accuracies)
    assert _names(by_heart, statistics=snapshots) == ["label_fault"]
    other_rule = _curve(
        train, [2.3, 3.0, 4.0, 5.0, 6.0, 7.0], val_accuracy=[0.1, 0.05, 0.02, 0.01, 0.01, 0.01]
    )
    (finding,) = diagnose(other_rule, statistics=snapshots)
    assert (finding.name, finding.confidence) == ("label_fault", "sure")
    # The same curves with a validation accuracy above chance are plain overfitting.
    fitted = _curve(train, [2.0, 1.8, 1.9, 2.4, 3.0, 4.0], val_accuracy=[0.3, 0.4, 0.4, 0.4, 0.4, 0.4])
    assert _names(fitted, statistics=snapshots) == ["overfitting"]


def test_labels_are_accused_only_where_steps_passes_and_samples_can_carry_it() -> None:
    train = [2.2, 1.8, 1.2, 0.7, 0.3, 0.1]
    accuracies = [0.1, 0.11, 0.12, 0.1, 0.09, 0.1]
    validation = [2.32, 2.4, 2.6, 3.0, 4.0, 5.0]

    def names(
        epochs: int = 6, steps: int = 100, seen: int | None = None, accuracy: float = 0.95, **changes: Any
    ) -> list[str]:
        snapshots = [
            _snapshot(epoch, loss, accuracy=accuracy, **changes)
            for epoch, loss in enumerate([2.3, *train[-epochs:]])
        ]
        curve = _curve(train[-epochs:], validation[-epochs:], val_accuracy=accuracies[-epochs:])
        curve = [entry | {"step": steps * entry["epoch"]} for entry in curve]
        return _names(curve, statistics=snapshots, validation_samples=seen)

    assert names() == names(seen=100) == ["label_fault"]
    assert "label_fault" not in names(steps=5)
    assert "label_fault" not in names(epochs=2)
    assert "label_fault" not in names(training_samples=65)
    assert "label_fault" not in names(accuracy=0.16), "on 256 samples 16% may be luck, where chance is 10%"
    assert "label_fault" not in names(seen=20, accuracy=0.3), "20 samples cannot tell 30% from 12%"


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"samples": 8, "input_std": 80.0}, []),
        ({"samples": 8, "layers": {"relu": {"dead_share": 0.9}}}, []),
        ({"samples": 8, "layers": {"tanh": {"saturated_share": 0.9}}}, []),
        ({"samples": 40, "label_majority": 1.0, "label_entropy": 0.0}, []),
    ],
)
def test_few_held_samples_carry_no_finding(changes: dict[str, Any], names: list[str]) -> None:
    assert _names(_curve(SOUND, SOUND_VALIDATION), statistics=_snapshots(SOUND, **changes)) == names


def test_a_small_batch_is_not_blamed_while_the_loss_falls_or_after_one_epoch() -> None:
    def names(losses: list[float], size: int) -> list[str]:
        return _names(
            _curve(losses, losses), statistics=_snapshots(losses), noise_scale=900.0, batch_size=size
        )

    assert "batch_too_small" not in names([1.9, 1.7], 2)
    assert "batch_too_small" not in names([2.1, 1.8, 1.5, 1.3], 8)
    assert "batch_too_small" not in names([1.9], 1)
    assert names([1.5, 1.2, 1.6, 1.2, 1.5], 8) == ["batch_too_small"]


def test_what_is_not_finite_before_training_is_said_first_with_where_it_is() -> None:
    curve = _curve([1.0, None], [1.0, None])

    def finding(*named: str, **layers: Any) -> Finding:
        snapshot = _snapshot(0, None, not_finite=list(named), layers=layers)
        (found,) = diagnose(curve, statistics=[snapshot], diverged="the training loss was nan at step 1")
        return found

    dead = {"not_finite": ["outputs"], "dead_share": 1.0}
    found = finding("loss", middle={"not_finite": ["weights", "outputs"]}, relu=dead)
    assert (found.name, found.confidence) == ("not_finite", "sure")
    assert "outputs of layer relu" in found.sentence, "the first in the order of the calls"
    assert "weights of layer middle" in finding(middle={"not_finite": ["weights", "outputs"]}).sentence
    assert "the inputs" in finding("inputs", "loss", first={"not_finite": ["outputs"]}).sentence
    assert "the loss" in finding("loss").sentence
    # Gradients are not finite in every layer before the culprit.
    broken = {"not_finite": ["gradient"]}
    assert "weights of layer last" in finding(first=broken, last={"not_finite": ["weights"]}).sentence
    assert "gradient of layer middle" in finding(first=broken, middle=broken).sentence
    # Without any of that a loss that is not finite later is the learning rate's.
    assert diagnose(curve, statistics=[_snapshot(0)], diverged="nan")[0].name == "learning_rate_too_high"


def test_overfitting_names_the_epoch_after_which_validation_turns() -> None:
    train = [1.5, 0.9, 0.5, 0.3, 0.1, 0.05]
    (finding,) = diagnose(_curve(train, [1.4, 1.1, 0.9, 1.0, 1.3, 1.7]), initial={"loss": 2.3})
    assert (finding.name, finding.evidence["epoch"]) == ("overfitting", 3)
    assert "after epoch 3" in finding.sentence
    assert "epoch 3" in finding.try_next
    # Few validation samples make such a rise by themselves.
    few = _curve(train, [1.4, 1.1, 0.9, 1.0, 1.1, 1.2])
    assert [f.name for f in diagnose(few, initial={"loss": 2.3})] == ["overfitting"]
    assert diagnose(few, initial={"loss": 2.3}, validation_samples=20) == []
    # A small rise while accuracies are fine is none.
    assert diagnose(_curve(train, [0.6, 0.3, 0.2, 0.2, 0.21, 0.23]), initial={"loss": 2.3}) == []


def test_a_loss_that_is_high_and_falls_fast_asks_for_more_epochs_unless_the_schedule_makes_it_fall() -> None:
    losses = [2.0, 1.7, 1.4, 1.1]
    assert _names(_curve(losses, losses), initial={"loss": 2.3}) == ["too_few_epochs"]
    decayed = _curve(losses, losses, lr=[0.1, 0.06, 0.03, 0.001])
    assert _names(decayed, initial={"loss": 2.3}) == []


def test_a_loss_that_creeps_is_told_from_one_that_has_settled_by_the_curve_alone() -> None:
    creeping = [2.28 - 0.03 * epoch for epoch in range(8)]
    assert _names(_curve(creeping, creeping), initial={"loss": 2.3}) == ["learning_rate_too_low"]
    settled = [2.1, 2.0, 2.01, 2.0, 2.01, 2.0, 2.01, 2.0]
    assert _names(_curve(settled, settled), initial={"loss": 2.3}) == ["underfitting"]


def test_a_small_model_that_has_settled_or_creeps_underfits_and_a_large_one_does_not() -> None:
    creeping = [1.9, 1.5, 1.25, 1.1, 1.05, 1.0]
    curve = _curve(creeping, creeping)

    def moving(moved: float, **changes: Any) -> list[dict[str, Any]]:
        layers = {name: {"moved": moved} for name in ("first", "middle", "last")}
        return _snapshots(creeping, layers=layers, **changes)

    assert _names(curve, statistics=moving(3.0, parameters=50)) == ["underfitting"]
    assert _names(curve, statistics=moving(3.0)) == []
    # Validation that has left the training loss behind is another fault than too small a model.
    apart = _curve([0.7 * loss for loss in creeping], [1.9, 1.6, 1.5, 1.5, 1.5, 1.5])
    assert _names(apart, statistics=moving(3.0, parameters=50)) == []


def test_a_gap_to_validation_that_only_the_held_samples_show_is_none() -> None:
    # The held samples happen to be easy: the loss of a whole epoch is that of validation.
    held = [1.6, 1.3, 1.2, 1.19, 1.18, 1.18]
    whole = [1.9, 1.7, 1.62, 1.61, 1.6, 1.6]
    snapshots = _snapshots(held, parameters=50, layers={"first": {"moved": 3.0}})
    assert _names(_curve(whole, whole), statistics=snapshots) == ["underfitting"]


def test_one_or_two_samples_at_a_constant_rate_are_blamed_where_the_loss_has_stopped() -> None:
    losses = [1.5, 1.35, 1.3, 1.29, 1.29, 1.28]
    snapshots = _snapshots(losses)

    def names(curve: list[dict[str, Any]], noise_scale: float, batch_size: int) -> list[str]:
        return _names(curve, statistics=snapshots, noise_scale=noise_scale, batch_size=batch_size)

    constant = _curve(losses, losses)
    assert names(constant, 400.0, 2) == ["batch_too_small"]
    assert names(constant, 40.0, 2) == []
    assert names(constant, 1600.0, 8) == []
    decayed = _curve(losses, losses, lr=[0.1, 0.1, 0.1, 0.06, 0.02, 0.001])
    assert names(decayed, 400.0, 2) == []


def test_noise_is_blamed_where_the_batch_is_far_below_the_noise_scale() -> None:
    losses = [1.6, 1.3, 1.6, 1.2, 1.5, 1.3]
    curve = _curve(losses, losses)
    snapshots = _snapshots(losses)
    assert _names(curve, statistics=snapshots, noise_scale=500.0, batch_size=2) == ["batch_too_small"]
    assert "batch_too_small" not in _names(curve, statistics=snapshots, noise_scale=8.0, batch_size=2)
    noisy = [s | {"gradient_noise": 40.0, "gradient_square": 0.1} for s in snapshots]
    (finding,) = diagnose(curve, statistics=noisy, batch_size=2)
    assert finding.evidence["noise_scale"] == pytest.approx(400.0)
    assert finding.try_next.endswith("divide the learning rate by 5 and let it decay to 0.")
    # A rate that was too high for the noise, under a schedule that comes down to 0 by itself.
    thrown = _curve([3.6, *losses[1:]], losses, lr=[0.1, 0.1, 0.08, 0.05, 0.02, 0.0])
    (finding, *_) = diagnose(thrown, statistics=noisy, batch_size=2)
    assert finding.name == "batch_too_small"
    assert finding.try_next.endswith("divide the learning rate by 5.")
    drowned = [s | {"gradient_noise": 40.0, "gradient_square": -0.1} for s in snapshots]
    (finding,) = diagnose(curve, statistics=drowned, batch_size=2)
    assert "noise_scale" not in finding.as_dict()["evidence"]
    json.dumps(finding.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"curve": []}, "curve: empty"),
        ({"curve": _curve(SOUND, SOUND), "batch_size": 0}, "batch_size: 0 must be above 0"),
        ({"curve": _curve(SOUND, SOUND), "noise_scale": -1.0}, "noise_scale: -1.0 must be above 0"),
        ({"curve": _curve(SOUND, SOUND), "validation_samples": 0}, "validation_samples: 0 must be above 0"),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diagnose(**arguments)


def test_the_diagnosis_needs_no_torch() -> None:
    code = "import sys, fusetune.tuner.diagnosis; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ---- runs that were made to have a fault


def _findings(case: Case) -> list[Finding] | None:
    """Train and diagnose; None where the run did not come out as its kind says."""
    training = run(case)
    return _judged(case, training) if is_as_made(case, training) else None


def _judged(case: Case, training: Training) -> list[Finding]:
    """Diagnose a training as a trial does."""
    return diagnose(
        training.curve,
        statistics=training.statistics,
        diverged=training.diverged,
        batch_size=training.samples_per_step,
        planned_epochs=training.planned_epochs,
        validation_samples=case.held,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAULTS)
def test_one_run_of_each_fault_is_named_rightly(kind: str) -> None:
    make, expected = FAULTS[kind]
    every = (_findings(make(seed)) for seed in itertools.count(JUDGED_FROM))
    found = next(found for found in every if found is not None)
    assert [finding.name for finding in found[:1]] == [expected]


@pytest.mark.parametrize("seed", QUICK_HEALTHY)
def test_quick_sound_trainings_are_not_accused(seed: int) -> None:
    found = _findings(healthy(seed))
    assert found == []


def _accused(seeds: Iterable[int]) -> dict[int, list[str]]:
    """Return what short sound trainings are accused of, other than of being too short."""
    every = ((seed, short(seed)) for seed in seeds)
    found = {seed: [finding.name for finding in _judged(case, run(case))] for seed, case in every}
    return {seed: names for seed, names in found.items() if not set(names) <= {"too_few_epochs"}}


def test_sound_trainings_of_a_few_steps_have_too_few_epochs_or_nothing() -> None:
    assert _accused(range(24)) == {}


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_no_sound_training_of_a_few_steps_in_224_is_accused() -> None:
    assert _accused(range(224)) == {}


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", FAULTS)
def test_nine_in_ten_runs_of_each_fault_are_named_rightly(kind: str) -> None:
    make, expected = FAULTS[kind]
    first = judged_from(kind)
    every = (_findings(make(seed)) for seed in range(first, first + 6 * MADE))
    made = list(itertools.islice((found for found in every if found is not None), MADE))
    assert len(made) == MADE
    names = Counter(found[0].name if found else None for found in made)
    assert names[expected] >= 0.9 * MADE, names


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_at_most_one_sound_training_in_twenty_is_accused() -> None:
    every = ((seed, _findings(healthy(seed))) for seed in itertools.count(JUDGED_FROM))
    sound = list(itertools.islice(((seed, found) for seed, found in every if found is not None), SOUND_RUNS))
    accused = {seed: [finding.name for finding in found] for seed, found in sound if found}
    assert len(accused) <= SOUND_RUNS / 20, accused
