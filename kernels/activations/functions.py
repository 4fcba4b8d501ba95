"""The activation functions: one row each, with its maths for Triton and its counterpart in plain PyTorch.

All arithmetic is in fp32. PRECISION is the required accuracy:

fp32          fp32 results
16-bit        fp16 and bf16 results, whose rounding (at most 2^-11 or 2^-8 of the value) hides an error of 2^-20
approximate   16-bit results by cheaper functions and NVIDIA's approximate instructions, with the error the row states

To add an activation, write its value and its slope as `@triton.jit` functions and add a row to FUNCTIONS.
"""

# Triton: constexprs in capitals (N803).
# ruff: noqa: N803
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch.nn import functional as F

_LOG2E = tl.constexpr(1.4426950408889634)
_LN2 = tl.constexpr(0.6931471805599453)
# log2(e) truncated to 12 bits, and the rest: a product with another 12-bit number is then exact in fp32.
_LOG2E_HIGH = tl.constexpr(1.4423828125)
_LOG2E_LOW = tl.constexpr(0.00031222839606925845)
_SQRT_HALF = tl.constexpr(0.7071067811865476)
_NORMAL_DENSITY_AT_0 = tl.constexpr(0.3989422804014327)
# gelu_tanh's 2 * sqrt(2 / pi), and the same times 0.044715.
_GELU_LINEAR = tl.constexpr(1.5957691216057308)
_GELU_CUBIC = tl.constexpr(0.07135481627260025)
# ln(2) truncated to 10 bits, whose product with a short integer is exact in fp32, and the rest.
_LN2_HIGH = tl.constexpr(0.693359375)
_LN2_LOW = tl.constexpr(-2.1219444005469057e-4)
# In fp32 the last bit of 1.5 * 2^23 is worth 1. A sum with it is rounded to an integer, which its last bits hold.
_ROUNDER = tl.constexpr(12582912.0)
_2_TO_64_BITS = tl.constexpr((127 + 64) << 23)
_2_TO_MINUS_64 = tl.constexpr(2.0**-64)
# Bits of 14.5 and 10.75: from there on e^(-x^2 / 2), and the same of gelu_tanh, are 0 in fp32.
_LAST_OF_GELU = tl.constexpr(0x41680000)
_LAST_OF_GELU_TANH = tl.constexpr(0x412C0000)
_MOST = torch.finfo(torch.float32).max


def _backend(_semantic: Any = None) -> tl.constexpr:
    """The target of the compilation: cuda, hip, or interpreter. NVIDIA's instructions are garbage on AMD."""
    return tl.constexpr("interpreter" if _semantic is None else _semantic.builder.options.backend_name)


# Triton calls a function with this mark while it compiles, and passes it the compilation's context.
_backend.__triton_builtin__ = True  # type: ignore[attr-defined]


@triton.jit
def _divide(a, b, PRECISION: tl.constexpr):
    """a / b for b >= 1. The approximation is a times the reciprocal of b to 1 ulp, and 0 where that is subnormal."""
    if PRECISION == "approximate" and _backend() == "cuda":
        instruction: tl.constexpr = "rcp.approx.ftz.f32 $0, $1;"
        b = tl.inline_asm_elementwise(instruction, "=f,f", [b], dtype=tl.float32, is_pure=True, pack=1)
        result = a * b
    else:
        result = a / b
    return result


@triton.jit
def _exp(x, PRECISION: tl.constexpr):
    """e^x for x <= 0.

    Rounding x * log2(e) alone costs 14 ulp at x = -12 and 60 at -80. For fp32 the rounding error is added back. It is
    exact from products of 12-bit halves, without a fused multiply-add, so the interpreter agrees with the GPU.
    """
    if _backend() == "cpu":
        result = _exp_times_2_to_64(tl.where(x < -104.0, -104.0, x)) * _2_TO_MINUS_64  # e^-104 is 0 in fp32
    elif PRECISION == "fp32":
        x = tl.maximum(x, -110.0, propagate_nan=tl.PropagateNan.ALL)  # e^-110 is 0, -inf gives inf - inf
        high = (x.to(tl.int32, bitcast=True) & -4096).to(tl.float32, bitcast=True)
        product = x * _LOG2E
        lost = ((high * _LOG2E_HIGH - product) + high * _LOG2E_LOW) + (x - high) * _LOG2E
        power = tl.exp2(product)
        result = power + power * (lost * _LN2)
    else:
        result = _fast_exp(x)
    return result


