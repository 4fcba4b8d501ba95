"""The outcome of a training: target reached or not, diverged, stopped early, and its numbers (no torch).

time_to_target_s = steps_to_target x step_time_s
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

from fusetune.errors import InvalidValueError
from fusetune.tuner.measure import Contention, total

Curve = Sequence[Mapping[str, float | None]]

# A mean training loss over an epoch above this many times the untrained model's is counted as diverged.
DIVERGENCE_FACTOR = 4.0

_LOSSES = ("val_loss", "test_loss", "train_loss")
_ACCURACIES = ("val_accuracy", "test_accuracy", "train_accuracy")


@dataclass(frozen=True)
class Crossing:
    """The end of the epoch at which a target first held."""

    epoch: int
    steps: int
    samples: int
    time_s: float


@dataclass(frozen=True)
class Target:
    """A metric of the curve and the value it is to reach: `at_least` for an accuracy, `at_most` for a loss.

    Args:
        metric: val_, test_ or train_ followed by accuracy or loss.
        at_least: fraction, above 0 and at most 1.
        at_most: loss, above 0.

    Raises:
        ValueError: an unknown metric, the bound of the other direction, none or both, or one out of range.

    Example:
        >>> Target("val_accuracy", at_least=0.9).reached(0.93), Target("val_loss", at_most=0.5).reached(None)
        (True, False)
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        rising = higher_is_better(self.metric)
        wanted, other = (self.at_least, self.at_most) if rising else (self.at_most, self.at_least)
        name = "at_least" if rising else "at_most"
        if wanted is None or other is not None:
            raise InvalidValueError("target", f"{self.metric} takes {name}, and only that")
        upper = 1.0 if rising else math.inf
        if not (0 < wanted <= upper and math.isfinite(wanted)):
            span = "above 0 and at most 1 (a fraction, not per cent)" if rising else "above 0 and finite"
            raise InvalidValueError("target", f"{self.metric} {name} {wanted} must be {span}")

    def reached(self, value: float | None) -> bool:
        """Return whether a value meets the target. One that is not known or not finite does not."""
        if value is None or not math.isfinite(value):
            return False
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most

    def first_crossing(self, curve: Curve) -> Crossing | None:
        """Return the first epoch's end at which the target holds. Nothing is interpolated between epochs.

        Example:
            >>> curve = [{"epoch": 1, "step": 10, "samples": 640, "time_s": 0.5, "val_loss": 0.9},
            ...          {"epoch": 2, "step": 20, "samples": 1280, "time_s": 1.0, "val_loss": 0.4}]
            >>> Target("val_loss", at_most=0.5).first_crossing(curve)
            Crossing(epoch=2, steps=20, samples=1280, time_s=1.0)
        """
        for entry in curve:
            if self.reached(entry.get(self.metric)):
                return Crossing(
                    epoch=int(_known(entry, "epoch")),
                    steps=int(_known(entry, "step")),
                    samples=int(_known(entry, "samples")),
                    time_s=_known(entry, "time_s"),
                )
        return None

    def __str__(self) -> str:
        if self.at_least is not None:
            return f"{self.metric} >= {self.at_least:g}"
        return f"{self.metric} <= {self.at_most:g}"


@dataclass(frozen=True)
class EarlyStop:
    """Stop when `patience` epochs in a row have not bettered the best value by more than `min_delta`.

    Args:
        metric: as for `Target`.
        patience: epochs, 1 or more.
        min_delta: in the metric's unit, 0 or more.

    Raises:
        ValueError: an unknown metric, or numbers out of range.

    Example:
        >>> stop = EarlyStop("val_accuracy", patience=2)
        >>> stop.reason([{"epoch": 1, "val_accuracy": 0.8}, {"epoch": 2, "val_accuracy": 0.7}])
        >>> stop.reason([{"epoch": e, "val_accuracy": a} for e, a in ((1, 0.8), (2, 0.7), (3, 0.8))])
        'val_accuracy has not improved on 0.8 of epoch 1 for 2 epochs'
    """

    metric: str = "val_accuracy"
    patience: int = 4
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        higher_is_better(self.metric)
        if self.patience < 1:
            raise InvalidValueError("early_stop.patience", f"{self.patience} must be 1 epoch or more")
        if not (self.min_delta >= 0 and math.isfinite(self.min_delta)):
            raise InvalidValueError("early_stop.min_delta", f"{self.min_delta} must be 0 or more, and finite")

    def reason(self, curve: Curve) -> str | None:
        """Return why to stop after the curve's last epoch, or None to go on."""
        sign = 1.0 if higher_is_better(self.metric) else -1.0
        best, best_epoch, waited = -math.inf, 0, 0
        for entry in curve:
            value = entry.get(self.metric)
            if value is not None and sign * value > best + self.min_delta:
                best, best_epoch, waited = sign * value, int(_known(entry, "epoch")), 0
            else:
                waited += 1
        if waited < self.patience:
            return None
        epochs = "1 epoch" if waited == 1 else f"{waited} epochs"
        if not best_epoch:
            return f"{self.metric} has not been finite for {epochs}"
        delta = f" by more than {self.min_delta:g}" if self.min_delta else ""
        return (
            f"{self.metric} has not improved on {sign * best:.4g} of epoch {best_epoch}{delta} for {epochs}"
        )


