"""A profile of Python's calls in which no collection of garbage takes part: what it runs is nobody's launch."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def profile(work: Callable[[], object], note: Callable[[FrameType, str, Any], object]) -> None:
    """Call `work`, and tell `note` of what it calls, as `sys.setprofile` does."""
    gc.collect()
    gc.disable()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
