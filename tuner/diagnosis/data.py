"""Faults of the data: inputs that are not normalised, labels that do not fit them."""

from __future__ import annotations

import math

from tuner.diagnosis.finding import Finding
from tuner.diagnosis.readings import Readings

# Standardised inputs have a mean near 0 and a standard deviation near 1; raw pixels in 0..1 have about 0.3.
_LARGEST_INPUT_STD = 20.0
_SMALLEST_INPUT_STD = 0.02
_LARGEST_INPUT_MEAN = 5.0  # in standard deviations
_AT_CHANCE = 0.95


def input_fault(run: Readings) -> Finding | None:
    """Inputs that are constant, not finite, or far from zero mean and unit scale (LeCun et al., Efficient BackProp)."""
    if not run.first:
        return None
    mean, std = run.first.get("input_mean"), run.first.get("input_std")
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
    if run.first.get("label_majority") != 1 or run.first["classes"] < 2 or run.first["samples"] < 32:
        return None
    return Finding(
        "label_fault",
        f"The first {run.first['samples']} training samples all have the same label.",
        {"label_majority": 1.0},
        "Look at how the labels are read, and at a few samples beside their labels.",
        "sure",
    )


def labels_do_not_fit(run: Readings) -> Finding | None:
    """Validation at chance or below it while training samples are learnt: by heart, or by another rule.

    best val_accuracy <= chance and val_loss >= entropy of the labels, while the training loss is below it;
    or val_accuracy < chance / 2 while the training accuracy is above 2 chances
    """
    accuracies = run.column("val_accuracy")
    chance = run.chance
    if not (accuracies and run.fit and run.val and chance) or run.diverged is not None or run.fit[-1] > 1.05:
        return None
    learnt = run.last.get("accuracy") or (run.column("train_accuracy") or [0.0])[-1]
    evidence = {
        "best_val_accuracy": max(accuracies),
        "final_val_accuracy": accuracies[-1],
        "train_accuracy": learnt,
        "chance": chance,
    }
    classes = run.first.get("classes") or 1 / chance
    fix = "Look at some samples beside their labels, in training and validation, and at what shuffles or maps them."
    if accuracies[-1] < 0.5 / classes and learnt > min(0.9, 1.8 * chance) and run.val[-1] > 1.1:
        return Finding(
            "label_fault",
            f"Training samples are learnt ({learnt:.0%} right) while validation is at {accuracies[-1]:.1%}, "
            f"below the {1 / classes:.1%} of a blind guess: its labels follow another rule.",
            evidence,
            fix,
            "sure",
        )
    if max(accuracies) > chance + _chance_margin(chance) or min(run.val) < _AT_CHANCE:
        return None
    by_luck = learnt < chance + _chance_margin(chance) / 2
    if run.val[-1] - run.fit[-1] < 0.04 or (by_luck and run.noise_scale is not None):
        # Where batches are so small that their noise is known, nothing learnt may be the noise's doing.
        return None
    return Finding(
        "label_fault",
        f"Training samples are learnt by heart ({learnt:.0%} right) while validation never leaves chance "
        f"({max(accuracies):.1%} at best; the commonest label makes {chance:.1%}): the labels have nothing to do with "
        "the inputs.",
        evidence,
        fix,
    )


def _chance_margin(chance: float) -> float:
    """Return how far above chance an accuracy on some 200 samples comes by luck, over the best of many epochs."""
    return 3.5 * math.sqrt(chance * (1 - chance) / 200)
