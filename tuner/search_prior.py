"""What earlier runs say of a configuration: pseudo-observations for the search's model, not a verdict.

A prior is a table of mean curves over learning rate x batch size x optimizer x activation x schedule, averaged over
runs on other data and put on the scale of `tuner.search_model.gap_scale`. It is used where a space has factors that
it knows by name; its weight is a coefficient that the search's own observations correct, down to none or below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tuner.search_model import gap_scale
from tuner.search_space import Factor, Space

SHIPPED = Path(__file__).with_name("search_prior.npz")

# Names of factors, and of their values, that mean what the prior's own names mean. Lower case, without separators.
_FACTOR_NAMES = {
    "lr": ("lr", "baselr", "learningrate", "maxlr"),
    "batch_size": ("batchsize", "batch", "bs"),
    "optimizer": ("optimizer", "optim", "opt"),
    "activation": ("activation", "act", "nonlinearity"),
    "schedule": ("schedule", "sched", "scheduler", "lrschedule", "lrscheduler"),
}
_VALUE_NAMES = {
    "sgd": ("sgd", "plainsgd"),
    "momentum": ("momentum", "sgdmomentum", "nesterov", "msgd"),
    "adam": ("adam", "adamw", "nadam"),
    "relu": ("relu", "leakyrelu", "gelu", "silu", "elu"),
    "tanh": ("tanh",),
    "sigmoid": ("sigmoid", "logistic"),
    "constant": ("constant", "none", "const"),
    "cosine": ("cosine", "cos", "cosineannealing", "linear"),
    "one-cycle": ("onecycle", "1cycle", "onecyclelr"),
}


@dataclass(frozen=True)
class Prior:
    """Mean curves of earlier runs.

    Args:
        choices: factor -> its values, in the order of the axes.
        z: one axis a factor, then one for the epochs; on the gap scale, mean 0.

    Example:
        >>> prior = Prior({"lr": [0.01, 1.0]}, np.array([[0.0, 1.0], [0.0, -1.0]]))
        >>> known = prior.on(Space({"learning_rate": [0.01, 0.1, 1.0]}))
        >>> known.at(known.curves(np.array([[-2.0], [-1.0], [0.0]])), 1.0).tolist()
        [1.0, 0.0, -1.0]
    """

    choices: Mapping[str, Sequence[Any]]
    z: np.ndarray

    @classmethod
    def from_tables(cls, choices: Mapping[str, Sequence[Any]], tables: Sequence[np.ndarray]) -> Prior:
        """Average tables of values (higher is better) whose axes are the choices and then the epochs."""
        curves = []
        for table in tables:
            z = gap_scale(table.ravel()).z(table)
            curves.append(z - z[..., -1].mean())
        return cls(choices, np.mean(curves, axis=0))

    @classmethod
    def load(cls, path: Path) -> Prior:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            choices = {
                name.removeprefix("choice_"): stored[name].tolist()
                for name in stored.files
                if name.startswith("choice_")
            }
            return cls(choices, stored["z"].astype(float))

    def save(self, path: Path) -> None:
        """Write the prior: tens of kilobytes."""
        factors = {f"choice_{name}": np.array(values) for name, values in self.choices.items()}
        np.savez_compressed(path, z=self.z.astype(np.float16), **factors)  # type: ignore[arg-type]

    def on(self, space: Space) -> SpacePrior | None:
        """Return what the prior says of the points of a space; None where it knows none of the factors."""
        weights = [_axis(name, list(values), space.factors) for name, values in self.choices.items()]
        known = [weight for weight in weights if weight is not None]
        if not known:
            return None
        z = self.z
        for axis in reversed(range(len(weights))):
            if weights[axis] is None:
                z = z.mean(axis=axis)
        return SpacePrior(known, z)


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
            return self.rows[coordinate.astype(int)]
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
    z: np.ndarray

    def curves(self, points: np.ndarray) -> np.ndarray:
        """Return the expected curves of points: (points, epochs of the prior)."""
        curves = np.einsum("pl,l...->p...", self.axes[0].weights(points), self.z)
        for axis in self.axes[1:]:
            curves = np.einsum("pl,pl...->p...", axis.weights(points), curves)
        return curves

    def at(self, curves: np.ndarray, share: np.ndarray | float) -> np.ndarray:
        """Return the curves' values at a share of the training each, or all at one share."""
        epochs = curves.shape[1]
        place = np.clip(np.broadcast_to(share, len(curves)) * epochs - 1, 0, epochs - 1)
        lower = np.minimum(place.astype(int), max(epochs - 2, 0))
        upper = np.minimum(lower + 1, epochs - 1)
        row = np.arange(len(curves))
        return curves[row, lower] * (1 - (place - lower)) + curves[row, upper] * (place - lower)


@cache
def shipped_prior() -> Prior:
    """Return the prior that ships: mean curves recorded on generated and handwritten digits and on spirals."""
    return Prior.load(SHIPPED)


def plain(name: object) -> str:
    """Return a name in lower case, without what separates its words and without the section before a dot."""
    last = str(name).rsplit(".", 1)[-1] if isinstance(name, str) else str(name)
    return "".join(letter for letter in last.lower() if letter.isalnum())


def known_factor(name: str) -> str | None:
    """Return which hyper-parameter a factor's name stands for: lr, batch_size, optimizer, activation, schedule, None.

    Example:
        >>> known_factor("train.base_lr"), known_factor("learning_rate"), known_factor("depth")
        ('lr', 'lr', None)
    """
    return next((known for known, names in _FACTOR_NAMES.items() if plain(name) in names), None)


def known_value(value: Any) -> str | None:
    """Return which of the names that the prior knows a value stands for.

    Example:
        >>> known_value("AdamW"), known_value({"name": "1cycle"}), known_value("lion")
        ('adam', 'one-cycle', None)
    """
    given = value.get("name", "") if isinstance(value, Mapping) else value
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
