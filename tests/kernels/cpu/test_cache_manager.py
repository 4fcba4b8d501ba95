"""Nobody's code is run from the cache but our own, and a damaged cache is as good as none."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

from fusetune.kernels import trust
from fusetune.kernels.cpu import cache_manager
from fusetune.kernels.cpu.cache_manager import CheckedCacheManager
from fusetune.kernels.cpu.toolchain import compile_shared_object
from fusetune.kernels.triton_inside import FileCacheManager

ROOT = Path(__file__).parents[3]
ANOTHER = os.getuid() + 4321
GROUP = "__grp__tripled.json"


@triton.jit
def tripled(x_ptr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(x_ptr + i, tl.load(x_ptr + i) * 3)


def launch() -> list[float]:
    tripled.device_caches.clear()
    x = torch.ones(8)
    tripled[(1,)](x, SIZE=8)
    return x.tolist()


RIGHT = [3.0] * 8


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for caches whose parents, whatever they are here, are root's. Others may look into it."""
    place = tmp_path.resolve()
    pretend(monkeypatch, dict.fromkeys(place.parents, 0), 0o40755)
    place.chmod(0o755)
    umask = os.umask(0o022)
    with triton.knobs.cache.scope():
        yield place
    os.umask(umask)
    tripled.device_caches.clear()


def pretend(monkeypatch: pytest.MonkeyPatch, owners: dict[Path, int], mode: int | None = None) -> None:
    """Have paths, and what lies below those that are another's, belong to a user, whoever runs this."""
    real = trust._status

    def pretended(path: Path, handle: int | None = None) -> os.stat_result:
        found = [*real(path, handle)][:10]
        for owned, owner in owners.items():
            if path == owned or (owner and path.is_relative_to(owned)):
                found[4] = owner
                found[0] = mode or found[0]
        return os.stat_result(found)

    monkeypatch.setattr(trust, "_status", pretended)


def kept_in(cache: Path) -> Path:
    """The directory of the kernel, compiled and kept in a cache."""
    triton.knobs.cache.dir = str(cache)
    assert launch() == RIGHT
    (file,) = cache.rglob("tripled.so")
    return file.parent


def plant(kernel: Path, marker: Path) -> None:
    """Put code in the place of a kernel's that leaves a mark when it is loaded, and make all that is written fit it."""
    source = f"""
#include <stdio.h>
__attribute__((constructor)) static void mark(void) {{ fclose(fopen("{marker}", "w")); }}
const char *run(int x, int y, int z, int threads, char *arguments) {{ return 0; }}
"""
    (kernel / "tripled.so").write_bytes(compile_shared_object(source, False))
    metadata = json.loads((kernel / "tripled.json").read_text())
    metadata["hash"] = "00" * 32  # of which there is no directory
    (kernel / "tripled.json").write_text(json.dumps(metadata))
    group = json.loads((kernel / GROUP).read_text())
    if "sha256" in group:
        for name in group["sha256"]:
            group["sha256"][name] = hashlib.sha256((kernel / name).read_bytes()).hexdigest()
    (kernel / GROUP).write_text(json.dumps(group))


@pytest.mark.parametrize("cache_mode", [0o755, 0o700])
@pytest.mark.parametrize("kernel_mode", [0o777, 0o775])
def test_a_planted_kernel_with_another_hash_is_not_loaded(
    cache_mode: int, kernel_mode: int, place: Path
) -> None:
    (place / "cache").mkdir()
    (place / "cache").chmod(cache_mode)
    kernel = kept_in(place / "cache")
    kernel.chmod(kernel_mode)
    plant(kernel, place / "marker")
    with pytest.raises(
        PermissionError, match=f"others can write to {kernel}, and compiled kernels are loaded"
    ):
        launch()
    assert not (place / "marker").exists()


