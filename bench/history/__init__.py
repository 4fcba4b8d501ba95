"""Recorded runs over commits: an append-only log, change points, and where they come from."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.history.bisection import Bisection, bisect
    from fusetune.bench.history.commits import CommitCounter, CommitFacts, commit_facts
    from fusetune.bench.history.log import History, history_name, known_histories, read_history
    from fusetune.bench.history.page_sections import history_part
    from fusetune.bench.history.recording import Recorded, RunRecorder, append_run, record_gate
    from fusetune.bench.history.report import show_bisection, show_histories, show_history
    from fusetune.bench.history.study import HistoryStudy, newest_worsening, study_history
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "Bisection",
    "CommitCounter",
    "CommitFacts",
    "History",
    "HistoryStudy",
    "Recorded",
    "RunRecorder",
    "append_run",
    "bisect",
    "commit_facts",
    "history_name",
    "history_part",
    "known_histories",
    "newest_worsening",
    "read_history",
    "record_gate",
    "show_bisection",
    "show_histories",
    "show_history",
    "study_history",
]
