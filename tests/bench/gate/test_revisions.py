"""Revisions and their worktrees, in repositories that git makes here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusetune.bench.errors import InputError, SetupError
from fusetune.bench.gate.revisions import (
    WORKING_TREE,
    Checkouts,
    Repository,
    Revision,
    checkouts,
    find_repository,
    find_revision,
    find_revisions,
    on_both_sides,
    remove_abandoned,
)
from tests.bench.gate.scratch_repository import clean_environment, commit, git, make_repository, write

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _no_settings_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key.startswith("GIT_")]:
        monkeypatch.delenv(key)
    for key, value in clean_environment().items():
        if key.startswith("GIT_"):
            monkeypatch.setenv(key, value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository with two commits: the second changes `speed` and adds a file."""
    made = make_repository(
        tmp_path / "project", {"spec.yaml": "name: one\n", "speed": "1\n", "old.py": "x = 1\n"}
    )
    git(made, "rm", "--quiet", "old.py")
    commit(made, {"speed": "2\n", "new.py": "x = 2\n"}, "the second")
    return made


@pytest.fixture
def repository(folder: Path) -> Repository:
    return find_repository(folder)


def both(repository: Repository, base: str = "HEAD~1", head: str = "HEAD") -> tuple[Revision, Revision]:
    return find_revisions(repository, base, head)


def worktrees(folder: Path) -> list[str]:
    listed = git(folder, "worktree", "list", "--porcelain").splitlines()
    return [line.removeprefix("worktree ") for line in listed if line.startswith("worktree ")]


def files(folder: Path) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return {str(path) for path in found if path.parts[0] != ".git"}


def nothing_is_left(folder: Path) -> bool:
    left = [path.name for path in (folder / ".git" / "fusetune-gate").iterdir()]
    return worktrees(folder) == [str(folder)] and left == ["lock"]


# What a name stands for


def test_a_revision_has_its_commit_and_subject(folder: Path, repository: Repository) -> None:
    git(folder, "tag", "-a", "v1", "-m", "a tag is an object of its own", "HEAD~1")
    first = git(folder, "rev-parse", "HEAD~1")
    for name in ("v1", "HEAD~1", "main~1", first, first[:10], "refs/tags/v1", ":/the first"):
        assert find_revision(repository, name) == Revision(name, first, False, "the first", "")


def test_the_working_tree_is_dirty_where_tracked_files_differ(folder: Path, repository: Repository) -> None:
    clean = find_revision(repository, WORKING_TREE)
    assert clean == Revision(WORKING_TREE, git(folder, "rev-parse", "HEAD"), False, "the second", "")
    write(folder, {"notes.txt": "untracked"})
    untracked = find_revision(repository, WORKING_TREE)
    assert (untracked.dirty, untracked.changes != "") == (False, True)
    write(folder, {"speed": "3\n"})
    dirty = find_revision(repository, WORKING_TREE)
    assert dirty.dirty
    assert len({clean.changes, untracked.changes, dirty.changes}) == 3
    write(folder, {"speed": "4\n"})
    again = find_revision(repository, WORKING_TREE)
    assert again.changes != dirty.changes
    write(folder, {"speed": "3\n"})
    assert find_revision(repository, WORKING_TREE) == dirty


def test_a_file_that_was_only_touched_is_no_change(folder: Path, repository: Repository) -> None:
    os.utime(folder / "speed", (1, 1))
    assert find_revision(repository, WORKING_TREE).changes == ""


@pytest.mark.parametrize("name", ["mian", "mai", "Main"])
def test_an_unknown_revision_is_told_with_the_closest_branch(repository: Repository, name: str) -> None:
    with pytest.raises(InputError) as error:
        find_revision(repository, name)
    assert str(error.value).startswith(f"--base: unknown revision '{name}'; branches and tags like it: main")
    assert str(error.value).endswith("Did you mean 'main'?")
    assert (error.value.closest, error.value.exit_code) == ("main", 2)


