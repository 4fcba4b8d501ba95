"""Triton's cache on disk: read only where no other user can have written, and only if its checksums match.

Triton asks for a kernel by the hash that it computed, and gets the directory of that hash alone. Hashes and paths in
the cached files are not trusted, so a cache can be moved. The checksums of a kernel's files are kept beside them. A
kernel whose files do not match them is compiled again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fusetune.kernels.cpu.cache import is_own
from fusetune.kernels.triton_inside import FileCacheManager, knobs
from fusetune.kernels.trust import Distrust, distrust, read_trusted

_SHARED_OBJECT = ".so"


class _DamagedError(Exception):
    """The kept files of a kernel are not those that were written. The text is a clause that names the file."""


def install() -> None:
    """Have Triton use a cache manager that checks files, in place of its own or of the one that the user has chosen."""
    chosen = knobs.cache.manager_class
    if not issubclass(chosen or FileCacheManager, (CheckedCacheManager, _Checking)):
        knobs.cache.manager_class = _checked(chosen or FileCacheManager)


@functools.cache
def _checked(chosen: type) -> type:
    """Return a manager class that checks the files that another one finds."""
    if chosen is FileCacheManager:
        return CheckedCacheManager
    return type(f"Checked{chosen.__name__}", (_Checking, chosen), {})


class CheckedCacheManager(FileCacheManager):
    """Keeps the files of one kernel in `<Triton's cache>/<key>`.

    Args:
        key: the directory's name, which Triton makes of the hash that it computed.
        override, dump: as in Triton: the user's files that replace a stage's result, and copies for the user.

    Raises:
        PermissionError: other users can write to a directory or a file that would be read. No byte of it was read.
        OSError: the directory cannot be made or written to. The message names it and says what to do.
    """

    def __init__(self, key: str, override: bool = False, dump: bool = False) -> None:
        self._is_kept = not (override or dump)
        if self._is_kept:
            _make(Path(knobs.cache.dir, key))
        super().__init__(key, override=override, dump=dump)

    def get_file(self, filename: str) -> str | None:
        """The path of a file that can be trusted, or None where there is none."""
        path = Path(self.cache_dir, filename)
        _refuse(_distrust(path))
        return str(path) if path.is_file() else None

    def get_group(self, filename: str) -> dict[str, str] | None:
        """Name -> path of the files that belong to a kernel, or None where one is missing or damaged.

        Damaged files are removed with a warning.
        """
        directory = Path(self.cache_dir)
        _refuse(_distrust(directory))
        try:
            return _whole_group(directory, filename)
        except _DamagedError as damage:
            warnings.warn(
                f"{directory}: the compiled kernel kept there is damaged, because {damage}; it is compiled again.",
                RuntimeWarning,
                stacklevel=2,
            )
            with suppress(OSError):  # the next write reports why that cannot be done
                _remove(directory / _group_name(filename))
            return None

    def put_group(self, filename: str, group: Mapping[str, str]) -> str:
        """Record which files belong together, and their checksums."""
        checksums = {name: _checksum(Path(path).read_bytes()) for name, path in group.items()}
        content = {"child_paths": dict(group), "sha256": checksums}
        return self.put(json.dumps(content), _group_name(filename), binary=False)

    def put(self, data: Any, filename: str, binary: bool = True) -> str:
        """Write a file atomically, without permissions for other users."""
        if not self._is_kept:
            return str(super().put(data, filename, binary=binary))
        path = Path(self.cache_dir, filename)
        try:
            _write(path, data if isinstance(data, bytes) else str(data))
        except OSError as error:
            raise _not_kept(path.parent, error) from error
        return str(path)


class _Checking:
    """Placed before the user's own manager among a class's bases. It checks the files that one finds before a read."""

    def get_file(self, filename: str) -> str | None:
        """The path of a file that can be trusted, or None where there is none."""
        found: str | None = super().get_file(filename)  # type: ignore[misc]
        if found is not None:
            _refuse(_distrust(Path(found)))
        return found

    def get_group(self, filename: str) -> dict[str, str] | None:
        """Name -> path of the files that belong to a kernel, all of which can be trusted."""
        found: dict[str, str] | None = super().get_group(filename)  # type: ignore[misc]
        for path in (found or {}).values():
            _refuse(_distrust(Path(path)))
        return found


def _distrust(path: Path) -> Distrust | None:
    """As `distrust`. The folders above this process's temporary cache are not checked."""
    return None if is_own(path) else distrust(path)