@triton.jit
def _exp_times_2_to_64(x):
    """2^64 e^x for -106 <= x <= 0, to 1.2 ulp. The factor keeps the result normal over the whole range.

    For a CPU: its lanes stay in registers, where a call of the C library's vector exponential spills them all. After
    a second clamp gcc would compute the rest twice, so there is at most one, in the caller.
    """
    shifted = x * _LOG2E + _ROUNDER
    integer = shifted - _ROUNDER
    r = (x - integer * _LN2_HIGH) - integer * _LN2_LOW
    series = 0.04166839 + r * (0.0083687167 + r * 0.00138145988)
    series = 1.0 + r * (1.0 + r * (0.49999994 + r * (0.16666521 + r * series)))
    return series * ((shifted.to(tl.int32, bitcast=True) << 23) + _2_TO_64_BITS).to(tl.float32, bitcast=True)


@triton.jit
def _fast_exp(x):
    """e^x for x <= 0 (on a GPU any x), to 2^-20 where it is not tiny."""
    return _exp(x, PRECISION="fp32") if _backend() == "cpu" else tl.exp2(x * _LOG2E)


@triton.jit
def _sigmoid(x, PRECISION: tl.constexpr):
    """1 / (1 + e^-x)."""
    if PRECISION == "fp32" or _backend() == "cpu":
        decay = _exp(-tl.abs(x), PRECISION)
        result = tl.where(x < 0.0, decay, 1.0) / (1.0 + decay)
    else:
        result = _fast_sigmoid(x, PRECISION)
    return result


@triton.jit
def _fast_sigmoid(x, PRECISION: tl.constexpr):
    """1 / (1 + e^-x) to 2^-20 where it is not tiny."""
    return _divide(1.0, 1.0 + _fast_exp(-x), PRECISION)


@triton.jit
def _sigmoid_slope(y, dy, PRECISION: tl.constexpr):
    """dy * y * (1 - y)."""
    return dy * y * (1.0 - y)


