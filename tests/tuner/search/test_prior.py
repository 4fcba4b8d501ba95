"""What earlier runs say: names that are recognised, interpolation, and nothing where nothing is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusetune.tuner.search.model import gap_scale
from fusetune.tuner.search.pool import comparable
from fusetune.tuner.search.prior import Prior, known_factor, known_value, shipped_prior
from fusetune.tuner.search.space import Space

CHOICES: dict[str, Any] = {"lr": [0.01, 0.1, 1.0], "optimizer": ["sgd", "adam"]}
# z = 10 lr index + optimizer index + epoch index / 10
Z = np.array([[[10 * i + j + k / 10 for k in range(4)] for j in range(2)] for i in range(3)])


def prior_at(space: Space, config: dict[str, object], share: float = 1.0) -> float:
    known = Prior(CHOICES, Z[None]).on(space)
    assert known is not None
    return float(known.at(known.curves(space.point(config)[None]), share)[0, 0])


def test_a_known_configuration_has_its_own_curve() -> None:
    space = Space({"optimizer": ["adam", "sgd"], "base_lr": [1.0, 0.01]})
    assert prior_at(space, {"optimizer": "adam", "base_lr": 1.0}) == pytest.approx(21.3)
    assert prior_at(space, {"optimizer": "sgd", "base_lr": 0.01}, share=0.5) == pytest.approx(0.1)


def test_a_learning_rate_between_two_is_interpolated_on_the_log_scale_and_beyond_them_the_nearest() -> None:
    space = Space({"learning_rate": {"low": 1e-4, "high": 10.0, "log": True}, "optimizer": ["sgd", "adam"]})
    assert prior_at(space, {"learning_rate": 10**-1.5, "optimizer": "sgd"}) == pytest.approx(5.3)
    assert prior_at(space, {"learning_rate": 1e-4, "optimizer": "sgd"}) == pytest.approx(0.3)
    assert prior_at(space, {"learning_rate": 10.0, "optimizer": "adam"}) == pytest.approx(21.3)


def test_a_share_between_two_epochs_is_interpolated() -> None:
    space = Space({"lr": [0.01, 0.1]})
    assert prior_at(space, {"lr": 0.01}, share=0.625) == pytest.approx(0.5 + 0.15)


def test_what_is_not_known_or_not_varied_is_averaged_over() -> None:
    lr_alone = Space({"lr": [0.1, 1.0], "depth": [1, 2]})
    assert prior_at(lr_alone, {"lr": 0.1, "depth": 2}) == pytest.approx(10.5 + 0.3)
    unknown_name = Space({"lr": [0.1, 1.0], "optimizer": ["lion", "adam"]})
    assert prior_at(unknown_name, {"lr": 0.1, "optimizer": "lion"}) == pytest.approx(10.5 + 0.3)
    assert prior_at(unknown_name, {"lr": 0.1, "optimizer": "adam"}) == pytest.approx(11.3)


def test_a_space_without_known_factors_has_no_prior() -> None:
    assert Prior(CHOICES, Z[None]).on(Space({"depth": [1, 2], "width": {"low": 8, "high": 64}})) is None
    assert Prior(CHOICES, Z[None]).on(Space({"lr": ["slow", "fast"]})) is None


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("train.batch_size", "batch_size"),
        ("learning-rate", "lr"),
        ("model.activation", "activation"),
        ("LR scheduler", "schedule"),
        ("momentum", None),
        ("weight_decay", None),
    ],
)
def test_factors_are_recognised_by_name(name: str, known: str | None) -> None:
    assert known_factor(name) == known


def test_values_are_recognised_by_name() -> None:
    assert known_value("Adam") == "adam"
    assert known_value({"name": "one_cycle"}) == "one-cycle"
    assert known_value("CosineAnnealing") == "cosine"
    assert known_value("prodigy") is None


@pytest.mark.parametrize(
    ("factor", "relative", "value"),
    [
        ("activation", "relu", "gelu"),
        ("activation", "relu", "silu"),
        ("activation", "relu", "leaky_relu"),
        ("activation", "relu", "elu"),
        ("schedule", "cosine", "linear"),
        ("schedule", "cosine", {"name": "cosine", "min_factor": 0.1}),
        ("optimizer", "adam", "adamw"),
        ("optimizer", "adam", "nadam"),
        ("optimizer", "momentum", "nesterov"),
    ],
)
def test_a_relative_has_none_of_the_curves_of_a_name_that_is_known(
    factor: str, relative: str, value: Any
) -> None:
    """Every level that nothing was recorded for has the average over its factor's axis, and is told of."""
    space = Space({factor: [relative, value], "lr": [0.01, 0.1]})
    prior = shipped_prior()
    known = prior.on(space)
    alone = prior.on(Space({"lr": [0.01, 0.1]}))
    assert known is not None
    assert alone is not None
    curves = known.curves(space.all_points()).reshape(2, 2, -1)
    average = alone.curves(np.array([[-2.0], [-1.0]])).reshape(2, -1)
    np.testing.assert_allclose(curves[1], average, atol=1e-9)
    assert np.abs(curves[0] - average).max() > 0.05
    assert prior.without_curves(space) == {factor: (value,)}


