"""What a training's curve and the snapshots of its layers say is wrong, in words, with a next thing to try (no torch).

    findings = diagnose(training.curve, statistics=training.statistics)

Causes come before symptoms: inputs and labels, then signals that do not pass the untrained layers, then the learning
rate and the batch, then how well the model fits. The first that finds something speaks, for what follows would only
describe its consequences. A sound training has no findings.

The thresholds were set on small trainings that were made to have each fault (tests/tuner/faulty_runs.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

from tuner.convergence import Curve

Confidence = Literal["sure", "likely"]

FINDINGS: dict[str, str] = {
    "input_fault": "inputs not normalised",
    "label_fault": "labels do not fit the inputs",
    "dead_relus": "dead relus",
    "saturated_units": "saturated units",
    "exploding_gradients": "exploding gradients",
    "vanishing_gradients": "vanishing gradients",
    "learning_rate_too_high": "learning rate too high",
    "batch_too_small": "batch too small for its noise",
    "learning_rate_too_low": "learning rate too low",
    "plateau": "plateau or saddle",
    "too_few_epochs": "too few epochs",
    "underfitting": "underfitting",
    "overfitting": "overfitting",
}

# Inputs: standardised ones have a mean near 0 and a standard deviation near 1; raw pixels in 0..1 have about 0.3.
_LARGEST_INPUT_STD = 20.0
_SMALLEST_INPUT_STD = 0.02
_LARGEST_INPUT_MEAN = 5.0  # in standard deviations
# Layers.
_DEAD = 0.8
_SATURATED_AT_START = 0.45
_SATURATED = 0.9
_EXPLODED_LOSS = 4.0  # in entropies of the labels
_VANISHED = 1e-4  # first layer's relative gradient over the last's
# Learning rate.
_THROWN = 1.5  # in losses of the untrained model
_MOVED_PER_ROOT_STEP = 1.0
_LOST = 6.0  # movement after which a model that has learnt nothing has been thrown about
_OSCILLATION = 0.12  # mean rise of the loss from an epoch to the next, in entropies of the labels
_STILL = 1.5e-3  # movement of the weights per step
_NEAR = 0.6
# Batch: noise scale over batch size, and mean changes of the loss between epochs.
_NOISY = 5
_RESTLESS = 0.07
_RESTLESS_VALIDATION = 0.03
# Fit; losses in entropies of the labels.
_LEARNT_NOTHING = 0.95
_AT_CHANCE = 0.95
_FEW_STEPS = 100
_FLAT = 0.04
_UNDERFIT = 0.8  # below that, noisy labels look the same where the model is not known to be small


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a training.

    Args:
        name: a key of `FINDINGS`.
        sentence: what is wrong, with the numbers that show it.
        evidence: name -> number.
        try_next: what to do about it.
        confidence: `sure` where nothing else explains the evidence, else `likely`.
    """

    name: str
    sentence: str
    evidence: dict[str, float] = field(default_factory=dict)
    try_next: str = ""
    confidence: Confidence = "likely"

    @property
    def title(self) -> str:
        """The finding in a few words."""
        return FINDINGS[self.name]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object; evidence that is not finite is left out."""
        evidence = {name: number for name, number in self.evidence.items() if math.isfinite(number)}
        return {**asdict(self), "title": self.title, "evidence": evidence}


def diagnose(
    curve: Curve,
    *,
    statistics: Sequence[Mapping[str, Any]] | None = None,
    initial: Mapping[str, float] | None = None,
    diverged: str | None = None,
    noise_scale: float | None = None,
    batch_size: int | None = None,
    planned_epochs: int | None = None,
) -> list[Finding]:
    """Name what is wrong with a training; an empty list when nothing is.

    With the curve alone it names learning rates, overfitting, underfitting and the number of epochs; with the
    snapshots of the layers also the rest.

    Args:
        curve: a training's, one mapping per epoch, see `tuner.convergence.Training`.
        statistics: its snapshots, see `tuner.layer_statistics`: the untrained model's first.
        initial: where there are no snapshots: `loss` of the untrained model, or `label_entropy` (nats) and
            `label_majority` (share of the commonest label).
        diverged: why it counts as diverged, or None.
        noise_scale: the gradient noise scale in samples, where known; else the snapshots of small batches give it.
        batch_size: samples of a step, accumulation included.
        planned_epochs: those that were asked for; default: those of the curve.

    Raises:
        ValueError: no curve, or a batch size or noise scale that is not positive.

    Example:
        >>> losses = [2.3, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02]
        >>> validation = [2.3, 1.2, 0.9, 0.8, 0.9, 1.0, 1.2, 1.4]
        >>> curve = [{"epoch": e + 1, "step": 100 * (e + 1), "train_loss": t, "val_loss": v, "lr": 0.1,
        ...           "train_accuracy": None, "val_accuracy": None, "grad_norm": 1.0}
        ...          for e, (t, v) in enumerate(zip(losses, validation))]
        >>> [finding.name for finding in diagnose(curve, initial={"loss": 2.3})]
        ['overfitting']

    Source: I. Goodfellow, Y. Bengio, A. Courville, "Deep Learning" (2016), chapter 11; L. N. Smith, "A disciplined
        approach to neural network hyper-parameters" (2018); A. Karpathy, "A recipe for training neural
        networks" (2019).
    """
    if not curve:
        raise ValueError("curve: empty; a diagnosis needs one epoch or more")
    for name, value in (("batch_size", batch_size), ("noise_scale", noise_scale)):
        if value is not None and not value > 0:
            raise ValueError(f"{name}: {value} must be above 0")
    run = _Run(
        curve,
        statistics or [],
        initial or {},
        diverged,
        noise_scale,
        batch_size,
        planned_epochs or len(curve),
    )
    for group in _GROUPS:
        for rule in group:
            if (finding := rule(run)) is not None:
                followed = _CONSEQUENCES if rule in (_lr_too_high, _batch_too_small) else ()
                return [finding, *(found for rule in followed if (found := rule(run)) is not None)]
    return []


@dataclass(frozen=True)
class _Run:
    """A training's numbers, and what the rules read off them."""

    curve: Curve
    snapshots: Sequence[Mapping[str, Any]]
    initial: Mapping[str, float]
    diverged: str | None
    given_noise_scale: float | None
    batch_size: int | None
    planned_epochs: int

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
        return self.first.get("loss", self.initial.get("loss", self.entropy))

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
        return self.first.get("label_majority", self.initial.get("label_majority"))

    def layers(self, snapshot: Mapping[str, Any], number: str) -> list[tuple[str, float]]:
        """Return name and number of the layers that have it."""
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


