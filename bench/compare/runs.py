"""A run's directory of any kind as a stored result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from fusetune.bench.compare.stored import COMPARED, Form, Stored, metric
from fusetune.bench.errors import InputError
from fusetune.bench.gate import Measured, Metric, failure_in
from fusetune.bench.kinds import AUTOTUNE, BATCH_SIZE, KERNELS, LR_RANGE, SEARCH, kind_of
from fusetune.bench.results import (
    FailedMeasurement,
    KernelOutcome,
    MemoryProbe,
    Record,
    RunDirectory,
    RunInfo,
    ThroughputOutcome,
    as_written,
)
from fusetune.bench.search import fresh_records
from fusetune.bench.spec import freeze, key_id, value_id
from fusetune.bench.stats import caveats_of

WINNER = "the search's winner"
_TO_TARGET = ("time_to_target_s", "steps_to_target")

Benchmarks = dict[str, dict[int, Measured]]


def read_run(path: Path) -> Stored:
    """Read a run's directory.

    Args:
        path: holds a run.json.

    Raises:
        RunDirectoryError: it cannot be read, or is no run's directory.
        InputError: its kind is not known, or it holds nothing that can be compared.
    """
    directory = RunDirectory.open(path)
    records, notes = directory.records()
    return stored_run(directory, records, notes)


def stored_run(directory: RunDirectory, records: Sequence[Record], notes: Iterable[str] = ()) -> Stored:
    """Return a run and its records as a stored result.

    Args:
        directory: of the run.
        records: of the run.
        notes: what was passed over when they were read.

    Raises:
        RunDirectoryError: the records do not go with their run.
        InputError: the kind of the run is not known, or it holds nothing that can be compared.
    """
    run, path = directory.run, directory.path
    kind = kind_of(run.kind)
    if kind is None:
        what = f"a run of the kind '{run.kind}' is newer than this program"
        raise InputError(path, what, to_do="Update fusetune")
    if kind is AUTOTUNE:
        what = "holds nothing that can be compared"
        raise InputError(path, what, "a run of the kind 'autotune'", "Compare runs of `bench kernels`")
    directory.check_reportable(records)
    form = cast(Form, kind.name)
    name = str(run.spec.content.get("name") or path.parent.name)
    with as_written(path, by_this_process=False):
        if kind is SEARCH:
            benchmarks = _of_search(run, records, name)
        elif kind is BATCH_SIZE:
            benchmarks = _of_batch_sizes(records, name)
        elif kind in (LR_RANGE, KERNELS):
            benchmarks = _of_studies(form, records, name)
        else:
            benchmarks = _of_trainings(run, records, name)
    if not benchmarks:
        what = "holds nothing that can be compared"
        raise InputError(path, what, f"a run of the kind '{form}'", "Wait for its first results")
    mixed = {
        caveat.name: caveat.sentence
        for caveat in caveats_of(run, records)
        if caveat.name.startswith("mixed_")
    }
    if "mixed_device_name" in mixed:
        said = mixed["mixed_device_name"].partition(". ")[0]
        raise InputError(path, said[:1].lower() + said[1:], to_do="Measure it on one device")
    planned, recorded = run.trials, len(records)
    noun = "rows" if kind is KERNELS else "trials"
    incomplete = f"{path} is not complete: {recorded} of {planned} {noun} are recorded."
    return Stored(
        path,
        form,
        name,
        benchmarks,
        machine=dict(run.machine.details),
        versions=dict(run.versions),
        commit=run.commit,
        dirty=run.dirty,
        settings={"spec": dict(run.spec.content), "options": dict(run.options)},
        data=run.fingerprint or {},
        stand_in=run.stand_in,
        jobs=max([run.jobs, *(int(r.provenance.get("jobs", 1)) for r in records)]),
        threads=tuple(sorted(_provenance(records, "threads"))),
        peak_bytes_of=tuple(sorted(_provenance(records, "peak_bytes_of"))),
        intervals=_intervals(records, name) if kind is LR_RANGE else {},
        started=run.started,
        notes=(
            *notes,
            *mixed.values(),
            *([incomplete] if (kind.trains or kind is KERNELS) and planned and recorded < planned else []),
        ),
    )


def _provenance(records: Sequence[Record], key: str) -> set[Any]:
    return {record.provenance[key] for record in records if record.provenance.get(key) is not None}


def _benchmark(name: str, factors: Mapping[str, Any]) -> str:
    """Name a configuration as the gate does, so that a spec's `gate:` section means it."""
    values = ",".join(f"{key_id(key)}={value_id(value)}" for key, value in factors.items())
    return f"{name}: {values}" if values else name


