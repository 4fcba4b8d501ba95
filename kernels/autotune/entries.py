"""What tuning found, on disk: one small file for each key, in the user's cache.

    <user cache>/autotune/<format>/<kernel>/<hash of the key>.json

A file is written under another name, synced and renamed. So any number of processes may write, each may be killed at
any time, and a file that can be seen is whole. Of two that write the same key the last one counts. Files that others
could have written are not read, see `kernels.trust`.

One exported file holds any number of entries, to be committed and shipped.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import secrets
import time
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from fusetune.errors import InvalidValueError, StateError
from fusetune.kernels.autotune.key import TuningKey
from fusetune.kernels.kernel import Config
from fusetune.kernels.private_directory import have_private
from fusetune.kernels.trust import Distrust, distrust, read_trusted
from fusetune.user_cache import NO_HOME, user_cache

FORMAT = 1
_EXPORT = "fusetune tuned launch configs"
_UNFINISHED = ".unfinished"
_ABANDONED_S = 3600.0
_MOST_BYTES = 1 << 20


@functools.cache
def _version() -> str:
    """This version of fusetune, or `?` in a bare checkout."""
    try:
        return metadata.version("fusetune")
    except metadata.PackageNotFoundError:
        return "?"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Entry:
    """The launch config that tuning found for a key.

    Args:
        key: what it is good for.
        config: the launch config.
        latency_s: median seconds of a call with it.
        default: the launch config that it was confirmed against.
        default_latency_s: median seconds of a call with that one, in the same rounds.
        speedup: of `config` over `default` in these rounds: estimate, lower and upper end of its interval.
        rounds: that confirmed it.
        tuned_at: UTC, ISO 8601.
        fusetune: the version that tuned it.

    Example:
        >>> key = TuningKey("copy", "0a1b", "", "float32", "2^20", "flat", "cpu", "gcc 12", "3.7.1")
        >>> Entry(key, {"BLOCK_SIZE": 4096, "num_warps": 4}, latency_s=1e-4).config["BLOCK_SIZE"]
        4096
    """

    key: TuningKey
    config: Config
    latency_s: float | None = None
    default: Config | None = None
    default_latency_s: float | None = None
    speedup: tuple[float, float, float] | None = None
    rounds: int = 0
    tuned_at: str = field(default_factory=_now)
    fusetune: str = field(default_factory=_version)


@dataclass(frozen=True)
class Miss:
    """Why there is no entry for a key.

    Args:
        reason: one sentence.
        differs: the parts of the key in which the nearest entry of the kernel differs. Empty where there is none.
        nearest: the key of that entry.
    """

    reason: str
    differs: tuple[str, ...] = ()
    nearest: TuningKey | None = None


@dataclass(frozen=True)
class Imported:
    """What became of the entries of an exported file.

    Args:
        added: keys that had no entry here.
        replaced: keys whose entry here was slower, or had no time.
        kept: keys whose entry here is at least as fast, or the same. The imported one was left out.
    """

    added: tuple[TuningKey, ...] = ()
    replaced: tuple[TuningKey, ...] = ()
    kept: tuple[TuningKey, ...] = ()


def entries_directory() -> Path | None:
    """Return the directory of all entries, or None where this user has no home. Nothing is made."""
    cache = user_cache()
    return None if cache is None else cache.absolute() / "autotune" / str(FORMAT)


def read_entry(key: TuningKey) -> Entry | Miss:
    """Return the entry of a key, or why there is none.

    A file that cannot be read, or is no entry of this key, is a miss and one warning in a process.

    Args:
        key: what the launch config must be good for.
    """
    found = find_entry(key)
    if found is not None:
        return found
    directory = entries_directory()
    if directory is None:
        return Miss(f"'{key.kernel}' has no tuned launch config: {NO_HOME}.")
    others = sorted(
        (entry.key for entry in _entries_in(directory / _folder(key.kernel)) if entry.key != key),
        key=lambda other: (len(key.differences(other)), other.digest),
    )
    if not others:
        return Miss(f"'{key.kernel}' has no tuned launch config here.")
    nearest = others[0]
    differs = key.differences(nearest)
    theirs, ours = nearest.parts(), key.parts()
    said = ", ".join(f"{name} ({theirs[name]!r} there, {ours[name]!r} here)" for name in differs)
    return Miss(
        f"'{key.kernel}' has no tuned launch config for this; the nearest one differs in {said}.",
        differs,
        nearest,
    )


def find_entry(key: TuningKey) -> Entry | None:
    """Return the entry of a key, or None. It opens one file at most."""
    directory = entries_directory()
    if directory is None:
        return None
    path = directory / _folder(key.kernel) / _file(key)
    if not path.parent.is_dir() or not _is_ours(path.parent):
        return None
    entry = _entry_at(path)
    if entry is not None and entry.key != key:
        notice(path, f"it is about another {', '.join(key.differences(entry.key))}")
        return None
    return entry


def write_entry(entry: Entry) -> Path:
    """Write an entry, in the place of an older one of its key. Return its file.

    Raises:
        ValueError: the entry's config is not one.
        StateError: the user's cache cannot be written, or others can change it.
    """
    _checked_config(entry.config, entry.key.kernel)
    directory = entries_directory()
    if directory is None:
        raise StateError(
            "tuning cache", NO_HOME, to_do="Set HOME or XDG_CACHE_HOME to a directory of this user's"
        )
    path = directory / _folder(entry.key.kernel) / _file(entry.key)
    if not have_private(path.parent):
        raise StateError(
            "tuning cache",
            _why_not_writable(path.parent),
            to_do="Make it this user's, or set XDG_CACHE_HOME to another",
        )
    try:
        _remove_abandoned(path.parent)
        _write_whole(path, _as_text(_file_content(entry)))
    except OSError as error:
        raise StateError(
            "tuning cache",
            f"{path.parent} cannot be written ({error.strerror})",
            to_do="Make room there, or set XDG_CACHE_HOME to another directory",
        ) from error
    return path


def list_entries(kernel: str | None = None) -> list[Entry]:
    """Return all entries of this user's, or those of one kernel, by kernel, size and hash.

    Args:
        kernel: its name.
    """
    directory = entries_directory()
    if directory is None or not directory.is_dir():
        return []
    folders = [directory / _folder(kernel)] if kernel is not None else sorted(directory.iterdir())
    found = [entry for folder in folders for entry in _entries_in(folder)]
    return sorted(found, key=lambda entry: (entry.key.kernel, entry.key.size, entry.key.digest))


def export_entries(path: Path, entries: Iterable[Entry] | None = None) -> int:
    """Write entries to one file, to be committed and shipped. Return how many.

    The same entries give the same bytes, so a file under version control changes with them alone.

    Args:
        path: the file. It is replaced if it exists.
        entries: None: all of this user's.

    Raises:
        StateError: the file cannot be written.
    """
    chosen = sorted(list_entries() if entries is None else entries, key=lambda entry: entry.key.digest)
    content = {
        "what": _EXPORT,
        "format": FORMAT,
        "entries": [_as_json(entry) for entry in chosen],
    }
    try:
        _write_whole(Path(path), _as_text(content), mode=0o666)
    except OSError as error:
        raise StateError(path, f"cannot be written ({error.strerror})", to_do="Name another file") from error
    return len(chosen)


def read_export(path: Path) -> list[Entry]:
    """Return the entries of an exported file.

    Args:
        path: what `export_entries` wrote.

    Raises:
        ValueError: it cannot be read, is no such file, or is of a newer format.
    """
    to_do = "Write one by `bench autotune --export`"
    try:
        content = json.loads(Path(path).read_text())
    except OSError as error:
        raise InvalidValueError(
            path, f"cannot be read ({error.strerror})", to_do="Name another file"
        ) from error
    except (ValueError, RecursionError):
        raise InvalidValueError(path, "is not JSON", to_do=to_do) from None
    if not isinstance(content, dict) or content.get("what") != _EXPORT:
        raise InvalidValueError(path, "holds no tuned launch configs of fusetune's", to_do=to_do)
    if content.get("format") != FORMAT:
        raise InvalidValueError(
            path,
            f"has the format {content.get('format')!r}",
            f"this version of fusetune reads format {FORMAT}",
            "Export it again by this version, or install the one that wrote it",
        )
    if not isinstance(content.get("entries"), list):
        raise InvalidValueError(path, "has no list of entries", to_do=to_do)
    entries = []
    for number, each in enumerate(content["entries"], 1):
        try:
            entries.append(_from_json(each))
        except ValueError as error:
            raise InvalidValueError(path, f"entry {number} is damaged: {error}", to_do=to_do) from None
    return entries


def import_entries(path: Path) -> Imported:
    """Copy the entries of an exported file to this user's cache, all or none.

    An entry that is here already stays where it is at least as fast, for both were measured on the same kind of device.
    What was left out is returned.

    Args:
        path: what `export_entries` wrote.

    Raises:
        ValueError: see `read_export`. Nothing was imported.
        StateError: see `write_entry`.
    """
    fates: dict[str, list[TuningKey]] = {"added": [], "replaced": [], "kept": []}
    for entry in read_export(path):
        here = find_entry(entry.key)
        if here is None:
            fate = "added"
        elif here.config != entry.config and (entry.latency_s or math.inf) < (here.latency_s or math.inf):
            fate = "replaced"
        else:
            fate = "kept"
        if fate != "kept":
            write_entry(entry)
        fates[fate].append(entry.key)
    return Imported(**{fate: tuple(keys) for fate, keys in fates.items()})


_noticed = False


def notice(path: object, why: str) -> None:
    """Warn, once in a process, that an entry is left out.

    Args:
        path: the entry's file.
        why: a clause about the file, `it`.
    """
    global _noticed
    if not _noticed:
        _noticed = True
        warnings.warn(
            f"{path}: this tuned launch config is not used, because {why}; the default is used, and further ones are "
            f"left out silently.",
            stacklevel=2,
        )


def _folder(kernel: str) -> str:
    """The name of a kernel's directory: its own name where that can be one."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "-", kernel)[:64]
    return plain if plain == kernel and plain else f"{plain}-{_checksum(kernel)[:8]}"