# ---- data


def _input_fault(run: _Run) -> Finding | None:
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


def _constant_labels(run: _Run) -> Finding | None:
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


def _labels_do_not_fit(run: _Run) -> Finding | None:
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
    if run.val[-1] - run.fit[-1] < 0.04:
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


# ---- signals


def _dead_from_the_start(run: _Run) -> Finding | None:
    """An untrained layer of rectifiers where most units are 0 for every sample: no gradient passes them."""
    layer, untrained = run.most(run.first, "dead_share")
    if untrained < _DEAD:
        return None
    return Finding(
        "dead_relus",
        f"Before training, {untrained:.0%} of the units of layer {layer} are 0 on every sample.",
        {"dead_share_untrained": untrained, "dead_share": run.most(run.last, "dead_share")[1]},
        "Look at the initialisation (biases at 0, He's weights) and at the inputs; or use leaky_relu or a norm.",
        "sure",
    )


def _dead_by_training(run: _Run) -> Finding | None:
    """A layer of rectifiers that has died since: a step too long takes units where they are never positive."""
    _, untrained = run.most(run.first, "dead_share")
    layer, trained = run.most(run.last, "dead_share")
    if trained < _DEAD or not run.fit or run.fit[-1] < 0.3:
        return None
    return Finding(
        "dead_relus",
        f"{trained:.0%} of the units of layer {layer} are 0 on every sample; before training {untrained:.0%} were.",
        {"dead_share_untrained": untrained, "dead_share": trained},
        "Lower the learning rate, warm it up, or clip the gradients; or use leaky_relu or a norm.",
    )


def _saturated_from_the_start(run: _Run) -> Finding | None:
    """An untrained layer of sigmoids or tanhs at the ends of their range, where the slope is below a tenth.

    Source: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010).
    """
    layer, untrained = run.most(run.first, "saturated_share")
    if untrained < _SATURATED_AT_START:
        return None
    return Finding(
        "saturated_units",
        f"Before training, {untrained:.0%} of the outputs of layer {layer} are at the ends of their range, where "
        "hardly any gradient passes.",
        {
            "saturated_share_untrained": untrained,
            "saturated_share": run.most(run.last, "saturated_share")[1],
        },
        "Use smaller initial weights (Xavier's), standardise the inputs, or put a norm before the activation.",
        "sure",
    )


