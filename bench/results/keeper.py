"""Completes a record with what the run knows of itself, and has it on disk before anybody hears of it."""

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
    """Takes the records of one run.

    Args:
        run: the run.
        directory: where records are appended.
        records: those of an earlier part of the run.
    """

    def __init__(self, run: RunInfo, directory: RunDirectory, records: Iterable[Record] = ()) -> None:
        self.records = list(records)
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
        """Say in each record from now on how the number of threads was chosen."""
        if threads is not None:
            self._provenance["threads_choice"] = threads.as_dict()

    @property
    def worker_log(self) -> Path:
        """Where workers that are started one at a time write what they print."""
        return self._directory.path / "worker.log"

    def keep(self, record: Record, source: Source | None) -> Record:
        """Append a record, completed; `source`: where its trial's data came from."""
        data: dict[str, Any] = {"data": source.name, "stand_in": source.stand_in} if source else {}
        if source and source.classes:
            data["classes"] = list(source.classes)
        complete = dataclasses.replace(record, provenance={**self._provenance, **data, **record.provenance})
        with interrupts_deferred():  # a trial that is over is kept, whatever comes in this moment
            self._directory.append(complete)
            self.records.append(complete)
        return complete
