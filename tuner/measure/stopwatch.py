"""The only stopwatch, and the peak of memory: what a training costs on the device that it runs on."""

from __future__ import annotations

import ctypes
import mmap
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fusetune.errors import StateError

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


class Stopwatch:
    """Times laps (one per training step) of what runs between `resume` and `pause`.

    On a CPU the boundaries are read from `clock`. On a CUDA device they are events recorded in the current stream, so
    that taking a lap never waits for the device. `laps_s` waits once, for the last boundary, and reads them all.
    Running time after a lap belongs to the next lap, also across a pause: nothing that ran is lost or counted twice.

    Args:
        device: where the timed work runs.
        clock: seconds of the host, monotonic. It times the laps on every device but CUDA, and everything on the host
            (`now_s`, time limits, progress).

    Raises:
        RuntimeError: `resume` while running, or `lap` or `pause` while paused.

    Example:
        >>> seconds = iter([0.0, 1.0, 1.5, 10.0, 10.25])
        >>> watch = Stopwatch("cpu", clock=lambda: next(seconds))
        >>> watch.resume(); watch.lap(); watch.pause(); watch.resume(); watch.lap()
        >>> watch.laps_s()
        [1.0, 0.75]
    """

    def __init__(
        self, device: torch.device | str = "cpu", *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.device = torch.device(device)
        self.clock = clock
        self._on_cuda = self.device.type == "cuda"
        self._mark: Callable[[], Any] = self._record_event if self._on_cuda else clock
        self._since: Any = None
        self._stretches: list[tuple[Any, Any]] = []
        self._unread: list[list[tuple[Any, Any]]] = []
        self._laps_s: list[float] = []

    def resume(self) -> None:
        """Let the clock run."""
        if self._since is not None:
            raise StateError("stopwatch", "is running already", to_do="Pause it before it is resumed")
        self._since = self._mark()

    def pause(self) -> None:
        """Stop the clock. Time since the last lap counts for the next one."""
        self._stretches.append((self._running_since(), self._mark()))
        self._since = None

    def lap(self) -> None:
        """End a lap and begin the next at the same instant."""
        now = self._mark()
        self._stretches.append((self._running_since(), now))
        self._unread.append(self._stretches)
        self._stretches = []
        self._since = now

    def laps_s(self) -> list[float]:
        """Return the seconds of every lap so far. On CUDA this waits for the last lap's end."""
        if self._unread and self._on_cuda:
            self._unread[-1][-1][1].synchronize()
        for stretches in self._unread:
            self._laps_s.append(sum(self._seconds_between(start, end) for start, end in stretches))
        self._unread = []
        return list(self._laps_s)

    def now_s(self) -> float:
        """Return the host's time once the device has done all it was given. On CUDA this waits."""
        if self._on_cuda:
            torch.cuda.synchronize(self.device)
        return self.clock()

    def _running_since(self) -> Any:
        """Return the running stretch's start."""
        if self._since is None:
            raise StateError("stopwatch", "is paused", to_do="Resume it before a lap or a pause")
        return self._since

    def _record_event(self) -> torch.cuda.Event:
        """Put a boundary into the device's queue of work."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _seconds_between(self, start: Any, end: Any) -> float:
        """Return the seconds from one boundary to another."""
        seconds: float = 1e-3 * start.elapsed_time(end) if self._on_cuda else end - start
        return seconds


class PeakMemory:
    """The most memory that was in use since this object was made.

    CUDA: `torch.cuda.max_memory_allocated`, all tensors on the device, those made earlier too.
    Linux, CPU: growth of the peak resident set over `footprint_bytes`. The heap is trimmed and the kernel's high-water
    mark (VmHWM) is reset first, so a process that has done other work reports this work's peak. Memory that
    libraries keep (oneDNN's compiled primitives, threads' stacks) stays in it.
    Elsewhere: growth of `ru_maxrss`, which cannot be reset: the largest peak of the process's life so far.

    Args:
        device: whose memory.
        footprint_bytes: the process's resident set before anything was loaded (see `resident_bytes`). The default is
            that of now, which leaves out data and models that are there already. CUDA ignores it.

    Attributes:
        resets: False where an earlier peak could not be forgotten, so that `peak_bytes` may be that one's.

    Example:
        >>> import torch
        >>> memory = PeakMemory("cpu")
        >>> used = torch.ones(2**23)
        >>> memory.peak_bytes() > 2**24
        True
    """

    def __init__(self, device: torch.device | str = "cpu", *, footprint_bytes: int | None = None) -> None:
        self.device = torch.device(device)
        self._footprint_bytes = 0
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.resets = True
            return
        _trim_heap()
        self.resets = _reset_resident_peak()
        self._footprint_bytes = resident_bytes() if footprint_bytes is None else footprint_bytes

    def peak_bytes(self) -> int:
        """Return the peak so far, in bytes."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return max(0, _resident_peak_bytes() - self._footprint_bytes)


@contextmanager
def address_space_peak() -> Iterator[Callable[[], int | None]]:
    """Yield a function that returns the most address space this process has had inside the block. None: not known.

    The kernel keeps the peak of the whole life (VmPeak), which importing and loading leave above what is mapped now,
    and a lower peak of later work would not show. So what lies between is filled with a reservation that nobody
    touches, and a limit that is in force is raised by as much: the block has the room that it had. Where there is no
    /proc, or a hard limit forbids to raise it, nothing is known.

    Example:
        >>> with address_space_peak() as peak_bytes:
        ...     mapped = mmap.mmap(-1, 2**26)
        ...     peak_bytes() is None or peak_bytes() > 2**26
        True
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    gap = _below_address_space_peak() if _STATUS.exists() else 0
    raised = soft if soft == resource.RLIM_INFINITY else soft + gap
    if not _STATUS.exists() or (hard != resource.RLIM_INFINITY and raised > hard):
        yield lambda: None
        return
    reservation = None
    resource.setrlimit(resource.RLIMIT_AS, (raised, hard))
    try:
        if gap:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
            reservation = mmap.mmap(-1, gap, flags=flags, prot=0)
        yield lambda: _status_bytes("VmPeak") - gap
    finally:
        if reservation is not None:
            reservation.close()
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def resident_bytes() -> int:
    """Return the bytes of main memory that the process holds now (where there is no /proc: has held at most).

    Example:
        >>> resident_bytes() > 2**20
        True
    """
    return _status_bytes("VmRSS") if _STATUS.exists() else _max_rss_bytes()


def _resident_peak_bytes() -> int:
    """Return the largest resident set since the last reset."""
    return _status_bytes("VmHWM") if _STATUS.exists() else _max_rss_bytes()


def _below_address_space_peak() -> int:
    """Return the bytes from what is mapped now to the most that ever was.

    Both come from one reading: a thread that maps memory between two readings would take the size above the peak.
    """
    status = _STATUS.read_text()
    return max(0, _bytes_of("VmPeak", status) - _bytes_of("VmSize", status))


def _status_bytes(field: str) -> int:
    """Read a field of /proc/self/status."""
    return _bytes_of(field, _STATUS.read_text())


def _bytes_of(field: str, status: str) -> int:
    """Return a field of what the kernel says of the process, which is in KiB."""
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return 1024 * int(value.split()[0])
    raise StateError("", f"{_STATUS} has no {field}", "this kernel does not account it")


def _max_rss_bytes() -> int:
    """Return ru_maxrss, which macOS counts in bytes and the others in KiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _reset_resident_peak() -> bool:
    """Set VmHWM back to the present resident set. False where the kernel has or allows no such thing."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def _trim_heap() -> None:
    """Give freed memory back to the kernel, where the C library can (glibc)."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
