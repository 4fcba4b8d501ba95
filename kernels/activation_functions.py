"""The activation functions: one row each, with its maths for Triton and its plain-PyTorch twin.

All arithmetic is in fp32. EXACT asks for the accuracy of fp32 results; without it a function is only good enough for
16-bit ones, whose rounding (2^-9 or 2^-11) hides an error of 2^-20.

To add an activation: write its value and its slope as `@triton.jit` functions and add a row to FUNCTIONS.
"""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch.nn import functional as F

_LOG2E = tl.constexpr(1.4426950408889634)
_LN2 = tl.constexpr(0.6931471805599453)
# log2(e) cut after 12 bits, and the rest: a product with another 12-bit number is then exact in fp32.
_LOG2E_HIGH = tl.constexpr(1.4423828125)
_LOG2E_LOW = tl.constexpr(0.00031222839606925845)
_LEAKY_SLOPE = tl.constexpr(0.01)
_SQRT_HALF = tl.constexpr(0.7071067811865476)
_NORMAL_DENSITY_AT_0 = tl.constexpr(0.3989422804014327)
# gelu_tanh's 2 * sqrt(2 / pi), and the same times 0.044715.
_GELU_LINEAR = tl.constexpr(1.5957691216057308)
_GELU_CUBIC = tl.constexpr(0.07135481627260025)


@triton.jit
def _exp(x, EXACT: tl.constexpr):
    """e^x for x <= 0.

    Rounding x * log2(e) alone costs 14 ulp at x = -12 and 60 at -80. The exact way adds back what that rounding lost,
    found by an exact product of 12-bit halves (no fused multiply-add needed, so the interpreter agrees with the GPU).
    """
    if EXACT:
        x = tl.maximum(x, -110.0, propagate_nan=tl.PropagateNan.ALL)  # e^-110 is 0; -inf would give inf - inf
        high = (x.to(tl.int32, bitcast=True) & -4096).to(tl.float32, bitcast=True)
        product = x * _LOG2E
        lost = ((high * _LOG2E_HIGH - product) + high * _LOG2E_LOW) + (x - high) * _LOG2E
        power = tl.exp2(product)
        result = power + power * (lost * _LN2)
    else:
        result = tl.exp2(x * _LOG2E)
    return result


@triton.jit
def _sigmoid(x, EXACT: tl.constexpr):
    """1 / (1 + e^-x)."""
    if EXACT:
        decay = _exp(-tl.abs(x), EXACT)
        result = tl.where(x < 0.0, decay, 1.0) / (1.0 + decay)
    else:
        result = 1.0 / (1.0 + tl.exp2(x * -_LOG2E))
    return result


@triton.jit
def _sigmoid_slope(y, dy, EXACT: tl.constexpr):
    """dy * y * (1 - y)."""
    return dy * y * (1.0 - y)


@triton.jit
def _tanh(x, EXACT: tl.constexpr):
    """An odd polynomial below 0.6, where (1 - e) / (1 + e) cancels; 2 ulp everywhere."""
    square = x * x
    series = -0.05387395 + square * (0.02111096 + square * -0.00626912)
    series = -0.3333333 + square * (0.13332915 + square * series)
    magnitude = tl.abs(x)
    decay = _exp(-2.0 * magnitude, False)
    far = (1.0 - decay) / (1.0 + decay)
    return tl.where(magnitude < 0.6, x + x * (square * series), tl.where(x < 0.0, -far, far))


@triton.jit
def _tanh_slope(y, dy, EXACT: tl.constexpr):
    """dy * (1 - y^2)."""
    return dy * (1.0 - y * y)


@triton.jit
def _relu(x, EXACT: tl.constexpr):
    """max(x, 0); NaN stays NaN, as in PyTorch."""
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _relu_slope(y, dy, EXACT: tl.constexpr):
    """dy where y > 0 (or is NaN); x serves as well as y."""
    return tl.where(y <= 0.0, 0.0, dy)


@triton.jit
def _leaky_relu(x, EXACT: tl.constexpr):
    """x, or 0.01 x below 0."""
    return tl.where(x > 0.0, x, x * _LEAKY_SLOPE)


@triton.jit
def _leaky_relu_slope(y, dy, EXACT: tl.constexpr):
    """dy, or 0.01 dy below 0; y has the sign of x."""
    return tl.where(y > 0.0, dy, dy * _LEAKY_SLOPE)


@triton.jit
def _relu_squared(x, EXACT: tl.constexpr):
    """max(x, 0)^2."""
    positive = _relu(x, EXACT)
    return positive * positive


@triton.jit
def _relu_squared_slope(x, dy, EXACT: tl.constexpr):
    """2 dy max(x, 0); from x, because y overflows in fp16 from x = 256 on."""
    return dy * (2.0 * _relu(x, EXACT))