def test_a_prior_tells_of_which_factors_and_values_it_knows_nothing() -> None:
    prior = shipped_prior()
    assert prior.without_curves(Space({"base_lr": {"low": 0.001, "high": 1.0, "log": True}})) == {}
    assert prior.without_curves(Space({"model.activation": ["tanh", "gelu", "silu"], "depth": [1, 2]})) == {
        "model.activation": ("gelu", "silu"),
        "depth": (),
    }
    # A rate that cannot be measured in decades, or is no number, is none that the prior knows.
    assert prior.without_curves(Space({"lr": {"low": 0.0, "high": 1.0}})) == {"lr": ()}


@pytest.mark.parametrize(
    ("optimizers", "lead"),
    [
        (["sgd", "momentum"], 1.0),
        (["sgd", "adamw"], 1.5),
        (["momentum", {"name": "Nesterov", "momentum": 0.8}], 0.0),
        (["sgd", "lion"], 0.0),
        (["lion", "adam"], 0.0),
    ],
)
def test_rates_of_optimizers_are_compared_only_where_the_size_of_their_steps_is_known(
    optimizers: list[Any], lead: float
) -> None:
    space = Space({"lr": {"low": 1e-4, "high": 1.0, "log": True}, "optimizer": optimizers})
    one, other = comparable(space, np.array([[-2.0, 0.0], [-2.0, 1.0]]))
    assert other[0] - one[0] == pytest.approx(lead)


def test_averaging_does_not_let_a_table_of_larger_values_count_more() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random((3, 2, 4)), rng.random((3, 2, 4))
    fractions = Prior.from_tables(CHOICES, [one, other])
    mixed = Prior.from_tables(CHOICES, [one, 100 * other])
    np.testing.assert_allclose(fractions.terms, mixed.terms, atol=1e-9)


def test_its_terms_are_the_mean_the_slope_along_the_learning_rate_and_what_sets_the_tables_apart() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random((3, 2, 4)), rng.random((3, 2, 4))
    mean, slope, apart = Prior.from_tables(CHOICES, [one, other]).terms
    scaled = [gap_scale(table.ravel()).z(table) for table in (one, other)]
    curves = [z - z[..., -1].mean() for z in scaled]
    np.testing.assert_allclose(mean, (curves[0] + curves[1]) / 2)
    np.testing.assert_allclose(slope[1], (mean[2] - mean[0]) / 2)
    np.testing.assert_allclose(np.abs(apart), np.abs(curves[0] - curves[1]) / 2**0.5, atol=1e-12)


def test_a_single_table_sets_nothing_apart() -> None:
    table = np.random.default_rng(0).random((3, 2, 4))
    assert len(Prior.from_tables(CHOICES, [table]).terms) == 2
    assert len(Prior.from_tables({"depth": [1, 2, 3], "width": [8, 64]}, [table]).terms) == 1


def test_a_prior_is_read_as_it_was_written(tmp_path: Path) -> None:
    Prior(CHOICES, np.stack([Z, -Z])).save(tmp_path / "prior.npz")
    read = Prior.load(tmp_path / "prior.npz")
    assert read.choices == CHOICES
    np.testing.assert_allclose(read.terms, [Z, -Z], atol=1 / 64)


def test_the_shipped_prior_knows_that_adam_wants_smaller_rates_than_sgd() -> None:
    space = Space({"lr": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0], "optimizer": ["sgd", "momentum", "adam"]})
    known = shipped_prior().on(space)
    assert known is not None
    ends = known.at(known.curves(space.all_points()), 1.0)[:, 0].reshape(7, 3)
    best = ends.argmax(axis=0)
    assert best[2] < best[1] < best[0]
