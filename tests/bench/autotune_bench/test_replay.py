"""Recorder and replay: what is recorded is right, and rules are scored against the best by all samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fusetune.bench.autotune_bench.elementwise import add, transpose
from fusetune.bench.autotune_bench.landscape import Landscape, load
from fusetune.bench.autotune_bench.own_kernels import shipped
from fusetune.bench.autotune_bench.problem import product
from fusetune.bench.autotune_bench.problems import PROBLEMS
from fusetune.bench.autotune_bench.record import ROUNDS, ROUNDS_OF_ALL, record
from fusetune.bench.autotune_bench.replay import (
    RULES,
    fixed,
    halves,
    racing,
    regret,
    score,
    triton_median,
)
from fusetune.kernels import path_on


def landscape(logs: np.ndarray) -> Landscape:
    configs = [{"BLOCK": 2**i} for i in range(logs.shape[1])]
    return Landscape("made/1", configs, list(range(logs.shape[1])), np.exp(logs), {})


def made(seed: int, codes: int = 8, rounds: int = 160, scale: float = 0.02) -> Landscape:
    """True times of 1, 1.02, 1.04, ..., in a random order, with noise."""
    generator = np.random.default_rng(seed)
    true = generator.permutation(np.log(1 + 0.02 * np.arange(codes)))
    return landscape(true + scale * generator.standard_normal((rounds, codes)))


def test_the_best_is_that_of_all_rounds_and_the_regret_that_of_the_judges() -> None:
    logs = np.zeros((8, 2))
    logs[:, 1] = np.log([1.1, 1.3] * 4)  # 10 % slower in even rounds, 30 % in odd ones
    found = landscape(logs)
    assert found.best == 0
    judged = [regret(found, 1, judges) for _, judges in halves(found, starts=1)]
    assert judged == pytest.approx([0.3, 0.1])
    assert regret(found, 0, np.arange(8)) == 0.0


def test_a_rule_sees_no_round_of_its_judge() -> None:
    found = made(0)
    for half, judges in halves(found):
        assert not set(half.rounds) & set(judges)
        seen = {half.sample(3, turn) for turn in range(500)}
        assert not seen & set(found.samples_s[judges, 3])
        assert len(half.rounds) + len(judges) == len(found.samples_s)


def test_samples_of_a_code_that_was_left_out_are_repeated() -> None:
    found = made(0)
    found.samples_s[40:, 2] = np.nan
    half, _ = next(iter(halves(found)))
    assert all(half.sample(2, turn) > 0 for turn in range(200))


def test_tritons_rule_times_one_config_after_the_other() -> None:
    """The machine slows down: interleaved rounds do not mind, but the first of two equal configs wins otherwise."""
    logs = np.linspace(0, 1, 160)[:, None] + np.array([0.02, 0.0])
    found = landscape(logs)
    half, _ = next(iter(halves(found)))
    assert fixed(half, 20)[0] == 1
    assert triton_median(half, 20)[0] == 0


def test_scores_count_samples_against_those_of_fixed_rounds() -> None:
    some = [made(seed) for seed in range(3)]
    assert score(some, fixed).share == 1.0
    assert score(some, racing).share <= 0.5


@pytest.mark.slow
def test_the_race_has_less_regret_than_triton_by_half_the_samples() -> None:
    """Synthetic landscapes with a drift as machines have it."""
    some = []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        drift = np.cumsum(0.005 * generator.standard_normal(160))[:, None]
        some.append(landscape(np.log(made(seed, 12).samples_s) + drift))
    ours = score(some, RULES["race"])
    assert ours.share <= 0.5
    assert ours.regrets.mean() <= 0.005
    assert np.quantile(ours.regrets, 0.95) <= 0.02
    assert ours.regrets.mean() < score(some, RULES["triton, median"]).regrets.mean()
    assert ours.regrets.mean() < score(some, RULES["triton, mean"]).regrets.mean()


def test_a_landscape_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = Landscape("a b/1x2", [{"A": 1}, {"A": 2}], [0, 0], np.array([[1e-4], [2e-4]]), {"policy": "wall"})
    again = load(found.save(tmp_path))
    assert (again.name, list(again.configs), again.code_of, again.facts) == (
        found.name,
        list(found.configs),
        found.code_of,
        {"policy": "wall"},
    )
    np.testing.assert_allclose(again.samples_s, found.samples_s, rtol=1e-6)


def test_problems_are_enough_and_have_spaces() -> None:
    assert len(PROBLEMS) >= 30
    assert sum(len(problem.configs) > 200 for problem in PROBLEMS.values()) >= 3
    assert product(A=(1, 2), B=(3,)) == ({"A": 1, "B": 3}, {"A": 2, "B": 3})


@pytest.mark.slow
@pytest.mark.skipif(path_on(torch.device("cpu")) != "triton-cpu", reason="no compiler")
def test_configs_of_equal_code_are_timed_once_and_wrong_ones_are_found() -> None:
    problem = add(1000)
    few = [c for c in problem.configs if c["BLOCK_SIZE"] in (64, 1024)]
    found = record(type(problem)(**{**vars(problem), "configs": tuple(few)}), limit_s=0.0)
    assert found.codes == 2
    assert list(found.code_of) == [0, 0, 0, 1, 1, 1]
    assert ROUNDS_OF_ALL < len(found.samples_s) <= ROUNDS
    assert (found.samples_s[:ROUNDS_OF_ALL] > 0).all()
    wrong = transpose(16, 16)
    with pytest.raises(ArithmeticError, match="the error is"):
        record(
            type(wrong)(
                **{**vars(wrong), "configs": wrong.configs[:1], "reference": lambda t: t["x"].double()}
            )
        )


@pytest.mark.slow
@pytest.mark.skipif(path_on(torch.device("cpu")) != "triton-cpu", reason="no compiler")
@pytest.mark.parametrize("name", ["adam", "swiglu_backward"])
def test_our_own_kernels_are_verified_from_the_same_start_by_every_config(name: str) -> None:
    problem = shipped(name, 1000)
    found = record(problem, limit_s=0.0)
    assert found.codes == len(problem.configs) == len({config["BLOCK_SIZE"] for config in problem.configs})
    kept = problem.make(0)
    problem.launch(kept, problem.configs[0])
    problem.launch(kept, problem.configs[0])
    problem.reset(kept)
    problem.launch(kept, problem.configs[1])
    torch.testing.assert_close(problem.results(kept).double(), problem.reference(kept), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(path_on(torch.device("cpu")) != "triton-cpu", reason="no compiler")
def test_a_step_that_does_nothing_is_wrong() -> None:
    problem = replace(shipped("adam", 1000), launch=lambda t, config: t.update(result=None))
    with pytest.raises(ArithmeticError, match="the error is"):
        record(problem, limit_s=0.0)