@triton.jit
def _silu(x, EXACT: tl.constexpr):
    """x sigmoid(x)."""
    return x * _sigmoid(x, EXACT)


@triton.jit
def _silu_slope(x, dy, EXACT: tl.constexpr):
    """dy s (1 + x (1 - s)), s = sigmoid(x)."""
    s = _sigmoid(x, EXACT)
    return dy * (s * (1.0 + x * (1.0 - s)))


@triton.jit
def _normal_cdf(x):
    """(1 + erf(x / sqrt(2))) / 2; cancels for negative x, as PyTorch's does."""
    return 0.5 * (1.0 + tl.erf(x * _SQRT_HALF))


@triton.jit
def _gelu(x, EXACT: tl.constexpr):
    """x times the normal distribution function."""
    return x * _normal_cdf(x)


@triton.jit
def _gelu_slope(x, dy, EXACT: tl.constexpr):
    """dy (cdf(x) + x pdf(x))."""
    density = _NORMAL_DENSITY_AT_0 * tl.exp2(x * x * (-0.5 * _LOG2E))
    return dy * (_normal_cdf(x) + x * density)


@triton.jit
def _gelu_tanh(x, EXACT: tl.constexpr):
    """x sigmoid(2u), which is x (1 + tanh(u)) / 2 without its cancellation for negative x.

    Rounding u costs more than the fast exponential does, so the exact one would buy nothing.
    """
    return x * _sigmoid(x * (_GELU_LINEAR + _GELU_CUBIC * (x * x)), False)


@triton.jit
def _gelu_tanh_slope(x, dy, EXACT: tl.constexpr):
    """dy (s + x s (1 - s) 2u'), s = sigmoid(2u); s (1 - s) from e^-|2u|, because 1 - s cancels."""
    square = x * x
    argument = x * (_GELU_LINEAR + _GELU_CUBIC * square)
    decay = _exp(-tl.abs(argument), False)
    inverse = 1.0 / (1.0 + decay)
    s = tl.where(argument < 0.0, decay, 1.0) * inverse
    return dy * (s + x * (decay * inverse * inverse) * (_GELU_LINEAR + 3.0 * _GELU_CUBIC * square))


@triton.jit
def _elu(x, EXACT: tl.constexpr):
    """x, or e^x - 1 below 0: there a polynomial down to -0.7, where e^x - 1 cancels."""
    x_low = tl.minimum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    series = 8.32128259e-3 + x_low * (1.35493203e-3 + x_low * 1.53185093e-4)
    series = 0.5 + x_low * (0.16666655 + x_low * (0.0416647128 + x_low * series))
    near = x_low + x_low * (x_low * series)
    return tl.where(x > 0.0, x, tl.where(x_low > -0.7, near, _exp(x_low, False) - 1.0))


@triton.jit
def _elu_slope(x, dy, EXACT: tl.constexpr):
    """dy, or dy e^x below 0; from x, because y + 1 cancels."""
    decay = _exp(tl.minimum(x, 0.0), EXACT)
    return tl.where(x <= 0.0, dy * decay, dy)


@triton.jit
def _softplus(x, EXACT: tl.constexpr):
    """max(x, 0) + log(1 + e^-|x|), the logarithm as 2 artanh(e / (2 + e)): no cancellation, no branch."""
    decay = _exp(-tl.abs(x), EXACT)
    s = decay / (2.0 + decay)
    square = s * s
    series = 0.14296179 + square * (0.10853288 + square * 0.11612165)
    series = 0.33333334 + square * (0.19999853 + square * series)
    return _relu(x, EXACT) + 2.0 * (s + s * (square * series))


@triton.jit
def _softplus_slope(x, dy, EXACT: tl.constexpr):
    """dy sigmoid(x)."""
    return dy * _sigmoid(x, EXACT)


@triton.jit
def _mish_parts(x, EXACT: tl.constexpr):
    """Numerator and denominator of tanh(softplus(x)), and their difference, in powers of e^-|x|."""
    decay = _exp(-tl.abs(x), EXACT)
    square = decay * decay
    numerator = tl.where(x < 0.0, square + 2.0 * decay, 1.0 + 2.0 * decay)
    difference = tl.where(x < 0.0, 2.0, 2.0 * square)
    return numerator, numerator + difference, difference


@triton.jit
def _mish(x, EXACT: tl.constexpr):
    """x tanh(softplus(x))."""
    numerator, denominator, _ = _mish_parts(x, EXACT)
    return x * (numerator / denominator)


@triton.jit
def _mish_slope(x, dy, EXACT: tl.constexpr):
    """dy (t + x (1 - t^2) sigmoid(x)), t = tanh(softplus(x))."""
    numerator, denominator, difference = _mish_parts(x, EXACT)
    t = numerator / denominator
    return dy * (t + x * ((difference / denominator) * (1.0 + t)) * _sigmoid(x, EXACT))


