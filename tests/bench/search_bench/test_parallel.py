"""Searches with several workers on recorded tables: their clock, and how far several workers get."""

from __future__ import annotations

import numpy as np
import pytest

from fusetune.bench.search import Holders
from fusetune.bench.search_bench.parallel import ParallelReplay, limit, replay_workers
from fusetune.bench.search_bench.peers import PEERS
from fusetune.bench.search_bench.replay import load_table, prior_without_family, replay, workers_row
from fusetune.bench.search_bench.table import Table
from fusetune.tuner.search import Searcher


def test_one_worker_is_the_search_without_workers() -> None:
    table = load_table("strokes")
    prior = prior_without_family(table.family)
    epochs = replay(PEERS["tuner.search"](table, 0, prior), table.best, 100).epochs[0]
    alone = replay_workers(table, 0, prior, workers=1, budget=100, whole=False)
    assert (alone.time, alone.epochs) == (epochs, epochs)


def test_one_worker_decides_as_before_there_were_several() -> None:
    table = load_table("redrawn-digits")
    searcher = Searcher(
        table.choices, max_epochs=table.epochs, seed=3, prior=prior_without_family(table.family)
    )
    holders, made = Holders(searcher), []
    for _ in range(25):
        trial = holders.ask(0)
        assert trial is not None
        searcher.tell(trial, float(table.curve(trial.config)[trial.epochs]))
        holders.landed(trial)
        made.append(trial.number)
    # Recorded before workers came: the training that each epoch went to.
    assert made == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5, 1, 6, 7, 7, 8, 7, 7, 9, 9, 7, 7, 9, 7]
    assert table.best - searcher.trials[7].values[-1] <= 0.005 + 1e-12


def test_workers_without_a_training_wait_and_none_is_made_twice() -> None:
    table = Table({"depth": [1, 2, 3]}, np.array([[1, 2], [3, 4], [5, 9]]), 10)
    done = replay_workers(table, 0, None, workers=8, budget=100)
    assert (done.time, done.trainings, done.repeated, done.gap) == (2.0, 3, 0, 0.0)


def test_a_budget_is_of_epochs_whatever_the_workers() -> None:
    table = Table({"depth": list(range(40))}, np.tile(np.arange(1, 9), (40, 1)), 10)
    table.correct[7, 7] = 10
    for workers in (1, 4, 16):
        done = replay_workers(table, 0, None, workers=workers, budget=16)
        assert done.trainings <= 16
        assert done.time is None or (done.epochs is not None and done.epochs <= 16)


def test_a_row_marks_a_median_that_is_later_than_its_limit() -> None:
    one = [ParallelReplay(40.0, 40, 0.0, 9, 0)] * 2
    late, soon = (
        [ParallelReplay(time, 40, 0.01, 9, 0), ParallelReplay(time, 40, 0.0, 9, 0)] for time in (14.0, 12.0)
    )
    assert workers_row(4, late, 1, one, cap=600)[3] == "13 *"
    assert workers_row(4, soon, 1, one, cap=600)[3:] == ["13", "40", "100%", "9", "0.0", "-0.50 +- 0.50"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "digit-sums"])
def test_sixty_four_workers_take_about_as_long_as_one_whole_training(name: str) -> None:
    table = load_table(name)
    prior = prior_without_family(table.family)
    done = replay_workers(table, 0, prior, workers=64, budget=640, whole=False)
    assert done.time is not None
    assert done.time <= limit(0, 64, table.epochs)
