"""What the benchmark of one case came to. Reports, records, the gate and pytest-benchmark read these alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fusetune.bench.kernels.case import Case

# Why a side has no time. `ok` has one.
SideStatus = Literal[
    "ok",
    "does not build",  # import, compilation, a shape that it refuses
    "wrong",  # results against float64, NaN or inf where the reference has none, another shape or dtype
    "mutated",  # an input outside of `mutates` was changed
    "allocates",  # memory in the call that is neither a result nor declared
    "late",  # it still writes after it returned
    "not a tensor",  # a lazy subclass, or a result that is not the kernel's own
    "impossible",  # faster than its bytes can cross memory
    "forged",  # the time that it reports is not the time that passed outside
    "crashed",
    "timed out",
    "out of memory",
    "skipped",  # a competitor that is not installed, or that a device lacks
]
Clock = Literal["wall", "event", "graph", "kernel"]
Cache = Literal["cold", "warm"]


@dataclass(frozen=True)
class Policy:
    """What is on the clock. It stands in every report and record.

    Args:
        clock: `wall`: the host's clock around a call that is waited for, host time in. `event`: events of the device
            around a call. `graph`: a replayed CUDA graph, host time out. `kernel`: the compiled function alone, on a
            CPU, host time out.
        cache: `cold`: the last-level cache is flushed before each call, off the clock. `warm`: it is not.
        calls: successive calls in a sample, each with arguments of its own.
    """

    clock: Clock = "wall"
    cache: Cache = "cold"
    calls: int = 1

    @property
    def name(self) -> str:
        """E.g. `wall, cold`."""
        return f"{self.clock}, {self.cache}" + (f", {self.calls} calls" if self.calls > 1 else "")


@dataclass(frozen=True)
class Verification:
    """What was found about the results of one side.

    Args:
        error: against float64, relative to the scale of its tensor. Of the result that came nearest to its limit.
        eager_error: that of the reference in the same dtype.
        tolerance: the largest error that passes there.
        checked: sets of inputs whose results were compared, among them those of timed calls.
        timed: how many of them were timed calls.
        repeatable: two calls on the same values gave the same bits.
        notes: sentences, e.g. that the kernel was verified at one shape only.
    """

    error: float
    eager_error: float
    tolerance: float
    checked: int
    timed: int = 0
    repeatable: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SideResult:
    """One way to do the work: ours (or hers), or a competitor.

    Args:
        name: `ours`, `eager`, `foreach`, `fused`, `compile`, `liger`, or a competitor's name.
        status: `ok`, or why it has no time.
        reason: one sentence where it has none.
        latencies_s: by policy name, one value a round: seconds of a call. Only where ok.
        contention: of each round, the share of processor time that it asked for and did not get.
        void_rounds: rounds left out, because the device was throttled.
        host_s: host time of a call, before the kernel runs.
        compile_s: time of the first call, with compilation.
        launches: kernels launched by a call.
        extra_bytes: allocated by a call beside its results.
        config: the launch config, where there is one.
        verification: None where it came to none.
    """

    name: str
    status: SideStatus = "ok"
    reason: str = ""
    latencies_s: Mapping[str, Sequence[float]] = field(default_factory=dict)
    contention: Sequence[float] = ()
    void_rounds: int = 0
    host_s: float | None = None
    compile_s: float | None = None
    launches: int | None = None
    extra_bytes: int | None = None
    config: Mapping[str, int] | None = None
    verification: Verification | None = None


@dataclass(frozen=True)
class CopySpeed:
    """The best copy measured in the same run, for as many bytes.

    Args:
        bytes_per_s: bytes read and written, by second.
        level: the level of memory that a call finds them in: `DRAM` by a cold policy, else the smallest that holds as
            many bytes, e.g. `L2`, `L3`, `DRAM`.
        working_set_bytes: what was copied, both sides.
        limit_bytes_per_s: what no kernel can exceed, see `copy_speed`. None: the call's own time hides memory's.
    """

    bytes_per_s: float
    level: str
    working_set_bytes: int
    limit_bytes_per_s: float | None = None


@dataclass(frozen=True)
class Row:
    """One case, its sides, and what limits it.

    Args:
        case: what was measured.
        sides: ours first, in the order of the table. Competitors that failed are among them.
        policies: what was on the clock. The first one is the row's own.
        bytes_moved: that must cross memory once. None where nothing ran.
        copy: the copy that the row is held to.
        datasheet_bytes_per_s: of the GPU, where it is known.
        static: compiled facts and forecast by target, see `forecast`. Empty without `--static`.
        notes: sentences for the report.
        searches: of Triton's own autotuner, before anything was timed: rows of `TritonSearch.as_row`.
    """

    case: Case
    sides: tuple[SideResult, ...]
    policies: tuple[Policy, ...] = (Policy(),)
    bytes_moved: int | None = None
    copy: CopySpeed | None = None
    datasheet_bytes_per_s: float | None = None
    static: Mapping[str, Mapping[str, float | str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    searches: tuple[Mapping[str, Any], ...] = ()

    @property
    def ours(self) -> SideResult:
        """The kernel's own side."""
        return self.sides[0]

    @property
    def status(self) -> SideStatus:
        """Of the kernel. A competitor that failed is no failure of the row."""
        return self.ours.status