@dataclass(frozen=True)
class Training:
    """The course of one training, in SI units.

    Args:
        curve: one mapping per epoch: epoch (from 1), step, samples and time_s so far, train_loss, train_accuracy,
            val_loss, val_accuracy, test_* where the target asks for it, and lr and grad_norm of its last step.
            None stands for a number that is not finite or was not measured. An epoch that was cut short is here only
            if it diverged.
        step_times_s: every step's time on the training clock.
        samples_per_step: batch_size x accumulation_steps.
        planned_epochs: the epochs that were asked for.
        first_step_s: an untimed step before the training, with what only a first step costs (after compilation).
        compile_s: the step before that one, with torch.compile's work. None when nothing was compiled.
        evaluation_s: seconds of all evaluations, which are not on the training clock.
        peak_bytes: the most memory used.
        diverged: why the training is counted as diverged, or None.
        stopped_early: why it ended before the planned epochs (patience or time limit), or None.
        test_loss, test_accuracy: of the final model, where there is a test set and it did not diverge.
        statistics: snapshots of the layers, before training and after each epoch, see
            `tuner.diagnosis.layer_statistics`. Empty where they were not asked for.
        statistics_s: seconds of the snapshots, which are not on the training clock.
        contention: of each epoch, see `tuner.measure.contention`. That of the second timing where there was one.
        replaced_step_times_s: epoch -> the step times that a second timing replaced, because they were contended.
    """

    curve: list[dict[str, float | None]]
    step_times_s: list[float]
    samples_per_step: int
    planned_epochs: int
    first_step_s: float
    evaluation_s: float
    peak_bytes: int
    compile_s: float | None = None
    diverged: str | None = None
    stopped_early: str | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    statistics: list[dict[str, Any]] = field(default_factory=list)
    statistics_s: float = 0.0
    contention: list[Contention] = field(default_factory=list)
    replaced_step_times_s: dict[int, list[float]] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Optimizer updates made."""
        return len(self.step_times_s)

    @property
    def samples(self) -> int:
        """Samples that these updates used."""
        return self.steps * self.samples_per_step

    @property
    def epochs(self) -> int:
        """Epochs in the curve."""
        return len(self.curve)

    @property
    def training_s(self) -> float:
        """Time on the training clock: the sum of all steps."""
        return math.fsum(self.step_times_s)


def higher_is_better(metric: str) -> bool:
    """Return whether a metric of the curve is to rise (accuracies) or to fall (losses).

    Raises:
        ValueError: an unknown metric. The known ones are listed.

    Example:
        >>> higher_is_better("val_accuracy"), higher_is_better("train_loss")
        (True, False)
    """
    if metric not in _ACCURACIES + _LOSSES:
        raise InvalidValueError.unknown("metric", metric, _ACCURACIES + _LOSSES)
    return metric in _ACCURACIES


def divergence(entry: Mapping[str, float | None], untrained_loss: float) -> str | None:
    """Return why an epoch of a curve counts as diverged, or None: a loss that is not finite (None), or too large.

        train_loss > 4 * untrained_loss        where untrained_loss, that of the first step, is above 0

    Example:
        >>> divergence({"epoch": 2, "train_loss": 10.0, "val_loss": 9.0}, untrained_loss=2.0)
        'the mean training loss of epoch 2 was 10, above 4 times the 2 of the untrained model'
        >>> divergence({"epoch": 2, "train_loss": 1.0, "val_loss": 0.9}, untrained_loss=2.0)
    """
    for name, title in (("train_loss", "training"), ("val_loss", "validation")):
        if entry[name] is None:
            return f"the {title} loss was not finite at the end of epoch {entry['epoch']}"
    train_loss = _known(entry, "train_loss")
    if untrained_loss > 0 and train_loss > DIVERGENCE_FACTOR * untrained_loss:
        return (
            f"the mean training loss of epoch {entry['epoch']} was {train_loss:.4g}, "
            f"above {DIVERGENCE_FACTOR:g} times the {untrained_loss:.4g} of the untrained model"
        )
    return None


def status_of(training: Training, target: Target | None = None) -> tuple[str, str]:
    """Return status and reason: diverged before ok (target reached) before stopped_early before missed_target.

    Without a target, `ok` means that all epochs were run. A target that was reached stays reached if the training is
    stopped afterwards. The reason says both.

    Example:
        >>> training = Training([{"epoch": 1, "val_accuracy": 0.5}], [0.1], 64, 1, 0.2, 0.1, 0)
        >>> status_of(training), status_of(training, Target("val_accuracy", at_least=0.9))
        (('ok', ''), ('missed_target', 'val_accuracy >= 0.9 was not reached; best: 0.5 at epoch 1 of 1'))
    """
    crossing = target.first_crossing(training.curve) if target else None
    reached = f"{target} reached at epoch {crossing.epoch}; then " if crossing else ""
    if training.diverged:
        return "diverged", reached + training.diverged
    if crossing or (target is None and not training.stopped_early):
        return "ok", reached + training.stopped_early if training.stopped_early else ""
    if training.stopped_early:
        return "stopped_early", training.stopped_early
    assert target is not None
    return "missed_target", _shortfall(training, target)


def metrics_of(training: Training, target: Target | None = None) -> dict[str, float]:
    """Return metric -> number in SI units. A metric that does not exist or is not finite is absent.

        step_time_s = time on the clock / steps          up to the crossing of the target, over all steps without one
        step_time_median_s, step_time_q1_s, step_time_q3_s: quartiles of the same steps' times
        processor_missing: share of the processor that the same epochs asked for and did not get
        samples_per_s = samples of a step / step_time_s
        time_to_target_s = steps_to_target x step_time_s

    Example:
        >>> curve = [{"epoch": 1, "step": 2, "samples": 128, "time_s": 0.5, "val_accuracy": 0.9}]
        >>> found = metrics_of(Training(curve, [0.25, 0.25], 64, 1, 0.3, 0.1, 0), Target("val_accuracy", at_least=0.8))
        >>> found["steps_to_target"], found["step_time_s"], found["time_to_target_s"]
        (2, 0.25, 0.5)
    """
    crossing = target.first_crossing(training.curve) if target else None
    numbers: dict[str, float | None] = {
        "peak_bytes": training.peak_bytes,
        "steps": training.steps,
        "epochs": training.epochs,
        "samples": training.samples,
        "training_s": training.training_s,
        "evaluation_s": training.evaluation_s,
        "first_step_s": training.first_step_s,
        "compile_s": training.compile_s,
        "test_loss": training.test_loss,
        "test_accuracy": training.test_accuracy,
        "best_val_accuracy": max(_finite(training.curve, "val_accuracy"), default=None),
        "best_val_loss": min(_finite(training.curve, "val_loss"), default=None),
    }
    for metric in ("val_accuracy", "val_loss", "train_accuracy", "train_loss"):
        numbers[f"final_{metric}"] = training.curve[-1].get(metric) if training.curve else None
    steps = crossing.steps if crossing else training.steps
    time_s = crossing.time_s if crossing else training.training_s
    if steps:
        numbers["step_time_s"] = time_s / steps
        # A training that is rebuilt from its curve has no times of single steps.
        numbers |= _quartiles(training.step_times_s[:steps]) if training.step_times_s else {}
    if training.contention:
        missing = total(training.contention[: crossing.epoch if crossing else None]).missing
        numbers["processor_missing"] = missing
    if time_s:
        numbers["samples_per_s"] = training.samples_per_step * steps / time_s
    if crossing:
        numbers["steps_to_target"] = crossing.steps
        numbers["epochs_to_target"] = crossing.epoch
        numbers["samples_to_target"] = crossing.samples
        numbers["time_to_target_s"] = crossing.steps * (crossing.time_s / crossing.steps)
    return {name: number for name, number in numbers.items() if number is not None and math.isfinite(number)}


def _quartiles(step_times_s: Sequence[float]) -> dict[str, float]:
    """Return the median of the steps' times, which a stall does not move, and the quartiles."""
    low = high = step_times_s[0]
    if len(step_times_s) > 1:
        low, _, high = quantiles(step_times_s, n=4, method="inclusive")
    return {"step_time_median_s": median(step_times_s), "step_time_q1_s": low, "step_time_q3_s": high}


def _shortfall(training: Training, target: Target) -> str:
    """Say how near the training came to a target that it missed."""
    pick = max if higher_is_better(target.metric) else min
    best = pick(_finite(training.curve, target.metric), default=None)
    if best is None:
        return f"{target} was not reached; {target.metric} was never finite"
    epoch = next(entry["epoch"] for entry in training.curve if entry.get(target.metric) == best)
    return f"{target} was not reached; best: {best:.4g} at epoch {epoch} of {training.planned_epochs}"


def _finite(curve: Curve, metric: str) -> Iterator[float]:
    """Yield a metric's finite values, epoch by epoch."""
    for entry in curve:
        value = entry.get(metric)
        if value is not None and math.isfinite(value):
            yield value


def _known(entry: Mapping[str, float | None], name: str) -> float:
    """Return a number that every entry of a curve has."""
    value = entry[name]
    assert value is not None
    return value