@pytest.mark.parametrize(
    "name", ["", " ", "--all", "-h", "main..HEAD", "HEAD:speed", "a\0b", "HEAD~99", "0" * 40]
)
def test_what_is_no_commit_is_unknown(repository: Repository, name: str) -> None:
    with pytest.raises(InputError, match="unknown revision"):
        find_revision(repository, name)


def test_a_branch_that_only_the_remote_has_is_hinted_at(folder: Path, tmp_path: Path) -> None:
    git(folder, "branch", "release")
    git(tmp_path, "clone", "--quiet", str(folder), "clone")
    with pytest.raises(InputError, match=r"Did you mean 'origin/release'\?$"):
        find_revision(find_repository(tmp_path / "clone"), "release")


def test_a_shallow_clone_without_the_base_says_how_to_fetch_it(folder: Path, tmp_path: Path) -> None:
    first = git(folder, "rev-parse", "HEAD~1")
    git(tmp_path, "clone", "--quiet", "--depth", "1", folder.as_uri(), "shallow")
    repository = find_repository(tmp_path / "shallow")
    for name in ("HEAD~1", first):
        with pytest.raises(InputError, match=r"git fetch --unshallow.*fetch-depth: 0"):
            find_revision(repository, name)
    git(tmp_path / "shallow", "fetch", "--quiet", "--unshallow")
    assert find_revision(repository, "HEAD~1").commit == first


def test_an_ambiguous_name_lists_what_it_can_stand_for(folder: Path, repository: Repository) -> None:
    git(folder, "branch", "fast", "HEAD")
    git(folder, "tag", "fast", "HEAD~1")
    for name in ("fast", "fast~0"):
        with pytest.raises(InputError) as error:
            find_revision(repository, name)
        assert "is ambiguous; it stands for refs/heads/fast, refs/tags/fast." in str(error.value)
    assert find_revision(repository, "refs/tags/fast").subject == "the first"


def test_an_ambiguous_hash_lists_the_commits(folder: Path, repository: Repository) -> None:
    # Of 1500 hashes, two have the same four digits first with probability 1 - exp(-1500^2 / 2^17).
    who = "committer A <a@example.invalid> 1000000000 +0000"
    stream = "".join(f"commit refs/heads/many\n{who}\ndata <<.\nnumber {k}\n.\n" for k in range(1500))
    subprocess.run(["git", "-C", str(folder), "fast-import", "--quiet"], input=stream, text=True, check=True)
    hashes = git(folder, "rev-list", "many").split()
    short = next(name for name, count in Counter(name[:4] for name in hashes).items() if count > 1)
    with pytest.raises(InputError) as error:
        find_revision(repository, short)
    listed = error.value.known.removeprefix("it stands for ").split(", ")
    assert len(listed) > 1
    assert all(any(name.startswith(one) for name in hashes) and one.startswith(short) for one in listed)


def test_nothing_to_compare(folder: Path, repository: Repository) -> None:
    for name in ("main", WORKING_TREE):
        with pytest.raises(InputError, match=r"the same commit .*HEAD~1.*--self-test"):
            find_revisions(repository, "HEAD", name)
    write(folder, {"notes.txt": "untracked"})
    with pytest.raises(InputError, match="the same commit"):
        find_revisions(repository, "HEAD")
    base, head = find_revisions(repository, "HEAD", "HEAD", may_be_same=True)
    assert base.commit == head.commit
    write(folder, {"speed": "3\n"})
    base, head = find_revisions(repository, "HEAD")
    assert (base.commit, base.dirty, head.dirty) == (head.commit, False, True)


# Where there is no repository


def test_a_folder_outside_of_any_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(InputError, match="is not in a git repository") as error:
        find_repository(tmp_path / "no" / "spec.yaml")
    assert error.value.exit_code == 2


def test_a_bare_repository_and_the_inside_of_one(folder: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(folder), "bare.git")
    for place in (tmp_path / "bare.git", folder / ".git"):
        with pytest.raises(InputError, match="without a working tree"):
            find_repository(place)


