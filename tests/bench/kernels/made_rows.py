"""Rows made by hand, for reports, records and plots: no kernel runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusetune.bench.kernels import Case, CopySpeed, KernelSource, Policy, Row, SideResult, Verification
from fusetune.bench.results import Machine, RunInfo, WrittenSpec

COLD = Policy("wall", "cold")
WARM = Policy("wall", "warm")
ALONE = Policy("kernel", "cold")


def rounds(middle: float, n: int = 20, spread: float = 0.02) -> list[float]:
    """Times around a median, in an order that is no trend."""
    steps = [(7 * i) % n for i in range(n)]
    return [middle * (1 + spread * (2 * step / (n - 1) - 1)) for step in steps]


def side(
    name: str, middle: float, *, policies: Mapping[str, float] | None = None, **others: Any
) -> SideResult:
    times = {COLD.name: rounds(middle), **{key: rounds(value) for key, value in (policies or {}).items()}}
    return SideResult(name, latencies_s=times, contention=[0.01] * 20, **others)


def verified(error: float = 3.1e-7, **others: Any) -> Verification:
    return Verification(error, 2.9e-7, 2e-6, checked=21, timed=4, **others)


def case(kernel: str = "gelu", shape: int | str = 2**20, dtype: str = "float32", **others: Any) -> Case:
    return Case(KernelSource(kernel), kernel, shape, dtype, **others)


def row(sides: Sequence[SideResult], of: Case | None = None, **others: Any) -> Row:
    made: dict[str, Any] = {
        "bytes_moved": 8 * 2**20,
        "copy": CopySpeed(10.5e9, "DRAM", 8 * 2**20),
        **others,
    }
    return Row(of or case(), tuple(sides), **made)


def good_row(**others: Any) -> Row:
    ours = side(
        "ours", 812e-6, verification=verified(), launches=1, host_s=21e-6, compile_s=1.204, extra_bytes=0
    )
    eager = side("eager", 1234e-6, verification=verified())
    compiled = side("compile", 815e-6, verification=verified())
    missing = SideResult("liger", "skipped", "liger-kernel is not installed")
    return row([ours, eager, compiled, missing], **others)


def short_row() -> Row:
    ours = side(
        "ours",
        21.3e-6,
        policies={WARM.name: 14.1e-6, ALONE.name: 3.02e-6},
        verification=verified(),
        launches=1,
        host_s=18e-6,
        compile_s=0.9,
        extra_bytes=0,
    )
    return row(
        [ours, side("eager", 19.8e-6)],
        case(shape=1000),
        bytes_moved=8000,
        copy=CopySpeed(25e9, "L2", 8000),
        policies=(COLD, WARM, ALONE),
    )


def failed_row() -> Row:
    said = "at 1,048,576 elements the largest error is 3.2e-02 of the scale of the result, and 2.0e-06 passes"
    ours = SideResult("ours", "wrong", said, compile_s=1.1, launches=1, verification=verified(3.2e-2))
    return row([ours, side("eager", 1234e-6)], case("gelu_tanh", dtype="bfloat16"))


def noisy_row() -> Row:
    """Contended, throttled, not bit for bit equal, on a GPU that is known, with compiled facts."""
    ours = SideResult(
        "ours",
        latencies_s={COLD.name: rounds(100e-6, spread=0.3)},
        contention=[0.2] * 20,
        void_rounds=3,
        verification=verified(repeatable=False, notes=("verified at one shape alone",)),
        launches=2,
        config={"BLOCK": 1024, "num_warps": 4},
    )
    return row(
        [ours, side("eager", 101e-6)],
        case("adam", "resnet50"),
        bytes_moved=250_000_000,
        copy=CopySpeed(3.0e12, "DRAM", 250_000_000),
        datasheet_bytes_per_s=3.35e12,
        static={
            "sm_90": {
                "gpu": "H100 SXM",
                "verdict": "memory-bound, 100 % of copy",
                "registers": 40,
                "spills": 0,
            }
        },
        notes=("the parameters of resnet50: 161 tensors",),
    )


def impossible_row() -> Row:
    said = "52.0 GB/s is more than the best copy of as many bytes, 25.0 GB/s in L2"
    return row([SideResult("ours", "impossible", said), side("eager", 1e-3)], case("relu", 5000))


def sweep_rows(sizes: Sequence[int] = (2**12, 2**14, 2**16, 2**18, 2**20, 2**22)) -> list[Row]:
    """A kernel over sizes: 10 us of overhead, then 10 GB/s."""
    return [
        row(
            [
                side("ours", 10e-6 + 8 * size / 10e9, verification=verified()),
                side("eager", 8e-6 + 8 * size / 6e9),
            ],
            case("silu", size),
            bytes_moved=8 * size,
            copy=CopySpeed(11e9, "DRAM", 8 * size),
        )
        for size in sizes
    ]


def all_rows() -> list[Row]:
    return [good_row(), short_row(), failed_row(), noisy_row(), impossible_row()]


def run_info(**others: Any) -> RunInfo:
    machine = Machine.from_dict({"device": "cpu", "device_name": "Example CPU", "cores": 2})
    given: dict[str, Any] = {
        "kind": "kernels",
        "spec": WrittenSpec({"name": "kernels"}),
        "machine": machine,
        **others,
    }
    return RunInfo(**given)
