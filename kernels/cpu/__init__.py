"""A CPU backend for Triton, through Triton's own plug-in point: TTIR, then C, then a shared object.

Triton finds it by the entry point `triton.backends: cpu = "kernels.cpu"` and imports it while it is itself being
imported. Nothing here may therefore import torch, or more of Triton than `triton.backends` and `triton._C`, before a
kernel is compiled.
"""

from __future__ import annotations

from kernels.cpu.toolchain import why_not

__all__ = ["why_not"]
