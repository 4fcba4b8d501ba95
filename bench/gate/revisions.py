"""The two revisions of a gate: named by git, and checked out side by side in worktrees that are always removed.

    <git directory>/fusetune-gate/
        lock             held while a folder is made or removed
        <id>/owner.lock  held by the gate that uses the folder. The kernel frees it when that process dies
        <id>/base        worktrees with a detached HEAD
        <id>/head

A gate that was killed leaves its folder. The next gate in the repository finds its lock free and removes it.
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fusetune.bench.errors import InputError, SetupError
from fusetune.bench.gate.git_program import GitAnswer
from fusetune.bench.gate.git_program import run_git as _git
from fusetune.bench.interrupts import interrupts_deferred, terminate_as_interrupt
from fusetune.closest_name import closest

WORKING_TREE = "working tree"
_FOLDER = "fusetune-gate"
_LOCK = "lock"
_OWNER = "owner.lock"
_NAMES_SHOWN = 5
# An untracked file from this size on is data: a link to it stands in the checkout.
_LINKED_FROM_BYTES = 64 * 2**20
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_NO_ANSWER = GitAnswer(128, "", "")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True)
class Repository:
    """A repository with a working tree.

    Args:
        root: the top of the working tree.
        git_dir: the directory that all worktrees of the repository share, mostly `.git`.
    """

    root: Path
    git_dir: Path

    def relative(self, path: Path) -> Path:
        """Return a path relative to the root.

        Args:
            path: absolute, or relative to the current directory. It need not exist.

        Raises:
            InputError: it lies outside of the repository.
        """
        # The last part may be a link. What it leads to is read from each checkout.
        whole = (
            Path(os.path.realpath(path.parent), path.name) if path.name not in ("", "..") else path.resolve()
        )
        if whole.is_relative_to(self.root):
            return whole.relative_to(self.root)
        raise InputError(
            path,
            "lies outside of the repository",
            f"the repository is {self.root}",
            "Name a file that both revisions can hold.",
        )


@dataclass(frozen=True)
class Revision:
    """What one side of a gate is.

    Args:
        name: as a person gave it, such as `main`, or `working tree`.
        commit: full hash. Of the working tree: its HEAD.
        dirty: whether tracked files differ from the commit. False for all but the working tree.
        subject: first line of the commit's message.
        changes: SHA-256 of what differs from the commit, untracked files included. Empty where nothing does.
    """

    name: str
    commit: str
    dirty: bool = False
    subject: str = ""
    changes: str = ""


@dataclass(frozen=True)
class Checkout:
    """A revision on disk.

    Args:
        revision: what is checked out.
        path: the top of its worktree.
    """

    revision: Revision
    path: Path


@dataclass(frozen=True)
class Checkouts:
    """Both sides on disk.

    Args:
        repository: where they come from.
        base, head: the two sides.
        folder: holds both worktrees. Whatever else is put there is removed with them.
        notes: what a reader must know of them, a sentence each.
    """

    repository: Repository
    base: Checkout
    head: Checkout
    folder: Path
    notes: tuple[str, ...] = ()


def find_repository(path: Path) -> Repository:
    """Return the repository that a path lies in.

    Args:
        path: a folder, or a file in one. It need not exist.

    Raises:
        InputError: there is no git program, the path is in no repository, or in a bare one, or git does not trust it.
    """
    start = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
    kind = _git(start, "rev-parse", "--is-bare-repository", "--is-inside-work-tree")
    if kind.code:
        if "dubious ownership" in kind.error:
            raise InputError(
                start,
                "git does not trust this repository",
                "it belongs to another user",
                f"Run `git config --global --add safe.directory {start}`.",
            )
        raise InputError(
            start,
            "is not in a git repository",
            to_do="Run the gate in a clone, or name a spec that lies in one.",
        )
    if kind.text.split() != ["false", "true"]:
        raise InputError(
            start,
            "is a git repository without a working tree",
            to_do="Clone it, and run the gate in the clone.",
        )
    root, shared = (
        _git(start, "rev-parse", what).text.removesuffix("\n")
        for what in ("--show-toplevel", "--git-common-dir")
    )
    return Repository(Path(os.path.realpath(root)), Path(os.path.realpath(start / shared)))


def find_revision(repository: Repository, name: str, where: str = "--base") -> Revision:
    """Return the revision that a name stands for.

    Args:
        repository: where to look.
        name: anything that git takes for one commit, such as `main`, `v1.2`, `HEAD~3` or a hash, or `working tree`.
        where: what the name was given for, for messages.

    Raises:
        InputError: unknown, ambiguous, or beyond the end of a shallow clone. The message has the closest branches.
    """
    if name == WORKING_TREE:
        return _working_tree(repository, where)
    # `:/text` takes all that follows as text, and is a commit by itself.
    as_commit = name if name.startswith(":/") else f"{name}^{{commit}}"
    found = _git(repository.root, "rev-parse", "--verify", as_commit) if _can_be_name(name) else _NO_ANSWER
    if "is ambiguous" in found.error:
        raise InputError(
            where,
            f"'{name}' is ambiguous",
            f"it stands for {_meanings(repository, name, found.error)}",
            "Write one of them in full.",
        )
    commit = found.text.strip()
    if found.code or not _COMMIT.fullmatch(commit):
        raise _unknown(repository, name, where)
    return Revision(name, commit, subject=_subject(repository, commit))


def find_revisions(
    repository: Repository, base: str, head: str = WORKING_TREE, *, may_be_same: bool = False
) -> tuple[Revision, Revision]:
    """Return the revisions of both sides.

    Args:
        repository: where to look.
        base, head: names, see `find_revision`.
        may_be_same: two sides without a difference are what is wanted, as for a self-test.

    Raises:
        InputError: as for `find_revision`, or there is nothing to compare.
    """
    first, second = find_revision(repository, base, "--base"), find_revision(repository, head, "--head")
    # Untracked files alone are no change, for no tracked file was changed to use them.
    unchanged = first.changes == second.changes or not (first.dirty or second.dirty)
    if not may_be_same and first.commit == second.commit and unchanged:
        clean = " without changes" if WORKING_TREE in (base, head) else ""
        raise InputError(
            "--base",
            f"'{base}' and '{head}'{clean} are the same commit {first.commit[:12]}",
            "there is nothing to compare",
            "Name an earlier base such as HEAD~1, or measure the noise with --self-test.",
        )
    return first, second


def default_base(repository: Repository, head: str = WORKING_TREE) -> tuple[str, str]:
    """Return where head's branch left the default branch: the commit, and how to name it to a person.

    The default branch is the target of a pull request under GitHub Actions, else the remote's, else `main` or `master`.

    Args:
        repository: where to look.
        head: name of the other side.

    Raises:
        InputError: there is no such branch, or no common ancestor, as in a shallow clone.
    """
    tip = "HEAD" if head == WORKING_TREE else find_revision(repository, head, "--head").commit
    remote = _git(
        repository.root, "symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD"
    ).text.strip()
    target = os.environ.get("GITHUB_BASE_REF", "")
    named = [f"origin/{target}"] if target else []
    for branch in (*named, *([remote] if remote else []), "origin/main", "origin/master", "main", "master"):
        if (
            not _can_be_name(branch)
            or _git(repository.root, "rev-parse", "--verify", "--quiet", f"{branch}^{{commit}}").code
        ):
            continue
        found = _git(repository.root, "merge-base", branch, tip)
        commit = found.text.strip()
        if found.code or not _COMMIT.fullmatch(commit):
            raise InputError(
                "--base",
                f"'{branch}' and {head} have no common ancestor here",
                "a shallow clone lacks it",
                "Run `git fetch --unshallow origin`, or name a revision.",
            )
        return commit, f"merge base with {branch}"
    raise InputError(
        "--base", "is missing, and no default branch is known", to_do="Write it like --base main"
    )


def on_both_sides(repository: Repository, path: Path, base: Revision, head: Revision) -> Path:
    """Return a file's path relative to the root, if both revisions hold it.

    Args:
        repository: where to look.
        path: absolute, or relative to the current directory.
        base, head: the two sides.

    Raises:
        InputError: outside of the repository, or a file on one side only, or on none.
    """
    relative = repository.relative(path)
    missing = [side for side in (base, head) if not _holds_file(repository, side, relative)]
    if not missing:
        return relative
    if len(missing) == 2:
        raise InputError(path, f"is in neither '{base.name}' nor '{head.name}'", to_do="Check its name.")
    if missing == [head]:
        raise InputError(
            path, f"is in '{base.name}' but not in '{head.name}'", to_do="Name a spec that both hold."
        )
    raise InputError(
        path,
        f"is in '{head.name}' but not in '{base.name}'",
        to_do="Name a base that holds it, or merge the spec first.",
    )


@contextmanager
def checkouts(
    repository: Repository,
    base: Revision,
    head: Revision,
    where: Path | None = None,
    *,
    links: Sequence[str] = (),
) -> Iterator[Checkouts]:
    """Check both sides out into worktrees beside each other, and remove them at the end of the block.

    They are removed after an error, Ctrl-C and SIGTERM too. After a kill the next call removes them. Of the working
    tree, the checkout is a copy: HEAD with its changes and untracked files, so that it can be edited meanwhile. What
    git ignores is in neither checkout, and a virtual environment is left out.

    Args:
        repository: see `find_repository`.
        base, head: see `find_revisions`. They may be the same.
        where: the folder that gets a folder for this call. None: `fusetune-gate` in the repository's git directory.
        links: names of files or folders relative to the root that git does not hold, such as `data`. Where they exist,
            both checkouts get links to them.

    Raises:
        SetupError: git cannot check a side out, or the disk is full or not writable.

    Mutates:
        SIGTERM raises KeyboardInterrupt inside the block, in the main thread.

    Example:
        with checkouts(repository, *find_revisions(repository, "main")) as sides:
            subprocess.run(["pytest"], cwd=sides.head.path)
    """
    parent = where or repository.git_dir / _FOLDER
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            stack.enter_context(terminate_as_interrupt())
        try:
            with interrupts_deferred():
                folder, lock = _make_folder(repository, parent)
                stack.callback(_remove_own, repository, parent, folder, lock)
        except OSError as error:
            raise SetupError(parent, "cannot be made", str(error.strerror or error)) from error
        sides = Checkouts(
            repository, Checkout(base, folder / "base"), Checkout(head, folder / "head"), folder
        )
        for side in (sides.base, sides.head):
            _check_out(repository, side, lock, links)
        yield replace(sides, notes=tuple(_notes(sides)))


def remove_abandoned(repository: Repository, where: Path | None = None) -> tuple[Path, ...]:
    """Remove what killed gates have left, and return their folders. Those of living gates stay.

    Args:
        repository: the one whose worktrees they are.
        where: as for `checkouts`.

    Raises:
        OSError: the folder cannot be read or changed.
    """
    parent = where or repository.git_dir / _FOLDER
    if not parent.is_dir():
        return ()
    with _only_one(parent):
        return _remove_abandoned(repository, parent)


# Git


def _names(answer: GitAnswer) -> list[str]:
    """Return the paths of an output with NUL after each."""
    return [name for name in answer.text.split("\0") if name]


def _can_be_name(name: str) -> bool:
    """Whether git takes a text for a name: one that begins with a dash would be an option."""
    return bool(name.strip()) and not name.startswith("-") and "\0" not in name


def _subject(repository: Repository, commit: str) -> str:
    return _git(
        repository.root, "show", "--no-patch", "--no-show-signature", "--format=%s", commit
    ).text.strip()


def _working_tree(repository: Repository, where: str) -> Revision:
    """Return the working tree as a revision."""
    head = _git(repository.root, "rev-parse", "--verify", "HEAD^{commit}")
    if head.code:
        raise InputError(where, "the repository has no commit yet", to_do="Commit something first.")
    commit = head.text.strip()
    tracked, untracked = _changes(repository)
    digest = _fingerprint(repository.root, [*tracked, *untracked]) if tracked or untracked else ""
    return Revision(WORKING_TREE, commit, bool(tracked), _subject(repository, commit), digest)


def _unknown(repository: Repository, name: str, where: str) -> InputError:
    """Return the error for a name that git does not know."""
    listed = _git(repository.root, "for-each-ref", "--format=%(refname:short)").text.split()
    refs = [ref for ref in listed if not ref.endswith("/HEAD")]
    near = f"origin/{name}" if f"origin/{name}" in refs else closest(name, refs)
    similar = difflib.get_close_matches(name, refs, _NAMES_SHOWN, 0.0)
    shown = list(dict.fromkeys([*([near] if near else []), *similar]))[:_NAMES_SHOWN]
    known = f"branches and tags like it: {', '.join(shown)}" if shown else "there are no branches"
    if _git(repository.root, "rev-parse", "--is-shallow-repository").text.strip() == "true":
        error = InputError(
            where,
            f"'{name}' is not in this shallow clone",
            known,
            "Run `git fetch --unshallow origin`, or set `fetch-depth: 0` for actions/checkout.",
        )
    else:
        to_do = f"Did you mean '{near}'?" if near else "Fetch it, or name a revision that `git log` shows."
        error = InputError(where, f"unknown revision '{name}'", known, to_do)
    error.code, error.closest = "unknown-name", near
    return error


def _meanings(repository: Repository, name: str, said: str) -> str:
    """List what an ambiguous name can stand for: the refs of that name, or the commits that git's hint shows."""
    bare = re.split(r"[~^@:]", name, maxsplit=1)[0]
    patterns = [f"{prefix}{bare}" for prefix in ("refs/", "refs/tags/", "refs/heads/", "refs/remotes/")]
    refs = _git(repository.root, "for-each-ref", "--format=%(refname)", *patterns).text.split()
    exact = [ref for ref in refs if ref in patterns]
    hashes = re.findall(r"^hint:\s+([0-9a-f]{4,})\s", said, re.MULTILINE)
    return ", ".join((exact or hashes)[:_NAMES_SHOWN]) or "several objects"


