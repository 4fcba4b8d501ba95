"""Kernel benchmarks: verified first, timed beside their competitors, held to what memory can do."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.kernels.case import Case, Direction, KernelSource
    from fusetune.bench.kernels.competitors import build_competitor, competitors_of
    from fusetune.bench.kernels.compiled import CompiledFacts, compiled_kernels, facts_of
    from fusetune.bench.kernels.compiled_facts import static_facts
    from fusetune.bench.kernels.description import KernelDescription, describe
    from fusetune.bench.kernels.detection import InputFacts, bits_of, bytes_in, bytes_moved, input_facts
    from fusetune.bench.kernels.engine import measure_planned
    from fusetune.bench.kernels.for_papers import kernels_table
    from fusetune.bench.kernels.lane import Lane, LaneError, Prepared, TimedRound
    from fusetune.bench.kernels.loading import kernels_in, load_kernel
    from fusetune.bench.kernels.measurement import Listener, Settings, Tools, measure
    from fusetune.bench.kernels.model_shapes import MODELS, kernel_on
    from fusetune.bench.kernels.outputs import as_csv, as_json, as_markdown
    from fusetune.bench.kernels.page_sections import kernels_part
    from fusetune.bench.kernels.plan import Planned, plan_cases
    from fusetune.bench.kernels.process import Answer, KernelFacts, ProcessLane, ReferenceLane
    from fusetune.bench.kernels.records import row_of_record
    from fusetune.bench.kernels.report import show_rows
    from fusetune.bench.kernels.rounds import StopRule
    from fusetune.bench.kernels.row import (
        Cache,
        Clock,
        CopySpeed,
        Policy,
        Row,
        SideResult,
        SideStatus,
        Verification,
    )
    from fusetune.bench.kernels.run import Keeper, describe_run, run_rows
    from fusetune.bench.kernels.shared_arrays import Array, SharedTree, arrays_of, moved, scaled
    from fusetune.bench.kernels.signatures import takes_config, tensors_in
    from fusetune.bench.kernels.sources import kernel_source
    from fusetune.bench.kernels.spec import (
        DEFAULT_SPEC,
        LoadedKernels,
        is_kernel_spec,
        kernels_schema_text,
        load_kernels,
    )
    from fusetune.bench.kernels.study import KernelsStudy, study_rows
    from fusetune.bench.kernels.verify import Finding, Verifier, compare
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "DEFAULT_SPEC",
    "MODELS",
    "Answer",
    "Array",
    "Cache",
    "Case",
    "Clock",
    "CompiledFacts",
    "CopySpeed",
    "Direction",
    "Finding",
    "InputFacts",
    "Keeper",
    "KernelDescription",
    "KernelFacts",
    "KernelSource",
    "KernelsStudy",
    "Lane",
    "LaneError",
    "Listener",
    "LoadedKernels",
    "Planned",
    "Policy",
    "Prepared",
    "ProcessLane",
    "ReferenceLane",
    "Row",
    "Settings",
    "SharedTree",
    "SideResult",
    "SideStatus",
    "StopRule",
    "TimedRound",
    "Tools",
    "Verification",
    "Verifier",
    "arrays_of",
    "as_csv",
    "as_json",
    "as_markdown",
    "bits_of",
    "build_competitor",
    "bytes_in",
    "bytes_moved",
    "compare",
    "competitors_of",
    "compiled_kernels",
    "describe",
    "describe_run",
    "facts_of",
    "input_facts",
    "is_kernel_spec",
    "kernel_on",
    "kernel_source",
    "kernels_in",
    "kernels_part",
    "kernels_schema_text",
    "kernels_table",
    "load_kernel",
    "load_kernels",
    "measure",
    "measure_planned",
    "moved",
    "plan_cases",
    "row_of_record",
    "run_rows",
    "scaled",
    "show_rows",
    "static_facts",
    "study_rows",
    "takes_config",
    "tensors_in",
]
