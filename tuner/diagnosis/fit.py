"""How well the model fits: stuck at chance, underfitting, overfitting, stopped too early."""

from __future__ import annotations

from fusetune.tuner.diagnosis.evidence import widened
from fusetune.tuner.diagnosis.finding import Finding
from fusetune.tuner.diagnosis.readings import (
    FEW_STEPS,
    FLAT,
    HARDLY_MOVED,
    HIGH,
    LEARNT_NOTHING,
    NEAR,
    STILL,
    Readings,
    fall_of,
    share_of_falls,
)

_STOOD_STILL = 6  # epochs
_STILL_FALLS = 0.02  # relative fall over the last third of the epochs up to which a loss counts as constant
_CREEPS = 0.75  # share of the epochs with a fall: a converged loss rises about as often as it falls
_SETTLED = 20  # steps
_UNDERFIT_SMALL, _FLAT_SMALL = 0.2, 0.15  # of a model that is known to be small


def stuck(run: Readings) -> Finding | None:
    """A loss that stays at the entropy of the labels. The movement of the weights shows the cause.

    hardly any movement, large gradient: learning rate too low;  small gradient: plateau or saddle
    few steps: too few epochs;  few parameters: underfitting;  else, where the loss was constant over 6 passes, labels
    that are unrelated to the inputs
    """
    if not run.fit or min(run.fit) < LEARNT_NOTHING or not run.snapshots:
        return None
    moved = run.moved[-1][1] if run.moved else 0.0
    evidence = {"fit": run.fit[-1], "moved": moved, "steps": float(run.steps)}
    gradients = run.column("grad_norm")
    shrunk = gradients[-1] / gradients[0] if len(gradients) > 1 and gradients[0] else 1.0
    same = f"After {run.steps:.0f} steps the loss is still that of a blind guess"
    if run.steps < FEW_STEPS:
        return _too_few(run, evidence)
    hardly = moved < STILL * run.steps and moved < HARDLY_MOVED
    if hardly and moved >= STILL * (run.steps - FEW_STEPS):
        return _too_few(run, evidence)
    if hardly:
        if shrunk < 0.1:
            return Finding(
                "plateau",
                f"{same}, and the gradient's norm has shrunk to {shrunk:.1g} of its first.",
                {**evidence, "gradient_shrunk": shrunk},
                "Use other initial weights, or a larger learning rate, momentum or Adam, to leave it.",
            )
        return Finding(
            "learning_rate_too_low",
            f"{same}, because the weights have moved by only {moved:.1%} of their size.",
            evidence,
            "Multiply the learning rate by 10, or run an LR range test.",
        )
    if run.few_parameters:
        return _underfits(run, evidence)
    creeps = min(share_of_falls(run.fit), share_of_falls(run.val)) > _CREEPS
    if run.epochs < _STOOD_STILL or fall_of(run.fit) > _STILL_FALLS or creeps:
        return _too_few(run, evidence)
    return Finding(
        "label_fault",
        f"{same}, although the weights have moved by {moved:.2g} times their size: the labels seem unrelated to the "
        "inputs.",
        evidence,
        "Look at some samples beside their labels. If they are right, the model may be too simple for them.",
    )


def too_few_epochs(run: Readings) -> Finding | None:
    """A loss that is high and still falling fast at the end, on training and validation samples."""
    if not run.fit or not run.val:
        return None
    few = run.steps < FEW_STEPS
    # A schedule that decays makes the loss fall at its end by design.
    least = 0.5 if run.has_decayed else 0.2 if few else 0.25
    falling = (fall_of(run.fit) > 0.12 and fall_of(run.val) > 0.03) or (few and run.fit[-1] > 0.3)
    if run.fit[-1] < least or not falling:
        return None
    return _too_few(run, {"fit": run.fit[-1], "fall": fall_of(run.fit), "steps": float(run.steps)})


def _too_few(run: Readings, evidence: dict[str, float]) -> Finding:
    state = " and still falling" if fall_of(run.fit) > 0 else ", too soon to tell more"
    return Finding(
        "too_few_epochs",
        f"After {run.steps:.0f} steps the loss is {run.fit[-1]:.0%} of a blind guess's{state}.",
        evidence,
        f"Train for {max(2, 3 * run.planned_epochs)} epochs instead of {run.planned_epochs}, or use a smaller batch.",
    )


def underfitting(run: Readings) -> Finding | None:
    """A training loss that stays high and flat, and a validation loss like it: the model is too small for the data.

    any model:                           loss > 0.8 entropies, falls by less than 4 % over the last third, and not in
                                         more than 3 of 4 epochs, however little
    less than a parameter for 8 samples: loss > 0.2 entropies, by less than 15 %, on training or validation samples,
                                         after the weights have moved by more than 0.6 times their size
    """
    if not run.fit or not run.val or len(run.fit) < 3 or run.steps < FEW_STEPS:
        return None
    small = run.few_parameters
    least, flat = (_UNDERFIT_SMALL, _FLAT_SMALL) if small else (HIGH, FLAT)
    fall = min(fall_of(run.fit), fall_of(run.val)) if small else fall_of(run.fit)
    if run.fit[-1] < least or fall > flat or run.gap > 0.15:
        return None
    if small and run.moved and run.moved[-1][1] < NEAR:
        return None
    if not small and share_of_falls(run.fit) > _CREEPS:
        return None
    return _underfits(run, {"fit": run.fit[-1], "fall": fall})


def _underfits(run: Readings, evidence: dict[str, float]) -> Finding:
    return Finding(
        "underfitting",
        f"The training loss stays at {run.fit[-1]:.0%} of a blind guess's and falls no further; validation is at "
        f"{run.val[-1]:.0%}.",
        evidence,
        "Use a wider or deeper model, better features, or less regularisation.",
    )


def overfitting(run: Readings) -> Finding | None:
    """A validation loss that turns while the training loss falls on.

    val_loss at the end > 1.2 times its minimum, and by more than 0.1 entropies. The training loss fell since. Both
    rises are sqrt(100 / n) times as large on n < 100 validation samples
    """
    if len(run.val) < 3 or len(run.val) != len(run.fit) or run.steps < _SETTLED:
        return None
    best = min(range(len(run.val)), key=run.val.__getitem__)
    rise = run.val[-1] - run.val[best]
    if (
        rise < widened(0.1, run)
        or rise < widened(0.2, run) * run.val[best]
        or run.fit[-1] > 0.85 * run.fit[best]
    ):
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
