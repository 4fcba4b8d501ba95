"""The searchers of the benchmark. Each yields the metric of every epoch that it trains, in order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import optuna

from fusetune.bench.search_bench.table import Table
from fusetune.tuner.search import Prior, Searcher

Peer = Callable[[Table, int, Prior | None], Iterator[float]]


def ours(table: Table, seed: int, prior: Prior | None) -> Iterator[float]:
    """`tuner.search` with a prior from tables of other families."""
    searcher = Searcher(table.choices, max_epochs=table.epochs, seed=seed, prior=prior)
    while (trial := searcher.ask()) is not None:
        value = float(table.curve(trial.config)[trial.epochs])
        yield value
        searcher.tell(trial, value)


def ours_without_prior(table: Table, seed: int, prior: Prior | None) -> Iterator[float]:
    """`tuner.search` without a prior."""
    yield from ours(table, seed, None)


def random_search(table: Table, seed: int, prior: Prior | None) -> Iterator[float]:
    """Full trainings of all configurations, in random order."""
    configurations = table.configurations()
    random.Random(seed).shuffle(configurations)
    for configuration in configurations:
        yield from table.curve(configuration).tolist()


def tpe(table: Table, seed: int, prior: Prior | None) -> Iterator[float]:
    """Optuna's TPE sampler with full trainings."""
    yield from _optuna(table, seed, optuna.pruners.NopPruner())


def tpe_halving(table: Table, seed: int, prior: Prior | None) -> Iterator[float]:
    """Optuna's TPE sampler with successive halving, reduction factor 2."""
    yield from _optuna(table, seed, optuna.pruners.SuccessiveHalvingPruner(reduction_factor=2))


def _optuna(table: Table, seed: int, pruner: optuna.pruners.BasePruner) -> Iterator[float]:
    """Run an endless study."""
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    while True:
        trial = study.ask()
        curve = table.curve({name: _suggest(trial, name, values) for name, values in table.choices.items()})
        for epoch, value in enumerate(curve.tolist(), start=1):
            yield value
            trial.report(value, epoch)
            if epoch < table.epochs and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, float(curve[-1]))


def _suggest(trial: optuna.Trial, name: str, values: list[Any]) -> Any:
    """Suggest a choice. A learning rate is a real number on the log scale, rounded to the table's nearest."""
    if name != "lr":
        return trial.suggest_categorical(name, values)
    wanted = trial.suggest_float(name, min(values), max(values), log=True)
    return min(values, key=lambda value: max(value / wanted, wanted / value))


PEERS: dict[str, Peer] = {
    "random": random_search,
    "Optuna TPE": tpe,
    "Optuna TPE + halving": tpe_halving,
    "tuner.search, no prior": ours_without_prior,
    "tuner.search": ours,
}
