"""What a kernel has no business to change in its process: clocks, comparisons, torch's functions, settings.

`subject` holds what it uses itself, so a replaced function misleads nobody here. A kernel that replaces one is not
honest all the same, and other code of the process could be misled: a wait for the device, say, inside of torch.
"""

from __future__ import annotations

import builtins
import gc
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import torch

# Modules of which every function is watched, and names of others.
_WHOLE = (builtins, math, statistics, time)
_TORCH = "allclose as_strided clone empty empty_like equal from_numpy isclose set_num_threads zeros"
_TENSOR = (
    "__eq__ as_strided clone contiguous copy_ cpu data_ptr detach double equal numpy reshape set_ to tolist "
    "untyped_storage view"
)
_NUMPY = "abs allclose array_equal asarray frombuffer isclose isfinite isnan max median min"
_EVENT = "elapsed_time query record synchronize"


class Untouched:
    """Functions and settings as they were when this was made.

    Example:
        >>> before = Untouched()
        >>> before.change() is None
        True
    """

    def __init__(self) -> None:
        self._functions = [(owner, name, getattr(owner, name)) for owner, name in _watched()]
        self._settings = _settings()

    def take_settings(self) -> None:
        """Take the settings as they are now for those that stay."""
        self._settings = _settings()

    def change(self) -> str | None:
        """Return what has changed, as the end of a sentence that begins with `it`. None: nothing."""
        for owner, name, kept in self._functions:
            if _getattr(owner, name, None) is not kept:
                return f"replaced {_name(owner)}.{name}"
        now = _settings()
        for setting, before in self._settings.items():
            if now[setting] != before:
                return f"changed {setting} from {before} to {now[setting]}"
        return None


_getattr: Callable[..., Any] = getattr


def _watched() -> Iterator[tuple[Any, str]]:
    """Yield owner and name of each function that is watched."""
    for module in _WHOLE:
        yield from ((module, name) for name, value in vars(module).items() if callable(value))
    places = ((torch, _TORCH), (torch.Tensor, _TENSOR), (numpy, _NUMPY), (torch.cuda.Event, _EVENT))
    for owner, names in places:
        yield from ((owner, name) for name in names.split() if hasattr(owner, name))
    yield torch.cuda, "synchronize"
    yield torch.testing, "assert_close"


def _name(owner: Any) -> str:
    module = getattr(owner, "__module__", None)
    return f"{module}.{owner.__name__}" if module else str(owner.__name__)


def _settings() -> dict[str, Any]:
    """Return what a kernel could change for all that runs after it."""
    return {
        "torch's number of threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "the filling of uninitialised memory": getattr(
            torch.utils.deterministic, "fill_uninitialized_memory", None
        ),
        "the number of torch's function modes": _length("_len_torch_function_stack"),
        "the number of torch's dispatch modes": _length("_len_torch_dispatch_stack"),
        "garbage collection": gc.isenabled(),
        "the number of callbacks of garbage collection": len(gc.callbacks),
        "the trace function": sys.gettrace(),
        "the profile function": sys.getprofile(),
        "the processors that it may use": _processors(),
    }


def _length(name: str) -> int:
    """Return how many modes torch has on. 0 where a release cannot tell."""
    return int(getattr(torch._C, name, int)())


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
