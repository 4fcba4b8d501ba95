"""A CPU backend for Triton, through Triton's own plug-in point: TTIR, then C, then a shared object.

Triton finds it by the entry point `triton.backends: cpu = "fusetune.kernels.cpu"` and imports it while it is itself
being imported. Nothing here may therefore import torch, or more of Triton than `triton.backends` and `triton._C`,
before a kernel is compiled.
"""

from __future__ import annotations

# Importing this package first makes Triton look for its backends now, before any part of it is half imported.
import triton  # noqa: F401

from fusetune.kernels.cpu.cache import settled, why_not_in
from fusetune.kernels.cpu.launch_timer import timed_launches
from fusetune.kernels.cpu.toolchain import compiler_version, cpu_features, why_not

__all__ = ["compiler_version", "cpu_features", "settled", "timed_launches", "why_not", "why_not_in"]
