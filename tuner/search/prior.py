"""The prior of a search, from earlier runs on other data: mean curves for its model, which observations correct.

A prior holds curves over learning rate x batch size x optimizer x activation x schedule, from runs on other data and
on the scale of `tuner.search.model.gap_scale`: their mean over the data sets, and the directions in which data sets
differ from it (a shift of the learning rate, then the principal components of what was recorded). It is used where a
space has factors that it knows by name. A factor that it has no curves for, and a value such as `gelu` or `adamw`,
gets the average over that axis: nothing is taken from a similar one. Each of these terms has a coefficient that the
search's own observations correct: the mean's down to none or below, the others' away from none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusetune.tuner.search.model import gap_scale
from fusetune.tuner.search.space import Factor, Space

SHIPPED = Path(__file__).with_name("prior.npz")

# Spellings of the prior's own names, in lower case and without separators. A relative is no spelling: gelu's curves are
# not relu's.
_FACTOR_NAMES = {
    "lr": ("lr", "baselr", "learningrate", "maxlr"),
    "batch_size": ("batchsize", "batch", "bs"),
    "optimizer": ("optimizer", "optim", "opt"),
    "activation": ("activation", "act", "nonlinearity"),
    "schedule": ("schedule", "sched", "scheduler", "lrschedule", "lrscheduler"),
}
_VALUE_NAMES = {
    "sgd": ("sgd", "plainsgd"),
    "momentum": ("momentum", "sgdmomentum", "msgd"),
    "adam": ("adam",),
    "relu": ("relu",),
    "tanh": ("tanh",),
    "sigmoid": ("sigmoid", "logistic"),
    "constant": ("constant", "none", "const"),
    "cosine": ("cosine", "cos", "cosineannealing"),
    "one-cycle": ("onecycle", "1cycle", "onecyclelr"),
}


# Terms are stored in steps of this.
_STEP = 1 / 64
# Most directions that a prior keeps; each is a table as large as the mean.
_MOST_DEVIATIONS = 5


@dataclass(frozen=True)
class Prior:
    """Mean curves of earlier runs, and how runs on one data set differ from them.

    Args:
        choices: factor -> its values, in the order of the axes.
        terms: one axis for the terms (the mean, then the deviations), one a factor, then one for the epochs; on the gap
            scale, the mean around 0.

    Example:
        >>> prior = Prior({"lr": [0.01, 1.0]}, np.array([[[0.0, 1.0], [0.0, -1.0]]]))
        >>> known = prior.on(Space({"learning_rate": [0.01, 0.1, 1.0]}))
        >>> known.at(known.curves(np.array([[-2.0], [-1.0], [0.0]])), 1.0)[:, 0].tolist()
        [1.0, 0.0, -1.0]
    """

    choices: Mapping[str, Sequence[Any]]
    terms: np.ndarray

    @classmethod
    def from_tables(cls, choices: Mapping[str, Sequence[Any]], tables: Sequence[np.ndarray]) -> Prior:
        """Sum up tables of values (higher is better) whose axes are the choices and then the epochs."""
        curves = []
        for table in tables:
            z = gap_scale(table.ravel()).z(table)
            curves.append(z - z[..., -1].mean())
        mean = np.mean(curves, axis=0)
        terms = [mean]
        if len(choices.get("lr", ())) > 1:
            terms.append(np.gradient(mean, axis=list(choices).index("lr")))
        if len(curves) > 1:
            apart = np.reshape(curves - mean, (len(curves), -1))
            _, sizes, directions = np.linalg.svd(apart, full_matrices=False)
            kept = min(len(curves) - 1, _MOST_DEVIATIONS)
            deviations = sizes[:kept, None] * directions[:kept] / (len(curves) - 1) ** 0.5
            terms += list(deviations.reshape(kept, *mean.shape))
        return cls(choices, np.stack(terms))

    @classmethod
    def load(cls, path: Path) -> Prior:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            choices = {
                name.removeprefix("choice_"): stored[name].tolist()
                for name in stored.files
                if name.startswith("choice_")
            }
            return cls(choices, stored["terms"].astype(float))

    def save(self, path: Path) -> None:
        """Write the prior, rounded to what the curves' noise leaves sure: tens of kilobytes."""
        factors = {f"choice_{name}": np.array(values) for name, values in self.choices.items()}
        rounded = (np.round(self.terms / _STEP) * _STEP).astype(np.float16)
        np.savez_compressed(path, terms=rounded, **factors)  # type: ignore[arg-type]

    def on(self, space: Space) -> SpacePrior | None:
        """Return what the prior says of the points of a space; None where it knows none of the factors."""
        weights = [_axis(name, list(values), space.factors) for name, values in self.choices.items()]
        known = [weight for weight in weights if weight is not None]
        if not known:
            return None
        terms = self.terms
        for axis in reversed(range(len(weights))):
            if weights[axis] is None:
                terms = terms.mean(axis=1 + axis)
        return SpacePrior(known, terms)

    def without_curves(self, space: Space) -> dict[str, tuple[Any, ...]]:
        """Return what the prior says nothing of: factor -> those of its values. Empty for a factor as a whole.

        Example:
            >>> prior = Prior({"activation": ["relu", "tanh"]}, np.zeros((1, 2, 1)))
            >>> prior.without_curves(Space({"activation": ["relu", "gelu"], "depth": [1, 2]}))
            {'activation': ('gelu',), 'depth': ()}
        """
        found: dict[str, tuple[Any, ...]] = {}
        for column, factor in enumerate(space.factors):
            axes = (_axis(name, list(values), space.factors) for name, values in self.choices.items())
            axis = next((axis for axis in axes if axis is not None and axis.column == column), None)
            if axis is None:
                found[factor.name] = ()
            elif axis.rows is not None:
                unknown = [v for v, row in zip(factor.values, axis.rows, strict=True) if row.max() < 1]
                if unknown:
                    found[factor.name] = tuple(unknown)
        return found


