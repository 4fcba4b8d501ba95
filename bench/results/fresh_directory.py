"""Creation of directories with unique names, their locks, and how they are opened again for appending."""

from __future__ import annotations

import fcntl
import os
import secrets
from datetime import datetime, timezone
from pathlib import Path

from fusetune.bench.errors import RunDirectoryError, unusable
from fusetune.bench.results.line_file import LineFile
from fusetune.bench.results.whole_file import remove_unfinished

_LOCK = "lock"
_ATTEMPTS = 20


def make_unique(parent: Path) -> Path:
    """Create a directory with a unique name, from the time in UTC and random digits."""
    for _ in range(_ATTEMPTS):
        now = datetime.now(timezone.utc)
        path = parent / f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise RunDirectoryError(
        parent, f"no free run id after {_ATTEMPTS} attempts", to_do="Start the run again."
    )


def acquire_lock(path: Path) -> int:
    """Lock a directory for this process.

    Returns:
        The file descriptor of the lock. The kernel releases the lock when the process ends.
    """
    descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise RunDirectoryError(
            path,
            "in use",
            f"process {owner or '(unknown)'} is writing to it",
            "Wait for it, or start a new run.",
        ) from None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def is_being_written(path: Path) -> bool:
    """Tell whether a process holds the lock of a directory. The lock itself is never touched.

    Linux lists all locks. Elsewhere the process counts whose number the lock has: it is alive, or the number is used
    again.
    """
    try:
        lock = os.stat(path / _LOCK)
        owner = (path / _LOCK).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return False
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return owner.isdecimal() and _is_alive(int(owner))
    device = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}"
    for words in map(str.split, lines):
        if len(words) >= 6 and words[1:4] == ["FLOCK", "ADVISORY", "WRITE"]:
            place, _, inode = words[5].rpartition(":")
            # Some file systems have other device numbers there, so the owner will do too.
            if inode == str(lock.st_ino) and (place == device or words[4] == owner):
                return True
    return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def lock_for_appending(file: LineFile) -> tuple[int, str]:
    """Lock the directory of a file for this process, and remove what a crash left there.

    Args:
        file: that grows. A last line that was cut short is truncated.

    Returns:
        The lock's descriptor, see `acquire_lock`, and a note about a line that was cut short, or an empty text.

    Raises:
        RunDirectoryError: another process uses the directory, or it is not writable.
    """
    path = file.path.parent
    try:
        lock = acquire_lock(path)
    except OSError as error:
        raise unusable(path, error) from error
    try:
        remove_unfinished(path)
        return lock, file.cut_torn_line()
    except BaseException:
        os.close(lock)
        raise
