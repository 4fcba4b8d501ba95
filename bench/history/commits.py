"""What git says of the code that a run measured, and of the commits between two runs."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fusetune.bench.errors import InputError
from fusetune.bench.gate import find_repository, run_git

_HASH = re.compile(r"[0-9a-f]{40,64}")


@dataclass(frozen=True)
class CommitFacts:
    """The commit that was measured. All are None where the folder is in no repository, or there is no git.

    Args:
        commit: full hash.
        time: of the commit, ISO 8601 with its time zone.
        subject: first line of its message.
        dirty: whether tracked files differ from it.
    """

    commit: str | None = None
    time: str | None = None
    subject: str | None = None
    dirty: bool | None = None


def commit_facts(folder: Path, apart_from: Path | None = None, revision: str = "HEAD") -> CommitFacts:
    """Return what is checked out in the repository that a folder lies in.

    Args:
        folder: need not exist.
        apart_from: a folder whose changes do not count, such as the history itself.
        revision: another commit than HEAD. It is taken as clean.
    """
    try:
        root = find_repository(folder).root
    except InputError:
        return CommitFacts()
    # Each on its own line; a subject may hold anything but a line end.
    shown = run_git(root, "show", "--no-patch", "--no-show-signature", "--format=%H%n%cI%n%s", revision, "--")
    if shown.code:
        return CommitFacts()
    commit, time, subject = shown.text.removesuffix("\n").split("\n", 2)
    dirty = False
    if revision == "HEAD":
        without = []
        if apart_from is not None:
            inside = Path(os.path.realpath(apart_from))
            without = (
                [f":(top,exclude){inside.relative_to(root).as_posix()}"] if _is_below(inside, root) else []
            )
        status = run_git(root, "status", "--porcelain", "--untracked-files=no", "--", ":(top)", *without)
        dirty = bool(status.text.strip())
    return CommitFacts(commit, time.replace("Z", "+00:00"), subject, dirty)


class CommitCounter:
    """Counts the commits between two runs. Each pair is asked for once.

    Args:
        folder: in the repository of the commits. Nothing is known where it is in none.
    """

    def __init__(self, folder: Path) -> None:
        self._root: Path | None = None
        with suppress(InputError):
            self._root = find_repository(folder).root
        self._known: dict[tuple[str, str], int | None] = {}

    def __call__(self, first: str | None, last: str | None) -> int | None:
        """Return how many commits are in the history of `last` and not in that of `first`; None: not known."""
        if self._root is None or not (first and last and _HASH.fullmatch(first) and _HASH.fullmatch(last)):
            return None
        if first == last:
            return 0
        if (first, last) not in self._known:
            counted = run_git(self._root, "rev-list", "--count", f"{first}..{last}", "--").text.strip()
            self._known[first, last] = int(counted) if counted.isdigit() else None
        return self._known[first, last]


def _is_below(path: Path, root: Path) -> bool:
    return path != root and path.is_relative_to(root)
