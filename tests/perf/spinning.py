"""Functions that take a known time: they turn until a deadline, and say how long it took by a clock of their own."""

from __future__ import annotations

import ctypes
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fusetune.kernels.cpu.launcher import _launcher
from fusetune.kernels.cpu.toolchain import compile_shared_object

# Cycles are counted by the processor itself where that is possible, and not by the clock that is examined.
_SOURCE = """
#include <stdint.h>
#include <string.h>
#include <time.h>
static int64_t now(void) {
#if defined(__x86_64__)
  return (int64_t)__builtin_ia32_rdtsc();
#else
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC_RAW, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
#endif
}
int64_t taken;
int64_t clock_now(void) { return now(); }
const char *run(int32_t x, int32_t y, int32_t z, int32_t threads, const char *arguments) {
  const int64_t start = now();
  int64_t ticks, end;
  memcpy(&ticks, arguments, 8);
  while ((end = now()) - start < ticks) {}
  taken = end - start;
  return NULL;
}
"""


class CompiledSpin:
    """A compiled function that the CPU's launcher launches as it launches a kernel."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "spin.so")
            path.write_bytes(compile_shared_object(_SOURCE, fuse_multiply_add=False))
            self._library = ctypes.CDLL(str(path))
        self._function: Any = self._library.run
        self._function.argtypes = [*[ctypes.c_int32] * 4, ctypes.c_char_p]
        self._function.restype = ctypes.c_char_p
        self._library.clock_now.restype = ctypes.c_int64
        self._taken = ctypes.c_int64.in_dll(self._library, "taken")
        self._launch = _launcher("spin", {"ticks": "i64"}, False, False, (), lambda: None)
        self._ticks_per_s = self._calibrated()

    def call(self, seconds: float) -> Callable[[], float]:
        """Return a launch that takes so long. It returns the seconds that it took."""
        ticks = int(seconds * self._ticks_per_s)

        def launched() -> float:
            self._launch(1, 1, 1, 0, self._function, None, None, None, None, ticks)
            return self._taken.value / self._ticks_per_s

        return launched

    @classmethod
    @functools.cache
    def shared(cls) -> CompiledSpin:
        """Compile it once."""
        return cls()

    def seconds(self) -> float:
        """Read its own clock."""
        return float(self._library.clock_now()) / self._ticks_per_s

    def _calibrated(self) -> float:
        """Count ticks in half a second of the system's clock."""
        start_s, start = time.perf_counter(), self._library.clock_now()
        time.sleep(0.5)
        end, end_s = self._library.clock_now(), time.perf_counter()
        return float((end - start) / (end_s - start_s))


def interpreted_spin(seconds: float) -> Callable[[], float]:
    """Return a Python function that takes so long, and returns the seconds that it took."""
    wanted, now_ns = int(1e9 * seconds), time.perf_counter_ns

    def spin() -> float:
        start_ns = now_ns()
        end_ns = start_ns + wanted
        while (at_ns := now_ns()) < end_ns:
            pass
        return 1e-9 * (at_ns - start_ns)

    return spin
