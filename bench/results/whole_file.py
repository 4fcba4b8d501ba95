"""Atomic writes of whole files, which survive a killed process and a power cut."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_UNFINISHED = ".unfinished"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically, by a temporary file that is synced and renamed.

    Args:
        path: the file, which is replaced if it exists. Of two processes that write it, the later one wins.
        content: the whole content.

    Raises:
        OSError: the file cannot be written. The old file stays, and no temporary file is left.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(Path(folder, "run.json"), b"{}")
        ...     [path.name for path in Path(folder).iterdir()]
        ['run.json']
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}{_UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):  # report the error of the write, not this one
            unfinished.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def remove_unfinished(directory: Path) -> None:
    """Remove temporary files of `write_whole` after a crash. No other process may be writing there."""
    for path in directory.glob(f"*{_UNFINISHED}"):
        with suppress(OSError):  # a leftover does no harm
            path.unlink()


def sync_directory(path: Path) -> None:
    """Wait until a directory's entries are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
