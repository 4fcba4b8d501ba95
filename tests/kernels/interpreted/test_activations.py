"""The activation kernels themselves, run by Triton's interpreter against float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import triton.language as tl
from torch import nn
from triton.runtime.interpreter import interpreter_builder

from fusetune.kernels.activations.api import Activation, _activation, activation, activation_path, reference
from fusetune.kernels.activations.functions import FUNCTIONS
from fusetune.kernels.activations.kernels import forward_kernel, index_types
from fusetune.kernels.launch import LaunchConfig, launch
from fusetune.kernels.replace.models import replace_activations, verify_activation
from tests.kernels.special_values import assert_rule

# The interpreter computes with NumPy, which warns where e^x overflows on its way to a right limit.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")

NAMES = sorted(FUNCTIONS)
PLAIN = [name for name in NAMES if not FUNCTIONS[name].gated]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def sweep() -> torch.Tensor:
    """Every magnitude from the smallest subnormal to the largest number, and dense values about 0."""
    magnitudes = torch.logspace(-44.8, 38.5, 1500, dtype=torch.float64).float()
    return torch.cat(
        [magnitudes, -magnitudes, torch.linspace(-20, 20, 2001), torch.linspace(-110, 110, 2001)]
    )


def value_and_slope(function: object, name: str, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """y and dy/dx."""
    x = x.clone().requires_grad_()
    y = function(x, name)  # type: ignore[operator]
    return y.detach(), torch.autograd.grad(y, x, torch.ones_like(y))[0]


def ulps(found: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Errors in units of the last fp32 place of the exact value; subnormal results share one unit."""
    smallest = np.float32(np.finfo(np.float32).tiny)
    unit = np.spacing(np.maximum(np.abs(exact.float().numpy()), smallest))
    error = (found.double() - exact).abs() / torch.from_numpy(unit).double()
    return torch.where(torch.isfinite(exact) & torch.isfinite(found), error, 0.0)


def test_the_interpreter_is_what_runs() -> None:
    assert activation_path(torch.zeros(1)) == "interpreter"
    assert activation_path(torch.zeros(1, dtype=torch.float64)) == "torch"


# Where the exact result is no longer a normal number, fp32 cannot hold 4 ulp of the factors it is made of:
# silu and mish multiply x by a factor that is subnormal below x = -87.
@pytest.mark.parametrize(
    ("name", "lowest"),
    [("sigmoid", -200), ("tanh", -200), ("elu", -200), ("softplus", -200), ("silu", -87), ("mish", -87)],
)
def test_values_hold_four_ulp(name: str, lowest: float) -> None:
    x = sweep()
    x = x[x > lowest]
    assert ulps(activation(x, name), reference(x.double(), name)).max() <= 4


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "relu_squared", "hardswish"])
def test_piecewise_functions_hold_four_ulp(name: str) -> None:
    x = sweep()
    x = x[x.abs() < 1e18]  # the square stays finite
    assert ulps(activation(x, name), reference(x.double(), name)).max() <= 4


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "silu", "elu", "softplus", "mish", "gelu", "gelu_tanh"])
def test_worst_error_is_four_units(name: str) -> None:
    """Of 1 or the value, whichever is larger. Of 1 for slopes."""
    x = sweep()
    x = x[x.abs() < (1e19 if name == "gelu_tanh" else 3e38)]  # its slope has x^2, which overflows beyond
    (y, slope), (exact, exact_slope) = (
        value_and_slope(activation, name, x),
        value_and_slope(reference, name, x.double()),
    )
    assert ((y.double() - exact).abs() <= 4 * 2.0**-23 * exact.abs().clamp_min(1.0)).all()
    # Silu's slope has x (1 - s), where 1 - s carries the rounding of s, until it is 0.
    units = 4 + 0.5 * x.double().abs().clamp_max(18) * (name == "silu")
    assert ((slope.double() - exact_slope).abs() <= units * 2.0**-23).all()


