"""The histories on disk: one file for each kind of machine and spec, one line a run, made to be merged by git.

    results/history/
        .gitattributes            *.jsonl merge=union
        <machine>/<spec>.jsonl

Two branches that both record runs add lines to the same place. git's union merge keeps both sides' lines. So a reader
takes lines in any order, and drops copies.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fusetune.bench.errors import InputError, RunDirectoryError, unusable
from fusetune.bench.history.entries import SCHEMA_VERSION, Entry, as_line, first_fault
from fusetune.bench.path_checks import entries as folder_entries
from fusetune.bench.path_checks import is_file, is_folder
from fusetune.bench.results import LineFile, write_whole
from fusetune.bench.terminal import invocation

FOLDER = "history"
_ATTRIBUTES = ".gitattributes"
_UNION = "*.jsonl merge=union\n"
_SUFFIX = ".jsonl"
_CONFLICT = re.compile(rb"^(?:<{7}|={7}|>{7}|\|{7})(?: |$)")
_REMEDY = "Remove the line."


@dataclass(frozen=True)
class History:
    """The runs of one spec on one kind of machine.

    Args:
        path: of the file.
        machine: the kind, see `bench.machine.machine_kind`.
        spec: its name.
        entries: by commit time, then by the time of recording. Each run id once.
        notes: what was passed over, a sentence each.
        others: other kinds of machines -> times of their runs of the same spec, in seconds since 1970.
    """

    path: Path
    machine: str
    spec: str
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()
    others: tuple[tuple[str, tuple[float, ...]], ...] = ()


def history_name(title: str) -> str:
    """Return the name of a history for a spec's name, or for a command line.

    Example:
        >>> history_name("cifar"), history_name("python bench/decode.py --fast")
        ('cifar', 'python-bench-decode.py-fast')
    """
    return re.sub(r"[^A-Za-z0-9._]+", "-", title).strip("-.") or "unnamed"


def append_entry(results: Path, machine: str, spec: str, entry: Entry) -> Path:
    """Add a run to a history and return the path of its file. When this returns, it is on the disk.

    A line that was cut short by a crash is removed before. A complete last line without its end gets one. A run that is
    there already is not added again.

    Args:
        results: the results directory.
        machine: kind of machine, the name of a folder.
        spec: name of the history, see `history_name`.
        entry: the run.

    Raises:
        RunDirectoryError: the disk is full or not writable.
    """
    folder = results / FOLDER / machine
    path = folder / f"{spec}{_SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_one(folder):
            if not is_file(results / FOLDER / _ATTRIBUTES):
                write_whole(results / FOLDER / _ATTRIBUTES, _UNION.encode())
            file = _file(path)
            _, rest = file.lines()
            if rest and _is_complete(rest):
                with path.open("ab") as stream:
                    stream.write(b"\n")
            file.cut_torn_line()
            if not any(_id_text(entry.run_id) in line for line in file.lines()[0]):
                file.append([as_line(entry)])
    except OSError as error:
        raise unusable(path, error) from error
    return path


def known_histories(results: Path) -> dict[str, dict[str, Path]]:
    """Return spec -> kind of machine -> path of all histories in a results directory."""
    found: dict[str, dict[str, Path]] = {}
    for machine in folder_entries(results / FOLDER):
        if is_folder(machine):
            for path in folder_entries(machine):
                if path.suffix == _SUFFIX and is_file(path):
                    found.setdefault(path.stem, {})[machine.name] = path
    return found


def read_history(results: Path, spec: str, machine: str | None = None) -> History:
    """Read the history of a spec.

    Args:
        results: the results directory.
        spec: name of the history.
        machine: kind of machine; None: that of the newest recording.

    Raises:
        InputError: there is no such history. The message has the known ones and the closest.
        RunDirectoryError: a line is no run, or of a later version. The message names it.
    """
    known = known_histories(results)
    if not known:
        raise InputError(
            results / FOLDER,
            "no run was recorded here",
            to_do=f"Record one with `{invocation()} run SPEC --record`.",
        )
    if spec not in known:
        raise InputError.unknown("SPEC", spec, known)
    read = {kind: _read(path) for kind, path in known[spec].items()}
    if machine is None:
        machine = max(read, key=lambda kind: max((entry.recorded_s for entry in read[kind][0]), default=0.0))
    if machine not in read:
        raise InputError.unknown("--machine", machine, read)
    found, notes = read[machine]
    if not found:
        raise InputError(known[spec][machine], "holds no run", to_do="Record one, or remove the file.")
    others = tuple(
        (kind, tuple(entry.time_s for entry in each)) for kind, (each, _) in read.items() if kind != machine
    )
    return History(known[spec][machine], machine, spec, tuple(found), tuple(notes), others)


def _read(path: Path) -> tuple[list[Entry], list[str]]:
    """Return the runs of a file in order, and notes."""
    file = _file(path)
    lines, rest = file.lines()
    notes = []
    if rest:
        if _is_complete(rest):
            lines.append(rest)
        else:
            notes.append(file.torn_note)
    found: dict[str, Entry] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        entry = _entry(file, number, line)
        earlier = found.get(entry.run_id)
        if earlier is not None and as_line(earlier) != as_line(entry):
            notes.append(f"{file.where(number)}: another line of run {entry.run_id}; the first one counts")
        found.setdefault(entry.run_id, entry)
    return sorted(found.values(), key=lambda entry: entry.order), notes


def _entry(file: LineFile, number: int, line: bytes) -> Entry:
    """Turn a line into a run."""
    if _CONFLICT.match(line):
        raise RunDirectoryError(
            file.where(number),
            "git left a conflict here",
            "both sides' runs are wanted",
            "Remove its marks, the lines of <<<<<<<, ======= and >>>>>>>.",
        )
    content: Any = file.parse(number, line)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, bool) or not isinstance(version, int):
        raise file.broken(number, "it has no schema_version")
    if version > SCHEMA_VERSION:
        raise RunDirectoryError(
            file.where(number),
            f"schema_version {version} is newer than this program",
            f"known: up to {SCHEMA_VERSION}",
            "Update fusetune.",
        )
    try:
        return Entry.model_validate(content)
    except ValidationError as error:
        raise file.broken(number, first_fault(error)) from None


def _file(path: Path) -> LineFile:
    return LineFile(path, "a run of a history", _REMEDY)


def _id_text(run_id: str) -> bytes:
    """Return how a line holds a run's id."""
    return f'"run_id":{json.dumps(run_id)}'.encode()


def _is_complete(line: bytes) -> bool:
    """Whether a last line lacks nothing but its end, as editors and merges leave it."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Wait until no other process adds to a folder's files."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
