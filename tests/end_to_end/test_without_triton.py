"""Where Triton cannot be had, as on macOS: the tuner and plain PyTorch work, and what needs Triton says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Python runs a module of this name when it starts, in workers too.
SITECUSTOMIZE = """
from importlib import metadata
from importlib.machinery import PathFinder

find_spec, from_name = PathFinder.find_spec, metadata.Distribution.from_name

def find_no_triton(name, path=None, target=None):
    return None if name.partition(".")[0] == "triton" else find_spec(name, path, target)

def no_metadata_of_triton(name):
    if name == "triton":
        raise metadata.PackageNotFoundError(name)
    return from_name(name)

PathFinder.find_spec = staticmethod(find_no_triton)
metadata.Distribution.from_name = staticmethod(no_metadata_of_triton)
"""
IMPORT_ALL = """
import pkgutil
from importlib import import_module

# They hold Triton's kernels, or measure them.
of_kernels = ("kernels", "autotune", "autotune_bench", "gate_bench", "pytest_plugin")

def import_all(package):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            try:
                found = import_module(module.name)
            except ModuleNotFoundError as error:
                assert error.name == "triton", error
                assert package.__name__ in [f"fusetune.bench.{room}" for room in of_kernels], module.name
                continue
            if module.ispkg:
                import_all(found)

import fusetune.tuner, fusetune.bench
import_all(fusetune.tuner)
import_all(fusetune.bench)
assert fusetune.lr_range_test is fusetune.tuner.learning_rate.lr_range_test
"""
SPEC = """
name: plain
data:   {name: spirals, limit: 200, validation: 40}
model:  {name: mlp, width: 8, depth: 1}
train:  {optimizer: adam, base_lr: 0.01, batch_size: 40, epochs: 2}
configurations: [{train.optimizer: momentum}, {train.optimizer: adam}]
seeds: 1
target: {metric: val_accuracy, at_least: 0.99}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose programs find no Triton."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    (tmp_path / "plain.yaml").write_text(SPEC)
    return tmp_path


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder / "site"), str(ROOT / "src")])
    environment = {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(folder / "cache"), "NO_COLOR": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def records(folder: Path) -> list[dict[str, object]]:
    (found,) = folder.glob("results/*/*/records.jsonl")
    return [json.loads(line) for line in found.read_text().splitlines()]


def test_there_is_no_triton_in_this_test(folder: Path) -> None:
    code = "import importlib.util, torch; print(importlib.util.find_spec('triton')); import triton"
    done = python(folder, "-c", code)
    assert done.stdout == "None\n"
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'triton'"


@pytest.mark.parametrize("name", ["FusedAdamW", "activation", "replace_activations"])
def test_a_fused_name_says_what_it_needs(folder: Path, name: str) -> None:
    done = python(folder, "-c", f"from fusetune import {name}")
    assert done.stderr.splitlines()[-1] == (
        f"ModuleNotFoundError: fusetune.{name} needs Triton, which is not installed; it is published for Linux. "
        f"Run pip install triton, or use PyTorch's own optimizers and activations."
    )


@pytest.mark.slow
def test_all_of_tuner_and_bench_is_imported(folder: Path) -> None:
    done = python(folder, "-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_run_trains_with_plain_pytorch(folder: Path) -> None:
    done = python(folder, "-m", "fusetune.bench", "run", "plain.yaml")
    assert done.returncode == 0, done.stderr
    assert {record["status"] for record in records(folder)} <= {"ok", "missed_target"}
    assert len(records(folder)) == 2


@pytest.mark.slow
def test_a_fused_implementation_is_refused_before_anything_is_trained(folder: Path) -> None:
    done = python(folder, "-m", "fusetune.bench", "run", "plain.yaml", "--set", "train.implementation=fused")
    assert done.returncode == 2
    assert "fused needs Triton, which is not installed" in done.stderr
    assert "implementation: torch" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [
        record for path in folder.glob("results/*/*/records.jsonl") for record in [path.read_text()] if record
    ]


@pytest.mark.parametrize("command", [["kernels"], ["kernels", "gelu"], ["autotune", "gelu"]], ids=" ".join)
def test_a_command_for_kernels_says_what_it_needs(folder: Path, command: list[str]) -> None:
    (folder / "specs").mkdir()
    (folder / "specs" / "kernels.yaml").write_text("name: kernels\nkernels: {gelu: }\n")
    done = python(folder, "-m", "fusetune.bench", *command)
    assert done.stderr == (
        "error: this command needs Triton, which is not installed; it is published for Linux. "
        "Run pip install triton\n"
    )
    assert done.returncode == 2
    assert not (folder / "results").exists()


@pytest.mark.slow
def test_doctor_names_what_is_missing(folder: Path) -> None:
    done = python(folder, "-m", "fusetune.bench", "doctor")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("fused kernels")]
    assert "not available: they need Triton" in line
