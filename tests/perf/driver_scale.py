"""The driver of a cluster without the cluster: trials that only answer, on as many pretended devices as are asked for.

    python -m tests.perf.driver_scale --nodes 64 --devices 8 --trials 100000

All that the driver does for a trial is real: the pool of executors, completed records, records.jsonl with its syncs,
status.json and the live view, which is drawn into nothing. Only the devices answer at once. The report that follows is
that of the run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from fusetune.bench.report import Progress
from fusetune.bench.results import Record, RecordKeeper, RunDirectory, RunInfo, WrittenSpec
from fusetune.bench.run.plan import _Recorder
from fusetune.bench.status import Board, StatusKeeper
from fusetune.bench.workers import run_all
from tests.perf.large_runs import factors_of, large_run, training_lines


@dataclass(frozen=True)
class AnsweringTrial:
    """A trial whose record is known."""

    id: str
    record: Record
    source: None = None


@dataclass
class AnsweringDevice:
    """An executor that answers at once, with some progress on the way."""

    node: str
    device: str
    cancelled: threading.Event = field(default_factory=threading.Event)

    def run(self, trial: AnsweringTrial, on_progress: Any) -> Record:
        """Return the trial's record."""
        on_progress(
            {"epoch": 1, "epochs": 1, "step": 1, "steps": 1, "node": self.node, "device": self.device}
        )
        return trial.record

    def cancel(self) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing is open."""


def answering_trials(count: int, configurations: int) -> Iterator[AnsweringTrial]:
    """Yield trials, whose records differ in the trial and in the seed."""
    samples = list(training_lines(factors_of(configurations), 1))
    for number in range(count):
        line = samples[number % len(samples)]
        seed = number // len(samples)
        record = Record(
            f"{line['trial'].rpartition(',')[0]},seed={seed}",
            line["factors"],
            seed,
            line["status"],
            line["reason"],
            line["values"],
            line["samples"],
            line["curve"],
        )
        yield AnsweringTrial(record.trial, record)


def resident_bytes() -> int:
    """Return the memory that this process has in use."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Watched(_Recorder):
    """Prints rate and memory after every so many records."""

    def __init__(self, every: int, ids: list[str], keeper: RecordKeeper, display: Any) -> None:
        trials = [SimpleNamespace(id=each, source=None) for each in ids]
        super().__init__(SimpleNamespace(trials=trials), keeper, display)  # type: ignore[arg-type]
        self._every, self._done, self._said = every, 0, 0
        self._last_s, self._last_cpu_s = time.perf_counter(), time.process_time()

    def finished_all(self, finished: Any) -> None:
        super().finished_all(finished)
        before, self._done = self._done, self._done + len(finished)
        if before // self._every != self._done // self._every:
            now_s, cpu_s = time.perf_counter(), time.process_time()
            took_ms, processor_ms = (
                1e3 * seconds / (self._done - self._said)
                for seconds in (now_s - self._last_s, cpu_s - self._last_cpu_s)
            )
            print(
                f"{self._done:>8} records  {1e3 / took_ms:6.0f} /s  a trial: {took_ms:.2f} ms, of processor "
                f"{processor_ms:.2f} ms  {resident_bytes() / 2**20:.0f} MiB",
                file=sys.__stdout__,  # the live view has the other
                flush=True,
            )
            self._last_s, self._last_cpu_s, self._said = now_s, cpu_s, self._done


@contextmanager
def listening(
    results: Path, trials: int, ids: list[str], devices: Mapping[str, int], *, configurations: int, every: int
) -> Iterator[tuple[Watched, Path]]:
    """Yield the listener of a run as `bench run` has it, with its directory.

    Args:
        results: where the run is written.
        trials: of the run.
        ids: of these trials.
        devices: node -> the number of its devices.
        configurations: of the run.
        every: after so many records a line is printed.
    """
    run = RunInfo(spec=WrittenSpec({"name": "scale", "factors": factors_of(configurations)}), trials=trials)
    with (
        RunDirectory.create(results, "scale", run) as directory,
        open(os.devnull, "w", encoding="utf-8") as nowhere,
    ):
        progress = Progress(Console(file=nowhere, force_terminal=True, width=100, height=50))
        with StatusKeeper(progress, directory.path, Board()) as display:
            display.start(trials, 0)
            for node, count in devices.items():
                for device in range(count):
                    display.device_joined(node, str(device), "example")
            yield Watched(every, ids, RecordKeeper(run, directory, None), display), directory.path
            progress.stop()


def drive(results: Path, *, nodes: int, devices: int, trials: int, configurations: int) -> Path:
    """Run trials that only answer, print what the driver takes for them, and return the run's directory."""
    ids = [trial.id for trial in answering_trials(trials, configurations)]
    there = {f"node-{node}": devices for node in range(nodes)}
    every = max(1, trials // 10)
    with listening(results, trials, ids, there, configurations=configurations, every=every) as (
        listener,
        path,
    ):
        run_all(
            answering_trials(trials, configurations),
            lambda index: AnsweringDevice(f"node-{index // devices}", str(index % devices)),
            listener,
            jobs=nodes * devices,
        )
    return path


def report(path: Path) -> None:
    """Print what `bench report` takes."""
    code = (
        "import resource, subprocess, sys; "
        "subprocess.run([sys.executable, '-m', 'bench', 'report', sys.argv[1]], check=True, stdout=-3); "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(f'{used.ru_utime + used.ru_stime:.1f} s of processor, {used.ru_maxrss / 2**20:.2f} GiB')"
    )
    start_s = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    print(f"bench report: {time.perf_counter() - start_s:.1f} s, {done.stdout.strip()}")


def main() -> None:
    """Drive, and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--devices", type=int, default=8, help="of a node")
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--configurations", type=int, default=1000)
    parser.add_argument(
        "--results", type=Path, help="where the run is written; default: a folder that is removed"
    )
    parser.add_argument("--report-only", action="store_true", help="write the run without the driver")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.results) as folder:
        if given.report_only:
            path = large_run(Path(folder), given.configurations, given.trials // given.configurations)
        else:
            path = drive(
                Path(folder),
                nodes=given.nodes,
                devices=given.devices,
                trials=given.trials,
                configurations=given.configurations,
            )
        report(path)


if __name__ == "__main__":
    main()