def _holds_file(repository: Repository, revision: Revision, relative: Path) -> bool:
    if revision.name == WORKING_TREE:
        return (repository.root / relative).is_file()
    return (
        _git(repository.root, "cat-file", "-t", f"{revision.commit}:{relative.as_posix()}").text == "blob\n"
    )


# The working tree's changes


def _changes(repository: Repository) -> tuple[list[str], list[str]]:
    """Return the tracked files that differ from HEAD, and the untracked ones that are not ignored."""
    diff = (
        "diff",
        "--name-only",
        "-z",
        "--no-renames",
        "--no-ext-diff",
        "--ignore-submodules=all",
        "HEAD",
        "--",
    )
    tracked = _names(_git(repository.root, *diff))
    listed = _names(_git(repository.root, "ls-files", "-z", "--others", "--exclude-standard"))
    # A name with a slash at its end is a repository of its own.
    untracked = [name for name in listed if not name.endswith("/")]
    return sorted(tracked), sorted(_without_environments(repository.root, untracked))


def _without_environments(root: Path, names: Sequence[str]) -> Iterator[str]:
    """Yield the names that lie in no virtual environment."""
    found: dict[Path, bool] = {}

    def in_environment(folder: Path) -> bool:
        if folder not in found:
            marked = any((root / folder / mark).exists() for mark in ("pyvenv.cfg", "conda-meta"))
            found[folder] = folder != Path() and (marked or in_environment(folder.parent))
        return found[folder]

    return (name for name in names if not in_environment(Path(name).parent))


