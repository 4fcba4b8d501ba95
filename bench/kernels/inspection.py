"""What a person's kernel is, and a look at what its `make_inputs` gives, before anything is built. For lanes only.

It finds mistakes that can be told in a sentence. The driver's side is `description`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from fusetune.bench.errors import InputError
from fusetune.bench.kernels.case import KernelSource
from fusetune.bench.kernels.competitors import competitors_of
from fusetune.bench.kernels.detection import bits_of
from fusetune.bench.kernels.loading import OwnKernel, kernels_in, load_kernel, load_own
from fusetune.bench.kernels.signatures import (
    Parameters,
    main_dtype,
    takes_config,
    tensors_in,
)
from fusetune.bench.own_modules import said_by
from fusetune.kernels import chosen_by_decorators, is_autotuned, is_triton_function

# Elements that are asked for, where the author names no size.
_ELEMENTS = 1000
_SEEDS = (1, 2)


def described(source: KernelSource, device: str) -> list[dict[str, Any]]:
    """Describe the kernels of a source, after a look at what `make_inputs` gives. For lanes only.

    Args:
        source: of one kernel, or of a file.
        device: on which inputs are made.

    Raises:
        InputError: as `load_kernel`; inputs that are none, that do not fit the functions or that do not depend on the
            seed.
    """
    return [_described(each, device) for each in kernels_in(source)]


def _described(source: KernelSource, device: str) -> dict[str, Any]:
    own = None if source.is_shipped else load_own(source)
    kernel = load_kernel(source) if own is None else own.kernel
    elements, dtypes = kernel.elements, kernel.dtypes
    if own is not None:
        elements, dtypes = inspected(own, torch.device(device))
    return {
        "reference": source.reference,
        "import_paths": list(source.import_paths),
        "needs": [list(pair) for pair in source.needs],
        "name": kernel.name,
        "family": kernel.family,
        "elements": list(elements),
        "dtypes": [str(dtype).removeprefix("torch.") for dtype in dtypes],
        "sized": kernel.sized,
        "configs": [dict(config) for config in kernel.configs],
        "default": None if kernel.default is None else dict(kernel.default),
        "takes_config": takes_config(kernel.fused),
        "autotuned": own is not None and is_autotuned(own.fused),
        "competitors": list(competitors_of(kernel)),
        "atomics": bool(kernel.atomics),
        "alignment": int(kernel.alignment),
        "tolerance": None if kernel.tolerance is None else float(kernel.tolerance),
        "given": [] if own is None else sorted(own.fields),
    }


def inspected(own: OwnKernel, device: torch.device) -> tuple[tuple[int, ...], tuple[torch.dtype, ...]]:
    """Return the sizes and dtypes of a person's kernel, after a look at its inputs.

    Args:
        own: see `load_own`.
        device: on which inputs are made.

    Returns:
        Where `make_inputs` takes no size, that of its largest tensor, and where it takes no dtype, that of its inputs.

    Raises:
        InputError: `make_inputs` fails, gives no tensors, gives the same values whatever the seed, gives other values
            for the same seed, or gives what the functions do not take.
    """
    kernel = own.kernel
    elements = kernel.elements[0] if kernel.elements else _ELEMENTS
    takes_dtype = _takes_dtype(own.make_inputs)

    def make(seed: int) -> dict[str, Any]:
        try:
            # Without a dtype: as they are made.
            return kernel.make_inputs(elements, kernel.dtypes[0] if takes_dtype else None, device, seed)  # type: ignore[arg-type]
        except InputError:
            raise
        except Exception as error:  # a person's make_inputs
            asked = f"make_inputs fails for {elements} elements" if kernel.sized else "make_inputs fails"
            to_do = "Mend it, or name sizes that it takes: elements = (4096,)" if kernel.sized else "Mend it"
            file = getattr(getattr(own.make_inputs, "__code__", None), "co_filename", None)
            raise InputError(own.where, asked, said_by(error, file), to_do) from error

    with _filled_memory():
        first, again, other = make(_SEEDS[0]), make(_SEEDS[0]), make(_SEEDS[1])
    _check_seeds(first, again, other, own.where)
    _check_names(own, first)
    tensors = [tensor for _, tensor in tensors_in(first)]
    sizes = kernel.elements if kernel.sized else (max(tensor.numel() for tensor in tensors),)
    natural = main_dtype(first)
    if takes_dtype or natural is None or "dtypes" in own.fields:
        return sizes, kernel.dtypes
    return sizes, (natural,)


@contextmanager
def _filled_memory() -> Iterator[None]:
    """Have new memory that nobody wrote hold the same each time."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _takes_dtype(make_inputs: Callable[..., Any]) -> bool:
    own = Parameters.of(make_inputs)
    return own.takes(["dtype"]) or len(own.names) == 4


def _check_seeds(
    first: Mapping[str, Any], again: Mapping[str, Any], other: Mapping[str, Any], where: str
) -> None:
    """Refuse inputs that do not depend on the seed, or that depend on something else."""
    if not any(map(_differ, _tensors(first), _tensors(other))):
        raise InputError(
            where,
            "make_inputs gives the same values for every seed",
            "a kernel could then keep its results",
            "Draw them by torch.Generator().manual_seed(seed)",
        )
    if any(map(_differ, _tensors(first), _tensors(again))):
        raise InputError(
            where,
            "make_inputs gives other values for the same seed",
            "the reference and the kernel would get different ones",
            "Draw them by torch.Generator().manual_seed(seed)",
        )


def _check_names(own: OwnKernel, inputs: Mapping[str, Any]) -> None:
    """Refuse inputs that the functions cannot be called with."""
    functions = [("fused", own.fused)]
    if not is_triton_function(own.fused):
        functions.append(("reference", own.reference))
    for name, function in functions:
        takes = Parameters.of(function)
        by_position = name == "reference" and len(takes.names) == len(inputs)
        if takes.rest is not None or takes.takes_any or by_position:
            continue
        known = takes.by_keyword | set(takes.names)
        for key in inputs:
            if key not in known:
                raise InputError.unknown(
                    f"{own.where}: make_inputs: {name}",
                    key,
                    takes.names,
                    in_order=True,
                    otherwise="Rename it.",
                )
        chosen = {*inputs, *(own.kernel.configs[-1] if own.kernel.configs else ())}
        missing = sorted(takes.needed - chosen - chosen_by_decorators(function))
        if missing and missing[0] in takes.constexprs:
            raise InputError(
                own.where,
                f"nothing gives its {missing[0]}",
                to_do=f"Write configs = config_grid({missing[0]}=(256, 1024)), from fusetune.kernels",
            )
        if missing:
            raise InputError(
                own.where,
                f"{name} needs '{missing[0]}'",
                f"make_inputs gives {', '.join(inputs)}",
                "Return it, too",
            )


def _tensors(inputs: Mapping[str, Any]) -> list[torch.Tensor]:
    return [tensor for _, tensor in tensors_in(inputs)]


def _differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape != other.shape or not torch.equal(bits_of(one), bits_of(other))
