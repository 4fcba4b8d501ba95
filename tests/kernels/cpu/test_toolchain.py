"""Compilers that are missing, others, old or broken: by scripts that stand for them."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

from fusetune.kernels import FusedSGD
from fusetune.kernels.cpu import toolchain, why_not
from fusetune.kernels.cpu.driver import CPUDriver
from fusetune.kernels.cpu.toolchain import CompilerFailedError, NoCompilerError, compile_shared_object
from fusetune.kernels.launch import why_not_on_cpu
from tests.kernels.cpu.compiled_code import forget_compiler

CODE = "int answer(void) { return 42; }"
# How many threads run the region: each adds 1.
COUNT = """
int count(int threads) {
  int found = 0;
  #pragma omp parallel num_threads(threads) reduction(+ : found)
  ++found;
  return found;
}
"""


@pytest.fixture(autouse=True)
def forgotten_compiler() -> Iterator[None]:
    """The compiler is looked for again in each test, and after it."""

    forget_compiler()
    yield
    forget_compiler()


@pytest.fixture
def real() -> str:
    return toolchain.command()[0]


def pretend(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that is a script; it keeps its arguments in a file beside it."""
    file = folder / name
    file.write_text(f'#!/bin/sh\necho "$@" >> {folder}/arguments\n{script}\n')
    file.chmod(0o755)
    monkeypatch.setenv("CC", str(file))
    forget_compiler()
    return folder / "arguments"


def answer(folder: Path, binary: bytes) -> int:
    file = folder / "answer.so"
    file.write_bytes(binary)
    return int(ctypes.CDLL(str(file)).answer())


def test_without_a_compiler_there_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert why_not() == "no C compiler on this machine; looked for gcc, clang, cc. Install gcc or clang."
    assert not CPUDriver.is_active()
    with pytest.raises(NoCompilerError, match="no C compiler"):
        compile_shared_object(CODE, True)


def test_a_compiler_of_ones_own_choice_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -m64")
    assert why_not() == "no C compiler on this machine; $CC names 'no-such-compiler'. Install gcc or clang."


def test_options_of_the_environment_are_kept(
    monkeypatch: pytest.MonkeyPatch, real: str, tmp_path: Path
) -> None:
    arguments = pretend(tmp_path, "wrapper", f'exec {real} "$@"', monkeypatch)
    monkeypatch.setenv("CC", f"{tmp_path}/wrapper -DCHOSEN=1")
    toolchain.command.cache_clear()
    assert answer(tmp_path, compile_shared_object(CODE, True)) == 42
    assert arguments.read_text().splitlines()[-1].startswith("-DCHOSEN=1 -std=gnu11 -O3")


def test_clang_gets_its_own_flag_for_vector_functions(
    monkeypatch: pytest.MonkeyPatch, real: str, tmp_path: Path
) -> None:
    script = f"""
case "$1" in --version) echo "Debian clang version 17.0.6"; exit;; esac
for each; do shift; case $each in -fveclib=*) ;; *) set -- "$@" "$each";; esac; done
exec {real} "$@"
"""
    arguments = pretend(tmp_path, "clang", script, monkeypatch)
    assert toolchain.compiler_version() == "Debian clang version 17.0.6"
    assert ("-fveclib=libmvec" in toolchain.flags()) == toolchain.has_vector_math("expf")
    assert answer(tmp_path, compile_shared_object(CODE, False)) == 42
    assert "-ffp-contract=off" in arguments.read_text()
    assert "-ffast-math" not in arguments.read_text()


def test_clang_without_openmp_runs_kernels_on_one_thread(
    monkeypatch: pytest.MonkeyPatch, real: str, tmp_path: Path
) -> None:
    script = f"""
case "$*" in
  --version) echo "Debian clang version 17.0.6"; exit;;
  *"-fopenmp "*) echo "ld: cannot find -lomp" >&2; exit 1;;
esac
for each; do shift; case $each in -fveclib=*) ;; *) set -- "$@" "$each";; esac; done
exec {real} "$@"
"""
    pretend(tmp_path, "clang", script, monkeypatch)
    with pytest.warns(
        UserWarning, match="finds no OpenMP library; kernels run on one thread. Install libomp"
    ):
        binary = compile_shared_object(COUNT, True)
    file = tmp_path / "count.so"
    file.write_bytes(binary)
    assert ctypes.CDLL(str(file)).count(3) == 1


def test_an_old_compiler_that_does_not_know_this_cpu_compiles_for_any(
    monkeypatch: pytest.MonkeyPatch, real: str, tmp_path: Path
) -> None:
    script = f'case "$*" in *=native*) echo "bad value native" >&2; exit 1;; esac\nexec {real} "$@"'
    pretend(tmp_path, "old", script, monkeypatch)
    with pytest.warns(UserWarning, match="does not take -m.*=native.*slower"):
        binary = compile_shared_object(CODE, True)
    assert answer(tmp_path, binary) == 42
    assert why_not() is None


