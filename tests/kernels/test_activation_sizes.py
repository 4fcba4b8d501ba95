"""What the activations index with: 32 bits while they suffice, 64 beyond, and no 64-bit division before that."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import triton.language as tl

from fusetune.kernels.activations.api import activation
from fusetune.kernels.activations.kernels import backward_case, forward_case, index_types
from fusetune.kernels.static.compile import _compile, analyse
from fusetune.kernels.static.gpu_targets import gpu_target
from fusetune.kernels.static.recorder import record_launches

LIMIT = 2**31
NARROW = {"POSITION": tl.int32, "COLUMN": tl.int32}
WIDE = {"POSITION": tl.int64, "COLUMN": tl.int32}
CASES = [
    forward_case("relu", torch.bfloat16),
    forward_case("relu", torch.bfloat16, bias=True),
    forward_case("reglu", torch.bfloat16, bias=True),
    backward_case("reglu", torch.bfloat16),
]


def test_the_switch_is_just_below_what_32_bits_can_count() -> None:
    for elements in (1, LIMIT - 2**16):
        assert index_types(elements, 1) == NARROW
    for elements in (LIMIT - 2**16 + 1, LIMIT, 2**40):
        assert index_types(elements, 1) == WIDE
    assert index_types(2**40, LIMIT) == {"POSITION": tl.int64, "COLUMN": tl.int64}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_small_tensors_meet_no_call_and_no_branch(case: object) -> None:
    report = analyse(case, "sm_90")  # type: ignore[arg-type]
    assert (report.calls, report.branches) == (0, 0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_large_tensors_are_addressed_in_64_bits(case: object) -> None:
    """The block's number is widened before it is multiplied by the block's size, and so is all that follows."""
    for types, wide in ((NARROW, False), (WIDE, True)):
        chosen = dataclasses.replace(case, constants={**case.constants, **types})  # type: ignore[attr-defined, type-var]
        ttir = _compile(chosen, gpu_target("sm_90")).asm["ttir"].splitlines()  # type: ignore[arg-type]
        number = next(line.split()[0] for line in ttir if "tt.get_program_id x" in line)
        uses = [line for line in ttir if f"{number} " in line.partition("=")[2] or f"{number}," in line]
        assert uses
        assert all(("arith.extsi" if wide else "arith.muli") in line for line in uses)
        assert any("arith.muli" in line and ": i64" in line for line in ttir) == wide


@pytest.mark.parametrize(
    ("elements", "position"), [(LIMIT - 2**16, tl.int32), (LIMIT, tl.int64)], ids=["below", "above"]
)
def test_the_launcher_chooses_by_the_size(elements: int, position: tl.dtype) -> None:
    x = torch.empty(elements, dtype=torch.bfloat16)  # nothing is written, so it takes no memory
    with record_launches() as recording:
        activation(x, "relu")
        activation(x.view(2, -1), "reglu")
    assert [launch.constants["POSITION"] for launch in recording.launches] == [position] * 2
