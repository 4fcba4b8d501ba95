"""What the change points are worth: false alarms and delay, measured on recordings of processes.

    python -m fusetune.bench.history.measure FILE... [--half tuning|other|all] [--penalty 8] [--penalty 10] [--joined]

A recording is an .npz file. `<benchmark>/wall` [runs, rounds] has the times of the rounds of each process, in any
unit. `<benchmark>/ref` [runs, rounds] has those of a reference loop beside it. `<benchmark>@1.05` is the same benchmark
with a real slowdown of 5 %, recorded beside it. Where there is none, the times are multiplied.

The benchmarks in alphabetical order are dealt out to two halves. The penalty is chosen on the half `tuning`. The
figures on the other half are the ones to believe.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fusetune.bench.errors import BenchError, InputError
from fusetune.bench.history.change_points import (
    LEAST_SERIES,
    PENALTY,
    ChangePoint,
    find_change_points,
    quietest,
)
from fusetune.bench.history.levels import Quartiles, candidates
from fusetune.bench.terminal import say

# Of each process. The first rounds fill caches.
BURN_IN, ROUNDS = 3, 30
SERIES = 30
STRIDE = 3
BEFORE = (10, 20)
WATCHED = 15
SLOWDOWNS = (1.05, 1.10)
# A change is found if it is named so close to where it was planted.
TOLERANCE = 3

Levels = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Figures:
    """What a penalty came to.

    Args:
        series: unchanged ones that were watched.
        false_at_end: share of them with a change point after the last run.
        false_ever: share of them with a change point at any time on the way.
        delays: slowdown -> for each planted one, the runs after which it was named. Infinite: not within those watched.
    """

    series: int
    false_at_end: float
    false_ever: float
    delays: Mapping[float, tuple[float, ...]]

    def found(self, slowdown: float) -> float:
        """Return the share of the planted slowdowns that were named."""
        delays = self.delays[slowdown]
        return sum(map(math.isfinite, delays)) / len(delays)

    def delay(self, slowdown: float, share: float) -> float:
        """Return the number of runs within which a share of the planted slowdowns was named. Infinite: none."""
        delays = sorted(self.delays[slowdown])
        return delays[max(0, math.ceil(share * len(delays)) - 1)]


def read_recordings(paths: Sequence[Path]) -> list[dict[str, Levels]]:
    """Return a mapping of benchmark to levels for each recording.

    Args:
        paths: .npz files.

    Raises:
        InputError: a file that cannot be read, or is no recording of finite positive times.
    """
    return [dict(_recording(path)) for path in paths]


def halves(recordings: Sequence[Mapping[str, Levels]]) -> tuple[list[str], list[str]]:
    """Deal the benchmarks out to two halves, slowed ones left out.

    Example:
        >>> halves([{"a": {}, "b": {}, "c": {}, "a@1.05": {}}])
        (['a', 'c'], ['b'])
    """
    names = sorted({name for recording in recordings for name in recording if "@" not in name})
    return names[::2], names[1::2]


def measure(
    recordings: Sequence[Mapping[str, Levels]], benchmarks: Sequence[str], penalty: float = PENALTY
) -> Figures:
    """Watch series of 30 runs grow, unchanged ones and ones with a slowdown after 10 and 20 runs.

    After each new run the change points are found anew, as a person does who looks at the history after each.

    Args:
        recordings: see `read_recordings`.
        benchmarks: those that count.
        penalty: of `find_change_points`.

    Raises:
        InputError: there are too few runs.
    """
    at_end, ever = [], []
    delays: dict[float, list[float]] = {slowdown: [] for slowdown in SLOWDOWNS}
    for recording in recordings:
        for name in benchmarks:
            if name not in recording:
                continue
            levels = recording[name]
            for start in range(0, _length(levels) - SERIES + 1, STRIDE):
                series = _part(levels, start, start + SERIES)
                found = [
                    bool(_found(_part(series, 0, end), penalty)) for end in range(LEAST_SERIES, SERIES + 1)
                ]
                at_end.append(found[-1])
                ever.append(any(found))
                for slowdown in SLOWDOWNS:
                    slowed = recording.get(f"{name}@{slowdown:.2f}") or _multiplied(levels, slowdown)
                    for before in BEFORE:
                        planted = _joined(levels, slowed, start, start + before)
                        if _length(planted) >= before + WATCHED:
                            delays[slowdown].append(_delay(planted, before, penalty))
    if not at_end:
        raise InputError("recordings", f"have no benchmark with {SERIES} runs", to_do="Record more runs.")
    return Figures(
        len(at_end),
        sum(at_end) / len(at_end),
        sum(ever) / len(ever),
        {slowdown: tuple(each) for slowdown, each in delays.items()},
    )


def measure_joined(
    recordings: Sequence[Mapping[str, Levels]], benchmarks: Sequence[str], penalty: float = PENALTY
) -> tuple[int, float]:
    """Count false changes in series whose second half is of the next recording.

    The runs of a history are further apart than those of a recording, and so differ more.

    Args:
        recordings: of one machine, in the order in which they were made.
        benchmarks: those that count.
        penalty: of `find_change_points`.

    Returns:
        The number of series, and the share of them with a change point after the last run.

    Raises:
        InputError: there are too few runs or recordings.
    """
    half = SERIES // 2
    found = []
    for first, second in pairwise(recordings):
        for name in benchmarks:
            if name not in first or name not in second:
                continue
            for start in range(0, _length(first[name]) - half + 1, STRIDE):
                for later in range(0, _length(second[name]) - half + 1, STRIDE):
                    series = {
                        estimator: [
                            *levels[start : start + half],
                            *second[name][estimator][later : later + half],
                        ]
                        for estimator, levels in first[name].items()
                    }
                    found.append(bool(_found(series, penalty)))
    if not found:
        raise InputError(
            "recordings",
            f"have no benchmark with {half} runs in two of them",
            to_do="Give two files or more for --joined.",
        )
    return len(found), sum(found) / len(found)


def _recording(path: Path) -> Iterator[tuple[str, Levels]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            content: dict[str, Any] = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError) as error:
        raise InputError(path, "is no recording", f"an .npz file is needed, and {error}".lower()) from None
    names = [name.removesuffix("/wall") for name in content if name.endswith("/wall")]
    if not names:
        raise InputError(path, "is no recording", "it has no array `<benchmark>/wall`", "Check the file.")
    for name in names:
        wall = _quartiles(content[f"{name}/wall"], path, name, slice(BURN_IN, BURN_IN + ROUNDS))
        ref = _quartiles(content[f"{name}/ref"], path, name) if f"{name}/ref" in content else None
        runs = [([run], [ref[index]] if ref else None) for index, run in enumerate(wall)]
        yield name, candidates(runs)


def _quartiles(times: Any, path: Path, name: str, rounds: slice = slice(None)) -> list[Quartiles]:
    """Return the quartiles of the rounds of each process."""
    times = times[:, rounds] if times.ndim == 2 else times
    if times.ndim != 2 or not times.size or not np.all(np.isfinite(times)) or not np.all(times > 0):
        raise InputError(
            path,
            f"'{name}' has no finite positive times",
            "an array is [runs, rounds]",
            "Check the file.",
        )
    return [Quartiles(*map(float, run)) for run in np.quantile(times, (0.25, 0.5, 0.75), axis=1).T]


def _found(levels: Levels, penalty: float) -> tuple[ChangePoint, ...]:
    return find_change_points(levels[quietest(levels)], penalty=penalty)


def _delay(planted: Levels, before: int, penalty: float) -> float:
    """Return the number of slowed runs after which the change is named."""
    for runs in range(1, WATCHED + 1):
        for point in _found(_part(planted, 0, before + runs), penalty):
            if abs(point.index - before) <= TOLERANCE and point.jump > 0:
                return runs
    return math.inf


def _length(levels: Levels) -> int:
    return len(next(iter(levels.values())))


def _part(levels: Levels, start: int, end: int) -> Levels:
    return {name: each[start:end] for name, each in levels.items()}


def _multiplied(levels: Levels, slowdown: float) -> Levels:
    return {name: [level + math.log(slowdown) for level in each] for name, each in levels.items()}


def _joined(levels: Levels, slowed: Levels, start: int, change: int) -> Levels:
    """Return a series from `start` on, slowed from `change` on."""
    return {
        name: [*each[start:change], *slowed[name][change : change + WATCHED]] for name, each in levels.items()
    }


def _line(half: str, penalty: float, figures: Figures) -> str:
    parts = [
        f"{half:<7} penalty {penalty:g}",
        f"{figures.series} unchanged series: false {100 * figures.false_at_end:.1f} % at the end, "
        f"{100 * figures.false_ever:.1f} % at any time",
    ]
    for slowdown in SLOWDOWNS:
        within = [figures.delay(slowdown, share) for share in (0.5, 0.9)]
        said = [f"{runs:g}" if math.isfinite(runs) else f"more than {WATCHED}" for runs in within]
        parts.append(
            f"x{slowdown:.2f} ({len(figures.delays[slowdown])}): found {100 * figures.found(slowdown):.0f} %, "
            f"half within {said[0]} runs, 90 % within {said[1]}"
        )
    return "\n    ".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures of recordings and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fusetune.bench.history.measure",
        description="False alarms and delay of change points.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a recording, an .npz file")
    parser.add_argument("--half", choices=("tuning", "other", "all"), default="other")
    parser.add_argument("--penalty", type=float, action="append", help=f"default: {PENALTY:g}")
    parser.add_argument(
        "--joined",
        action="store_true",
        help="false changes alone, in series whose second half is of the next file, made later on the same machine",
    )
    given = parser.parse_args(arguments)
    try:
        recordings = read_recordings(given.files)
        tuning, other = halves(recordings)
        benchmarks = {"tuning": tuning, "other": other, "all": sorted(tuning + other)}[given.half]
        say(f"benchmarks: {', '.join(benchmarks)}")
        for penalty in given.penalty or [PENALTY]:
            if given.joined:
                series, share = measure_joined(recordings, benchmarks, penalty)
                say(
                    f"{given.half:<7} penalty {penalty:g}\n    {series} joined series: false {100 * share:.1f} %"
                )
            else:
                say(_line(given.half, penalty, measure(recordings, benchmarks, penalty)))
    except BenchError as error:
        say(f"error: {error}", err=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
