"""A search on disk: every trial and every epoch of its curve in an Optuna study, in the run directory.

Optuna's own tools read it: importances, plots, `optuna-dashboard`. It is also what a resumed search begins with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from fusetune.bench.errors import RunDirectoryError
from fusetune.bench.results import Record
from fusetune.bench.search.journal import SearchJournal
from fusetune.bench.spec import same_value, value_id
from fusetune.tuner.search import Factor, Searcher, SearchTrial, Status, shipped_prior
from fusetune.tuner.training import higher_is_better

JOURNAL = "search.journal"
# Most trainings that wait in the workers' memory; each holds a model, an optimizer's state and, on a GPU, its data.
MOST_WAITING = 32
STUDY = "search"
BUDGET_SPENT = "the search's budget was spent"

_STATES: dict[str, TrialState] = {
    "finished": TrialState.COMPLETE,
    "dropped": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "out_of_memory": TrialState.FAIL,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True)
class SearchPlan:
    """What a spec asks of a search.

    Args:
        space: factor name -> list of choices, or {low, high, log}.
        max_epochs: of one training.
        seed: of the search and its trainings.
        metric: what is searched for: the target's, else validation accuracy.
        budget_epochs, prior: see `bench.spec.spec.SearchSettings`.
        fresh_seeds: on which the winner is trained again: the spec's other seeds first, then the next numbers.
    """

    space: dict[str, Any]
    max_epochs: int
    seed: int
    metric: str
    budget_epochs: int
    prior: bool
    fresh_seeds: tuple[int, ...]

    @property
    def maximize(self) -> bool:
        """Whether a larger value is better."""
        return higher_is_better(self.metric)


def is_left(trial: SearchTrial) -> bool:
    """Whether a training only waited when the budget was spent; in the study it counts as dropped."""
    return trial.status == "dropped" and trial.reason == BUDGET_SPENT


def why_ended(trial: SearchTrial) -> str:
    """Say why a training that waited is ended, as its record has it."""
    return f"{'paused' if is_left(trial) else 'dropped'}: {trial.reason}"


def plan_of(spec: Mapping[str, Any]) -> SearchPlan:
    """Read the search from a spec as run.json has it."""
    settings, seeds = spec["design"]["search"], spec["seeds"]
    following = range(max(seeds) + 1, max(seeds) + 1 + settings["fresh_seeds"])
    return SearchPlan(
        space={name: values for name, values in spec["factors"].items() if values},
        max_epochs=spec["train"]["epochs"],
        seed=seeds[0],
        metric=(spec.get("target") or {}).get("metric", "val_accuracy"),
        budget_epochs=settings["budget_epochs"],
        prior=settings["prior"],
        fresh_seeds=(*seeds[1:], *following)[: settings["fresh_seeds"]],
    )


def fresh_records(run: Mapping[str, Any], records: Sequence[Record]) -> list[Record]:
    """Return the records of the winner's trainings on fresh seeds. That others end early is how a search works."""
    fresh = plan_of(run["spec"]).fresh_seeds
    return [record for record in records if record.seed in fresh]


def open_search(plan: SearchPlan, directory: Path, *, go_on: str = "") -> tuple[Searcher, SearchStore]:
    """Begin a search in a run's directory, or take up what an earlier part of the run left there.

    Args:
        plan: what is searched.
        directory: of the run; its lock is held.
        go_on: the command that continues the run where the disk is full.

    Raises:
        RunDirectoryError: the study there cannot be read or written, or is of another search.
    """
    return _search_of(plan, SearchStore(directory, plan.space, maximize=plan.maximize, go_on=go_on))


def read_search(plan: SearchPlan, directory: Path) -> tuple[Searcher, SearchStore]:
    """Read a search from a run's directory, in which nothing is written.

    Raises:
        RunDirectoryError: the study there cannot be read, or is of another search.
    """
    return _search_of(plan, SearchStore(directory, plan.space, maximize=plan.maximize, writing=False))


