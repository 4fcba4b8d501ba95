"""The load of the processor, and the processes that cause it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")
_MOST_NAMED = 3
# A shell or a monitor uses less than this. It disturbs no timing.
_LEAST_CORES = 0.05


@dataclass(frozen=True)
class BusyProcess:
    """A process other than this one, and the cores that it used.

    Args:
        pid: its id.
        name: its command, without arguments.
        cores: processor seconds per second.
    """

    pid: int
    name: str
    cores: float


def busy_processes(
    interval_s: float = 0.5, *, root: Path = _ROOT, wait: Callable[[float], object] = time.sleep
) -> list[BusyProcess] | None:
    """Return the processes that used the processor during an interval, the busiest first. None without /proc.

    Args:
        interval_s: length of the interval in seconds.
        root: the root of the file system.
        wait: sleeps for the interval.
    """
    before, start_s = _processor_seconds(root), time.monotonic()
    wait(interval_s)
    after, passed_s = _processor_seconds(root), max(interval_s, time.monotonic() - start_s)
    if before is None or after is None:
        return None
    found = [
        BusyProcess(pid, name, max(0.0, seconds - before[pid][1]) / passed_s)
        for pid, (name, seconds) in after.items()
        if pid in before and pid != os.getpid()
    ]
    return sorted((each for each in found if each.cores >= _LEAST_CORES), key=lambda each: -each.cores)


def describe(processes: list[BusyProcess]) -> str:
    """Name the busiest processes.

    Example:
        >>> describe([BusyProcess(7, "python", 1.5), BusyProcess(9, "cc1plus", 0.4)])
        'python (pid 7) has 1.5 cores, cc1plus (pid 9) 0.4'
    """
    if not processes:
        return "no other process is busy"
    first, *others = processes[:_MOST_NAMED]
    parts = [f"{first.name} (pid {first.pid}) has {first.cores:.1f} cores"]
    parts += [f"{other.name} (pid {other.pid}) {other.cores:.1f}" for other in others]
    rest = processes[_MOST_NAMED:]
    if rest:
        parts.append(f"{len(rest)} more {sum(other.cores for other in rest):.1f}")
    return ", ".join(parts)


def _processor_seconds(root: Path) -> dict[int, tuple[str, float]] | None:
    """Return process id -> (command, processor seconds used so far)."""
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
    found = {}
    try:
        names = os.listdir(root / "proc")
    except OSError:
        return None
    for name in names:
        if not name.isdigit():
            continue
        try:
            text = (root / "proc" / name / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # the process has ended, or may not be read
        # The command is in brackets, and may itself contain spaces and brackets.
        command, _, rest = text.partition("(")[2].rpartition(")")
        fields = rest.split()
        found[int(name)] = (command, tick_s * (int(fields[11]) + int(fields[12])))
    return found or None
