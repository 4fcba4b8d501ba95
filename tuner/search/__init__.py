"""Freeze-thaw search: which configuration gets the next epoch, so that few epochs find a good one.

Each decision gives one epoch to the training, new or paused, with the highest upper confidence bound of its end.
Trainings are paused and resumed, never restarted. They are never compared at different points of their schedules: a
cosine training that lags at half time is judged by how such curves end. The width of the bound, and whether earlier
runs are believed, are drawn for each decision. So neither a favourite nor a wrong prior holds up a search for long.
"""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.tuner.search.budget import search
    from fusetune.tuner.search.prior import SHIPPED, Prior, shipped_prior
    from fusetune.tuner.search.result import SearchResult, SearchTrial, Status
    from fusetune.tuner.search.searcher import Searcher
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