@triton.jit
def _hardswish(x, EXACT: tl.constexpr):
    """x min(max(x + 3, 0), 6) / 6."""
    shifted = tl.maximum(x + 3.0, 0.0, propagate_nan=tl.PropagateNan.ALL)
    return x * tl.minimum(shifted, 6.0, propagate_nan=tl.PropagateNan.ALL) * 0.16666667


@triton.jit
def _hardswish_slope(x, dy, EXACT: tl.constexpr):
    """0 up to -3, dy from 3 on, dy (x / 3 + 1/2) between."""
    return tl.where(x <= -3.0, 0.0, tl.where(x < 3.0, dy * (x * 0.33333334 + 0.5), dy))


@dataclass(frozen=True)
class ActivationFunction:
    """One row: an activation's value and slope for Triton, and their twins in PyTorch.

    Args:
        value: `@triton.jit`, (x, EXACT) -> y.
        slope: `@triton.jit`, (saved, dy, EXACT) -> dx.
        torch_value: twin of `value`: x -> y. It also stands for the kernel where that cannot run.
        torch_slope: twin of `slope`: (dy, saved) -> dx.
        saves: what backward needs and is therefore kept. The output, wherever it suffices: the next layer mostly keeps
            it anyway, and the input can be freed.
        gated: the last dimension holds two halves (a, b) and the result is value(a) * b; backward needs both.
    """

    value: Any
    slope: Any
    torch_value: Callable[[torch.Tensor], torch.Tensor]
    torch_slope: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    saves: Literal["input", "output"] = "input"
    gated: bool = False


def _gelu_tanh_torch(x: torch.Tensor) -> torch.Tensor:
    """PyTorch's tanh approximation of gelu."""
    return F.gelu(x, approximate="tanh")


def _gelu_tanh_torch_slope(dy: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """PyTorch's backward of the tanh approximation."""
    return aten.gelu_backward(dy, x, approximate="tanh")


def _relu_squared_torch(x: torch.Tensor) -> torch.Tensor:
    """relu(x)^2."""
    return F.relu(x).square()


def _relu_squared_torch_slope(dy: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """2 dy relu(x)."""
    return dy * (2 * F.relu(x))


def _relu_torch_slope(dy: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """PyTorch's relu backward."""
    return aten.threshold_backward(dy, y, 0)


def _leaky_relu_torch_slope(dy: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """PyTorch's leaky_relu backward from the result."""
    return aten.leaky_relu_backward(dy, y, 0.01, True)


def _elu_torch_slope(dy: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """PyTorch's elu backward from the input."""
    return aten.elu_backward(dy, 1, 1, 1, False, x)


def _softplus_torch_slope(dy: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """PyTorch's softplus backward; identity above 20."""
    return aten.softplus_backward(dy, x, 1, 20)


aten = torch.ops.aten
_Row = ActivationFunction
FUNCTIONS: dict[str, ActivationFunction] = {
    "relu": _Row(_relu, _relu_slope, F.relu, _relu_torch_slope, saves="output"),
    "leaky_relu": _Row(_leaky_relu, _leaky_relu_slope, F.leaky_relu, _leaky_relu_torch_slope, saves="output"),
    "relu_squared": _Row(_relu_squared, _relu_squared_slope, _relu_squared_torch, _relu_squared_torch_slope),
    "sigmoid": _Row(_sigmoid, _sigmoid_slope, torch.sigmoid, aten.sigmoid_backward, saves="output"),
    "tanh": _Row(_tanh, _tanh_slope, torch.tanh, aten.tanh_backward, saves="output"),
    "gelu": _Row(_gelu, _gelu_slope, F.gelu, aten.gelu_backward),
    "gelu_tanh": _Row(_gelu_tanh, _gelu_tanh_slope, _gelu_tanh_torch, _gelu_tanh_torch_slope),
    "silu": _Row(_silu, _silu_slope, F.silu, aten.silu_backward),
    "elu": _Row(_elu, _elu_slope, F.elu, _elu_torch_slope),
    "softplus": _Row(_softplus, _softplus_slope, F.softplus, _softplus_torch_slope),
    "mish": _Row(_mish, _mish_slope, F.mish, aten.mish_backward),
    "hardswish": _Row(_hardswish, _hardswish_slope, F.hardswish, aten.hardswish_backward),
    "swiglu": _Row(_silu, _silu_slope, F.silu, aten.silu_backward, gated=True),
    "geglu": _Row(_gelu, _gelu_slope, F.gelu, aten.gelu_backward, gated=True),
    "reglu": _Row(_relu, _relu_slope, F.relu, _relu_torch_slope, gated=True),
}
