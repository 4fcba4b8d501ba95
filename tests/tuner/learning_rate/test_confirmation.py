"""Which rates are tried around a suggestion, and which of them is kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fusetune.tuner.learning_rate.confirmation import Candidates, candidates_around, confirm
from fusetune.tuner.learning_rate.range import LRRange


def found(suggestion: float | None, edge: float | None) -> LRRange:
    return LRRange(suggestion, None, None, (), (), "because", (), None, None, (), edge=edge)


@pytest.mark.parametrize(
    ("edge", "expected"),
    [
        (None, [0.025, 0.05, 0.1]),
        (1.0, [0.025, 0.05, 0.1, 0.2, 0.4]),
        (0.3, [0.025, 0.05, 0.1, 0.2]),
        (0.05, [0.025, 0.05, 0.1]),
    ],
)
def test_rates_above_are_tried_where_only_the_edge_is_known(
    edge: float | None, expected: list[float]
) -> None:
    assert candidates_around(found(0.1, edge)).lrs == pytest.approx(expected)
    assert candidates_around(found(None, None)).lrs == []


def kept(lrs: list[float], suggested: float | None) -> float | None:
    """Confirm for a loss of (1 - weight)^2 after one step of SGD from 0, which leaves (1 - 2 lr)^2."""

    def loss_fn(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (output - y).square().mean()

    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    data = [(torch.ones(1, 1), torch.ones(1, 1))]
    result = confirm(
        model,
        lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
        loss_fn,
        data,
        data,
        Candidates(lrs, suggested),
        steps=1,
    )
    assert result.losses == pytest.approx([(1 - 2 * lr) ** 2 for lr in lrs], abs=1e-6)
    return result.lr


def test_a_higher_rate_has_to_win_clearly() -> None:
    # The losses are 0.64, 0.6084 and 0.36: five and forty-four percent below the first.
    assert kept([0.1, 0.11], None) == 0.11
    assert kept([0.1, 0.11], 0.1) == 0.1
    assert kept([0.1, 0.2], 0.1) == 0.2
    assert kept([0.1, 0.11, 0.2], 0.1) == 0.2
    assert kept([0.1, 0.11], 0.11) == 0.11
