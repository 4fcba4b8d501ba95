"""What the machine code is said to do, against PTX, LLVM's own figures and kernels whose code is known."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.interpreter import InterpretedFunction

from fusetune.kernels.kernel import Kernel, StaticCase
from fusetune.kernels.launch import LaunchConfig
from fusetune.kernels.static import compile as static
from fusetune.kernels.static.compile import analyse
from fusetune.kernels.static.gpu_targets import TARGETS, occupancy
from tests.kernels.probe_kernels import (
    add_case,
    add_kernel,
    nvidia_only_case,
    scaled_case,
    sum_case,
    two_ways_case,
)

NVIDIA = [target for target in TARGETS if target.startswith("sm_")]


def widths(case: StaticCase, target: str) -> dict[tuple[str, int], int]:
    """Count accesses by kind and bits."""
    counts: dict[tuple[str, int], int] = {}
    for access in analyse(case, target).accesses:
        key = (access.kind, access.bits)
        counts[key] = counts.get(key, 0) + access.count
    return counts


def compiled_directly(case: StaticCase, target: GPUTarget) -> Any:
    """Compile `case` with Triton alone."""
    signature = {name: case.signature.get(name, "constexpr") for name in case.jit.arg_names}
    attributes = {(case.jit.arg_names.index(name),): [["tt.divisibility", 16]] for name in case.aligned}
    source = ASTSource(case.jit, signature, dict(case.constants), attributes)
    options = {"num_warps": case.config.num_warps, "num_stages": 1, "enable_fp_fusion": True}
    return triton.compile(source, target=target, options=options)


@pytest.mark.parametrize("target", NVIDIA)
def test_aligned_fp32_is_accessed_128_bits_at_a_time(target: str) -> None:
    # 8 elements a thread: two 16-byte accesses for each of two loads and one store.
    assert widths(add_case(), target) == {("load", 128): 4, ("store", 128): 2}


def test_unknown_alignment_is_accessed_one_element_at_a_time() -> None:
    assert widths(add_case(aligned=False), "sm_90") == {("load", 32): 16, ("store", 32): 8}


@pytest.mark.parametrize("target", ["gfx942", "gfx950"])
def test_aligned_fp32_is_accessed_128_bits_at_a_time_on_amd(target: str) -> None:
    # 64 lanes a warp: 4 elements a thread.
    assert widths(add_case(), target) == {("load", 128): 2, ("store", 128): 1}


@pytest.mark.slow
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_sass_widths_agree_with_ptx(dtype: str, aligned: bool) -> None:
    case = add_case(dtype, aligned=aligned)
    ptx = compiled_directly(case, GPUTarget("cuda", 90, 32)).asm["ptx"]
    expected: dict[tuple[str, int], int] = {}
    for operation, vector, bits in re.findall(r"\b(ld|st)\.global(?:\.v([24]))?\.b(\d+)", ptx):
        key = ("load" if operation == "ld" else "store", int(vector or 1) * int(bits))
        expected[key] = expected.get(key, 0) + 1
    assert widths(case, "sm_90") == expected


def test_the_narrow_stream_of_a_mixed_pair_is_seen() -> None:
    case = add_case("bf16", "fp32", block_size=512)  # 4 elements a thread: 8 bytes of bf16, 16 of fp32
    report = analyse(case, "sm_90")
    assert report.narrowest_stream_bytes == 8
    assert {(a.kind, a.bits) for a in report.accesses} == {("load", 64), ("store", 128)}


def test_a_scalar_that_the_program_shares_is_no_stream() -> None:
    report = analyse(scaled_case(), "sm_90")
    assert {(a.kind, a.bits, a.count) for a in report.accesses if a.stream} == {
        ("load", 128, 2),
        ("store", 128, 2),
    }
    assert [(a.bits, a.count) for a in report.accesses if not a.stream] == [(32, 1)]
    assert report.narrowest_stream_bytes == 16
    assert report.bytes_in_flight == 32


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_the_vector_path_leaves_out_the_other_branch(target: str) -> None:
    report = analyse(two_ways_case(), target)
    on_path = {(a.kind, a.bits) for a in report.accesses if a.on_path}
    elsewhere = {(a.kind, a.bits) for a in report.accesses if not a.on_path}
    assert on_path == {("load", 128), ("store", 128)}
    assert elsewhere == {("load", 32), ("store", 32)}
    assert report.branches > 0
    threads = 4 * (32 if target.startswith("sm_") else 64)
    assert report.instructions_per_element < 0.6 * report.instructions * threads / 1024


def test_a_straight_kernel_is_its_own_path() -> None:
    report = analyse(scaled_case(), "sm_90")
    assert report.instructions_per_element == pytest.approx(report.instructions * 128 / 1024)


def test_a_block_too_large_for_its_threads_spills() -> None:
    small, large = add_case(), add_case(block_size=32768)
    assert analyse(small, "sm_90").spills == 0
    report = analyse(large, "sm_90")
    assert report.spills > 0


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_a_reduction_has_a_barrier_and_shared_memory(target: str) -> None:
    report = analyse(sum_case(), target)
    assert report.barriers > 0
    assert report.shared_bytes > 0
    assert analyse(add_case(), target).barriers == 0


def test_registers_are_those_ptxas_reports(tmp_path: Path) -> None:
    (tmp_path / "k.ptx").write_text(compiled_directly(add_case(), GPUTarget("cuda", 80, 32)).asm["ptx"])
    # For sm_90 Triton 3.9 has another one.
    ptxas = triton.knobs.nvidia.ptxas.path
    command = [
        ptxas,
        "-v",
        "-lineinfo",
        "--gpu-name=sm_80",
        str(tmp_path / "k.ptx"),
        "-o",
        str(tmp_path / "k.cubin"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Used (\d+) registers", done.stderr)
    assert found is not None
    assert analyse(add_case(), "sm_80").registers == int(found[1])


@pytest.mark.parametrize(
    ("target", "registers", "shared", "warps", "expected"),
    [
        # From CUDA's occupancy calculator.
        ("sm_90", 32, 0, 4, 1.0),
        ("sm_90", 40, 0, 4, 0.75),
        ("sm_90", 64, 0, 4, 0.5),
        ("sm_90", 255, 0, 4, 0.125),
        ("sm_86", 40, 0, 4, 1.0),
        ("sm_80", 32, 0, 1, 0.5),  # 32 blocks of one warp
        ("sm_80", 32, 40 << 10, 8, 0.5),  # 41 KiB a block: 4 blocks in 164 KiB
        # From LLVM's table for CDNA3: waves per SIMD by vector registers.
        ("gfx942", 64, 0, 4, 1.0),
        ("gfx942", 65, 0, 4, 7 / 8),
        ("gfx942", 128, 0, 4, 0.5),
        ("gfx942", 64, 64 << 10, 4, 1 / 8),
    ],
)
def test_occupancy(target: str, registers: int, shared: int, warps: int, expected: float) -> None:
    assert occupancy(target, registers, shared, warps) == expected


@pytest.mark.parametrize("block_size", [1024, 8192, 16384])
def test_occupancy_on_amd_is_that_of_llvm(block_size: int) -> None:
    case = add_case(block_size=block_size)
    assembly = compiled_directly(case, GPUTarget("hip", "gfx942", 64)).asm["amdgcn"]
    found = re.search(r"; Occupancy: (\d+)", assembly)
    assert found is not None
    assert analyse(case, "gfx942").occupancy * 8 == int(found[1])


def test_what_the_compiler_prints_on_stderr_is_a_failure() -> None:
    assert analyse(nvidia_only_case(), "sm_90").spills == 0
    with pytest.raises(
        ValueError, match=r"nvidia-only on hip gfx942: the compiler printed on stderr: .*register"
    ):
        analyse(nvidia_only_case(), "gfx942")


def test_stderr_is_given_back(capfd: pytest.CaptureFixture[str]) -> None:
    analyse(add_case(), "sm_90")
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


def test_reading_twice_gives_the_same_report() -> None:
    assert analyse(two_ways_case(), "sm_90") == analyse(two_ways_case(), "sm_90")


@pytest.mark.slow
def test_another_process_with_another_hash_seed_gives_the_same_report() -> None:
    code = (
        "import json; from dataclasses import asdict; from fusetune.kernels.static.compile import analyse\n"
        "from tests.kernels.probe_kernels import two_ways_case\n"
        "print(json.dumps([asdict(analyse(two_ways_case(), t)) for t in ('sm_90', 'gfx942')]))"
    )
    seeds = {**os.environ, "PYTHONHASHSEED": "4242"}
    done = subprocess.run([sys.executable, "-c", code], env=seeds, capture_output=True, text=True, check=True)
    here = [asdict(analyse(two_ways_case(), target)) for target in ("sm_90", "gfx942")]
    assert json.loads(done.stdout) == json.loads(json.dumps(here))


def test_an_unknown_target_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown 'sm_70'; known: sm_80, .*gfx950"):
        analyse(add_case(), "sm_70")


def test_an_interpreted_kernel_cannot_be_compiled() -> None:
    case = replace(add_case(), jit=InterpretedFunction(add_kernel.fn))
    with pytest.raises(TypeError, match="Unset TRITON_INTERPRET"):
        analyse(case, "sm_90")


def test_a_case_that_leaves_out_an_argument_is_refused() -> None:
    case = replace(add_case(), signature={"x_ptr": "*fp32"})
    with pytest.raises(ValueError, match=r"add-fp32: arguments .*the kernel takes"):
        analyse(case, "sm_90")


@pytest.fixture
def only_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ship one kernel with two cases."""
    probe = Kernel(
        "probe",
        fused=lambda: None,
        reference=lambda: None,
        make_inputs=lambda *_: {},
        bytes_moved=lambda _: 0,
        static_cases=(add_case(), replace(add_case("bf16"), config=LaunchConfig(1024, 4))),
    )
    monkeypatch.setattr(static, "KERNELS", {"probe": probe})


