"""What is not finite is found in parts of any size, counted, and named by where it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from fusetune.tuner.training import finite_data
from fusetune.tuner.training.batches import Batches
from fusetune.tuner.training.finite_data import check_finite, samples_not_finite, tensor_not_finite


@pytest.mark.parametrize("at_once", [1, 7, 2**22])
@pytest.mark.parametrize("shape", [(50,), (50, 3), (50, 2, 3, 3)])
def test_the_first_sample_and_the_number_of_them_are_those_numpy_finds(
    shape: tuple[int, ...], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finite_data, "_AT_ONCE", at_once)
    x = np.random.default_rng(0).normal(size=shape)
    assert samples_not_finite(torch.tensor(x)) is None
    for index, value in ((41, math.nan), (12, math.inf), (49, -math.inf)):
        x.reshape(50, -1)[index, -1] = value
    broken = np.flatnonzero(~np.isfinite(x.reshape(50, -1)).all(1))
    assert samples_not_finite(torch.tensor(x)) == (broken[0], len(broken)) == (12, 3)


def test_integers_and_what_is_no_tensor_have_nothing_to_look_for() -> None:
    assert samples_not_finite(torch.zeros(3, dtype=torch.uint8)) is None
    check_finite("batches", ["text"])
    Batches(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), 2).check_finite(
        "training"
    )


def test_buffers_of_a_model_are_looked_at_too() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert tensor_not_finite(model) is None
    model[1].running_var[1] = math.inf  # type: ignore[operator]
    assert tensor_not_finite(model) == "1.running_var"
