"""`bench kernels` from planned cases to records: each row is on disk when it is finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from fusetune.bench.errors import InputError
from fusetune.bench.kernels.case import Case
from fusetune.bench.kernels.compiled_facts import Facts
from fusetune.bench.kernels.plan import Planned
from fusetune.bench.kernels.records import record_of_row
from fusetune.bench.kernels.row import Row
from fusetune.bench.kernels.spec import LoadedKernels
from fusetune.bench.kinds import KERNELS
from fusetune.bench.machine import describe_machine, source_state, versions
from fusetune.bench.report import Progress
from fusetune.bench.results import Machine, Record, RecordKeeper, RunDirectory, RunInfo, WrittenSpec


def describe_run(loaded: LoadedKernels, planned: Sequence[Planned], command: Sequence[str]) -> RunInfo:
    """Return what run.json says of a run.

    Args:
        loaded: the spec.
        planned: its rows.
        command: the command line, word by word.

    Raises:
        InputError: the device is not there.
    """
    import torch

    if loaded.device == "cuda" and not torch.cuda.is_available():
        what = "cuda is asked for, but torch finds no CUDA device"
        raise InputError("device", what, to_do="Use device: auto or cpu")
    state = source_state()
    return RunInfo(
        kind=KERNELS.name,
        spec=WrittenSpec(loaded.spec.resolved()),
        spec_path="" if loaded.path is None else str(loaded.path),
        overrides=loaded.overrides,
        profile=loaded.profile,
        profile_changes=loaded.changes,
        command=tuple(command),
        trials=len(planned),
        device=loaded.device,
        machine=Machine.from_dict(describe_machine(loaded.device)),
        versions=versions(),
        commit=state["commit"],
        dirty=state["dirty"],
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


@dataclass
class Keeper:
    """Keeps each finished row, and shows how far the run is: the listener of the engine.

    Args:
        run: the run.
        directory: open for appending.
        display: shows the progress.
        facts: the row's name -> compiled facts.
        names: of all rows, in their order.
    """

    run: RunInfo
    directory: RunDirectory
    display: Progress
    facts: Mapping[str, Facts]
    names: Sequence[str]

    def __post_init__(self) -> None:
        self._keeper = RecordKeeper(self.run, self.directory)

    def row_started(self, case: Case) -> None:
        """A case begins."""
        self.display.trial_started(case.name, self._place(case))

    def row_news(self, case: Case, text: str) -> None:
        """There is news of the case: what is being done."""
        self.display.trial_progress(case.name, {"phase": text})

    def row_finished(self, row: Row) -> None:
        """A case has come to its row, which is on disk when this returns."""
        row = replace(row, static=self.facts.get(row.case.name, row.static))
        record = self._keeper.keep(record_of_row(row), None)
        self.display.trial_finished(record, self._place(row.case))

    @property
    def records(self) -> list[Record]:
        """Of all rows that are finished."""
        return self._keeper.records

    def _place(self, case: Case) -> int:
        return self.names.index(case.name) + 1


# Verifies and times the rows of a spec.
Engine = Callable[[LoadedKernels, Sequence[Planned], Keeper], object]


def run_rows(
    loaded: LoadedKernels,
    planned: Sequence[Planned],
    directory: RunDirectory,
    display: Progress,
    facts: Mapping[str, Facts],
    engine: Engine,
) -> list[Record]:
    """Verify and time every row. Each is on disk when it is finished.

    Args:
        loaded: the spec.
        planned: its rows.
        directory: open for appending.
        display: shows the progress.
        facts: from `static_facts`.
        engine: verifies and times, and tells the keeper.

    Returns:
        The records, in the order in which they were finished.

    Raises:
        KeyboardInterrupt: it was interrupted. Finished rows are kept.
        RunDirectoryError: the disk is full.
    """
    keeper = Keeper(directory.run, directory, display, facts, [each.case.name for each in planned])
    display.start(len(planned), 0)
    engine(loaded, planned, keeper)
    return keeper.records