@pytest.mark.parametrize("name", PLAIN)
def test_fp16_is_the_rounded_value_all_over_its_range(name: str) -> None:
    # bf16 is left out: the interpreter cuts where a GPU rounds. The step is odd, so every last digit occurs.
    x = torch.arange(-(2**15), 2**15, 5, dtype=torch.int16).view(torch.float16)
    x = torch.cat([x, torch.tensor([float("inf"), float("-inf"), float("nan")], dtype=torch.float16)])
    ours = value_and_slope(activation, name, x)
    assert_rule(name, *ours, x)
    number = x.isfinite()
    # Slopes cross zero, where their terms cancel: below 1/64 they are held to its unit.
    smallest = (np.float16(2**-14), np.float16(2**-6))
    value, slope = value_and_slope(reference, name, x.double())
    y = ours[0].double()  # what these two slopes are worked out from
    slope = {"sigmoid": y * (1 - y), "tanh": 1 - y * y}.get(name, slope)
    # 1 + erf carries the rounding of 1, and x is a factor.
    lost = x.double().abs() * 2.0**-24 * (name == "gelu")
    for found, exact, least in zip(ours, (value, slope), smallest, strict=True):
        y, expected = found[number], exact[number]
        fits = expected.half().isfinite()
        assert torch.equal(y[~fits], expected[~fits].half())
        unit = torch.from_numpy(np.spacing(np.maximum(expected[fits].abs().half().numpy(), least))).double()
        assert ((y[fits].double() - expected[fits]).abs() <= 0.51 * unit + lost[number][fits]).all()


def test_gelu_tanh_keeps_the_negative_tail_that_a_tanh_loses() -> None:
    x = torch.linspace(-9, -4, 501)
    inner = np.sqrt(2 / np.pi) * (x.double() + 0.044715 * x.double() ** 3)
    exact = x.double() * torch.sigmoid(2 * inner)
    ours = ((activation(x, "gelu_tanh").double() - exact) / exact).abs().max()
    by_tanh = 0.5 * x.double() * (1 + torch.tanh(inner).float()).double()
    assert ours < 1e-4 < ((by_tanh - exact) / exact).abs().max()


@pytest.mark.parametrize("name", PLAIN)
def test_infinities_and_nan_follow_the_rule(name: str) -> None:
    x = torch.tensor([float("inf"), float("-inf"), float("nan")])
    assert_rule(name, *value_and_slope(activation, name, x), x)


@pytest.mark.parametrize("name", PLAIN)
def test_the_ends_of_the_range_are_those_of_float64(name: str) -> None:
    largest = 1e19 if name == "gelu_tanh" else 3.4e38  # its slope has x^2, which overflows beyond
    x = torch.tensor([0.0, -0.0, 3.0, -3.0, 20.0, 1e-45, -1e-45, largest, -largest])
    exact = value_and_slope(reference, name, x.double())
    for found, true in zip(value_and_slope(activation, name, x), exact, strict=True):
        torch.testing.assert_close(found, true.float())  # what float64 holds and fp32 does not is infinite


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_with_and_without_a_bias(name: str, dtype: torch.dtype) -> None:
    verify_activation(name, dtype, torch.device("cpu"))
    verify_activation(name, dtype, torch.device("cpu"), bias=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("leaky_relu", {"negative_slope": 0.2}),
        ("leaky_relu", {"negative_slope": 0.0}),
        ("elu", {"alpha": 0.5}),
        ("elu", {"alpha": -2.0}),
        ("softplus", {"beta": 3.0}),
        ("softplus", {"beta": 0.5, "threshold": 1.0}),
    ],
)
def test_parameters_reach_the_kernels(name: str, parameters: dict[str, float], dtype: torch.dtype) -> None:
    verify_activation(name, dtype, torch.device("cpu"), bias=True, **parameters)


def test_beyond_its_threshold_softplus_is_the_identity() -> None:
    x = torch.tensor([2.0, 2.5, 3.0, 1e30], requires_grad=True)
    y = activation(x, "softplus", beta=2.0, threshold=4.9)
    assert y[0] > 2.0
    assert torch.equal(y[1:], x[1:])
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0][1:], torch.ones(3))


