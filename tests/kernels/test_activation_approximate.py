"""The approximate variant: its stated error, worked out from that of NVIDIA's instructions, and what it saves."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

from fusetune.kernels.activations.api import Activation, activation
from fusetune.kernels.activations.functions import FUNCTIONS
from fusetune.kernels.activations.kernels import forward_case, precision
from fusetune.kernels.static.compile import _compile, _disassemble
from fusetune.kernels.static.gpu_targets import TARGETS, gpu_target
from fusetune.kernels.static.recorder import record_launches
from tests.kernels.test_static_gate import BASELINE

Array = NDArray[np.float64]
APPROXIMATE = sorted(name for name, row in FUNCTIONS.items() if row.approximate_ulp)
HALVES = [torch.bfloat16, torch.float16]
PLACES = {torch.bfloat16: 8, torch.float16: 11}

# PTX ISA: the largest relative errors of tanh.approx.f32, rcp.approx.ftz.f32 and ex2.approx.f32.
TANH_ERROR, RECIPROCAL_ERROR, POWER_ERROR = 2.0**-11, 2.0**-23, 2.0**-22
# What else the functions do in fp32: each step is off by half a unit, and none is made of more than six.
ROUNDING = 2.0**-24
SMALLEST = 2.0**-126


class Machine:
    """The approximate instructions, each as wrong as it may be, in one direction."""

    def __init__(self, tanh: int, reciprocal: int, power: int) -> None:
        self.signs = tanh, reciprocal, power

    def tanh(self, x: Array) -> Array:
        return np.tanh(x) * (1 + self.signs[0] * TANH_ERROR)

    def reciprocal(self, x: Array) -> Array:
        """Results below the normal numbers are 0."""
        inverse = 1 / x * (1 + self.signs[1] * RECIPROCAL_ERROR)
        return np.where(inverse < SMALLEST, 0, inverse) if any(self.signs) else inverse

    def exp(self, x: Array) -> Array:
        """An error of the argument, of six roundings, is one of the result times the argument."""
        argument = np.minimum(np.abs(x), 1000)  # the power is 0 or infinite beyond
        return np.exp(x) * (1 + self.signs[2] * (POWER_ERROR + 6 * ROUNDING * argument))

    def sigmoid(self, x: Array) -> Array:
        return self.reciprocal(1 + self.exp(-x))

    def normal_cdf(self, x: Array) -> Array:
        coefficients = [
            1.5954571962,
            7.3143914342e-2,
            -2.7297300634e-4,
            -7.2177026595e-5,
            4.5150613914e-6,
            -1.2166439944e-7,
            1.2770117185e-9,
        ]
        return self.sigmoid(x * np.polynomial.Polynomial(coefficients)(x * x))

    def tanh_of_softplus(self, x: Array) -> tuple[Array, Array]:
        """It, and what it lacks of 1."""
        decay = self.exp(-np.abs(x))
        numerator = np.where(x < 0, decay**2 + 2 * decay, 1 + 2 * decay)
        rest = np.where(x < 0, 2, 2 * decay**2)
        inverse = self.reciprocal(numerator + rest)
        return numerator * inverse, rest * inverse


def gelu_tanh_argument(x: Array) -> Array:
    """Twice the argument of the tanh in gelu_tanh."""
    return 2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)


def gelu_tanh_slope(m: Machine, x: Array) -> Array:
    """s + x s (1 - s) u'."""
    decay = m.exp(-np.abs(gelu_tanh_argument(x)))
    inverse = m.reciprocal(1 + decay)
    s = np.where(x < 0, decay, 1) * inverse
    return s + x * decay * inverse**2 * 2 * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)


def mish_slope(m: Machine, x: Array) -> Array:
    """t + x (1 - t)(1 + t) s."""
    t, rest = m.tanh_of_softplus(x)
    return t + x * rest * (1 + t) * m.sigmoid(x)


def density(x: Array) -> Array:
    """The normal distribution's."""
    return np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


VALUES: dict[str, Callable[[Machine, Array], Array]] = {
    "sigmoid": lambda m, x: m.sigmoid(x),
    "tanh": lambda m, x: m.tanh(x),
    "gelu": lambda m, x: x * m.normal_cdf(x),
    "gelu_tanh": lambda m, x: x * m.sigmoid(gelu_tanh_argument(x)),
    "silu": lambda m, x: x * m.sigmoid(x),
    "mish": lambda m, x: x * m.tanh_of_softplus(x)[0],
}
# Those of sigmoid and tanh come from the output, by no approximate instruction.
SLOPES: dict[str, Callable[[Machine, Array], Array]] = {
    "gelu": lambda m, x: m.normal_cdf(x) + x * density(x),
    "gelu_tanh": gelu_tanh_slope,
    "silu": lambda m, x: m.sigmoid(x) * (1 + x * (1 - m.sigmoid(x))),
    "mish": mish_slope,
}
# In gated pairs the first half meets these.
SAME = {"swiglu": "silu", "geglu": "gelu"}
MACHINES = [Machine(*signs) for signs in itertools.product((-1, 1), repeat=3)]
EXACT = Machine(0, 0, 0)


def truth(name: str, x: Array) -> Array:
    """The function itself."""
    return x * ndtr(x) if name == "gelu" else VALUES[name](EXACT, x)


