"""What a person's kernel is, found in a process of its own. What is wrong with it is said in one sentence."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusetune.bench.errors import InputError
from fusetune.bench.kernels.description import describe
from fusetune.bench.kernels.inspection import described
from fusetune.bench.kernels.sources import kernel_source

OWN = Path(__file__).with_name("own_kernels")


@pytest.fixture(autouse=True)
def forget_files() -> Iterator[None]:
    before, path = set(sys.modules), [*sys.path]
    yield
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def test_every_kernel_of_a_file_is_described_and_the_driver_imports_none() -> None:
    twice, half = describe(kernel_source(str(OWN / "several.py")))
    assert (twice.name, half.name) == ("twice", "half")
    assert half.dtypes == ("float32", "float16")
    assert half.source.reference == f"{OWN / 'several.py'}:HALF"
    assert half.given == ("dtypes", "fused", "make_inputs", "name", "reference")
    assert "own_file_several" not in sys.modules


@pytest.mark.parametrize(
    ("name", "elements", "sized", "autotuned", "takes_config"),
    [
        ("three_functions", (5000,), False, False, False),
        ("lists_of_tensors", (1000,), False, False, False),
        ("star_inputs", (), True, False, False),
        ("with_heuristics", (1000,), True, False, False),
        ("autotuned", (), True, True, True),
        ("takes_config", (), True, False, True),
        ("ten_lines", (), True, False, True),
    ],
)
def test_sizes_and_configs_are_described(
    name: str, elements: tuple[int, ...], sized: bool, autotuned: bool, takes_config: bool
) -> None:
    (found,) = described(kernel_source(str(OWN / f"{name}.py")), "cpu")
    assert tuple(found["elements"]) == elements
    assert (found["sized"], found["autotuned"], found["takes_config"]) == (sized, autotuned, takes_config)


def test_shipped_kernels_are_described() -> None:
    (gelu,) = describe(kernel_source("gelu"))
    assert (gelu.name, gelu.family, gelu.source.is_shipped) == ("gelu", "activation", True)


START = "import torch\ndef fused(x, w): return x * w\ndef reference(x, w): return w * x\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "def make_inputs(seed): return 1 / 0\n",
            "make_inputs fails; ZeroDivisionError: division by zero (mine.py, line 4)",
        ),
        (
            "def make_inputs(elements, seed): return torch.ones(elements).view(7, 3)\n",
            "make_inputs fails for 1000 elements; RuntimeError: shape '[7, 3]' is invalid for input of size 1000 "
            "(mine.py, line 4). Mend it, or name sizes that it takes: elements = (4096,)",
        ),
        (
            "def make_inputs(seed): return torch.ones(3), torch.ones(3)\n",
            "make_inputs gives the same values for every",
        ),
        (
            "import os\ndef make_inputs(seed): return torch.tensor([*os.urandom(9)]).float(), torch.ones(3)\n",
            "make_inputs gives other values for the same seed; the reference and the kernel would get different ones",
        ),
        (
            "def make_inputs(seed): return torch.rand(3)\n",
            "fused needs 'w'; make_inputs gives x. Return it, too",
        ),
        (
            "def make_inputs(seed): return {'x': torch.rand(3), 'weight': torch.rand(3)}\n",
            "make_inputs: fused: unknown 'weight'; known: x, w. Rename it.",
        ),
        (
            "def make_inputs(seed): return 'x'\n",
            "make_inputs returns a str; known: a tensor, a tuple, or a dict",
        ),
    ],
)
def test_what_is_wrong_with_inputs_is_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(START + text)
    with pytest.raises(InputError, match=re.escape(f"mine.py:fused: {message}")):
        described(kernel_source(str(tmp_path / "mine.py")), "cpu")


def test_a_constexpr_that_nothing_gives_is_asked_for(tmp_path: Path) -> None:
    text = (OWN / "plain_jit.py").read_text().split("configs =")[0]
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(
        InputError, match=r"nothing gives its BLOCK\. Write configs = config_grid\(BLOCK=\(256, 1024\)\)"
    ):
        described(kernel_source(str(tmp_path / "mine.py")), "cpu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "1 / 0\n",
            r"^mine\.py: importing 'mine\.py' failed; ZeroDivisionError: division by zero \(mine\.py, line 1\)",
        ),
        ("import os\nos._exit(0)\n", r"mine\.py: the .*exit"),
        pytest.param(
            "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
            r"mine\.py: .*SIGSEGV",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_module_that_fails_or_ends_its_process_is_one_sentence(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        describe(kernel_source(str(tmp_path / "mine.py")))
    assert raised.value.exit_code == 2
