"""Signal propagation: dead and saturated units, exploding and vanishing gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fusetune.tuner.diagnosis.evidence import FEWEST_HELD
from fusetune.tuner.diagnosis.finding import Finding
from fusetune.tuner.diagnosis.readings import Readings

_DEAD = 0.8
_SATURATED_AT_START = 0.45
_SATURATED = 0.9
_EXPLODED_LOSS = 4.0  # in entropies of the labels
_VANISHED = 1e-4  # first layer's relative gradient over the last's


def not_finite_from_the_start(run: Readings) -> Finding | None:
    """NaN or an infinity before the first update: in the inputs, else in the first layer with it, else in the loss.

    The weights of a layer are named before its outputs. Gradients come last, beginning with the layer that the backward
    pass reaches first. A layer with finite inputs and weights has computed its non-finite outputs itself.
    """
    named = run.first.get("not_finite", ())
    if "inputs" in named:
        return _not_finite("the inputs are", "Look for NaN in the data and in what augments it.")
    layers = [layer for layer in run.first.get("layers", ()) if layer.get("not_finite")]
    for layer in layers:
        if "weights" in layer["not_finite"]:
            fix = "Look at the initialisation and at what was loaded into the model."
            return _not_finite(f"weights of layer {layer['name']} are", fix)
        if "outputs" in layer["not_finite"]:
            fix = f"Look at what layer {layer['name']} computes: divisions, roots and logarithms of 0, then the scale."
            return _not_finite(f"outputs of layer {layer['name']} are", fix)
    if named:
        verb = "are" if named[0] == "outputs" else "is"
        return _not_finite(f"the {named[0]} {verb}", "Look at the end of the model, the loss and the labels.")
    if layers:
        fix = "Look for a root or a logarithm of 0 in what follows the layer."
        return _not_finite(f"the gradient of layer {layers[-1]['name']} is", fix)
    return None


def _not_finite(where: str, fix: str) -> Finding:
    return Finding("not_finite", f"Before training, {where} not finite.", {}, fix, "sure")


def dead_from_the_start(run: Readings) -> Finding | None:
    """An untrained layer of rectifiers where most units are 0 for every sample: no gradient passes them."""
    layer, untrained = run.most(run.first, "dead_share")
    if run.held_samples < FEWEST_HELD or untrained < _DEAD:
        return None
    return Finding(
        "dead_relus",
        f"Before training, {untrained:.0%} of the units of layer {layer} are 0 on every sample.",
        {"dead_share_untrained": untrained, "dead_share": run.most(run.last, "dead_share")[1]},
        "Look at the initialisation (biases at 0, He's weights) and at the inputs; or use leaky_relu or a norm.",
        "sure",
    )


def dead_by_training(run: Readings) -> Finding | None:
    """A layer of rectifiers that died in training: after a step that was too long, units are never positive."""
    _, untrained = run.most(run.first, "dead_share")
    layer, trained = run.most(run.last, "dead_share")
    if run.held_samples < FEWEST_HELD or trained < _DEAD or not run.fit or run.fit[-1] < 0.3:
        return None
    return Finding(
        "dead_relus",
        f"{trained:.0%} of the units of layer {layer} are 0 on every sample; before training {untrained:.0%} were.",
        {"dead_share_untrained": untrained, "dead_share": trained},
        "Lower the learning rate, warm it up, or clip the gradients; or use leaky_relu or a norm.",
    )


def saturated_from_the_start(run: Readings) -> Finding | None:
    """An untrained layer of saturated sigmoids or tanhs: their slope is below a tenth of its largest.

    Source: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010).
    """
    layer, untrained = run.most(run.first, "saturated_share")
    if run.held_samples < FEWEST_HELD or untrained < _SATURATED_AT_START:
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


def saturated_by_training(run: Readings) -> Finding | None:
    """A layer of sigmoids or tanhs that training has saturated, in a model that did not learn."""
    _, untrained = run.most(run.first, "saturated_share")
    layer, trained = run.most(run.last, "saturated_share")
    if run.held_samples < FEWEST_HELD or trained < _SATURATED or not run.fit or run.fit[-1] < 0.5:
        return None
    return Finding(
        "saturated_units",
        f"{trained:.0%} of the outputs of layer {layer} are at the ends of their range, where hardly any gradient "
        f"passes; before training it was {untrained:.0%}.",
        {"saturated_share_untrained": untrained, "saturated_share": trained},
        "Lower the learning rate, or put a norm before the activation.",
    )


def exploding(run: Readings) -> Finding | None:
    """An untrained model whose loss is several entropies: its signals grow from layer to layer.

    loss_0 > 4 H(labels)        a sound initialisation gives about H, because its logits are near 0
    """
    loss = run.first.get("loss")
    if loss is None or run.entropy is None or run.held_samples < FEWEST_HELD:
        return None
    growth = (run.first.get("output_std") or math.inf) / (run.first.get("input_std") or 1.0)
    if loss < _EXPLODED_LOSS * run.entropy or growth < 2:
        return None
    layer, norm = run.most(run.first, "grad_norm")
    gradients = f", and gradients with them (norm {norm:.3g} in layer {layer})" if layer else ""
    return Finding(
        "exploding_gradients",
        f"Before training the loss is {loss:.3g}, where a blind guess has {run.entropy:.3g}: signals grow on their way "
        f"through the layers{gradients}.",
        {
            "untrained_loss": loss,
            "label_entropy": run.entropy,
            "grad_norm": norm,
        },
        "Use He's or Xavier's initial weights, a norm in each layer, or clip the gradients.",
        "sure",
    )


def vanishing(run: Readings) -> Finding | None:
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


def _gradient_ratio(run: Readings, snapshot: Mapping[str, Any]) -> float | None:
    """Return the first weighted layer's relative gradient over the last's; None with fewer than three layers."""
    relative: list[float] = [
        layer["grad_norm"] / layer["weight_norm"]
        for layer in snapshot.get("layers", ())
        if layer.get("grad_norm") is not None and layer.get("weight_norm")
    ]
    if len(relative) < 3 or not relative[-1]:
        return None
    return relative[0] / relative[-1]