def _file(key: TuningKey) -> str:
    return f"{key.digest}.json"


def _is_ours(directory: Path) -> bool:
    """Return whether only this user can change a directory. Where others can, that is noticed."""
    try:
        found = distrust(directory)
    except OSError as error:
        found = Distrust(directory, f"{directory} cannot be examined ({error.strerror})")
    if found is not None:
        notice(directory, found.why)
    return found is None


def _entries_in(directory: Path) -> list[Entry]:
    """All entries in a kernel's directory that can be read."""
    if not directory.is_dir() or not _is_ours(directory):
        return []
    found = (_entry_at(path) for path in sorted(directory.glob("*.json")))
    return [entry for entry in found if entry is not None]


def _entry_at(path: Path) -> Entry | None:
    """The entry in a file, or None where there is none. A file that holds none is noticed."""
    try:
        content = read_trusted(path)
    except PermissionError as error:
        found = error.args[0]
        notice(path, found.why if isinstance(found, Distrust) else "it cannot be read")
        return None
    except OSError as error:
        notice(path, f"it cannot be read ({error.strerror})")
        return None
    if content is None:
        return None
    try:
        parsed = json.loads(content[:_MOST_BYTES])
        if not isinstance(parsed, dict) or parsed.get("format") != FORMAT:
            raise InvalidValueError("", "it has another format")
        if parsed.get("checksum") != _checksum(_as_text(parsed.get("entry"))):
            raise InvalidValueError("", "its checksum is wrong")
        return _from_json(parsed["entry"])
    except InvalidValueError as error:
        notice(path, str(error))
    except (ValueError, RecursionError):
        notice(path, "it is damaged")
    return None


