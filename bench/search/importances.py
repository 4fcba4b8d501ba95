"""How much of the variance of predicted final values each factor explains: functional analysis of variance.

A random forest is fitted to the trainings. Each of its trees cuts the space into boxes with one value each, so that the
variance of a factor's marginal is a sum over pairs of boxes. Optuna's evaluator walks each tree for each place of a
factor instead, which took 6 of 9 seconds of a page of 300 trainings. The shares are equal.

Source: Hutter, Hoos and Leyton-Brown 2014, "An Efficient Approach for Assessing Hyperparameter Importance".
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution

if TYPE_CHECKING:
    import optuna

_TREES = 64
_DEPTH = 64

_Array = NDArray[np.float64]


def fanova(study: optuna.Study, seed: int) -> dict[str, float]:
    """Return each factor's share of the variance that single factors explain, largest first.

    share_i = mean over trees of Var(marginal of i) / Var(tree), over its sum for all factors

    Args:
        study: complete trials with finite values, which all have the same factors.
        seed: of the forest.

    Returns:
        Factor -> share, 0..1, with sum 1. Empty where no tree finds a difference. A factor with one value has 0.

    Memory: O(b^2) for b boxes of a tree, at most one for each trial.
    """
    from sklearn.ensemble import RandomForestRegressor

    trials = study.get_trials(deepcopy=False)
    distributions = dict(sorted(trials[0].distributions.items()))
    columns, bounds = _columns(distributions)
    points = np.array([_point(distributions, trial.params) for trial in trials])
    values = np.array([trial.value for trial in trials])
    forest = RandomForestRegressor(_TREES, max_depth=_DEPTH, random_state=seed).fit(points, values)
    fractions = [_fractions(each.tree_, list(columns.values()), bounds) for each in forest.estimators_]
    told = [each for each in fractions if each is not None]
    if not told:
        return {}
    means = dict(zip(columns, np.mean(told, axis=0).tolist(), strict=True))
    whole = math.fsum(means.values())
    shares = {
        name: means.get(name, 0.0) / whole if whole else 1 / len(distributions) for name in distributions
    }
    return dict(sorted(shares.items(), key=lambda each: -each[1]))


def _columns(distributions: dict[str, BaseDistribution]) -> tuple[dict[str, list[int]], _Array]:
    """Return the columns of each factor with more than one value, and the bounds of all columns, columns x 2.

    A choice has a column for each of its values.
    """
    columns: dict[str, list[int]] = {}
    bounds: list[tuple[float, float]] = []
    for name, each in distributions.items():
        if each.single():
            continue
        own = [(0.0, 1.0)] * len(each.choices) if isinstance(each, CategoricalDistribution) else [_ends(each)]
        columns[name] = list(range(len(bounds), len(bounds) + len(own)))
        bounds += own
    return columns, np.array(bounds).reshape(-1, 2)


def _ends(numeric: Any) -> tuple[float, float]:
    """Return the ends of the range of a factor of numbers."""
    return float(numeric.low), float(numeric.high)


def _point(distributions: dict[str, BaseDistribution], params: dict[str, Any]) -> list[float]:
    """Return a training's place in all columns."""
    place: list[float] = []
    for name, each in distributions.items():
        if each.single():
            continue
        internal = each.to_internal_repr(params[name])
        if isinstance(each, CategoricalDistribution):
            place += [float(at == internal) for at in range(len(each.choices))]
        else:
            place.append(float(internal))
    return place


def _fractions(tree: Any, columns: list[list[int]], bounds: _Array) -> list[float] | None:
    """Return the variance of each factor's marginal over that of the tree, or None for a tree that is constant.

    The marginal at x is the sum of v_i q_i over the boxes i whose side holds x. Here v_i is a box's value and q_i its
    share of the other columns. The variance of the marginal is the sum of v_i q_i v_j q_j o_ij over pairs of boxes, for
    values without their mean. The sides of boxes i and j share o_ij of the factor's range.
    """
    low, high, values = _boxes(tree, bounds)
    ranges = bounds[:, 1] - bounds[:, 0]
    widths = (high - low) / ranges
    volumes = widths.prod(axis=1)
    volumes /= volumes.sum()
    centred = values - volumes @ values
    variance = float(volumes @ centred**2)
    if variance <= 0:
        return None
    found = []
    for own in columns:
        weighted = centred * np.delete(widths, own, axis=1).prod(axis=1)
        shared = np.ones((len(values), len(values)))
        for at in own:
            overlap = np.minimum.outer(high[:, at], high[:, at]) - np.maximum.outer(low[:, at], low[:, at])
            shared *= np.clip(overlap, 0.0, None) / ranges[at]
        found.append(max(0.0, float(weighted @ shared @ weighted)) / variance)
    return found


def _boxes(tree: Any, bounds: _Array) -> tuple[_Array, _Array, _Array]:
    """Return the lower and upper corners of a tree's leaves, leaves x columns each, and their values."""
    low, high = (np.tile(ends, (tree.node_count, 1)) for ends in bounds.T)
    # A child's number is above its parent's.
    for node in np.flatnonzero(tree.feature >= 0):
        at, left, right = tree.feature[node], tree.children_left[node], tree.children_right[node]
        for child in (left, right):
            low[child], high[child] = low[node], high[node]
        high[left, at] = low[right, at] = tree.threshold[node]
    leaves = np.flatnonzero(tree.feature < 0)
    return low[leaves], high[leaves], tree.value[leaves, 0, 0]
