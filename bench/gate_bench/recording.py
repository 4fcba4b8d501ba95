"""A recording: processes of unchanged benchmarks, with their rounds and the reference loop around each, in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusetune.bench.errors import InputError
from fusetune.bench.terminal import one_line

Run = Mapping[str, Sequence[float]]

RECORDING = Path(__file__).parent / "recordings" / "busy-machine.npz"


@dataclass(frozen=True)
class Recording:
    """Processes of the same code, in the order in which they ran.

    Args:
        walls_s: workload -> (processes, rounds) seconds of each call.
        refs_s: (processes, rounds) seconds of the reference loop, half of them before the process, half after.
        loads: (processes,) how many programs wanted a processor when the process began, on average over a minute.
        facts: what was recorded where and how.

    Example:
        >>> made = Recording({"a": np.ones((4, 5))}, np.ones((4, 12)), np.zeros(4), {})
        >>> made.pairs, len(made.runs("a")), sorted(made.runs("a")[0])
        (2, 4, ['ref', 'wall'])
    """

    walls_s: Mapping[str, np.ndarray]
    refs_s: np.ndarray
    loads: np.ndarray
    facts: Mapping[str, object]

    @property
    def pairs(self) -> int:
        """How many pairs of neighbouring processes there are."""
        return len(self.refs_s) // 2

    def runs(self, workload: str) -> list[Run]:
        """Return the processes of a workload as `fusetune.bench.gate.decide` takes them."""
        walls = self.walls_s[workload].tolist()
        return [{"wall": wall, "ref": ref} for wall, ref in zip(walls, self.refs_s.tolist(), strict=True)]

    def joined(self, later: Recording) -> Recording:
        """Return these processes and later ones of the same workloads. The facts are those of the first.

        Raises:
            InputError: the workloads are not the same.
        """
        if sorted(self.walls_s) != sorted(later.walls_s):
            raise InputError(
                "recording",
                "has other workloads",
                ", ".join(map(one_line, self.walls_s)),
                "Record into a new file.",
            )
        return Recording(
            {name: np.concatenate([walls, later.walls_s[name]]) for name, walls in self.walls_s.items()},
            np.concatenate([self.refs_s, later.refs_s]),
            np.concatenate([self.loads, later.loads]),
            self.facts,
        )

    def save(self, path: Path) -> None:
        """Write it as one compressed file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {
            f"{name}/wall": walls.astype(np.float32) for name, walls in self.walls_s.items()
        }
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                about=np.array(json.dumps(dict(self.facts))),
                ref=self.refs_s.astype(np.float32),
                load=self.loads.astype(np.float32),
                **arrays,
            )


def load(path: Path = RECORDING) -> Recording:
    """Read a recording.

    Raises:
        InputError: the file cannot be read, is no recording, or has fewer than two processes.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
        walls = {
            name.removesuffix("/wall"): array.astype(np.float64)
            for name, array in content.items()
            if name.endswith("/wall")
        }
        found = Recording(
            walls,
            content["ref"].astype(np.float64),
            content["load"].astype(np.float64),
            json.loads(str(content["about"])),
        )
        shapes = {
            array.ndim == 2 and len(array) == len(found.loads) for array in (*walls.values(), found.refs_s)
        }
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise InputError(
            path,
            "is no recording of the gate's benchmark",
            one_line(str(error)),
            "`--record FILE` makes one.",
        ) from None
    if not walls or shapes != {True} or found.pairs < 1:
        raise InputError(
            path,
            "is no recording of the gate's benchmark",
            "it needs arrays `<workload>/wall` and `ref` [processes, rounds], and two processes",
            "`--record FILE` makes one.",
        )
    return found
