"""The directory of one run. A process that is killed at any moment loses at most the current trial.

results/<spec name>/<run id>/
    run.json         description of the run, written once and atomically
    records.jsonl    one line per trial, on disk before `append` returns
    lock             flock of the process that writes here, which the kernel frees when that process dies
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusetune.bench.errors import RunDirectoryError, unusable
from fusetune.bench.kinds import kind_of
from fusetune.bench.path_checks import entries, is_file, is_folder, is_pipe
from fusetune.bench.results.fresh_directory import acquire_lock, lock_for_appending, make_unique
from fusetune.bench.results.line_file import LineFile
from fusetune.bench.results.record_reader import Reader, RecordReader
from fusetune.bench.results.records import Record
from fusetune.bench.results.run_info import FIXED_ON_RESUME, RunInfo
from fusetune.bench.results.schema import (
    LaterVersionError,
    check_records,
    check_reportable,
    check_run,
    version_of,
)
from fusetune.bench.results.whole_file import write_whole
from fusetune.bench.spec import difference
from fusetune.bench.terminal import invocation
from fusetune.errors import InvalidValueError

_RUN = "run.json"
_GATE = "gate.json"  # of `bench gate`, in results/gate/<id>/
_RECORDS = "records.jsonl"


class RunDirectory:
    """The directory of one run. `create` and `resume` hold its lock and can append, `open` only reads.

    Use it in a `with` block, or call `close`. `path` is the directory, and `run` what run.json says. `notes` lists the
    repairs of `resume`. Each of `listeners` is called when further records are on disk.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as results:
        ...     with RunDirectory.create(Path(results), "demo", RunInfo()) as directory:
        ...         directory.append(Record("seed=0", {}, 0, "ok"))
        ...     records, notes = RunDirectory.open(find_run(Path(results) / "demo")).records()
        >>> records[0].trial, notes
        ('seed=0', [])
    """

    def __init__(self, path: Path, content: Mapping[str, Any], lock: int | None = None) -> None:
        self.path = path
        self.run = RunInfo.from_dict(content)
        self._content = content
        self.notes: list[str] = []
        self.listeners: list[Callable[[], None]] = []
        self._lock = lock
        self._file = LineFile(
            path / _RECORDS,
            "a record",
            "Remove the line, and the trial will be run again on --resume.",
            go_on=self.resume_command or "",
        )

    @classmethod
    def create(cls, results: Path, spec_name: str, run: RunInfo) -> RunDirectory:
        """Create a new directory under `results/<spec_name>/`, lock it and write run.json.

        Args:
            results: the directory of all runs, created if missing.
            spec_name: the spec's name, of letters, digits, `.`, `_`, `-`.
            run: what run.json will say, JSON-able without NaN. Its `run_id` is filled in.

        Raises:
            RunDirectoryError: the disk is full or the directory cannot be written.
        """
        parent = results / spec_name
        path, lock = parent, None
        try:
            parent.mkdir(parents=True, exist_ok=True)
            path = make_unique(parent)
            lock = acquire_lock(path)
            content = dataclasses.replace(run, run_id=path.name).as_dict()
            text = json.dumps(content, indent=2, allow_nan=False) + "\n"
            write_whole(path / _RUN, text.encode())
        except BaseException as error:
            if lock is not None:
                os.close(lock)
            if path != parent:
                shutil.rmtree(path, ignore_errors=True)
            if isinstance(error, OSError):
                raise unusable(parent, error) from error
            raise
        # As a reader of the file has it: a tuple in memory is a list on the disk.
        return cls(path, json.loads(text), lock)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open a run's directory for reading.

        Raises:
            RunDirectoryError: it is not a run's directory, or run.json is broken or of a newer version.
        """
        return cls(path, _read_run(path))

    @classmethod
    def resume(cls, path: Path, now: RunInfo | None = None) -> RunDirectory:
        """Open a run's directory for appending, lock it, and truncate a torn last line.

        Args:
            path: the run's directory.
            now: the run as it would begin now. Its `FIXED_ON_RESUME` must be those of run.json. None: not compared.

        Raises:
            RunDirectoryError: as for `open`, or another process uses the directory, or it is not writable, or values
                have changed. The message lists the changes.
        """
        content = _read_run(path)
        if now is not None:
            _check_unchanged(path, RunInfo.from_dict(content), now)
        directory = cls(path, content)
        directory._lock, note = lock_for_appending(directory._file)
        directory.notes += [note] if note else []
        return directory

    @property
    def is_for_appending(self) -> bool:
        """Whether this process can append records."""
        return self._lock is not None

    @property
    def resume_command(self) -> str | None:
        """The command that continues the run, or None for a kind of run that cannot be resumed."""
        kind = kind_of(self.run.kind)
        command = kind.resumed_by if kind else None
        where = shlex.quote(str(self.path))
        return command and f"{invocation()} {command} --resume {where}{self.run.executor_option}"

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock. Nothing can be appended afterwards."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def remove(self) -> None:
        """Remove the directory of a run without records.

        Raises:
            ValueError: the run has records, which are never removed.
        """
        if (self.path / _RECORDS).exists():
            raise InvalidValueError(self.path, "has records", "it stays")
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):  # other runs of the spec may be there
            self.path.parent.rmdir()

    def check_reportable(self, records: Sequence[Record]) -> None:
        """Refuse a run.json or records that lack what the report of their kind needs.

        Raises:
            RunDirectoryError: names the field or the trial.
        """
        check_reportable(self._content, self.path)
        check_records(self.run, records, self.path)

    def append(self, *records: Record) -> None:
        """Append records. They are on disk on return: several together cost one wait for the disk.

        A failed write leaves the file unchanged.

        Raises:
            RunDirectoryError: the disk is full or the file cannot be written.
            ValueError: a record holds a NaN or an infinity, or the directory is not open for appending.
        """
        if self._lock is None:
            raise InvalidValueError(
                self.path, "is not open for appending", to_do="Use RunDirectory.create or resume"
            )
        self._file.append([record.as_dict() for record in records])
        for listener in self.listeners:
            listener()

    def records(self, *, needed_by: Reader | None = None) -> tuple[list[Record], list[str]]:
        """Return the records in the order of their lines, and notes on skipped lines.

        A torn last line is skipped with a note. Of two records of one trial the first counts, with a note.

        Args:
            needed_by: `report` leaves out what neither `study_run` nor the report in a terminal reads, such as the
                seconds of every step. `page` keeps what a page reads besides. 100,000 trainings of ten epochs then take
                0.3 GB. None: nothing is left out.

        Raises:
            RunDirectoryError: a complete line is not a record. The message names the line.
        """
        reader = RecordReader(self.run, needed_by=needed_by)
        records: dict[str, Record] = {}
        notes: list[str] = []
        with _without_collections():
            for number, line in enumerate(self._file.stream(), start=1):
                if not line.endswith(b"\n"):
                    notes.insert(0, self._file.torn_note)
                    break
                record = reader.quick(line) or self._long_way(reader, number, line[:-1])
                if records.setdefault(record.trial, record) is not record:
                    where = self._file.where(number)
                    notes.append(f"{where}: a second record of trial {record.trial}; the first one counts")
        return list(records.values()), notes

    def _long_way(self, reader: RecordReader, number: int, line: bytes) -> Record:
        """Return the record of a line that needs a closer look."""
        try:
            record: Record = self._file.parse(number, line, reader.build)
        except LaterVersionError as error:
            raise error.at(self._file.where(number)) from None
        return record

    def records_from(self, start_bytes: int) -> tuple[list[Record], int]:
        """Return the records that begin at a byte of the file or later, and the byte at which the next will begin.

        Repeated calls read a file that grows once. A record that is not written to its end is left for the next call.

        Raises:
            RunDirectoryError: a complete line is not a record. The message names the line, counted from the byte.
        """
        lines, _ = self._file.lines(start_bytes)
        reader = RecordReader(self.run)
        records = [
            reader.quick(line) or self._file.parse(number, line, reader.build)
            for number, line in enumerate(lines, start=1)
        ]
        return records, start_bytes + sum(len(line) + 1 for line in lines)