def _saturated_by_training(run: _Run) -> Finding | None:
    """A layer of sigmoids or tanhs that training has driven to the ends of their range, and that did not learn."""
    _, untrained = run.most(run.first, "saturated_share")
    layer, trained = run.most(run.last, "saturated_share")
    if trained < _SATURATED or not run.fit or run.fit[-1] < 0.5:
        return None
    return Finding(
        "saturated_units",
        f"{trained:.0%} of the outputs of layer {layer} are at the ends of their range, where hardly any gradient "
        f"passes; before training it was {untrained:.0%}.",
        {"saturated_share_untrained": untrained, "saturated_share": trained},
        "Lower the learning rate, or put a norm before the activation.",
    )


def _exploding(run: _Run) -> Finding | None:
    """An untrained model whose loss is several entropies: its signals grow from layer to layer.

    loss_0 > 4 H(labels)        a sound initialisation gives about H, for its logits are near 0
    """
    if not run.first or run.entropy is None:
        return None
    loss = run.first.get("loss")
    growth = (run.first.get("output_std") or math.inf) / (run.first.get("input_std") or 1.0)
    if loss is not None and (loss < _EXPLODED_LOSS * run.entropy or growth < 2):
        return None
    layer, norm = run.most(run.first, "grad_norm")
    shown = "not finite" if loss is None else f"{loss:.3g}"
    return Finding(
        "exploding_gradients",
        f"Before training the loss is {shown}, where a blind guess has {run.entropy:.3g}: signals grow on their way "
        f"through the layers, and gradients with them (norm {norm:.3g} in layer {layer}).",
        {
            "untrained_loss": math.inf if loss is None else loss,
            "label_entropy": run.entropy,
            "grad_norm": norm,
        },
        "Use He's or Xavier's initial weights, a norm in each layer, or clip the gradients.",
        "sure",
    )


def _vanishing(run: _Run) -> Finding | None:
    """Gradients, relative to the weights, that shrink by orders of magnitude from the last layer to the first.

    r = (|g_1| / |w_1|) / (|g_L| / |w_L|)        of the untrained model and of the trained one
    """
    if run.fit and run.fit[-1] < 0.3:
        return None
    ratios = [
        ratio for snapshot in (run.first, run.last) if (ratio := _gradient_ratio(run, snapshot)) is not None
    ]
    if not ratios or min(ratios[0], max(ratios)) >= _VANISHED:
        return None
    return Finding(
        "vanishing_gradients",
        f"Relative to its weights, the first layer's gradient is {ratios[0]:.1g} times the last layer's: "
        "the first layers hardly learn.",
        {"gradient_ratio_untrained": ratios[0], "gradient_ratio": ratios[-1]},
        "Use relu or gelu instead of sigmoid, He's or Xavier's initial weights, norms, residual connections, "
        "or fewer layers.",
        "sure",
    )


def _gradient_ratio(run: _Run, snapshot: Mapping[str, Any]) -> float | None:
    """Return the first weighted layer's relative gradient over the last's, or None where it says nothing."""
    relative = [
        layer["grad_norm"] / layer["weight_norm"]
        for layer in snapshot.get("layers", ())
        if layer.get("grad_norm") is not None and layer.get("weight_norm")
    ]
    if len(relative) < 3 or not relative[-1]:
        return None
    return relative[0] / relative[-1]


# ---- learning rate


