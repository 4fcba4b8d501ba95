"""Recorded runs over commits: an append-only log, change points, and where they come from."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.history.commits import CommitCounter, CommitFacts, commit_facts
    from fusetune.bench.history.log import History, history_name, known_histories, read_history
    from fusetune.bench.history.recording import Recorded, RunRecorder, append_run
    from fusetune.bench.history.report import show_histories, show_history
    from fusetune.bench.history.study import HistoryStudy, study_history
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "CommitCounter",
    "CommitFacts",
    "History",
    "HistoryStudy",
    "Recorded",
    "RunRecorder",
    "append_run",
    "commit_facts",
    "history_name",
    "known_histories",
    "read_history",
    "show_histories",
    "show_history",
    "study_history",
]