@pytest.mark.parametrize("what", [".", "tripled.so", "tripled.json", GROUP])
def test_a_planted_kernel_of_another_user_is_not_loaded(
    what: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = kept_in(place / "cache")
    plant(kernel, place / "marker")
    pretend(monkeypatch, {kernel / what: ANOTHER})
    with pytest.raises(PermissionError, match=rf"{kernel / what} belongs to another user"):
        launch()
    assert not (place / "marker").exists()


def test_a_moved_cache_is_read_where_it_is(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = kept_in(place / "old")
    shutil.copytree(place / "old", place / "new")
    kernel = place / "new" / old.name
    (place / "new").chmod(0o700)
    kernel.chmod(0o700)
    written = (kernel / "tripled.so").stat().st_mtime_ns
    plant(old, place / "marker")
    pretend(monkeypatch, {place / "old": ANOTHER})
    triton.knobs.cache.dir = str(place / "new")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert launch() == RIGHT
    assert not (place / "marker").exists()
    assert (kernel / "tripled.so").stat().st_mtime_ns == written  # loaded, not compiled


def test_a_group_that_names_files_elsewhere_is_not_followed(place: Path) -> None:
    kernel = kept_in(place / "cache")
    elsewhere = place / "elsewhere"
    shutil.copytree(kernel, elsewhere)
    plant(elsewhere, place / "marker")
    group = json.loads((kernel / GROUP).read_text())
    group["child_paths"] = {name: str(elsewhere / name) for name in group["child_paths"]}
    (kernel / GROUP).write_text(json.dumps(group))
    assert launch() == RIGHT
    assert not (place / "marker").exists()


@pytest.mark.parametrize("name", ["../elsewhere/tripled.so", "/etc/passwd", "..", "", "a\0b", "a" * 300])
def test_a_name_that_is_no_name_is_damage(name: str, place: Path) -> None:
    kernel = kept_in(place / "cache")
    group = json.loads((kernel / GROUP).read_text())
    group["child_paths"][name] = name
    (kernel / GROUP).write_text(json.dumps(group))
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert launch() == RIGHT


def test_a_planted_directory_above_the_cache_is_not_used(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can rename what lies above can put another cache there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "mine"))
    kernel = kept_in(place / "above" / "cache")
    plant(kernel, place / "marker")
    (place / "above").chmod(0o777)
    assert launch() == RIGHT
    assert triton.knobs.cache.dir == str(place / "mine/fusetune/kernels")
    assert not (place / "marker").exists()


def test_a_kernel_directory_that_is_a_link_is_looked_at_where_it_leads(place: Path) -> None:
    kernel = kept_in(place / "cache")
    shutil.move(kernel, place / "elsewhere")
    kernel.symlink_to(place / "elsewhere")
    assert launch() == RIGHT
    plant(place / "elsewhere", place / "marker")
    (place / "elsewhere").chmod(0o777)
    with pytest.raises(PermissionError, match=f"others can write to {place}/elsewhere"):
        launch()
    assert not (place / "marker").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def into_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inner").touch()


def into_link(path: Path) -> None:
    path.rename(path.parent / "other")
    path.symlink_to("other")


def zeros_inside(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "zeros": zeros_inside,
    "missing": Path.unlink,
    "directory": into_directory,
    "link": into_link,
    "pipe": lambda path: (path.unlink(), os.mkfifo(path, 0o600)),  # type: ignore[func-returns-value]
    "list": lambda path: path.write_text("[]"),
    "number": lambda path: path.write_text("5"),
    "null": lambda path: path.write_text("null"),
    "object": lambda path: path.write_text("{}"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe\xfd"),
}


_ALWAYS = {("tripled.so", "cut"), ("tripled.so", "missing"), ("tripled.json", "cut"), (GROUP, "list")}


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param(name, damage, marks=() if (name, damage) in _ALWAYS else pytest.mark.slow)
        for name in ("tripled.so", "tripled.json", "tripled.c", GROUP)
        for damage in DAMAGES
    ],
)
def test_a_damaged_kernel_is_compiled_anew_and_that_is_said(name: str, damage: str, place: Path) -> None:
    kernel = kept_in(place / "cache")
    DAMAGES[damage](kernel / name)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert launch() == RIGHT
    if (name, damage) == (GROUP, "missing"):  # as if nothing had been kept
        assert not said
    else:
        (warning,) = said
        assert str(warning.message).startswith(
            f"{kernel}: the compiled kernel kept there is damaged, because {name} "
        )
        assert str(warning.message).endswith("; it is compiled again.")
    written = (kernel / "tripled.so").stat().st_mtime_ns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert launch() == RIGHT
    assert (kernel / "tripled.so").stat().st_mtime_ns == written  # whole again
    assert [path.name for path in kernel.iterdir() if path.name.startswith("tmp.")] == []


