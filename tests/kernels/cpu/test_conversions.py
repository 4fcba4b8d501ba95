"""Conversions between floats as Triton's IR has them: which of them a front end emits differs between releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import triton
from triton.compiler.errors import CompilationError

from tests.kernels.cpu.number_formats import FORMATS, Array, convert, equal

NAMES = {"h": "f16", "w": "bf16", "f": "f32", "d": "f64"}
SIZE = 1024


def compiled(folder: Path, source: str, targets: dict[str, str]) -> Any:
    """A kernel that converts its first argument to each of the others.

    Args:
        source: letter of what it loads.
        targets: letter of what it stores -> the attribute that says how to round.
    """
    names = [NAMES[letter] for letter in targets]
    arguments = "".join(f", %y{place}: !tt.ptr<{name}>" for place, name in enumerate(names))
    lines = []
    for place, (name, rounding) in enumerate(zip(names, targets.values(), strict=True)):
        lines.append(f"""
    %c{place} = tt.fp_to_fp %v{rounding} : tensor<{SIZE}x{NAMES[source]}> -> tensor<{SIZE}x{name}>
    %s{place} = tt.splat %y{place} : !tt.ptr<{name}> -> tensor<{SIZE}x!tt.ptr<{name}>>
    %t{place} = tt.addptr %s{place}, %i : tensor<{SIZE}x!tt.ptr<{name}>>, tensor<{SIZE}xi32>
    tt.store %t{place}, %c{place} : tensor<{SIZE}x!tt.ptr<{name}>>""")
    file = folder / f"{source}_to_{''.join(targets)}.ttir"
    file.write_text(f"""
module {{
  tt.func public @convert(%x: !tt.ptr<{NAMES[source]}>{arguments}) {{
    %size = arith.constant {SIZE} : i32
    %program = tt.get_program_id x : i32
    %first = arith.muli %program, %size : i32
    %lane = tt.make_range {{end = {SIZE} : i32, start = 0 : i32}} : tensor<{SIZE}xi32>
    %start = tt.splat %first : i32 -> tensor<{SIZE}xi32>
    %i = arith.addi %start, %lane : tensor<{SIZE}xi32>
    %p = tt.splat %x : !tt.ptr<{NAMES[source]}> -> tensor<{SIZE}x!tt.ptr<{NAMES[source]}>>
    %q = tt.addptr %p, %i : tensor<{SIZE}x!tt.ptr<{NAMES[source]}>>, tensor<{SIZE}xi32>
    %v = tt.load %q : tensor<{SIZE}x!tt.ptr<{NAMES[source]}>>
{"".join(lines)}
    tt.return
  }}
}}
""")
    return triton.compile(str(file), target=triton.runtime.driver.active.get_current_target())


def values(letter: str) -> torch.Tensor:
    """Every number of a short format. Of a long one random bits, and numbers near those that short formats hold."""
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    if letter in "hw":
        return bits.view(getattr(torch, FORMATS[letter].torch))
    generator = torch.Generator().manual_seed(0)
    wide = torch.float32 if letter == "f" else torch.float64
    random = torch.randint(-(2**31), 2**31 - 1, (2**16,), generator=generator, dtype=torch.int32)
    near = [bits.view(short).to(wide) for short in (torch.float16, torch.bfloat16)]
    near = [each * (1 + torch.randn(2**16, generator=generator, dtype=wide) * 2.0**-11) for each in near]
    return torch.cat([random.view(torch.float32).to(wide), *near])


def array(tensor: torch.Tensor) -> Array:
    return tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


@pytest.mark.parametrize("source", NAMES)
def test_each_float_becomes_the_nearest_of_each_other_format(source: str, tmp_path: Path) -> None:
    widths = {"h": 16, "w": 16, "f": 32, "d": 64}
    targets = {
        letter: ", rounding = rtne" if widths[letter] <= widths[source] else ""
        for letter in NAMES
        if letter != source
    }
    x = values(source)
    outputs = [torch.empty(len(x), dtype=getattr(torch, FORMATS[letter].torch)) for letter in targets]
    compiled(tmp_path, source, targets)[len(x) // SIZE, 1, 1](x, *outputs)
    for letter, output in zip(targets, outputs, strict=True):
        right = equal(array(output), convert(array(x), letter))
        at = int(np.argmin(right))
        assert right.all(), f"{source} to {letter}: {x[at]} became {output[at]}"


def test_a_rounding_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompilationError, match=r"tt\.fp_to_fp cannot be compiled for the CPU: .*to f32"):
        compiled(tmp_path, "d", {"f": ", rounding = rtz"})