def _lr_too_high(run: _Run) -> Finding | None:
    """Steps longer than the loss is smooth: it diverges, is thrown above its start, or goes up and down.

    thrown:       an epoch's training loss > 1.5 times the untrained model's, and not learnt since
    moved:        |w - w_0| / |w_0| > sqrt(steps)        a sound training stays below half of that
    oscillating:  mean over the epochs of max(0, L_e - L_{e-1}) > 0.12 entropies, at more than a third of the top lr
    """
    fix = "Divide the learning rate by 3 to 10, or warm it up; an LR range test shows where it diverges."
    rates = run.column("lr")
    lr = max(rates, default=math.nan)
    if run.diverged is not None or not all(entry.get("train_loss") is not None for entry in run.curve):
        why = run.diverged or "the loss was not finite"
        return Finding("learning_rate_too_high", f"The training diverged: {why}.", {"lr": lr}, fix, "sure")
    if not run.fit or run.entropy is None or run.start_loss is None:
        return None
    worst = max(run.column("train_loss") + run.column("val_loss"))
    start = max(run.start_loss, run.entropy)
    if worst > _THROWN * start and min(run.fit) > 0.1 and worst in run.column("train_loss"):
        return Finding(
            "learning_rate_too_high",
            f"The training loss was thrown to {worst:.3g}; the untrained model's was {run.start_loss:.3g}.",
            {"lr": lr, "worst_loss": worst, "untrained_loss": run.start_loss},
            fix,
            "sure",
        )
    far = max((moved / math.sqrt(steps) for steps, moved in run.moved if steps), default=0.0)
    harmed = run.fit[-1] > 0.05 or (len(run.val) > 0 and run.val[-1] > 0.3)
    lost = (
        min(run.fit) > _LEARNT_NOTHING
        and not _few_parameters(run)
        and (far > _MOVED_PER_ROOT_STEP / 2 or max((moved for _, moved in run.moved), default=0.0) > _LOST)
    )
    if (far > _MOVED_PER_ROOT_STEP and harmed) or lost:
        steps, moved = max(run.moved, key=lambda item: item[1] / math.sqrt(item[0]) if item[0] else 0.0)
        return Finding(
            "learning_rate_too_high",
            f"After {steps:.0f} steps the weights of a layer had moved by {moved:.3g} times their size, and the "
            f"loss is {run.fit[-1]:.0%} of a blind guess's.",
            {"lr": lr, "moved": moved, "steps": steps},
            fix,
        )
    rise = _mean_rise(run)
    if rise is not None and rise > _OSCILLATION:
        return Finding(
            "learning_rate_too_high",
            f"The loss goes up and down from epoch to epoch, up by {rise * run.entropy:.3g} on average.",
            {"lr": lr, "mean_rise": rise * run.entropy},
            fix,
        )
    return None


def _mean_rise(run: _Run) -> float | None:
    """Return the mean of the rises of the loss between epochs at a high lr, in entropies; falls count as 0."""
    losses, entries = run.fit, run.curve
    if len(losses) != len(entries) or len(losses) < 4:
        return None
    top = max((entry.get("lr") or 0.0 for entry in entries), default=0.0)
    rises = [
        max(0.0, b - a)
        for a, b, entry in zip(losses, losses[1:], entries[1:], strict=False)
        if (entry.get("lr") or 0.0) >= top / 3
    ]
    return sum(rises) / len(rises) if len(rises) >= 3 else None


def _batch_too_small(run: _Run) -> Finding | None:
    """A batch far below the noise scale, and a loss that no longer falls: steps follow the noise.

        B_noise = tr(S) / |G|^2        a batch B sees the gradient with a relative variance of B_noise / B

    Source: S. McCandlish et al., "An empirical model of large-batch training" (2018).
    """
    noise, size = run.noise_scale, run.batch_size
    if (
        noise is None
        or size is None
        or noise < _NOISY * size
        or run.steps < _FEW_STEPS
        or run.diverged is not None
    ):
        return None
    if not run.fit or not run.val or run.fit[-1] < 0.1 or run.val[-1] < 0.5:
        return None
    restless = _mean_change(run.fit) > _RESTLESS or _mean_change(run.val) > _RESTLESS_VALIDATION
    # A model that overfits has learnt its training samples when validation turns.
    turned = run.val[-1] > 1.08 * min(run.val) and run.fit[-1] > 0.3
    harmed = any(rule(run) is not None for rule in (_lr_too_high, _dead_by_training, _saturated_by_training))
    if not (restless or turned or harmed):
        return None
    shown = "beyond measure" if math.isinf(noise) else f"about {noise:.0f} samples"
    return Finding(
        "batch_too_small",
        f"A step sees {size} samples while the gradient's noise scale is {shown}: steps follow the noise, "
        f"and the loss goes up and down at {run.fit[-1]:.0%} of a blind guess's.",
        {"batch_size": float(size), "noise_scale": noise, "fit": run.fit[-1]},
        f"Use a batch of {8 * size} or more (or accumulate gradients), or divide the learning rate by 5 and let it "
        "decay to 0.",
    )


