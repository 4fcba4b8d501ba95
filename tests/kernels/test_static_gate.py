"""Every shipped kernel keeps what its machine code was found to be; no GPU is needed.

Every test run compiles what `is_quick` names; CI and `make exhaustive` compile every kernel for every target.
`UPDATE_STATIC=1 python -m pytest -m "exhaustive or not exhaustive" tests/kernels/test_static_gate.py` writes the
committed values anew.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import triton

from fusetune.kernels import KERNELS
from fusetune.kernels.static.compile import StaticReport, analyse, shipped_cases
from fusetune.kernels.static.gpu_targets import TARGETS

BASELINE = Path(__file__).with_name("static_baseline.json")
UPDATE = os.environ.get("UPDATE_STATIC") == "1"
# Other versions of Triton bring other compilers: they may need fewer instructions, and at most five percent more.
COMMITTED_WITH_TRITON = "3.7."
CASES = {case.name: case for case in shipped_cases()}
OPTIMIZER_CASES = {
    case.name for kernel in KERNELS.values() if kernel.family == "optimizer" for case in kernel.static_cases
}


def is_quick(name: str, target: str) -> bool:
    """Say what every test run compiles; the whole table takes minutes, about half a second a cell."""
    optimizer = name in OPTIMIZER_CASES and not name.endswith("-any")
    return target == "sm_90" and (optimizer or name.startswith(("gelu", "swiglu")))


CELLS = [
    pytest.param(
        name, target, marks=() if is_quick(name, target) else pytest.mark.exhaustive, id=f"{name}-{target}"
    )
    for name in CASES
    for target in TARGETS
]


@functools.cache
def report_of(name: str, target: str) -> StaticReport:
    """Compile one shipped case, once."""
    return analyse(CASES[name], target)


@functools.cache
def baseline() -> dict[str, dict[str, Any]]:
    """Return the committed values: case and target -> value."""
    return json.loads(BASELINE.read_text()) if BASELINE.exists() else {}


def committed_values(report: StaticReport) -> dict[str, Any]:
    """Return what is held to the committed value.

    Not the widths of a variant with a scalar path: ptxas moves its address loads about, and the line that it then
    charges them to changes with the numbering of the source.
    """
    values: dict[str, Any] = {"instructions_per_element": round(report.instructions_per_element, 3)}
    if not report.case.endswith("-any"):
        values |= {"loads": report.stream_widths("load"), "stores": report.stream_widths("store")}
    return values


@pytest.fixture(scope="module", autouse=True)
def _written_when_asked() -> Any:
    """Write the committed values of what was compiled, and drop those of kernels that are gone."""
    yield
    if not UPDATE:
        return
    known = {f"{name} {target}" for name in CASES for target in TARGETS}
    kept = {key: value for key, value in baseline().items() if key in known}
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(kept.items()))
    BASELINE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "target"), CELLS)
def test_machine_code_of_a_shipped_kernel(name: str, target: str) -> None:
    report = report_of(name, target)
    assert report.spills == 0
    assert report.registers <= 64
    if name in OPTIMIZER_CASES:
        assert report.barriers == 0
        assert report.calls == 0
    # A warp has 64 lanes on AMD: a thread has half as many elements, so a 16-bit stream is half as wide.
    share = 1.0 if target.startswith("sm_") else 0.5
    assert report.narrowest_stream_bytes >= CASES[name].vector_bytes * share
    assert report.bytes_in_flight > 0

    measured = committed_values(report)
    key = f"{name} {target}"
    if UPDATE:
        baseline()[key] = measured
    assert key in baseline(), "no committed value; write it with UPDATE_STATIC=1"
    committed = baseline()[key]
    expected = pytest.approx(committed["instructions_per_element"], rel=0.05)
    if not triton.__version__.startswith(COMMITTED_WITH_TRITON):
        assert measured["instructions_per_element"] <= 1.05 * committed["instructions_per_element"]
        expected = measured["instructions_per_element"]
    assert measured == {**committed, "instructions_per_element": expected}


def test_adam_in_fp32_takes_at_most_thirty_instructions_an_element() -> None:
    assert report_of("adam-fp32", "sm_90").instructions_per_element <= 30


def test_no_committed_value_is_of_a_kernel_that_is_gone() -> None:
    assert set(baseline()) <= {f"{name} {target}" for name in CASES for target in TARGETS}