def _of_trainings(run: RunInfo, records: Iterable[Record], name: str) -> Benchmarks:
    found: Benchmarks = {}
    has_target = run.spec.target_metric is not None
    for record in records:
        seeds = found.setdefault(_benchmark(name, record.factors), {})
        seeds[record.seed] = _training("run", record, has_target)
    return found


def _of_search(run: RunInfo, records: Sequence[Record], name: str) -> Benchmarks:
    """Take the winner's trainings on fresh seeds. A search that was continued may have had another winner before."""
    fresh = fresh_records(run, records)
    if not fresh:
        return {}
    winner = freeze(fresh[-1].factors)
    has_target = run.spec.target_metric is not None
    seeds = {
        record.seed: _training("search", record, has_target)
        for record in fresh
        if freeze(record.factors) == winner
    }
    return {f"{name}: {WINNER}": seeds}


def _training(form: Form, record: Record, has_target: bool) -> Measured:
    """Take the metrics of one training. A target that was missed is infinite."""
    failure = _failure(record)
    values = dict(record.values)
    if has_target and not failure:
        values |= {key: math.inf for key in _TO_TARGET if key not in values}
    return _measured(form, record, values, failure)


def _failure(record: Record) -> str:
    said = failure_in(record)
    if isinstance(record.outcome, KernelOutcome):  # which has no seed
        return said
    return said and f"seed {record.seed}: {said}"


def _measured(form: Form, record: Record, values: Mapping[str, float], failure: str = "") -> Measured:
    found: dict[str, Metric] = {}
    for key, comparison in COMPARED[form].items():
        rounds = tuple(record.samples.get(key, ())) if comparison == "timing" else ()
        if rounds and all(value > 0 for value in rounds):
            found[key] = metric(key, form, rounds)
        elif key in values:
            found[key] = metric(key, form, (float(values[key]),))
    contention = record.values.get("processor_missing")
    return Measured({} if failure else found, failure=failure, contention=contention)


def _of_studies(form: Form, records: Iterable[Record], name: str) -> Benchmarks:
    found: Benchmarks = {}
    for record in records:
        failure = _failure(record) if record.status == "failed" else ""  # other outcomes are findings
        measured = _measured(form, record, record.values, failure)
        found.setdefault(_benchmark(name, record.factors), {})[record.seed] = measured
    return found


def _of_batch_sizes(records: Sequence[Record], name: str) -> Benchmarks:
    """Take step times and memory by batch size, and for each configuration the largest size that was run."""
    found: Benchmarks = {}
    largest: dict[tuple[str, int], float] = {}
    failures: dict[tuple[str, int], str] = {}
    for record in records:
        size = record.factors.get("batch_size", record.factors.get("train.batch_size"))
        others = {k: v for k, v in record.factors.items() if k not in ("batch_size", "train.batch_size")}
        is_probe = isinstance(record.outcome, MemoryProbe)
        of_noise = isinstance(record.outcome, FailedMeasurement) and record.outcome.measurement == "noise"
        if record.status == "failed" and not of_noise:
            failures[_benchmark(name, others), record.seed] = _failure(record)
        if size is None or not (is_probe or isinstance(record.outcome, ThroughputOutcome)):
            continue
        if record.status != "ok":
            continue
        values = {k: v for k, v in record.values.items() if is_probe or k != "needed_bytes"}
        samples = {} if is_probe else record.samples
        if is_probe:  # a probe's few steps are for memory alone
            values.pop("step_time_s", None)
            key = (_benchmark(name, others), record.seed)
            largest[key] = max(largest.get(key, 0.0), float(size))
        taken = Record(record.trial, record.factors, record.seed, "ok", values=values, samples=samples)
        measured = _measured("batch-size", taken, values)
        seeds = found.setdefault(_benchmark(name, {"batch_size": size, **others}), {})
        before = seeds.get(record.seed, Measured())
        metrics = {**before.metrics, **measured.metrics}
        ordered = {key: metrics[key] for key in COMPARED["batch-size"] if key in metrics}
        seeds[record.seed] = Measured(
            ordered, contention=record.values.get("processor_missing", before.contention)
        )
    for benchmark, seed in dict.fromkeys((*largest, *failures)):
        key = benchmark, seed
        sizes = (
            {"largest_batch_size": metric("largest_batch_size", "batch-size", (largest[key],))}
            if key in largest
            else {}
        )
        found.setdefault(benchmark, {})[seed] = Measured(sizes, failure=failures.get(key, ""))
    return found


def _intervals(records: Iterable[Record], name: str) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    for record in records:
        if "lr_interval_low" in record.values:
            interval = record.values["lr_interval_low"], record.values["lr_interval_high"]
            found.setdefault(_benchmark(name, record.factors), interval)
    return found
