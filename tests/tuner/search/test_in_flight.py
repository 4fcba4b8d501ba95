"""Decisions while other trainings are in flight: what is believed of them, and what a decision computes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from fusetune.tuner.search import Searcher, SearchTrial, Space, pool, shipped_prior
from fusetune.tuner.search import forecast as forecasts
from fusetune.tuner.search.model import (
    MOST_OBSERVATIONS,
    CurveModel,
    Kernel,
    Observations,
    configuration_correlation,
)

SPACE = {
    "lr": [10.0 ** (-4 + half / 2) for half in range(9)],
    "batch_size": [16, 32, 64, 128, 256],
    "optimizer": ["sgd", "momentum", "adam"],
    "activation": ["relu", "tanh", "sigmoid"],
    "schedule": ["constant", "cosine", "one-cycle"],
}
EPOCHS = 8


def accuracy(config: dict[str, Any], epoch: int) -> float:
    """A smooth curve whose end depends on the rate and the schedule."""
    end = 0.9 - 0.05 * abs(np.log10(config["lr"]) + 2) - 0.02 * (config["schedule"] == "constant")
    return float(end - 0.3 / epoch)


def asked(searcher: Searcher, count: int) -> list[SearchTrial]:
    """Ask for some trainings without telling any."""
    trials = [searcher.ask() for _ in range(count)]
    assert None not in trials
    return [trial for trial in trials if trial is not None]


@pytest.mark.parametrize("with_prior", [False, True])
def test_epochs_in_flight_take_from_the_deviation_what_their_values_would_and_leave_the_mean(
    with_prior: bool,
) -> None:
    rng = np.random.default_rng(0)
    points = np.stack([rng.random(7), rng.integers(0, 2, 7)], axis=1)
    within = configuration_correlation(np.array([0.8, 0.6]), np.array([False, True]), points, points)
    trial, share = np.array([0, 0, 1, 2, 2, 3, 4]), np.array([0.25, 0.5, 0.25, 0.25, 0.5, 0.25, 0.75])
    prior = rng.normal(0, 1, (7, 2)) if with_prior else None

    def some(rows: slice) -> Observations:
        return Observations(
            trial[rows], share[rows], rng.normal(0, 1, 7)[rows], None if prior is None else prior[rows]
        )

    told, flying, whole = some(slice(0, 5)), some(slice(5, 7)), some(slice(0, 7))
    numbers = np.array([3, 0, -1, -1])
    across, at = within[[3, 0, 5, 6]], None if prior is None else rng.normal(0, 1, (4, 2))
    believing = CurveModel(Kernel(), within[:5, :5], told, flying).predict(across[:, :5], numbers, prior=at)
    without = CurveModel(Kernel(), within[:3, :3], told).predict(across[:, :3], numbers, prior=at)
    # The deviation of a Gaussian process does not depend on the values: any will do.
    informed = CurveModel(Kernel(), within[:5, :5], whole).predict(across[:, :5], numbers, prior=at)
    np.testing.assert_allclose(believing[0], without[0], rtol=1e-12)
    np.testing.assert_allclose(believing[1], informed[1], rtol=1e-9)
    assert (believing[1] < without[1]).all()


@pytest.mark.parametrize("with_prior", [False, True])
def test_many_begin_at_once_each_with_another_configuration(with_prior: bool) -> None:
    def configurations() -> list[str]:
        prior = shipped_prior() if with_prior else None
        searcher = Searcher(SPACE, max_epochs=EPOCHS, seed=1, prior=prior)
        return [str(trial.config) for trial in asked(searcher, 64)]

    first = configurations()
    assert len(set(first)) == 64
    assert first == configurations()


def test_of_the_first_trainings_most_are_where_earlier_runs_were_good() -> None:
    prior = shipped_prior()
    searcher = Searcher(SPACE, max_epochs=EPOCHS, prior=prior)
    known, space = prior.on(Space(SPACE)), searcher.space
    assert known is not None
    everywhere = known.ends(space.all_points())[:, 0]
    begun = np.array([space.point(trial.config) for trial in asked(searcher, 64)])
    assert np.median(known.ends(begun)[:, 0]) > np.quantile(everywhere, 0.9)


@pytest.mark.parametrize(("others", "goes_on"), [(0, False), (1, False), (23, True)])
def test_a_training_goes_on_where_others_could_begin_every_better_new_one(others: int, goes_on: bool) -> None:
    """Of the 32 configurations nearly all that have not begun are better than the paused one."""
    searcher = Searcher({"x": list(range(32))}, max_epochs=2, prior=None)
    good, poor, *flying = asked(searcher, 2 + others)
    searcher.tell(good, 0.9)
    searcher.tell(poor, 0.5)
    asked_next = searcher.ask([good.number])
    assert (asked_next is poor) == goes_on
    assert asked_next not in flying


@pytest.mark.parametrize("with_prior", [False, True])
def test_epochs_in_flight_are_believed_without_a_prior_alone(
    monkeypatch: pytest.MonkeyPatch, with_prior: bool
) -> None:
    believed: list[int] = []
    fitted = forecasts.Forecast.fitted

    def spying(
        self: forecasts.Forecast, known: Observations, pending: Observations | None = None
    ) -> CurveModel:
        believed.append(0 if pending is None else len(pending.z))
        return fitted(self, known, pending)

    searcher = Searcher(SPACE, max_epochs=EPOCHS, prior=shipped_prior() if with_prior else None)
    flying = asked(searcher, 12)
    searcher.tell(flying[0], accuracy(flying[0].config, 1))
    monkeypatch.setattr(forecasts.Forecast, "fitted", spying)
    assert searcher.ask() is not None
    assert believed == [0 if with_prior else 11]


@pytest.mark.parametrize(("workers", "first"), [(1, 8), (4, 24)])
def test_a_prior_that_is_wrong_is_doubted_once_each_worker_has_made_its_epochs(
    workers: int, first: int
) -> None:
    searcher = Searcher(SPACE, max_epochs=EPOCHS, prior=shipped_prior())
    flying = asked(searcher, workers)
    doubted: list[int] = []
    while not doubted:
        trial = flying.pop(0)
        searcher.tell(trial, 1 - accuracy(trial.config, trial.epochs + 1))
        flying += asked(searcher, 1)
        doubted = [line.epochs_used for line in searcher.log if line.action == "doubt the prior"]
    assert first <= doubted[0] <= first + 8


@pytest.mark.parametrize("with_prior", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_decision_costs_no_more_for_a_thousand_trainings_than_for_two_hundred(
    monkeypatch: pytest.MonkeyPatch, with_prior: bool
) -> None:
    searcher = Searcher(SPACE, max_epochs=EPOCHS, prior=shipped_prior() if with_prior else None)
    points = searcher.space.all_points()
    for index, row in enumerate(np.random.default_rng(0).permutation(len(points))[:1000].tolist()):
        config, made = searcher.space.configuration(points[row]), 1 + index % 3
        values = [accuracy(config, epoch) for epoch in range(1, made + 1)]
        searcher.restore(config, values, "paused" if index % 20 == 0 else "dropped", "")
    flying = asked(searcher, 64)
    computed: Counter[str] = Counter()
    factors: list[list[int]] = []  # rows of each Cholesky factor, by decision
    cholesky = np.linalg.cholesky

    def factored(matrix: np.ndarray) -> np.ndarray:
        factors[-1].append(len(matrix))
        return cholesky(matrix)

    def counting(reach: Any, is_name: Any, left: np.ndarray, right: np.ndarray) -> Any:
        computed["correlations"] += len(left) * len(right)
        return configuration_correlation(reach, is_name, left, right)

    monkeypatch.setattr(np.linalg, "cholesky", factored)
    monkeypatch.setattr(pool, "configuration_correlation", counting)
    decisions = 8  # one of them fits the lengths anew
    for trial in flying[:decisions]:
        searcher.tell(trial, accuracy(trial.config, trial.epochs + 1))
        factors.append([])
        assert searcher.ask() is not None
    assert max(max(made) for made in factors) <= MOST_OBSERVATIONS
    # Two models to doubt the prior, then up to two of two factors each, those of epochs in flight too.
    assert sorted(map(len, factors))[decisions // 2] <= 2 + 2 * 2
    # Each of the five lengths is tried longer and shorter, and the noise too. Then there are at most two models.
    assert max(map(len, factors)) <= (1 + 2 * 5) + 3 + 2 + 2 * 2
    # 1,000 x 1,000 correlations, and the list's with 1,000 trainings, would be 2.2 million in each decision.
    assert computed["correlations"] / decisions <= 60_000


def test_a_search_that_doubts_the_prior_takes_over_few_trainings_in_one_decision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a resumption it has chosen none of them itself, and would take over most of them at once."""
    searcher = Searcher(SPACE, max_epochs=EPOCHS, prior=shipped_prior())
    points = searcher.space.all_points()
    for row in np.random.default_rng(0).permutation(len(points))[:900].tolist():
        config = searcher.space.configuration(points[row])
        searcher.restore(config, [1 - accuracy(config, 1)], "dropped", "")
    models: list[int] = []
    fitted = forecasts.Forecast.fitted

    def counting(*arguments: Any) -> CurveModel:
        models[-1] += 1
        return fitted(*arguments)

    monkeypatch.setattr(forecasts.Forecast, "fitted", counting)
    for _ in range(24):
        models.append(0)
        assert searcher.ask() is not None
    assert max(models) == 2
