"""How much of the processor a piece of work asked for and did not get, because others had it (no torch).

    missing = 1 - (1 - waiting / (running + waiting)) (1 - stolen / busy)

running and waiting are seconds of this process's threads: on a core, and ready for one but not on it. busy and stolen
are seconds of the whole machine: not idle, and taken by a hypervisor for other machines. A thread that sleeps, for
instance while it waits for another thread or for a GPU, asks for nothing.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fusetune.errors import StateError

# A timing is contended from here on. Two cores without other work lose below 2 %. One busy process on each takes 50 %.
CONTENDED = 0.1

_ROOT = Path("/")


@dataclass(frozen=True)
class ProcessorReading:
    """The counters of one moment. The difference of two readings covers the time between them.

    Args:
        wall_s: the host's monotonic clock.
        thread_s: processor time of the calling thread.
        threads: thread id -> (seconds on a core, seconds ready but waiting for one). None where the kernel has no
            such counts.
        busy_s, stolen_s: of the whole machine. None where they are not known.
        involuntary_switches: how often this process had to leave a core though it had work.
        load: processes that run or wait to, averaged over a minute. None where it is not known.
    """

    wall_s: float
    thread_s: float
    threads: Mapping[int, tuple[float, float]] | None
    busy_s: float | None = None
    stolen_s: float | None = None
    involuntary_switches: int = 0
    load: float | None = None


ReadProcessor = Callable[[], ProcessorReading]


@dataclass(frozen=True)
class Contention:
    """The processor time that a stretch of work asked for and did not get.

    Args:
        running_s: seconds of threads on a core.
        waiting_s: seconds of threads that were ready and had none.
        stolen: share of the machine's busy time that a hypervisor took, 0..1.
        involuntary_switches: how often the process had to leave a core.
        load: the load average at the end, or None.
        known: False where this system does not count waiting: then `missing` is None.
    """

    running_s: float = 0.0
    waiting_s: float = 0.0
    stolen: float = 0.0
    involuntary_switches: int = 0
    load: float | None = None
    known: bool = True

    @property
    def missing(self) -> float | None:
        """Share of the processor asked for that was not got, in [0, 1]. None: not known."""
        if not self.known:
            return None
        wanted_s = self.running_s + self.waiting_s
        waiting = self.waiting_s / wanted_s if wanted_s > 0 else 0.0
        return 1 - (1 - waiting) * (1 - self.stolen)

    @property
    def contended(self) -> bool:
        """Whether a timing of this stretch says as much of other work as of its own."""
        return is_contended(self.missing)


def is_contended(missing: float | None) -> bool:
    """Whether so large a share of the processor was missing that a timing is contended. Not known counts as not.

    Example:
        >>> is_contended(0.02), is_contended(0.5), is_contended(None)
        (False, True, False)
    """
    return missing is not None and missing > CONTENDED


def read_processor(root: Path = _ROOT) -> ProcessorReading:
    """Read this process's and the machine's counters now, which takes 0.1 to 0.3 ms.

    Linux: /proc/self/task/*/schedstat, /proc/stat. Elsewhere: the calling thread's processor time alone.

    Args:
        root: the root of the file system.
    """
    busy_s, stolen_s = _machine(root)
    return ProcessorReading(
        wall_s=time.perf_counter(),
        thread_s=time.thread_time(),
        threads=_threads(root),
        busy_s=busy_s,
        stolen_s=stolen_s,
        involuntary_switches=resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
        load=load_average(),
    )


def contention(start: ProcessorReading, end: ProcessorReading, *, threads: int | None = None) -> Contention:
    """Say what a stretch of work between two readings missed.

    Without the kernel's counts, one thread's own time is all there is: what is missing of the wall time was waited,
    which holds for work that never sleeps. With more threads nothing is known, for they wait for each other.

    Args:
        start, end: of one process, in this order, from one thread.
        threads: how many computed. None: more than one, or not known.

    Example:
        >>> start = ProcessorReading(0.0, 0.0, {1: (0.0, 0.0)})
        >>> contention(start, ProcessorReading(2.0, 1.5, {1: (1.5, 0.5)})).missing
        0.25
    """
    load = end.load
    switches = end.involuntary_switches - start.involuntary_switches
    stolen = 0.0
    if None not in (start.busy_s, end.busy_s, start.stolen_s, end.stolen_s):
        busy_s, stolen_s = end.busy_s - start.busy_s, end.stolen_s - start.stolen_s  # type: ignore[operator]
        stolen = min(1.0, max(0.0, stolen_s / busy_s)) if busy_s > 0 else 0.0
    if start.threads is not None and end.threads is not None:
        # A thread that ended meanwhile took its counts with it. One that began counts from zero.
        differences = [
            (
                running - start.threads.get(thread, (0.0, 0.0))[0],
                waiting - start.threads.get(thread, (0.0, 0.0))[1],
            )
            for thread, (running, waiting) in end.threads.items()
        ]
        # The kernel brings a running thread's seconds up to date at its ticks. The thread's own clock is exact.
        own_s = end.thread_s - start.thread_s
        running_s = max(own_s, sum(max(0.0, running) for running, _ in differences))
        waiting_s = sum(max(0.0, waiting) for _, waiting in differences)
        return Contention(running_s, waiting_s, stolen, switches, load)
    running_s = end.thread_s - start.thread_s
    waiting_s = max(0.0, end.wall_s - start.wall_s - running_s)
    return Contention(running_s, waiting_s, stolen, switches, load, known=threads == 1)


def total(parts: Iterable[Contention]) -> Contention:
    """Add up stretches of work.

    Example:
        >>> total([Contention(1.0, 0.0), Contention(1.0, 2.0)]).missing
        0.5
    """
    parts = list(parts)
    wanted_s = [part.running_s + part.waiting_s for part in parts]
    weight = sum(wanted_s)
    return Contention(
        running_s=sum(part.running_s for part in parts),
        waiting_s=sum(part.waiting_s for part in parts),
        stolen=sum(part.stolen * own for part, own in zip(parts, wanted_s, strict=True)) / weight
        if weight
        else 0.0,
        involuntary_switches=sum(part.involuntary_switches for part in parts),
        load=max((part.load for part in parts if part.load is not None), default=None),
        known=all(part.known for part in parts),
    )


@dataclass
class ProcessorWatch:
    """Measures the contention of the stretches between `start` and `stop`, from the thread that does the work.

    Args:
        read: reads the counters.
        threads: how many threads compute, see `contention`.

    Example:
        >>> readings = iter([ProcessorReading(0.0, 0.0, {1: (0.0, 0.0)}), ProcessorReading(2.0, 1.0, {1: (1.0, 1.0)})])
        >>> watch = ProcessorWatch(lambda: next(readings))
        >>> watch.start()
        >>> watch.stop().missing
        0.5
    """

    read: ReadProcessor = read_processor
    threads: int | None = None
    _since: ProcessorReading | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin a stretch. One that is going on is forgotten."""
        self._since = self.read()

    def so_far(self) -> Contention:
        """Return the contention of the stretch that is going on."""
        if self._since is None:
            raise StateError("watch", "has not been started", to_do="Call start first")
        return contention(self._since, self.read(), threads=self.threads)

    def stop(self) -> Contention:
        """End the stretch and return its contention."""
        found = self.so_far()
        self._since = None
        return found


def load_average() -> float | None:
    """Return how many processes ran or waited to, averaged over the last minute. None where it is not known."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _threads(root: Path) -> dict[int, tuple[float, float]] | None:
    """Read the seconds that each thread of this process ran and waited. None where the kernel does not count them."""
    tasks = root / "proc/self/task"
    found = {}
    try:
        for name in os.listdir(tasks):
            try:
                with open(tasks / name / "schedstat", encoding="ascii") as file:
                    running_ns, waiting_ns, _ = file.read().split()
            except ProcessLookupError:
                continue  # it ended meanwhile
            found[int(name)] = (1e-9 * int(running_ns), 1e-9 * int(waiting_ns))
    except (OSError, ValueError):
        return None
    # A kernel without the counts has the file all the same, full of zeros.
    return found if any(running for running, _ in found.values()) else None


def _machine(root: Path) -> tuple[float | None, float | None]:
    """Read the seconds that all cores together were busy, stolen ones included, and those that were stolen."""
    try:
        with open(root / "proc/stat", encoding="ascii") as file:
            fields = [int(value) for value in file.readline().split()[1:]]
        user, nice, system, _idle, _waiting_for_disk, interrupts, soft_interrupts, stolen = fields[:8]
    except (OSError, ValueError):
        return None, None
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
    return tick_s * (user + nice + system + interrupts + soft_interrupts + stolen), tick_s * stolen
