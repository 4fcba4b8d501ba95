"""Model factories as a person would write them, right and wrong."""

from __future__ import annotations

import math

from torch import nn


def right(input_shape: tuple[int, ...], num_classes: int, depth: int = 1) -> nn.Module:
    (features,) = input_shape
    hidden = [nn.Linear(features, features) for _ in range(depth)]
    return nn.Sequential(*hidden, nn.Linear(features, num_classes))


def with_nan(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, num_classes))
    nn.init.constant_(model[2].weight, math.nan)
    return model


def wrong_shape(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    return nn.Linear(input_shape[0], 7)


def no_module(input_shape: tuple[int, ...], num_classes: int) -> str:
    return "not a module"
