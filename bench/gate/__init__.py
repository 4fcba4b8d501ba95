"""The gate: whether a revision is slower, hungrier or worse at learning than another, and how sure that is."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.gate.decision import LEAST_PAIRS, LOOKS, Look, decide, looks_at, noise_and_power
    from fusetune.bench.gate.dependencies import read_dependencies
    from fusetune.bench.gate.environments import Environment, Environments, make_environments
    from fusetune.bench.gate.gate_directory import GateDirectory
    from fusetune.bench.gate.git_program import GitAnswer, run_git
    from fusetune.bench.gate.json_text import as_json
    from fusetune.bench.gate.judging import exit_code, judge, notes_on
    from fusetune.bench.gate.junit import as_junit
    from fusetune.bench.gate.markdown import as_markdown
    from fusetune.bench.gate.measured import Measured, Metric, Pair
    from fusetune.bench.gate.page_sections import comparison_part, gate_part
    from fusetune.bench.gate.paired import least_significant_rank_sum, signed_rank
    from fusetune.bench.gate.record_metrics import failure_in, metrics_in, parts
    from fusetune.bench.gate.result import GateResult, Row, Side
    from fusetune.bench.gate.revisions import (
        WORKING_TREE,
        Checkout,
        Checkouts,
        Repository,
        Revision,
        checkouts,
        default_base,
        find_repository,
        find_revision,
        find_revisions,
        on_both_sides,
    )
    from fusetune.bench.gate.rules import TIMING_THRESHOLD, Rule, Rules
    from fusetune.bench.gate.run import Request, resumed_request, run_gate, run_self_test
    from fusetune.bench.gate.self_test import SelfTest, SelfTestRow, study_self_test
    from fusetune.bench.gate.self_test_report import show_self_test
    from fusetune.bench.gate.stored_gate import StoredGate, is_gate, read_stored_gate
    from fusetune.bench.gate.terminal import show_gate
    from fusetune.bench.gate.trainings import job_name
    from fusetune.bench.gate.verdict import Outcome, Verdict
    from fusetune.bench.gate.wording import counted, metric_title, percent_text, value_text
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "LEAST_PAIRS",
    "LOOKS",
    "TIMING_THRESHOLD",
    "WORKING_TREE",
    "Checkout",
    "Checkouts",
    "Environment",
    "Environments",
    "GateDirectory",
    "GateResult",
    "GitAnswer",
    "Look",
    "Measured",
    "Metric",
    "Outcome",
    "Pair",
    "Repository",
    "Request",
    "Revision",
    "Row",
    "Rule",
    "Rules",
    "SelfTest",
    "SelfTestRow",
    "Side",
    "StoredGate",
    "Verdict",
    "as_json",
    "as_junit",
    "as_markdown",
    "checkouts",
    "comparison_part",
    "counted",
    "decide",
    "default_base",
    "exit_code",
    "failure_in",
    "find_repository",
    "find_revision",
    "find_revisions",
    "gate_part",
    "is_gate",
    "job_name",
    "judge",
    "least_significant_rank_sum",
    "looks_at",
    "make_environments",
    "metric_title",
    "metrics_in",
    "noise_and_power",
    "notes_on",
    "on_both_sides",
    "parts",
    "percent_text",
    "read_dependencies",
    "read_stored_gate",
    "resumed_request",
    "run_gate",
    "run_git",
    "run_self_test",
    "show_gate",
    "show_self_test",
    "signed_rank",
    "study_self_test",
    "value_text",
]
