"""Finders of a learning rate and of a batch size, ours and those of others, side by side: `make finder-bench`.

Every suggested learning rate is trained, several seeds each, and compared with the best of a grid of half decades.
Every batch size is compared with the largest that trains under a memory limit, and trained in fresh processes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fusetune.bench.errors import InputError
from fusetune.bench.finder_bench.batch_cases import BATCH_CASES
from fusetune.bench.finder_bench.batch_finders import BATCH_FINDERS
from fusetune.bench.finder_bench.batches import compare_batches
from fusetune.bench.finder_bench.jobs import Children
from fusetune.bench.finder_bench.peers import peer_versions
from fusetune.bench.finder_bench.rate_finders import LENGTHS, RULES
from fusetune.bench.finder_bench.rate_workloads import RATE_WORKLOADS
from fusetune.bench.finder_bench.rates import compare_rates
from fusetune.bench.finder_bench.record import FinderRecord
from fusetune.bench.finder_bench.tables import batch_tables, rate_tables
from fusetune.bench.machine import describe_machine, usable_cores
from fusetune.bench.terminal import SafeConsole, say

PARTS = ("rates", "batches")
_WIDTH = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and print, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="rates or batches; default: both")
    parser.add_argument(
        "--seeds", type=int, default=5, help="tests and trainings of each learning rate finder"
    )
    parser.add_argument("--jobs", type=int, default=min(2, usable_cores()), help="processes at a time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every test and training there")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print what --json wrote, and run nothing")
    options = parser.parse_args(arguments)
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"unknown part '{part}'; known: {', '.join(PARTS)}")
    for name in ("seeds", "jobs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: {getattr(options, name)} must be 1 or more")
    try:
        if options.show is not None:
            show(read(options.show))
            return 0
        record = compare(options.parts or PARTS, seeds=options.seeds, lanes=options.jobs)
    except InputError as error:
        say(str(error), err=True)
        return error.exit_code
    if options.json is not None:
        record.write(options.json)
    show(record)
    return 0


def compare(parts: Sequence[str], *, seeds: int, lanes: int) -> FinderRecord:
    """Run the parts that are asked for.

    Args:
        parts: of `PARTS`.
        seeds: tests and trainings of each learning rate finder.
        lanes: processes at a time.

    Raises:
        InputError: a library of others is not installed.
    """
    versions = peer_versions()
    load, seconds, rates = [os.getloadavg()[0]], {}, None
    batches = []
    with Children(lanes) as children:
        if "rates" in parts:
            start = time.monotonic()
            rates = compare_rates(
                RULES,
                list(RATE_WORKLOADS),
                seeds=range(seeds),
                lengths=LENGTHS,
                run=children.run,
            )
            seconds["rates"] = time.monotonic() - start
        if "batches" in parts:
            start = time.monotonic()
            cases = {name: case.samples for name, case in BATCH_CASES.items()}
            batches = compare_batches(cases, list(BATCH_FINDERS), ask=children.ask, lanes=lanes)
            seconds["batches"] = time.monotonic() - start
    load.append(os.getloadavg()[0])
    return FinderRecord(rates, tuple(batches), versions, describe_machine("cpu"), tuple(load), seconds)


def read(path: Path) -> FinderRecord:
    """Read a record. Raises InputError where there is none."""
    try:
        return FinderRecord.read(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            str(path), f"is no record of finder-bench ({error})", to_do="Give a file that --json wrote"
        ) from None


def show(record: FinderRecord) -> None:
    """Print the tables of a record."""
    console = SafeConsole(width=_WIDTH)
    if record.rates is not None:
        for each in rate_tables(record.rates):
            console.print(each)
    for each in batch_tables(record.batches) if record.batches else ():
        console.print(each)
    took = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in record.seconds.items())
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    loads = " and ".join(f"{load:.1f}" for load in record.load)
    console.print(f"{versions}. {took}. Load of the machine at the start and at the end: {loads}.")


if __name__ == "__main__":
    sys.exit(main())
