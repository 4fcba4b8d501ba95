"""The directory of compiled kernels: never one where another user could put code that we would run.

Triton's own cache is used where it can be trusted, else a directory in the user's cache, else a temporary directory of
this process. `kernels.trust` decides what can be trusted. `kernels.cpu.cache_manager` reads and writes there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fusetune.kernels.private_directory import have_private, is_temporary, temporary_directory
from fusetune.kernels.trust import distrust

_PREFIX = "fusetune-kernels-"


def settle() -> None:
    """Have Triton keep the kernels that it compiles next in an existing directory that only this user can write to."""
    from fusetune.kernels.triton_inside import knobs

    for directory in _lasting():
        if why_not_in(directory) is None and have_private(directory):
            break
    else:
        directory = temporary_directory(_PREFIX)
    if knobs.cache.dir != str(directory):
        knobs.cache.dir = str(directory)


def settled() -> Path | None:
    """The directory that `settle` would choose. None stands for a temporary one. No directory is made."""
    return next((directory for directory in _lasting() if why_not_in(directory) is None), None)


def why_not_in(directory: Path) -> str | None:
    """Return in a clause why kernels cannot be kept in a directory, or None where they can.

    Args:
        directory: need not exist yet. Every directory above it is checked too.
    """
    if directory.parts[:1] == ("~",):
        return "this user has no home"
    found = next(path for path in (directory, *directory.absolute().parents) if os.path.lexists(path))
    if not found.is_dir():
        return f"{found} is not a directory"
    if is_own(directory):
        return None
    try:
        distrusted = distrust(directory)
    except OSError as error:
        return f"{directory} cannot be examined ({error.strerror})"
    if distrusted is not None:
        return distrusted.why
    return None if os.access(found, os.W_OK | os.X_OK) else f"{found} cannot be written"


def is_own(path: Path) -> bool:
    """Return whether a path is in this process's temporary directory, whose parents were not ours to choose."""
    return is_temporary(path)


def _lasting() -> Iterator[Path]:
    """The directories that outlive the process, the best first."""
    from fusetune.kernels.triton_inside import knobs

    yield Path(knobs.cache.dir)
    yield Path(
        os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~"), ".cache"), "fusetune/kernels"
    )
