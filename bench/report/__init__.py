"""What every run prints: live progress, caveats, names, and the report of `bench run`.

Nothing is computed here. The reports of other kinds of runs are in their rooms.
"""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.report.caveats import banner, caveat_lines
    from fusetune.bench.report.comparison import show_run
    from fusetune.bench.report.live import Progress
    from fusetune.bench.report.names import render_names
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "Progress",
    "banner",
    "caveat_lines",
    "render_names",
    "show_run",
]
