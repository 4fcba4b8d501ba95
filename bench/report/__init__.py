"""What a person sees: live progress, reports and plots. Everything it prints was computed elsewhere."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.report.batch_size import known_so_far, render_batch_size
    from fusetune.bench.report.batch_size_plot import draw_batch_size
    from fusetune.bench.report.live import Progress
    from fusetune.bench.report.lr_plot import draw_lr_range
    from fusetune.bench.report.lr_range import render_lr_range, render_pictures
    from fusetune.bench.report.names import render_names
    from fusetune.bench.report.search import render_search
    from fusetune.bench.report.terminal import render_run
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "Progress",
    "draw_batch_size",
    "draw_lr_range",
    "known_so_far",
    "render_batch_size",
    "render_lr_range",
    "render_names",
    "render_pictures",
    "render_run",
    "render_search",
]
