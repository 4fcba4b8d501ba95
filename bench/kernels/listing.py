"""What kernels a source names, and what they say of themselves. A person's code is imported in a process of its own."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from fusetune.bench.errors import InputError
from fusetune.bench.kernels.case import KernelSource
from fusetune.bench.kernels.competitors import competitors_of
from fusetune.bench.kernels.loading import kernels_in, load_kernel
from fusetune.bench.kernels.signatures import tensors_in
from fusetune.errors import FusetuneError
from fusetune.kernels import Kernel

# Importing torch from a cold disk takes about a minute, and a person's module may compile something.
_PATIENCE_S = 300.0


@dataclass(frozen=True)
class Listed:
    """A kernel, as far as a benchmark is planned by it.

    Args:
        source: of this kernel alone.
        name: unique, for reports.
        family: e.g. `optimizer`.
        elements: sizes that it names itself. Empty: none.
        dtypes: that it names itself, by torch's names.
        competitors: the other ways to do its work.
        sized: whether its inputs can have any size.
    """

    source: KernelSource
    name: str
    family: str
    elements: tuple[int, ...]
    dtypes: tuple[str, ...]
    competitors: tuple[str, ...]
    sized: bool = True


def list_kernels(source: KernelSource) -> tuple[Listed, ...]:
    """Return the kernels that a source names: one, or all of a file.

    Args:
        source: from `kernel_source`.

    Raises:
        InputError: nothing to import, an import that fails, or no kernel there.

    Example:
        >>> [each.name for each in list_kernels(KernelSource("gelu"))]
        ['gelu']
    """
    if source.is_shipped:
        return _listed(source)
    found: tuple[Listed, ...] = in_own_process(_listed, source, where=source.reference)
    return found


def in_own_process(function: Callable[..., Any], *arguments: Any, where: str) -> Any:
    """Return what a function returns in a process of its own, which imports code of others.

    Args:
        function: of a module, so that the process finds it.
        arguments: picklable, as is the result.
        where: what the code belongs to, for errors.

    Raises:
        InputError: from the function, or the process died or took minutes.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_tell, args=(theirs, function, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        kind, content = ours.recv() if ours.poll(_PATIENCE_S) else ("late", None)
    except (EOFError, OSError):
        kind, content = "died", None
    finally:
        process.kill()
        process.join()
        ours.close()
    if kind == "done":
        return content
    if kind == "wrong":
        raise InputError(*content)
    said = "does not finish importing" if kind == "late" else "ends the process that imports it"
    raise InputError(where, said, to_do="Import it by itself to see why")


def _listed(source: KernelSource) -> tuple[Listed, ...]:
    found = []
    for each in kernels_in(source):
        kernel = load_kernel(each)
        found.append(
            Listed(
                each,
                kernel.name,
                kernel.family,
                tuple(kernel.elements) if kernel.sized else (_size(kernel),),
                tuple(str(dtype).removeprefix("torch.") for dtype in kernel.dtypes),
                competitors_of(kernel),
                kernel.sized,
            )
        )
    return tuple(found)


def _size(kernel: Kernel) -> int:
    """Return the elements of the largest input of a kernel that has one size."""
    import torch

    inputs = kernel.make_inputs(1, torch.float32, torch.device("cpu"), 0)
    return max((each.numel() for _, each in tensors_in(inputs)), default=1)


def _tell(connection: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Send what a function returns. What a person's module prints goes to standard error."""
    sys.stdout = sys.stderr
    answer: tuple[str, Any]
    try:
        answer = "done", function(*arguments)
    except FusetuneError as error:
        answer = "wrong", (error.where, error.what, error.known, error.to_do)
    connection.send(answer)


def unique(kernels: Sequence[Listed]) -> tuple[Listed, ...]:
    """Return kernels that differ in name, and refuse two of one name.

    Raises:
        InputError: names both places.
    """
    found: dict[str, Listed] = {}
    for each in kernels:
        first = found.setdefault(each.name, each)
        if first.source != each.source:
            known = f"{first.source.reference} and {each.source.reference}"
            raise InputError(each.name, "two kernels have this name", known, "Rename one")
    return tuple(found.values())
