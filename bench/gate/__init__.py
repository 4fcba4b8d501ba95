"""The gate: whether a revision is slower, hungrier or worse at learning than another, and how sure that is."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.gate.measured import Measured, Metric, Pair
    from fusetune.bench.gate.result import GateResult, Row, Side
    from fusetune.bench.gate.verdict import Outcome, Verdict
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "GateResult",
    "Measured",
    "Metric",
    "Outcome",
    "Pair",
    "Row",
    "Side",
    "Verdict",
]
