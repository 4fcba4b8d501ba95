"""What every run prints: live progress, caveats, names, and the report of `bench run`.

Nothing is computed here. The reports of other kinds of runs are in their rooms.
"""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.report.caveats import banner, caveat_lines
    from fusetune.bench.report.comparison import show_run
    from fusetune.bench.report.curves_section import page_fields
    from fusetune.bench.report.for_papers import (
        caveat_sentences,
        factor_cells,
        factor_columns,
        made_by,
        run_cells,
        run_columns,
        table_label,
        training_table,
    )
    from fusetune.bench.report.live import Progress
    from fusetune.bench.report.names import render_names
    from fusetune.bench.report.page_parts import (
        banners_of,
        caveat_notes,
        command_text,
        failed_trials,
        reproduce,
        run_facts,
    )
    from fusetune.bench.report.run_state import RunState, state_of
    from fusetune.bench.report.training_page import training_part, training_sections
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "Progress",
    "RunState",
    "banner",
    "banners_of",
    "caveat_lines",
    "caveat_notes",
    "caveat_sentences",
    "command_text",
    "factor_cells",
    "factor_columns",
    "failed_trials",
    "made_by",
    "page_fields",
    "render_names",
    "reproduce",
    "run_cells",
    "run_columns",
    "run_facts",
    "show_run",
    "state_of",
    "table_label",
    "training_part",
    "training_sections",
    "training_table",
]
