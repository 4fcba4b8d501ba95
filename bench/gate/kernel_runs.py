"""A spec of kernels under the gate: `bench kernels` of all its rows, in a fresh process of a side.

Each row is a benchmark. Its latency is compared as a timing, its launches and bytes exactly. A row that is not right is
a failure. Competitors are left out, because a gate compares a kernel with itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusetune.bench.gate.measured import Measured
from fusetune.bench.gate.processes import News, Place, failure_of, no_news, show_failure
from fusetune.bench.gate.record_metrics import failure_in, metrics_in
from fusetune.bench.gate.rules import Rules
from fusetune.bench.gate.trainings import job_name, read_records, run_bench, write_spec
from fusetune.bench.kernels import LoadedKernels
from fusetune.bench.results import Record


@dataclass
class KernelRuns:
    """The rows of a spec of kernels, which one process measures together.

    Args:
        loaded: head's spec, with its `gate:` section and the overrides of the command line.
        path: of the spec, relative to the top of the repository.
        overrides: `key.path=value` texts for both sides.
        rules: name further metrics to compare.
        news: takes the last lines of a process that failed.
        facts: side -> what its run.json said of machine and versions, once it is known.
    """

    loaded: LoadedKernels
    path: Path
    overrides: tuple[str, ...]
    rules: Rules
    news: News = no_news
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What is gated."""
        return str(self.path)

    @property
    def jobs(self) -> tuple[str, ...]:
        """The only job. A row is a benchmark of it."""
        return (self.loaded.spec.name,)

    def prepare(self, folder: Path) -> None:
        """Write head's spec into a checkout, see `write_spec`. Mutates: the file in the checkout."""
        write_spec(Path(self.loaded.document.name), folder / self.path)

    def measure(self, job: str, index: int, place: Place, limit_s: float | None) -> dict[str, Measured]:
        """Measure every row once in a fresh process.

        Args:
            job: the spec's name.
            index: of the pair.
            place: where the side runs.
            limit_s: the process is ended after so many seconds; None: never.

        Raises:
            InputError: the side rejects the spec, or has no `bench kernels`.
            SetupError: the side cannot be imported, or left no record.
        """
        with tempfile.TemporaryDirectory(prefix="gate-") as results:
            ended, ref = run_bench(self._arguments(results), place, limit_s, command="kernels")
            records, facts = read_records(Path(results), place)
        if facts is not None:
            self.facts.setdefault(place.side, facts)
        if ended.timed_out or not records:
            failure = failure_of(ended, limit_s) or "it left no record"
            show_failure(self.news, place, failure, ended)
            return {job: Measured(ref=ref, seconds=ended.seconds, failure=failure)}
        return {
            job_name(job, record.factors): self._measured(record, place, ref, ended.seconds)
            for record in records
        }

    def _measured(self, record: Record, place: Place, ref: tuple[float, ...], seconds: float) -> Measured:
        """Return what the record of a row says."""
        contention = record.values.get("processor_missing")
        if failure := failure_in(record):
            self.news(f"{place.name}: {record.trial}: {failure}")
            return Measured(ref=ref, seconds=seconds, failure=failure, contention=contention)
        metrics = metrics_in(record, has_target=False, also=self.rules.metrics)
        return Measured(metrics, ref, seconds, contention=contention)

    def _arguments(self, results: str) -> Iterator[str]:
        """Yield the words after `bench`."""
        yield from ("kernels", str(self.path))
        sections = {
            name: section for name, section in self.loaded.spec.kernels.items() if section is not None
        }
        overrides = [text for text in self.overrides if not text.strip().startswith("gate.")]
        overrides += ["competitors=[]", "static=[]"]
        overrides += [f"kernels.{name}.competitors=[]" for name, own in sections.items() if own.competitors]
        for text in overrides:
            yield from ("--set", text)
        yield from ("--results", results)
