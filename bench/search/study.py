"""What a search came to: the winner with its interval, importances, plots, and what was dropped and why (no torch)."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import create_trial
from scipy.stats import t as student

from fusetune.bench.results import Pictures, Record, TrainingOutcome
from fusetune.bench.search.store import SearchPlan, is_left, plan_of, read_search
from fusetune.bench.spec import freeze
from fusetune.bench.stats import Caveat, caveats_of
from fusetune.bench.terminal import picture_text
from fusetune.tuner.search import SearchTrial

CONFIDENCE = 0.95
# Fewer trainings than this say nothing of what matters.
FEWEST_FOR_IMPORTANCE = 8
_LISTED_DROPPED = 12
_DPI = 120


@dataclass(frozen=True)
class FreshRuns:
    """The winner's values on fresh seeds: their mean and its Student interval (None with fewer than two)."""

    values: tuple[float, ...]
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class SearchStudy:
    """A search, summed up.

    Args:
        run: run.json.
        path: the run's directory.
        plan: what was asked for.
        winner: its configuration; None when nothing reported a value.
        value, epoch: what it reached in the search.
        fresh: on fresh seeds.
        epochs_used: of the budget.
        trials: all of the search, best first.
        importances: factor -> share of the variance of predicted ends that it explains; empty when there is too little.
        plots: files that show the same.
        note: why there are no importances or plots; empty when there are.
        notes: what is wrong with the study on disk, or with the plots, a sentence each.
        caveats: what a reader must know first.
        failure: where there is no winner: how the trainings ended, and what to try. Else empty.
        rates: what `base_lr: auto` came to in the winner's trainings, a (seed, rate) each.
    """

    run: Mapping[str, Any]
    path: Path
    plan: SearchPlan
    winner: dict[str, Any] | None
    value: float | None
    epoch: int | None
    fresh: FreshRuns
    epochs_used: int
    trials: list[SearchTrial]
    importances: dict[str, float]
    plots: list[Path]
    note: str = ""
    caveats: tuple[Caveat, ...] = ()
    failure: str = ""
    rates: tuple[tuple[int, float], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def over(self) -> list[SearchTrial]:
        """Trials that ended before their last epoch for a reason of their own, the longest first."""
        ended = [t for t in self.trials if t.status not in ("finished", "paused") and not is_left(t)]
        return sorted(ended, key=lambda trial: -trial.epochs)[:_LISTED_DROPPED]

    @property
    def waiting(self) -> int:
        """Trials that can go on: of a search that is not over."""
        return sum(trial.status == "paused" for trial in self.trials)

    @property
    def left(self) -> int:
        """Trials that only waited when the budget was spent."""
        return sum(map(is_left, self.trials))


def study_search(
    run: Mapping[str, Any], records: Sequence[Record], path: Path, pictures: Pictures
) -> SearchStudy:
    """Sum up a search from its directory.

    Args:
        run: run.json.
        records: of the run.
        path: the run's directory.
        pictures: take its plots.

    Raises:
        RunDirectoryError: the search's study cannot be read.
    """
    plan = plan_of(run["spec"])
    searcher, store = read_search(plan, path)
    result = searcher.result()
    best = result.best
    predicted = store.predicted(searcher)
    importances, note = _importances(predicted, plan.seed)
    if importances:
        draw_all(predicted, importances, pictures)
    sign = 1 if plan.maximize else -1
    ranked = sorted(result.trials, key=lambda t: -max((sign * v for v in t.values), default=-math.inf))
    return SearchStudy(
        run=run,
        path=path,
        plan=plan,
        winner=best.config if best else None,
        value=best.value if best else None,
        epoch=best.epoch if best else None,
        fresh=fresh_runs(records, plan, best.config if best else None),
        epochs_used=result.epochs_used,
        trials=ranked,
        importances=importances,
        plots=pictures.files,
        note=note,
        caveats=caveats_of(run, records),
        failure=result.failure,
        rates=_auto_rates(records, best.config) if best else (),
        notes=tuple(filter(None, (store.note, store.gap(records), pictures.note))),
    )


def found_nothing(spec: Mapping[str, Any], path: Path) -> bool:
    """Whether no training of a search reported a finite value of its metric before it diverged.

    Args:
        spec: as run.json has it.
        path: the run's directory.
    """
    searcher, _ = read_search(plan_of(spec), path)
    return searcher.result().best is None


def _auto_rates(records: Sequence[Record], winner: Mapping[str, Any]) -> tuple[tuple[int, float], ...]:
    """Return which learning rate a range test found for each of the winner's trainings."""
    found = {
        record.seed: record.outcome.base_lr_auto.base_lr
        for record in records
        if isinstance(record.outcome, TrainingOutcome)
        and record.outcome.base_lr_auto is not None
        and _is_of(record, winner)
    }
    return tuple(sorted(found.items()))


def fresh_runs(records: Sequence[Record], plan: SearchPlan, winner: Mapping[str, Any] | None) -> FreshRuns:
    """Sum up the winner's re-runs, and no other configuration's: the best value of the metric in each one's curve.

    Interval of the mean: mean +- t_{0.975, n - 1} s / sqrt(n)
    """
    pick = max if plan.maximize else min
    values = []
    for record in records:
        if record.seed not in plan.fresh_seeds or winner is None or not _is_of(record, winner):
            continue
        known = [value for entry in record.curve if (value := entry.get(plan.metric)) is not None]
        if known:
            values.append(pick(known))
    if not values:
        return FreshRuns((), None, None, None)
    if len(values) < 2:
        return FreshRuns(tuple(values), values[0], None, None)
    half = float(student.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    middle = mean(values)
    low, high = middle - half, middle + half
    if plan.metric.endswith("accuracy"):
        low, high = max(low, 0.0), min(high, 1.0)
    return FreshRuns(tuple(values), middle, low, high)


def _is_of(record: Record, config: Mapping[str, Any]) -> bool:
    """Whether a record is a configuration's; in records, a choice that is a mapping with a name alone is that name."""
    known = record.factors
    return known.keys() == config.keys() and freeze(known) == freeze(config)


def _importances(study: optuna.Study, seed: int) -> tuple[dict[str, float], str]:
    """Return each factor's importance (fANOVA), or why there are none."""
    trials = study.get_trials(deepcopy=False)
    if len(trials) < FEWEST_FOR_IMPORTANCE:
        return (
            {},
            f"fewer than {FEWEST_FOR_IMPORTANCE} trainings reported a value: too few to say what matters",
        )
    if len({trial.value for trial in trials}) == 1:
        return {}, "all trainings are predicted to end alike"
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator)), ""


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