def _fingerprint(root: Path, names: Sequence[str]) -> str:
    """Return the SHA-256 of files' names, kinds and contents. Large files count by size and time."""
    total = hashlib.sha256()
    for name in sorted(names):
        kind, content = "gone", b""
        with suppress(FileNotFoundError, NotADirectoryError):
            path = root / name
            state = path.lstat()
            if stat.S_ISLNK(state.st_mode):
                kind, content = "link", os.fsencode(os.readlink(path))
            elif stat.S_ISREG(state.st_mode) and state.st_size >= _LINKED_FROM_BYTES:
                kind, content = "large", f"{state.st_size} {state.st_mtime_ns}".encode()
            elif stat.S_ISREG(state.st_mode):
                kind = "program" if state.st_mode & stat.S_IXUSR else "file"
                content = hashlib.sha256(path.read_bytes()).digest()
        total.update(b"\0".join((os.fsencode(name), kind.encode(), content)) + b"\n")
    return total.hexdigest()


def _copy_changes(root: Path, target: Path) -> None:
    """Make a checkout of HEAD into a copy of the working tree."""
    tracked, untracked = _changes(Repository(root, root))
    for name in (*tracked, *untracked):
        source, copy = root / name, target / name
        if copy.is_dir() and not copy.is_symlink():
            # All files in it were removed before this name came, unless it is a submodule.
            with suppress(OSError):
                copy.rmdir()
        else:
            copy.unlink(missing_ok=True)
        if os.path.islink(source) or os.path.isfile(source):
            copy.parent.mkdir(parents=True, exist_ok=True)
            if (
                not os.path.islink(source)
                and name in untracked
                and source.stat().st_size >= _LINKED_FROM_BYTES
            ):
                copy.symlink_to(source)
            else:
                shutil.copy2(source, copy, follow_symlinks=False)
        elif copy.parent != target:
            with suppress(OSError):
                os.removedirs(copy.parent)


