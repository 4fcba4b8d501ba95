"""Messages of assertions and prints come out as they were written, whatever stands in them."""

from __future__ import annotations

import importlib.util
import string
from pathlib import Path
from typing import Any

import pytest
import torch

MESSAGES = [
    "n \N{RIGHTWARDS ARROW} klein",
    "bell \x07",
    "\x0712 and \x1bfe",  # digits behind a control character
    "100 %s %d %%",
    "what??/ ??= ??)",  # trigraphs of -std=gnu11
    "two\nlines\tand a tab",
    "quoted \"so\" and 'so'",
    "back\\slash \\n \\41 \\5C C:\\temp",
    "\U0001f600\N{COMBINING ACUTE ACCENT}",
]


def kernels(folder: Path, message: str) -> Any:
    """A module with a kernel that prints and one that asserts."""
    file = folder / "telling.py"
    file.write_text(
        "import triton\nimport triton.language as tl\n\n\n"
        f"@triton.jit\ndef asserts(x_ptr):\n    tl.device_assert(tl.load(x_ptr) > 0, {message!r})\n\n\n"
        f"@triton.jit\ndef prints(x_ptr):\n    tl.device_print({message!r}, tl.load(x_ptr))\n"
        f"    tl.device_print({message!r})\n",
        encoding="utf-8",
    )
    specification = importlib.util.spec_from_file_location("telling", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("message", MESSAGES)
def test_an_assertion_says_it(message: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        kernels(tmp_path, message).asserts[(1,)](torch.zeros(1, dtype=torch.int32), debug=True)
    assert str(caught.value) == f"asserts: {message}"


# Triton itself refuses prints of anything else.
@pytest.mark.parametrize(
    "message", [*(each for each in MESSAGES if set(each) <= set(string.printable)), "\x0b1\x0c"]
)
def test_a_print_says_it(message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kernels(tmp_path, message).prints[(1,)](torch.full((1,), 7, dtype=torch.int32))
    said = capfd.readouterr().out
    assert said.count(message) == 2
    assert f"{message}: 7\n" in said
