"""The entries of a search's study on disk, for Optuna: a `LineFile` that is read once and added to.

Optuna's own backend leaves half a line where a disk is full or a process dies, and adds the next entry to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from fusetune.bench.results import LineFile


class SearchJournal(BaseJournalBackend):
    """A study's entries. One process adds to them at a time: the one that holds the run's lock.

    Args:
        path: the file.
        writing: cut off a torn last line now, and have each further entry on the disk. Else nothing is ever written:
            what Optuna adds stays in memory.
        go_on: the command that continues the run where an entry cannot be written.

    Attributes:
        note: what was cut off or passed over; empty where nothing was.

    Raises:
        RunDirectoryError: the file cannot be read or changed, or a line is no entry.
    """

    def __init__(self, path: Path, *, writing: bool, go_on: str = "") -> None:
        self._file = LineFile(
            path,
            "an entry of the search's study",
            "Restore the file, or start a new run.",
            go_on=go_on,
        )
        self._writing = writing
        if writing:
            self.note = self._file.cut_torn_line()
        else:
            self.note = self._file.torn_note if self._file.lines()[1] else ""
        self._entries = self._file.read()
        self._applied = 0

    def storage(self) -> JournalStorage:
        """Return Optuna's storage of the entries.

        Raises:
            RunDirectoryError: Optuna can do nothing with one; the message names its line.
        """
        try:
            return JournalStorage(self)
        except Exception as error:
            raise self._file.broken(self._applied, f"{type(error).__name__}: {error}") from error

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the entries from a number on, counted from 0."""
        for number in range(log_number_from, len(self._entries)):
            self._applied = number + 1
            yield self._entries[number]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add entries."""
        if self._writing:
            self._file.append(logs, allow_nan=True)
        # As the file has them: JSON knows no other keys than strings.
        self._entries += [json.loads(json.dumps(log)) for log in logs]
