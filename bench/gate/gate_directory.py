"""A gate on disk, so that killing it at any moment loses at most the pair in flight.

results/gate/.gitignore  keeps gates out of git, for an untracked file is a change of the working tree
results/gate/<id>/
    gate.json        what is compared: both commits, the spec's text, the options. Whole or not at all
    pairs.jsonl      one line a finished pair, on the disk before the next one starts
    result.json      the verdicts, once there are any
    lock             held by the gate that writes here. The kernel frees it when that process dies
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusetune.bench.errors import RunDirectoryError, unusable
from fusetune.bench.gate.measured import Pair
from fusetune.bench.path_checks import entries, is_file
from fusetune.bench.results import LineFile, acquire_lock, lock_for_appending, make_unique, write_whole
from fusetune.bench.spec import difference
from fusetune.bench.terminal import invocation

VERSION = 1
_FOLDER = "gate"
_IGNORE = ".gitignore"
_GATE = "gate.json"
_PAIRS = "pairs.jsonl"
_RESULT = "result.json"


class GateDirectory:
    """The directory of one gate, open for appending. Use it in a `with` block.

    Args:
        path: the directory.
        content: of gate.json.
        lock: the descriptor that holds the lock; None: there is none yet.

    Example:
        >>> import tempfile
        >>> from fusetune.bench.gate.measured import Measured
        >>> content = {"title": "digits.yaml", "request": {"spec": "digits.yaml"}, "seed": 1}
        >>> with tempfile.TemporaryDirectory() as results:
        ...     with GateDirectory.create(Path(results), content) as directory:
        ...         directory.append([Pair("digits", 0, Measured(), Measured())])
        ...     with GateDirectory.resume(directory.path) as again:
        ...         [pair.benchmark for pair in again.pairs()]
        ['digits']
    """

    def __init__(self, path: Path, content: dict[str, Any], lock: int | None = None) -> None:
        self.path = path
        self.content = content
        self.notes: list[str] = []
        self._lock = lock
        self._file = LineFile(
            path / _PAIRS,
            "a pair of a gate",
            "Remove the line, and the pair will be made again.",
            go_on=self.resume_command,
        )

    @classmethod
    def create(cls, results: Path, content: Mapping[str, Any]) -> GateDirectory:
        """Make a directory under `results/gate/`, lock it and write gate.json.

        Args:
            results: made if it is missing.
            content: of gate.json. `schema_version` and `gate_id` are added.

        Raises:
            RunDirectoryError: the disk is full or the directory cannot be written.
        """
        parent = results / _FOLDER
        path: Path | None = None
        try:
            parent.mkdir(parents=True, exist_ok=True)
            if not (parent / _IGNORE).exists():
                write_whole(parent / _IGNORE, b"*\n")
            path = make_unique(parent)
            directory = cls(
                path, {"schema_version": VERSION, "gate_id": path.name, **content}, acquire_lock(path)
            )
            directory.describe({})
        except BaseException as error:
            if path is not None:
                shutil.rmtree(path, ignore_errors=True)
            if isinstance(error, OSError):
                raise unusable(parent, error) from error
            raise
        return directory

    @classmethod
    def resume(cls, path: Path) -> GateDirectory:
        """Open a directory to go on, lock it, and cut off a line that was being written at a crash.

        Raises:
            RunDirectoryError: no gate is there, or it is in use, broken, of a later version, or not writable.
        """
        directory = cls(path, read_gate(path))
        directory._lock, note = lock_for_appending(directory._file)
        directory.notes += [note] if note else []
        return directory

    def __enter__(self) -> GateDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def resume_command(self) -> str:
        """The command that goes on with this gate."""
        return f"{invocation()} gate --resume {shlex.quote(str(self.path))}"

    def describe(self, more: Mapping[str, Any]) -> None:
        """Add to gate.json what has become known, such as the machine. Nothing is written where nothing is new.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        if more and all(self.content.get(key) == value for key, value in more.items()):
            return
        self.content.update(more)
        try:
            _write(self.path / _GATE, self.content)
        except OSError as error:
            raise unusable(self.path, error, go_on=self.resume_command) from error

    def append(self, pairs: Sequence[Pair]) -> None:
        """Write pairs. When this returns, they are on the disk.

        Raises:
            RunDirectoryError: the disk is full or the file cannot be written.
        """
        self._file.append([pair.as_dict() for pair in pairs])

    def pairs(self) -> list[Pair]:
        """Return the finished pairs.

        Raises:
            RunDirectoryError: a line is no pair. The message names it.
        """
        lines, _ = self._file.lines()
        pairs: list[Pair] = [
            self._file.parse(number, line, _pair) for number, line in enumerate(lines, start=1)
        ]
        return pairs

    def write_result(self, content: Mapping[str, Any]) -> None:
        """Write result.json.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        try:
            _write(self.path / _RESULT, content)
        except OSError as error:
            raise unusable(self.path, error, go_on=self.resume_command) from error

    def check_unchanged(self, now: Mapping[str, Any]) -> None:
        """Refuse to go on with a gate that compares something else by now.

        Args:
            now: keys of gate.json with the values of today.

        Raises:
            RunDirectoryError: names the differences.
        """
        as_read = json.loads(json.dumps(now))
        changes = difference({key: self.content.get(key) for key in as_read}, as_read)
        if changes:
            raise RunDirectoryError(
                self.path,
                "cannot be continued",
                f"what it compares has changed: {'; '.join(changes)}",
                "Undo the change, or start a new gate.",
            )

    def remove_if_empty(self) -> None:
        """Remove a gate without pairs, as if it had never been begun."""
        if (self.path / _PAIRS).exists():
            return
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)
        parent = self.path.parent
        if [path.name for path in entries(parent)] == [_IGNORE]:
            with contextlib.suppress(OSError):  # other gates and runs may be there
                (parent / _IGNORE).unlink()
                parent.rmdir()
                parent.parent.rmdir()


def read_gate(path: Path) -> dict[str, Any]:
    """Return the content of gate.json.

    Raises:
        RunDirectoryError: no gate is there, or it is broken or of a later version.
    """
    file = path / _GATE
    if not is_file(file):
        raise RunDirectoryError(
            path, "no gate is there", f"a gate's directory holds {_GATE}", "Give results/gate/<id>/."
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise unusable(file, error) from error
    except (ValueError, RecursionError) as error:
        raise broken_gate(path, str(error)) from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int):
        raise broken_gate(path, "it has no schema_version")
    if version > VERSION:
        raise RunDirectoryError(
            file,
            f"schema_version {version} is newer than this program",
            f"known: up to {VERSION}",
            "Update fusetune.",
        )
    for key in ("request", "seed"):
        if key not in content:
            raise broken_gate(path, f"it has no {key}")
    return dict(content)


def broken_gate(path: Path, why: str) -> RunDirectoryError:
    """Return the error for a gate.json that no gate has written."""
    return RunDirectoryError(path / _GATE, "is broken", why, "Restore it, or start a new gate.")


def sha256(content: bytes) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _pair(content: Any) -> Pair:
    """Rebuild a pair. What is missing is a ValueError, as in every file of lines."""
    try:
        return Pair.from_dict(content)
    except (KeyError, AttributeError) as error:
        raise ValueError(f"without {error}") from None


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_whole(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
