"""The C compiler: which one is used, with which flags, and why there is none."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fusetune.errors import StateError

_CANDIDATES = ("gcc", "clang", "cc")
# No -ffast-math: NaN and infinities keep their meaning. Errno and traps are given up, so that loops vectorise.
_LEVEL = "-O3"
_FLAGS = (
    "-std=gnu11",
    _LEVEL,
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fwrapv",
    "-fno-strict-aliasing",
    "-fPIC",
    "-shared",
    "-w",
)
# gcc: no epilogue loop with shorter vectors for the last lanes. Blocks are multiples of vectors, and for fp16 and bf16
# the epilogues can take half of the time of a compilation.
_ONE_LENGTH = "--param=vect-epilogues-nomask=0"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MOST_SHOWN = 2000  # characters of a compiler's message
# Longer C code is compiled with fewer optimizations, because the time of a compilation grows faster than the code.
MOST_LINES_OPTIMIZED = 8000


class NoCompilerError(StateError):
    """There is no C compiler."""

    code = "no-compiler"


class CompilerFailedError(StateError):
    """There is a C compiler, but it rejects the generated code."""

    code = "compiler-failed"


def why_not() -> str | None:
    """Return why kernels cannot be compiled on this machine, or None where they can.

    Example:
        >>> why_not() is None or "compiler" in why_not()
        True
    """
    try:
        command()
    except NoCompilerError as error:
        return str(error)
    return _why_it_fails()


@functools.lru_cache
def _why_it_fails() -> str | None:
    """Return the compiler's message where it cannot build a shared object of one line, or None where it can."""
    try:
        with temporary_directory() as directory:
            code = Path(directory, "empty.c")
            code.write_text("int nothing;\n")
            complaint = _compile(code, code.with_suffix(".so"), ["-fPIC", "-shared"])
    except OSError as error:
        return f"there is no directory for temporary files ({error}). Set TMPDIR to one."
    if complaint is None:
        return None
    said = " ".join(complaint.split())[:_MOST_SHOWN]
    return f"the C compiler {shlex.join(command())} fails on one line of C: {said}. Install gcc or clang, or set $CC."


@functools.lru_cache
def command() -> tuple[str, ...]:
    """The C compiler's path, with the options in $CC: $CC if set, else the first of gcc, clang and cc.

    Raises:
        NoCompilerError: there is none, or $CC cannot be parsed.
    """
    try:
        chosen = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise NoCompilerError(
            "", f"$CC is no command: {os.environ['CC']!r} has {str(error).lower()}."
        ) from None
    for name, *options in [chosen] if chosen else [[name] for name in _CANDIDATES]:
        if path := shutil.which(name):
            return (path, *options)
    looked_for = f"$CC names '{chosen[0]}'" if chosen else f"looked for {', '.join(_CANDIDATES)}"
    raise NoCompilerError("", "no C compiler on this machine", looked_for, "Install gcc or clang.")