def _refuse(found: Distrust | None) -> None:
    """Raise if other users could have put code there."""
    if found is not None:
        raise PermissionError(
            f"{found.why}, and compiled kernels are loaded from it. Delete it, or run `chmod -R go-w {found.path}` if "
            f"nobody can have changed it, or set TRITON_CACHE_DIR to a directory of your own."
        )


def _whole_group(directory: Path, filename: str) -> dict[str, str] | None:
    """Name -> path of a kernel's files in its directory, or None where none were kept.

    Raises:
        _DamagedError: they are not those that were written.
        PermissionError: a file is another user's, or other users can write to it.
    """
    name = _group_name(filename)
    text = _content(directory / name)
    if text is None:
        return None
    try:
        listed = json.loads(text)
        names, checksums = list(listed["child_paths"]), listed.get("sha256")
        is_listed = isinstance(listed["child_paths"], dict) and isinstance(checksums, (dict, type(None)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        is_listed = False
    if not is_listed or filename not in names:
        raise _DamagedError(f"{name} does not list its files")
    if checksums is None and any(each.endswith(_SHARED_OBJECT) for each in names):
        raise _DamagedError(f"{name} has no checksums")
    for each in names:
        if Path(each).name != each:
            raise _DamagedError(f"{name} names a file elsewhere")
        content = _content(directory / each)
        if content is None:
            raise _DamagedError(f"{each} is missing")
        if checksums is not None and checksums.get(each) != _checksum(content):
            raise _DamagedError(f"{each} does not match its checksum")
    return {each: str(directory / each) for each in names}


def _content(path: Path) -> bytes | None:
    """A file's bytes, or None where there is no such file."""
    try:
        return read_trusted(path)
    except PermissionError as error:
        if error.args and isinstance(error.args[0], Distrust):
            _refuse(error.args[0])
        raise _DamagedError(f"{path.name} cannot be read ({error.strerror})") from error
    except (OSError, ValueError) as error:
        raise _DamagedError(f"{path.name} cannot be read ({getattr(error, 'strerror', error)})") from error


def _group_name(filename: str) -> str:
    """The file in which Triton lists the files that belong together."""
    return f"__grp__{filename}"


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _make(directory: Path) -> None:
    """Make a kernel's directory if there is none. A new one has no permissions for other users."""
    try:
        if directory.is_symlink() or not directory.is_dir():
            _refuse(_distrust(directory))
            if os.path.lexists(directory) and not directory.is_dir():
                _remove(directory)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except PermissionError as error:
        if error.strerror is None:
            raise
        raise _not_kept(directory.parent, error) from error
    except OSError as error:
        raise _not_kept(directory.parent, error) from error


def _remove(path: Path) -> None:
    """Remove a file or a directory. Links are not followed."""
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        path.unlink()


def _write(path: Path, data: bytes | str) -> None:
    """Write a file atomically, in the encoding in which Triton reads text."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix="tmp.")
    try:
        with open(handle, "wb" if isinstance(data, bytes) else "w") as file:
            file.write(data)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _not_kept(directory: Path, error: OSError) -> OSError:
    """Build the error of a disk that takes no kernel."""
    return OSError(
        f"{directory}: compiled kernels cannot be kept there ({error.strerror or error}). Make room there, or set "
        f"TRITON_CACHE_DIR to a directory on another disk."
    )
