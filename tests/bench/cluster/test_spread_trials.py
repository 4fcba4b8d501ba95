"""The order in which nodes get trials."""

from __future__ import annotations

import random
from collections import defaultdict
from types import SimpleNamespace

import pytest

from fusetune.bench.cluster.spread_trials import SpreadTrials
from fusetune.bench.workers import LATER, NOTHING


def trials(configurations: int, seeds: int) -> list[SimpleNamespace]:
    return [
        SimpleNamespace(factors={"lr": lr}, seed=seed)
        for seed in range(seeds)
        for lr in range(configurations)
    ]


@pytest.mark.parametrize("order", range(20))
def test_no_configuration_sits_on_one_node_alone_however_fast_a_node_is(order: int) -> None:
    draw = random.Random(order)
    waiting, nodes = SpreadTrials(trials(5, 3)), ["a", "b", "c"]
    speeds = [1, draw.random(), 20 * draw.random()]
    seen = defaultdict(list)
    for node in nodes:  # all have joined
        trial = waiting.take(node)
        seen[trial.factors["lr"]].append(node)
    while len(waiting):
        (node,) = draw.choices(nodes, speeds)
        trial = waiting.take(node)
        if trial is not LATER:
            seen[trial.factors["lr"]].append(node)
    assert sorted(map(len, seen.values())) == [3] * 5
    assert all(len(set(where)) > 1 for where in seen.values())


def test_one_node_gets_the_trials_in_their_order() -> None:
    given = trials(4, 3)
    waiting = SpreadTrials(given)
    assert [waiting.take("a") for _ in given] == given
    assert waiting.take("a") is NOTHING


def test_nothing_waits_for_a_node_that_is_gone() -> None:
    waiting = SpreadTrials(trials(1, 3))
    assert waiting.take("b").seed == 0
    waiting.put_back(SimpleNamespace(factors={"lr": 0}, seed=0), "b")
    assert [waiting.take("a").seed for _ in range(2)] == [0, 1]
    assert waiting.take("a") is LATER
    waiting.forget("b")
    assert waiting.take("a").seed == 2


def test_a_trial_that_was_lost_comes_next() -> None:
    given = trials(2, 2)
    waiting = SpreadTrials(given)
    first = waiting.take("a")
    waiting.put_back(first, "a")
    assert waiting.take("a") is first
    assert len(waiting) == 3
