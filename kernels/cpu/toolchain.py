"""The C compiler: which one, with which flags, and why there is none."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

_CANDIDATES = ("gcc", "clang", "cc")
# No -ffast-math: NaN and infinities mean what they mean. Errno and traps are given up, so that lanes vectorise.
_FLAGS = (
    "-std=gnu11",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fwrapv",
    "-fno-strict-aliasing",
    "-fopenmp",
    "-fPIC",
    "-shared",
    "-w",
)


class NoCompilerError(RuntimeError):
    """There is no C compiler that works."""


def why_not() -> str | None:
    """Return why kernels cannot be compiled on this machine, or None where they can.

    Example:
        >>> why_not() is None or "compiler" in why_not()
        True
    """
    try:
        compiler()
    except NoCompilerError as error:
        return str(error)
    return None


@functools.lru_cache
def compiler() -> str:
    """The path of the C compiler: $CC if set, else the first of gcc, clang and cc.

    Raises:
        NoCompilerError: none is there.
    """
    chosen = os.environ.get("CC")
    for name in (chosen,) if chosen else _CANDIDATES:
        if path := shutil.which(name):
            return path
    looked_for = f"$CC names '{chosen}'" if chosen else f"looked for {', '.join(_CANDIDATES)}"
    raise NoCompilerError(f"no C compiler on this machine; {looked_for}. Install gcc or clang.")


@functools.lru_cache
def compiler_version() -> str:
    """What the compiler says of itself, in one line."""
    said = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True).stdout
    return said.splitlines()[0]


@functools.lru_cache
def cpu_features() -> str:
    """What tells apart the CPUs that code may not be shared between: the architecture and its extensions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")


@functools.lru_cache
def flags() -> tuple[str, ...]:
    """The compiler's flags."""
    target = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
    wide = ("-mprefer-vector-width=512",) if "avx512f" in cpu_features().split() else ()
    return (*_FLAGS, target, *wide)


@functools.lru_cache
def has_vector_math(function: str) -> bool:
    """Say whether glibc has a vector twin of `function` (libmvec), within 4 ulp of the exact value."""
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


def compile_shared_object(source: str, fuse_multiply_add: bool) -> bytes:
    """Compile C to a shared object.

    Args:
        source: the C code.
        fuse_multiply_add: let a * b + c round once, as on a GPU.

    Raises:
        NoCompilerError: no compiler, or it does not take the code.
    """
    contraction = "-ffp-contract=fast" if fuse_multiply_add else "-ffp-contract=off"
    with tempfile.TemporaryDirectory(prefix="fusetune-") as directory:
        code, library = Path(directory, "kernel.c"), Path(directory, "kernel.so")
        code.write_text(source)
        command = [compiler(), *flags(), contraction, str(code), "-o", str(library), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoCompilerError(f"{compiler_version()} failed on generated code: {done.stderr.strip()}")
        return library.read_bytes()
