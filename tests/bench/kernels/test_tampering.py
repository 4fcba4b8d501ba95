"""What a kernel replaces or changes in its process is named."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.overrides import BaseTorchFunctionMode

from fusetune.bench.kernels.tampering import Untouched


def test_nothing_has_changed() -> None:
    before = Untouched()
    torch.ones(3).add(1).numpy()
    assert before.change() is None


@pytest.mark.parametrize(
    ("owner", "name", "said"),
    [
        (time, "perf_counter", "replaced time.perf_counter"),
        (statistics, "median", "replaced statistics.median"),
        (torch, "allclose", "replaced torch.allclose"),
        (torch.Tensor, "numpy", "replaced torch.Tensor.numpy"),
        (torch.cuda, "synchronize", "replaced torch.cuda.synchronize"),
        (torch.cuda.Event, "elapsed_time", "replaced torch.cuda.streams.Event.elapsed_time"),
    ],
)
def test_a_replaced_function_is_named(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, said: str
) -> None:
    before = Untouched()
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, lambda *args: 0)
        found = before.change()
    assert found == said
    assert before.change() is None


def _in_a_mode(change: Callable[[], str | None]) -> str | None:
    with BaseTorchFunctionMode():
        return change()


def _without_collection(change: Callable[[], str | None]) -> str | None:
    gc.disable()
    try:
        return change()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("within", "said"),
    [
        (_in_a_mode, "changed the number of torch's function modes from 0 to 1"),
        (_without_collection, "changed garbage collection from True to False"),
    ],
)
def test_a_changed_setting_is_named(
    within: Callable[[Callable[[], str | None]], str | None], said: str
) -> None:
    before = Untouched()
    assert within(before.change) == said
    assert before.change() is None
