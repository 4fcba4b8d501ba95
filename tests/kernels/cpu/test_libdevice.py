"""Functions of libdevice, by those of the C library: against Python's."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

SIZE = 64
# Of an argument from 0.05 to 0.95.
OF_ONE: dict[str, Callable[[float], float]] = {
    **{
        name: getattr(math, name)
        for name in (
            "acos", "asin", "asinh", "atan", "atanh", "cos", "cosh", "erf", "erfc", "exp", "expm1", "lgamma",
            "log", "log10", "log1p", "log2", "sin", "sinh", "sqrt", "tan", "tanh",
        )
    },
    "cbrt": lambda x: x ** (1 / 3),
    "exp10": lambda x: 10.0**x,
    "exp2": lambda x: 2.0**x,
    "rsqrt": lambda x: x**-0.5,
    "tgamma": math.gamma,
}  # fmt: skip
# Of any argument, exactly.
EXACT: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "trunc": math.trunc,
    "rint": round,
    "nearbyint": round,
    "round": lambda x: math.copysign(math.floor(abs(x) + 0.5), x),
}
OF_TWO: dict[str, Callable[[float, float], float]] = {
    "atan2": math.atan2,
    "copysign": math.copysign,
    "fdim": lambda x, y: max(x - y, 0.0),
    "fmod": math.fmod,
    "hypot": math.hypot,
    "pow": lambda x, y: abs(x) ** y,
    "remainder": math.remainder,
}


def launch(folder: Path, expressions: list[str], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Store one expression of x and y a row."""
    lines = [
        "import triton",
        "import triton.language as tl",
        "from triton.language.extra import libdevice",
        "",
    ]
    lines += [
        "@triton.jit",
        "def kernel(x_ptr, y_ptr, out_ptr, SIZE: tl.constexpr):",
        "    i = tl.arange(0, SIZE)",
    ]
    lines += ["    x = tl.load(x_ptr + i)", "    y = tl.load(y_ptr + i)"]
    lines += [f"    tl.store(out_ptr + {row} * SIZE + i, {text})" for row, text in enumerate(expressions)]
    file = folder / "generated.py"
    file.write_text("\n".join(lines) + "\n")
    specification = importlib.util.spec_from_file_location("generated", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    out = torch.empty(len(expressions), SIZE, dtype=x.dtype)
    module.kernel[(1,)](x, y, out, SIZE=SIZE, enable_fp_fusion=False)
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_functions_are_within_a_few_roundings(dtype: torch.dtype, tmp_path: Path) -> None:
    x = torch.linspace(0.05, 0.95, SIZE, dtype=dtype)
    names = [*OF_ONE, "acosh"]
    texts = [f"libdevice.{name}({'x + 1' if name == 'acosh' else 'x'})" for name in names]
    got = launch(tmp_path, texts, x, x).double()
    for row, name in enumerate(names):
        arguments = (x + 1 if name == "acosh" else x).tolist()
        function = math.acosh if name == "acosh" else OF_ONE[name]
        wanted = torch.tensor([function(each) for each in arguments], dtype=torch.float64)
        # Near its zero at 1 Python's own lgamma has no digits to spare.
        allowed = 6 * torch.finfo(dtype).eps * wanted.abs().clamp_min(1 if name == "lgamma" else 0)
        assert ((got[row] - wanted).abs() <= allowed).all(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_exact_functions_are_exact(dtype: torch.dtype, tmp_path: Path) -> None:
    x = torch.cat([torch.linspace(-4, 4, SIZE - 15), torch.arange(-7, 8) / 2]).to(dtype)
    got = launch(tmp_path, [f"libdevice.{name}(x)" for name in EXACT], x, x)
    for row, (name, function) in enumerate(EXACT.items()):
        assert got[row].tolist() == [float(function(each)) for each in x.tolist()], name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_functions_of_two_numbers(dtype: torch.dtype, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, SIZE, generator=generator, dtype=dtype)
    texts = [f"libdevice.{name}({'tl.abs(x)' if name == 'pow' else 'x'}, y)" for name in OF_TWO]
    got = launch(tmp_path, [*texts, "libdevice.fma(x, y, x)"], x, y).double()
    for row, (name, function) in enumerate(OF_TWO.items()):
        wanted = torch.tensor(
            [function(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)], dtype=torch.float64
        )
        assert ((got[row] - wanted).abs() <= 6 * torch.finfo(dtype).eps * wanted.abs()).all(), name
    fused = (x.numpy().astype(np.longdouble) * y.numpy() + x.numpy()).astype(x.numpy().dtype)
    assert np.allclose(got[-1].numpy(), fused, rtol=torch.finfo(dtype).eps, atol=0)
