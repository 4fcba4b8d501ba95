"""Hugging Face's `kernels` and `transformers` in one environment with ours: before, after, and uninstalled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distribution.environments import ROOT, Environment

pytestmark = [pytest.mark.compat, pytest.mark.timeout(3600)]

# `transformers` uses `kernels` only at the versions that it names: this is a pair that belongs together.
THEIRS = ("transformers==5.22.2", "kernels==0.17.2")

THEIRS_WORK = """
from importlib import metadata, util

import torch
from transformers import BertConfig, BertModel
from transformers.utils import is_kernels_available

assert is_kernels_available()
config = BertConfig(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=50
)
assert BertModel(config)(torch.tensor([[1, 2, 3]])).last_hidden_state.shape == (1, 3, 16)

import kernels

assert callable(kernels.get_kernel) and callable(kernels.use_kernel_forward_from_hub)
files = {str(file.locate()) for file in metadata.files("kernels")}
assert kernels.__file__ in files, kernels.__file__
assert all(file.locate().exists() for file in metadata.files("kernels"))
assert util.find_spec("tuner") is None and util.find_spec("bench") is None
"""

OURS_WORK = """
import pickle

import torch
from fusetune import FusedAdamW
from fusetune.tuner.schedules import build_schedule

def trained(make):
    weights = torch.nn.Parameter(torch.linspace(-1, 1, 12))
    optimizer = make([weights], lr=0.1)
    for step in range(5):
        weights.grad = torch.linspace(1, -2, 12) * (step + 1)
        optimizer.step()
    return weights.detach()

torch.testing.assert_close(trained(FusedAdamW), trained(torch.optim.AdamW))
assert pickle.loads(pickle.dumps(FusedAdamW)) is FusedAdamW
"""


@pytest.fixture(scope="module")
def environment() -> Environment:
    made = Environment.at(ROOT / "build" / "compat")
    made.install("torch", "numpy")
    return made


@pytest.mark.parametrize("ours", [(str(ROOT),), ("--editable", str(ROOT))], ids=["plain", "editable"])
@pytest.mark.parametrize("ours_first", [False, True], ids=["after", "before"])
def test_both_work_in_one_environment(
    environment: Environment, ours: tuple[str, ...], ours_first: bool, tmp_path: Path
) -> None:
    environment.uninstall("fusetune", "transformers", "kernels")
    for requirements in (ours, THEIRS) if ours_first else (THEIRS, ours):
        environment.install(*requirements)
    assert_theirs_work(environment, tmp_path)
    assert_ours_work(environment, tmp_path)

    environment.uninstall("fusetune")
    assert_theirs_work(environment, tmp_path)

    environment.install(*ours)
    environment.uninstall("transformers", "kernels")
    assert_ours_work(environment, tmp_path)


def assert_theirs_work(environment: Environment, folder: Path) -> None:
    environment.run("python", "-c", THEIRS_WORK, folder=folder)


def assert_ours_work(environment: Environment, folder: Path) -> None:
    environment.run("python", "-c", OURS_WORK, folder=folder)
    listed = environment.run("python", "-m", "fusetune.bench", "list", folder=folder)
    assert "adamw" in listed
    assert environment.run("bench", "list", folder=folder) == listed
    assert environment.run("fusetune", "list", folder=folder) == listed
    assert "lr-range" in environment.run("bench", "--help", folder=folder)
    assert "an older fusetune" not in environment.run("bench", "doctor", folder=folder)
