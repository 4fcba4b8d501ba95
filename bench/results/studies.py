"""The study of a run's records by the function of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from fusetune.bench.errors import InputError
from fusetune.bench.kinds import function, kind_of
from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.results.records import Record
from fusetune.bench.results.schema import as_written


def study_run(directory: RunDirectory, records: Sequence[Record]) -> Any:
    """Study the records of a run with the function of its kind, and return its result.

    Args:
        directory: the run's directory.
        records: of the run.

    Raises:
        RunDirectoryError: run.json or a record lacks what the report needs.
        InputError: the run is of a kind that this version does not know.
    """
    path, kind = directory.path, kind_of(directory.run.kind)
    if kind is None:
        raise InputError(
            path,
            f"a run of the kind '{directory.run.kind}' is newer than this program",
            to_do="Update fusetune",
        )
    directory.check_reportable(records)
    checked = as_written(path, by_this_process=directory.is_for_appending)
    with checked if kind.has_free_records else nullcontext():
        return function(kind.study)(directory.run, records, str(path))
