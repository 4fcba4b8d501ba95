"""The pictures of a search: parallel coordinates, and the contour of the two most important factors."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import create_trial

from fusetune.bench.results import Pictures
from fusetune.bench.terminal import picture_text

_DPI = 120


def drawable(study: optuna.Study) -> optuna.Study:
    """Return the study with names and choices that a picture can show. Numbers stay numbers."""
    shown = optuna.create_study(direction=study.direction)
    for trial in study.get_trials(deepcopy=False):
        shown.add_trial(
            create_trial(
                params={picture_text(name): _drawn(value) for name, value in trial.params.items()},
                distributions={
                    picture_text(name): _drawn_distribution(each)
                    for name, each in trial.distributions.items()
                },
                value=trial.value,
            )
        )
    return shown


def _drawn_distribution(each: BaseDistribution) -> BaseDistribution:
    """Return a factor's description with choices that a picture can show."""
    if isinstance(each, CategoricalDistribution):
        return CategoricalDistribution([_drawn(choice) for choice in each.choices])
    return each


def _drawn(choice: Any) -> Any:
    """Write a choice as a picture shows it. Optuna lays numbers on an axis."""
    return picture_text(choice) if isinstance(choice, str) else choice


def draw_all(study: optuna.Study, importances: Mapping[str, float], pictures: Pictures) -> None:
    """Draw parallel coordinates, and the contour of the two most important factors."""
    from optuna.visualization import matplotlib as plots

    study, factors = drawable(study), [picture_text(name) for name in importances]
    pictures.add(
        "parallel_coordinate",
        lambda: _figure(lambda: plots.plot_parallel_coordinate(study, target_name="end of curve"), "viridis"),
        dpi=_DPI,
        tight=True,
    )
    if len(factors) > 1:
        pictures.add(
            "contour",
            lambda: _figure(
                lambda: plots.plot_contour(study, params=factors[:2], target_name="end of curve")
            ),
            dpi=_DPI,
            tight=True,
        )


def _figure(plot: Callable[[], Any], colours: str | None = None) -> Any:
    """Let Optuna draw, and return the figure without its title.

    Args:
        plot: draws.
        colours: of the lines; Optuna's palette ends in white, in which the worst trainings cannot be seen.
    """
    import matplotlib

    matplotlib.use("Agg")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib import pyplot

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna marks its plots experimental
        figure = plot().figure
    pyplot.close(figure)
    figure.axes[0].set_title("")
    if colours:
        for lines in [item for each in figure.axes for item in each.collections]:
            lines.set_cmap(colours)
    return figure
