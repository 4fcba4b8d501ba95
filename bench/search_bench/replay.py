"""Comparison of searchers' costs on recorded tables: `make search-bench`.

The cost is the number of epochs until any training reports a value within a margin of the table's best. A replay that
does not get there within the cap counts as the cap. A replay's prior is leave-one-family-out: it excludes the table
itself and all tables of related data.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import optuna
from rich.box import SIMPLE_HEAD
from rich.table import Table as Printed

from fusetune.bench.search_bench.peers import PEERS
from fusetune.bench.search_bench.table import TABLES, Table
from fusetune.bench.terminal import SafeConsole
from fusetune.tuner.search import Prior

MARGINS = (0.005, 0.01)
CAP = 600
_RESAMPLES = 2000
_WIDTH = 100


@dataclass(frozen=True)
class Replay:
    """One searcher with one seed on one table.

    Args:
        epochs: epochs to each margin, None if not within the cap.
        seconds_per_epoch: the searcher's CPU time per epoch, in seconds.
    """

    epochs: tuple[int | None, ...]
    seconds_per_epoch: float


def replay(values: Iterator[float], best: float, cap: int = CAP) -> Replay:
    """Read values until one is within each margin of the best, or until the cap.

    Example:
        >>> replay(iter([0.5, 0.893, 0.897]), best=0.9).epochs
        (3, 2)
    """
    start = time.process_time()
    hits: list[int | None] = [None] * len(MARGINS)
    used = 0
    for used, value in enumerate(values, start=1):
        for index, margin in enumerate(MARGINS):
            if hits[index] is None and value >= best - margin - 1e-12:
                hits[index] = used
        if used == cap or None not in hits:
            break
    return Replay(tuple(hits), (time.process_time() - start) / max(used, 1))


def table_names(directory: Path = TABLES) -> list[str]:
    """Names of the tables that ship."""
    return sorted(path.stem for path in directory.glob("*.npz"))


@cache
def load_table(name: str) -> Table:
    """Read a shipped table."""
    return Table.load(TABLES / f"{name}.npz")


@cache
def prior_without_family(family: str | None) -> Prior:
    """Return a prior from the shipped tables except those of one family. None excludes no table."""
    tables = [table for table in map(load_table, table_names()) if table.family != family]
    choices = tables[0].choices
    shape = [len(values) for values in choices.values()]
    return Prior.from_tables(choices, [table.accuracies.reshape(*shape, -1) for table in tables])


def run_one(job: tuple[str, str, int, int]) -> Replay:
    """Replay one (searcher, table, seed, cap)."""
    searcher, name, seed, cap = job
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = load_table(name)
    return replay(PEERS[searcher](table, seed, prior_without_family(table.family)), table.best, cap)


def interval(samples: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the median."""
    draws = np.random.default_rng(seed).choice(samples, (_RESAMPLES, len(samples)))
    low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
    return float(low), float(high)


def summary_row(searcher: str, replays: Sequence[Replay], cap: int) -> list[str]:
    """Return the cells of one row: costs to each margin, then the searcher's CPU time."""
    cells = [searcher]
    for index in range(len(MARGINS)):
        epochs = np.array([r.epochs[index] or cap for r in replays])
        low, high = interval(epochs)
        found = np.mean([r.epochs[index] is not None for r in replays])
        cells += [
            f"{np.median(epochs):.0f} [{low:.0f}-{high:.0f}]",
            f"{epochs.mean():.0f}",
            f"{np.quantile(epochs, 0.9):.0f}",
            f"{found:.0%}",
        ]
    cells.append(f"{1e3 * np.mean([r.seconds_per_epoch for r in replays]):.1f}")
    return cells


def main() -> None:
    """Replay the searchers and print a table for each recorded table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20, help="replays of each searcher on each table")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--tables", nargs="+", choices=table_names(), default=table_names())
    parser.add_argument("--searchers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--cap", type=int, default=CAP, help="epochs after which a replay stops")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    arguments = parser.parse_args()
    console = SafeConsole(width=_WIDTH)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for name in arguments.tables:
            title = f"{name} ({load_table(name).family}): {load_table(name).summary()}"
            printed = Printed(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
            printed.add_column("searcher", no_wrap=True)
            for margin in MARGINS:
                printed.add_column(f"to {100 * margin:g} points", justify="right")
                for column in ("mean", "p90", "found"):
                    printed.add_column(column, justify="right")
            printed.add_column("CPU ms", justify="right")
            for searcher in arguments.searchers:
                jobs = [(searcher, name, seed, arguments.cap) for seed in seeds]
                printed.add_row(*summary_row(searcher, list(pool.map(run_one, jobs)), arguments.cap))
            console.print(printed)
    console.print(
        f"{arguments.seeds} seeds. Epochs until a training is within so many points of the table's best: median [95 % "
        f"bootstrap interval], mean and 90th percentile. Replays that miss count as {arguments.cap}. CPU ms: the "
        "searcher's CPU time per epoch. Priors come from tables of other families (in brackets)."
    )


if __name__ == "__main__":
    main()
