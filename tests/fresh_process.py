"""Run a function in a process without a past: what earlier tests left in the allocator would blur its memory."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def in_fresh_process(function: Callable[[], Result]) -> Result:
    """Return what `function`, which must be importable, returns in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function).result()
