"""From TTIR to C: one program becomes one C function, and its tiles become loops over lanes."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.kernels.cpu.lowering.module import lower_module
    from fusetune.kernels.cpu.lowering.waiting import MOST_AT_ONCE
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "MOST_AT_ONCE",
    "lower_module",
]
