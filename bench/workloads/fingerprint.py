"""Fingerprints of a run's data, so that a run is not continued, or read, as one of other data."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fusetune.bench.errors import InputError
from fusetune.bench.path_checks import is_file
from fusetune.bench.spec import Source
from fusetune.bench.workloads import cifar10
from fusetune.bench.workloads.image_folder import find_images

Fingerprint = dict[str, Any]

# Above this number of files, each folder is summarised: nobody reads a listing of a million.
MOST_LISTED = 500
_CHUNK_BYTES = 2**20
_MOST_SHOWN = 6
_SHORT = 12
_NONE = "(none)"


def fingerprint_all(sources: Iterable[Source], spec_dir: Path) -> Fingerprint:
    """Return the fingerprint of a run's data as JSON values: one entry for each source, by name and path.

    Args:
        sources: from `bench.workloads.datasets.locate`.
        spec_dir: paths are relative to it, so that a folder with spec and data can be moved.

    Raises:
        InputError: a file cannot be read.
    """
    found: Fingerprint = {}
    for source in sources:
        path = f" {os.path.relpath(source.path, spec_dir.resolve())}" if source.path else ""
        parameters = json.loads(json.dumps(_parameters(source), sort_keys=True, default=str))
        shown = "".join(f" {key}={json.dumps(value)}" for key, value in parameters.items())
        if (key := f"{source.name}{path}{shown}") not in found:
            found[key] = fingerprint(source, spec_dir)
    return found


def fingerprint(source: Source, spec_dir: Path) -> Fingerprint:
    """Return what one source's data are.

    Returns:
        Names to sizes and SHA-256 of contents: `{"a.npz": {"bytes": 1234, "sha256": "..."}}`. Empty for data that
        come from parameters alone, which stand in the spec. Of more than 500 files, those of a folder are summed up:
        their number, their bytes, and a hash of their names, sizes and hashes.

    Raises:
        InputError: a file cannot be read.
    """
    root = Path(source.path) if source.path else spec_dir
    files = _files(source, spec_dir)
    each = {name: _of_file(path, source.where) for name, path in files.items()}
    if len(each) <= MOST_LISTED:
        return each
    folders: dict[str, dict[str, Any]] = {}
    for name, entry in each.items():
        folders.setdefault(f"{os.path.dirname(name) or root.name}/", {})[name] = entry
    return {
        folder: {
            "files": len(entries),
            "bytes": sum(entry["bytes"] for entry in entries.values()),
            "sha256": hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest(),
        }
        for folder, entries in folders.items()
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the differences between the data of two runs, one line a file. Empty where they are equal.

    Example:
        >>> old = {"npz a.npz": {"a.npz": {"bytes": 10, "sha256": "aa" * 32}}}
        >>> new = {"npz a.npz": {"a.npz": {"bytes": 12, "sha256": "bb" * 32}}}
        >>> differences(old, new)
        ['a.npz: 10 bytes, sha256 aaaaaaaaaaaa -> 12 bytes, sha256 bbbbbbbbbbbb']
        >>> differences(old, old)
        []
    """
    lines = []
    for key in dict.fromkeys([*then, *now]):
        if key not in then or key not in now:
            lines.append(f"{key}: {'is new' if key not in then else 'is gone'}")
            continue
        old, new = then[key], now[key]
        lines += [
            f"{name}: {_shown(old.get(name))} -> {_shown(new.get(name))}"
            for name in dict.fromkeys([*old, *new])
            if old.get(name) != new.get(name)
        ]
    return (
        [*lines[:_MOST_SHOWN], f"... and {len(lines) - _MOST_SHOWN} more"]
        if len(lines) > _MOST_SHOWN
        else lines
    )


def _shown(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return _NONE
    files = f"{entry['files']} files, " if "files" in entry else ""
    return f"{files}{entry.get('bytes')} bytes, sha256 {str(entry.get('sha256'))[:_SHORT]}"


def _parameters(source: Source) -> dict[str, Any]:
    """Return the parameters of data that no file contains."""
    return {} if source.name == "folder" and not source.is_factory else dict(source.options)


def _files(source: Source, spec_dir: Path) -> dict[str, Path]:
    """Return the files of a source's data, by name."""
    if source.is_factory:
        return _files_of_options(source, spec_dir)
    if source.path is None:
        return {}
    path = Path(source.path)
    if source.name == "cifar10":
        return {name: path / name for name in cifar10.FILES}
    if source.name != "folder":
        return {path.name: path}
    labels = source.options.get("labels")
    listed = find_images(path, Path(labels) if labels else None, source.where).files
    named = {os.path.relpath(file, path): file for file in listed}
    return {**named, **({Path(labels).name: Path(labels)} if labels else {})}


def _files_of_options(source: Source, spec_dir: Path) -> dict[str, Path]:
    """Return the files that a factory gets by name. Files that it reads by itself are not known."""
    found = {}
    for key, value in source.options.items():
        if isinstance(value, str):
            for candidate in (Path(value), spec_dir / value):
                if is_file(candidate):
                    found[f"{key}={value}"] = candidate
    return found


def _of_file(path: Path, where: str) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise InputError(
            f"{where}: {path}", "cannot be read", str(error.strerror), "Check its permissions"
        ) from None
    return {"bytes": size, "sha256": digest.hexdigest()}
