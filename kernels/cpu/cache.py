"""Where compiled kernels are kept: never where others could put code for us to run.

That is Triton's own cache where it can be trusted, else one in the user's cache, else a temporary directory of this
process. `kernels.trust` says what can be trusted, `kernels.cpu.cache_manager` reads and writes there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fusetune.kernels.private_directory import have_private, is_temporary, temporary_directory
from fusetune.kernels.trust import distrust

_PREFIX = "fusetune-kernels-"


def settle() -> None:
    """Have Triton keep what it compiles next in a directory that is there and that only this user can write to."""
    from fusetune.kernels.triton_inside import knobs

    for directory in _lasting():
        if why_not_in(directory) is None and have_private(directory):
            break
    else:
        directory = temporary_directory(_PREFIX)
    if knobs.cache.dir != str(directory):
        knobs.cache.dir = str(directory)


def settled() -> Path | None:
    """The directory that `settle` would choose; None: a temporary one. Nothing is made."""
    return next((directory for directory in _lasting() if why_not_in(directory) is None), None)


def why_not_in(directory: Path) -> str | None:
    """Say in a clause why kernels cannot be kept in a directory, or return None where they can.

    Args:
        directory: need not be there yet. All that leads to it is checked.
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
        return f"{directory} cannot be looked at ({error.strerror})"
    if distrusted is not None:
        return distrusted.why
    return None if os.access(found, os.W_OK | os.X_OK) else f"{found} cannot be written"


def is_own(path: Path) -> bool:
    """Return whether a path lies in the temporary directory of this process: what lies above was not ours to choose."""
    return is_temporary(path)


def _lasting() -> Iterator[Path]:
    """Where kernels outlive the process, the best first."""
    from fusetune.kernels.triton_inside import knobs

    yield Path(knobs.cache.dir)
    yield Path(
        os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~"), ".cache"), "fusetune/kernels"
    )
