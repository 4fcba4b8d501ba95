"""Run one random kernel, by whatever Triton does in this process."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import torch

from tests.kernels.cpu.random_kernels import DTYPES, make_inputs, random_kernel

_TURNS = 5


def run(folder: Path, seed: int) -> list[np.ndarray]:
    """Write the kernel of `seed` to a file, launch it and return its outputs."""
    kernel = random_kernel(seed)
    file = folder / f"kernel_{seed}.py"
    file.write_text(kernel.source)
    specification = importlib.util.spec_from_file_location(file.stem, file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    inputs = [torch.from_numpy(array) for array in make_inputs(kernel, seed)]
    outputs = [
        torch.zeros(kernel.length, dtype=getattr(torch, DTYPES[letter])) for letter, _ in kernel.outputs
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy warns of NaN and overflow, which are meant
        module.kernel[(kernel.grid,)](*inputs, *outputs, kernel.length, _TURNS, enable_fp_fusion=False)
    return [output.numpy() for output in outputs]
