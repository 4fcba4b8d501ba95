"""What a person names on one side of a comparison: one stored result or several."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusetune.bench.compare.baselines import is_baseline, read_json, stored_baseline
from fusetune.bench.compare.pytest_json import is_pytest_json, stored_pytest
from fusetune.bench.compare.runs import read_run
from fusetune.bench.compare.stored import Stored
from fusetune.bench.errors import InputError
from fusetune.bench.path_checks import entries, is_file, is_folder, is_pipe
from fusetune.bench.results import find_run

_RUN = "run.json"
# pytest-benchmark numbers the files that it saves, in a folder for each kind of machine.
_NUMBERED = re.compile(r"(\d{4,})_.*\.json")
_KNOWN = "a run's directory, a JSON file of pytest-benchmark or a baseline"


def read_side(text: str) -> tuple[tuple[Stored, ...], tuple[str, ...]]:
    """Read all that one side names.

    Args:
        text: a path, several separated by commas, or a pattern such as `results/digits/*`. A path is a run's directory,
            a folder of runs (its newest one is taken), a JSON file of pytest-benchmark, a folder of such files (all are
            taken), a `.benchmarks/` folder (its newest file is taken), or a baseline.

    Returns:
        The stored results, a process each, and notes about what was chosen.

    Raises:
        InputError, RunDirectoryError: a path is missing, or what is there is no stored result.
    """
    notes: list[str] = []
    files = {path.resolve(): path for given in _paths(text) for path in _files(given, notes)}
    stored = [each for path in files.values() for each in _read(path)]
    notes += [note for each in stored for note in each.notes]
    for other in stored[1:]:
        if other.form != stored[0].form:
            what = f"mixes results of {stored[0].form} with those of {other.form}"
            raise InputError(text, what, to_do="Give results of one kind")
    return tuple(stored), tuple(notes)


def _paths(text: str) -> list[Path]:
    """Return the paths that a text names. What exists as a whole is one path, whatever its name holds."""
    if text.strip() and (is_file(Path(text)) or is_folder(Path(text))):
        return [Path(text)]
    found = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        matches = sorted(glob.glob(part)) if glob.has_magic(part) else [part]
        matches = [each for each in matches if _is_stored(Path(each))] if glob.has_magic(part) else matches
        if not matches:
            raise InputError(part, "matches no stored result", f"known: {_KNOWN}", "Check the pattern")
        found += [Path(each) for each in matches]
    if not found:
        raise InputError(repr(text), "names no stored result", f"known: {_KNOWN}", "Check the path")
    return found


def _is_stored(path: Path) -> bool:
    return is_file(path / _RUN) or (path.suffix == ".json" and is_file(path))


def _files(path: Path, notes: list[str]) -> Sequence[Path]:
    """Return the run's directories and the JSON files that a path means."""
    if is_file(path):
        return [path]
    if not is_folder(path):
        what = "cannot be read" if is_pipe(path) else "is not there"
        raise InputError(path, what, f"known: {_KNOWN}", "Check the path")
    if is_file(path / _RUN):
        return [path]
    folders = [path, *filter(is_folder, entries(path))]
    saved = [file for folder in folders for file in entries(folder) if _NUMBERED.fullmatch(file.name)]
    if saved:
        newest = max(saved, key=_age)
        if len(saved) > 1:
            notes.append(f"Of the {len(saved)} files saved in {path}, the newest is compared: {newest.name}.")
        return [newest]
    files = [file for file in entries(path) if file.suffix == ".json" and is_file(file)]
    if files:
        return files
    run = find_run(path)
    runs = sum(is_file(child / _RUN) for child in entries(path))
    if runs > 1:
        notes.append(f"Of the {runs} runs in {path}, the newest is compared: {run.name}.")
    return [run]


def _age(file: Path) -> tuple[str, int]:
    """Order saved files by the time that they hold, in UTC, then by number. A checkout changes the files' own times."""
    content = read_json(file)
    saved = content.get("datetime") if is_pytest_json(content) else None
    match = _NUMBERED.fullmatch(file.name)
    assert match is not None
    return str(saved or "")[:19], int(match.group(1))


def _read(path: Path) -> Sequence[Stored]:
    """Read what one path holds."""
    if is_folder(path):
        return [read_run(path)]
    if path.name in (_RUN, "records.jsonl") and is_file(path.parent / _RUN):
        return [read_run(path.parent)]
    content: Any = read_json(path)
    if is_baseline(content):
        return stored_baseline(content, path)
    if is_pytest_json(content):
        return [stored_pytest(content, path)]
    raise InputError(path, "is no stored result", f"known: {_KNOWN}", "Check the path")
