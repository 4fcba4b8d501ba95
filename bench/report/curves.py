"""The learning curves of a run's best configurations, as a plot of characters."""

from __future__ import annotations

from fusetune.bench.stats import Configuration, Summary, label
from fusetune.bench.terminal import Axis, Mark, Series, TextPlot, brief

_MOST = 5
_LOG_FROM = 10.0


def learning_curves(summary: Summary) -> TextPlot | None:
    """Return the curves of the best configurations by their ranks, or None where no curve has two points.

    The `train` configuration is among them, as `*` where its rank is not. The horizontal axis is the training clock,
    which is what ranks the configurations. Without a target it is the epoch.
    """
    target = summary.target
    metric = target.metric if target else "val_accuracy"
    best = [each for each in summary.configurations if each.rank < 10 and each.curve][:_MOST]
    ranked = [each.rank for each in best]
    others = [each for each in summary.configurations if each.is_baseline and each.rank not in ranked]
    baseline = [each for each in others if each.curve]
    shown = [*best[: _MOST - len(baseline)], *baseline]
    series = [
        Series(
            _name(each),
            [point.time_s if target else point.epoch for point in each.curve],
            [point.value for point in each.curve],
            marker="*" if each in baseline else str(each.rank),
        )
        for each in shown
    ]
    if all(len(each.y) < 2 for each in series):
        return None
    goal = (target.at_least if target.at_least is not None else target.at_most) if target else None
    values = [point.value for each in shown for point in each.curve] + ([goal] if goal is not None else [])
    is_fraction = metric.endswith("accuracy")
    return TextPlot(
        f"{metric} against {'training time in s' if target else 'epoch'}, medians over seeds, by rank",
        series,
        x=Axis(whole=target is None),
        y=Axis(
            min(values),
            max(values),
            log=not is_fraction and 0 < min(values) < max(values) / _LOG_FROM,
            text=_percent if is_fraction else brief,
        ),
        marks=[Mark(f"target {target}", goal, "y", "dotted")] if target else [],
    )


def _name(configuration: Configuration) -> str:
    """Return the levels alone: the table above has the factors, and a legend little room."""
    return ", ".join(map(label, configuration.factors.values())) or "train"


def _percent(value: float) -> str:
    return f"{100 * value:.4g} %"
