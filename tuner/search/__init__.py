"""Which configuration gets the next epoch: candidates, a model of curves, and the search itself."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.tuner.search.prior import SHIPPED, Prior, shipped_prior
    from fusetune.tuner.search.searcher import Searcher, SearchResult, SearchTrial, Status, search
    from fusetune.tuner.search.space import Factor, Space
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "SHIPPED",
    "Factor",
    "Prior",
    "SearchResult",
    "SearchTrial",
    "Searcher",
    "Space",
    "Status",
    "search",
    "shipped_prior",
]
