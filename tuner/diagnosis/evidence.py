"""How many samples and steps make a finding significant: below that, a sound training looks the same.

A share measured on n samples has a standard error of sqrt(p (1 - p) / n).
"""

from __future__ import annotations

import math

from fusetune.tuner.diagnosis.readings import FEW_STEPS, Readings

# Validation samples where their number is not given.
_USUAL_VALIDATION = 200
# Standard errors beyond chance: for the best of many epochs, and for a single accuracy.
_SURE, _SURE_ONCE = 3.5, 2.5
# One pass over the data cannot memorise a sample, and an oscillating loss shows after some passes only.
PASSES = 3
# Samples per class below which a sound training memorises its samples and learns nothing more.
_SAMPLES_PER_CLASS = 30
_FEWEST_TRAINING = 200
# On this many samples a unit is hardly ever 0 by chance, and a mean is close to that of the data.
FEWEST_HELD = 16


def margin(chance: float, samples: int, *, best: bool = False) -> float:
    """Return the largest deviation of an accuracy from `chance` that luck explains: a single one, or the best of many.

    Example:
        >>> round(margin(0.5, 100), 3), round(margin(0.5, 100, best=True), 3)
        (0.125, 0.175)
    """
    return (_SURE if best else _SURE_ONCE) * math.sqrt(chance * (1 - chance) / samples)


def validation_samples(run: Readings) -> int:
    """Return the size of the validation set; 200 where it is not given."""
    return run.validation_samples or _USUAL_VALIDATION


def widened(threshold: float, run: Readings) -> float:
    """Return a threshold of the validation loss times sqrt(100 / n) for n < 100 samples: fewer samples make it noisier.

    Example:
        >>> from fusetune.tuner.diagnosis.readings import Readings
        >>> widened(0.1, Readings([], [], {}, None, None, None, 1, validation_samples=25))
        0.2
    """
    return threshold * math.sqrt(max(1.0, 100 / validation_samples(run)))


def can_memorise(run: Readings) -> bool:
    """Whether there were steps and passes enough to memorise samples, and samples enough to learn more."""
    training = run.first.get("training_samples")
    few = training is not None and training < max(
        _FEWEST_TRAINING, _SAMPLES_PER_CLASS * run.first.get("classes", 2)
    )
    return run.steps >= FEW_STEPS and run.epochs >= PASSES and not few


def leaves_chance(run: Readings, accuracy: float, chance: float) -> bool:
    """Whether a validation accuracy is above chance beyond luck.

    A model that has memorised its samples gives equal answers to close samples. So more than 200 validation samples
    count as 200.
    """
    return accuracy > chance + margin(chance, min(validation_samples(run), _USUAL_VALIDATION), best=True)


def is_learnt(run: Readings, chance: float) -> bool:
    """Whether the training accuracy is above chance beyond luck: on the held samples, or over the last epoch."""
    accuracies = run.column("train_accuracy")
    seen = [
        (run.last.get("accuracy"), run.held_samples),
        (
            accuracies[-1] if accuracies else None,
            run.first.get("training_samples") or validation_samples(run),
        ),
    ]
    return any(
        accuracy is not None and samples and accuracy > chance + margin(chance, samples)
        for accuracy, samples in seen
    )
