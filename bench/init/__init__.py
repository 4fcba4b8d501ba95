"""`bench init`: a spec and a workflow that gate pull requests, or what starts a run on a cluster."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.init.cluster_files import ClusterFile, tell_cluster, write_cluster_file
    from fusetune.bench.init.files import Written, write_files
    from fusetune.bench.init.findings import Findings, find_out
    from fusetune.bench.init.report import tell
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "ClusterFile",
    "Findings",
    "Written",
    "find_out",
    "tell",
    "tell_cluster",
    "write_cluster_file",
    "write_files",
]