@triton.jit
def _tanh(x, PRECISION: tl.constexpr):
    """An odd polynomial below 0.6, where (1 - e) / (1 + e) cancels: 2 ulp everywhere. Approximate: to 2^-11."""
    if PRECISION == "approximate" and _backend() == "cuda":
        instruction: tl.constexpr = "tanh.approx.f32 $0, $1;"
        result = tl.inline_asm_elementwise(instruction, "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    else:
        square = x * x
        series = -0.05387395 + square * (0.02111096 + square * -0.00626912)
        series = -0.3333333 + square * (0.13332915 + square * series)
        magnitude = tl.abs(x)
        decay = _fast_exp(-2.0 * magnitude)
        far = (1.0 - decay) / (1.0 + decay)
        result = tl.where(magnitude < 0.6, x + x * (square * series), tl.where(x < 0.0, -far, far))
    return result


@triton.jit
def _tanh_slope(y, dy, PRECISION: tl.constexpr):
    """dy * (1 - y^2)."""
    return dy * (1.0 - y * y)


@triton.jit
def _relu(x, PRECISION: tl.constexpr):
    """max(x, 0). NaN stays NaN."""
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _relu_slope(y, dy, PRECISION: tl.constexpr):
    """dy where y > 0 (or is NaN). x may take the place of y."""
    return tl.where(y <= 0.0, 0.0, dy)


@triton.jit
def _leaky_relu(x, PRECISION: tl.constexpr, negative_slope):
    """x, or negative_slope x below 0."""
    return tl.where(x > 0.0, x, x * negative_slope)


@triton.jit
def _leaky_relu_slope(y, dy, PRECISION: tl.constexpr, negative_slope):
    """dy, or negative_slope dy below 0. y is above 0 where x is, because negative_slope is not below 0."""
    return tl.where(y > 0.0, dy, dy * negative_slope)


@triton.jit
def _relu_squared(x, PRECISION: tl.constexpr):
    """max(x, 0)^2."""
    positive = _relu(x, PRECISION)
    return positive * positive


@triton.jit
def _relu_squared_slope(x, dy, PRECISION: tl.constexpr):
    """2 dy max(x, 0). From x, because y overflows in fp16 from x = 256 on."""
    return dy * (2.0 * _relu(x, PRECISION))


@triton.jit
def _silu(x, PRECISION: tl.constexpr):
    """x sigmoid(x)."""
    return x * _sigmoid(x, PRECISION)


@triton.jit
def _silu_slope(x, dy, PRECISION: tl.constexpr):
    """dy s (1 + x (1 - s)), s = sigmoid(x)."""
    s = _sigmoid(x, PRECISION)
    return dy * (s * (1.0 + x * (1.0 - s)))


@triton.jit
def _magnitude_up_to(x, LAST: tl.constexpr):
    """|x|, at most the number with the bits LAST, which is also the result for NaN: one integer instruction."""
    return tl.minimum(tl.abs(x).to(tl.int32, bitcast=True), LAST).to(tl.float32, bitcast=True)


@triton.jit
def _scaled_gauss(x):
    """2^64 e^(-x^2 / 2), and |x|, at most 14.5."""
    magnitude = _magnitude_up_to(x, _LAST_OF_GELU)
    return _exp_times_2_to_64(magnitude * magnitude * -0.5), magnitude


@triton.jit
def _cdf_by_gauss(x, gauss, magnitude):
    """The normal distribution function from `_scaled_gauss`, without cancellation for negative x, and finite for NaN.

    Its quotient by the exponential is approximated by a quotient of polynomials, to 2^-24 (1 + x^2 / 2) of its value.
    The rounding of x^2 costs the exponential as much.
    """
    above = 0.33989013 + magnitude * (0.10698743 + magnitude * 0.01411845)
    below = 0.893007 + magnitude * (0.26776552 + magnitude * 0.035402177)
    quotient = (0.5 + magnitude * above) / (1.0 + magnitude * (1.4776622 + magnitude * below))
    tail = gauss * _2_TO_MINUS_64 * quotient
    return tl.where(x < 0.0, tail, 1.0 - tail)


@triton.jit
def _normal_cdf(x, PRECISION: tl.constexpr):
    """(1 + erf(x / sqrt(2))) / 2. Cancels for negative x. On a CPU `_cdf_by_gauss`.

    Approximate: sigmoid(x p(x^2)), where p gives the distribution function a relative error of 1.1e-4 for x >= -5. On
    AMD the division makes it slower than erf.
    """
    if _backend() == "cpu":
        gauss, magnitude = _scaled_gauss(x)
        result = _cdf_by_gauss(x, gauss, magnitude)
    elif PRECISION == "approximate" and _backend() != "hip":
        square = x * x
        series = 4.5150613914e-6 + square * (-1.2166439944e-7 + square * 1.2770117185e-9)
        series = -2.7297300634e-4 + square * (-7.2177026595e-5 + square * series)
        series = 1.5954571962 + square * (7.3143914342e-2 + square * series)
        result = _fast_sigmoid(x * series, PRECISION)
    else:
        result = 0.5 * (1.0 + tl.erf(x * _SQRT_HALF))
    return result


@triton.jit
def _gelu(x, PRECISION: tl.constexpr):
    """x times the normal distribution function."""
    return x * _normal_cdf(x, PRECISION)


@triton.jit
def _gelu_slope(x, dy, PRECISION: tl.constexpr):
    """dy (cdf(x) + x pdf(x)). On a CPU one exponential gives both."""
    if _backend() == "cpu":
        gauss, magnitude = _scaled_gauss(x)
        cdf = _cdf_by_gauss(x, gauss, magnitude)
        density = gauss * (_NORMAL_DENSITY_AT_0 * _2_TO_MINUS_64)
    else:
        density = _NORMAL_DENSITY_AT_0 * tl.exp2(x * x * (-0.5 * _LOG2E))
        cdf = _normal_cdf(x, PRECISION)
    return dy * (cdf + x * density)


@triton.jit
def _gelu_tanh(x, PRECISION: tl.constexpr):
    """x sigmoid(2u), which is x (1 + tanh(u)) / 2 without its cancellation for negative x.

    Rounding u costs more accuracy than the fast exponential, so an exact one would not pay.
    """
    if _backend() == "cpu":
        decay = _gelu_tanh_decay(x)
        result = x * (tl.where(x < 0.0, decay, 1.0) / (1.0 + decay))
    else:
        result = x * _fast_sigmoid(x * (_GELU_LINEAR + _GELU_CUBIC * (x * x)), PRECISION)
    return result


@triton.jit
def _gelu_tanh_decay(x):
    """e^-|2u| for a CPU, finite where x is NaN."""
    magnitude = _magnitude_up_to(x, _LAST_OF_GELU_TANH)
    argument = magnitude * (_GELU_LINEAR + _GELU_CUBIC * (magnitude * magnitude))
    return _exp_times_2_to_64(-argument) * _2_TO_MINUS_64


@triton.jit
def _gelu_tanh_slope(x, dy, PRECISION: tl.constexpr):
    """dy (s + x s (1 - s) 2u'), s = sigmoid(2u), with s (1 - s) from e^-|2u|, because 1 - s cancels."""
    square = x * x
    argument = x * (_GELU_LINEAR + _GELU_CUBIC * square)
    decay = _gelu_tanh_decay(x) if _backend() == "cpu" else _fast_exp(-tl.abs(argument))
    inverse = _divide(1.0, 1.0 + decay, PRECISION)
    s = tl.where(argument < 0.0, decay, 1.0) * inverse
    return dy * (s + x * (decay * inverse * inverse) * (_GELU_LINEAR + 3.0 * _GELU_CUBIC * square))


@triton.jit
def _elu(x, PRECISION: tl.constexpr, alpha):
    """x, or alpha (e^x - 1) below 0: there a polynomial down to -0.7, where e^x - 1 cancels."""
    x_low = tl.minimum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    series = 8.32128259e-3 + x_low * (1.35493203e-3 + x_low * 1.53185093e-4)
    series = 0.5 + x_low * (0.16666655 + x_low * (0.0416647128 + x_low * series))
    near = x_low + x_low * (x_low * series)
    below = tl.where(x_low > -0.7, near, _fast_exp(x_low) - 1.0)
    return tl.where(x > 0.0, x, alpha * below)


@triton.jit
def _elu_slope(x, dy, PRECISION: tl.constexpr, alpha):
    """dy, or dy alpha e^x below 0. From x, because y + alpha cancels."""
    decay = _exp(tl.minimum(x, 0.0), PRECISION)
    return tl.where(x <= 0.0, dy * (alpha * decay), dy)


@triton.jit
def _softplus(x, PRECISION: tl.constexpr, beta, threshold):
    """z / beta, z = max(beta x, 0) + log(1 + e^-|beta x|), and x where beta x is above the threshold.

    The logarithm is 2 artanh(e / (2 + e)), without cancellation or branch.
    """
    scaled = x * beta
    decay = _exp(-tl.abs(scaled), PRECISION)
    s = decay / (2.0 + decay)
    square = s * s
    series = 0.14296179 + square * (0.10853288 + square * 0.11612165)
    series = 0.33333334 + square * (0.19999853 + square * series)
    z = _relu(scaled, PRECISION) + 2.0 * (s + s * (square * series))
    return tl.where(scaled > threshold, x, z * (1.0 / beta))


@triton.jit
def _softplus_slope(x, dy, PRECISION: tl.constexpr, beta, threshold):
    """dy sigmoid(beta x), and dy where beta x is above the threshold."""
    scaled = x * beta
    return tl.where(scaled > threshold, dy, dy * _sigmoid(scaled, PRECISION))


@triton.jit
def _mish_parts(x, PRECISION: tl.constexpr):
    """Numerator and denominator of tanh(softplus(x)), and their difference, in powers of e^-|x|."""
    decay = _exp(-tl.abs(x), PRECISION)
    square = decay * decay
    numerator = tl.where(x < 0.0, square + 2.0 * decay, 1.0 + 2.0 * decay)
    difference = tl.where(x < 0.0, 2.0, 2.0 * square)
    return numerator, numerator + difference, difference


@triton.jit
def _mish(x, PRECISION: tl.constexpr):
    """x tanh(softplus(x))."""
    numerator, denominator, _ = _mish_parts(x, PRECISION)
    return x * _divide(numerator, denominator, PRECISION)


@triton.jit
def _mish_slope(x, dy, PRECISION: tl.constexpr):
    """dy (t + x (1 - t^2) sigmoid(x)), t = tanh(softplus(x))."""
    numerator, denominator, difference = _mish_parts(x, PRECISION)
    t = _divide(numerator, denominator, PRECISION)
    rest = _divide(difference, denominator, PRECISION)
    return dy * (t + x * (rest * (1.0 + t)) * _sigmoid(x, PRECISION))


@triton.jit
def _hardswish(x, PRECISION: tl.constexpr):
    """x min(max(x + 3, 0), 6) / 6."""
    shifted = tl.maximum(x + 3.0, 0.0, propagate_nan=tl.PropagateNan.ALL)
    return x * (tl.minimum(shifted, 6.0, propagate_nan=tl.PropagateNan.ALL) * 0.16666667)


@triton.jit
def _hardswish_slope(x, dy, PRECISION: tl.constexpr):
    """0 up to -3, dy from 3 on, dy (x / 3 + 1/2) between."""
    return tl.where(x <= -3.0, 0.0, tl.where(x < 3.0, dy * (x * 0.33333334 + 0.5), dy))


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function: its default and its range in which the kernels are right, ends included."""

    default: float
    lowest: float = -_MOST
    highest: float = _MOST


@dataclass(frozen=True)
class ActivationFunction:
    """One row: an activation's value and slope for Triton, and their counterparts in PyTorch.

    All four take the function's parameters, in the order of `parameters`, as their last arguments.

    Args:
        value: `@triton.jit`, (x, PRECISION, ...) -> y.
        slope: `@triton.jit`, (saved, dy, PRECISION, ...) -> dx.
        torch_value: counterpart of `value`: (x, ...) -> y. It also replaces the kernel where that cannot run.
        torch_slope: counterpart of `slope`: (dy, saved, ...) -> dx.
        saves: the tensor that is kept for backward. It is the output wherever that suffices, because the next layer
            usually keeps it anyway, and the input can be freed.
        gated: the last dimension holds two halves (a, b) and the result is value(a) * b. Backward needs both.
        parameters: by PyTorch's names.
        approximate_ulp: the largest error of the approximate variant, rounding included, in ulp of bf16 and fp16. A
            dtype is missing where the variant would not be faster, or would have an error above 1 ulp.
    """

    value: Any
    slope: Any
    torch_value: Callable[..., torch.Tensor]
    torch_slope: Callable[..., torch.Tensor]
    saves: Literal["input", "output"] = "input"
    gated: bool = False
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    approximate_ulp: Mapping[torch.dtype, float] = field(default_factory=dict)


def _gelu_tanh_torch(x: torch.Tensor) -> torch.Tensor:
    return F.gelu(x, approximate="tanh")


def _gelu_tanh_torch_slope(dy: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    dx: torch.Tensor = aten.gelu_backward(dy, x, approximate="tanh")
    return dx


def _relu_squared_torch(x: torch.Tensor) -> torch.Tensor:
    """relu(x)^2."""
    return F.relu(x).square()


def _relu_squared_torch_slope(dy: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """2 dy relu(x)."""
    return dy * (2 * F.relu(x))


def _relu_torch_slope(dy: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    dx: torch.Tensor = aten.threshold_backward(dy, y, 0)
    return dx


def _leaky_relu_torch_slope(dy: torch.Tensor, y: torch.Tensor, negative_slope: float) -> torch.Tensor:
    """PyTorch's leaky_relu backward from the result."""
    dx: torch.Tensor = aten.leaky_relu_backward(dy, y, negative_slope, True)
    return dx


def _elu_torch_slope(dy: torch.Tensor, x: torch.Tensor, alpha: float) -> torch.Tensor:
    """PyTorch's elu backward from the input."""
    dx: torch.Tensor = aten.elu_backward(dy, alpha, 1, 1, False, x)
    return dx


aten = torch.ops.aten
_Row = ActivationFunction
_NEGATIVE_SLOPE = {"negative_slope": Parameter(0.01, lowest=0.0)}
_ALPHA = {"alpha": Parameter(1.0)}
_BETA_THRESHOLD = {"beta": Parameter(1.0, lowest=1e-6, highest=1e6), "threshold": Parameter(20.0)}
_NEAR = {torch.bfloat16: 0.51, torch.float16: 0.51}
_TANH = {torch.bfloat16: 0.63}
_GELU = {torch.bfloat16: 0.54, torch.float16: 0.73}
FUNCTIONS: dict[str, ActivationFunction] = {
    "relu": _Row(_relu, _relu_slope, F.relu, _relu_torch_slope, "output"),
    "leaky_relu": _Row(
        _leaky_relu,
        _leaky_relu_slope,
        F.leaky_relu,
        _leaky_relu_torch_slope,
        "output",
        parameters=_NEGATIVE_SLOPE,
    ),
    "relu_squared": _Row(_relu_squared, _relu_squared_slope, _relu_squared_torch, _relu_squared_torch_slope),
    "sigmoid": _Row(
        _sigmoid, _sigmoid_slope, torch.sigmoid, aten.sigmoid_backward, "output", approximate_ulp=_NEAR
    ),
    "tanh": _Row(_tanh, _tanh_slope, torch.tanh, aten.tanh_backward, "output", approximate_ulp=_TANH),
    "gelu": _Row(_gelu, _gelu_slope, F.gelu, aten.gelu_backward, approximate_ulp=_GELU),
    "gelu_tanh": _Row(
        _gelu_tanh, _gelu_tanh_slope, _gelu_tanh_torch, _gelu_tanh_torch_slope, approximate_ulp=_NEAR
    ),
    "silu": _Row(_silu, _silu_slope, F.silu, aten.silu_backward, approximate_ulp=_NEAR),
    "elu": _Row(_elu, _elu_slope, F.elu, _elu_torch_slope, parameters=_ALPHA),
    "softplus": _Row(
        _softplus,
        _softplus_slope,
        F.softplus,
        aten.softplus_backward,
        parameters=_BETA_THRESHOLD,
    ),
    "mish": _Row(_mish, _mish_slope, F.mish, aten.mish_backward, approximate_ulp=_NEAR),
    "hardswish": _Row(_hardswish, _hardswish_slope, F.hardswish, aten.hardswish_backward),
    "swiglu": _Row(_silu, _silu_slope, F.silu, aten.silu_backward, gated=True, approximate_ulp=_NEAR),
    "geglu": _Row(_gelu, _gelu_slope, F.gelu, aten.gelu_backward, gated=True, approximate_ulp=_GELU),
    "reglu": _Row(_relu, _relu_slope, F.relu, _relu_torch_slope, gated=True),
}
