"""Where compiled kernels are kept: never where others could put code for us to run.

That is Triton's own cache where it can be trusted, else one in the user's cache, else a temporary directory of this
process. Directories that Triton makes are as open as the umask has it, so the first is made here, and a kernel's own is
closed before its shared object is written. What lies above the cache is the user's own affair.
"""

from __future__ import annotations

import atexit
import base64
import functools
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_ENTER = stat.S_IXGRP | stat.S_IXOTH


def settle() -> None:
    """Have Triton keep what it compiles next in a directory that is there and that only this user can write to."""
    from kernels.triton_inside import knobs

    for directory in _lasting():
        if why_not_in(directory) is None and _made(directory):
            break
    else:
        directory = _temporary()
        _made(directory)  # a process that was forked from this one may have outlived it
    if knobs.cache.dir != str(directory):
        knobs.cache.dir = str(directory)


def settled() -> Path | None:
    """The directory that `settle` would choose; None: a temporary one. Nothing is made."""
    return next((directory for directory in _lasting() if why_not_in(directory) is None), None)


def why_not_in(directory: Path) -> str | None:
    """Say in a clause why kernels cannot be kept in a directory, or return None where they can."""
    found = next(path for path in (directory, *directory.absolute().parents) if os.path.lexists(path))
    if not found.is_dir():
        return f"{found} is not a directory"
    if found == directory and (why := _why_not_trusted(directory)):
        return why
    return None if os.access(found, os.W_OK | os.X_OK) else f"{found} cannot be written"


def close(key: str) -> None:
    """Close the directory of a kernel that is being compiled to others, where the umask has left it open to them.

    Args:
        key: the kernel's hash.
    """
    directory = _of_kernel(key)
    if directory.is_dir() and _why_not_trusted(directory) and directory.stat().st_uid == os.getuid():
        directory.chmod(0o700)


def refuse_shared(key: str) -> None:
    """Raise if others can write to what a kernel was loaded from: they could have us run anything.

    Args:
        key: the kernel's hash.

    Raises:
        PermissionError: the cache, the kernel's directory or a file in it belongs to another user, or group or others
            may write to it.
    """
    directory = _of_kernel(key)
    for path in (directory.parent, directory, *_files(directory)):
        try:
            why = _why_not_trusted(path)
            closed = path.is_dir() and not path.stat().st_mode & _OTHERS_ENTER
        except FileNotFoundError:
            continue
        if why:
            raise PermissionError(
                f"{why}, and compiled kernels are loaded from it. Delete it, or run `chmod -R go-w {path}` if nobody "
                f"can have changed it, or set TRITON_CACHE_DIR to a directory of your own."
            )
        if closed:  # others reach nothing that lies below
            return


def _lasting() -> Iterator[Path]:
    """Where kernels outlive the process, the best first."""
    from kernels.triton_inside import knobs

    yield Path(knobs.cache.dir)
    home = os.path.expanduser("~")
    yield Path(os.environ.get("XDG_CACHE_HOME") or f"{home}/.cache", "fusetune", "kernels")


@functools.cache
def _temporary() -> Path:
    """A directory for this process and those that it forks; removed when this one ends."""
    directory = Path(tempfile.mkdtemp(prefix="fusetune-kernels-"))
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(directory, ignore_errors=True)

    atexit.register(remove)
    return directory


def _made(directory: Path) -> bool:
    """Have a directory and those above it, closed to others where they are new; say whether that could be done."""
    try:
        for path in (*reversed(directory.parents), directory):
            path.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return False
    return _why_not_trusted(directory) is None


def _why_not_trusted(path: Path) -> str | None:
    """Say in a clause how others can change what lies there, or return None where they cannot."""
    status = path.stat()
    if status.st_uid not in (os.getuid(), 0):
        return f"{path} belongs to another user"
    return f"others can write to {path}" if status.st_mode & _OTHERS_WRITE else None


def _of_kernel(key: str) -> Path:
    """Triton's directory for a kernel."""
    from kernels.triton_inside import knobs

    return Path(knobs.cache.dir, base64.b32encode(bytes.fromhex(key)).decode().rstrip("="))


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.is_file()] if directory.is_dir() else []
