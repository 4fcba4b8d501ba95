"""The hyper-parameter search of a spec: its decisions, its workers, its event log on disk, and its report."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.search.for_optuna import optuna_study
    from fusetune.bench.search.for_papers import search_table
    from fusetune.bench.search.holders import Holders
    from fusetune.bench.search.page_sections import search_part
    from fusetune.bench.search.plan import fresh_records
    from fusetune.bench.search.report import show_search
    from fusetune.bench.search.run import run_search
    from fusetune.bench.search.state import kept_words
    from fusetune.bench.search.study import SearchStudy, study_search
    from fusetune.bench.search.trial import run_step
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "Holders",
    "SearchStudy",
    "fresh_records",
    "kept_words",
    "optuna_study",
    "run_search",
    "run_step",
    "search_part",
    "search_table",
    "show_search",
    "study_search",
]
