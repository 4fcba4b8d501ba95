"""Repositories for tests: made by git in a temporary folder, with no setting of the person who runs the tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

IDENTITY = {
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.invalid",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.invalid",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}


def clean_environment() -> dict[str, str]:
    """Return the environment of this process with an identity for commits, and without another repository's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return kept | IDENTITY


def git(folder: Path, *arguments: str) -> str:
    """Run git and return what it prints, without the end of the last line. Its failure fails the test."""
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def make_repository(folder: Path, files: dict[str, str] | None = None) -> Path:
    """Make a repository with branch `main` and one commit."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "--quiet", "-b", "main")
    commit(folder, files or {"spec.yaml": "name: one\n"}, "the first")
    return folder


def commit(folder: Path, files: dict[str, str], subject: str) -> str:
    """Write files, commit everything, and return the hash."""
    write(folder, files)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", subject)
    return git(folder, "rev-parse", "HEAD")
