"""The results of a search: winner with confidence interval, importances, and dropped trainings (no torch)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from scipy.stats import t as student

from fusetune.bench.results import Record, RunInfo, TrainingOutcome
from fusetune.bench.search.for_optuna import importances_of, predicted_study
from fusetune.bench.search.plan import SearchPlan, is_left, plan_of, prior_words
from fusetune.bench.search.state import read_search
from fusetune.bench.spec import freeze
from fusetune.bench.stats import Caveat, caveats_of
from fusetune.tuner.search import SearchTrial

if TYPE_CHECKING:
    import optuna

CONFIDENCE = 0.95
_LISTED_DROPPED = 12


@dataclass(frozen=True)
class FreshRuns:
    """The winner's values on fresh seeds, their mean, and its Student t interval (None with fewer than two)."""

    values: tuple[float, ...]
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class SearchStudy:
    """The results of a search.

    Args:
        run: the run.
        path: the run's directory.
        plan: the search's settings.
        prior: whether a prior was used, and the factors and values without curves in it.
        winner: the best configuration. None when no training reported a value.
        value, epoch: the winner's best value in the search, and its epoch.
        fresh: the winner's values on fresh seeds.
        epochs_used: epochs of the budget that were trained.
        trials: all trials of the search, best first.
        importances: factor -> share of the predicted final values' variance (fANOVA). Empty with too few trainings.
        predicted: an Optuna study with every training's actual or predicted final value.
        note: why there are no importances or plots. Else empty.
        notes: a sentence on each problem of the log on disk.
        is_over: whether the search was concluded, so that only trainings on fresh seeds can follow.
        caveats: warnings for the top of the report.
        failure: without a winner, how the trainings ended and what to try. Else empty.
        rates: a (seed, rate) for each of the winner's trainings with `base_lr: auto`.
        spent: for each epoch of the budget, in order, the number of its training and its value, None for a failure.
            Empty where the order is not known.
        from_log: trainings whose records were rebuilt from the log, because their workers were lost.
        made_again: epochs that were trained once more for the same reason.
    """

    run: RunInfo
    path: Path
    plan: SearchPlan
    prior: str
    winner: dict[str, Any] | None
    value: float | None
    epoch: int | None
    fresh: FreshRuns
    epochs_used: int
    trials: list[SearchTrial]
    importances: dict[str, float]
    predicted: optuna.Study
    note: str = ""
    caveats: tuple[Caveat, ...] = ()
    failure: str = ""
    rates: tuple[tuple[int, float], ...] = ()
    notes: tuple[str, ...] = ()
    spent: tuple[tuple[int, float | None], ...] = ()
    from_log: int = 0
    made_again: int = 0
    is_over: bool = True

    @property
    def over(self) -> list[SearchTrial]:
        """Trials that ended before their last epoch, except for lack of budget, longest first."""
        ended = [t for t in self.trials if t.status not in ("finished", "paused") and not is_left(t)]
        return sorted(ended, key=lambda trial: -trial.epochs)[:_LISTED_DROPPED]

    @property
    def waiting(self) -> int:
        """Number of paused trials, which a search that is not over can continue."""
        return sum(trial.status == "paused" for trial in self.trials)

    @property
    def left(self) -> int:
        """Number of trials that were paused when the budget was spent."""
        return sum(map(is_left, self.trials))


def study_search(run: RunInfo, records: Sequence[Record], directory: str) -> SearchStudy:
    """Return a search's results from its directory.

    Args:
        run: the run.
        records: the run's records.
        directory: the run's directory.

    Raises:
        RunDirectoryError: the search's log cannot be read.
    """
    plan, path = plan_of(run.spec), Path(directory)
    searcher, log = read_search(plan, path, records)
    result = searcher.result()
    best = result.best
    predicted = predicted_study(plan, searcher)
    importances, note = importances_of(predicted, plan.seed)
    sign = 1 if plan.maximize else -1
    ranked = sorted(result.trials, key=lambda t: -max((sign * v for v in t.values), default=-math.inf))
    return SearchStudy(
        run=run,
        path=path,
        plan=plan,
        prior=prior_words(plan),
        winner=best.config if best else None,
        value=best.value if best else None,
        epoch=best.epoch if best else None,
        fresh=fresh_runs(records, plan, best.config if best else None),
        epochs_used=result.epochs_used,
        trials=ranked,
        importances=importances,
        predicted=predicted,
        note=note,
        caveats=caveats_of(run, records),
        failure=result.failure,
        rates=_auto_rates(records, best.config) if best else (),
        notes=tuple(filter(None, (log.note,))),
        spent=tuple(log.spent),
        from_log=sum(isinstance(each.outcome, TrainingOutcome) and each.outcome.from_log for each in records),
        made_again=sum(training.made_again for training in log.trainings),
        is_over=log.is_over,
    )


def _auto_rates(records: Sequence[Record], winner: Mapping[str, Any]) -> tuple[tuple[int, float], ...]:
    """Return the learning rate that a range test chose for each of the winner's trainings."""
    found = {
        record.seed: record.outcome.base_lr_auto.base_lr
        for record in records
        if isinstance(record.outcome, TrainingOutcome)
        and record.outcome.base_lr_auto is not None
        and _is_of(record, winner)
    }
    return tuple(sorted(found.items()))


def fresh_runs(records: Sequence[Record], plan: SearchPlan, winner: Mapping[str, Any] | None) -> FreshRuns:
    """Return the winner's best value of the metric in each re-run, with mean and interval.

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
    """Whether a record has this configuration. `freeze` treats a mapping with only a name as that name."""
    known = record.factors
    return known.keys() == config.keys() and freeze(known) == freeze(config)
