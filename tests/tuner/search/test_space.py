"""A space of a search: what is refused, and coordinates that lead back to the values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fusetune.tuner.search.space import SAMPLED, Space


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ({}, "space: has no factors"),
        ([0.1], "space: has no factors"),
        ({"lr": []}, "space.lr: has no choices"),
        ({"lr": 0.1}, "space.lr: is 0.1. Give a list"),
        ({"optimizer": "adam"}, "space.optimizer: is 'adam'. Give a list"),
        (
            {"lr": (1e-4, 1.0)},
            "{'low': 0.0001, 'high': 1.0, 'log': True} for the range, [0.0001, 1.0] for the",
        ),
        ({"lr": (0.9, 0.8)}, "(0.9, 0.8) may be a range or two choices. Give {'low': 0.8, 'high': 0.9} for"),
        ({"lr": {"low": -1e308, "high": 1e308}}, "is farther than a float holds"),
        ({"lr": [0.1, 0.2, 0.1]}, "space.lr: 0.1 stands twice"),
        ({"lr": {"low": 1.0, "high": 1.0}}, "space.lr: low 1.0 is not below high 1.0"),
        ({"lr": {"low": 2.0, "high": 1.0}}, "space.lr: low 2.0 is not below high 1.0"),
        ({"lr": {"low": 0.0, "high": 1.0, "log": True}}, "space.lr: low is 0.0, which has no logarithm"),
        ({"lr": {"low": -1.0, "high": 1.0, "log": True}}, "space.lr: low is -1.0, which has no logarithm"),
        ({"lr": {"low": 0.1}}, "space.lr: low and high are needed"),
        ({"lr": {"low": 0.1, "high": 1.0, "lgo": True}}, "space.lr: unknown 'lgo'"),
        ({"lr": {"low": "0.1", "high": 1.0}}, "space.lr: low '0.1' and high 1.0 must be finite numbers"),
        ({"lr": {"low": 0.1, "high": math.inf}}, "must be finite numbers"),
        ({"lr": {"low": 0.1, "high": 1.0, "log": "false"}}, "space.lr: log is 'false'. Give True or False"),
        ({"lr": {"low": 0.1, "high": 1.0, "log": 1}}, "space.lr: log is 1. Give True or False"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_in_one_sentence(space: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^space") as error:
        Space(space)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_every_listed_point_leads_to_another_configuration_and_back() -> None:
    space = Space(
        {
            "lr": [0.001, 0.01, 0.1],
            "depth": {"low": 1, "high": 3},
            "optimizer": ["sgd", "adam"],
            "schedule": [{"name": "cosine", "min_factor": 0.1}, "constant"],
        }
    )
    points = space.all_points()
    configurations = [space.configuration(point) for point in points]
    assert len(points) == space.size == 36
    assert len({repr(configuration) for configuration in configurations}) == 36
    for point, configuration in zip(points, configurations, strict=True):
        np.testing.assert_allclose(space.point(configuration), point)


def test_choices_over_decades_are_measured_in_decades_and_others_as_shares() -> None:
    space = Space({"lr": [0.001, 0.01, 1.0], "momentum": [0.5, 0.7, 0.9], "flag": [True, False]})
    lr, momentum, flag = (factor.coordinates.tolist() for factor in space.factors)
    assert lr == pytest.approx([-3, -2, 0])
    assert momentum == pytest.approx([0, 0.5, 1])
    assert flag == [0, 1]
    assert space.is_name.tolist() == [False, False, True]


def test_a_filling_start_spreads_over_every_factor_and_depends_on_the_seed() -> None:
    space = Space({"lr": {"low": 1e-4, "high": 1.0, "log": True}, "optimizer": ["sgd", "adam"]})
    points = space.filling(8, seed=1)
    # A scrambled Sobol sequence of 8 points puts one into each eighth of an axis, and four into each half.
    assert sorted(((points[:, 0] + 4) / 4 * 8).astype(int).tolist()) == list(range(8))
    assert sorted(points[:, 1].tolist()) == [0] * 4 + [1] * 4
    assert np.array_equal(points, space.filling(8, seed=1))
    assert not np.array_equal(points, space.filling(8, seed=2))


def test_samples_stay_inside_their_ranges_and_on_whole_numbers() -> None:
    space = Space(
        {"x": {"low": -1.0, "high": 1.0}, "n": {"low": 1, "high": 100, "log": True}, "c": list("abc")}
    )
    near = space.point({"x": 1.0, "n": 100, "c": "b"})[None]
    points = space.sampled(np.random.default_rng(0), near)
    values = [space.configuration(point) for point in points]
    assert len(values) == SAMPLED
    assert all(-1 <= value["x"] <= 1 and 1 <= value["n"] <= 100 for value in values)
    assert all(isinstance(value["n"], int) for value in values)
    for point, value in zip(points, values, strict=True):
        np.testing.assert_allclose(space.point(value), point, atol=1e-4)


def test_a_space_of_many_choices_is_not_listed() -> None:
    assert not Space({f"x{i}": [1, 2, 3, 4] for i in range(7)}).is_listed
    assert Space({f"x{i}": [1, 2, 3, 4] for i in range(6)}).is_listed
    assert math.isinf(Space({"x": {"low": 0.0, "high": 1.0}}).size)


def test_a_tuple_that_cannot_be_a_range_is_choices() -> None:
    space = Space({"optimizer": ("sgd", "adam"), "width": (8, 16, 32), "flag": (True, False)})
    assert [factor.values for factor in space.factors] == [("sgd", "adam"), (8, 16, 32), (True, False)]


@pytest.mark.parametrize(
    "given",
    [
        {"low": 0.999, "high": 0.99999},
        {"low": -3.0, "high": 4.0},
        {"low": 1e-4, "high": 1.0, "log": True},
        {"low": 1.0, "high": 1.0001, "log": True},
        {"low": 1e-30, "high": 3e-30},
        {"low": 0.01, "high": 1e5},
    ],
)
def test_a_range_holds_thousands_of_numbers_that_are_as_short_as_they_can_be(given: dict[str, float]) -> None:
    (factor,) = Space({"x": given}).factors
    even = np.linspace(0, 1, 5000, endpoint=False)
    values = [factor.value(coordinate) for coordinate in factor.spread(even).tolist()]
    assert len(set(values)) == 5000
    assert all(given["low"] <= value <= given["high"] for value in values)
    assert max(len(f"{value!r}".replace("-", "")) for value in values) <= 12
    # A value leads back to itself.
    assert [factor.value(factor.coordinate(value)) for value in values] == values


def test_points_on_all_scales_come_near_the_ends_of_a_range() -> None:
    (factor,) = Space({"lr": {"low": 0.01, "high": 1e5}}).factors
    drawn = factor.on_all_scales(np.random.default_rng(0), 4000)
    values = np.array([factor.value(coordinate) for coordinate in drawn.tolist()])
    for low in 10.0 ** np.arange(-2, 5):
        assert ((values >= low) & (values < 10 * low)).sum() > 50, low
    assert (values > 0.999e5).sum() > 50
    assert ((values > 0.2e5) & (values < 0.8e5)).sum() > 400
