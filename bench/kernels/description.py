"""What a person's kernel is, before anything is measured: asked of a lane, which alone imports it.

The lane's side is `inspection`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fusetune.bench.errors import InputError
from fusetune.bench.kernels.case import KernelSource
from fusetune.bench.kernels.lane import LaneError


@dataclass(frozen=True)
class KernelDescription:
    """What is known of a kernel without a measurement. It has plain values alone, so that processes can tell it.

    Args:
        source: of this kernel alone.
        name, family, elements, atomics, alignment, tolerance: see `Kernel`.
        dtypes: torch's names. Of a kernel whose `make_inputs` takes no dtype: that of its inputs.
        sized: whether `elements` can be chosen. Otherwise `elements` is the size that the inputs have.
        configs: the launch-config space.
        default: the config that is shipped.
        takes_config: whether it is called with a config.
        autotuned: whether it is decorated by `@triton.autotune`.
        competitors: the other ways to do its work, the author's own among them.
        given: fields of `Kernel` that the author gave.
    """

    source: KernelSource
    name: str
    family: str = "own"
    elements: tuple[int, ...] = ()
    dtypes: tuple[str, ...] = ("float32",)
    sized: bool = True
    configs: tuple[Mapping[str, int], ...] = field(default=(), repr=False)
    default: Mapping[str, int] | None = None
    takes_config: bool = False
    autotuned: bool = False
    competitors: tuple[str, ...] = ()
    atomics: bool = False
    alignment: int = 1
    tolerance: float | None = None
    given: tuple[str, ...] = ()


def describe(source: KernelSource, device: str = "cpu") -> tuple[KernelDescription, ...]:
    """Return what the kernels of a source are: one, or all of a file. The driver imports none of a person's.

    Args:
        source: see `kernel_source`.
        device: on which inputs are made, to look at them.

    Raises:
        InputError: there is no kernel, its module fails or ends the process, or something is missing or wrong.

    Example:
        >>> describe(KernelSource("gelu"))[0].competitors
        ('eager', 'compile')
    """
    if source.is_shipped:
        from fusetune.bench.kernels.inspection import described

        return tuple(map(read_description, described(source, device)))
    from fusetune.bench.kernels.process import ProcessLane

    try:
        with ProcessLane("ours", device=device) as lane:
            found = lane.describe(source)
    except LaneError as error:
        # What is wrong in a file is a sentence with its own place. A process that ended has none.
        where = "" if error.status == "does not build" else os.path.basename(source.reference)
        raise InputError(where, error.reason) from None
    return tuple(map(read_description, found))


def read_description(found: Mapping[str, Any]) -> KernelDescription:
    """Take what `described` returns, with every value of the type that it must have.

    Args:
        found: as a process told it.
    """
    needs = tuple((str(key), str(value)) for key, value in found["needs"])
    configs = [{str(key): int(value) for key, value in config.items()} for config in found["configs"]]
    default = found["default"]
    return KernelDescription(
        source=KernelSource(str(found["reference"]), tuple(map(str, found["import_paths"])), needs),
        name=str(found["name"]),
        family=str(found["family"]),
        elements=tuple(map(int, found["elements"])),
        dtypes=tuple(map(str, found["dtypes"])),
        sized=bool(found["sized"]),
        configs=tuple(configs),
        default=None if default is None else {str(key): int(value) for key, value in default.items()},
        takes_config=bool(found["takes_config"]),
        autotuned=bool(found["autotuned"]),
        competitors=tuple(map(str, found["competitors"])),
        atomics=bool(found["atomics"]),
        alignment=int(found["alignment"]),
        tolerance=None if found["tolerance"] is None else float(found["tolerance"]),
        given=tuple(map(str, found["given"])),
    )
