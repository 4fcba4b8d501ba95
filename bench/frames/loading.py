"""Find the runs below a path, and read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fusetune.bench.errors import RunDirectoryError
from fusetune.bench.frames.loaded_runs import Results, Run
from fusetune.bench.path_checks import entries, is_file, is_folder
from fusetune.bench.results import RunDirectory

_RUN, _GATE = "run.json", "gate.json"
# results/examples/<spec name>/<run id> is the deepest place of a run.
_DEEPEST = 3


def load(*paths: str | Path) -> Results:
    """Read runs from disk as plain dataclasses. Nothing is written, and torch is not imported.

    Args:
        paths: each is a run's directory, the folder of a spec, or a folder of such folders. Default: `results`.

    Returns:
        The runs in the order of the paths. Those below one path are sorted by their start, the newest last. A run that
        two paths lead to counts once.

    Raises:
        RunDirectoryError: there is no run at a path, or a file of a run is broken or of a newer version.

    Example:
        >>> import tempfile
        >>> from fusetune.bench.results import Record, RunDirectory, RunInfo
        >>> with tempfile.TemporaryDirectory() as results:
        ...     with RunDirectory.create(Path(results), "demo", RunInfo()) as directory:
        ...         directory.append(Record("seed=0", {}, 0, "ok", values={"steps": 80}))
        ...     found = load(results)
        >>> found.runs[0].records[0].values
        {'steps': 80}
        >>> found.to_frame(library="pandas")["steps"].tolist()
        [80]
    """
    found: dict[Path, Path] = {}
    for path in paths or ("results",):
        for run in _runs_at(Path(path)):
            found.setdefault(run.resolve(), run)
    return Results(tuple(map(_read, found.values())))


def _read(path: Path) -> Run:
    directory = RunDirectory.open(path)
    records, notes = directory.records()
    return Run(path, directory.run, tuple(records), tuple(notes))


def _runs_at(path: Path) -> list[Path]:
    """Return the directories of the runs at a path or below it, the newest last.

    Raises:
        RunDirectoryError: there is none.
    """
    if is_file(path / _RUN):
        return [path]
    if not is_folder(path):
        what = "is a file" if is_file(path) else "no such folder"
        raise _no_run(path, what, "Give its folder." if path.name == _RUN else "Check the path.")
    # A run's id begins with the time of its start, in UTC.
    runs = sorted(_below(path, _DEEPEST), key=lambda run: (run.name, str(run)))
    if runs:
        return runs
    inside = [path, *entries(path)]
    if any(is_file(each / _GATE) for each in inside):
        raise _no_run(path, "holds a gate", "Use fusetune.bench.gate.read_stored_gate.")
    if any(file.suffix == ".jsonl" for each in inside for file in entries(each)):
        raise _no_run(path, "holds a history", "Use fusetune.bench.history.read_history.")
    raise _no_run(path, "holds no run", "Give results/<spec name>/<run id>/ or a folder above it.")


def _below(folder: Path, levels: int) -> Iterator[Path]:
    """Yield the directories of runs below a folder. Gates and histories are passed over."""
    for child in entries(folder):
        if is_file(child / _RUN):
            yield child
        elif levels > 1 and is_folder(child):
            yield from _below(child, levels - 1)


def _no_run(path: Path, what: str, to_do: str) -> RunDirectoryError:
    return RunDirectoryError(path, what, f"a run is a folder with {_RUN}", to_do)