def _file_content(entry: Entry) -> dict[str, Any]:
    body = _as_json(entry)
    return {"format": FORMAT, "entry": body, "checksum": _checksum(_as_text(body))}


def _as_json(entry: Entry) -> dict[str, Any]:
    fields = {name: getattr(entry, name) for name in Entry.__dataclass_fields__}
    plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in fields.items()}
    return {**plain, "key": entry.key.parts()}


def _from_json(content: Any) -> Entry:
    """The entry that `_as_json` wrote.

    Raises:
        ValueError: the content is something else.
    """
    known = Entry.__dataclass_fields__
    if not isinstance(content, dict) or set(content) != set(known):
        raise InvalidValueError("", "it has other fields than an entry", f"fields: {', '.join(known)}")
    if not isinstance(content["key"], dict):
        raise InvalidValueError("", "its key is no object")
    key = TuningKey.from_parts(content["key"])
    _checked_config(content["config"], key.kernel)
    if content["default"] is not None:
        _checked_config(content["default"], key.kernel)
    speedup = content["speedup"]
    if speedup is not None and not (isinstance(speedup, (list, tuple)) and len(speedup) == 3):
        raise InvalidValueError("", "its speedup has not three numbers")
    times = [content["latency_s"], content["default_latency_s"]]
    numbers = [*(each for each in times if each is not None), *(speedup or ())]
    if not all(type(each) in (int, float) and math.isfinite(each) and each > 0 for each in numbers):
        raise InvalidValueError("", "a time of it is not above 0")
    if not isinstance(content["rounds"], int) or not all(
        isinstance(content[name], str) for name in ("tuned_at", "fusetune")
    ):
        raise InvalidValueError("", "a field of it has another type")
    return Entry(**{**content, "key": key, "speedup": None if speedup is None else tuple(speedup)})


def _checked_config(config: Any, kernel: str) -> None:
    """Raise where something is no launch config."""
    if not isinstance(config, Mapping) or not config:
        raise InvalidValueError(
            f"launch config of '{kernel}'", "it has no parameters", to_do="Give one at least"
        )
    for name, value in config.items():
        if not isinstance(name, str) or not name.isidentifier() or type(value) is not int:
            raise InvalidValueError(
                f"launch config of '{kernel}'", f"{name!r} is {value!r}", "known: names with integers"
            )


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _as_text(content: Any) -> str:
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _write_whole(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file that is whole or not there, whoever else writes it and whenever this process is killed."""
    name = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}{_UNFINISHED}")
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):  # the error of the write is what counts
            os.unlink(name)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _remove_abandoned(directory: Path) -> None:
    """Remove what processes that were killed left behind."""
    for path in directory.glob(f".*{_UNFINISHED}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink()


def _why_not_writable(directory: Path) -> str:
    """Why `have_private` refused a directory, as a clause."""
    try:
        if (found := distrust(directory)) is not None:
            return found.why
    except OSError as error:
        return f"{directory} cannot be examined ({error.strerror})"
    exists = next(path for path in (directory, *directory.parents) if os.path.lexists(path))
    return f"{exists} cannot be written" if exists.is_dir() else f"{exists} is not a directory"
