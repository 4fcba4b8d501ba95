"""Compiled kernels are kept and loaded where others cannot write, whatever the umask, $HOME and Triton's cache are."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

from fusetune.bench.doctor.checks import describe_kernel_cache
from fusetune.kernels import trust
from fusetune.kernels.cpu import cache

ROOT = Path(__file__).parents[3]
# A step of an optimizer in a process of its own, beside torch's: prints where Triton's cache is in the end.
STEP = """
import os, sys
os.umask(int(sys.argv[1], 8))
import torch, triton
from fusetune.kernels import FusedSGD
ours, theirs = (torch.nn.Parameter(torch.arange(8.0)) for _ in range(2))
ours.grad = theirs.grad = torch.ones(8)
optimizer = FusedSGD([ours], lr=0.5)
optimizer.step()
torch.optim.SGD([theirs], lr=0.5).step()
assert torch.equal(ours, theirs)
assert optimizer.path == "triton-cpu", optimizer.path
print(triton.knobs.cache.dir)
"""


def step(home: Path | str, umask: int = 0o002, **environment: str) -> Path:
    """Where the kernel of one step was kept."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TRITON_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", STEP, f"{umask:o}"],
        cwd=ROOT,
        env={**kept, "HOME": str(home), "TRITON_DEFAULT_BACKEND": "cpu", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def writable_by_others(directory: Path) -> list[Path]:
    """What others can change below a directory, as the file system has it."""
    found = []
    for folder, folders, files in os.walk(directory):
        mode = os.stat(folder).st_mode
        found += [Path(folder)] if mode & 0o022 else []
        if not mode & 0o011:
            folders.clear()  # nobody else comes further
            continue
        found += [Path(folder, name) for name in files if os.stat(Path(folder, name)).st_mode & 0o022]
    return found


@pytest.mark.slow
def test_a_fresh_home_and_a_umask_that_lets_the_group_write(tmp_path: Path) -> None:
    where = step(tmp_path)
    assert where == tmp_path / ".triton/cache"
    assert len(list(where.rglob("*.so"))) == 1
    assert writable_by_others(where) == []
    written = {path: path.stat().st_mtime_ns for path in where.rglob("*.so")}
    assert step(tmp_path) == where  # the second process loads what the first has kept
    assert {path: path.stat().st_mtime_ns for path in where.rglob("*.so")} == written


@pytest.mark.slow
@pytest.mark.parametrize("mode", [0o775, 0o777])
def test_a_cache_that_others_can_write_is_left_alone(mode: int, tmp_path: Path) -> None:
    theirs = tmp_path / ".triton/cache"
    theirs.mkdir(parents=True)
    theirs.chmod(mode)
    where = step(tmp_path)
    assert where == tmp_path / ".cache/fusetune/kernels"
    assert len(list(where.rglob("*.so"))) == 1
    assert writable_by_others(where) == []
    assert list(theirs.iterdir()) == []
    assert stat.S_IMODE(theirs.stat().st_mode) == mode


@pytest.mark.slow
def test_a_private_cache_below_an_open_umask(tmp_path: Path) -> None:
    """A directory of the user's own that others may read: a kernel's directory in it is closed."""
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o755)
    assert step(tmp_path, TRITON_CACHE_DIR=str(mine)) == mine
    assert len(list(mine.rglob("*.so"))) == 1
    assert writable_by_others(mine) == []
    assert stat.S_IMODE(mine.stat().st_mode) == 0o755
    step(tmp_path, TRITON_CACHE_DIR=str(mine))


@pytest.mark.slow
@pytest.mark.parametrize("home", ["/dev/null", "/proc/none"])
def test_a_home_that_cannot_be_written(home: str, tmp_path: Path) -> None:
    where = step(home, TMPDIR=str(tmp_path))
    assert where.parent == tmp_path
    assert list(tmp_path.iterdir()) == []  # gone with the process


@triton.jit
def doubled(x_ptr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(x_ptr + i, tl.load(x_ptr + i) * 2)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Path]:
    """The directory of a kernel that was compiled and kept; the next launch loads it from there."""
    tmp_path.chmod(0o755)
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(tmp_path)
        doubled.device_caches.clear()
        doubled[(1,)](torch.ones(8), SIZE=8)
        doubled.device_caches.clear()
        (file,) = tmp_path.rglob("doubled.so")
        yield file.parent
    doubled.device_caches.clear()


def launch() -> torch.Tensor:
    x = torch.ones(8)
    doubled[(1,)](x, SIZE=8)
    return x


def test_what_only_this_user_can_write_is_loaded(kept: Path) -> None:
    assert launch().tolist() == [2.0] * 8


@pytest.mark.parametrize("name", ["", "doubled.so", "__grp__doubled.json"])
@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_a_kernel_that_others_can_write_is_refused(name: str, mode: int, kept: Path) -> None:
    path = kept / name
    path.chmod(stat.S_IMODE(path.stat().st_mode) | mode)
    with pytest.raises(PermissionError) as caught:
        launch()
    assert f"others can write to {path}, and compiled kernels are loaded from it" in str(caught.value)
    path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o022)
    doubled.device_caches.clear()
    assert launch().tolist() == [2.0] * 8


def test_a_cache_of_another_user_is_not_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    real = trust._status

    def given_away(path: Path, handle: int | None = None) -> os.stat_result:
        found = [*real(path, handle)][:10]
        return os.stat_result([*found[:4], os.getuid() + 4321, *found[5:]] if path == theirs else found)

    monkeypatch.setattr(trust, "_status", given_away)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(theirs)
        assert cache.settled() == tmp_path / "fusetune/kernels"
        assert sorted(tmp_path.iterdir()) == [theirs]  # asking makes nothing
        cache.settle()
        assert triton.knobs.cache.dir == str(tmp_path / "fusetune/kernels")


def test_the_reason_is_a_clause(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert cache.why_not_in(tmp_path / "not" / "there") is None
    assert cache.why_not_in(file / "below") == f"{file} is not a directory"
    assert cache.why_not_in(tmp_path / "open") == f"others can write to {tmp_path}/open"


def test_doctor_says_where_kernels_are_kept() -> None:
    place, why = Path("/c"), "others can write to /c"
    assert describe_kernel_cache(place, None, place).state == "ok"
    elsewhere = describe_kernel_cache(place, why, Path("/d"))
    assert elsewhere.detail == "others can write to /c; kernels for the CPU are kept in /d"
    assert "every process compiles them anew" in describe_kernel_cache(place, why, None).detail
