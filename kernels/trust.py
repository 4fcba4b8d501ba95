"""Who can change the file at a path: code is loaded only from places that other users, but for root, cannot change.

Owner and mode are checked from the root down. So no other user can put another directory in the place of one that
passed the check. A directory with the sticky bit, as /tmp, may be open: there each name is its owner's own.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MOST_LINKS = 40


@dataclass(frozen=True)
class Distrust:
    """Why nothing may be loaded from a path.

    Args:
        path: the directory, link or file that others can change.
        why: a clause that names it.
    """

    path: Path
    why: str


def distrust(path: Path) -> Distrust | None:
    """Return how others can change the file at a path, or None where they cannot, or where there is none.

    Args:
        path: a file or a directory. All that leads to it is looked at too: directories, links, and what those name.

    Raises:
        OSError: the path cannot be looked at.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder).chmod(0o777)
        ...     distrust(Path(folder)) is None
        False
    """
    ahead = [*reversed(path.absolute().parts)]
    here, links = Path(ahead.pop()), 0
    if found := _distrust(here, _status(here), is_last=not ahead):
        return found
    while ahead:
        part = ahead.pop()
        if part == "..":
            here = here.parent
            continue
        beyond = here / part
        try:
            status = _status(beyond)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if found := _distrust(beyond, status, is_last=not ahead):
            return found
        if not stat.S_ISLNK(status.st_mode):
            here = beyond
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = Path(os.readlink(beyond))
        if target.is_absolute():
            here = Path(target.anchor)
            target = target.relative_to(target.anchor)
        ahead += reversed(target.parts)
    return None


def read_trusted(path: Path) -> bytes | None:
    """Read a file of this user's, or return None where none is there.

    What is looked at is what was opened. A link is not followed.

    Args:
        path: in a directory that `distrust` finds nothing against.

    Raises:
        PermissionError: the file is another user's, or others can write to it. `Distrust` is its only argument.
        OSError: something else than a regular file lies there, or it cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        status = _status(path, handle)
        if found := _distrust(path, status, is_last=True):
            raise PermissionError(found)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with open(handle, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(handle)


def _status(path: Path, handle: int | None = None) -> os.stat_result:
    """The owner and mode of the file at a path, or of the one that was opened there."""
    return os.lstat(path) if handle is None else os.fstat(handle)


def _distrust(path: Path, status: os.stat_result, is_last: bool) -> Distrust | None:
    if status.st_uid not in (os.getuid(), os.geteuid(), 0):
        return Distrust(path, f"{path} belongs to another user")
    if stat.S_ISLNK(status.st_mode):  # its mode says nothing, and its owner alone can change it
        return None
    is_kept_apart = stat.S_ISDIR(status.st_mode) and bool(status.st_mode & stat.S_ISVTX)
    if status.st_mode & _OTHERS_WRITE and (is_last or not is_kept_apart):
        return Distrust(path, f"others can write to {path}")
    return None
