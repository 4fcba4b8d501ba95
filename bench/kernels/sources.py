"""From `NAME`, `package.module:KERNEL`, `FILE.py` or `FILE.py:NAME`, as it is typed, to a `KernelSource`.

Nothing of a person's is imported here. `loading` does that, in a lane.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from fusetune.bench.errors import InputError
from fusetune.bench.kernels.case import KernelSource

_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_KNOWN = "known: a kernel's name, package.module:KERNEL, FILE.py and FILE.py:NAME"


def kernel_source(text: str, *, needs: Mapping[str, str] | None = None) -> KernelSource:
    """Say where a kernel is found. Nothing of a person's is imported.

    Args:
        text: `gelu`, `package.module:KERNEL`, `FILE.py` or `FILE.py:NAME`. Paths are relative to the current directory.
        needs: what a function lacks and another file has, e.g. `{"make_inputs": "FILE.py:NAME"}`.

    Raises:
        InputError: another form, an unknown name, a file that is not there.

    Example:
        >>> kernel_source("gelu").reference, kernel_source("package.module:KERNEL").is_shipped
        ('gelu', False)
    """
    path, name = parts_of(text)
    if name is None and not path.endswith(".py") and not _is_path(path):
        from fusetune.kernels import KERNELS

        if text not in KERNELS:
            otherwise = "Use one of these, or name a kernel of your own as FILE.py or package.module:KERNEL."
            raise InputError.unknown("kernel", text, KERNELS, otherwise=otherwise)
        return KernelSource(text)
    elsewhere = tuple((field, _absolute(reference)) for field, reference in (needs or {}).items())
    return KernelSource(_absolute(text), (os.getcwd(),), elsewhere)


def parts_of(reference: str) -> tuple[str, str | None]:
    """Split a reference into its module or file, and the name in it, where there is one.

    Example:
        >>> parts_of("kernels/mine.py:add"), parts_of("kernels/mine.py")
        (('kernels/mine.py', 'add'), ('kernels/mine.py', None))
    """
    path, colon, name = reference.rpartition(":")
    return (path, name) if colon else (reference, None)


def _absolute(reference: str) -> str:
    """A reference that means the same in another directory, after a check of its form."""
    path, name = parts_of(reference)
    if name is not None and not name.isidentifier():
        raise _wrong_form(reference)
    if not path.endswith(".py"):
        if name is None or not _MODULE.fullmatch(path):
            raise _wrong_form(reference)
        return reference
    file = Path(path).expanduser().absolute()
    if not file.is_file():
        what = "is a directory" if file.is_dir() else "no such file"
        raise InputError(reference, what, f"looked for {file}", "Check the path")
    return str(file) if name is None else f"{file}:{name}"


def _is_path(text: str) -> bool:
    return "/" in text or os.sep in text or os.path.exists(text)


def _wrong_form(reference: str) -> InputError:
    return InputError(reference, "does not name a kernel", _KNOWN, "Write it in one of these forms")
