"""What a page says of a search's factors: importances with a check, parallel coordinates, and predicted contours."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusetune.bench.page import (
    Block,
    Channel,
    Layer,
    Plot,
    Prose,
    by_column,
    category,
    layered,
    log_quantity,
    mark,
    quantity,
    ramp,
    texts,
    tooltip,
)
from fusetune.bench.search.study import SearchStudy
from fusetune.bench.spec import key_id
from fusetune.bench.stats import counted, percent

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# Below it a fold that is held out has fewer than four trainings.
LEAST_CHECKED = 20
_FOLDS, _SHUFFLES, _TREES = 5, 5, 60
_MOST_BARS = 20
_BEST_SHARE, _MOST_BEST = 0.1, 10
_MOST_AXES, _MOST_LABELS = 10, 8
LEAST_FOR_CONTOURS, _LEAST_LEVELS, _MOST_FITTED = 12, 3, 200
_CELLS = 24
_FEW_LINES = 30
# Share of the colours that only values worse than all would have.
_PALE = 0.3


@dataclass(frozen=True)
class Axis:
    """A factor as an axis from 0 to 1.

    Args:
        name: of the factor.
        levels: of categories or of a few numbers. Empty for a range of numbers.
        low, high: ends of a range.
        log: whether distances are of logarithms.
    """

    name: str
    levels: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    def place(self, value: Any) -> float:
        """Return where a value lies, from 0 to 1. Levels are equally far apart.

        Example:
            >>> round(Axis("lr", low=0.001, high=1.0, log=True).place(0.1), 3), Axis("norm", ("a", "b")).place("b")
            (0.667, 1.0)
        """
        if self.levels:
            number = next(
                i for i, level in enumerate(self.levels) if level == value and _kind(level) == _kind(value)
            )
            return number / max(1, len(self.levels) - 1)
        if self.high == self.low:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return float((value - self.low) / (self.high - self.low))

    def value(self, place: float) -> float:
        """Return the number at a place of a range."""
        if self.log:
            return float(self.low * (self.high / self.low) ** place)
        return self.low + place * (self.high - self.low)

    def labels(self) -> list[tuple[float, str]]:
        """Return some places with what stands there."""
        if self.levels:
            every = math.ceil(len(self.levels) / _MOST_LABELS)
            return [(self.place(level), str(level)) for level in self.levels[::every]]
        return [(place, f"{self.value(place):.3g}") for place in (0.0, 0.5, 1.0)]


def _kind(value: Any) -> type:
    """Return the type of a level. True is no 1."""
    return bool if isinstance(value, bool) else object


def axis_of(name: str, distribution: BaseDistribution) -> Axis:
    """Return the axis of a factor of the study that Optuna sees."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return Axis(name, tuple(distribution.choices))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return Axis(name, (), float(distribution.low), float(distribution.high), distribution.log)


@dataclass(frozen=True)
class Sample:
    """The trainings of a search as points, with their actual or predicted final values.

    Args:
        axes: one for each factor.
        places: of each training on each axis, n x factors, from 0 to 1.
        params: of each training, factor -> value.
        values: n values of the metric.
    """

    axes: tuple[Axis, ...]
    places: NDArray[np.float64]
    params: tuple[Mapping[str, Any], ...]
    values: NDArray[np.float64]


def sample_of(study: SearchStudy) -> Sample:
    """Return the trainings that reported a value."""
    trials = [trial for trial in study.predicted.get_trials(deepcopy=False) if trial.value is not None]
    axes = tuple(axis_of(name, each) for name, each in trials[0].distributions.items()) if trials else ()
    places = [[axis.place(trial.params[axis.name]) for axis in axes] for trial in trials]
    values = [trial.value for trial in trials if trial.value is not None]
    return Sample(
        axes,
        np.array(places, dtype=float).reshape(len(trials), len(axes)),
        tuple(trial.params for trial in trials),
        np.array(values, dtype=float),
    )


