"""Faults of the data: inputs that are not normalised, labels that do not fit them."""

from __future__ import annotations

from fusetune.tuner.diagnosis.evidence import (
    FEWEST_HELD,
    can_memorise,
    is_learnt,
    leaves_chance,
    margin,
    validation_samples,
)
from fusetune.tuner.diagnosis.finding import Finding
from fusetune.tuner.diagnosis.readings import FEW_STEPS, Readings

# Standardised inputs have a mean near 0 and a standard deviation near 1; raw pixels in 0..1 have about 0.3.
_LARGEST_INPUT_STD = 20.0
_SMALLEST_INPUT_STD = 0.02
_LARGEST_INPUT_MEAN = 5.0  # in standard deviations
_AT_CHANCE = 0.95
_FEWEST_LABELS = 64


def input_fault(run: Readings) -> Finding | None:
    """Inputs that are constant, not finite, or far from zero mean and unit scale (LeCun et al., Efficient BackProp)."""
    if not run.first:
        return None
    mean, std = run.first.get("input_mean"), run.first.get("input_std")
    if run.held_samples < FEWEST_HELD and mean is not None:
        return None
    fix = "Standardise the inputs: subtract the training data's mean and divide by its standard deviation."
    if mean is None or std is None:
        return Finding(
            "input_fault",
            "The inputs hold numbers that are not finite.",
            {},
            "Look for NaN in the data.",
            "sure",
        )
    evidence = {"input_mean": mean, "input_std": std}
    if std == 0:
        return Finding(
            "input_fault",
            f"Every input is {mean:.3g}: there is nothing to learn from.",
            evidence,
            "Look at what the data loader and the normalisation return.",
            "sure",
        )
    if _SMALLEST_INPUT_STD <= std <= _LARGEST_INPUT_STD and abs(mean) <= _LARGEST_INPUT_MEAN * std:
        return None
    return Finding(
        "input_fault",
        f"The inputs have a mean of {mean:.3g} and a standard deviation of {std:.3g}.",
        evidence,
        fix,
        "sure",
    )


def constant_labels(run: Readings) -> Finding | None:
    """All labels alike: an entropy of 0."""
    if (
        run.first.get("label_majority") != 1
        or run.first["classes"] < 2
        or run.first["samples"] < _FEWEST_LABELS
    ):
        return None
    return Finding(
        "label_fault",
        f"The first {run.first['samples']} training samples all have the same label.",
        {"label_majority": 1.0},
        "Look at how the labels are read, and at a few samples beside their labels.",
        "sure",
    )


def labels_do_not_fit(run: Readings) -> Finding | None:
    """Validation at chance or below it while training samples are learnt: memorised, or by another rule.

    memorised:     after 100 steps and 3 passes over 200 samples, 30 of each class, or more:
                   training accuracy beyond luck above chance. val_loss >= entropy of the labels.
                   Best val_accuracy not beyond luck above chance, and beyond luck below the training accuracy
    another rule:  after 100 steps: val_accuracy < chance / 2, beyond luck. Training accuracy > 2 chances

    Beyond luck: by more than 2.5 standard errors of an accuracy, or 3.5 for the best of many epochs.
    """
    accuracies = run.column("val_accuracy")
    chance = run.chance
    if not (accuracies and run.fit and run.val and chance) or run.diverged is not None or run.fit[-1] > 1.05:
        return None
    if run.steps < FEW_STEPS:
        return None
    learnt = run.last.get("accuracy") or (run.column("train_accuracy") or [0.0])[-1]
    evidence = {
        "best_val_accuracy": max(accuracies),
        "final_val_accuracy": accuracies[-1],
        "train_accuracy": learnt,
        "chance": chance,
    }
    seen = validation_samples(run)
    blind = 1 / (run.first.get("classes") or 1 / chance)
    fix = "Look at some samples beside their labels, in training and validation, and at what shuffles or maps them."
    if (
        accuracies[-1] < min(0.5 * blind, blind - margin(blind, seen, best=True))
        and learnt > min(0.9, 1.8 * chance)
        and run.val[-1] > 1.1
    ):
        return Finding(
            "label_fault",
            f"Training samples are learnt ({learnt:.0%} right) while validation is at {accuracies[-1]:.1%}, "
            f"below the {blind:.1%} of a blind guess: its labels follow another rule.",
            evidence,
            fix,
            "sure",
        )
    if leaves_chance(run, max(accuracies), chance) or min(run.val) < _AT_CHANCE:
        return None
    if not (can_memorise(run) and is_learnt(run, chance)):
        return None
    # The accuracy of largest variance that validation would have, had the model learnt anything.
    uncertain = max(chance, min(0.5, learnt))
    if run.val[-1] - run.fit[-1] < 0.04 or learnt - max(accuracies) < margin(uncertain, seen):
        return None
    return Finding(
        "label_fault",
        f"Training samples are memorised ({learnt:.0%} right) while validation never leaves chance "
        f"({max(accuracies):.1%} at best; the commonest label makes {chance:.1%}): the labels are unrelated to the "
        "inputs.",
        evidence,
        fix,
    )
