"""The kernels of docs/your-kernel.md are found, described, and right. tests/test_snippets.py runs its commands."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fusetune.bench.kernels.inspection import described
from fusetune.bench.kernels.loading import FIELDS, load_kernel
from fusetune.bench.kernels.signatures import takes_config
from fusetune.bench.kernels.sources import kernel_source
from fusetune.kernels import Kernel

PAGE = (Path(__file__).parents[3] / "docs" / "your-kernel.md").read_text()


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The page's files, in an empty current directory."""
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), [*sys.path]
    found = dict(re.findall(r"^```python\n# ([\w.]+)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE))
    for name, text in found.items():
        (tmp_path / name).write_text(text)
    yield found
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def results(kernel: Kernel, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """What the kernel gives and what is right."""
    inputs = kernel.make_inputs(5003, dtype, torch.device("cpu"), 1)
    config = {"config": kernel.default or kernel.configs[0]} if takes_config(kernel.fused) else {}
    exact = {key: each.double() if isinstance(each, torch.Tensor) else each for key, each in inputs.items()}
    returned, truth = kernel.fused(**inputs, **config), kernel.reference(**exact)
    return (inputs["out_ptr"], exact["out_ptr"]) if returned is None else (returned, truth)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("own_gate.py", "own_gate"),
        ("own_tuned_gate.py", "own_tuned_gate"),
        ("own_jit.py", "gate_kernel"),
        ("own_autotuned.py", "gate_kernel"),
        ("own_kernels:GATE", "gate"),
    ],
)
def test_each_form_of_the_page_is_a_kernel_that_is_right(text: str, name: str) -> None:
    (found,) = described(kernel_source(text), "cpu")
    assert found["name"] == name
    assert found["sized"]
    kernel = load_kernel(kernel_source(text))
    for dtype, error in ((torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
        ours, truth = results(kernel, dtype)
        torch.testing.assert_close(ours.double(), truth, rtol=error, atol=error)


def test_the_page_has_every_file_once(files: dict[str, str]) -> None:
    assert [*files] == [
        "own_gate.py",
        "own_tuned_gate.py",
        "own_jit.py",
        "own_autotuned.py",
        "own_kernels.py",
    ]


def test_the_page_lists_what_a_file_can_say() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert listed == set(FIELDS) - {"family"}
