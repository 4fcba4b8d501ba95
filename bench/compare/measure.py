"""How often a comparison of stored results calls unchanged code slower, measured on recordings of processes.

    python -m fusetune.bench.compare.measure FILE [LATER] [--processes 5] [--between 20]

A recording is an .npz file. `<benchmark>/wall` [runs, rounds] has the times of the rounds of each process, in any
unit, and `<benchmark>/ref` [runs, rounds] those of a reference loop beside it. The processes ran one after the other.

Without LATER, the base of a comparison is some successive processes, and its head those that follow. With LATER, base
and head are of one recording each. Neither has a reference loop, because stored results have none. The first line
printed is for a gate: of each two successive processes, chance makes one base and the other head, and the reference
loop is used.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fusetune.bench.errors import BenchError, InputError
from fusetune.bench.gate import decide
from fusetune.bench.terminal import say

# Of each process. The first rounds fill caches.
BURN_IN, ROUNDS = 3, 30

Run = Mapping[str, Sequence[float]]
Recording = Mapping[str, Sequence[Run]]
Sides = tuple[Sequence[Run], Sequence[Run]]


def read_recording(path: Path) -> Recording:
    """Return benchmark -> its processes in order. Benchmarks with a planted slowdown, `<benchmark>@1.05`, are left out.

    Raises:
        InputError: the file cannot be read, or has no such array.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            content = {name: np.asarray(arrays[name], dtype=float) for name in arrays.files}
    except (OSError, ValueError, EOFError) as error:
        raise InputError(path, "is no recording", f"an .npz file is needed, and {error}".lower()) from None
    names = [name.removesuffix("/wall") for name in content if name.endswith("/wall") and "@" not in name]
    if not names or any(content[f"{name}/wall"].ndim != 2 for name in names):
        raise InputError(path, "is no recording", "it needs arrays `<benchmark>/wall` [runs, rounds]")
    return {
        name: [
            {"wall": wall[BURN_IN : BURN_IN + ROUNDS].tolist(), "ref": ref.tolist()}
            for wall, ref in zip(
                content[f"{name}/wall"],
                content.get(f"{name}/ref", np.empty((len(content[f"{name}/wall"]), 0))),
                strict=True,
            )
        ]
        for name in names
    }


def in_turn(recording: Recording, processes: int) -> Iterator[Sides]:
    """Yield sides that took turns in a random order, as in a gate."""
    rng = np.random.default_rng(0)
    for runs in recording.values():
        for start in range(len(runs) - 2 * processes + 1):
            both = runs[start : start + 2 * processes]
            first = rng.integers(0, 2, processes)
            yield (
                [both[2 * pair + which] for pair, which in enumerate(first)],
                [both[2 * pair + 1 - which] for pair, which in enumerate(first)],
            )


def one_after_the_other(recording: Recording, processes: int, between: int = 0) -> Iterator[Sides]:
    """Yield a base and the head that follows it after some other processes, without the reference loop."""
    for runs in recording.values():
        for start in range(len(runs) - 2 * processes - between + 1):
            later = start + processes + between
            yield _stored(runs[start : start + processes]), _stored(runs[later : later + processes])


def of_two(first: Recording, second: Recording, processes: int) -> Iterator[Sides]:
    """Yield a base of one recording and a head of another, without the reference loop."""
    for name, runs in first.items():
        others = second.get(name, ())
        for start in range(0, len(runs) - processes + 1, processes):
            for later in range(0, len(others) - processes + 1, processes):
                yield _stored(runs[start : start + processes]), _stored(others[later : later + processes])


def false_alarms(sides: Iterator[Sides]) -> tuple[int, int]:
    """Return how many of these comparisons of unchanged code are called slower, and how many there are."""
    outcomes = [decide(base, head).outcome for base, head in sides]
    return outcomes.count("regressed"), len(outcomes)


def _stored(runs: Sequence[Run]) -> list[Run]:
    return [{"wall": run["wall"]} for run in runs]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures of recordings and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fusetune.bench.compare.measure",
        description="False alarms of comparisons of stored results.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a recording, an .npz file")
    parser.add_argument("later", type=Path, nargs="?", metavar="LATER", help="another one, made later")
    parser.add_argument("--processes", type=int, default=5, help="a side, default: 5")
    parser.add_argument("--between", type=int, default=20, help="processes between the sides, default: 20")
    given = parser.parse_args(arguments)
    try:
        recording = read_recording(given.file)
        figures = {
            "in turn": in_turn(recording, given.processes),
            "one after the other": one_after_the_other(recording, given.processes),
            f"{given.between} in between": one_after_the_other(recording, given.processes, given.between),
        }
        if given.later is not None:
            later = read_recording(given.later)
            figures["base first"] = of_two(recording, later, given.processes)
            figures["base later"] = of_two(later, recording, given.processes)
        for title, sides in figures.items():
            alarms, number = false_alarms(sides)
            share = f"{100 * alarms / number:.1f} %" if number else "too few runs"
            say(f"{title:<20} {share}, {alarms} of {number}")
    except BenchError as error:
        say(f"error: {error}", err=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