def test_a_repository_without_commits(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "-b", "main")
    with pytest.raises(InputError, match="no commit yet"):
        find_revision(find_repository(tmp_path), WORKING_TREE)
    with pytest.raises(InputError, match="unknown revision 'HEAD'; there are no branches"):
        find_revision(find_repository(tmp_path), "HEAD")


def test_no_git_program(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder / "nowhere"))
    with pytest.raises(InputError, match="git: is not installed"):
        find_repository(folder)


def test_a_git_that_trusts_no_other_user(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "fatal: detected dubious ownership in repository at '/x'"
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "{said}" >&2\nexit 128\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with pytest.raises(InputError, match=r"safe\.directory"):
        find_repository(folder)


# Paths


def test_a_path_is_relative_to_the_root(
    folder: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, {"a b/c.yaml": "name: c\n"})
    monkeypatch.chdir(folder / "a b")
    assert repository.relative(Path("c.yaml")) == Path("a b/c.yaml")
    assert repository.relative(Path("../new.yaml")) == Path("new.yaml")
    assert find_repository(Path("c.yaml")) == repository


def test_a_repository_behind_a_link_is_the_same(folder: Path, repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert find_repository(tmp_path / "link") == repository
    assert repository.relative(tmp_path / "link" / "spec.yaml") == Path("spec.yaml")


def test_a_path_outside_of_the_repository(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lies outside of the repository; the repository is"):
        repository.relative(tmp_path / "spec.yaml")


def test_a_spec_has_to_be_on_both_sides(folder: Path, repository: Repository) -> None:
    base, head = both(repository)
    assert on_both_sides(repository, folder / "spec.yaml", base, head) == Path("spec.yaml")
    for name, what in {
        "new.py": "is in 'HEAD' but not in 'HEAD~1'",
        "old.py": "is in 'HEAD~1' but not in 'HEAD'",
        "no.py": "is in neither",
        ".": "is in neither",  # a folder is no file
    }.items():
        with pytest.raises(InputError, match=what):
            on_both_sides(repository, folder / name, base, head)


def test_an_untracked_spec_is_in_the_working_tree_alone(folder: Path, repository: Repository) -> None:
    write(folder, {"fresh.yaml": "name: fresh\n"})
    base, head = both(repository, head=WORKING_TREE)
    with pytest.raises(InputError, match="is in 'working tree' but not in 'HEAD~1'"):
        on_both_sides(repository, folder / "fresh.yaml", base, head)


# Worktrees


def test_both_sides_are_checked_out_and_removed(folder: Path, repository: Repository) -> None:
    with checkouts(repository, *both(repository)) as sides:
        assert (sides.base.path / "speed").read_text() == "1\n"
        assert (sides.head.path / "speed").read_text() == "2\n"
        assert files(sides.base.path) == {".git", "spec.yaml", "speed", "old.py"} - {".git"}
        assert git(sides.base.path, "rev-parse", "HEAD") == git(folder, "rev-parse", "HEAD~1")
        assert git(sides.base.path, "branch", "--show-current") == ""
        assert len(str(sides.base.path)) == len(str(sides.head.path))
        assert sides.notes == ()
        assert len(worktrees(folder)) == 3
        write(sides.head.path, {"__pycache__/x.pyc": "whatever a process leaves"})
    assert nothing_is_left(folder)
    assert git(folder, "status", "--porcelain") == ""


def test_the_working_tree_is_copied_as_it_is(folder: Path, repository: Repository) -> None:
    commit(
        folder,
        {".gitignore": "*.log\n", "kept/a": "a", "gone/b": "b", "becomes_folder": "c", "becomes_file/d": "d"},
        "the third",
    )
    write(folder, {"speed": "3\n", "staged.py": "y = 1\n", "deep/er/new.py": "y = 2\n", "x.log": "ignored"})
    git(folder, "add", "staged.py")
    (folder / "gone" / "b").unlink()
    (folder / "becomes_folder").unlink()
    write(folder, {"becomes_folder/in": "it"})
    (folder / "becomes_file" / "d").unlink()
    (folder / "becomes_file").rmdir()
    write(folder, {"becomes_file": "now", "run.sh": "#!/bin/sh\n", "na\nme": "odd"})
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("speed")
    write(folder, {"venv/pyvenv.cfg": "home = /usr", "venv/lib/x.py": "1"})
    with checkouts(repository, *both(repository, "HEAD", WORKING_TREE)) as sides:
        copied = files(sides.head.path)
        expected = files(folder) - {"x.log", "venv/pyvenv.cfg", "venv/lib/x.py"}
        assert copied == expected
        for name in copied:
            assert (sides.head.path / name).read_text() == (folder / name).read_text()
        assert os.readlink(sides.head.path / "link") == "speed"
        assert os.access(sides.head.path / "run.sh", os.X_OK)
        assert not (sides.head.path / "gone").exists()
        write(folder, {"speed": "4\n"})
        assert (sides.head.path / "speed").read_text() == "3\n"
    assert nothing_is_left(folder)


def test_a_large_untracked_file_is_linked(
    folder: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusetune.bench.gate.revisions._LINKED_FROM_BYTES", 100)
    write(folder, {"speed": "3" * 200, "data.npz": "d" * 200})
    with checkouts(repository, *both(repository, "HEAD", WORKING_TREE)) as sides:
        assert os.readlink(sides.head.path / "data.npz") == str(folder / "data.npz")
        assert not (sides.head.path / "speed").is_symlink()
    assert (folder / "data.npz").read_text() == "d" * 200


def test_what_git_does_not_hold_can_be_linked_into_both(folder: Path, repository: Repository) -> None:
    commit(folder, {".gitignore": "data/\n"}, "the third")
    write(folder, {"data/digits.npz": "d"})
    with checkouts(repository, *both(repository), links=("data", "absent", "speed")) as sides:
        for side in (sides.base, sides.head):
            assert (side.path / "data" / "digits.npz").read_text() == "d"
            assert not (side.path / "speed").is_symlink()
            assert not (side.path / "absent").is_symlink()
    assert (folder / "data" / "digits.npz").read_text() == "d"


def test_an_error_removes_them_too(folder: Path, repository: Repository) -> None:
    with pytest.raises(ZeroDivisionError), checkouts(repository, *both(repository)):
        raise ZeroDivisionError
    assert nothing_is_left(folder)


def test_what_forbids_its_removal_is_removed(folder: Path, repository: Repository) -> None:
    with checkouts(repository, *both(repository)) as sides:
        write(sides.base.path, {"build/x": "1"})
        (sides.base.path / "build").chmod(0o500)
    assert nothing_is_left(folder)


def test_a_checkout_that_fails_is_a_failed_setup(folder: Path, repository: Repository) -> None:
    base, _ = both(repository)
    with (
        pytest.raises(SetupError, match="git cannot check it out") as error,
        checkouts(repository, base, Revision("head", "1" * 40)),
    ):
        pass
    assert error.value.exit_code == 4
    assert nothing_is_left(folder)


def test_hooks_of_the_repository_do_not_run(folder: Path, repository: Repository) -> None:
    hook = folder / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {folder}/hook-ran\n")
    hook.chmod(0o755)
    git(folder, "checkout", "--quiet", "-b", "other")
    (folder / "hook-ran").unlink()  # it does run where hooks do
    with checkouts(repository, *both(repository)):
        pass
    assert not (folder / "hook-ran").exists()


def test_a_hooks_environment_leads_git_nowhere_else(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_repository(tmp_path / "other", {"speed": "9\n"})
    before = (other / ".git" / "index").read_bytes()
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    repository = find_repository(folder)
    assert repository.root == folder
    with checkouts(repository, *both(repository)) as sides:
        assert (sides.head.path / "speed").read_text() == "2\n"
    assert (other / ".git" / "index").read_bytes() == before
    assert nothing_is_left(folder)


def test_a_gate_within_a_worktree_of_the_repository(folder: Path, tmp_path: Path) -> None:
    git(folder, "worktree", "add", "--quiet", "-b", "topic", str(tmp_path / "topic"))
    write(tmp_path / "topic", {"speed": "5\n"})
    repository = find_repository(tmp_path / "topic")
    assert (repository.root, repository.git_dir) == (tmp_path / "topic", folder / ".git")
    with checkouts(repository, *both(repository, "main", WORKING_TREE)) as sides:
        assert (sides.base.path / "speed").read_text() == "2\n"
        assert (sides.head.path / "speed").read_text() == "5\n"
    assert worktrees(folder) == [str(folder), str(tmp_path / "topic")]


def test_what_the_checkouts_lack_is_said(folder: Path, tmp_path: Path, repository: Repository) -> None:
    inner = make_repository(tmp_path / "inner")
    git(folder, "-c", "protocol.file.allow=always", "submodule", "add", "--quiet", str(inner), "vendor")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    commit(
        folder, {".gitattributes": "*.bin filter=lfs\n", "w.bin": pointer, "full.bin": "content"}, "the third"
    )
    write(folder, {"speed": "7\n"})
    with checkouts(repository, *both(repository)) as sides:
        assert sides.notes == (
            "Submodules are empty in both checkouts: vendor.",
            "Files of Git LFS are pointers, not content: w.bin. Install git-lfs and fetch them.",
            "Uncommitted changes are not measured: head is 'HEAD'.",
        )


# Gates beside each other, and gates that were killed


def test_gates_in_one_repository_do_not_disturb_each_other(folder: Path, repository: Repository) -> None:
    with checkouts(repository, *both(repository)) as first:
        with checkouts(repository, *both(repository)) as second:
            assert first.folder != second.folder
            assert (first.base.path / "speed").read_text() == "1\n"
            assert len(worktrees(folder)) == 5
        assert (first.base.path / "speed").read_text() == "1\n"
        assert remove_abandoned(repository) == ()
        assert len(worktrees(folder)) == 3
    assert nothing_is_left(folder)


GATE = """
    import sys, time
    from pathlib import Path
    from fusetune.bench.gate.revisions import checkouts, find_repository, find_revisions

    repository = find_repository(Path(sys.argv[1]))
    try:
        with checkouts(repository, *find_revisions(repository, "HEAD~1", "HEAD")) as sides:
            print(sides.folder, flush=True)
            time.sleep(600)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.exit(130)
"""


def start_gate(folder: Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(GATE), str(folder)],
        cwd=ROOT / "src",
        env={**clean_environment(), **variables},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def gate(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has both sides checked out, and sleeps."""
    process = start_gate(folder)
    yield process
    process.kill()
    process.communicate()


def started(gate: subprocess.Popen[str]) -> Path:
    assert gate.stdout is not None
    return Path(gate.stdout.readline().strip())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_gate_removes_its_worktrees(
    folder: Path, gate: subprocess.Popen[str], number: signal.Signals
) -> None:
    assert (started(gate) / "head" / "speed").read_text() == "2\n"
    gate.send_signal(number)
    assert gate.communicate(timeout=60)[0] == "interrupted\n"
    assert gate.returncode == 130
    assert nothing_is_left(folder)


def git_that_sends(signal_name: str, tmp_path: Path) -> str:
    """Return a PATH whose git sends its caller a signal before it checks head out, and waits for a file named go."""
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *"worktree add"*/head\\ *) kill -{signal_name} $PPID; '
        f'while [ ! -e "{tmp_path}/go" ]; do sleep 0.05; done;; esac\n'
        f'exec "{shutil.which("git")}" "$@"\n'
    )
    fake.chmod(0o755)
    return f"{fake.parent}:{os.environ['PATH']}"


def test_an_interruption_of_a_checkout_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    interrupted = start_gate(folder, PATH=git_that_sends("INT", tmp_path))
    assert interrupted.communicate(timeout=60)[0] == "interrupted\n"
    assert nothing_is_left(folder)


def test_a_git_that_outlives_its_gate_is_waited_for(
    folder: Path, tmp_path: Path, repository: Repository
) -> None:
    start_gate(folder, PATH=git_that_sends("KILL", tmp_path)).communicate(timeout=60)
    [left] = [path for path in (folder / ".git" / "fusetune-gate").iterdir() if path.is_dir()]
    assert remove_abandoned(repository) == ()  # git is at work in it
    (tmp_path / "go").touch()
    deadline = time.monotonic() + 60
    while remove_abandoned(repository) != (left,):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert nothing_is_left(folder)


def test_gits_own_prune_forgets_what_a_killed_gate_left(folder: Path, gate: subprocess.Popen[str]) -> None:
    left = started(gate)
    gate.kill()
    gate.wait()
    shutil.rmtree(left)
    git(folder, "worktree", "prune")
    assert nothing_is_left(folder)


def test_what_a_killed_gate_left_is_removed_by_the_next(
    folder: Path, repository: Repository, gate: subprocess.Popen[str]
) -> None:
    git(folder, "worktree", "add", "--quiet", "--detach", str(folder.parent / "mine"))
    left = started(gate)
    with checkouts(repository, *both(repository)):
        assert left.is_dir()  # its owner is alive
    gate.kill()
    gate.wait()
    assert (left / "base" / "speed").exists()
    assert len(worktrees(folder)) == 4
    with checkouts(repository, *both(repository)) as sides:
        assert not left.exists()
        assert len(worktrees(folder)) == 4
        assert (sides.base.path / "speed").exists()
    assert worktrees(folder) == [str(folder), str(folder.parent / "mine")]


def test_a_missing_worktree_of_the_user_is_kept(folder: Path, repository: Repository) -> None:
    """`git worktree prune` would forget it: it may lie on a disk that is not mounted now."""
    git(folder, "worktree", "add", "--quiet", "--detach", str(folder.parent / "mine"))
    (folder.parent / "mine").rename(folder.parent / "unmounted")
    with checkouts(repository, *both(repository)):
        pass
    assert worktrees(folder) == [str(folder), str(folder.parent / "mine")]


def test_what_was_half_made_is_removed(folder: Path, repository: Repository) -> None:
    with checkouts(repository, *both(repository)):
        pass
    ours = folder / ".git" / "fusetune-gate"
    for name in ("00000000", "11111111", "22222222"):
        (ours / name).mkdir()
    git(folder, "worktree", "add", "--quiet", "--detach", str(ours / "11111111" / "base"))
    (ours / "11111111" / "base" / ".git").unlink()
    git(folder, "worktree", "add", "--quiet", "--detach", str(ours / "22222222" / "head"))
    git(folder, "worktree", "lock", str(ours / "22222222" / "head"))
    write(ours / "mine", {"x": "a person's own"})
    assert [path.name for path in remove_abandoned(repository)] == ["00000000", "11111111", "22222222"]
    assert worktrees(folder) == [str(folder)]
    assert (ours / "mine" / "x").exists()


def test_the_folders_can_lie_elsewhere(folder: Path, repository: Repository, tmp_path: Path) -> None:
    where = tmp_path / "else where"
    with checkouts(repository, *both(repository), where) as sides:
        assert isinstance(sides, Checkouts)
        assert sides.base.path.is_relative_to(where)
        assert (sides.base.path / "speed").read_text() == "1\n"
    assert [path.name for path in where.iterdir()] == ["lock"]
    assert worktrees(folder) == [str(folder)]


def test_a_folder_that_cannot_be_made_is_a_failed_setup(repository: Repository, folder: Path) -> None:
    with (
        pytest.raises(SetupError, match="cannot be made"),
        checkouts(repository, *both(repository), folder / "speed"),
    ):
        pass
