"""Directories that only this user can write to: made where they can be, temporary where not."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from fusetune.kernels.trust import distrust

_temporary: dict[str, Path] = {}


def have_private(directory: Path) -> bool:
    """Make a directory and those above it, closed to others where they are new. Return whether it can be used.

    Args:
        directory: absolute. False comes back where others can change it, or it cannot be made or written to.
    """
    try:
        if distrust(directory) is not None:
            return False
        for path in (*reversed(directory.parents), directory):
            path.mkdir(mode=0o700, exist_ok=True)
        return distrust(directory) is None and os.access(directory, os.W_OK | os.X_OK)
    except OSError:
        return False


def temporary_directory(prefix: str) -> Path:
    """Return the directory of this process and of its forks whose name begins so. This process removes it at its end.

    Example:
        >>> temporary_directory("fusetune-doctest-") == temporary_directory("fusetune-doctest-")
        True
    """
    if prefix not in _temporary:
        directory, owner = Path(tempfile.mkdtemp(prefix=prefix)), os.getpid()

        def remove() -> None:
            if os.getpid() == owner:
                shutil.rmtree(directory, ignore_errors=True)

        atexit.register(remove)
        _temporary[prefix] = directory
    # A process that was forked from this one may have outlived it.
    _temporary[prefix].mkdir(mode=0o700, exist_ok=True)
    return _temporary[prefix]


def is_temporary(path: Path) -> bool:
    """Return whether a path lies in a temporary directory of this process."""
    return any(path.is_relative_to(directory) for directory in _temporary.values())
