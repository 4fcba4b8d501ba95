"""Importances in closed form: equal to those of Optuna's own evaluator, which walks every tree."""

from __future__ import annotations

import math
import random
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import create_trial

from fusetune.bench.search.for_optuna import importances_of
from fusetune.bench.search.importances import fanova

FACTORS: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "optimizer": CategoricalDistribution(["sgd", "adam", "lion"]),
    "depth": IntDistribution(1, 8),
    "alone": CategoricalDistribution([5]),
    "flag": CategoricalDistribution([True, False]),
}


def study_of(count: int, seed: int) -> optuna.Study:
    """Trainings whose value depends on the rate, and on the depth with one of the optimizers."""
    chance, study = random.Random(seed), optuna.create_study()
    for _ in range(count):
        params: dict[str, Any] = {
            "rate": 10 ** chance.uniform(-4, 0),
            "optimizer": chance.choice(["sgd", "adam", "lion"]),
            "depth": chance.randint(1, 8),
            "alone": 5,
            "flag": chance.random() < 0.5,
        }
        value = (math.log10(params["rate"]) + 2) ** 2 + 0.3 * (params["optimizer"] == "adam") * params[
            "depth"
        ]
        study.add_trial(
            create_trial(params=params, distributions=FACTORS, value=value + chance.gauss(0, 0.1))
        )
    return study


@pytest.mark.parametrize("count", [8, 40])
def test_shares_equal_those_of_optunas_evaluator(count: int) -> None:
    study = study_of(count, seed=count)
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=3)
    expected = optuna.importance.get_param_importances(study, evaluator=evaluator)
    shares = fanova(study, seed=3)
    assert list(shares) == list(expected)
    assert shares == pytest.approx(dict(expected), abs=1e-12)
    assert shares["alone"] == 0.0


def test_trainings_of_one_configuration_have_no_importances() -> None:
    study = optuna.create_study()
    for value in range(8):
        study.add_trial(
            create_trial(params={"depth": 3}, distributions={"depth": IntDistribution(1, 8)}, value=value)
        )
    assert importances_of(study, 0) == ({}, "no factor of the trainings differs")
