"""Which revision a gate compares with where nobody names one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusetune.bench.errors import InputError
from fusetune.bench.gate.revisions import default_base, find_repository
from tests.bench.gate.scratch_repository import commit, git, make_repository


@pytest.fixture(autouse=True)
def _no_pull_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_BASE_REF", raising=False)


def on_a_branch(folder: Path, default: str = "main") -> tuple[Path, str]:
    """Return a repository with a branch that left the default branch one commit ago, and where it did."""
    make_repository(folder)
    left = git(folder, "rev-parse", "HEAD")
    git(folder, "branch", "-m", default)
    git(folder, "checkout", "--quiet", "-b", "mine")
    commit(folder, {"a": "1"}, "mine")
    git(folder, "checkout", "--quiet", default)
    commit(folder, {"b": "1"}, "goes on")
    git(folder, "checkout", "--quiet", "mine")
    return folder, left


@pytest.mark.parametrize("default", ["main", "master"])
def test_it_is_where_the_branch_left_main(tmp_path: Path, default: str) -> None:
    folder, left = on_a_branch(tmp_path, default)
    repository = find_repository(folder)
    assert default_base(repository) == (left, f"merge base with {default}")
    assert default_base(repository, "mine") == (left, f"merge base with {default}")


def test_the_default_branch_is_that_of_the_remote(tmp_path: Path) -> None:
    folder, left = on_a_branch(tmp_path / "origin", "trunk")
    git(folder, "checkout", "--quiet", "trunk")
    git(tmp_path, "clone", "--quiet", "origin", "clone")
    git(tmp_path / "clone", "checkout", "--quiet", "mine")
    assert default_base(find_repository(tmp_path / "clone")) == (left, "merge base with origin/trunk")


def test_a_pull_request_is_compared_with_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = on_a_branch(tmp_path / "origin")
    git(folder, "checkout", "--quiet", "-b", "release", "mine")
    target = commit(folder, {"c": "1"}, "release")
    git(tmp_path, "clone", "--quiet", "origin", "clone")
    git(tmp_path / "clone", "checkout", "--quiet", "-b", "fix", "origin/release")
    commit(tmp_path / "clone", {"d": "1"}, "fix")
    monkeypatch.setenv("GITHUB_BASE_REF", "release")
    assert default_base(find_repository(tmp_path / "clone")) == (target, "merge base with origin/release")


def test_without_a_default_branch_one_must_be_named(tmp_path: Path) -> None:
    folder, _ = on_a_branch(tmp_path, "elsewhere")
    with pytest.raises(InputError, match="--base: is missing, and no default branch is known") as caught:
        default_base(find_repository(folder))
    assert caught.value.to_do == "Write it like --base main"


def test_a_branch_without_a_common_commit_is_bad_input(tmp_path: Path) -> None:
    folder, _ = on_a_branch(tmp_path)
    git(folder, "checkout", "--quiet", "--orphan", "new")
    commit(folder, {"e": "1"}, "an own root")
    with pytest.raises(InputError, match="'main' and working tree have no common ancestor here"):
        default_base(find_repository(folder))