def test_a_compiler_that_fails_is_not_a_missing_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = 'case "$1" in --version) echo "cc 1.0"; exit;; esac\necho "cannot find -lgomp" >&2; exit 1'
    pretend(tmp_path, "broken", script, monkeypatch)
    with pytest.raises(CompilerFailedError, match=r"cc 1.0 \(.*broken\) failed on .* cannot find -lgomp"):
        compile_shared_object(CODE, True)


def test_a_command_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "gcc '")
    assert why_not() == '$CC is no command: "gcc \'" has no closing quotation.'
    assert not CPUDriver.is_active()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 0", "exit status 0, no file and no message"),
        ("exit 1", "exit status 1, no file and no message"),
        (
            "echo \"gcc: fatal error: cannot execute 'as'\" >&2; exit 1",
            "gcc: fatal error: cannot execute 'as'",
        ),
    ],
)
def test_a_compiler_that_compiles_nothing_is_found_out_in_advance(
    script: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(tmp_path, "broken", script, monkeypatch)
    assert why_not() == (
        f"the C compiler {tmp_path}/broken fails on one line of C: {said}. Install gcc or clang, or set $CC."
    )
    assert not CPUDriver.is_active()
    with pytest.raises(CompilerFailedError, match=re.escape(said)):
        compile_shared_object(CODE, True)


def test_a_file_that_is_no_program_is_found_out_in_advance(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "text"
    file.write_text("no program\n")
    file.chmod(0o755)
    monkeypatch.setenv("CC", str(file))
    assert "fails on one line of C" in str(why_not())
    assert "Exec format error" in str(why_not())


def test_a_compiler_is_tried_once(monkeypatch: pytest.MonkeyPatch, real: str, tmp_path: Path) -> None:
    arguments = pretend(tmp_path, "wrapper", f'exec {real} "$@"', monkeypatch)
    assert why_not() is None
    assert why_not() is None
    assert len(arguments.read_text().splitlines()) == 1


def test_optimizers_go_by_torch_where_the_compiler_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(tmp_path, "broken", "exit 1", monkeypatch)
    why_not_on_cpu.cache_clear()
    try:
        assert "broken fails on one line of C" in str(why_not_on_cpu())
        parameter = torch.nn.Parameter(torch.ones(4))
        parameter.grad = torch.ones(4)
        optimizer = FusedSGD([parameter], lr=0.5)
        optimizer.step()
        assert optimizer.path == "torch"
        assert parameter.tolist() == [0.5] * 4
    finally:
        why_not_on_cpu.cache_clear()


@triton.jit
def plus_one(x_ptr, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x_ptr + i, tl.load(x_ptr + i, mask=i < n) + 1, mask=i < n)


def _launch(number: int, ready: Path, results: Path) -> None:
    """What one process does: wait for the others, compile, launch, and write what it got."""
    torch.set_num_threads(1)
    (ready / str(number)).touch()
    while len(list(ready.iterdir())) < PROCESSES:
        pass
    for block in (32, 64):
        x = torch.arange(100.0)
        plus_one[(triton.cdiv(100, block),)](x, 100, BLOCK=block)
        assert torch.equal(x, torch.arange(100.0) + 1)
    (results / str(number)).touch()


PROCESSES = 8


def test_many_processes_share_one_empty_cache(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("cache", "ready", "results")]
    for folder in folders:
        folder.mkdir(mode=0o755)
    cache, ready, results = folders
    children = []
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(cache)
        for number in range(PROCESSES):
            child = os.fork()
            if child == 0:
                try:
                    _launch(number, ready, results)
                finally:
                    os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
    assert len(list(results.iterdir())) == PROCESSES
    assert len(list(cache.rglob("plus_one.so"))) == 2
    assert not [path for path in cache.rglob("tmp.*") if path.is_file()]
    shutil.rmtree(cache)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_for_temporary_files_is_named(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="there is no room") as caught:
        toolchain.compile_shared_object("int nothing;", True)
    assert str(caught.value) == (
        f"{tempfile.gettempdir()}: there is no room to compile a kernel ({os.strerror(code)}). Make room there, or "
        f"set TMPDIR to a directory on another disk."
    )


def test_a_compiler_that_finds_the_disk_full_is_told_from_one_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = "kernel.s: fatal error: error writing to /tmp/kernel.o: No space left on device"
    monkeypatch.setattr(toolchain, "_compile", lambda *_: said)
    with pytest.raises(OSError, match=r"there is no room to compile a kernel \(No space left on device\)"):
        toolchain.compile_shared_object("int nothing;", True)


def test_another_error_of_a_block_with_a_temporary_directory_is_passed_on() -> None:
    with pytest.raises(PermissionError, match="mine"), toolchain.temporary_directory() as directory:
        raise PermissionError(errno.EACCES, "mine")
    assert not Path(directory).exists()
