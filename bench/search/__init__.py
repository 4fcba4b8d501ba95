"""The search of a spec: decisions in the run, epochs in its workers, each event in a log on disk."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.search.for_optuna import optuna_study
    from fusetune.bench.search.plan import is_left, plan_of
    from fusetune.bench.search.run import SEARCH, run_search
    from fusetune.bench.search.study import SearchStudy, found_nothing, study_search
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "SEARCH",
    "SearchStudy",
    "found_nothing",
    "is_left",
    "optuna_study",
    "plan_of",
    "run_search",
    "study_search",
]
