"""From what the processes of a run measured to one level a run: the logarithm of a typical time.

Which quartile stands for a process, and how much of the reference loop is divided out, is chosen for each series by its
noise alone. The reference loop is slowed by what slows the whole machine, which no commit has done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

# Half of the reference's logarithm suits a benchmark that waits for memory as well as for the processor.
POWERS = (0.0, 0.5, 1.0)


class Quartiles(NamedTuple):
    """Of the rounds of a process. A process with one value has it three times."""

    q1: float
    median: float
    q3: float


# The processes of a run, and of each its reference loop; None: there is none for all of them.
Run = tuple[Sequence[Quartiles], Sequence[Quartiles] | None]


def candidates(runs: Sequence[Run]) -> Mapping[str, list[float]]:
    """Return the level of each run by each estimator.

    A level is the median over the run's processes of log(time) - power * log(reference).

    Args:
        runs: positive numbers. The reference is used where all runs have it.

    Example:
        >>> one = Quartiles(1.0, 1.0, 1.0)
        >>> sorted(candidates([([one], None)]))
        ['lower quartile', 'median']
        >>> candidates([([Quartiles(2.0, 3.0, 4.0)], [Quartiles(2.0, 2.0, 2.0)])])["lower quartile / reference"]
        [0.0]
    """
    powers = POWERS if all(reference for _, reference in runs) else POWERS[:1]
    return {
        _name(quartile, power): [_level(run, quartile, power) for run in runs]
        for quartile in ("q1", "median")
        for power in powers
    }


def _name(quartile: str, power: float) -> str:
    base = "lower quartile" if quartile == "q1" else "median"
    return base if power == 0 else f"{base} / reference{'' if power == 1 else f'^{power:g}'}"


def _level(run: Run, quartile: str, power: float) -> float:
    processes, references = run
    logs = [math.log(getattr(process, quartile)) for process in processes]
    if power and references:
        logs = [
            level - power * math.log(reference.q1) for level, reference in zip(logs, references, strict=True)
        ]
    return median(logs)