def told_apart(sample: Sample, seed: int) -> dict[str, bool] | None:
    """Return for each factor whether the trainings tell its effect from chance.

    A random forest is fitted to four fifths of the trainings, five times. A factor passes where shuffling its values
    makes the predictions of the held-out fifth worse in each of the five. A factor without effect passes by chance in
    about one of 2^5 cases.

    Args:
        sample: of the search.
        seed: of folds, forests and shuffles.

    Returns:
        Factor -> whether it passed. None with fewer than 20 trainings.
    """
    if len(sample.values) < LEAST_CHECKED:
        return None
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import KFold

    random = np.random.default_rng(seed)
    drops = []
    for fitted, held_out in KFold(_FOLDS, shuffle=True, random_state=seed).split(sample.places):
        forest = RandomForestRegressor(_TREES, random_state=seed).fit(
            sample.places[fitted], sample.values[fitted]
        )
        points, truth = sample.places[held_out], sample.values[held_out]
        before = _error(forest, points, truth)
        drops.append(
            [_shuffled_error(forest, points, truth, j, random) - before for j in range(points.shape[1])]
        )
    worse = np.array(drops) > 0
    return {axis.name: bool(worse[:, at].all()) for at, axis in enumerate(sample.axes)}


def _error(forest: Any, points: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    return float(np.mean((forest.predict(points) - truth) ** 2))


def _shuffled_error(
    forest: Any,
    points: NDArray[np.float64],
    truth: NDArray[np.float64],
    factor: int,
    random: np.random.Generator,
) -> float:
    """Return the mean error over some shuffles of a factor, predicted in one call."""
    many = np.tile(points, (_SHUFFLES, 1))
    many[:, factor] = np.concatenate([random.permutation(points[:, factor]) for _ in range(_SHUFFLES)])
    return _error(forest, many, np.tile(truth, _SHUFFLES))


def importance_blocks(study: SearchStudy, sample: Sample) -> list[Block]:
    """Return the factors' shares of the variance, with a `~` where these trainings cannot tell one from chance."""
    if not study.importances:
        return (
            [Prose(f"These trainings cannot tell importances: {study.note}.", "note")] if study.note else []
        )
    checked = told_apart(sample, study.plan.seed)
    names = list(study.importances)[:_MOST_BARS]
    shares = [study.importances[name] for name in names]
    passed = [checked is not None and checked[name] for name in names]
    data: dict[str, Mapping[str, Sequence[Any]]] = {
        "factors": {
            "name": [key_id(name) for name in names],
            "share": [100 * share for share in shares],
            "told": passed,
            "text": [
                f"{'' if ok else '~'}{percent(share)}" for ok, share in zip(passed, shares, strict=True)
            ],
        }
    }
    y, x = category("name"), quantity("share", "share of the variance (%)", zero=True)
    faded: Channel = {"condition": {"test": "datum.told", "value": 1}, "value": 0.35}
    layers: list[Layer] = [
        {
            "mark": mark("bar", "first", height={"band": 0.6}),
            "encoding": {
                "y": y,
                "x": x,
                "opacity": faded,
                "tooltip": texts({"name": "factor", "text": "share"}),
            },
        },
        {
            "mark": mark("text", align="left", dx=5),
            "encoding": {"y": y, "x": x, "text": {"field": "text"}},
        },
    ]
    n = counted(len(sample.values), "training")
    told = [key_id(name) for name, ok in zip(names, passed, strict=True) if ok]
    if checked is None:
        alt = f"With {n} these data cannot tell any factor's importance from chance. {LEAST_CHECKED} are needed."
    elif told:
        alt = f"Told from chance: {', '.join(told)}. The largest share is {percent(shares[0])}, {key_id(names[0])}."
    else:
        alt = f"These {n} cannot tell any factor's importance from chance."
    caption = (
        f"fANOVA of the actual or predicted final values of {n}. They are this search's own sample, which prefers good "
        "configurations. "
    )
    caption += (
        f"~ and pale: with fewer than {LEAST_CHECKED} trainings no share can be checked."
        if checked is None
        else "~ and pale: not told from chance, because shuffling the factor does not make each of five held-out "
        "predictions worse."
    )
    height = 60 + 30 * len(names)
    return [Plot("Importance of each factor", alt, layered(layers), data, caption, height)]


def parallel_blocks(study: SearchStudy, sample: Sample) -> list[Block]:
    """Return a line for each training over one axis for each factor, and one for the value."""
    if len(sample.values) < 2 or not sample.axes:
        return []
    order = [name for name in study.importances if any(axis.name == name for axis in sample.axes)]
    axes = sorted(sample.axes, key=lambda axis: order.index(axis.name) if axis.name in order else len(order))[
        :_MOST_AXES
    ]
    metric = study.plan.metric.replace("_", " ")
    sign = 1 if study.plan.maximize else -1
    count = min(_MOST_BEST, max(1, round(_BEST_SHARE * len(sample.values))))
    best = set(np.argsort(-sign * sample.values)[:count].tolist())
    low, high = float(sample.values.min()), float(sample.values.max())
    last = Axis(f"final {metric}", (), low, high)
    lines: list[tuple[Any, ...]] = []
    for number, (params, value) in enumerate(zip(sample.params, sample.values.tolist(), strict=True)):
        at = [(key_id(axis.name), axis.place(params[axis.name])) for axis in axes]
        at.append((last.name, last.place(value)))
        lines += [(number, name, place, value, number in best) for name, place in at]
    shown = [(key_id(axis.name), axis) for axis in axes] + [(last.name, last)]
    levels = [(name, place, text) for name, axis in shown for place, text in axis.labels()]
    data: dict[str, Mapping[str, Sequence[Any]]] = {
        "lines": by_column(("training", "axis", "place", "value", "best"), lines),
        "levels": by_column(("axis", "place", "label"), levels),
    }
    names = [name for name, _ in shown]
    x: Channel = {
        **category("axis", order=names),
        "scale": {"type": "point", "padding": 0.35},
        "axis": {"labelAngle": 0 if len(names) < 5 else -30, "grid": True, "orient": "bottom"},
    }
    y: Channel = {**quantity("place", "", domain=(-0.04, 1.04)), "axis": None}
    color = _score(sample.values, metric, maximize=study.plan.maximize)
    faint = min(0.6, max(0.15, _FEW_LINES / len(sample.values)))
    layers: list[Layer] = [
        {
            "data": {"name": "lines"},
            "transform": [{"filter": {"field": "best", "equal": strong}}],
            "mark": mark("line", strokeWidth=2.5 if strong else 1, opacity=0.95 if strong else faint),
            "encoding": {
                "x": x,
                "y": y,
                "detail": {"field": "training", "type": "nominal"},
                "color": color,
                "tooltip": tooltip({"value": metric}),
            },
        }
        for strong in (False, True)
    ]
    place: dict[str, Any] = {"align": "left", "dx": 5, "fontSize": 11}
    layers += [
        {
            "data": {"name": "levels"},
            "mark": each,
            "encoding": {"x": x, "y": y, "text": {"field": "label"}},
        }
        # A label lies on lines, so that an edge in the page's colour sets it off.
        for each in (mark("text", "on-high", filled=False, strokeWidth=4, **place), mark("text", **place))
    ]
    top = int(np.argmax(sign * sample.values))
    reached = ", ".join(f"{key_id(axis.name)} {sample.params[top][axis.name]}" for axis in axes)
    alt = f"The best predicted final {metric} is {sample.values[top]:.4g}, with {reached}."
    caption = (
        f"{counted(len(sample.values), 'training')}, coloured by {metric} at their end, predicted where they ended "
        f"early. Strong: the best {count}. Categories are equally far apart. Trainings without any value are left out."
    )
    if len(sample.axes) > _MOST_AXES:
        caption += f" The {_MOST_AXES} most important factors are shown."
    return [Plot("All trainings, factor by factor", alt, layered(layers), data, caption, 360)]


def _score(values: NDArray[np.float64], title: str, *, maximize: bool) -> Channel:
    """Return a colour that is strong for good values, and not too pale for the worst."""
    low, high = float(values.min()), float(values.max())
    room = _PALE * (high - low)
    domain = [low - room, high] if maximize else [low, high + room]
    channel = ramp("value", title, reverse=not maximize)
    legend = {"orient": "top", "direction": "horizontal", "gradientLength": 180, "gradientOpacity": 1}
    return {
        **channel,
        "scale": {**channel.get("scale", {}), "domain": domain, "clamp": True},
        "legend": legend,
    }


def contour_blocks(study: SearchStudy, sample: Sample) -> list[Block]:
    """Return the predicted value over the two most important numeric factors, with the trainings as points."""
    at = {axis.name: index for index, axis in enumerate(sample.axes)}
    numeric = [name for name in study.importances if name in at and not sample.axes[at[name]].levels]
    if len(numeric) < 2:
        return []
    first, second = (at[name] for name in numeric[:2])
    places = sample.places[:, [first, second]]
    enough = all(len(np.unique(places[:, side])) >= _LEAST_LEVELS for side in (0, 1))
    if len(places) < LEAST_FOR_CONTOURS or not enough:
        needed = f"{LEAST_FOR_CONTOURS} trainings with {_LEAST_LEVELS} values of each factor"
        return [Prose(f"No contours: they need {needed}.", "note")]
    across, up = sample.axes[first], sample.axes[second]
    edges = np.linspace(0, 1, _CELLS + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    grid = np.array([(x, y) for x in middles for y in middles])
    predicted = smooth_prediction(places, sample.values, grid, study.plan.seed)
    sides = [(x, y) for x in range(_CELLS) for y in range(_CELLS)]
    data: dict[str, Mapping[str, Sequence[Any]]] = {
        "cells": {
            "x": [across.value(edges[x]) for x, _ in sides],
            "x2": [across.value(edges[x + 1]) for x, _ in sides],
            "y": [up.value(edges[y]) for _, y in sides],
            "y2": [up.value(edges[y + 1]) for _, y in sides],
            "value": predicted.tolist(),
        },
        "trainings": {
            "x": [params[across.name] for params in sample.params],
            "y": [params[up.name] for params in sample.params],
            "value": sample.values.tolist(),
        },
    }
    metric = study.plan.metric.replace("_", " ")
    x, y = (_numbers(column, axis) for column, axis in (("x", across), ("y", up)))
    color = _score(predicted, metric, maximize=study.plan.maximize)
    tips = tooltip({"x": key_id(across.name), "y": key_id(up.name), "value": metric})
    layers: list[Layer] = [
        {
            "data": {"name": "cells"},
            "mark": mark("rect"),
            "encoding": {
                "x": x,
                "x2": {"field": "x2"},
                "y": y,
                "y2": {"field": "y2"},
                "color": color,
                "tooltip": tips,
            },
        },
        {
            "data": {"name": "trainings"},
            "mark": mark("point", "on-high", size=90, opacity=1),
            "encoding": {"x": x, "y": y},
        },
        {
            "data": {"name": "trainings"},
            "mark": mark("point", size=45, opacity=1),
            "encoding": {"x": x, "y": y, "color": color, "tooltip": tips},
        },
    ]
    pick = int(np.argmax(predicted) if study.plan.maximize else np.argmin(predicted))
    peak = grid[pick]
    alt = (
        f"Between the trainings, {metric} is predicted to be best near {key_id(across.name)} "
        f"{across.value(peak[0]):.3g} and {key_id(up.name)} {up.value(peak[1]):.3g}, with {predicted[pick]:.4g}."
    )
    caption = (
        f"Dots: {counted(len(sample.values), 'training')}, coloured by {metric} at their end. Area: predicted between "
        "the points by a Gaussian process, not measured. Other factors differ from dot to dot. Values beyond the "
        "colours have the colour of their end."
    )
    title = f"Predicted between the points: {key_id(up.name)} over {key_id(across.name)}"
    return [Plot(title, alt, layered(layers), data, caption, 380)]


def _numbers(column: str, axis: Axis) -> Channel:
    if axis.log:
        return log_quantity(column, key_id(axis.name), [axis.low, axis.high])
    return quantity(column, key_id(axis.name), domain=(axis.low, axis.high))


def smooth_prediction(
    places: NDArray[np.float64], values: NDArray[np.float64], grid: NDArray[np.float64], seed: int
) -> NDArray[np.float64]:
    """Return the mean of a Gaussian process that was fitted to points, at the places of a grid.

    Args:
        places: n x 2, from 0 to 1.
        values: n values. Of more than 200 points, 200 are drawn.
        grid: m x 2.
        seed: of that draw.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    if len(values) > _MOST_FITTED:
        drawn = np.random.default_rng(seed).choice(len(values), _MOST_FITTED, replace=False)
        places, values = places[drawn], values[drawn]
    kernel = ConstantKernel(1.0) * RBF([0.3, 0.3], (0.05, 10.0)) + WhiteKernel(0.1, (1e-4, 10.0))
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # a length at its bound is a factor without effect
        process.fit(places, values)
    predicted: NDArray[np.float64] = process.predict(grid)
    return predicted
