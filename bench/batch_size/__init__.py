"""`bench batch-size`: the largest batch under a byte limit, each size's speed and noise, and a recommendation."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.batch_size.accelerators import accelerator
    from fusetune.bench.batch_size.earlier_runs import find_rate_run, find_target_run
    from fusetune.bench.batch_size.for_papers import batch_size_table
    from fusetune.bench.batch_size.measurements import MeasuredStudy, measure_batch_sizes, study_measured
    from fusetune.bench.batch_size.page_sections import batch_size_part
    from fusetune.bench.batch_size.plot import draw_batch_size
    from fusetune.bench.batch_size.probe import run_job
    from fusetune.bench.batch_size.report import show_batch_sizes
    from fusetune.bench.batch_size.run_size import probe_rank
    from fusetune.bench.batch_size.shared_search import search_on_devices
    from fusetune.bench.batch_size.study import (
        devices_to_consider,
        search_batch_sizes,
        study_batch_sizes,
        with_limits,
    )
    from fusetune.bench.batch_size.wording import known_so_far
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "MeasuredStudy",
    "accelerator",
    "batch_size_part",
    "batch_size_table",
    "devices_to_consider",
    "draw_batch_size",
    "find_rate_run",
    "find_target_run",
    "known_so_far",
    "measure_batch_sizes",
    "probe_rank",
    "run_job",
    "search_batch_sizes",
    "search_on_devices",
    "show_batch_sizes",
    "study_batch_sizes",
    "study_measured",
    "with_limits",
]
