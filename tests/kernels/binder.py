"""Triton's binder, which looks at every argument of a launch, counted at work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import triton


def binder_runs(work: Callable[[], Any]) -> int:
    """How often Triton binds a kernel's arguments during `work`."""
    runs = 0
    run = triton.runtime.jit.JITFunction.run.__code__

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal runs
        runs += event == "call" and frame.f_code is run

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return runs
