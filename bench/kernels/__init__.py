"""Kernel benchmarks: verified first, timed beside their competitors, held to what memory can do."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.kernels.case import Case, Direction, KernelSource
    from fusetune.bench.kernels.lane import Lane, LaneError, Prepared, TimedRound
    from fusetune.bench.kernels.row import (
        Cache,
        Clock,
        CopySpeed,
        Policy,
        Row,
        SideResult,
        SideStatus,
        Verification,
    )
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "Cache",
    "Case",
    "Clock",
    "CopySpeed",
    "Direction",
    "KernelSource",
    "Lane",
    "LaneError",
    "Policy",
    "Prepared",
    "Row",
    "SideResult",
    "SideStatus",
    "TimedRound",
    "Verification",
]
