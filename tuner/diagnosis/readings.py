"""The quantities that the rules read: from a training's curve and from the snapshots of its layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from fusetune.tuner.training import Curve

# Thresholds that several rules share.
LEARNT_NOTHING = 0.95  # entropies of the labels
FEW_STEPS = 100
STILL = 1.5e-3  # movement of the weights per step
NEAR = 0.6  # movement below which the weights are still near their start
HARDLY_MOVED = 0.3  # movement below which hardly anything can have been learnt
HIGH = 0.8  # entropies; below it, noisy labels and a model that is too small look alike
FLAT = 0.04  # share by which a loss falls over the last third of its epochs


@dataclass(frozen=True)
class Readings:
    """A training's numbers, and the quantities that rules derive from them."""

    curve: Curve
    snapshots: Sequence[Mapping[str, Any]]
    initial: Mapping[str, float]
    diverged: str | None
    given_noise_scale: float | None
    batch_size: int | None
    planned_epochs: int
    validation_samples: int | None = None

    def column(self, name: str) -> list[float]:
        """Return a metric's finite values, epoch by epoch."""
        return [
            value for entry in self.curve if (value := entry.get(name)) is not None and math.isfinite(value)
        ]

    @property
    def first(self) -> Mapping[str, Any]:
        """The untrained model's snapshot, or an empty one."""
        return self.snapshots[0] if self.snapshots else {}

    @property
    def held_samples(self) -> int:
        """Samples that the snapshots look at. 0 without snapshots."""
        return int(self.first.get("samples") or 0)

    @property
    def epochs(self) -> int:
        """Epochs made."""
        return len(self.curve)

    @property
    def last(self) -> Mapping[str, Any]:
        """The last snapshot, or an empty one."""
        return self.snapshots[-1] if self.snapshots else {}

    @cached_property
    def entropy(self) -> float | None:
        """Loss of a blind guess: the labels' entropy, or the untrained loss where that is no cross entropy."""
        known = self.first.get("label_entropy", self.initial.get("label_entropy", self.initial.get("loss")))
        loss, classes = self.first.get("loss"), self.first.get("classes", 0)
        if loss and classes > 1 and (self.first.get("output_std") or math.inf) < 1:
            # Logits near 0 give a cross entropy of log(classes), whatever the labels.
            known = known if 0.5 < loss / math.log(classes) < 1.9 else loss
        return known if known and known > 0 else None

    @cached_property
    def start_loss(self) -> float | None:
        """Loss of the untrained model."""
        loss: float | None = self.first.get("loss", self.initial.get("loss", self.entropy))
        return loss

    @cached_property
    def fit(self) -> list[float]:
        """Training loss at the end of each epoch, in entropies; of fixed samples where there are snapshots."""
        if self.entropy is None:
            return []
        if len(self.snapshots) > 1:
            losses = [snapshot["loss"] for snapshot in self.snapshots[1:] if snapshot["loss"] is not None]
        else:
            losses = self.column("train_loss")
        return [loss / self.entropy for loss in losses]

    @cached_property
    def val(self) -> list[float]:
        """Validation loss in entropies."""
        return [loss / self.entropy for loss in self.column("val_loss")] if self.entropy else []

    @property
    def steps(self) -> float:
        """Updates made."""
        return self.curve[-1].get("step") or 0

    @cached_property
    def chance(self) -> float | None:
        """Accuracy of the best constant guess."""
        share: float | None = self.first.get("label_majority", self.initial.get("label_majority"))
        return share

    def layers(self, snapshot: Mapping[str, Any], number: str) -> list[tuple[str, float]]:
        """Return name and value of every layer that has this number."""
        return [
            (layer["name"], layer[number])
            for layer in snapshot.get("layers", ())
            if layer.get(number) is not None
        ]

    def most(self, snapshot: Mapping[str, Any], number: str) -> tuple[str, float]:
        """Return the layer with the largest number."""
        return max(self.layers(snapshot, number), key=lambda item: item[1], default=("", 0.0))

    @cached_property
    def moved(self) -> list[tuple[float, float]]:
        """Steps made, and movement of the layer that moved most, at each snapshot after the first."""
        steps = {entry["epoch"]: entry.get("step") or 0 for entry in self.curve}
        return [
            (float(steps.get(snapshot["epoch"], 0)), self.most(snapshot, "moved")[1])
            for snapshot in self.snapshots[1:]
        ]

    @cached_property
    def noise_scale(self) -> float | None:
        """tr(S) / |G|^2 over the second half of the snapshots, or as given."""
        if self.given_noise_scale is not None:
            return self.given_noise_scale
        seen = [s for s in self.snapshots[1:] if s.get("gradient_noise") is not None]
        seen = seen[len(seen) // 2 :]
        if not seen:
            return None
        noise = math.fsum(s["gradient_noise"] for s in seen)
        square = math.fsum(s["gradient_square"] for s in seen)
        return noise / square if square > 0 else math.inf

    @property
    def few_parameters(self) -> bool:
        """Whether the model is known to have fewer parameters than an eighth of the training samples."""
        parameters, samples = self.first.get("parameters"), self.first.get("training_samples")
        return parameters is not None and samples is not None and parameters < samples / 8

    @property
    def has_decayed(self) -> bool:
        """Whether the learning rate has decayed below a tenth of its highest value."""
        rates = self.column("lr")
        return bool(rates) and rates[-1] < max(rates) / 10

    @property
    def gap(self) -> float:
        """Generalisation gap: validation loss minus the larger of the losses on held samples and over the epoch."""
        epochs = self.column("train_loss")
        return self.val[-1] - max(self.fit[-1], epochs[-1] / self.entropy if epochs and self.entropy else 0.0)


def unrest(losses: Sequence[float]) -> float:
    """Return the oscillation of a loss between epochs, the first third of them left out.

        (sum |L_e - L_(e-1)| - |L_last - L_first|) / changes        0 for a loss that only falls, or only rises

    It is 0 with fewer than two changes.

    Example:
        >>> unrest([2.0, 1.5, 1.0, 0.5]), unrest([1.0, 1.0, 1.5, 1.0])
        (0.0, 0.5)
    """
    late = losses[len(losses) // 3 :]
    changes = [b - a for a, b in pairwise(late)]
    return (sum(map(abs, changes)) - abs(sum(changes))) / len(changes) if changes else 0.0


def fall_of(losses: Sequence[float]) -> float:
    """Return the relative fall of a loss over the last third of its epochs."""
    before = losses[-1 - max(1, len(losses) // 3)] if len(losses) > 1 else losses[-1]
    return (before - losses[-1]) / before if before else 0.0


def share_of_falls(losses: Sequence[float]) -> float:
    """Return the share of epochs, the first left out, in which a loss fell."""
    falls = [a > b for a, b in pairwise(losses)]
    return sum(falls) / len(falls) if falls else 0.0
