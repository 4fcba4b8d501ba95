"""Records as data: the runs below a path as plain objects, and as tables for pandas or polars."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.frames.loaded_runs import Results, Run
    from fusetune.bench.frames.loading import load
else:
    __getattr__ = load_on_use(__name__)

__all__ = ["Results", "Run", "load"]