@pytest.mark.parametrize("name", ["gelu", "geglu"])
def test_approximate_gelu_holds_its_stated_error(name: str) -> None:
    """Only in fp16: the interpreter cuts fp32 down to bf16 where a GPU rounds."""
    dtype = torch.float16
    x = torch.linspace(-5, 5, 20001).to(dtype)
    given = x if name == "gelu" else torch.stack([x, torch.ones_like(x)], dim=-1)
    y = activation(given, name, approximate=True).flatten()
    exact = nn.functional.gelu(x.double())
    unit = exact.abs().clamp_min(torch.finfo(dtype).tiny).log2().floor().exp2() * torch.finfo(dtype).eps
    worst = ((y.double() - exact).abs() / unit).max()
    assert worst <= FUNCTIONS[name].approximate_ulp[dtype]


@pytest.mark.parametrize("name", sorted(name for name in NAMES if FUNCTIONS[name].approximate_ulp))
def test_approximate_gradients_are_near_the_precise_ones(name: str) -> None:
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    slopes = []
    for approximate in (False, True):
        y = activation(x, name, approximate=approximate)
        slopes.append(torch.autograd.grad(y, x, torch.ones_like(y))[0])
    torch.testing.assert_close(slopes[1], slopes[0], rtol=2**-7, atol=2**-12)


