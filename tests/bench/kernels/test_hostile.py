"""Kernels that cheat or are wrong get no time, and odd ones that are right get one."""

from __future__ import annotations

import ast
from typing import get_args

import pytest

from fusetune.bench.kernels import SideStatus
from tests.bench.kernels.hostile_battery import Hostile, battery, has_source

BAD = battery("cheats", "mistakes")
HONEST = battery("honest")


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
