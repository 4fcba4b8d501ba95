"""Where another process finds the kernel that a test holds in its hands."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from fusetune.bench.errors import InputError
from fusetune.bench.kernels import KernelSource, kernel_source

if TYPE_CHECKING:
    from fusetune.kernels import Kernel

WHERE = "kernel_benchmark"


def source_of(kernel: Kernel | ModuleType | str, test_module: ModuleType) -> KernelSource:
    """Return where a kernel is found.

    Args:
        kernel: a `Kernel` that a module holds under a name, a module with `fused`, `reference` and `make_inputs`, or
            what `bench kernels` takes: a shipped kernel's name, `package.module:NAME`, `FILE.py` or `FILE.py:NAME`.
        test_module: the module of the test. It is searched first.

    Raises:
        InputError: no module holds the kernel, so no other process can import it. Or a reference has no known form.

    Example:
        >>> from fusetune.kernels import KERNELS
        >>> source_of(KERNELS["gelu"], sys).reference, source_of("gelu", sys).reference
        ('gelu', 'gelu')
    """
    from fusetune.kernels import KERNELS

    folders = tuple(each for each in dict.fromkeys(sys.path) if each and Path(each).is_dir())
    if isinstance(kernel, str):
        found = kernel_source(_beside(kernel, test_module))
        return found if found.is_shipped else replace(found, import_paths=folders)
    if isinstance(kernel, ModuleType):
        return KernelSource(_file_of(kernel), folders)
    if KERNELS.get(kernel.name) is kernel:
        return KernelSource(kernel.name)
    for module in _modules(test_module):
        for name, value in list(vars(module).items()):
            if value is kernel:
                return KernelSource(f"{_place(module)}:{name}", folders)
    raise InputError(
        WHERE,
        f"no module has the kernel {kernel.name!r} under a name, and another process runs it",
        to_do="Assign it at the top of a module, as in `KERNEL = Kernel(...)`",
    )


def _beside(text: str, test_module: ModuleType) -> str:
    """Return a reference whose file, where it is relative and lies beside the test, is absolute."""
    beside = Path(_file_of(test_module)).parent / text.partition(":")[0]
    return str(beside.parent / text) if beside.suffix == ".py" and beside.exists() else text


def _modules(test_module: ModuleType) -> Iterator[ModuleType]:
    """Yield the modules that may hold a kernel: that of the test, and all that have a file."""
    yield test_module
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and getattr(module, "__file__", None):
            yield module


def _place(module: ModuleType) -> str:
    """Return how a module is imported again: by its dotted name, or by its file if it is in no package."""
    return module.__name__ if "." in module.__name__ else _file_of(module)


def _file_of(module: ModuleType) -> str:
    return str(Path(str(getattr(module, "__file__", None) or module.__name__)).resolve())