def _search_of(plan: SearchPlan, store: SearchStore) -> tuple[Searcher, SearchStore]:
    """Build the searcher of what a study holds."""
    searcher = Searcher(
        plan.space,
        max_epochs=plan.max_epochs,
        seed=plan.seed,
        maximize=plan.maximize,
        prior=shipped_prior() if plan.prior else None,
        max_paused=MOST_WAITING,
    )
    for stored in store.stored():
        status, reason = stored.status, stored.reason
        if status == "paused" and len(stored.values) >= plan.max_epochs:
            # The process died after the last epoch, before it noted the end.
            status, reason = "finished", f"all {plan.max_epochs} epochs, the last at {stored.values[-1]:.6g}"
        searcher.restore(stored.config, stored.values, status, reason)
    return searcher, store


@dataclass(frozen=True)
class StoredTrial:
    """A trial as an earlier part of the run left it."""

    config: dict[str, Any]
    values: list[float]
    status: Status
    reason: str


class SearchStore:
    """The study of one run.

    Args:
        directory: of the run.
        space: factor name -> list of choices, or {low, high, log}.
        maximize: whether a larger value is better.
        writing: have what is noted on the disk; else nothing is written, and what is noted is forgotten.
        go_on: the command that continues the run where nothing can be written any more.

    Raises:
        RunDirectoryError: what is there is no study that can be read.
    """

    def __init__(
        self,
        directory: Path,
        space: Mapping[str, Any],
        *,
        maximize: bool,
        writing: bool = True,
        go_on: str = "",
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._distributions = {name: distribution(given) for name, given in space.items()}
        self._path = directory / JOURNAL
        self._was_there = self._path.exists()
        journal = SearchJournal(self._path, writing=writing, go_on=go_on)
        self.note = journal.note
        self.study = optuna.create_study(
            storage=journal.storage(),
            study_name=STUDY,
            direction="maximize" if maximize else "minimize",
            load_if_exists=True,
        )
        self._trials: dict[int, optuna.Trial] = {}

    @property
    def is_over(self) -> bool:
        """Whether the search was concluded: its winner stands, and nothing more is trained for it."""
        return bool(self.study.user_attrs.get("over"))

    def conclude(self) -> None:
        """Note that the search is over."""
        self.study.set_user_attr("over", True)

    def stored(self) -> list[StoredTrial]:
        """Return the trials of an earlier part of the run, in the order in which they began.

        Raises:
            RunDirectoryError: one is none of this search; the message names it.
        """
        found = []
        for trial in self.study.get_trials(deepcopy=False):
            try:
                found.append(self._read(trial))
            except (KeyError, TypeError, ValueError, StopIteration) as error:
                raise RunDirectoryError(
                    f"{self._path}: training {trial.number} is none of this search; {type(error).__name__}: {error}. "
                    "Restore the file, or start a new run."
                ) from error
        return found

    def gap(self, records: Sequence[Record]) -> str:
        """Say that trainings were recorded of a search whose study is missing. Empty where nothing is."""
        if self._was_there or not records:
            return ""
        return f"{self._path} is missing; what the search had decided is not known any more"

    def begin(self, trial: SearchTrial) -> None:
        """Note that a trial begins; its number in the study is the search's."""
        # In one write: a process that dies never leaves a trial without its configuration.
        self.study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params={name: label(self._space[name], value) for name, value in trial.config.items()},
                distributions=self._distributions,
            )
        )
        assert len(self.study.get_trials(deepcopy=False)) == trial.number + 1

    def report(self, trial: SearchTrial, entry: Mapping[str, float | None]) -> None:
        """Note a trial's last epoch: the metric, and the epoch's entry of the curve."""
        live = self._live(trial)
        # The entry first: an epoch whose value is known then has its entry, whenever the process dies.
        live.set_user_attr(_entry_name(trial.epochs), dict(entry))
        live.report(trial.values[-1], trial.epochs)

    def curve(self, trial: SearchTrial) -> list[dict[str, float | None]]:
        """Return the entries of a trial's curve, as far as it reported values."""
        noted = self._stored(trial).user_attrs
        return [noted[_entry_name(epoch)] for epoch in range(1, trial.epochs + 1)]

    def repeats(self, trial: SearchTrial) -> int:
        """Return how many of a trial's epochs were made once more, for the worker that had made them was gone."""
        return cast(int, self._stored(trial).user_attrs.get("epochs_made_again", 0))

    def add_repeats(self, trial: SearchTrial, epochs: int) -> None:
        """Note that epochs of a trial were made once more."""
        if epochs:
            self._live(trial).set_user_attr("epochs_made_again", self.repeats(trial) + epochs)

    def close(self, trial: SearchTrial) -> None:
        """Note how a trial ended."""
        live = self._live(trial)
        # The reason first: a status that is known then has it, whenever the process dies.
        live.set_user_attr("reason", trial.reason)
        live.set_user_attr("status", trial.status)
        finished = trial.status == "finished"
        self.study.tell(live, trial.values[-1] if finished else None, _STATES[trial.status])

    def is_closed(self, trial: SearchTrial) -> bool:
        """Whether the study knows how a trial ended."""
        return self._stored(trial).state.is_finished()

    def predicted(self, searcher: Searcher) -> optuna.Study:
        """Return a study in memory in which every trial has the end that it reached or is predicted to reach."""
        study = optuna.create_study(direction=self.study.direction)
        distributions = {
            name: _measured(factor, given)
            for (name, given), factor in zip(self._space.items(), searcher.space.factors, strict=True)
        }
        for number, value in searcher.predicted_ends().items():
            config = searcher.trials[number].config
            study.add_trial(
                create_trial(
                    params={name: label(self._space[name], value) for name, value in config.items()},
                    distributions=distributions,
                    value=value,
                )
            )
        return study

    def _live(self, trial: SearchTrial) -> optuna.Trial:
        """Return Optuna's handle of a trial, also of one from an earlier part of the run."""
        if trial.number not in self._trials:
            self._trials[trial.number] = optuna.Trial(self.study, self._stored(trial)._trial_id)
        return self._trials[trial.number]

    def _stored(self, trial: SearchTrial) -> FrozenTrial:
        """Return a trial as the study has it."""
        return self.study.get_trials(deepcopy=False)[trial.number]

    def _read(self, trial: FrozenTrial) -> StoredTrial:
        """Read one trial."""
        config = {}
        for name, given in self._space.items():
            value = trial.params[name]
            config[name] = value if isinstance(given, Mapping) else _choice(given, value)
        epochs = sorted(trial.intermediate_values)
        if epochs != list(range(1, len(epochs) + 1)):
            raise ValueError(f"values of the epochs {', '.join(map(str, epochs))}, which are not all")
        values = [float(trial.intermediate_values[epoch]) for epoch in epochs]
        for epoch in epochs:
            dict(trial.user_attrs[_entry_name(epoch)])
        status = trial.user_attrs.get("status", "paused")
        if status != "paused" and status not in _STATES:
            raise ValueError(f"unknown status {status!r}; known: paused, {', '.join(_STATES)}")
        return StoredTrial(config, values, cast(Status, status), str(trial.user_attrs.get("reason", "")))


