"""Files that are there whole or not at all, whatever ends the process that writes them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_UNFINISHED = ".unfinished"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there, even after a power cut whole or not at all.

    Args:
        path: where it goes; what is there is replaced. One process writes it at a time.
        content: all of it.

    Raises:
        OSError: it cannot be written; what was there before is untouched, and nothing is left beside it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(Path(folder, "run.json"), b"{}")
        ...     [path.name for path in Path(folder).iterdir()]
        ['run.json']
    """
    unfinished = path.with_name(path.name + _UNFINISHED)
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):  # the error that ended the write counts
            unfinished.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def remove_unfinished(directory: Path) -> None:
    """Remove what a killed process was writing by `write_whole`. Nobody else may be writing there."""
    for path in directory.glob(f"*{_UNFINISHED}"):
        with suppress(OSError):  # it stands in nobody's way
            path.unlink()


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
