"""Two stored results compared: runs of any kind, files of pytest-benchmark, and baselines."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.compare.baselines import BASELINES, baseline_path, find_baseline, save_baseline
    from fusetune.bench.compare.comparison import compare_stored, compare_with_baseline
    from fusetune.bench.compare.runs import read_run, stored_run
    from fusetune.bench.compare.sources import read_side
    from fusetune.bench.compare.stored import Stored
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "BASELINES",
    "Stored",
    "baseline_path",
    "compare_stored",
    "compare_with_baseline",
    "find_baseline",
    "read_run",
    "read_side",
    "save_baseline",
    "stored_run",
]
