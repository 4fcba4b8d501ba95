"""A benchmark of searchers on recorded tables of learning curves (`make search-bench`)."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.search_bench.workloads import WORKLOADS, Workload
else:
    __getattr__ = load_on_use(__name__)

__all__ = ["WORKLOADS", "Workload"]
