"""A recorded landscape: the samples of every launch config of one kernel at one size."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fusetune.bench.autotune import pseudomedian

LANDSCAPES = Path(__file__).parent / "landscapes"


@dataclass(frozen=True)
class Landscape:
    """Samples in rounds, of configs with different machine code.

    Args:
        name: of the problem, `family/size`.
        configs: the whole space.
        code_of: for each config, the column of `samples` that is its machine code's.
        samples_s: (rounds, codes) seconds of a call. In a round each code was timed once, in random order. NaN from
            the round on at which a code was left out, because it was far from the best.
        facts: what was recorded where and how.

    Example:
        >>> found = Landscape("add/9", [{"B": 1}, {"B": 2}], [0, 1], np.array([[2.0, 3.0], [2.0, 5.0]]), {})
        >>> found.latencies_s.tolist()
        [2.0, 4.0]
    """

    name: str
    configs: Sequence[Mapping[str, int]]
    code_of: Sequence[int]
    samples_s: np.ndarray
    facts: Mapping[str, object]

    @property
    def family(self) -> str:
        """The kernel's name."""
        return self.name.partition("/")[0]

    @property
    def codes(self) -> int:
        """Number of different machine codes."""
        return int(self.samples_s.shape[1])

    @property
    def latencies_s(self) -> np.ndarray:
        """(codes,) median of each code."""
        medians: np.ndarray = np.nanmedian(self.samples_s, axis=0)
        return medians

    @cached_property
    def whole(self) -> np.ndarray:
        """The codes that were timed in every round."""
        return np.flatnonzero(~np.isnan(self.samples_s).any(axis=0))

    @cached_property
    def round_effects(self) -> np.ndarray:
        """(rounds,) the median logarithm of the times of the codes that were timed in every round."""
        effects: np.ndarray = np.median(np.log(self.samples_s[:, self.whole]), axis=1)
        return effects

    @cached_property
    def best(self) -> int:
        """The best code by all rounds."""
        logs = np.log(self.samples_s[:, self.whole]) - self.round_effects[:, None]
        return int(self.whole[np.argmin(pseudomedian(logs))])

    def representatives(self) -> list[Mapping[str, int]]:
        """Return for each code the first config that has it."""
        return [self.configs[list(self.code_of).index(code)] for code in range(self.codes)]

    def path(self, directory: Path) -> Path:
        """Return where it lies in a directory."""
        return directory / f"{self.name.replace('/', '-').replace(' ', '_')}.npz"

    def save(self, directory: Path) -> Path:
        """Write it as one compressed file."""
        directory.mkdir(parents=True, exist_ok=True)
        path = self.path(directory)
        about = {"name": self.name, "configs": [dict(config) for config in self.configs], **self.facts}
        np.savez_compressed(
            path,
            about=np.array(json.dumps(about)),
            code_of=np.array(self.code_of, dtype=np.int16),
            samples_s=self.samples_s.astype(np.float32),
        )
        return path


def load(path: Path) -> Landscape:
    """Read one file."""
    with np.load(path, allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        samples_s = file["samples_s"].astype(np.float64)
        code_of = file["code_of"].tolist()
    return Landscape(about.pop("name"), about.pop("configs"), code_of, samples_s, about)


def load_all(directory: Path = LANDSCAPES) -> list[Landscape]:
    """Read a directory, in the order of the names."""
    return [load(path) for path in sorted(directory.glob("*.npz"))]
