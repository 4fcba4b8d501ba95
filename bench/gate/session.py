"""The order of a gate's processes, and when it has seen enough.

A pair is one fresh process on each side. A job is what such a process measures: one benchmark, or those of a command.
Jobs take turns, so that a drift of the machine affects all of them alike. Which side of a pair is first is drawn at
random. Verdicts are looked at after 5, 7, 10, 14 and 20 pairs and after a failure, and jobs that are clear stop.
Nothing here starts a process or reads a file.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fusetune.bench.gate.decision import LOOKS
from fusetune.bench.gate.measured import Measured, Pair
from fusetune.bench.interrupts import interrupts_deferred

STAGES = tuple(look.pairs for look in LOOKS)

SideName = Literal["base", "head"]
# What one process measured, by benchmark. A process that failed has one entry, by the name of its job.
Measure = Callable[[str, SideName, int], Mapping[str, Measured]]
Settled = Callable[[Sequence[Pair]], Collection[str]]
# Why a job got no further pair.
Stop = Literal["clear", "budget", "pairs"]


@dataclass(frozen=True)
class Plan:
    """What a gate measures, and how long it may take.

    Args:
        jobs: their names, in the order of the spec. That of a job with one benchmark is the benchmark's.
        budget_s: the longest that measuring may take; None: no limit.
        seed: of the order of the processes.
        stages: numbers of pairs after which the verdicts are looked at. The last is the most that are made.
    """

    jobs: tuple[str, ...]
    budget_s: float | None = None
    seed: int = 0
    stages: tuple[int, ...] = STAGES

    def head_first(self, job: str, index: int) -> bool:
        """Whether head is the first side of a pair. A gate that is resumed draws the same."""
        return random.Random(f"{self.seed}:{job}:{index}").random() < 0.5

    def turns(self, index: int) -> list[str]:
        """Return the jobs in the order in which their pairs of this index are made.

        Example:
            >>> sorted(Plan(("a", "b")).turns(3))
            ['a', 'b']
        """
        order = list(self.jobs)
        random.Random(f"{self.seed}:{index}").shuffle(order)
        return order

    def job_of(self, benchmark: str) -> str:
        """Return the job that measures a benchmark. A command, which has several, is the only job."""
        return benchmark if benchmark in self.jobs else self.jobs[0]


@dataclass
class Measuring:
    """The pairs of a gate while they come in.

    Args:
        plan: what is measured.
        measure: runs one process: job, side and index of the pair.
        settled: returns the benchmarks whose verdicts are clear, given all pairs.
        keep: takes the pairs of two finished processes at once.
        clock: seconds that only increase.
        now: seconds since the epoch.
    """

    plan: Plan
    measure: Measure
    settled: Settled
    keep: Callable[[Sequence[Pair]], None]
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    pairs: list[Pair] = field(default_factory=list)
    stopped: dict[str, Stop] = field(default_factory=dict)
    # Job -> index of a pair -> seconds that it took.
    _seconds: dict[str, dict[int, float]] = field(default_factory=dict)
    _earlier_s: float = 0.0
    _began: float = 0.0

    def run(self, done: Iterable[Pair] = ()) -> list[Pair]:
        """Make pairs until each job is clear, or has all its pairs, or the budget is used up.

        Args:
            done: finished pairs of an earlier part of the same gate. They are not made again.

        Returns:
            All pairs, those of the earlier part first.

        Raises:
            KeyboardInterrupt: from `measure`. Every finished pair has been kept.
        """
        self._seconds = {job: {} for job in self.plan.jobs}
        for pair in done:
            self.pairs.append(pair)
            taken = self._seconds[self.plan.job_of(pair.benchmark)]
            taken[pair.index] = pair.base.seconds + pair.head.seconds
        self._earlier_s = sum(sum(taken.values()) for taken in self._seconds.values())
        self._began = self.clock()
        for index in range(self.plan.stages[-1]):
            failed = False
            for job in self.plan.turns(index):
                if job in self.stopped or index in self._seconds[job]:
                    continue
                if not self._is_affordable(job):
                    self.stopped[job] = "budget"
                    continue
                made = self._make(job, index)
                failed |= any(pair.base.failure or pair.head.failure for pair in made)
            if failed or index + 1 in self.plan.stages:
                self._stop_settled()
            if len(self.stopped) == len(self.plan.jobs):
                break
        for job in self.plan.jobs:
            self.stopped.setdefault(job, "pairs")
        return self.pairs

    @property
    def spent_s(self) -> float:
        """How long the measuring has taken, an earlier part included."""
        return self._earlier_s + self.clock() - self._began

    def count(self, job: str) -> int:
        """Return how many pairs a job has."""
        return len(self._seconds.get(job, ()))

    def benchmarks_of(self, job: str) -> list[str]:
        """Return the benchmarks of a job that have pairs."""
        named = (pair.benchmark for pair in self.pairs if self.plan.job_of(pair.benchmark) == job)
        return list(dict.fromkeys(named))

    def _make(self, job: str, index: int) -> list[Pair]:
        """Run one process on each side and have their pairs kept."""
        head_first = self.plan.head_first(job, index)
        began, started = self.clock(), self.now()
        sides: dict[SideName, Mapping[str, Measured]] = {}
        order: tuple[SideName, ...] = ("head", "base") if head_first else ("base", "head")
        for side in order:
            sides[side] = self.measure(job, side, index)
        pairs = [
            Pair(benchmark, index, base, head, head_first, started)
            for benchmark, base, head in self._matched(job, sides["base"], sides["head"])
        ]
        with interrupts_deferred():  # a pair that is over is kept, whatever comes in this moment
            self.pairs += pairs
            self._seconds[job][index] = self.clock() - began
            self.keep(pairs)
        return pairs

    def _matched(
        self, job: str, base: Mapping[str, Measured], head: Mapping[str, Measured]
    ) -> Iterable[tuple[str, Measured, Measured]]:
        """Yield the benchmarks of both processes, what one did not measure as measured without metrics."""
        failed = {
            side: each[job] for side, each in (("base", base), ("head", head)) if _has_failed(each, job)
        }
        known = [name for name in self.benchmarks_of(job) if name != job]
        names = dict.fromkeys(name for each in (base, head) if not _has_failed(each, job) for name in each)
        for name in names or (known if failed and known else [job]):
            yield (
                name,
                failed.get("base", base.get(name, Measured())),
                failed.get("head", head.get(name, Measured())),
            )

    def _is_affordable(self, job: str) -> bool:
        """Whether the next pair is likely to end within the budget. The first one is made in any case."""
        taken = self._seconds[job].values()
        if self.plan.budget_s is None or not taken:
            return True
        return self.spent_s + sum(taken) / len(taken) <= self.plan.budget_s

    def _stop_settled(self) -> None:
        """Stop the jobs whose benchmarks are all clear."""
        running = [job for job in self.plan.jobs if job not in self.stopped]
        if running:
            clear = set(self.settled(self.pairs))
            for job in running:
                if clear.issuperset(self.benchmarks_of(job)):
                    self.stopped[job] = "clear"


def _has_failed(measured: Mapping[str, Measured], job: str) -> bool:
    return job in measured and bool(measured[job].failure)
