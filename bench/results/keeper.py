"""Appending of records, completed with the run's provenance, before any listener gets them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fusetune.bench.interrupts import interrupts_deferred
from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.results.records import Record, ThreadsChoice
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.spec import Source


class RecordKeeper:
    """Completes and appends the records of one run.

    Args:
        run: the run.
        directory: the run's directory, open for appending.
        records: records of an earlier part of the run. None: `records` stays empty. A run of 100,000 trials then needs
            no memory for them, and reads them from the disk at its end.
    """

    def __init__(self, run: RunInfo, directory: RunDirectory, records: Iterable[Record] | None = ()) -> None:
        self.records = list(records or ())
        self._holds = records is not None
        self._directory = directory
        self._provenance: dict[str, Any] = {
            "device": run.device,
            "device_name": run.machine.device_name,
            "torch": run.versions.get("torch"),
            "commit": run.commit,
            "dirty": run.dirty,
            "jobs": run.jobs,
            "timings_shared": run.jobs > 1,
        }

    def add(self, threads: ThreadsChoice | None) -> None:
        """Add the choice of the number of threads to each further record."""
        if threads is not None:
            self._provenance["threads_choice"] = threads.as_dict()

    @property
    def worker_log(self) -> Path:
        """The file for the output of workers that are started one at a time."""
        return self._directory.path / "worker.log"

    def keep(self, record: Record, source: Source | None) -> Record:
        """Append a record completed with the provenance and the data `source`, and return it."""
        return self.keep_all([(record, source)])[0]

    def keep_all(self, records: Iterable[tuple[Record, Source | None]]) -> list[Record]:
        """Append records as `keep` does, with one wait for the disk, and return them."""
        complete = [self._completed(record, source) for record, source in records]
        with interrupts_deferred():  # an interrupt at this moment must not lose a finished trial
            self._directory.append(*complete)
            if self._holds:
                self.records += complete
        return complete

    def _completed(self, record: Record, source: Source | None) -> Record:
        data: dict[str, Any] = {"data": source.name, "stand_in": source.stand_in} if source else {}
        if source and source.classes:
            data["classes"] = list(source.classes)
        return dataclasses.replace(record, provenance={**self._provenance, **data, **record.provenance})