@functools.lru_cache
def compiler_version() -> str:
    """The first line of the compiler's version message."""
    try:
        said = subprocess.run([*command(), "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return command()[0]
    return next(iter((said.stdout + said.stderr).splitlines()), command()[0])


@functools.lru_cache
def cpu_features() -> str:
    """The architecture and its extensions: CPUs that differ in them cannot share code."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")


def flags() -> tuple[str, ...]:
    """The compiler's flags."""
    own: tuple[str, ...]
    if not is_clang():
        own = ("-fopenmp", _ONE_LENGTH)
    else:
        # gcc calls libmvec by the declarations in the code, clang by this flag.
        vector_math = ("-fveclib=libmvec",) if has_vector_math("expf") else ()
        own = ("-fopenmp" if _has_openmp() else "-fopenmp-simd", *vector_math)
    return (*_FLAGS, *own, *_flags_for_this_cpu())


@contextmanager
def temporary_directory() -> Iterator[str]:
    """Make a directory that only this user can enter, and remove it when the context ends.

    Raises:
        OSError: there is no room for compiled code. The message names the place and the remedy.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="fusetune-") as directory:
            yield directory
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise _no_room(str(error.strerror)) from error
        raise


def _no_room(said: str) -> OSError:
    """Build the error of a disk that is full."""
    return OSError(
        f"{tempfile.gettempdir()}: there is no room to compile a kernel ({said}). Make room there, or set TMPDIR to a "
        f"directory on another disk."
    )


def is_clang() -> bool:
    """Return whether the compiler is clang."""
    return "clang" in compiler_version()


def has_threads() -> bool:
    """Return whether kernels run on several threads."""
    return not is_clang() or _has_openmp()


@functools.lru_cache
def _has_openmp() -> bool:
    """Return whether programs with threads can be linked. Clang's library for them is often a package of its own."""
    with temporary_directory() as directory:
        code = Path(directory, "empty.c")
        code.write_text("int nothing;\n")
        if _compile(code, code.with_suffix(".so"), ["-fopenmp", "-fPIC", "-shared"]) is None:
            return True
        if _compile(code, code.with_suffix(".so"), ["-fPIC", "-shared"]) is None:
            warnings.warn(
                f"{compiler_version()} finds no OpenMP library; kernels run on one thread. Install libomp-dev, or gcc.",
                stacklevel=2,
            )
    return False


def _flags_for_this_cpu() -> tuple[str, ...]:
    target = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
    wide = ("-mprefer-vector-width=512",) if "avx512f" in cpu_features().split() else ()
    return (target, *wide)


@functools.lru_cache
def has_vector_math(function: str) -> bool:
    """Return whether glibc has a vector variant of `function` (libmvec), within 4 ulp of the exact value."""
    if platform.machine() != "x86_64":
        return False
    lanes = "2" if not function.endswith("f") or function == "erf" else "4"
    arguments = {"pow": "vv", "atan2": "vv", "hypot": "vv"}.get(
        function if lanes == "2" else function[:-1], "v"
    )
    try:
        library = ctypes.CDLL("libmvec.so.1")
    except OSError:
        return False
    return hasattr(library, f"_ZGVbN{lanes}{arguments}_{function}")


def level_for(source: str) -> str:
    """The compiler's flag for how much it optimizes C code. Long code is optimized less.

    Example:
        >>> level_for("int nothing;\\n")
        '-O3'
    """
    return _LEVEL if source.count("\n") <= MOST_LINES_OPTIMIZED else "-O1"


def compile_shared_object(
    source: str, fuse_multiply_add: bool, ends_anywhere: bool = False, in_vectors: bool = True
) -> bytes:
    """Compile C to a shared object.

    Args:
        source: the C code.
        fuse_multiply_add: a * b + c may round once (FMA), as on a GPU.
        ends_anywhere: loops are split into runs of any length, so that vectorised epilogues pay.
        in_vectors: vectorise loops. Lanes that first test whether they may go on gain nothing by it, and gcc 12 fails
            on some such loops.

    Raises:
        NoCompilerError: there is no compiler.
        CompilerFailedError: the compiler rejects the code.
        OSError: there is no room for temporary files.
    """
    chosen = (*flags(), "-ffp-contract=fast" if fuse_multiply_add else "-ffp-contract=off")
    if not in_vectors:
        chosen += ("-fno-tree-vectorize", "-fno-tree-slp-vectorize")
    if ends_anywhere:
        chosen = tuple(flag for flag in chosen if flag != _ONE_LENGTH)
    chosen = tuple(level_for(source) if flag == _LEVEL else flag for flag in chosen)
    with temporary_directory() as directory:
        code, library = Path(directory, "kernel.c"), Path(directory, "kernel.so")
        code.write_text(source)
        complaint = _compile(code, library, chosen)
        if complaint is not None:
            if (said := os.strerror(errno.ENOSPC)) in complaint:
                raise _no_room(said)
            for_any = [flag for flag in chosen if flag not in _flags_for_this_cpu()]
            if _compile(code, library, for_any) is not None:
                raise CompilerFailedError(
                    "",
                    f"{compiler_version()} ({command()[0]}) failed on generated code: {complaint[:_MOST_SHOWN]}",
                )
            warnings.warn(
                f"{compiler_version()} does not take {' '.join(_flags_for_this_cpu())}; kernels are compiled for any "
                f"{platform.machine()} instead, and are slower. Install a newer compiler.",
                stacklevel=2,
            )
        return library.read_bytes()


def _compile(code: Path, library: Path, chosen: Sequence[str]) -> str | None:
    """Compile a file. Return the compiler's message if it failed, else None."""
    arguments = [*command(), *chosen, str(code), "-o", str(library), "-lm"]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    if done.returncode == 0 and library.exists():
        return None
    return done.stderr.strip() or f"exit status {done.returncode}, no file and no message"
