"""A disk that fails: no file may grow, a call of the system fails, nothing may be opened for writing."""

from __future__ import annotations

import builtins
import errno
import io
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes: the kernel writes what fits, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def full(*_: Any, **__: Any) -> Any:
    """Fail as a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_only(patch: pytest.MonkeyPatch) -> None:
    """Let every attempt fail to open a file for writing, or to change a directory."""

    def refuse(path: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    real_open, real_os_open = builtins.open, os.open

    def guarded(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return refuse(file) if set(mode) & set("wax+") else real_open(file, mode, *args, **kwargs)

    def guarded_os(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        changes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
        return refuse(path) if flags & changes else real_os_open(path, flags, *args, **kwargs)

    patch.setattr(builtins, "open", guarded)
    patch.setattr(io, "open", guarded)
    patch.setattr(os, "open", guarded_os)
    for name in ("truncate", "mkdir", "unlink", "remove", "rename", "replace", "symlink", "utime", "chmod"):
        patch.setattr(os, name, lambda path, *_, **__: refuse(path))


def snapshot(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Return each file's time of change and bytes, and each folder's time of change."""
    paths = [directory, *directory.rglob("*")]
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in paths
    }
