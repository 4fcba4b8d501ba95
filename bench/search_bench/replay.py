"""Comparison of searchers' costs on recorded tables: `make search-bench`.

The cost is the number of epochs until any training reports a value within a margin of the table's best. A replay that
does not get there within the cap counts as the cap. A replay's prior is leave-one-family-out: it excludes the table
itself and all tables of related data.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import optuna
from rich.box import SIMPLE_HEAD
from rich.table import Table as Printed

from fusetune.bench.search_bench.parallel import ParallelReplay, limit, paired_difference, replay_workers
from fusetune.bench.search_bench.peers import PEERS
from fusetune.bench.search_bench.table import TABLES, Table
from fusetune.bench.terminal import SafeConsole
from fusetune.tuner.search import Prior

MARGINS = (0.005, 0.01)
CAP = 600
_RESAMPLES = 2000
_WIDTH = 100
# Our searchers, and whether they have a prior.
_OURS = {"tuner.search, no prior": False, "tuner.search": True}
_WORKERS_LEGEND = (
    "{seeds} seeds, {cap} epochs each. Time: units, of one epoch each, until a training is within 0.5 points of the "
    "table's best, median and mean. Limit: 1.3 times the larger of the first row's median epochs / workers and of one "
    "whole training, 8. A star: the median is later. A replay that misses counts as all its epochs, and as late. "
    "Repeated: epochs trained once more in another worker. End: the best value within all epochs beside the table's "
    "best, in the rows below the first one beside the first row's, paired by seed: mean +- standard error. Plus is "
    "better."
)


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


def run_workers(job: tuple[str, str, int, int, int]) -> ParallelReplay:
    """Replay one (searcher, table, seed, cap, workers), to the end of the cap."""
    searcher, name, seed, cap, workers = job
    table = load_table(name)
    prior = prior_without_family(table.family) if _OURS[searcher] else None
    return replay_workers(table, seed, prior, workers=workers, budget=cap)


def _workers_table(
    pool: Executor, searcher: str, names: Sequence[str], counts: Sequence[int], seeds: Sequence[int], cap: int
) -> Printed:
    """Return a printed table: a row for each recorded table and number of workers."""
    printed = Printed(title=searcher, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    printed.add_column("table", no_wrap=True)
    for column in ("workers", "time", "mean", "limit", "epochs", "found", "trainings", "repeated"):
        printed.add_column(column, justify="right")
    printed.add_column("end, points", justify="right")
    for name in names:
        jobs = [(searcher, name, seed, cap, workers) for workers in counts for seed in seeds]
        done = list(pool.map(run_workers, jobs))
        groups = [done[place : place + len(seeds)] for place in range(0, len(done), len(seeds))]
        for workers, replays in zip(counts, groups, strict=True):
            printed.add_row(name, *workers_row(workers, replays, counts[0], groups[0], cap))
        printed.add_section()
    return printed


def workers_row(
    workers: int,
    replays: Sequence[ParallelReplay],
    few: int,
    of_few: Sequence[ParallelReplay],
    cap: int,
    whole_training: int = 8,
) -> list[str]:
    """Return the cells of a row with some workers, beside those of the fewest.

    Example:
        >>> one, four = (ParallelReplay(time, 40, 0.0, 9, 0) for time in (40.0, 11.0))
        >>> workers_row(4, [four], 1, [one], cap=600)
        ['4', '11', '11', '13', '40', '100%', '9', '0.0', '']
    """
    times = np.array([r.time if r.time is not None else cap / workers for r in replays])
    epochs = np.array([r.epochs or cap for r in replays])
    cells = [str(workers), f"{np.median(times):.3g}", f"{times.mean():.3g}"]
    one = float(np.median([r.epochs or cap for r in of_few]))
    bound = limit(one, workers, whole_training)
    late = " *" if np.median([r.time or np.inf for r in replays]) > bound else ""
    cells += [f"{bound:.3g}{late}" if workers > few else "", f"{np.median(epochs):.0f}"]
    cells.append(f"{np.mean([r.time is not None for r in replays]):.0%}")
    cells += [
        f"{np.median([r.trainings for r in replays]):.0f}",
        f"{np.mean([r.repeated for r in replays]):.1f}",
    ]
    if workers == few:
        return [*cells, f"-{100 * np.mean([r.gap for r in replays]):.2f}"]
    apart, error = paired_difference([r.gap for r in of_few], [r.gap for r in replays])
    return [*cells, f"{-100 * apart:+.2f} +- {100 * error:.2f}" if len(replays) > 1 else ""]


def _counts(text: str) -> list[int]:
    """Return numbers of workers, in ascending order."""
    counts = sorted({int(part) for part in text.split(",")})
    if counts[0] < 1:
        raise ValueError(text)
    return counts


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
    parser.add_argument(
        "--workers",
        type=_counts,
        metavar="N,N,...",
        help="replay tuner.search alone, with so many workers each, against a simulated clock",
    )
    arguments = parser.parse_args()
    console = SafeConsole(width=_WIDTH)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        if arguments.workers:
            for searcher in [name for name in _OURS if name in arguments.searchers]:
                console.print(
                    _workers_table(pool, searcher, arguments.tables, arguments.workers, seeds, arguments.cap)
                )
            console.print(_WORKERS_LEGEND.format(seeds=arguments.seeds, cap=arguments.cap))
            return
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
