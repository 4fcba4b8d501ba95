"""What a plateau rule does to groups of other rates, against torch's own class on each group alone."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from fusetune.tuner.schedules import table as schedules
from fusetune.tuner.training.rate import LearningRate


def _groups(*rates: float) -> torch.optim.SGD:
    return torch.optim.SGD([{"params": [torch.zeros(1)], "lr": lr} for lr in rates])


@pytest.mark.parametrize("rates", [(0.1, 0.001), (0.001, 0.1), (1e-7, 0.1)])
def test_each_group_falls_to_min_factor_times_its_own_rate(rates: tuple[float, float]) -> None:
    rule = schedules.SCHEDULES["plateau"].function(mode="min", factor=0.5, patience=0, min_factor=0.1)
    optimizer = _groups(*rates)
    rate = LearningRate(optimizer, lambda step: 1.0, plateau=rule)
    alone = [_groups(lr) for lr in rates]
    truths = [
        ReduceLROnPlateau(each, mode="min", factor=0.5, patience=0, min_lr=0.1 * lr, eps=0.0)
        for each, lr in zip(alone, rates, strict=True)
    ]
    for step in range(8):
        rate.set(step)
        now = [group["lr"] for group in optimizer.param_groups]
        assert now == pytest.approx([each.param_groups[0]["lr"] for each in alone], rel=1e-12)
        rate.end_epoch(1.0)
        for truth in truths:
            truth.step(1.0)
    assert now == pytest.approx([0.1 * lr for lr in rates])
