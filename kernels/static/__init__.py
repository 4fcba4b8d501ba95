"""Static analysis: compile kernels for a GPU that is not there, and read the machine code."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.kernels.static.compile import StaticReport, analyse, shipped_cases
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "StaticReport",
    "analyse",
    "shipped_cases",
]
