"""`bench init`: a spec and a workflow for somebody's repository, so that its pull requests are gated."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.init.files import Written, write_files
    from fusetune.bench.init.findings import Findings, find_out
    from fusetune.bench.init.report import tell
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "Findings",
    "Written",
    "find_out",
    "tell",
    "write_files",
]
