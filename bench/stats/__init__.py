"""Summaries, effects, significance tests, and the sentences for reports."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.stats.caveats import Caveat, caveats_of
    from fusetune.bench.stats.curves import CurvePoint, curve_fields, median_curve
    from fusetune.bench.stats.diagnosis import Diagnosis
    from fusetune.bench.stats.effects import Effect, Gain, Level
    from fusetune.bench.stats.places import Places, places_of
    from fusetune.bench.stats.scaling import Scaling
    from fusetune.bench.stats.significance import (
        Estimate,
        doubled_midranks,
        holm,
        least_significant_u,
        mann_whitney,
        median_ratio,
    )
    from fusetune.bench.stats.summary import Configuration, Spread, Summary, Trouble, summarize
    from fusetune.bench.stats.trial_columns import reached
    from fusetune.bench.stats.wording import (
        STATUS_WORDS,
        configuration_label,
        counted,
        estimate_text,
        gain_obstacle,
        label,
        missing,
        percent,
        ratio_text,
        recommendation,
        recommendation_sentences,
        shorts,
        undecided,
        what_would_make_it_surer,
    )
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "STATUS_WORDS",
    "Caveat",
    "Configuration",
    "CurvePoint",
    "Diagnosis",
    "Effect",
    "Estimate",
    "Gain",
    "Level",
    "Places",
    "Scaling",
    "Spread",
    "Summary",
    "Trouble",
    "caveats_of",
    "configuration_label",
    "counted",
    "curve_fields",
    "doubled_midranks",
    "estimate_text",
    "gain_obstacle",
    "holm",
    "label",
    "least_significant_u",
    "mann_whitney",
    "median_curve",
    "median_ratio",
    "missing",
    "percent",
    "places_of",
    "ratio_text",
    "reached",
    "recommendation",
    "recommendation_sentences",
    "shorts",
    "summarize",
    "undecided",
    "what_would_make_it_surer",
]