@pytest.mark.parametrize("children", [5, None, [], {}, "tripled.so", {"tripled.so": 1}, {"tripled.json": 1}])
def test_a_list_of_files_of_a_wrong_type_is_damage(children: object, place: Path) -> None:
    kernel = kept_in(place / "cache")
    (kernel / GROUP).write_text(json.dumps({"child_paths": children, "sha256": {}}))
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert launch() == RIGHT


@pytest.mark.parametrize("checksums", [5, None, [], {}])
def test_checksums_of_a_wrong_type_are_damage(checksums: object, place: Path) -> None:
    kernel = kept_in(place / "cache")
    group = json.loads((kernel / GROUP).read_text())
    (kernel / GROUP).write_text(json.dumps({**group, "sha256": checksums}))
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert launch() == RIGHT


@pytest.mark.parametrize("spoil", [Path.touch, lambda path: path.symlink_to("nowhere")])
def test_a_file_in_the_place_of_a_kernels_directory(spoil: Callable[[Path], object], place: Path) -> None:
    kernel = kept_in(place / "cache")
    shutil.rmtree(kernel)
    spoil(kernel)
    assert launch() == RIGHT
    assert kernel.is_dir()


def test_two_compilations_of_a_kernel_are_the_same_bytes(place: Path) -> None:
    """So a process that reads while another writes finds what it expects."""
    first, second = kept_in(place / "one"), kept_in(place / "two")
    assert (first / "tripled.so").read_bytes() == (second / "tripled.so").read_bytes()
    assert (first / "tripled.json").read_bytes() == (second / "tripled.json").read_bytes()


def test_what_is_written_is_closed_to_others_whatever_the_umask(place: Path) -> None:
    os.umask(0)
    kernel = kept_in(place / "cache")
    assert [path for path in (kernel, *kernel.iterdir()) if path.stat().st_mode & 0o022] == []


def test_a_manager_of_the_users_own_is_asked_and_checked(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Own(FileCacheManager):  # type: ignore[misc]
        def get_group(self, filename):
            asked.append(filename)
            return super().get_group(filename)

    triton.knobs.cache.manager_class = Own
    kernel = kept_in(place / "cache")
    assert asked == ["tripled.json"]
    assert issubclass(triton.knobs.cache.manager_class, Own)
    assert launch() == RIGHT
    plant(kernel, place / "marker")
    pretend(monkeypatch, {kernel / "tripled.so": ANOTHER})
    with pytest.raises(PermissionError, match=r"tripled\.so belongs to another user"):
        launch()
    assert not (place / "marker").exists()


def test_files_of_triton_s_own_manager_are_found(place: Path) -> None:
    """Kernels for a GPU that were kept before are of use."""
    triton.knobs.cache.dir = str(place)
    theirs = FileCacheManager("KEY")
    group = {name: theirs.put("text", name) for name in ("k.json", "k.ttir")}
    theirs.put_group("k.json", group)
    ours = CheckedCacheManager("KEY")
    assert ours.get_group("k.json") == group
    assert ours.get_file("k.ttir") == group["k.ttir"]
    assert ours.get_file("none") is None
    assert CheckedCacheManager("OTHER").get_group("k.json") is None


def test_a_full_disk_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes | str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_manager, "_write", full)
    triton.knobs.cache.dir = str(place / "cache")
    with pytest.raises(OSError, match="cannot be kept there") as caught:
        launch()
    (kernel,) = (place / "cache").iterdir()
    assert str(caught.value) == (
        f"{kernel}: compiled kernels cannot be kept there (No space left on device). Make room there, or set "
        f"TRITON_CACHE_DIR to a directory on another disk."
    )


FILLED = """
import resource, sys, triton
from pathlib import Path
from fusetune.kernels.cpu.cache_manager import CheckedCacheManager
triton.knobs.cache.dir = sys.argv[1]
manager = CheckedCacheManager("KEY")
manager.put("whole", "kernel.json")
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    manager.put(b"x" * 8192, "kernel.so")
except OSError as error:
    print(error)
print(sorted(path.name for path in Path(sys.argv[1], "KEY").iterdir()))
"""


def test_a_file_that_gets_too_large_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FILLED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    said, left = done.stdout.splitlines()
    assert said.startswith(
        f"{tmp_path}/KEY: compiled kernels cannot be kept there (File too large). Make room"
    )
    assert left == "['kernel.json']"
