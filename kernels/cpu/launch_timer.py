"""Times a compiled function alone, without the Python around it."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fusetune.kernels.cpu.toolchain import compile_shared_object, temporary_directory

# The launchers call what stands here instead of the compiled function itself. An empty list costs a launch 10 ns.
instead: list[Callable[..., bytes | None]] = []

# Both readings are made in C, so that neither the interpreter nor ctypes is on the clock.
_SOURCE = """
#include <stdint.h>
#include <time.h>
const char *timed(const char *(*run)(int32_t, int32_t, int32_t, int32_t, const char *), int32_t x, int32_t y,
                  int32_t z, int32_t threads, const char *arguments, int64_t *nanoseconds) {
  struct timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  clock_gettime(CLOCK_MONOTONIC, &start);
  const char *failure = run(x, y, z, threads, arguments);
  clock_gettime(CLOCK_MONOTONIC, &end);
  *nanoseconds = (int64_t)(end.tv_sec - start.tv_sec) * 1000000000 + (end.tv_nsec - start.tv_nsec);
  return failure;
}
"""


@contextmanager
def timed_launches() -> Iterator[list[float]]:
    """Time each launch on the CPU while the context lasts: the compiled function alone, its threads included.

    Yields:
        seconds of each launch so far, in their order. The caller may clear it.

    Raises:
        NoCompilerError, CompilerFailedError: there is no compiler, or it fails.

    Example:
        >>> import torch
        >>> from fusetune.kernels import KERNELS, timed_launches
        >>> kernel = KERNELS["relu"]
        >>> inputs = kernel.make_inputs(1000, torch.float32, torch.device("cpu"), 0)
        >>> with timed_launches() as seconds:
        ...     y = kernel.fused(**inputs)
        >>> len(seconds)
        1
    """
    timed = _timed()
    seconds: list[float] = []
    taken = ctypes.c_int64()
    place = ctypes.byref(taken)

    def call(function: Any, x: int, y: int, z: int, threads: int, packed: bytes) -> bytes | None:
        failure: bytes | None = timed(function, x, y, z, threads, packed, place)
        seconds.append(1e-9 * taken.value)
        return failure

    before = list(instead)
    instead[:] = [call]
    try:
        yield seconds
    finally:
        instead[:] = before


@functools.cache
def _timed() -> Any:
    """Compile and open the function that reads the clock."""
    with temporary_directory() as directory:
        path = Path(directory, "launch_timer.so")
        path.write_bytes(compile_shared_object(_SOURCE, fuse_multiply_add=False))
        timed = ctypes.CDLL(str(path)).timed
    timed.argtypes = [ctypes.c_void_p, *[ctypes.c_int32] * 4, ctypes.c_char_p, ctypes.c_void_p]
    timed.restype = ctypes.c_char_p
    return timed