def find_run(path: Path, *, or_gate: bool = False) -> Path:
    """Return the run's directory for `path`, which is itself or the newest run under `results/<spec name>/`.

    Args:
        path: any.
        or_gate: whether a gate's directory counts as one, which `results/gate/` holds.

    Raises:
        RunDirectoryError: there is no run there.
    """
    files = (_RUN, _GATE) if or_gate else (_RUN,)
    if any(is_file(path / file) for file in files):
        return path
    if not is_folder(path):
        raise RunDirectoryError(
            path, "is not a directory", "a run lies in results/<spec name>/<run id>/", "Check the path."
        )
    runs = _runs_under(path, files)
    if runs:
        return max(runs, key=lambda run: run.name)
    specs = [child.name for child in entries(path) if is_folder(child) and _runs_under(child, files)]
    if specs:
        raise RunDirectoryError(
            path,
            "holds a folder for each spec",
            f"known: {', '.join(specs)}",
            f"Give one, as in {path / specs[0]}.",
        )
    raise _not_a_run(path)


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Keep the garbage collector from looking at records again and again, which refer to nothing in circles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _read_run(path: Path) -> dict[str, Any]:
    """Return the content of run.json after a check of its version and types."""
    try:
        if is_pipe(path / _RUN):  # reading it would never end
            raise _not_a_run(path)
        run = json.loads((path / _RUN).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise _not_a_run(path) from None
    except OSError as error:
        raise unusable(path / _RUN, error) from error
    except (ValueError, RecursionError) as error:
        raise RunDirectoryError(
            path / _RUN, "is broken", str(error), "Restore it, or start a new run."
        ) from error
    try:
        version = version_of(run)
    except LaterVersionError as error:
        raise error.at(path / _RUN) from None
    if version is None:
        raise RunDirectoryError(path / _RUN, "is broken", "it has no schema_version", "Restore it.")
    check_run(run, str(path / _RUN))
    content: dict[str, Any] = run
    return content


def _not_a_run(path: Path) -> RunDirectoryError:
    return RunDirectoryError(
        path, "no run is there", f"a run's directory holds {_RUN}", "Give results/<spec name>/<run id>/."
    )


def _check_unchanged(path: Path, run: RunInfo, now: RunInfo) -> None:
    """Raise an error if values of run.json have changed since the run was started."""
    # Compare JSON with JSON, because a tuple in memory is a list on disk.
    before, after = (json.loads(json.dumps(each.as_dict())) for each in (run, now))
    changes = difference(
        {name: before[name] for name in FIXED_ON_RESUME}, {name: after[name] for name in FIXED_ON_RESUME}
    )
    if changes:
        listed = "\n".join(f"  {change}" for change in changes)
        raise RunDirectoryError(
            path,
            "cannot be continued",
            f"the run was started with something else:\n{listed}\nUndo the change, or start a new run.",
        )


def _runs_under(path: Path, files: Sequence[str]) -> list[Path]:
    """Return the directories directly under `path` that hold one of some files."""
    return [child for child in entries(path) if any(is_file(child / file) for file in files)]