def _mean_change(losses: Sequence[float]) -> float:
    """Return the mean size of a loss's changes from epoch to epoch, the first third of the epochs left out."""
    late = losses[len(losses) // 3 :]
    changes = [abs(b - a) for a, b in pairwise(late)]
    return sum(changes) / len(changes) if changes else 0.0


# ---- fit


def _fall(losses: Sequence[float]) -> float:
    """Return by which share a loss fell over the last third of its epochs."""
    before = losses[-1 - max(1, len(losses) // 3)] if len(losses) > 1 else losses[-1]
    return (before - losses[-1]) / before if before else 0.0


def _stuck(run: _Run) -> Finding | None:
    """A loss that stays at the entropy of the labels: why depends on what the weights did.

    moved hardly at all, large gradient: learning rate too low;  small gradient: plateau or saddle
    few steps: too few epochs;  few parameters: underfitting;  else labels that say nothing about the inputs
    """
    if not run.fit or min(run.fit) < _LEARNT_NOTHING or not run.snapshots:
        return None
    moved = run.moved[-1][1] if run.moved else 0.0
    evidence = {"fit": run.fit[-1], "moved": moved, "steps": float(run.steps)}
    gradients = run.column("grad_norm")
    shrunk = gradients[-1] / gradients[0] if len(gradients) > 1 and gradients[0] else 1.0
    same = f"After {run.steps:.0f} steps the loss is still that of a blind guess"
    if moved < _STILL * run.steps and moved < 0.3:
        if shrunk < 0.1:
            return Finding(
                "plateau",
                f"{same}, and the gradient's norm has shrunk to {shrunk:.1g} of its first.",
                {**evidence, "gradient_shrunk": shrunk},
                "Start from other initial weights, or leave it by a larger learning rate, momentum or Adam.",
            )
        return Finding(
            "learning_rate_too_low",
            f"{same}, for the weights have moved by only {moved:.1%} of their size.",
            evidence,
            "Multiply the learning rate by 10, or run an LR range test.",
        )
    if run.steps < _FEW_STEPS:
        return _too_few(run, evidence)
    if _few_parameters(run):
        return _underfits(run, evidence)
    return Finding(
        "label_fault",
        f"{same}, although the weights have moved by {moved:.2g} times their size: the labels seem to have nothing to "
        "do with the inputs.",
        evidence,
        "Look at some samples beside their labels. If they are right, the model may be too simple for them.",
    )


def _few_parameters(run: _Run) -> bool:
    """Return whether the model is known to have less than a parameter for 8 samples."""
    parameters, samples = run.first.get("parameters"), run.first.get("training_samples")
    return parameters is not None and samples is not None and parameters < samples / 8


def _lr_too_low(run: _Run) -> Finding | None:
    """Steps so short that the loss falls smoothly and little, and the weights hardly move.

    with snapshots:   |w - w_0| / |w_0| < 0.0015 steps, and growing, at a loss still above 0.3 entropies
    the curve alone:  the training loss falls in 9 of 10 epochs, validation's too, and stays above 0.5 entropies
    """
    if not run.fit or run.fit[-1] < 0.3 or run.steps < _FEW_STEPS:
        return None
    if not run.moved:
        return _smooth_and_slow(run)
    steps, moved = run.moved[-1]
    settled = moved < 2 * run.moved[0][1]
    if moved >= _STILL * steps or moved > _NEAR or settled:
        return None
    return Finding(
        "learning_rate_too_low",
        f"In {steps:.0f} steps the weights have moved by {moved:.1%} of their size and the loss has come to "
        f"{run.fit[-1]:.0%} of a blind guess's.",
        {"steps": steps, "moved": moved, "fit": run.fit[-1]},
        "Multiply the learning rate by 3 to 10, or run an LR range test.",
    )


def _smooth_and_slow(run: _Run) -> Finding | None:
    """Judge a learning rate as too low by the curve alone."""
    if run.fit[-1] < 0.5 or len(run.fit) < 5 or len(run.val) < 5:
        return None
    falls = min(sum(a > b for a, b in pairwise(losses)) / (len(losses) - 1) for losses in (run.fit, run.val))
    last = _fall(run.fit)
    if falls < 0.9 or not 0.0 < last < 0.15:
        return None
    return Finding(
        "learning_rate_too_low",
        f"The loss falls smoothly and slowly: {run.fit[-1]:.0%} of a blind guess's after {run.steps:.0f} steps, by "
        f"{last:.1%} over the last third.",
        {"fit": run.fit[-1], "fall": last, "steps": float(run.steps)},
        "Multiply the learning rate by 3 to 10, or run an LR range test.",
    )


def _too_few_epochs(run: _Run) -> Finding | None:
    """A loss that is high and still falling fast at the end, on training and validation samples."""
    if not run.fit or not run.val:
        return None
    few = run.steps < _FEW_STEPS
    rates = run.column("lr")
    # A schedule that has come down makes a loss fall at its end by design.
    least = 0.5 if rates and rates[-1] < max(rates) / 10 else 0.2 if few else 0.25
    falling = (_fall(run.fit) > 0.12 and _fall(run.val) > 0.03) or (few and run.fit[-1] > 0.3)
    if run.fit[-1] < least or not falling:
        return None
    return _too_few(run, {"fit": run.fit[-1], "fall": _fall(run.fit), "steps": float(run.steps)})


def _too_few(run: _Run, evidence: dict[str, float]) -> Finding:
    """Say that there are too few epochs."""
    return Finding(
        "too_few_epochs",
        f"After {run.steps:.0f} steps the loss is {run.fit[-1]:.0%} of a blind guess's and still falling.",
        evidence,
        f"Train for {max(2, 3 * run.planned_epochs)} epochs instead of {run.planned_epochs}, or use a smaller batch.",
    )


def _underfitting(run: _Run) -> Finding | None:
    """A training loss that stays high and flat, with validation beside it: the model is too small for the data."""
    if not run.fit or not run.val or run.fit[-1] < 0.5 or len(run.fit) < 3 or run.steps < _FEW_STEPS:
        return None
    if _fall(run.fit) > _FLAT or run.val[-1] - run.fit[-1] > 0.15:
        return None
    if run.fit[-1] < _UNDERFIT and not _few_parameters(run):
        return None
    return _underfits(run, {"fit": run.fit[-1], "fall": _fall(run.fit)})


def _underfits(run: _Run, evidence: dict[str, float]) -> Finding:
    """Say that the model is too simple."""
    return Finding(
        "underfitting",
        f"The training loss stays at {run.fit[-1]:.0%} of a blind guess's and falls no further; validation is at "
        f"{run.val[-1]:.0%}.",
        evidence,
        "Use a wider or deeper model, better features, or less regularisation.",
    )


def _overfitting(run: _Run) -> Finding | None:
    """A validation loss that turns while the training loss falls on.

    val_loss at the end > 1.2 times its minimum, and by more than 0.1 entropies; the training loss fell since
    """
    if len(run.val) < 3 or len(run.val) != len(run.fit):
        return None
    best = min(range(len(run.val)), key=run.val.__getitem__)
    rise = run.val[-1] - run.val[best]
    if rise < 0.1 or run.val[-1] < 1.2 * run.val[best] or run.fit[-1] > 0.85 * run.fit[best]:
        return None
    epoch = int(run.curve[best].get("epoch") or best + 1)
    entropy = run.entropy or 1.0
    return Finding(
        "overfitting",
        f"The validation loss turns after epoch {epoch}: from {run.val[best] * entropy:.3g} to "
        f"{run.val[-1] * entropy:.3g} at the end, while the training loss goes on to fall.",
        {
            "epoch": float(epoch),
            "best_val_loss": run.val[best] * entropy,
            "final_val_loss": run.val[-1] * entropy,
        },
        f"Stop at epoch {epoch} (early_stop), or use more data, augmentation, weight decay or dropout.",
    )


_Rule = Callable[[_Run], "Finding | None"]
# From causes to symptoms; within a group the first that finds something speaks.
_GROUPS: tuple[tuple[_Rule, ...], ...] = (
    (_input_fault, _constant_labels),
    (_dead_from_the_start, _saturated_from_the_start, _exploding, _vanishing),
    (_labels_do_not_fit, _batch_too_small, _lr_too_high),
    (_dead_by_training, _saturated_by_training),
    (_stuck,),
    (_overfitting, _lr_too_low, _too_few_epochs, _underfitting),
)
# What too long steps may do to the layers is told beside them.
_CONSEQUENCES: tuple[_Rule, ...] = (_dead_by_training, _saturated_by_training)
