"""Questions about paths that somebody else wrote, which no path turns into an exception."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def is_file(path: Path) -> bool:
    """Whether a path leads to an ordinary file, as far as that can be seen. One of 300 characters does not."""
    return _holds(path.is_file)


def is_folder(path: Path) -> bool:
    """Whether a path leads to a directory, as far as that can be seen."""
    return _holds(path.is_dir)


def is_pipe(path: Path) -> bool:
    """Whether a path leads to a named pipe, on which a reader may wait for ever."""
    return _holds(path.is_fifo)


def entries(folder: Path) -> list[Path]:
    """Return what is directly in a folder, sorted. Nothing where it cannot be read, or went away."""
    try:
        return sorted(folder.iterdir())
    except (OSError, ValueError):
        return []


def _holds(question: Callable[[], bool]) -> bool:
    """Ask the system. A refusal to answer is a no."""
    try:
        return question()
    except (OSError, ValueError):  # too long, not allowed, a NUL
        return False
