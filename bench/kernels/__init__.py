"""Kernel benchmarks: verified first, timed beside their competitors, held to what memory can do."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.kernels.case import Case, Direction, KernelSource
    from fusetune.bench.kernels.competitors import build_competitor, competitors_of
    from fusetune.bench.kernels.lane import Lane, LaneError, Prepared, TimedRound
    from fusetune.bench.kernels.model_shapes import MODELS, kernel_on
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
    "MODELS",
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
    "build_competitor",
    "competitors_of",
    "kernel_on",
]
