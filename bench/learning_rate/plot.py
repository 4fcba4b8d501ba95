"""The picture of an LR range test: loss against learning rate, with the suggestion and the divergence."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from fusetune.bench.learning_rate.study import Tested
from fusetune.bench.results import Pictures, picture_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Equal pictures give equal files, and text stays text in SVG.
_STYLE: dict[str, Any] = {"svg.hashsalt": "lr-range", "svg.fonttype": "none", "font.size": 10}
_INK, _FAINT, _RAW = "#22303c", "#9aa5b1", ("#8fb8de", "#a8cfa2", "#e3b587", "#c3a6d4", "#9fd0d0")
_CURVE, _SUGGESTED, _DIVERGED = "#1f5fa8", "#c0392b", "#6b4c9a"
_HEAD_ROOM = 0.35


def draw_lr_range(tested: tuple[Tested, ...], pictures: Pictures, *, judged: str = "training loss") -> None:
    """Draw each test as `lr-range-<number>`.

    Args:
        tested: the tests.
        pictures: the collection that gets them.
        judged: which loss they were judged by.
    """
    for number, test in enumerate(tested, start=1):
        if len(test.lrs) > 1:
            pictures.add(f"lr-range-{number}", partial(draw, test, judged), style=_STYLE)


def draw(test: Tested, judged: str) -> Figure:
    """Draw one test."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    _draw_losses(axes, test)
    _draw_findings(axes, test)
    _label_axes(axes, test, judged)
    return figure


def loss_window(test: Tested) -> tuple[float, float]:
    """Return the range of losses to show, from the lowest to about a third above the untrained model's loss."""
    shown = [loss for losses in (test.smoothed, *test.repeats) for loss in losses if loss is not None]
    first = next(loss for loss in test.smoothed if loss is not None)
    low = min(shown)
    top = max(first + _HEAD_ROOM * max(first - low, abs(first) * 0.1), low)
    margin = 0.06 * (top - low) or 1.0
    return low - margin, min(top, max(shown)) + margin


def _draw_losses(axes: Axes, test: Tested) -> None:
    for number, losses in enumerate(test.repeats):
        points = [(lr, loss) for lr, loss in zip(test.lrs, losses, strict=True) if loss is not None]
        axes.plot(
            *zip(*points, strict=True),
            color=_RAW[number % len(_RAW)],
            linewidth=0.9,
            label=f"repeat {number + 1}",
        )
    smooth = [(lr, loss) for lr, loss in zip(test.lrs, test.smoothed, strict=True) if loss is not None]
    axes.plot(*zip(*smooth, strict=True), color=_CURVE, linewidth=2.2, label="mean, smoothed")


def _draw_findings(axes: Axes, test: Tested) -> None:
    """Mark interval, suggestion, confirmed rate and divergence, as far as the test found them."""
    values = test.values
    if "lr_interval_low" in values:
        axes.axvspan(
            values["lr_interval_low"],
            values["lr_interval_high"],
            color=_SUGGESTED,
            alpha=0.13,
            linewidth=0,
            label="95 % interval",
        )
    if "range_lr" in values:
        axes.axvline(
            values["range_lr"], color=_SUGGESTED, linewidth=1.8, label=f"suggestion {values['range_lr']:.3g}"
        )
    confirmed = values.get("suggested_lr")
    if confirmed is not None and not math.isclose(confirmed, values["range_lr"]):
        axes.axvline(
            confirmed,
            color=_SUGGESTED,
            linewidth=1.8,
            linestyle=(0, (4, 2)),
            label=f"confirmed {confirmed:.3g}",
        )
    if "divergence_lr" in values:
        axes.axvline(
            values["divergence_lr"],
            color=_DIVERGED,
            linewidth=1.4,
            linestyle=":",
            label=f"diverges at {values['divergence_lr']:.3g}",
        )


def _label_axes(axes: Axes, test: Tested, judged: str) -> None:
    axes.set_xscale("log")
    axes.set_xlim(test.lrs[0], test.lrs[-1] * 1.15)
    axes.set_ylim(*loss_window(test))
    axes.set_xlabel("learning rate", color=_INK)
    axes.set_ylabel(judged, color=_INK)
    axes.set_title(
        f"LR range test: {picture_text(test.label)}", loc="left", fontsize=11, fontweight="bold", color=_INK
    )
    axes.grid(True, which="major", color=_FAINT, alpha=0.3, linewidth=0.6)
    axes.tick_params(colors=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)
    axes.legend(loc="lower left", frameon=False, fontsize=9, labelcolor=_INK)
