"""Conversion of a search to an in-memory Optuna study, for Optuna's importances, plots and dashboard (no torch)."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from fusetune.bench.errors import RunDirectoryError
from fusetune.bench.kinds import SEARCH
from fusetune.bench.results import Pictures, RunDirectory, picture_text
from fusetune.bench.search.importances import fanova
from fusetune.bench.search.plan import SearchPlan, plan_of
from fusetune.bench.search.state import read_search
from fusetune.bench.spec import same_value, value_id
from fusetune.tuner.search import Factor, Searcher, SearchTrial

# With fewer trainings, fANOVA importances are mostly noise.
FEWEST_FOR_IMPORTANCE = 8
_DPI = 120
_STATES = {
    "paused": TrialState.RUNNING,
    "finished": TrialState.COMPLETE,
    "dropped": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "out_of_memory": TrialState.FAIL,
    "failed": TrialState.FAIL,
}


def optuna_study(path: Path) -> optuna.Study:
    """Return a run's search as an in-memory Optuna study, with one trial per training and a value per epoch.

    Args:
        path: the run's directory.

    Raises:
        RunDirectoryError: there is no run, its kind is not search, or its log cannot be read.

    Example:
        To look at a search with `optuna-dashboard sqlite:///search.db`:

            study = optuna_study(Path("results/cifar/20260101-120000"))
            optuna.create_study(storage="sqlite:///search.db", direction=study.direction).add_trials(study.trials)
    """
    directory = RunDirectory.open(path)
    if directory.run.kind != SEARCH.name:
        raise RunDirectoryError(
            path,
            f"is a run of kind '{directory.run.kind}'",
            "an Optuna study shows a search",
            "Name a run whose spec has design: {search: ...}",
        )
    plan = plan_of(directory.run.spec)
    records, _ = directory.records()
    searcher, _ = read_search(plan, path, records)
    study = _empty(plan)
    distributions = {name: distribution(given) for name, given in plan.space.items()}
    study.add_trials([_as_it_stands(trial, plan, distributions) for trial in searcher.trials])
    return study


def predicted_study(plan: SearchPlan, searcher: Searcher) -> optuna.Study:
    """Return an in-memory study in which each trial's value is its actual or predicted final value."""
    study = _empty(plan)
    distributions = {
        name: _measured(factor, given)
        for (name, given), factor in zip(plan.space.items(), searcher.space.factors, strict=True)
    }
    for number, value in searcher.predicted_ends().items():
        params = _params(searcher.trials[number], plan)
        study.add_trial(create_trial(params=params, distributions=distributions, value=value))
    return study


def _empty(plan: SearchPlan) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize" if plan.maximize else "minimize")


def _as_it_stands(
    trial: SearchTrial, plan: SearchPlan, distributions: dict[str, BaseDistribution]
) -> FrozenTrial:
    return create_trial(
        state=_STATES[trial.status],
        params=_params(trial, plan),
        distributions=distributions,
        value=trial.values[-1] if trial.status == "finished" else None,
        intermediate_values=dict(enumerate(trial.values, start=1)),
        user_attrs={"status": trial.status, "reason": trial.reason},
    )


def _params(trial: SearchTrial, plan: SearchPlan) -> dict[str, Any]:
    return {name: label(plan.space[name], value) for name, value in trial.config.items()}


def distribution(given: Any) -> BaseDistribution:
    """Return the Optuna distribution of a factor."""
    if not isinstance(given, Mapping):
        return CategoricalDistribution(labels(given))
    low, high, log = given["low"], given["high"], given.get("log", False)
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def _measured(factor: Factor, given: Any) -> BaseDistribution:
    """Return the Optuna distribution of a factor for importances and plots.

    Choices on a log scale become a log range, because fANOVA and the axes then use their distances.
    """
    if not (factor.log and factor.values):
        return distribution(given)
    if all(isinstance(value, int) for value in factor.values):
        return IntDistribution(int(factor.low), int(factor.high), log=True)
    return FloatDistribution(factor.low, factor.high, log=True)


def labels(values: Sequence[Any]) -> list[Any]:
    """Return the Optuna choices for a factor's values: scalars unchanged, lists and mappings as JSON.

    Optuna cannot tell 1 from true, nor "[1, 2]" from a list. Where two values would collide, all become texts.

    Example:
        >>> labels([0.1, None, [1, 2]]), labels([1, True]), labels([[1, 2], "[1, 2]"])
        ([0.1, None, '[1, 2]'], ['1', 'true'], ['[1;2]', '"[1, 2]"'])
    """
    plain = [
        value
        if value is None or isinstance(value, (bool, int, float, str))
        else json.dumps(value, sort_keys=True)
        for value in values
    ]
    return [value_id(value) for value in values] if len(set(plain)) < len(plain) else plain


def label(given: Any, value: Any) -> Any:
    """Return the Optuna choice for one value of a factor.

    Args:
        given: the factor: a list of choices, or a range {low, high, log}. Numbers of a range stay unchanged.
        value: one of its values.
    """
    if isinstance(given, Mapping):
        return value
    return next(each for each, choice in zip(labels(given), given, strict=True) if same_value(choice, value))


def importances_of(study: optuna.Study, seed: int) -> tuple[dict[str, float], str]:
    """Return each factor's fANOVA importance, or an empty dict and the reason."""
    trials = study.get_trials(deepcopy=False)
    if len(trials) < FEWEST_FOR_IMPORTANCE:
        return (
            {},
            f"fewer than {FEWEST_FOR_IMPORTANCE} trainings reported a value",
        )
    if len({trial.value for trial in trials}) == 1:
        return {}, "all trainings have the same predicted final value"
    shares = fanova(study, seed)
    return shares, "" if shares else "no factor of the trainings differs"


def drawable(study: optuna.Study) -> optuna.Study:
    """Return the study with names and choices that matplotlib can draw. Numbers stay numbers."""
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
    if isinstance(each, CategoricalDistribution):
        return CategoricalDistribution([_drawn(choice) for choice in each.choices])
    return each


def _drawn(choice: Any) -> Any:
    """Return a choice for a plot. Numbers stay numbers, because Optuna gives them a numeric axis."""
    return picture_text(choice) if isinstance(choice, str) else choice


def draw_all(study: optuna.Study, importances: Mapping[str, float], pictures: Pictures) -> None:
    """Draw parallel coordinates, and a contour plot of the two most important factors."""
    from optuna.visualization import matplotlib as plots

    study, factors = drawable(study), [picture_text(name) for name in importances]
    pictures.add(
        "parallel_coordinate",
        lambda: _figure(lambda: plots.plot_parallel_coordinate(study, target_name="final value"), "viridis"),
        dpi=_DPI,
        tight=True,
    )
    if len(factors) > 1:
        pictures.add(
            "contour",
            lambda: _figure(lambda: plots.plot_contour(study, params=factors[:2], target_name="final value")),
            dpi=_DPI,
            tight=True,
        )


def _figure(plot: Callable[[], Any], colours: str | None = None) -> Any:
    """Return the figure of an Optuna plot, without its title.

    Args:
        plot: a function that draws and returns axes.
        colours: the lines' colour map. Optuna's own ends in white, which hides the worst trainings.
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
