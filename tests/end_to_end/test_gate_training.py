"""`bench gate SPEC` on a copy of this very repository, with planted changes of its own code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bench.gate.scratch_repository import git, make_repository
from tests.end_to_end.conftest import ROOT, environment

SPEC = """
name: tiny
threads: 1
data: {name: spirals, limit: 200, validation: 40}
model: {name: mlp, width: 8, depth: 1}
train: {optimizer: adam, base_lr: 0.01, batch_size: 20, epochs: 1}
target: {metric: val_accuracy, at_least: 0.999}
gate: {budget: 1ms}
"""
PARTS = ("bench", "kernels", "tuner", "src")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with this code and a spec, committed on `main`."""
    root = tmp_path / "repository"
    for part in PARTS:
        shutil.copytree(ROOT / part, root / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (root / ".gitignore").write_text("__pycache__\n")
    return make_repository(root, {"specs/tiny.yaml": SPEC})


def plant(repository: Path, file: str, before: str, after: str) -> None:
    """Change a line of the code."""
    text = (repository / file).read_text()
    assert text.count(before) == 1
    (repository / file).write_text(text.replace(before, after))


def gate(
    repository: Path, *options: str, module: str = "bench"
) -> tuple[int, str, dict[str, dict[str, str]]]:
    """Gate the working tree against main: exit code, standard error, benchmark -> metric -> outcome."""
    variables = environment(repository.parent)
    if module == "bench":  # the repository's own code
        del variables["PYTHONPATH"]
    done = subprocess.run(
        [sys.executable, "-m", module, "gate", "specs/tiny.yaml", "--base", "main", *options],
        cwd=repository,
        env=variables,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert git(repository, "worktree", "list").count("\n") == 0
    assert "\nTraceback" not in done.stderr
    rows: dict[str, dict[str, str]] = {}
    for file in repository.glob("results/gate/*/result.json"):
        for row in json.loads(file.read_text())["rows"]:
            rows.setdefault(row["benchmark"], {})[row["metric"]] = row["outcome"]
    return done.returncode, done.stderr, rows


@pytest.mark.slow
def test_a_model_that_became_larger_is_red_in_each_configuration(repository: Path) -> None:
    layer = 'hidden = nn.Linear(features, width, bias=norm == "none")'
    plant(repository, "bench/workloads/models.py", layer, f"width *= 2\n        {layer}")
    code, said, rows = gate(
        repository, "--configuration", "optimizer=adam", "--configuration", "optimizer=sgd"
    )
    assert code == 1, said
    assert set(rows) == {"tiny: optimizer=adam", "tiny: optimizer=sgd"}
    for metrics in rows.values():
        assert metrics["peak_bytes"] == "regressed"
        # Missed on both sides alike. One pair says nothing of the speed.
        assert metrics["steps_to_target"] == "pass"
        assert metrics["step_time_s"] == "can't tell"


@pytest.mark.slow
def test_a_training_that_fails_is_red_and_a_package_that_does_not_import_is_not(repository: Path) -> None:
    file = repository / "bench/run/trial.py"
    whole = file.read_text()
    begins = "    training = yield from train_epochs(setup)\n"
    plant(repository, "bench/run/trial.py", begins, f'    raise RuntimeError("planted")\n{begins}')
    code, said, rows = gate(repository)
    assert code == 1, said
    assert rows["tiny"]["failure"] == "regressed"
    assert "planted" in said
    file.write_text(f"import no_such_module_anywhere\n{whole}")
    code, said, _ = gate(repository)
    assert code == 4, said
    assert "head working tree: cannot be imported" in said


MODEL = """
import torch

def build(input_shape, num_classes, width=8):
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(input_shape[0], width), torch.nn.Linear(width, num_classes)
    )
"""


@pytest.mark.slow
def test_a_model_of_your_own_comes_from_each_checkout(tmp_path: Path) -> None:
    spec = SPEC.replace("{name: mlp, width: 8, depth: 1}", "{factory: 'my_models:build'}")
    npz = spec.replace(
        "{name: spirals, limit: 200, validation: 40}", "{name: npz, path: ../mine.npz, validation: 40}"
    )
    files = {"specs/tiny.yaml": npz, "my_models.py": MODEL, ".gitignore": "*.npz\n__pycache__\n"}
    repository = make_repository(tmp_path / "repository", files)
    random = np.random.default_rng(0)
    # Data that git does not hold: both checkouts get a link.
    x, y = random.normal(size=(200, 2)).astype("float32"), random.integers(0, 2, 200)
    np.savez(repository / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    plant(repository, "my_models.py", "width=8", "width=64")
    code, said, rows = gate(repository, module="fusetune.bench")
    assert code == 1, said
    assert rows["tiny"]["peak_bytes"] == "regressed"
    (file,) = repository.glob("results/gate/*/gate.json")
    gated = json.loads(file.read_text())
    assert {side["device"] for side in gated["sides"].values()} == {"cpu"}
    assert set(gated["sides"]) == {"base", "head"}
    assert gated["threads"] == {}  # the spec names their number
