"""A gate or a self-test as it lies on the disk, read to be shown again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusetune.bench.errors import RunDirectoryError, unusable
from fusetune.bench.gate.gate_directory import GateDirectory, broken_gate, read_gate
from fusetune.bench.gate.json_text import from_json
from fusetune.bench.gate.measured import Pair
from fusetune.bench.gate.result import GateResult
from fusetune.bench.gate.self_test import SelfTest
from fusetune.bench.path_checks import is_file
from fusetune.bench.stats import counted

_GATE = "gate.json"
_RESULT = "result.json"


@dataclass(frozen=True)
class StoredGate:
    """What lies in a gate's directory.

    Args:
        path: the directory.
        content: of gate.json.
        pairs: finished ones.
        result: what it came to. None: it has no verdicts yet.
    """

    path: Path
    content: Mapping[str, Any]
    pairs: tuple[Pair, ...]
    result: GateResult | SelfTest | None

    @property
    def title(self) -> str:
        """What was gated: a spec's path, or a command."""
        return str(self.content.get("title") or "gate")

    @property
    def is_self_test(self) -> bool:
        """Whether a revision is compared with itself."""
        return self.content["request"].get("self_test_s") is not None

    @property
    def resume_command(self) -> str | None:
        """The command that goes on with it. None: a self-test is not continued."""
        return None if self.is_self_test else GateDirectory(self.path, dict(self.content)).resume_command

    @property
    def go_on(self) -> str:
        """A sentence that says what to do about a gate without verdicts."""
        if self.resume_command is None:
            return f"A self-test cannot be continued. Start it anew with `{self.command}`."
        return f"Continue with `{self.resume_command}`."

    @property
    def unfinished(self) -> str:
        """What is said of a gate without verdicts."""
        return f"No verdict yet: {self._finished}."

    def status(self, *, is_running: bool) -> str:
        """Return what its page says of a gate without verdicts. Empty: it has verdicts.

        Args:
            is_running: whether its process lives.
        """
        if self.result is not None:
            return ""
        return f"Running: {self._finished}." if is_running else f"Interrupted: {self._finished}. {self.go_on}"

    @property
    def _finished(self) -> str:
        return f"{counted(len(self.pairs), 'pair')} {'is' if len(self.pairs) == 1 else 'are'} finished"

    @property
    def command(self) -> str:
        """The command that makes such a gate again."""
        asked: Mapping[str, Any] = self.content["request"]
        words = ["python", "-m", "bench", "gate"]
        words += [asked["spec"]] if asked.get("spec") else ["--command", asked.get("command") or ""]
        if self.is_self_test:
            words += ["--self-test", "--minutes", f"{asked['self_test_s'] / 60:g}"]
        elif asked.get("base"):
            words += ["--base", asked["base"]]
        if asked.get("head", "working tree") != "working tree":
            words += ["--head", asked["head"]]
        for text in asked.get("configurations") or ():
            words += ["--configuration", text]
        for text in asked.get("overrides") or ():
            words += ["--set", text]
        if asked.get("budget_s") is not None:
            words += ["--budget", f"{asked['budget_s']:g}s"]
        return shlex.join(words)


def is_gate(path: Path) -> bool:
    """Whether a gate's directory is there."""
    return is_file(path / _GATE)


def read_stored_gate(path: Path) -> StoredGate:
    """Read a gate's directory. Nothing is locked or changed.

    Args:
        path: with gate.json.

    Raises:
        RunDirectoryError: no gate is there, or a file is broken or of a later version.
    """
    content = read_gate(path)
    if not isinstance(content["request"], dict):
        raise broken_gate(path, "its request is no object")
    pairs = tuple(GateDirectory(path, content).pairs())
    return StoredGate(path, content, pairs, _result(path))


def _result(path: Path) -> GateResult | SelfTest | None:
    file = path / _RESULT
    if not is_file(file):
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["kind"] == "self-test":
            return SelfTest.from_dict({**found, "directory": str(path)})
        return from_json({**found, "directory": str(path)})
    except OSError as error:
        raise unusable(file, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"without {error}" if isinstance(error, KeyError) else str(error)
        to_do = "Remove it, and `bench gate --resume` writes it again."
        raise RunDirectoryError(file, "is broken", why, to_do) from error
