"""The kinds of runs: what runs a trial, and how the records of a run become its report.

Functions are named, not imported, so that a worker or a report imports only its own. Each is `package:name`, a name
that the package's `__init__` lists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One kind of run.

    Args:
        name: stands in run.json.
        run_trial: runs one trial in a worker, see `bench.workers.worker.WorkerSetup`. None: the command itself
            measures.
        study: `study(run, records, directory)` returns a summary of the records. `run` is a
            `bench.results.RunInfo`, `directory` the path of the run as a string.
        show: `show(study, console, pictures)` draws and prints what `study` returned.
        table: `table(study)` returns its ranking or its rows as a `bench.paper.PaperTable`.
        part: `part(study, records)` returns what a page says of the run, a `bench.page.Part`. None: a page has only
            the run's provenance.
        trains: whether a trial is a training that the spec's target steers. Other kinds prepare such trainings.
        resumed_by: the command that continues a run. None: a run cannot be continued.
        kept: `kept(run, records, directory)` returns what is kept of a run that was interrupted, as the subject and the
            verb of a sentence. None: its finished trials.
        judged: `judged(run, records)` returns the records whose outcomes set the exit code; None: all of them.
        curve_fields: `curve_fields(run)` returns the fields of a curve's entry that `study` and `show` read, where they
            read no samples. None: they read whole records.
        page_fields: the same for `part`, where it reads no samples either, with those of `curve_fields`.
        has_free_records: whether records have parts that `bench.results.schema` does not describe.

    Example:
        >>> kind_of("lr-range").resumed_by
        'lr-range'
    """

    name: str
    run_trial: str | None
    study: str
    show: str
    table: str
    part: str | None = None
    trains: bool = False
    resumed_by: str | None = None
    kept: str | None = None
    judged: str | None = None
    curve_fields: str | None = None
    page_fields: str | None = None
    has_free_records: bool = False


TRAINING = Kind(
    "run",
    run_trial="fusetune.bench.run:run_trial",
    study="fusetune.bench.stats:summarize",
    show="fusetune.bench.report:show_run",
    table="fusetune.bench.report:training_table",
    part="fusetune.bench.report:training_part",
    trains=True,
    resumed_by="run",
    curve_fields="fusetune.bench.stats:curve_fields",
    page_fields="fusetune.bench.report:page_fields",
)
SEARCH = Kind(
    "search",
    run_trial="fusetune.bench.search:run_step",
    study="fusetune.bench.search:study_search",
    show="fusetune.bench.search:show_search",
    part="fusetune.bench.search:search_part",
    table="fusetune.bench.search:search_table",
    trains=True,
    resumed_by="run",
    kept="fusetune.bench.search:kept_words",
    judged="fusetune.bench.search:fresh_records",
)
LR_RANGE = Kind(
    "lr-range",
    run_trial="fusetune.bench.learning_rate:run_lr_range",
    study="fusetune.bench.learning_rate:study_learning_rates",
    show="fusetune.bench.learning_rate:show_learning_rates",
    table="fusetune.bench.learning_rate:learning_rate_table",
    part="fusetune.bench.learning_rate:lr_range_part",
    resumed_by="lr-range",
)
BATCH_SIZE = Kind(
    "batch-size",
    run_trial="fusetune.bench.batch_size:run_job",
    study="fusetune.bench.batch_size:study_measured",
    show="fusetune.bench.batch_size:show_batch_sizes",
    table="fusetune.bench.batch_size:batch_size_table",
    part="fusetune.bench.batch_size:batch_size_part",
    has_free_records=True,
)
KERNELS = Kind(
    "kernels",
    run_trial=None,
    study="fusetune.bench.kernels:study_rows",
    show="fusetune.bench.kernels:show_rows",
    table="fusetune.bench.kernels:kernels_table",
    part="fusetune.bench.kernels:kernels_part",
    has_free_records=True,
)
AUTOTUNE = Kind(
    "autotune",
    run_trial=None,
    study="fusetune.bench.autotune:study_tunings",
    show="fusetune.bench.autotune:show_tunings",
    table="fusetune.bench.autotune:tunings_table",
    part="fusetune.bench.autotune:tunings_part",
    has_free_records=True,
)
KINDS = {kind.name: kind for kind in (TRAINING, SEARCH, LR_RANGE, BATCH_SIZE, KERNELS, AUTOTUNE)}


def kind_of(name: str) -> Kind | None:
    """Return the kind of that name. None for one that a newer version wrote."""
    return KINDS.get(name)


def function(reference: str) -> Callable[..., Any]:
    """Import the function that a field of `Kind` names."""
    package, _, name = reference.partition(":")
    found: Callable[..., Any] = getattr(import_module(package), name)
    return found
