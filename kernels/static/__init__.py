"""Static analysis: compile kernels for a GPU that is not there, and read the machine code."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.kernels.static.compile import StaticReport, analyse, shipped_cases
    from fusetune.kernels.static.gpu_targets import TARGETS, occupancy
    from fusetune.kernels.static.recorder import record_launches
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "TARGETS",
    "StaticReport",
    "analyse",
    "occupancy",
    "record_launches",
    "shipped_cases",
]
