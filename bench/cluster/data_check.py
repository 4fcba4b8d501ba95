"""A node's data: the same as the driver's, checked once a node, and copied to its own disk where that is asked."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusetune.bench.errors import BenchError
from fusetune.bench.path_checks import is_file, is_folder
from fusetune.bench.spec import Source
from fusetune.bench.workloads import differences, fingerprint_all


def check_data(
    sources: Sequence[Source],
    spec_dir: str,
    fingerprint: Mapping[str, Any],
    stage: str | None,
    directory: str,
) -> tuple[list[str], dict[str, str]]:
    """Compare a node's data with a run's, and copy them where that is asked. Runs on the node.

    Args:
        sources: of the run's trials.
        spec_dir: the directory of the spec, on the driver.
        fingerprint: from run.json.
        stage: directory for copies. None: the data are read where they lie.
        directory: the driver's current one, to which paths in a factory's options are relative.

    Returns:
        What differs, a line each, and path -> path of its copy.
    """
    if Path(directory).is_dir():
        os.chdir(directory)
    missing = [source.path for source in sources if source.path and not _is_there(Path(source.path))]
    if missing:
        return [f"{path}: is not there" for path in dict.fromkeys(missing)], {}
    try:
        changes = differences(fingerprint, fingerprint_all(sources, Path(spec_dir)))
        if changes or stage is None:
            return changes, {}
        return [], {path: stage_copy(path, Path(stage)) for path in _paths(sources)}
    except (BenchError, OSError) as error:
        return [str(error)], {}


def stage_copy(path: str, stage: Path) -> str:
    """Copy a file or a folder once to a node's own disk, and return where it is.

    A copy that is whole has its final name. So processes that stage the same data at once need no lock.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.npz").write_bytes(b"12")
        ...     first = stage_copy(f"{folder}/a.npz", Path(folder, "fast"))
        ...     first == stage_copy(f"{folder}/a.npz", Path(folder, "fast")), Path(first).read_bytes()
        (True, b'12')
    """
    source = Path(path)
    status = source.stat()
    # Another content has another time or size. The check of the content is that of the fingerprint.
    key = f"{source.name}-{_key(source, status.st_size, status.st_mtime_ns)}"
    target = stage / key / source.name
    if target.exists():
        return str(target)
    unfinished = stage / f"{key}.{os.getpid()}"
    unfinished.mkdir(parents=True)
    if source.is_dir():
        shutil.copytree(source, unfinished / source.name)
    else:
        shutil.copy2(source, unfinished / source.name)
    try:
        unfinished.rename(stage / key)
    except OSError:  # another process was first
        shutil.rmtree(unfinished, ignore_errors=True)
    return str(target)


def _paths(sources: Sequence[Source]) -> list[str]:
    return list(dict.fromkeys(source.path for source in sources if source.path))


def _is_there(path: Path) -> bool:
    return is_file(path) or is_folder(path)


def _key(source: Path, size: int, changed_ns: int) -> str:
    """Return a name for a version of a file, the same in every process."""
    return hashlib.sha256(f"{source} {size} {changed_ns}".encode()).hexdigest()[:16]
