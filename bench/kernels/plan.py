"""From a spec of kernels to cases: every kernel x shape x dtype x direction, each with its competitors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import cast

from fusetune.bench.errors import InputError
from fusetune.bench.kernels.case import Case, Direction, KernelSource
from fusetune.bench.kernels.competitors import BUILT_IN
from fusetune.bench.kernels.description import KernelDescription, describe
from fusetune.bench.kernels.model_shapes import MODELS
from fusetune.bench.kernels.sources import kernel_source, parts_of
from fusetune.bench.kernels.spec import KernelSection, LoadedKernels, Shape, sections_of


@dataclass(frozen=True)
class Planned:
    """A case, and who it is compared with.

    Args:
        case: what is verified and timed.
        competitors: names, in the order of the report.
    """

    case: Case
    competitors: tuple[str, ...]


def plan_cases(loaded: LoadedKernels) -> tuple[Planned, ...]:
    """Find the kernels of a spec, and lay out their cases in its order.

    Args:
        loaded: the spec.

    Raises:
        InputError: a kernel that is not found or imported, a competitor or a shape that it does not have.

    Example:
        >>> from fusetune.bench.kernels import load_kernels
        >>> found = plan_cases(load_kernels(None, names=["gelu"], overrides=["shapes=[8, 9]"]))
        >>> [each.case.name for each in found], found[0].competitors
        (['gelu/8/float32', 'gelu/9/float32'], ('eager', 'compile'))
    """
    listed: dict[str, tuple[KernelSection, tuple[KernelDescription, ...]]] = {}
    for name, section in sections_of(loaded.spec).items():
        needs = {"make_inputs": section.make_inputs, "reference": section.reference}
        given = {key: _relocated(value, loaded) for key, value in needs.items() if value is not None}
        listed[name] = section, describe(kernel_source(_relocated(name, loaded), needs=given), loaded.device)
    _check_names([each for _, kernels in listed.values() for each in kernels])
    planned = [
        each
        for name, (section, kernels) in listed.items()
        for kernel in kernels
        for each in _cases(loaded, name, section, kernel)
    ]
    return tuple(planned)


def _relocated(reference: str, loaded: LoadedKernels) -> str:
    """Return a reference to a file that a spec names as one that means the same from here.

    Paths of a spec are relative to it, those of the command line to the current directory.
    """
    path, name = parts_of(reference)
    if not path.endswith(".py") or loaded.path is None or Path(path).is_absolute() or Path(path).is_file():
        return reference
    moved = os.path.join(loaded.path.parent, path)
    return moved if name is None else f"{moved}:{name}"


def _cases(
    loaded: LoadedKernels, name: str, section: KernelSection, kernel: KernelDescription
) -> Iterator[Planned]:
    """Yield the cases of one kernel."""
    spec = loaded.spec
    where = f"{loaded.document.where(('kernels', name))}: kernels.{name}"
    shapes: Sequence[Shape]
    if not kernel.sized:
        shapes = kernel.elements
    elif section.shapes is not None:
        shapes = section.shapes
    else:
        shapes = spec.shapes if loaded.asked_for("shapes") or not kernel.elements else kernel.elements
    dtypes = section.dtypes
    if dtypes is None:
        dtypes = (
            spec.dtypes if loaded.asked_for("dtypes") or kernel.source.is_shipped else list(kernel.dtypes)
        )
    directions = section.directions or spec.directions
    competitors = _competitors(section, spec.competitors, kernel, where)
    for shape, dtype, direction in product(shapes, dtypes, directions):
        _check(kernel, shape, direction, where)
        case = Case(
            kernel.source,
            kernel.name,
            shape,
            dtype,
            cast(Direction, direction),
            loaded.device,
            spec.threads,
        )
        yield Planned(case, competitors)


def _competitors(
    section: KernelSection, general: Sequence[str], kernel: KernelDescription, where: str
) -> tuple[str, ...]:
    """Return the competitors of a kernel that are asked for. Those of its own always are, but by a list for it alone.

    Raises:
        InputError: the list for this kernel names one that it does not have.
    """
    known = kernel.competitors
    if section.competitors is not None:
        for name in section.competitors:
            if name not in known:
                raise InputError.unknown(f"{where}.competitors", name, known)
        asked: Sequence[str] = section.competitors
    else:
        unknown = [name for name in general if name not in (*BUILT_IN, *known)]
        if unknown and kernel.source.is_shipped:
            raise InputError.unknown("competitors", unknown[0], BUILT_IN, in_order=True)
        own = [name for name in known if name not in BUILT_IN]
        asked = [*general, *own] if general else []
    return tuple(name for name in known if name in asked)


def _check_names(kernels: Sequence[KernelDescription]) -> None:
    """Refuse two kernels of one name, by which rows are told apart.

    Raises:
        InputError: names both places.
    """
    found: dict[str, KernelSource] = {}
    for each in kernels:
        first = found.setdefault(each.name, each.source)
        if first != each.source:
            known = f"{first.reference} and {each.source.reference}"
            raise InputError(each.name, "two kernels have this name", known, "Rename one")


def _check(kernel: KernelDescription, shape: Shape, direction: str, where: str) -> None:
    """Refuse what no kernel of this family can do.

    Raises:
        InputError: the parameters of a model, or a gradient, of a kernel that has none.
    """
    if shape in MODELS and kernel.family != "optimizer":
        what = f"{kernel.name} has no parameters to update on {shape}"
        raise InputError(where, what, f"it is of the family '{kernel.family}'", "Give a number")
    if direction == "backward" and kernel.family == "optimizer":
        raise InputError(where, f"{kernel.name} has no gradient", "an optimizer's step", "Use forward")
