"""Run random kernels, by whatever Triton does in this process, and compare what they store.

Usage, with TRITON_INTERPRET=1: python -m tests.kernels.cpu.run_random FOLDER SEED...
writes what the interpreter stores otherwise to FOLDER/SEED.txt.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from tests.kernels.cpu.guard_pages import guarded
from tests.kernels.cpu.number_formats import FORMATS, Array, equal
from tests.kernels.cpu.random_kernels import RandomKernel, random_kernel

_TURNS = 5


def difference(folder: Path, seed: int) -> str | None:
    """What the kernel of `seed` stores otherwise than NumPy says; None where they agree."""
    kernel = random_kernel(seed)
    for place, (got, (letter, wanted, error)) in enumerate(
        zip(_stored(kernel, folder, seed), kernel.outputs, strict=True)
    ):
        right = equal(got, wanted)
        if error is not None:
            with np.errstate(invalid="ignore"):
                right |= np.abs(got.astype(np.longdouble) - wanted) <= error
        if not right.all():
            at = int(np.argmin(right))
            allowed = "" if error is None else f" within {error[at]}"
            return (
                f"seed {seed}: out{place}[{at}] of {FORMATS[letter].triton} is {got[at]!r}, "
                f"should be {wanted[at]!r}{allowed}\n{kernel.source}"
            )
    return None


def _stored(kernel: RandomKernel, folder: Path, seed: int) -> list[Array]:
    """Write the kernel to a file, launch it between guard pages and return its outputs."""
    file = folder / f"kernel_{seed}.py"
    file.write_text(kernel.source)
    specification = importlib.util.spec_from_file_location(file.stem, file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    with ExitStack() as pages:
        inputs, outputs = (
            [
                pages.enter_context(guarded(len(array), _dtype(letter), at_start=place % 2 == 1))
                for place, (letter, array) in enumerate(arrays)
            ]
            for arrays in (kernel.inputs, [(letter, wanted) for letter, wanted, _ in kernel.outputs])
        )
        for tensor, (_, array) in zip(inputs, kernel.inputs, strict=True):
            tensor.copy_(torch.from_numpy(array))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of NaN and overflow, which are meant
            module.kernel[(kernel.programs,)](
                *inputs, *outputs, kernel.length, _TURNS, enable_fp_fusion=False
            )
        return [_array(output.clone()) for output in outputs]


def _dtype(letter: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, FORMATS[letter].torch)
    return dtype


def _array(tensor: torch.Tensor) -> Array:
    return tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def differences(folder: Path, seeds: Iterable[int]) -> list[str]:
    """The differences of all kernels, and what went wrong with those that did not run."""
    return [text for _, text in _judged(folder, seeds) if text]


def _judged(folder: Path, seeds: Iterable[int]) -> Iterator[tuple[int, str]]:
    for seed in seeds:
        try:
            yield seed, difference(folder, seed) or ""
        except Exception as error:
            yield seed, f"seed {seed}: {type(error).__name__}: {error} {error.__cause__ or ''}"


if __name__ == "__main__":
    for seed, text in _judged(Path(sys.argv[1]), map(int, sys.argv[2:])):
        Path(sys.argv[1], f"{seed}.txt").write_text(text)
