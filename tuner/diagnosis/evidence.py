"""How many samples and steps it takes to carry a finding: below that, a sound training looks the same.

A share measured on n samples has a standard error of sqrt(p (1 - p) / n).
"""

from __future__ import annotations

import math

from fusetune.tuner.diagnosis.readings import FEW_STEPS, Readings

# Where nobody says how many validation samples there are.
_USUAL_VALIDATION = 200
# Standard errors that the best of many epochs does not come to by luck, and that a single accuracy does not.
_SURE, _SURE_ONCE = 3.5, 2.5
# One pass over the data cannot teach a sample by heart, and a loss needs some to go up and down.
PASSES = 3
# Samples a class below which a sound training learns its samples by heart as well, and no more.
_SAMPLES_PER_CLASS = 30
_FEWEST_TRAINING = 200
# A unit is 0 on this many samples by chance hardly ever, and a mean of so many says what the data are like.
FEWEST_HELD = 16


def margin(chance: float, samples: int, *, best: bool = False) -> float:
    """Return how far from `chance` an accuracy on so many samples comes by luck: a single one, or the best of many.

    Example:
        >>> round(margin(0.5, 100), 3), round(margin(0.5, 100, best=True), 3)
        (0.125, 0.175)
    """
    return (_SURE if best else _SURE_ONCE) * math.sqrt(chance * (1 - chance) / samples)


def validation_samples(run: Readings) -> int:
    """Return how many samples the validation accuracy is of. 200 where nobody says."""
    return run.validation_samples or _USUAL_VALIDATION


def widened(threshold: float, run: Readings) -> float:
    """Return a threshold of the validation loss, widened where few samples make its changes: as 1 / sqrt(n) below 100.

    Example:
        >>> from fusetune.tuner.diagnosis.readings import Readings
        >>> widened(0.1, Readings([], [], {}, None, None, None, 1, validation_samples=25))
        0.2
    """
    return threshold * math.sqrt(max(1.0, 100 / validation_samples(run)))


def can_be_learnt_by_heart(run: Readings) -> bool:
    """Whether there were steps and passes enough to learn samples by heart, and samples enough to learn more."""
    training = run.first.get("training_samples")
    few = training is not None and training < max(
        _FEWEST_TRAINING, _SAMPLES_PER_CLASS * run.first.get("classes", 2)
    )
    return run.steps >= FEW_STEPS and run.epochs >= PASSES and not few


def leaves_chance(run: Readings, accuracy: float, chance: float) -> bool:
    """Whether a validation accuracy is above chance beyond luck.

    Whatever a model has learnt by heart, near samples get equal answers, so many validation samples count like 200.
    """
    return accuracy > chance + margin(chance, min(validation_samples(run), _USUAL_VALIDATION), best=True)


def is_learnt(run: Readings, chance: float) -> bool:
    """Whether the accuracy on training samples is above chance beyond luck: on held ones, or over the last epoch."""
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
