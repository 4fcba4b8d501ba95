"""Which launch config of a kernel is fastest."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.autotune.race import Departure, RaceResult, Rules, pseudomedian, race
else:
    __getattr__ = load_on_use(__name__)

__all__ = ["Departure", "RaceResult", "Rules", "pseudomedian", "race"]
