"""What a trial costs beyond Ray's own call, on a real cluster of this machine: trials that only answer.

    python -m tests.perf.ray_overhead --rounds 10 --trials 500

In turns: the bare call of the actor that answers, and the same trials through the pool, the executor, records.jsonl and
status.json, as a run has them. Both have one device, so that a difference is what each trial waits longer.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from fusetune.bench.cluster import ray_executor
from fusetune.bench.cluster.connection import Cluster
from fusetune.bench.cluster.device_actor import DeviceActor, DeviceSetup
from fusetune.bench.cluster.ray_executor import RayExecutor, Request
from fusetune.bench.results import Record
from fusetune.bench.run import LentExecutor
from fusetune.bench.workers import MOST_LOSSES, InOrder, Pool, WorkerSetup
from tests.perf.driver_scale import AnsweringTrial, answering_trials, listening
from tests.ray_cluster import RayCluster


class AnsweringExecutor:
    """Stands in for the worker of an actor."""

    process_id = 1

    def run(self, trial: AnsweringTrial, on_progress: Any) -> Record:
        """Return the trial's record."""
        on_progress({"epoch": 1, "epochs": 1})
        return trial.record


class AnsweringActor(DeviceActor):
    """An actor whose trials answer at once."""

    def __init__(self, setup: DeviceSetup) -> None:
        super().__init__(setup)
        self._executor = AnsweringExecutor()  # type: ignore[assignment]


def measure(cluster: Cluster, folder: Path, *, rounds: int, trials: int) -> None:
    """Print the milliseconds of a trial: of the bare call, and through a run."""
    node = cluster.nodes()[0]
    setup = DeviceSetup(WorkerSetup("cpu"), None, node.id, {}, str(folder), "1")
    given = list(answering_trials(trials, 1000))
    with patch.object(ray_executor, "DeviceActor", AnsweringActor):
        executor = RayExecutor(cluster, node, Request(1, 1), setup, ready_s=120.0)
        executor.prepare()

    def bare() -> None:
        for trial in given:
            cluster.ray.get(executor._actor.run.remote(trial))

    took: dict[str, list[tuple[float, float]]] = {"Ray's call": [], "a run": []}
    try:
        for number in range(rounds):
            took["Ray's call"].append(_milliseconds(bare, trials))
            with _run(executor, folder / f"{number}", given) as run:
                took["a run"].append(_milliseconds(run, trials))
    finally:
        executor.close()
    for name, pairs in took.items():
        waited, used = zip(*pairs, strict=True)
        print(f"{name:<12} {median(waited):6.2f} ms a trial, of processor {median(used):.2f} ms")
    apart = [run[0] - call[0] for call, run in zip(*took.values(), strict=True)]
    print(
        f"apart        {median(apart):6.2f} ms, from {min(apart):.2f} to {max(apart):.2f} in {rounds} rounds"
    )


def _milliseconds(work: Callable[[], object], trials: int) -> tuple[float, float]:
    """Return what each trial takes: by the clock, and of this process's processor time."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    work()
    return tuple(  # type: ignore[return-value]
        1e3 * (end - start) / trials
        for end, start in ((time.perf_counter(), start_s), (time.process_time(), start_cpu_s))
    )


@contextmanager
def _run(executor: RayExecutor, folder: Path, given: list[AnsweringTrial]) -> Iterator[Callable[[], object]]:
    """Yield what runs all trials as a run of its own."""
    folder.mkdir()
    ids = [trial.id for trial in given]
    # The view is that of a cluster of 64 nodes, of which one device works.
    there = {executor.node.name: 1, **{f"node-{number}": 8 for number in range(63)}}
    with listening(folder, len(ids), ids, there, configurations=1000, every=2 * len(ids)) as (listener, _):
        pool = Pool(InOrder(given), listener, most_losses=MOST_LOSSES)
        pool.add(_Kept(executor), executor.node.name)
        yield pool.run


class _Kept(LentExecutor):
    """An executor that stays open for the next round."""

    def cancel(self) -> None:
        """Nothing: a pool that has ended cancels what it had."""


def main() -> None:
    """Start a cluster of one device, and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=500, help="of a round")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        RayCluster(nodes=1) as there,
        Cluster(there.address) as cluster,
    ):
        measure(cluster, Path(folder), rounds=given.rounds, trials=given.trials)


if __name__ == "__main__":
    main()
