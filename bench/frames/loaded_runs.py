"""Runs as plain dataclasses, and the tables that can be made of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fusetune.bench.frames.columns import TABLES, TableColumn
from fusetune.bench.frames.dataframes import to_library
from fusetune.bench.results import Record, RunDirectory, RunInfo, study_run
from fusetune.errors import InvalidValueError

TableName = Literal["trials", "curves", "samples"]


@dataclass(frozen=True)
class Run:
    """One run as it lies on disk.

    Args:
        path: the run's directory.
        info: the content of run.json.
        records: one for each trial, in the order in which they ended.
        notes: a sentence on each line that was left out, such as one that a crash cut short.
    """

    path: Path
    info: RunInfo
    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()

    def summary(self) -> Any:
        """Return what the records come to, as `bench report` has it. Its class depends on the kind of run.

        | kind | class |
        |---|---|
        | `run` | `fusetune.bench.stats.Summary` |
        | `search` | `fusetune.bench.search.SearchStudy` |
        | `lr-range` | `fusetune.bench.learning_rate.LRStudy` |
        | `batch-size` | `fusetune.bench.batch_size.MeasuredStudy` |
        | `kernels` | `fusetune.bench.kernels.KernelsStudy` |
        | `autotune` | `fusetune.bench.autotune.TuningsStudy` |

        Raises:
            RunDirectoryError: run.json or a record lacks what the kind needs.
            InputError: the run is of a kind that this version does not know.
        """
        return study_run(RunDirectory.open(self.path), self.records)


@dataclass(frozen=True)
class Results:
    """Runs, in the order in which they were found.

    Args:
        runs: from `fusetune.load`.
    """

    runs: tuple[Run, ...]

    @property
    def records(self) -> tuple[Record, ...]:
        """The records of all runs."""
        return tuple(record for run in self.runs for record in run.records)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of all runs."""
        return tuple(note for run in self.runs for note in run.notes)

    def to_frame(
        self, table: TableName = "trials", library: Literal["pandas", "polars"] | None = None
    ) -> Any:
        """Return a table of all runs, in SI base units. What is missing is NA or NaN in pandas and null in polars.

        Args:
            table: `trials`: a row for each trial. `curves`: a row for each epoch, or each rate of a range test.
                `samples`: a row for each raw measurement, such as the time of a step.
            library: of the table. None: pandas where it is installed, else polars.

        Returns:
            A `pandas.DataFrame` whose `attrs["units"]` is what `units` returns, or a `polars.DataFrame`.

        Raises:
            InvalidValueError: an unknown table or library.
            StateError: the library is not installed.

        docs/records.md describes the columns.
        """
        return to_library(self._columns(table), library)

    def units(self, table: TableName = "trials") -> dict[str, str]:
        """Return column -> unit of a table's numbers: `s`, `bytes`, `samples/s`, `count`, `fraction`, `nats`, `none`.

        Args:
            table: as for `to_frame`.

        Raises:
            InvalidValueError: an unknown table.

        Example:
            >>> from fusetune.bench.results import Record, RunInfo
            >>> record = Record("seed=0", {}, 0, "ok", values={"step_time_s": 0.5})
            >>> Results((Run(Path("demo"), RunInfo(), (record,)),)).units()
            {'step_time_s': 's'}
        """
        return {column.name: column.unit for column in self._columns(table) if column.unit}

    def _columns(self, table: str) -> tuple[TableColumn, ...]:
        build = TABLES.get(table)
        if build is None:
            raise InvalidValueError.unknown("table", table, TABLES, in_order=True)
        return build([(run.info.run_id or run.path.name, run.info, run.records) for run in self.runs])