# Folders


@contextmanager
def _only_one(parent: Path) -> Iterator[None]:
    """Let one process at a time make or remove folders in `parent`."""
    descriptor = os.open(parent / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_folder(repository: Repository, parent: Path) -> tuple[Path, int]:
    """Make a folder for this process, and return it with its lock. Abandoned ones are removed."""
    parent.mkdir(parents=True, exist_ok=True)
    with _only_one(parent):
        _remove_abandoned(repository, parent)
        folder = parent / secrets.token_hex(4)
        folder.mkdir()
        lock = os.open(folder / _OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(lock, json.dumps({"pid": os.getpid(), "git_dir": str(repository.git_dir)}).encode())
    return folder, lock


def _remove_own(repository: Repository, parent: Path, folder: Path, lock: int) -> None:
    """Remove the folder of this process. Ctrl-C waits until it is gone."""
    with interrupts_deferred():
        try:
            with _only_one(parent):
                _remove(repository, folder)
        finally:
            os.close(lock)


def _remove_abandoned(repository: Repository, parent: Path) -> tuple[Path, ...]:
    """Remove the folders whose owners are dead, and return them. The caller holds the lock of `parent`."""
    removed = []
    for folder in sorted(parent.iterdir()):
        if not folder.is_dir() or folder.is_symlink() or not re.fullmatch("[0-9a-f]{8}", folder.name):
            continue
        # A folder without a lock file: its owner died between the two, for it held the lock of `parent`.
        lock = os.open(folder / _OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(_owner(repository, lock), folder)
            removed.append(folder)
        except BlockingIOError:
            pass  # its gate is alive
        finally:
            os.close(lock)
    return tuple(removed)


def _owner(repository: Repository, lock: int) -> Repository:
    """Return the repository whose worktrees a folder holds. Several may use one `where`."""
    with suppress(ValueError, KeyError, TypeError):
        git_dir = Path(json.loads(os.pread(lock, 2**16, 0))["git_dir"])
        if git_dir.is_dir():
            return Repository(git_dir, git_dir)
    return repository


def _remove(repository: Repository, folder: Path) -> None:
    """Remove a folder's worktrees, and git's entries for them, and then the folder."""
    for name in ("base", "head"):
        # The files go first: git refuses a worktree that is half made, but not one that is missing.
        _remove_tree(folder / name)
        _git(repository.git_dir, "worktree", "remove", "--force", "--force", str(folder / name))
    _remove_tree(folder)


def _remove_tree(folder: Path) -> None:
    """Remove a folder, files and folders that forbid it included. What is left stays for the next gate."""
    if not folder.exists():
        return
    for inside, folders, _ in os.walk(folder):
        for name in folders:
            path = os.path.join(inside, name)
            if not os.path.islink(path):
                with suppress(OSError):
                    os.chmod(path, stat.S_IRWXU)
    shutil.rmtree(folder, ignore_errors=True)


def _check_out(repository: Repository, side: Checkout, lock: int, links: Sequence[str]) -> None:
    """Make one worktree."""
    revision, path = side.revision, side.path
    made = _git(
        repository.root, "worktree", "add", "--detach", "--quiet", str(path), revision.commit, hold=lock
    )
    if made.code:
        lines = [line.strip() for line in made.error.splitlines() if line.strip()]
        raise SetupError(
            f"{revision.name} ({revision.commit[:12]})", "git cannot check it out", "; ".join(lines[-3:])
        )
    try:
        if revision.name == WORKING_TREE:
            _copy_changes(repository.root, path)
        for link in links:
            target = repository.root / link
            if target.exists() and not os.path.lexists(path / link):
                (path / link).parent.mkdir(parents=True, exist_ok=True)
                (path / link).symlink_to(target)
    except OSError as error:
        raise SetupError(path, "cannot be filled", str(error.strerror or error)) from error


def _notes(both: Checkouts) -> Iterator[str]:
    """Say what the checkouts lack: submodules, files of Git LFS, uncommitted changes."""
    sides = (both.base, both.head)
    submodules = {
        entry.partition("\t")[2]
        for side in sides
        for entry in _names(_git(side.path, "ls-files", "-z", "--stage"))
        if entry.startswith("160000 ")
    }
    if submodules:
        yield f"Submodules are empty in both checkouts: {_some(submodules)}."
    pointers = {name for side in sides for name in _lfs_pointers(side.path)}
    if pointers:
        yield f"Files of Git LFS are pointers, not content: {_some(pointers)}. Install git-lfs and fetch them."
    if all(side.revision.name != WORKING_TREE for side in sides) and _changes(both.repository)[0]:
        yield f"Uncommitted changes are not measured: head is '{both.head.revision.name}'."


def _lfs_pointers(checkout: Path) -> Iterator[str]:
    """Yield the files that Git LFS has not filled with their content."""
    for name in _names(_git(checkout, "ls-files", "-z", "--", ":(top,attr:filter=lfs)")):
        with suppress(OSError), (checkout / name).open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                yield name


def _some(names: set[str]) -> str:
    """List the first names of many."""
    shown = sorted(names)
    rest = len(shown) - _NAMES_SHOWN
    return ", ".join(shown[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
