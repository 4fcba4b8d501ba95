"""Triton's driver for the CPU: active only where no GPU driver is; TRITON_DEFAULT_BACKEND=cpu forces it."""

from __future__ import annotations

import os
import platform
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from kernels.cpu.toolchain import why_not

_CACHE_BYTES = 64 << 20  # more than the last level of cache of one CPU, mostly
_ENOUGH_MS = 100.0
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


class CPUDriver(DriverBase):
    """What Triton's runtime asks of a driver. There is one device, 0, and one stream, 0."""

    def __init__(self) -> None:
        # Imported here: this module is imported in the middle of `import triton`.
        import torch

        from kernels.cpu.launcher import make_launcher

        super().__init__()
        self.utils = _Loader()
        self.launcher_cls = make_launcher
        self._torch = torch

    @classmethod
    def is_active(cls) -> bool:
        """Say whether kernels run here: a compiler is there, and no GPU that Triton would use."""
        if os.environ.get("TRITON_DEFAULT_BACKEND") == "cpu":
            return True
        # Imported here: this module is imported in the middle of `import triton`.
        from triton.backends import backends

        others = [backend.driver for name, backend in backends.items() if name != "cpu"]
        return why_not() is None and not any(driver.is_active() for driver in others)

    def map_python_to_cpp_type(self, ty: str) -> str:
        return "void *" if ty.startswith("*") else _C_TYPES[ty]

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cpu", f"{sys.platform}-{platform.machine()}", 1)

    def get_active_torch_device(self) -> Any:
        return self._torch.device("cpu")

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        """There is only one."""

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_device_interface(self) -> Any:
        return self._torch.cpu

    def get_benchmarker(self) -> Callable[..., Any]:
        return do_bench

    def get_empty_cache_for_benchmark(self) -> Any:
        return self._torch.empty(_CACHE_BYTES, dtype=self._torch.int8)

    def clear_cache(self, cache: Any) -> None:
        cache.zero_()


class _Loader:
    """Opens shared objects."""

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {
            "max_shared_mem": 1 << 30,
            "multiprocessor_count": os.cpu_count() or 1,
            "warpSize": 1,
        }

    def load_binary(
        self, name: str, binary: bytes, shared: int, device: int
    ) -> tuple[Any, Any, int, int, int]:
        """Write the object to a directory that only this user can write to, and open it."""
        from kernels.cpu.launcher import load_function

        refuse_shared_cache()
        with tempfile.TemporaryDirectory(prefix="fusetune-") as directory:
            file = Path(directory, f"{name[:40]}.so")
            file.write_bytes(binary)
            library, function = load_function(str(file), "run")
        return library, function, 0, 0, 1 << 20

    def unload_module(self, library: Any) -> None:
        """Nothing: a shared object that was opened stays until the process ends."""


def refuse_shared_cache() -> None:
    """Raise if others can write where Triton keeps compiled kernels: they could have us run anything.

    Raises:
        PermissionError: the directory belongs to another user, or group or others may write to it.
    """
    from triton import knobs

    directory = Path(knobs.cache.dir)
    if not directory.exists():
        return
    status = directory.stat()
    mine = status.st_uid in (os.getuid(), 0)
    if not mine or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(
            f"{directory}: others can write to Triton's cache, and compiled kernels are loaded from it. "
            f"Run `chmod go-w` on it, or set TRITON_CACHE_DIR to a directory of your own."
        )


def do_bench(
    fn: Callable[[], Any],
    warmup: float = 25,
    rep: float = _ENOUGH_MS,
    grad_to_none: Any = None,
    quantiles: Sequence[float] | None = None,
    return_mode: str = "mean",
    **_: Any,
) -> Any:
    """Time a function on the CPU: what `triton.testing.do_bench` is on a GPU, in milliseconds.

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
