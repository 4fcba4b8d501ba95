"""Which launch config of a kernel is fastest."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.autotune.confirmation import Confirmation, confirm
    from fusetune.bench.autotune.for_papers import tunings_table
    from fusetune.bench.autotune.lanes import LaneWorkbench
    from fusetune.bench.autotune.page_sections import tunings_part
    from fusetune.bench.autotune.race import Departure, RaceResult, Rules, pseudomedian, run_race
    from fusetune.bench.autotune.records import (
        TuningsStudy,
        describe_tunings,
        record_of_tuning,
        show_tunings,
        study_tunings,
        tuning_of_record,
    )
    from fusetune.bench.autotune.report import as_json, as_plain, draw_tuning, show_tuning
    from fusetune.bench.autotune.run import Opened, Workbench, config_text, tune
    from fusetune.bench.autotune.screening import Screened, screen
    from fusetune.bench.autotune.search import LARGE_SPACE, Plan, SearchResult, run_search
    from fusetune.bench.autotune.tuning import Candidate, Tuning
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "LARGE_SPACE",
    "Candidate",
    "Confirmation",
    "Departure",
    "LaneWorkbench",
    "Opened",
    "Plan",
    "RaceResult",
    "Rules",
    "Screened",
    "SearchResult",
    "Tuning",
    "TuningsStudy",
    "Workbench",
    "as_json",
    "as_plain",
    "config_text",
    "confirm",
    "describe_tunings",
    "draw_tuning",
    "pseudomedian",
    "record_of_tuning",
    "run_race",
    "run_search",
    "screen",
    "show_tuning",
    "show_tunings",
    "study_tunings",
    "tune",
    "tuning_of_record",
    "tunings_part",
    "tunings_table",
]
