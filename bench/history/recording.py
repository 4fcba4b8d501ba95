"""Runs and gates as lines of a history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fusetune.bench.errors import InputError
from fusetune.bench.gate import (
    GateDirectory,
    GateResult,
    Measured,
    failure_in,
    find_repository,
    job_name,
    metrics_in,
)
from fusetune.bench.history.commits import CommitFacts, commit_facts
from fusetune.bench.history.entries import MACHINE_FACTS, SCHEMA_VERSION, Entry, benchmark_entry
from fusetune.bench.history.log import FOLDER, append_entry, history_name
from fusetune.bench.machine import machine_kind
from fusetune.bench.results import Record, RunInfo
from fusetune.tuner.measure import reference_rounds

_NO_COMMIT = CommitFacts()


@dataclass(frozen=True)
class Recorded:
    """What was measured, and where.

    Args:
        run_id: unique, such as the name of the run's directory.
        source: `run` or `gate`.
        machine: from `bench.machine.describe_machine`.
        versions: from `bench.machine.versions`.
        commit: what was measured.
        spec_path: relative to the top of the repository; None: a command was measured.
        command: the command line; None: a spec was measured.
        stand_in: which generated data stood in for which set; None: none.
        threads: benchmark -> threads of its processes, where known.
    """

    run_id: str
    source: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str | None]
    commit: CommitFacts = _NO_COMMIT
    spec_path: str | None = None
    command: str | None = None
    stand_in: str | None = None
    threads: Mapping[str, int | None] = field(default_factory=dict)


def append_run(
    results: Path, name: str, recorded: Recorded, benchmarks: Mapping[str, Sequence[Measured]]
) -> Path:
    """Add a line to `results/history/<kind of machine>/<name>.jsonl` and return the path of that file.

    Args:
        results: the results directory.
        name: of the spec, or a command line.
        recorded: what was measured, and where.
        benchmarks: name -> what each of its processes measured.

    Raises:
        RunDirectoryError: the disk is full or not writable.
    """
    facts = {key: recorded.machine[key] for key in MACHINE_FACTS if key in recorded.machine}
    entry = Entry(
        schema_version=SCHEMA_VERSION,
        run_id=recorded.run_id,
        source=recorded.source,
        recorded=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        spec_path=recorded.spec_path,
        measured_command=recorded.command,
        commit=recorded.commit.commit,
        commit_time=recorded.commit.time,
        subject=recorded.commit.subject,
        dirty=recorded.commit.dirty,
        machine=facts,
        versions=dict(recorded.versions),
        stand_in=recorded.stand_in,
        benchmarks={
            benchmark: benchmark_entry(list(processes), recorded.threads.get(benchmark))
            for benchmark, processes in benchmarks.items()
            if processes
        },
    )
    return append_entry(results, machine_kind(recorded.machine), history_name(name), entry)


class RunRecorder:
    """Records a run of trainings: made before it, for the commit and the machine's speed are those of that moment.

    Args:
        spec: path of the spec.
        results: the results directory.
    """

    def __init__(self, spec: Path, results: Path) -> None:
        self._results = results
        self._commit = commit_facts(spec.parent, apart_from=results / FOLDER)
        self._spec_path = _relative(spec)
        self._reference = reference_rounds()

    def append(self, run: RunInfo, records: Sequence[Record]) -> Path:
        """Add the run to the history of its spec and return the path of the history.

        Args:
            run: the content of run.json.
            records: of all its trials. Those of one configuration count as processes of one benchmark.

        Raises:
            RunDirectoryError: the disk is full or not writable.
        """
        reference = (*self._reference, *reference_rounds())
        benchmarks: dict[str, list[Measured]] = {}
        threads: dict[str, set[int | None]] = {}
        for record in sorted(records, key=lambda record: record.seed):
            name = job_name(run.spec.name, record.factors)
            failure = failure_in(record)
            metrics = {} if failure else metrics_in(record, has_target=run.spec.target_metric is not None)
            benchmarks.setdefault(name, []).append(Measured(metrics, reference, failure=failure))
            threads.setdefault(name, set()).add(record.provenance.get("threads"))
        recorded = Recorded(
            run_id=run.run_id,
            source="run",
            machine=run.machine.details,
            versions=run.versions,
            commit=self._commit,
            spec_path=self._spec_path,
            stand_in=run.stand_in,
            threads={name: each.pop() if len(each) == 1 else None for name, each in threads.items()},
        )
        return append_run(self._results, run.spec.name, recorded, benchmarks)


def record_gate(results: Path, result: GateResult) -> Path:
    """Add what a gate measured of its head to the history of its spec or command, and return the history's path.

    Args:
        results: the results directory.
        result: of a finished gate.

    Raises:
        RunDirectoryError: the gate's directory cannot be read, or the disk is full or not writable.
    """
    with GateDirectory.resume(Path(result.directory)) as directory:
        request, pairs = directory.content["request"], directory.pairs()
    benchmarks: dict[str, list[Measured]] = {}
    for pair in pairs:
        benchmarks.setdefault(pair.benchmark, []).append(pair.head)
    head = result.head
    facts = commit_facts(Path.cwd(), revision=head.commit or "HEAD")
    if head.dirty:
        # What makes it dirty may be this history itself.
        facts = replace(facts, dirty=commit_facts(Path.cwd(), apart_from=results / FOLDER).dirty)
    # A benchmark of a spec begins with its name.
    name = request["command"] or next(iter(benchmarks), result.title).partition(": ")[0]
    recorded = Recorded(
        run_id=Path(result.directory).name,
        source="gate",
        machine=head.machine,
        versions=head.versions,
        commit=facts,
        spec_path=request["spec"],
        command=request["command"] or None,
    )
    return append_run(results, name, recorded, benchmarks)


def _relative(spec: Path) -> str:
    """Return the path of a spec relative to its repository, or as it is where it lies in none."""
    try:
        return find_repository(spec.parent).relative(spec).as_posix()
    except InputError:
        return str(spec)
