"""Steps that are too long, too short, or dominated by the gradient noise of a small batch."""

from __future__ import annotations

import math

from fusetune.tuner.diagnosis.evidence import PASSES, widened
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
    unrest,
)
from fusetune.tuner.diagnosis.signals import dead_by_training, saturated_by_training

# Learning rate.
_THROWN = 1.5  # in losses of the untrained model
# Movement over the square root of the steps. Sound trainings stay below 0.4, except for some that converge. The few
# weights of a small model may have to move far.
_MOVED_PER_ROOT_STEP, _MOVED_PER_ROOT_STEP_SMALL = 0.45, 1.0
_SETTLING = 20  # steps in which an adaptive optimizer's first, full steps still dominate the movement
_HARMED = 0.15  # entropies of the labels
_LOST = 6.0  # movement beyond which a model that has learnt nothing was moved by too long steps
_OSCILLATION = 0.12  # mean rise of the loss from an epoch to the next, in entropies of the labels
# Batch: noise scale over batch size, and the oscillation of the loss between epochs.
_NOISY = 5
_DROWNED = 50
_TINY = 2  # samples
_RESTLESS = 0.07
_RESTLESS_VALIDATION = 0.03
_TURNED = 0.08


def lr_too_high(run: Readings) -> Finding | None:
    """Steps too long for the curvature of the loss: it diverges, rises above its start, or oscillates.

    risen:        an epoch's training loss > 1.5 times the untrained model's, and not learnt since
    moved:        |w - w_0| / |w_0| > 0.45 sqrt(steps), and not learnt since; sqrt(steps) in a small model
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
            f"The training loss rose to {worst:.3g}; the untrained model's was {run.start_loss:.3g}.",
            {"lr": lr, "worst_loss": worst, "untrained_loss": run.start_loss},
            fix,
            "sure",
        )
    far = max((moved / math.sqrt(steps) for steps, moved in run.moved if steps >= _SETTLING), default=0.0)
    thrown_about = far > (_MOVED_PER_ROOT_STEP_SMALL if run.few_parameters else _MOVED_PER_ROOT_STEP)
    harmed = max(run.fit[-1], run.val[-1] if run.val else 0.0) > _HARMED
    most = max((moved for _, moved in run.moved), default=0.0)
    lost = min(run.fit) > LEARNT_NOTHING and not run.few_parameters and most > _LOST
    if (thrown_about and harmed) or lost:
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
            f"The loss oscillates from epoch to epoch: its mean rise is {rise * run.entropy:.3g}.",
            {"lr": lr, "mean_rise": rise * run.entropy},
            fix,
        )
    return None


def _mean_rise(run: Readings) -> float | None:
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


def lr_too_low(run: Readings) -> Finding | None:
    """Steps so short that the loss falls smoothly and little, and the weights hardly move.

    with snapshots:   |w - w_0| / |w_0| < 0.0015 (steps - 100), and growing, at a loss still above 0.3 entropies;
                      or below 0.3, growing or not, at a loss still above 0.8 of a model that is not known to be small
    the curve alone:  the training loss falls in 9 of 10 epochs, validation's too, and stays above 0.5 entropies
    """
    if not run.fit or run.fit[-1] < 0.3 or run.steps < FEW_STEPS:
        return None
    if not run.moved:
        return _smooth_and_slow(run)
    steps, moved = run.moved[-1]
    # Weights that stopped soon may have converged, but not where the loss is still near a blind guess's: the first
    # epoch moves small layers (biases) at once, and a schedule that decays ends all movement.
    near_blind_guess = run.fit[-1] > HIGH and moved < HARDLY_MOVED and not run.few_parameters
    settled = moved < 2 * run.moved[0][1] and not near_blind_guess
    if moved >= STILL * (steps - FEW_STEPS) or moved > NEAR or settled:
        return None
    return Finding(
        "learning_rate_too_low",
        f"In {steps:.0f} steps the weights have moved by {moved:.1%} of their size and the loss has come to "
        f"{run.fit[-1]:.0%} of a blind guess's.",
        {"steps": steps, "moved": moved, "fit": run.fit[-1]},
        "Multiply the learning rate by 3 to 10, or run an LR range test.",
    )


def _smooth_and_slow(run: Readings) -> Finding | None:
    """Find a learning rate that is too low by the curve alone."""
    if run.fit[-1] < 0.5 or len(run.fit) < 5 or len(run.val) < 5:
        return None
    falls = min(share_of_falls(run.fit), share_of_falls(run.val))
    last = fall_of(run.fit)
    if falls < 0.9 or not 0.0 < last < 0.15:
        return None
    return Finding(
        "learning_rate_too_low",
        f"The loss falls smoothly and slowly: {run.fit[-1]:.0%} of a blind guess's after {run.steps:.0f} steps, by "
        f"{last:.1%} over the last third.",
        {"fit": run.fit[-1], "fall": last, "steps": float(run.steps)},
        "Multiply the learning rate by 3 to 10, or run an LR range test.",
    )


def batch_too_small(run: Readings) -> Finding | None:
    """A batch far below the gradient noise scale, and a loss that no longer falls: noise dominates the steps.

        B_noise = tr(S) / |G|^2        the gradient of a batch B has a relative variance of B_noise / B

    Source: S. McCandlish et al., "An empirical model of large-batch training" (2018).
    """
    noise, size = run.noise_scale, run.batch_size
    if noise is None or size is None or noise < _NOISY * size or run.steps < FEW_STEPS:
        return None
    if run.diverged is not None or not run.fit or not run.val or run.fit[-1] < 0.1 or run.val[-1] < 0.5:
        return None
    harmed = any(rule(run) is not None for rule in (lr_too_high, dead_by_training, saturated_by_training))
    if not (harmed or _held_up_by_noise(run, noise / size)):
        return None
    # Where the schedule decays already, only the size and the rate are left to change.
    decay = "" if run.has_decayed else " and let it decay to 0"
    shown = "too large to measure" if math.isinf(noise) else f"about {noise:.0f} samples"
    return Finding(
        "batch_too_small",
        f"A step sees {size} samples while the gradient's noise scale is {shown}: noise dominates the steps, "
        f"and the loss stays at {run.fit[-1]:.0%} of a blind guess's.",
        {"batch_size": float(size), "noise_scale": noise, "fit": run.fit[-1]},
        f"Use a batch of {8 * size} or more (or accumulate gradients), or divide the learning rate by 5{decay}.",
    )


def _held_up_by_noise(run: Readings, drowned: float) -> bool:
    """Return whether the loss, at a learning rate that has not decayed, oscillates, turns, or no longer falls.

    Args:
        run: the training.
        drowned: noise scale over batch size.
    """
    if run.has_decayed or run.epochs < PASSES:
        return False
    restless = unrest(run.fit) > _RESTLESS or unrest(run.val) > widened(_RESTLESS_VALIDATION, run)
    # A model that overfits has learnt its training samples when validation turns.
    high = run.fit[-1] > 0.3
    turned = high and run.val[-1] > (1 + widened(_TURNED, run)) * min(run.val)
    # Converged trainings with larger batches stay near a noise floor as well.
    tiny = run.batch_size is not None and run.batch_size <= _TINY
    # A loss that never fell below a blind guess's shows no noise floor.
    stopped = (
        high and tiny and min(run.fit) < LEARNT_NOTHING and drowned > _DROWNED and fall_of(run.val) < FLAT
    )
    return restless or turned or stopped