@dataclass(frozen=True)
class Axis:
    """How a coordinate of a space becomes weights on the levels of one axis of the prior."""

    column: int
    knots: np.ndarray | None
    rows: np.ndarray | None

    def weights(self, points: np.ndarray) -> np.ndarray:
        """Return (points, levels) weights that sum to 1."""
        coordinate = points[:, self.column]
        if self.knots is None:
            assert self.rows is not None
            rows: np.ndarray = self.rows[coordinate.astype(int)]
            return rows
        place = np.interp(coordinate, self.knots, np.arange(len(self.knots)))
        lower = np.minimum(place.astype(int), len(self.knots) - 2)
        weights = np.zeros((len(points), len(self.knots)))
        row = np.arange(len(points))
        weights[row, lower], weights[row, lower + 1] = 1 - (place - lower), place - lower
        return weights


@dataclass(frozen=True)
class SpacePrior:
    """A prior brought onto the factors of one space."""

    axes: list[Axis]
    terms: np.ndarray

    def curves(self, points: np.ndarray) -> np.ndarray:
        """Return the terms' curves at points: (points, epochs of the prior, terms)."""
        return self._weighted(points, self.terms)

    def ends(self, points: np.ndarray) -> np.ndarray:
        """Return the terms at the end of the training: (points, terms)."""
        return self._weighted(points, self.terms[..., -1:])[:, 0]

    def _weighted(self, points: NDArray[np.float64], terms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Interpolate terms between the levels of the axes: (points, epochs, terms)."""
        levels = np.moveaxis(terms, 0, -1)
        first = self.axes[0].weights(points) @ levels.reshape(len(levels), -1)
        values = first.reshape(len(points), *levels.shape[1:])
        for axis in self.axes[1:]:
            shape = values.shape
            rows = values.reshape(len(points), shape[1], math.prod(shape[2:]))
            values = (axis.weights(points)[:, None, :] @ rows).reshape(len(points), *shape[2:])
        return values

    def at(self, curves: NDArray[np.float64], share: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Return the terms at a share of the training each, or all at one share: (points, terms)."""
        epochs = curves.shape[1]
        place = np.clip(np.broadcast_to(share, len(curves)) * epochs - 1, 0, epochs - 1)
        lower = np.minimum(place.astype(int), max(epochs - 2, 0))
        upper = np.minimum(lower + 1, epochs - 1)
        row = np.arange(len(curves))
        part = (place - lower)[:, None]
        between: NDArray[np.float64] = curves[row, lower] * (1 - part) + curves[row, upper] * part
        return between


@cache
def shipped_prior() -> Prior:
    """Return the prior that ships: small networks on digits, handwritten and generated, clusters, spirals and more."""
    return Prior.load(SHIPPED)


def plain(name: object) -> str:
    """Return a name in lower case, without what separates its words and without the section before a dot."""
    last = str(name).rsplit(".", 1)[-1] if isinstance(name, str) else str(name)
    return "".join(letter for letter in last.lower() if letter.isalnum())


def known_factor(name: str) -> str | None:
    """Return the hyper-parameter that a factor's name spells: lr, batch_size, optimizer, activation, schedule, None.

    Example:
        >>> known_factor("train.base_lr"), known_factor("learning_rate"), known_factor("depth")
        ('lr', 'lr', None)
    """
    return next((known for known, names in _FACTOR_NAMES.items() if plain(name) in names), None)


def known_value(value: Any) -> str | None:
    """Return which of the prior's names a value spells. A mapping with more than a name has parameters of its own.

    Example:
        >>> known_value("Adam"), known_value({"name": "1cycle"}), known_value("adamw")
        ('adam', 'one-cycle', None)
    """
    given = value.get("name", "") if isinstance(value, Mapping) and len(value) == 1 else value
    return next((known for known, names in _VALUE_NAMES.items() if plain(given) in names), None)


def _axis(name: str, levels: list[Any], factors: Sequence[Factor]) -> Axis | None:
    """Find the factor that an axis of the prior is about; None where there is none."""
    for column, factor in enumerate(factors):
        if known_factor(factor.name) != name:
            continue
        if isinstance(levels[0], str):
            if factor.is_number:
                return None
            return Axis(column, None, np.stack([_row(value, levels) for value in factor.values]))
        if not factor.is_number or factor.low <= 0:
            return None
        return Axis(column, np.array([factor.coordinate(level) for level in levels]), None)
    return None


def _row(value: Any, levels: list[str]) -> np.ndarray:
    """Return weights on the levels for one name: the level it stands for, or all alike."""
    meant = known_value(value)
    row = np.array([float(level == meant) for level in levels])
    return row if row.any() else row + 1 / len(levels)
