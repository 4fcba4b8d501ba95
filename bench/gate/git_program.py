"""The git program, run so that neither hooks nor the environment of another repository change what it says."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fusetune.bench.errors import InputError

# What git's hooks set, and what would lead git to another repository. See `git rev-parse --local-env-vars`.
_OF_ONE_REPOSITORY = {
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_DIR",
    "GIT_EXTERNAL_DIFF",
    "GIT_GLOB_PATHSPECS",
    "GIT_GRAFT_FILE",
    "GIT_ICASE_PATHSPECS",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_LITERAL_PATHSPECS",
    "GIT_NAMESPACE",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_TRACE",
    "GIT_WORK_TREE",
}
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.quotePath=false",
    "core.warnAmbiguousRefs=true",
    "submodule.recurse=false",
    "diff.ignoreSubmodules=dirty",
    "gc.auto=0",
)


@dataclass(frozen=True)
class GitAnswer:
    """What git said: its exit code, standard output and standard error."""

    code: int
    text: str
    error: str


def run_git(directory: Path, *arguments: str, hold: int | None = None) -> GitAnswer:
    """Run git in a directory, with the environment of no other repository and without hooks.

    Args:
        directory: an existing folder.
        arguments: of git.
        hold: a descriptor that git keeps open, so that the lock on it outlasts a kill of this process.

    Raises:
        InputError: there is no git program.
    """
    environment = {key: value for key, value in os.environ.items() if key not in _OF_ONE_REPOSITORY}
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *settings, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            check=False,
            # Ctrl-C of a terminal is for this process, which ends git itself, or lets it finish a removal.
            start_new_session=True,
            pass_fds=() if hold is None else (hold,),
        )
    except FileNotFoundError as error:
        raise InputError(
            "git",
            "is not installed, or not on the PATH",
            to_do="Install it.",
        ) from error
    return GitAnswer(done.returncode, os.fsdecode(done.stdout), done.stderr.decode(errors="replace"))
