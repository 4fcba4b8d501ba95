"""Triton's driver for the CPU, active only where no GPU driver is. TRITON_DEFAULT_BACKEND=cpu forces it."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fusetune.kernels.cpu.toolchain import temporary_directory, why_not
from fusetune.kernels.triton_inside import DriverBase, GPUTarget, misfit, registered

_CACHE_BYTES = 64 << 20  # exceeds the last-level cache of most CPUs
_ENOUGH_MS = 100.0
_REGISTERS = 1 << 16
_C_TYPES = {
    "i1": "int8_t",
    "u1": "int8_t",
    **{f"i{width}": f"int{width}_t" for width in (8, 16, 32, 64)},
    **{f"u{width}": f"uint{width}_t" for width in (8, 16, 32, 64)},
    "fp16": "double",
    "bf16": "double",
    "fp32": "double",
    "f32": "double",
    "fp64": "double",
}


@registered
class CPUDriver(DriverBase):
    """The interface that Triton's runtime requires of a driver. There is one device, 0, and one stream, 0."""

    def __init__(self) -> None:
        # Imported here: this module is imported in the middle of `import triton`.
        import torch

        super().__init__()
        self.utils = _Loader(torch.get_num_threads)
        self.launcher_cls = _launcher
        self._torch = torch

    @classmethod
    def is_active(cls) -> bool:
        """Return whether kernels run here: Triton's version fits, there is a compiler, and Triton would use no GPU."""
        if os.environ.get("TRITON_DEFAULT_BACKEND") == "cpu":
            return True
        # Imported here: this module is imported in the middle of `import triton`.
        from fusetune.kernels.triton_inside import backends

        others = [backend.driver for name, backend in backends.items() if name != "cpu"]
        if any(driver.is_active() for driver in others):
            return False
        return misfit("compile") is None and why_not() is None

    def map_python_to_cpp_type(self, ty: str) -> str:
        return "void *" if ty.startswith("*") else _C_TYPES[ty]

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cpu", f"{sys.platform}-{platform.machine()}", 1)

    def get_active_torch_device(self) -> Any:
        return self._torch.device("cpu")

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        """Do nothing, because there is only one device."""

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_device_interface(self) -> Any:
        return _DeviceInterface(self._torch.cpu)

    def get_benchmarker(self) -> Callable[..., Any]:
        return do_bench

    def get_empty_cache_for_benchmark(self) -> Any:
        return self._torch.empty(_CACHE_BYTES, dtype=self._torch.int8)

    def clear_cache(self, cache: Any) -> None:
        cache.zero_()


def _launcher(source: Any, metadata: Any) -> Callable[..., None]:
    """Return the launcher of a kernel. Triton asks for it just before it has the kernel loaded."""
    # Imported here: this module is imported in the middle of `import triton`.
    from fusetune.kernels.cpu.launcher import make_launcher

    return make_launcher(source, metadata)


class _Event:
    """A point in time, with the interface of `torch.cuda.Event`. Kernels here run synchronously."""

    def __init__(self, enable_timing: bool = False, **_: Any) -> None:
        self._at = 0.0

    def record(self, stream: Any = None) -> None:
        self._at = time.perf_counter()

    def elapsed_time(self, end: _Event) -> float:
        """Milliseconds from here to `end`."""
        return (end._at - self._at) * 1e3

    def query(self) -> bool:
        return True

    def wait(self, stream: Any = None) -> None:
        """Return at once, because the event has happened."""

    def synchronize(self) -> None:
        """Return at once, because the event has happened."""


class _DeviceInterface:
    """`torch.cpu`, with events that record time. torch's own events cannot be constructed."""

    Event = _Event

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class _Loader:
    """Loads shared objects.

    Args:
        threads: returns the number of threads that run programs.
    """

    def __init__(self, threads: Callable[[], int]) -> None:
        self._threads = threads

    def get_device_properties(self, device: int | None) -> dict[str, int]:
        """The properties that host code reads to choose a grid. A thread counts as a multiprocessor.

        Memory limits a program. Registers do not, because a thread runs its programs one by one. So there are as
        many as a GPU's multiprocessor has, and `load_binary` reports that a program takes one.
        """
        return {
            "max_shared_mem": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "max_num_regs": _REGISTERS,
            "multiprocessor_count": self._threads(),
            "warpSize": 1,
        }

    def load_binary(
        self, name: str, binary: bytes, shared: int, device: int
    ) -> tuple[Any, Any, int, int, int]:
        """Write the shared object to a directory that only this user can write to, and open it."""
        from fusetune.kernels.cpu.launcher import load_function

        with temporary_directory() as directory:
            file = Path(directory, f"{name[:40]}.so")
            file.write_bytes(binary)
            library, function = load_function(str(file), "run")
        return library, function, 1, 0, 1 << 20

    def unload_module(self, library: Any) -> None:
        """Do nothing: a shared object that was opened stays until the process ends."""


def do_bench(
    fn: Callable[[], Any],
    warmup: float = 25,
    rep: float = _ENOUGH_MS,
    grad_to_none: Any = None,
    quantiles: Sequence[float] | None = None,
    return_mode: str = "mean",
    **_: Any,
) -> Any:
    """Time a function on the CPU, in milliseconds: the counterpart of `triton.testing.do_bench` on a GPU.

    Args:
        fn: called many times.
        warmup, rep: milliseconds of calls before and during the measurement.
        grad_to_none: tensors whose gradients are dropped before each call.
        quantiles: the quantiles to return, each from 0 to 1.
        return_mode: without quantiles: min, max, mean, median, or all.
    """
    until = time.perf_counter() + warmup / 1e3
    while time.perf_counter() < until:
        fn()
    samples: list[float] = []
    until = time.perf_counter() + rep / 1e3
    while len(samples) < 3 or time.perf_counter() < until:
        for tensor in grad_to_none or ():
            tensor.grad = None
        start = time.perf_counter()
        fn()
        samples.append((time.perf_counter() - start) * 1e3)
    samples.sort()
    if quantiles is not None:
        found = [samples[min(len(samples) - 1, int(q * len(samples)))] for q in quantiles]
        return found[0] if len(found) == 1 else found
    if return_mode == "all":
        return samples
    return {
        "min": samples[0],
        "max": samples[-1],
        "mean": sum(samples) / len(samples),
        "median": samples[len(samples) // 2],
    }[return_mode]
