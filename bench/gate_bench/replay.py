"""False alarms and power of the gate and of others' rules, on a recording: `make gate-bench`.

A recording has processes of the same code, so whatever a rule calls slower in it is a false alarm. A comparison takes
successive pairs of neighbouring processes, from a random one on, and chance makes one of each pair the base and the
other the head. A slowdown multiplies head's times. All draws are seeded.

No rule was chosen on the shipped recording, and the gate's decision gets no history.

`python -m fusetune.bench.gate_bench.replay --record FILE` records for at most 15 minutes, and replays that. Where FILE
is there already, more processes are added to it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from scipy.stats import binomtest

from fusetune.bench.errors import BenchError, InputError
from fusetune.bench.gate_bench.recording import RECORDING, Recording, Run, load
from fusetune.bench.gate_bench.rules import RULES, Answer, Rule
from fusetune.bench.terminal import SafeConsole, say
from fusetune.bench.units import format_seconds

SLOWDOWNS = (0.0, 0.05, 0.10)
DRAWS = 40
LEAST_PAIRS = 10
_RESAMPLES = 2000
_WIDTH = 100


@dataclass(frozen=True)
class Score:
    """What a rule said of one slowdown.

    Args:
        answers: workload -> one for each comparison.
    """

    answers: dict[str, list[Answer]]

    @property
    def rates(self) -> dict[str, float]:
        """Workload -> share of the comparisons that were called slower."""
        return {name: float(np.mean([each.slower for each in some])) for name, some in self.answers.items()}

    @property
    def rate(self) -> float:
        """The share of all comparisons."""
        return float(np.mean(list(self.rates.values())))

    @property
    def worst(self) -> tuple[str, float]:
        """The workload that is called slower most often, and how often."""
        return max(self.rates.items(), key=lambda item: item[1])

    @property
    def pairs(self) -> float:
        """Pairs that a comparison took, on average."""
        return float(np.mean([each.pairs for some in self.answers.values() for each in some]))

    def share(self, outcome: str) -> float:
        """The share of the comparisons with an outcome."""
        said = Counter(each.outcome for some in self.answers.values() for each in some)
        return said[outcome] / said.total()

    def interval(self) -> tuple[float, float]:
        """Return a 95 % interval of the rate.

        It holds a bootstrap interval over workloads, and Wilson's interval of all comparisons, for where no workload
        differs from another. Comparisons of a workload share processes, so it is still too narrow.

        Example:
            >>> none = Score({name: [Answer(False, 1, "")] * 50 for name in "ab"})
            >>> [round(end, 3) for end in none.interval()]
            [0.0, 0.037]
        """
        rates = np.array(list(self.rates.values()))
        drawn = np.random.default_rng(0).choice(rates, (_RESAMPLES, len(rates))).mean(axis=1)
        low, high = np.quantile(drawn, (0.025, 0.975))
        said = [each.slower for some in self.answers.values() for each in some]
        wilson = binomtest(sum(said), len(said)).proportion_ci(method="wilson")
        return max(0.0, min(float(low), float(wilson.low))), max(float(high), float(wilson.high))


def comparison(
    runs: Sequence[Run], pairs: int, slowdown: float, draw: np.random.Generator
) -> tuple[list[Run], list[Run]]:
    """Draw the two sides of a comparison: successive pairs of neighbours, with head slowed.

    Example:
        >>> runs = [{"wall": [float(i)], "ref": [1.0]} for i in range(2, 8)]
        >>> base, head = comparison(runs, 2, 0.5, np.random.default_rng(0))
        >>> [(b["wall"][0], h["wall"][0]) for b, h in zip(base, head)]
        [(5.0, 6.0), (7.0, 9.0)]
    """
    first = int(draw.integers(len(runs) // 2 - pairs + 1))
    which = draw.integers(0, 2, pairs)
    base = [runs[2 * (first + pair) + side] for pair, side in enumerate(which)]
    head = [runs[2 * (first + pair) + 1 - side] for pair, side in enumerate(which)]
    slowed: list[Run] = [{**run, "wall": [(1 + slowdown) * wall for wall in run["wall"]]} for run in head]
    return base, slowed


def score(recording: Recording, rule: Rule, slowdown: float, draws: int = DRAWS) -> Score:
    """Ask a rule about comparisons of each workload. Those of every slowdown are the same processes.

    Raises:
        InputError: the recording has fewer than ten pairs.
    """
    if recording.pairs < LEAST_PAIRS:
        raise InputError(
            "recording",
            f"has {recording.pairs} pairs of processes",
            f"at least {LEAST_PAIRS} are needed",
            "Record more processes.",
        )
    # A staged gate with fewer pairs than it may have is one whose budget has ended.
    pairs = min(rule.pairs, recording.pairs)
    answers = {}
    for name in recording.walls_s:
        runs, draw = recording.runs(name), np.random.default_rng(crc32(name.encode()))
        answers[name] = [rule.judge(*comparison(runs, pairs, slowdown, draw)) for _ in range(draws)]
    return Score(answers)


def _with_interval(found: Score) -> str:
    low, high = found.interval()
    digits = 0 if high >= 0.1 else 1
    return f"{100 * found.rate:.{digits}f} [{100 * low:.{digits}f}-{100 * high:.{digits}f}]"


def title_of(recording: Recording) -> str:
    """Say what was recorded, and under which load.

    Example:
        >>> title_of(Recording({"a": np.ones((4, 5))}, np.ones((4, 2)), np.array([1.0, 2, 3, 9]), {"cores": 2}))
        '1 workload, 4 processes of the same code each. Load 1.0 to 9.0 on 2 cores, median 2.5.'
    """
    workloads, loads = len(recording.walls_s), recording.loads
    about = f"{workloads} workload{'s' * (workloads != 1)}, {len(loads)} processes of the same code each."
    if not np.isfinite(loads).all():
        return f"{about} The load is not known."
    cores = recording.facts.get("cores", "?")
    return f"{about} Load {loads.min():.1f} to {loads.max():.1f} on {cores} cores, median {np.median(loads):.1f}."


def _of_rule(recording: Recording, draws: int, index: int) -> list[Score]:
    """All scores of one rule, in the order of the slowdowns."""
    return [score(recording, RULES[index], slowdown, draws) for slowdown in SLOWDOWNS]


def tables(
    recording: Recording,
    draws: int = DRAWS,
    mapped: Callable[[Callable[[int], list[Score]], Iterable[int]], Iterable[list[Score]]] = map,
) -> list[Table]:
    """Return the table of all rules, what the gate said besides, and how much the workloads scatter.

    Args:
        recording: at least ten pairs.
        draws: comparisons of each workload.
        mapped: `map`, or that of an executor.

    Raises:
        InputError: the recording has fewer pairs.
    """
    rows = _table(
        "rule",
        "pairs",
        "false\nalarms, %",
        "worst\nworkload, %",
        "5 % slower:\nfound, %",
        "10 % slower:\nfound, %",
    )
    said = _table(
        "the gate said", "slower by", "mean pairs", "REGRESSED, %", "PASS", "CAN'T TELL", "IMPROVED"
    )
    scores = mapped(partial(_of_rule, recording, draws), range(len(RULES)))
    for rule, found in zip(RULES, scores, strict=True):
        worst, rate = found[0].worst
        rows.add_row(
            rule.name if rule.as_shipped else f"{rule.name} *",
            str(min(rule.pairs, recording.pairs)),
            _with_interval(found[0]),
            f"{worst} {100 * rate:.0f}" if rate else "none",
            *map(_with_interval, found[1:]),
        )
        for slowdown, each in zip(SLOWDOWNS, found, strict=True):
            if rule.ours:
                outcomes = ("regressed", "pass", "can't tell", "improved")
                shares = [f"{100 * each.share(outcome):.1f}" for outcome in outcomes]
                said.add_row(rule.name, f"{100 * slowdown:g} %", f"{each.pairs:.1f}", *shares)
    scatter = _table("workload", "median call", "between processes, %")
    for name, walls_s in recording.walls_s.items():
        medians = np.median(walls_s, axis=1)
        spread = 1.4826 * np.median(np.abs(np.log(medians / np.median(medians))))
        scatter.add_row(name, format_seconds(float(np.median(medians))), f"{100 * np.expm1(spread):.1f}")
    return [rows, said, scatter]


def _table(first: str, *others: str) -> Table:
    """An empty table, with numbers at the right."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True, vertical="bottom")
    for title in others:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fusetune.bench.gate_bench.replay",
        description="False alarms and power of the gate and of others' rules, on recorded processes.",
    )
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="record for at most 15 minutes, and replay that"
    )
    parser.add_argument(
        "--recording", type=Path, metavar="FILE", default=RECORDING, help="replay another one"
    )
    parser.add_argument("--draws", type=int, default=DRAWS, help=f"of each workload, default: {DRAWS}")
    given = parser.parse_args(arguments)
    try:
        if given.record:
            # It imports PyTorch, which a replay does not need.
            from fusetune.bench.gate_bench.record import record_into

            record_into(given.record, say)
        recording = load(given.record or given.recording)
        console = SafeConsole(width=_WIDTH)
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            found = tables(recording, given.draws, pool.map)
    except BenchError as error:
        say(f"error: {error}", err=True)
        return error.exit_code
    console.print(title_of(recording))
    for table in found:
        console.print(table)
    console.print(
        f"{given.draws} comparisons of each workload, with 95 % intervals over workloads. Chance names base and head "
        "in each pair. A slowdown multiplies head's times. Only what is called slower counts. *: kinder than what the "
        "other program offers. Between processes: robust standard deviation of their medians."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
