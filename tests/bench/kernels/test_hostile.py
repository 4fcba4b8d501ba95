"""Kernels that cheat or are wrong get no time, and odd ones that are right get one."""

from __future__ import annotations

import ast
from typing import get_args

import pytest

from fusetune.bench.kernels import (
    Case,
    KernelSource,
    ProcessLane,
    ReferenceLane,
    Row,
    Settings,
    SideStatus,
    StopRule,
    Tools,
    measure,
)
from tests.bench.kernels.hostile_battery import Hostile, battery, has_source

BAD = battery("cheats", "mistakes")
HONEST = battery("honest")
# What runs by default: one of each kind. All others are slow in their sum.
FEW = [
    "caches_by_pointer",
    "caches_by_content",
    "leaves_early",
    "patches_the_clock",
    "returns_nan",
    "skips_repeated_calls",
    "modifies_an_input",
    "is_wrong_if_misaligned",
    "reads_only",
    "updates_in_place",
    "uses_threads_and_waits",
]
# Those that a copy of as many bytes could hold back, which takes seconds to measure.
FAST = ("reads_only", "looks_up_a_few_elements", "has_one_element")
# A kernel that hangs does so when it is first called.
_PATIENCE_S = {True: 4.0, False: 60.0}


def by_name(kernel: Hostile) -> str:
    return f"{kernel.group}-{kernel.name}"


def test_the_battery_is_large_enough() -> None:
    assert len(battery("cheats")) >= 40
    assert len(battery("mistakes")) >= 40
    assert len(HONEST) >= 25
    assert len({kernel.name for kernel in BAD + HONEST}) == len(BAD + HONEST)


@pytest.mark.parametrize("kernel", BAD + HONEST, ids=by_name)
def test_each_kernel_says_what_it_is(kernel: Hostile) -> None:
    assert kernel.purpose.endswith(".")
    assert set(kernel.expected) <= set(get_args(SideStatus))
    assert (kernel.expected == ("ok",)) == (kernel.group == "honest")
    assert "ok" not in kernel.expected or len(kernel.expected) == 1
    if kernel.group != "honest":
        assert has_source(kernel.path)
    defined = {
        node.name if isinstance(node, ast.FunctionDef) else ast.unparse(node.targets[0])
        for node in ast.parse(kernel.path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.Assign)
    }
    assert "KERNEL" in defined or {"fused", "reference", "make_inputs"} <= defined


def measured(kernel: Hostile) -> Row:
    """Have the engine build, verify and time a kernel, as `bench kernels FILE.py` does, for a moment."""
    hangs = "timed out" in kernel.expected
    patience_s = _PATIENCE_S[hangs]
    tools = Tools(
        lane=lambda side, device: ProcessLane(side, device=device, build_timeout_s=patience_s),
        reference=lambda device: ReferenceLane(device=device),
    )
    case = Case(KernelSource(str(kernel.path)), kernel.name, 4099, kernel.dtype)
    settings = Settings(competitors=(), rule=StopRule(budget_s=0.2), copies=kernel.name in FAST)
    (row,) = measure([case], settings, tools=tools)
    return row


def with_marks(kernels: list[Hostile]) -> list[object]:
    """Return parameters of which most are slow."""
    return [
        pytest.param(kernel, id=by_name(kernel), marks=() if kernel.name in FEW else pytest.mark.slow)
        for kernel in kernels
    ]


@pytest.mark.parametrize("kernel", with_marks(BAD))
def test_a_bad_kernel_gets_no_time(kernel: Hostile) -> None:
    row = measured(kernel)
    assert row.status in kernel.expected, row.ours
    assert kernel.reason.lower() in row.ours.reason.lower()
    assert not row.ours.latencies_s


@pytest.mark.parametrize("kernel", with_marks(HONEST))
def test_an_honest_kernel_gets_its_time(kernel: Hostile) -> None:
    row = measured(kernel)
    assert row.status == "ok", row.ours
    assert all(seconds > 0 for times in row.ours.latencies_s.values() for seconds in times)
    found = row.ours.verification
    assert found is not None
    assert found.timed >= 1