def every_number(dtype: torch.dtype) -> Array:
    """Every number of a 16-bit dtype."""
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).double().numpy()
    return numbers[np.isfinite(numbers)]


def last_place(y: Array, dtype: torch.dtype) -> Array:
    """The unit in the last place."""
    smallest = torch.finfo(dtype).tiny
    return 2.0 ** (np.floor(np.log2(np.maximum(np.abs(y), smallest))) + 1 - PLACES[dtype])


def worst_ulp(name: str, dtype: torch.dtype, lowest: float = -math.inf) -> float:
    """The largest error of a result, the half unit of its rounding included, but where it may be 0."""
    x = every_number(dtype)
    x = x[x >= lowest]
    with np.errstate(over="ignore"):
        y = truth(name, x)
        errors = [np.abs(VALUES[name](machine, x) - y) + 2 * ROUNDING * np.abs(y) for machine in MACHINES]
    errors = np.where(np.abs(y) < SMALLEST * np.maximum(1, np.abs(x)), 0, errors)  # type: ignore[assignment]
    return 0.5 + float(np.max(errors / last_place(y, dtype)))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", APPROXIMATE)
def test_the_stated_error_is_what_the_instructions_can_do(name: str, dtype: torch.dtype) -> None:
    plain = SAME.get(name, name)
    # Below -5 gelu is smaller than 1.5e-6; there the absolute error is stated.
    worst = worst_ulp(plain, dtype, lowest=-5.0 if plain == "gelu" and dtype == torch.bfloat16 else -math.inf)
    stated = FUNCTIONS[name].approximate_ulp
    if dtype in stated:
        assert worst <= stated[dtype] <= min(worst + 0.015, 1.0)
    else:
        assert worst > 1


def test_far_below_0_gelu_keeps_its_absolute_error() -> None:
    x = np.linspace(-40, -5, 10001)
    with np.errstate(over="ignore"):
        assert max(np.abs(VALUES["gelu"](m, x) - truth("gelu", x)).max() for m in MACHINES) < 5e-9


@pytest.mark.parametrize("name", SLOPES)
def test_slopes_are_off_by_less_than_2_to_the_minus_15(name: str) -> None:
    x = np.linspace(-80, 80, 100001)
    true = ndtr(x) + x * density(x) if name == "gelu" else SLOPES[name](EXACT, x)
    with np.errstate(over="ignore"):
        assert max(np.abs(SLOPES[name](machine, x) - true).max() for machine in MACHINES) < 2**-15


@pytest.mark.parametrize("target", [target for target in TARGETS if target.startswith("sm_")])
@pytest.mark.parametrize("name", APPROXIMATE)
def test_it_saves_instructions_on_nvidia(name: str, target: str) -> None:
    """By the committed values, to which `test_static_gate.py` holds the machine code."""
    committed = json.loads(BASELINE.read_text())
    for kernel in [name] if FUNCTIONS[name].saves == "output" else [name, f"{name}_backward"]:
        precise, approximate = (
            committed[f"{kernel}-{variant} {target}"]["instructions_per_element"]
            for variant in ("bf16", "approximate-bf16")
        )
        assert approximate < precise - 2


def test_tanh_is_one_instruction_of_the_gpu() -> None:
    for approximate, count in ((False, 0), (True, 16)):
        case = forward_case("tanh", torch.bfloat16, approximate=approximate)
        sass = _disassemble(_compile(case, gpu_target("sm_90")).asm["cubin"])
        assert sass.count("MUFU.TANH") == count


@pytest.mark.parametrize("name", ["tanh", "gelu", "mish"])
def test_other_gpus_run_the_precise_function(name: str) -> None:
    codes = []
    for approximate in (False, True):
        compiled = _compile(forward_case(name, torch.bfloat16, approximate=approximate), gpu_target("gfx942"))
        lines = compiled.asm["amdgcn"].partition(".Lfunc_begin0:")[2].splitlines()
        codes.append([line for line in lines if line.startswith(("\tv_", "\ts_", "\tbuffer_", "\tglobal_"))])
    assert codes[0] == codes[1]
    assert len(codes[0]) > 100


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("name", ["tanh", "gelu", "relu"])
def test_the_flag_reaches_both_kernels_where_it_applies(name: str, dtype: torch.dtype) -> None:
    x = torch.randn(4, 16, dtype=dtype, requires_grad=True)
    with record_launches() as recording:
        y = Activation(name, approximate=True)(x)
        torch.autograd.grad(y, x, torch.ones_like(y))
    expected = "approximate" if dtype in FUNCTIONS[name].approximate_ulp else None
    expected = expected or ("fp32" if dtype == torch.float32 else "16-bit")
    assert [launch.constants["PRECISION"] for launch in recording.launches] == [expected] * 2


def test_fp32_results_are_never_approximate() -> None:
    assert all(precision(row, torch.float32, True) == "fp32" for row in FUNCTIONS.values())


def test_cpu_tensors_ignore_the_flag() -> None:
    x = torch.linspace(-6, 6, 2000).bfloat16()
    for name in APPROXIMATE:
        assert torch.equal(activation(x, name, approximate=True), activation(x, name))