@pytest.mark.parametrize("name", ["relu", "reglu"])
def test_elements_beyond_two_to_the_31_are_reached(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last program alone, on files with a hole before its block; the block below 2^31 shares its low 32 bits."""
    elements, block = 2**31 + 2048, 1024
    gated = FUNCTIONS[name].gated
    results = elements // 2 if gated else elements
    x, y = (
        torch.from_file(str(tmp_path / file), shared=True, size=size, dtype=torch.bfloat16)
        for file, size in (("x", elements), ("y", results))
    )
    x[-2 * block :] = torch.linspace(-3, 3, 2 * block).bfloat16()
    x[: 2 * block] = 7.0
    program = results // block - 1
    monkeypatch.setattr(
        interpreter_builder,
        "set_grid_idx",
        lambda *_: setattr(interpreter_builder, "grid_idx", (program, 0, 0)),
    )
    half = block if gated else 1
    launch(
        forward_kernel,
        (1,),
        x,
        None,
        y,
        results,
        0,
        1,
        1,
        half,
        (),
        config=LaunchConfig(block, 4),
        VALUE=FUNCTIONS[name].value,
        GATED=gated,
        PRECISION="16-bit",
        HAS_TAIL=False,
        **index_types(elements, half),
    )
    last = x[-2 * block :]
    expected = last[:block].relu() * last[block:] if gated else last[block:].relu()
    assert torch.equal(y[-block:], expected)
    assert not y[:block].any()


@pytest.mark.parametrize("column", [tl.int32, tl.int64])
@pytest.mark.parametrize("name", ["silu", "swiglu"])
def test_wide_indices_give_the_same_results(
    name: str, column: tl.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(67, 62, generator=generator, requires_grad=True)
    bias = torch.randn(62, generator=generator, requires_grad=True)
    found = []
    for wide in (False, True):
        if wide:
            types = {"POSITION": tl.int64, "COLUMN": column}
            monkeypatch.setitem(activation.__globals__, "index_types", lambda *_, types=types: types)
        y = activation(x, name, bias)
        found.append([y, *torch.autograd.grad(y, (x, bias), torch.ones_like(y))])
    assert all(torch.equal(wide, narrow) for narrow, wide in zip(*found, strict=True))


@pytest.mark.parametrize("elements", [0, 1, 15, 16, 17, 1023, 1024, 1025, 1040, 2064])
def test_every_length_is_covered_and_nothing_beyond_it(elements: int) -> None:
    memory = torch.full((elements + 64,), 7.0)
    x = memory[16 : 16 + elements].copy_(torch.linspace(-3, 3, elements))
    y = activation(x, "leaky_relu")
    assert torch.equal(y, nn.functional.leaky_relu(x))
    assert (memory[:16] == 7).all()
    assert (memory[16 + elements :] == 7).all()


@pytest.mark.parametrize("name", ["swiglu", "reglu"])
@pytest.mark.parametrize("shape", [(3, 2), (700, 6), (5, 32), (2, 3, 34), (1, 2100), (0, 4), (4, 0)])
def test_gated_pairs_of_every_width(name: str, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, requires_grad=True)
    bias = torch.randn(shape[-1], generator=generator, requires_grad=True)
    ours, theirs = activation(x, name, bias), reference(x, name, bias)
    dy = torch.randn(ours.shape, generator=generator)
    torch.testing.assert_close(ours, theirs)
    found = torch.autograd.grad(ours, (x, bias), dy)
    expected = torch.autograd.grad(theirs, (x, bias), dy)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "permuted": lambda x: x.permute(3, 1, 0, 2),
    "gapped": lambda x: x[:, :, ::2],
    "expanded": lambda x: x[:, :, :1].expand(-1, -1, 4, -1),
    "misaligned": lambda x: torch.cat([torch.zeros(1), x.flatten()])[1:].view(x.shape),
}


@pytest.mark.parametrize("bias_dim", [-1, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_kept_and_meet_the_right_bias(layout: str, bias_dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = LAYOUTS[layout](torch.randn(3, 5, 4, 7, generator=generator)).requires_grad_()
    bias = torch.randn(x.shape[bias_dim], generator=generator, requires_grad=True)
    ours = activation(x, "tanh", bias, bias_dim=bias_dim)
    theirs = reference(x, "tanh", bias, bias_dim=bias_dim)
    assert ours.stride() == torch.empty_like(x).stride()
    torch.testing.assert_close(ours, theirs)
    # A gradient that comes in another layout than the output's, as from a mean or a transposed layer.
    dy = torch.randn(ours.shape, generator=generator).transpose(0, 1).contiguous().transpose(0, 1)
    found = torch.autograd.grad(ours, (x, bias), dy)
    expected = torch.autograd.grad(theirs, (x, bias), dy)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_bias_gradient_has_the_same_bits_every_time() -> None:
    x = torch.randn(500, 6, requires_grad=True)
    bias = torch.randn(6, requires_grad=True)
    dy = torch.randn(500, 6)
    first, second = (torch.autograd.grad(activation(x, "gelu", bias), bias, dy)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", ["relu", "tanh", "silu", "swiglu"])
def test_double_backward_is_that_of_pytorch(name: str) -> None:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    second = []
    for function in (activation, reference):
        (first,) = torch.autograd.grad(function(x, name).pow(2).sum(), x, create_graph=True)
        second.append(torch.autograd.grad(first.pow(2).sum(), x)[0])
    torch.testing.assert_close(second[0], second[1], rtol=1e-4, atol=1e-4)


def test_compiled_and_exported_graphs_hold_the_operator() -> None:
    x = torch.randn(4, 6, requires_grad=True)
    compiled = torch.compile(Activation("silu"), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), activation(x, "silu"))
    assert torch.equal(
        torch.autograd.grad(compiled(x).sum(), x)[0], value_and_slope(activation, "silu", x)[1]
    )
    program = torch.export.export(Activation("silu"), (x.detach(),))
    assert torch.ops.fusetune.activation.default in {node.target for node in program.graph.nodes}


def test_registration_passes_pytorchs_own_checks() -> None:
    x, bias = torch.randn(4, 6, requires_grad=True), torch.randn(6, requires_grad=True)
    torch.library.opcheck(_activation, (x, bias, "softplus", 1, [2.0, 5.0], False))


def test_a_model_trains_the_same_after_the_swap() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 1))
    x = torch.randn(16, 6)
    losses, gradients = [], []
    for swap in (False, True):
        if swap:
            assert replace_activations(model) == ["1", "3"]
        model.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        losses.append(loss.detach())
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])
