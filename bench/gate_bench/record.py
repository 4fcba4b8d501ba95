"""Recording of unchanged benchmarks: fresh processes one after the other, with the reference loop around each."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from fusetune.bench.errors import SetupError
from fusetune.bench.gate_bench.recording import Recording, load
from fusetune.bench.terminal import one_line
from fusetune.tuner.measure import Stopwatch, reference_rounds

Rounds = dict[str, list[float]]
News = Callable[[str], None]

PROCESSES = 48
LIMIT_S = 900.0
_SUITE = "fusetune.bench.gate_bench.suite"


def record(
    news: News,
    *,
    processes: int = PROCESSES,
    limit_s: float = LIMIT_S,
    run: Callable[[], Rounds] | None = None,
) -> Recording:
    """Run fresh processes, each with all workloads, and keep every round.

    Args:
        news: is told of each process.
        processes: how many, at least two.
        limit_s: no process begins after it but the second.
        run: runs one process and returns workload -> seconds of a call in each round.

    Returns:
        An even number of processes.

    Raises:
        SetupError: a process failed.

    Example:
        >>> made = record(lambda text: None, processes=3, run=lambda: {"a": [1.0, 2.0]})
        >>> made.walls_s["a"].shape, made.refs_s.shape
        ((2, 2), (2, 12))
    """
    run = run or _fresh_process
    watch = Stopwatch("cpu")
    began = watch.now_s()
    done: list[Rounds] = []
    refs, loads = [], []
    while len(done) < processes and (len(done) < 2 or watch.now_s() - began < limit_s):
        loads.append(_load())
        before = reference_rounds()
        done.append(run())
        refs.append((*before, *reference_rounds()))
        news(f"{len(done)} of {processes} processes, {watch.now_s() - began:.0f} s, load {loads[-1]:.1f}")
    even = len(done) - len(done) % 2
    facts = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "seconds": round(watch.now_s() - began),
    }
    walls = {name: np.array([each[name] for each in done[:even]]) for name in done[0]}
    return Recording(walls, np.array(refs[:even]), np.array(loads[:even]), facts)


def record_into(path: Path, news: News) -> None:
    """Record, and add the processes to those that a file has already.

    Raises:
        InputError: there is something else at the path.
        SetupError: a process failed.
    """
    earlier = load(path) if path.exists() else None
    found = record(news)
    (earlier.joined(found) if earlier else found).save(path)


def _fresh_process() -> Rounds:
    """Start one process of the suite and read what it timed."""
    ended = subprocess.run(
        [sys.executable, "-m", _SUITE],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise SetupError(
            "record", "a process of the suite failed", one_line(last), f"Run python -m {_SUITE}."
        )
    rounds: Rounds = json.loads(ended.stdout)
    return rounds


def _load() -> float:
    """Programs that want a processor, on average over a minute. NaN where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
