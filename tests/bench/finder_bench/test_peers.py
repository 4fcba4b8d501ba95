"""The finders of others themselves: each answers with a rate, or with a batch size that the limit bounds."""

from __future__ import annotations

import math

import pytest

from fusetune.bench.finder_bench.batch_cases import BATCH_CASES
from fusetune.bench.finder_bench.batch_finders import BATCH_FINDERS
from fusetune.bench.finder_bench.jobs import Children, Job
from fusetune.bench.finder_bench.peers import PEERS, peer_versions
from fusetune.bench.finder_bench.rate_finders import RULES

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1800)]
FINDERS = "fusetune.bench.finder_bench"


def test_every_peer_is_there() -> None:
    assert set(peer_versions()) == set(PEERS)


@pytest.mark.parametrize("finder", [name for name in RULES if name != "fusetune confirmed"])
def test_each_rule_suggests_a_rate_in_as_many_steps_as_asked(finder: str) -> None:
    asked = {"finder": finder, "workload": "digits, MLP, momentum", "seed": 0, "steps": 100}
    with Children() as children:
        answer = children.ask(Job(f"{FINDERS}.rate_finders:suggest", asked))
    assert answer.failure == ""
    assert set(answer.value["rates"]) == set(RULES[finder])
    assert all(0 < lr < math.inf for lr in answer.value["rates"].values())
    # Some stop when the loss diverges, torch-lr-finder's history has one step more.
    assert 10 < answer.value["steps"] <= 101


@pytest.mark.parametrize("finder", BATCH_FINDERS)
def test_each_batch_finder_answers_or_its_failure_is_known(finder: str) -> None:
    case = next(iter(BATCH_CASES))
    with Children() as children:
        answer = children.ask(Job(f"{FINDERS}.batch_finders:find", {"finder": finder, "case": case}))
    assert bool(answer.value) != bool(answer.failure)
    if answer.value:
        assert 1 <= answer.value <= BATCH_CASES[case].samples
