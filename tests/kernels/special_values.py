"""What the activation kernels make of infinities and NaN: the rule of docs/kernels.md, worked out by nobody's build.

At an infinity y is the limit of f, and dx that of its slope. Both are NaN where the formula multiplies x by a factor
that vanishes, as IEEE 754 has it of infinity and 0. NaN gives NaN, and its slope is NaN too. A function in pieces may
give the slope of one of them instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan

import torch


@dataclass(frozen=True)
class AtInfinity:
    """f(inf), f(-inf), f'(inf), f'(-inf), and the slopes that f' may have at NaN."""

    above: float
    below: float
    slope_above: float
    slope_below: float
    slopes_at_nan: tuple[float, ...] = (nan,)


_PRODUCT = AtInfinity(
    inf, nan, nan, nan
)  # x times a factor in (0, 1) that vanishes below, and a slope with x in it
RULE: dict[str, AtInfinity] = {
    "relu": AtInfinity(inf, 0.0, 1.0, 0.0, (nan, 1.0, 0.0)),
    "leaky_relu": AtInfinity(inf, -inf, 1.0, 0.01, (nan, 1.0, 0.01)),
    "relu_squared": AtInfinity(inf, 0.0, inf, 0.0),
    "sigmoid": AtInfinity(1.0, 0.0, 0.0, 0.0),
    "tanh": AtInfinity(1.0, -1.0, 0.0, 0.0),
    "gelu": _PRODUCT,
    "gelu_tanh": _PRODUCT,
    "silu": _PRODUCT,
    "mish": _PRODUCT,
    "elu": AtInfinity(inf, -1.0, 1.0, 0.0, (nan, 1.0)),
    "softplus": AtInfinity(inf, 0.0, 1.0, 0.0),
    "hardswish": AtInfinity(inf, nan, 1.0, 0.0, (nan, 1.0, 0.0)),
}


def assert_rule(name: str, y: torch.Tensor, slope: torch.Tensor, x: torch.Tensor) -> None:
    """Hold the values and slopes at the infinities and NaN of `x` to the rule. Other places are not looked at."""
    rule = RULE[name]
    for place, value, slopes in (
        (x == inf, rule.above, (rule.slope_above,)),
        (x == -inf, rule.below, (rule.slope_below,)),
        (x.isnan(), nan, rule.slopes_at_nan),
    ):
        assert place.any()
        _assert_each_one_of(name, y[place], (value,))
        _assert_each_one_of(name, slope[place], slopes)


def _assert_each_one_of(name: str, found: torch.Tensor, allowed: tuple[float, ...]) -> None:
    """NaN counts as equal to NaN. Numbers are compared as their dtype holds them."""
    wanted = torch.tensor(allowed, dtype=found.dtype)
    same = (found[:, None] == wanted) | (found[:, None].isnan() & wanted.isnan())
    assert same.any(1).all(), (name, found.tolist(), allowed)