def _entry_name(epoch: int) -> str:
    """Name the attribute that holds an epoch's entry of the curve."""
    return f"epoch_{epoch}"


def distribution(given: Any) -> BaseDistribution:
    """Return Optuna's description of a factor."""
    if not isinstance(given, Mapping):
        return CategoricalDistribution(labels(given))
    low, high, log = given["low"], given["high"], given.get("log", False)
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def _measured(factor: Factor, given: Any) -> BaseDistribution:
    """Return Optuna's description of a factor for importances and plots: choices in decades lie on a log axis."""
    if not (factor.log and factor.values):
        return distribution(given)
    if all(isinstance(value, int) for value in factor.values):
        return IntDistribution(int(factor.low), int(factor.high), log=True)
    return FloatDistribution(factor.low, factor.high, log=True)


def labels(values: Sequence[Any]) -> list[Any]:
    """Return what Optuna stores for a factor's values: themselves, or their JSON where they are lists or mappings.

    Optuna takes 1 for true and "[1, 2]" for a list. Where that mixes values up, their texts are stored.

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
    """Return what Optuna stores for one value of a factor.

    Args:
        given: the factor: a list of choices, or a range {low, high, log}, whose numbers are stored as they are.
        value: one of its values.
    """
    if isinstance(given, Mapping):
        return value
    return next(each for each, choice in zip(labels(given), given, strict=True) if same_value(choice, value))


def _choice(values: Sequence[Any], stored: Any) -> Any:
    """Return the choice that was stored."""
    return next(value for value, label in zip(values, labels(values), strict=True) if label == stored)