@pytest.mark.usefixtures("only_the_probe")
def test_the_table_names_every_case_and_fits_a_hundred_columns(capsys: pytest.CaptureFixture[str]) -> None:
    static.main(["--target", "sm_90", "--target", "gfx942"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["add-fp32", "sm_90"],
        ["add-fp32", "gfx942"],
        ["add-bf16", "sm_90"],
        ["add-bf16", "gfx942"],
    ]
    assert "4x128" in lines[1]
    assert max(map(len, lines)) <= 100


@pytest.mark.usefixtures("only_the_probe")
def test_json_holds_every_access(capsys: pytest.CaptureFixture[str]) -> None:
    static.main(["--target", "sm_90", "--case", "add-fp32", "--json"])
    (report,) = json.loads(capsys.readouterr().out)
    assert report["case"] == "add-fp32"
    assert sum(access["count"] for access in report["accesses"]) == 6


@pytest.mark.usefixtures("only_the_probe")
def test_an_unknown_case_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        static.main(["--case", "ad-fp32"])
    assert "unknown 'ad-fp32'; known: add-bf16, add-fp32" in capsys.readouterr().err


def test_a_child_that_waits_forever_is_killed_and_forked_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As one does that was forked while another thread held a lock."""
    monkeypatch.setattr(static, "_LONGEST_S", 0.5)
    begun = tmp_path / "begun"

    def hangs_at_first() -> None:
        if not begun.exists():
            begun.touch()
            time.sleep(1000)

    assert static._stderr_of_child(hangs_at_first) == ""
    assert begun.exists()
    said = static._stderr_of_child(lambda: time.sleep(1000))
    assert said == "nothing, but the compiler had not ended after 0.5 s, 2 times"
