"""A recorded table: the validation accuracy of every configuration after every epoch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TABLES = Path(__file__).parent / "tables"


@dataclass(frozen=True)
class Table:
    """Learning curves of a full factorial.

    Args:
        choices: factor -> its values. The last factor varies fastest.
        correct: (configurations, epochs), number of correct answers on the validation set.
        validation: number of samples in the validation set.
        family: name of the group of tables with related data.

    Example:
        >>> table = Table({"lr": [0.1, 1.0]}, np.array([[5, 9], [6, 7]]), 10)
        >>> list(table.evaluate({"lr": 1.0}, 0)), table.best
        ([0.6, 0.7], 0.9)
    """

    choices: dict[str, list[Any]]
    correct: np.ndarray
    validation: int
    family: str = ""

    @property
    def accuracies(self) -> np.ndarray:
        """(configurations, epochs) validation accuracies, as fractions."""
        return self.correct / self.validation

    @property
    def best(self) -> float:
        """The highest accuracy of all configurations and epochs."""
        return float(self.accuracies.max())

    @property
    def epochs(self) -> int:
        """Number of epochs of each curve."""
        return int(self.correct.shape[1])

    def configurations(self) -> list[dict[str, Any]]:
        """Every configuration, in the order of the rows."""
        return [
            dict(zip(self.choices, values, strict=True))
            for values in itertools.product(*self.choices.values())
        ]

    def curve(self, configuration: Mapping[str, Any]) -> np.ndarray:
        """The accuracies of one configuration after each epoch."""
        row = 0
        for name, values in self.choices.items():
            row = row * len(values) + values.index(configuration[name])
        accuracies: np.ndarray = self.accuracies[row]
        return accuracies

    def evaluate(self, configuration: Mapping[str, Any], seed: int) -> Iterator[float]:
        """Yield the accuracy after each epoch, as an evaluation function for `tuner.search`."""
        for value in self.curve(configuration):
            yield float(value)

    def save(self, path: Path) -> None:
        """Write the table as an npz file of some tens of kilobytes."""
        stored: dict[str, Any] = {f"choice_{name}": np.array(values) for name, values in self.choices.items()}
        stored |= {"correct": self.correct, "validation": self.validation, "family": self.family}
        np.savez_compressed(path, **stored)

    @classmethod
    def load(cls, path: Path) -> Table:
        """Read a table that `save` wrote."""
        with np.load(path) as stored:
            choices = {
                name.removeprefix("choice_"): stored[name].tolist()
                for name in stored.files
                if name.startswith("choice_")
            }
            return cls(choices, stored["correct"], int(stored["validation"]), str(stored["family"]))

    def summary(self) -> str:
        """Return a sentence on the best accuracy and the number of configurations near it."""
        tops = self.accuracies.max(axis=1)
        near = [(tops >= self.best - margin - 1e-12).sum() for margin in (0.005, 0.01)]
        return f"best {self.best:.2%}; {near[0]} of {len(tops)} configurations within 0.5 points, {near[1]} within 1"
