"""Factories as a person would write them, right and wrong."""

from __future__ import annotations

import math

import numpy as np
from torch import nn


def right(input_shape: tuple[int, ...], num_classes: int, depth: int = 1) -> nn.Module:
    (features,) = input_shape
    hidden = [nn.Linear(features, features) for _ in range(depth)]
    return nn.Sequential(*hidden, nn.Linear(features, num_classes))


def with_nan(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, num_classes))
    nn.init.constant_(model[2].weight, math.nan)  # type: ignore[arg-type]
    return model


def wrong_shape(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    return nn.Linear(input_shape[0], 7)


def no_module(input_shape: tuple[int, ...], num_classes: int) -> str:
    return "not a module"


def capped(input_shape: tuple[int, ...], num_classes: int, width_cap: int | None = 4) -> nn.Module:
    width = 64 if width_cap is None else min(64, width_cap)
    hidden = nn.Linear(input_shape[0], width)
    return nn.Sequential(hidden, nn.BatchNorm1d(width), nn.Linear(width, num_classes))


def points(spread: float = 1.0, shift: float | None = 0.5) -> dict[str, np.ndarray]:
    y = np.arange(120) % 3
    x = (
        np.random.default_rng(0).normal(size=(120, 2)) * spread
        + y[:, None]
        + (9.0 if shift is None else shift)
    )
    return {"x_train": x[:90], "y_train": y[:90], "x_test": x[90:], "y_test": y[90:]}
