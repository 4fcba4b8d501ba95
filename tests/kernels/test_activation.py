"""Activations on CPU tensors, and what holds on every path: autograd, registration, layouts, errors.

The kernels' own arithmetic is tested in `interpreted/test_activations.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils.checkpoint import checkpoint

from fusetune.kernels.activations.api import (
    KERNELS,
    Activation,
    _activation,
    _activation_backward,
    activation,
    activation_path,
    parameter_values,
    reference,
)
from fusetune.kernels.activations.functions import FUNCTIONS
from fusetune.kernels.static.recorder import record_launches
from tests.kernels.special_values import assert_rule

NAMES = sorted(FUNCTIONS)
PLAIN = [name for name in NAMES if not FUNCTIONS[name].gated]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]

# PyTorch's own classes, not the table's functions, say what a name means.
TORCH_CLASSES: dict[str, nn.Module] = {
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU("tanh"),
    "silu": nn.SiLU(),
    "elu": nn.ELU(),
    "softplus": nn.Softplus(),
    "mish": nn.Mish(),
    "hardswish": nn.Hardswish(),
}


def sample(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """A normal sample three wide that requires a gradient."""
    values = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(dtype).requires_grad_()


def operator(
    x: torch.Tensor, name: str, bias: torch.Tensor | None = None, bias_dim: int = -1, **parameters: float
) -> torch.Tensor:
    """The registered operator, which `activation` only calls where a kernel runs."""
    return _activation(x, bias, name, bias_dim % x.dim(), parameter_values(name, parameters), False)


@pytest.mark.processor
@pytest.mark.parametrize("name", sorted(TORCH_CLASSES))
def test_a_name_means_what_pytorch_calls_so(name: str, cpu_path: str) -> None:
    x = sample(50)
    ours, torchs = activation(x, name), TORCH_CLASSES[name](x)
    assert torch.equal(ours, torchs) if cpu_path == "torch" else torch.allclose(ours, torchs, atol=1e-6)


@pytest.mark.processor
@pytest.mark.usefixtures("cpu_path")
def test_names_that_pytorch_lacks_follow_their_papers() -> None:
    x = sample(4, 6)
    gate, value = x[:, :3], x[:, 3:]
    assert torch.equal(activation(x, "relu_squared"), x.clamp_min(0) ** 2)
    assert torch.allclose(activation(x, "swiglu"), gate * torch.sigmoid(gate) * value)
    assert torch.allclose(activation(x, "geglu"), F.gelu(gate) * value, atol=1e-6)
    assert torch.equal(activation(x, "reglu"), gate.clamp_min(0) * value)


@pytest.mark.processor
@pytest.mark.usefixtures("cpu_path")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_operator_on_cpu_agrees_with_float64(name: str, dtype: torch.dtype) -> None:
    x, bias = sample(5, 7, 6, dtype=dtype), sample(6, dtype=dtype, seed=1)
    y = operator(x, name, bias)
    dy = torch.randn(y.shape).to(dtype)
    exact_inputs = [tensor.detach().double().requires_grad_() for tensor in (x, bias)]
    exact = reference(exact_inputs[0], name, exact_inputs[1])
    gradients = torch.autograd.grad(y, (x, bias), dy)
    exact_gradients = torch.autograd.grad(exact, exact_inputs, dy.double())
    assert y.dtype == dtype
    assert [gradient.dtype for gradient in gradients] == [dtype, dtype]
    # x + bias is rounded once before the function; that error meets slopes of 6 and more (relu_squared, pairs).
    # Near hardswish's corner at -3 that rounding can choose the other side, so its gradient is tested elsewhere.
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(
        y.double(), exact, rtol=8 * eps, atol=16 * eps * float(exact.detach().abs().max())
    )
    if name != "hardswish":
        for gradient, true in zip(gradients, exact_gradients, strict=True):
            atol = 16 * eps * float(true.abs().max())
            torch.testing.assert_close(gradient.double(), true, rtol=8 * eps, atol=atol)


@pytest.mark.parametrize("name", NAMES)
def test_first_and_second_derivatives_agree_with_finite_differences(name: str) -> None:
    x = sample(3, 4, dtype=torch.float64)
    bias = sample(4, dtype=torch.float64, seed=1)
    assert torch.autograd.gradcheck(lambda x, b: operator(x, name, b), (x, bias))
    assert torch.autograd.gradgradcheck(lambda x, b: operator(x, name, b), (x, bias))


@pytest.mark.parametrize("name", NAMES)
def test_double_backward_is_that_of_pytorch(name: str) -> None:
    """The loss is not linear, so the incoming gradient depends on the input as well; and the third is right too."""
    x = sample(4, 6, dtype=torch.float64)
    higher = []
    for function in (operator, reference):
        (first,) = torch.autograd.grad(function(x, name).pow(2).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(2).sum(), x, create_graph=True)
        third = torch.autograd.grad(second.pow(2).sum(), x)[0]
        higher.append((second.detach(), third))
    for ours, theirs in zip(*higher, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["silu", "tanh", "swiglu", "softplus"])
def test_registration_passes_pytorchs_own_checks(name: str) -> None:
    x, bias = sample(4, 6), sample(6, seed=1)
    call = (name, 1, parameter_values(name, {}), False)
    torch.library.opcheck(_activation, (x, bias, *call))
    torch.library.opcheck(_activation, (x, None, *call))
    dy = operator(x, name).detach().requires_grad_()
    torch.library.opcheck(_activation_backward, (dy, x.detach(), None, *call))


@pytest.mark.parametrize("name", PLAIN)
def test_backward_keeps_the_output_or_the_input_and_nothing_else(name: str) -> None:
    x = sample(4, 6)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        y = operator(x, name)
    from_output = name in {"relu", "leaky_relu", "sigmoid", "tanh"}
    assert [tensor.data_ptr() for tensor in kept] == [(y if from_output else x).data_ptr()]


@pytest.mark.processor
@pytest.mark.parametrize("operate", [activation, operator])
def test_layout_is_that_of_pytorch(operate: object, cpu_path: str) -> None:
    image = torch.randn(2, 3, 4, 5)
    for x in (
        image.to(memory_format=torch.channels_last),
        image.permute(3, 0, 2, 1),
        image[:, :, ::2],
        torch.randn(3, 1).expand(3, 4),
        torch.randn(()),
        torch.empty(0, 4),
    ):
        y = operate(x, "silu") if x.dim() else activation(x, "silu")  # type: ignore[operator]
        assert torch.equal(y, F.silu(x)) if cpu_path == "torch" else torch.allclose(y, F.silu(x), atol=1e-6)
        assert y.stride() == F.silu(x).stride()


def test_bias_of_a_convolution_belongs_to_dimension_1() -> None:
    x, bias = sample(2, 3, 4, 5), sample(3, seed=1)
    y = activation(x, "relu", bias, bias_dim=1)
    assert torch.equal(y, F.relu(x + bias.view(3, 1, 1)))


def test_autocast_leaves_the_dtype_of_the_linear_layer() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Activation("gelu"))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(torch.randn(2, 4)).dtype == torch.bfloat16


def test_bias_may_be_wider_than_the_input_as_under_autocast() -> None:
    x, bias = sample(4, 6, dtype=torch.bfloat16), sample(6, seed=1)
    for function in (activation, operator):
        y = function(x, "silu", bias)
        dx, dbias = torch.autograd.grad(y, (x, bias), torch.ones_like(y))
        assert (y.dtype, dx.dtype, dbias.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
        torch.testing.assert_close(y.float(), F.silu(x.float() + bias), rtol=2**-8, atol=0)


def test_one_graph_without_breaks_and_dynamic_shapes() -> None:
    compiled = torch.compile(
        lambda x, b: activation(x, "mish", b), fullgraph=True, backend="aot_eager", dynamic=True
    )
    for rows in (3, 5):
        x, bias = sample(rows, 6), sample(6, seed=1)
        y = compiled(x, bias)
        expected = activation(x, "mish", bias)
        assert torch.equal(y, expected)
        assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(expected.sum(), x)[0])


@pytest.mark.slow
def test_inductor_compiles_it() -> None:
    x = sample(8, 6)
    compiled = torch.compile(Activation("gelu"), fullgraph=True)
    torch.testing.assert_close(compiled(x), F.gelu(x))


@pytest.mark.parametrize("strict", [True, False])
def test_export_and_back(strict: bool) -> None:
    x = torch.randn(3, 6)
    program = torch.export.export(nn.Sequential(Activation("swiglu")), (x,), strict=strict)
    assert torch.equal(program.module()(x), activation(x, "swiglu"))


PARAMETERS = [
    ("leaky_relu", {"negative_slope": 0.2}, nn.LeakyReLU(0.2)),
    ("leaky_relu", {"negative_slope": 0.0}, nn.LeakyReLU(0.0)),
    ("elu", {"alpha": 0.5}, nn.ELU(0.5)),
    ("elu", {"alpha": -2.0}, nn.ELU(-2.0)),
    ("softplus", {"beta": 3.0}, nn.Softplus(3.0)),
    ("softplus", {"beta": 0.5, "threshold": 1.0}, nn.Softplus(0.5, 1.0)),
]


@pytest.mark.processor
@pytest.mark.parametrize(("name", "parameters", "module"), PARAMETERS)
def test_parameters_mean_what_they_do_in_pytorch(
    name: str, parameters: dict[str, Any], module: nn.Module
) -> None:
    x = sample(50, dtype=torch.float64)
    expected = module(x)
    (slope,) = torch.autograd.grad(expected.sum(), x)
    for function in (activation, operator, Activation(name, **parameters)):
        given: dict[str, Any] = {} if isinstance(function, nn.Module) else {"name": name, **parameters}
        y = function(x, **given)
        assert torch.equal(y, expected)
        torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], slope)
    assert torch.autograd.gradgradcheck(lambda x: operator(x, name, **parameters), (x,))


def test_another_value_of_a_parameter_compiles_nothing_anew() -> None:
    x = sample(64)
    with record_launches() as recording:
        for step in range(4):
            y = activation(x, "leaky_relu", negative_slope=step / 10)
            torch.autograd.grad(y, x, torch.ones_like(y))
    assert len(recording.launches) == 8
    assert len(recording.compilations) == 2


def test_parameters_survive_compilation_and_export() -> None:
    layer, x = Activation("softplus", beta=2.0, threshold=3.0), torch.randn(3, 6)
    assert torch.equal(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))
    assert torch.equal(torch.export.export(layer, (x,)).module()(x), layer(x))
    assert repr(layer) == "Activation(softplus, beta=2.0, threshold=3.0)"


@pytest.mark.parametrize(
    ("name", "parameters", "error", "message"),
    [
        ("relu", {"alpha": 1.0}, TypeError, "'relu' takes no 'alpha'; known: none"),
        ("softplus", {"betta": 1.0}, TypeError, "takes no 'betta'; known: beta, threshold"),
        ("leaky_relu", {"negative_slope": -0.1}, ValueError, "negative_slope of 'leaky_relu' is -0.1"),
        ("softplus", {"beta": 0.0}, ValueError, "from 1e-06"),
        ("elu", {"alpha": float("nan")}, ValueError, "alpha of 'elu' is nan"),
        ("elu", {"alpha": float("inf")}, ValueError, "alpha of 'elu' is inf"),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused(
    name: str, parameters: dict[str, float], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        activation(torch.ones(2), name, **parameters)  # type: ignore[arg-type]
    with pytest.raises(error, match=message):
        Activation(name, **parameters)  # type: ignore[arg-type]


def test_path_says_torch_where_no_kernel_can_run(cpu_path: str) -> None:
    assert activation_path(torch.zeros(2, dtype=torch.float64)) == "torch"
    assert activation_path(torch.zeros(2)) == cpu_path


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.ones(2), "gelo"), ValueError, "unknown 'gelo'.*Did you mean 'gel"),
        ((torch.ones(2, dtype=torch.int64), "relu"), TypeError, "int64"),
        ((torch.ones(3), "swiglu"), ValueError, "even last dimension"),
        ((torch.ones(2, 3), "relu", torch.ones(2)), ValueError, r"\(2,\).*does not fit dimension -1"),
        ((torch.ones(()), "relu", torch.ones(1)), ValueError, "bias_dim -1"),
        ((torch.ones(2), "relu", torch.ones(2, dtype=torch.int32)), TypeError, "int32"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        activation(*arguments)


def test_a_gated_bias_belongs_to_the_last_dimension() -> None:
    with pytest.raises(ValueError, match="the last dimension"):
        activation(torch.ones(4, 2, 4), "swiglu", torch.ones(2), bias_dim=1)


@pytest.mark.parametrize("name", NAMES)
def test_every_function_is_listed_with_both_kernels(name: str) -> None:
    for kernel in (KERNELS[name], KERNELS[f"{name}_backward"]):
        inputs = kernel.make_inputs(24, torch.float32, torch.device("cpu"), 0)
        torch.testing.assert_close(kernel.fused(**inputs), kernel.reference(**inputs))
        halves = 2 if FUNCTIONS[name].gated else 1
        streams = 2 * halves + 1 if "dy" in inputs else halves + 1
        assert kernel.bytes_moved(inputs) == streams * 24 * 4


@pytest.mark.parametrize("name", ["gelu", "swiglu"])
def test_one_launch_forward_one_backward_whatever_the_length(name: str) -> None:
    x, bias = sample(7, 66), sample(66, seed=1)
    with record_launches() as recording:
        for rows in (7, 5, 3):
            y = activation(x[:rows], name, bias)
            torch.autograd.grad(y, (x, bias), torch.ones_like(y))
    assert [launch.kernel for launch in recording.launches] == ["forward_kernel", "backward_kernel"] * 3
    # Lengths that 16 does not divide differ in the value of `tail` alone, which is not specialised on.
    assert len(recording.compilations) == 2


def test_the_eager_way_gives_the_operators_values_and_gradients() -> None:
    x, bias, dy = sample(6, 5), sample(5, seed=1), torch.randn(6, 5)
    ours, theirs = (function(x, "silu", bias) for function in (activation, operator))
    assert torch.equal(ours, theirs)
    inputs = (x, bias)
    for one, other in zip(
        torch.autograd.grad(ours, inputs, dy), torch.autograd.grad(theirs, inputs, dy), strict=True
    ):
        assert torch.equal(one, other)


def test_the_eager_way_can_be_differentiated_twice() -> None:
    x = sample(7).double().float().requires_grad_()
    first = torch.autograd.grad(activation(x, "tanh").sum(), x, create_graph=True)[0]
    (second,) = torch.autograd.grad(first.sum(), x)
    t = torch.tanh(x.detach().double())
    torch.testing.assert_close(second.double(), -2 * t * (1 - t * t), rtol=1e-5, atol=1e-6)


def test_modes_see_the_operator() -> None:
    seen = []

    class Listen(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> object:
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    with Listen():
        activation(sample(4), "relu")
    assert "fusetune.activation.default" in seen
    with torch._subclasses.FakeTensorMode() as mode:
        assert activation(mode.from_tensor(torch.zeros(2, 3)), "relu").shape == (2, 3)


def compiled_on_a_cpu(x: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """y and dy/dx of the kernels compiled for the CPU."""
    assert activation_path(x) == "triton-cpu"
    x = x.clone().requires_grad_()
    y = activation(x, name)
    return y.detach(), torch.autograd.grad(y, x, torch.ones_like(y))[0]


def fp32_units(exact: torch.Tensor) -> torch.Tensor:
    """The last fp32 place of each value; subnormal values share one."""
    return exact.abs().clamp_min(2.0**-126).log2().floor().exp2() * 2.0**-23


@pytest.mark.processor
@pytest.mark.usefixtures("cpu_driver")
@pytest.mark.parametrize(
    ("name", "lowest"), [("sigmoid", -110), ("silu", -87), ("tanh", -110), ("softplus", -110), ("elu", -110)]
)
def test_values_on_a_cpu_hold_four_ulp(name: str, lowest: float) -> None:
    x = torch.linspace(lowest, 110, 50_001)
    y, _ = compiled_on_a_cpu(x, name)
    exact = reference(x.double(), name)
    assert ((y.double() - exact).abs() / fp32_units(exact)).max() <= 4


@pytest.mark.processor
@pytest.mark.usefixtures("cpu_driver")
def test_gelu_on_a_cpu_keeps_the_negative_tail_that_erf_loses() -> None:
    x = torch.linspace(-13, 0, 50_001)[:-1]
    y, _ = compiled_on_a_cpu(x, "gelu")
    exact = 0.5 * x.double() * torch.special.erfc(x.double() * -(0.5**0.5))
    # Rounding x^2 costs the exponential as many units as x^2 is large.
    allowed = exact.abs() * (3 + x.double().square()) * 2.0**-23
    assert ((y.double() - exact).abs() <= allowed).all()
    by_erf = x.double() * (0.5 * (1 + torch.erf(x.double() * 0.5**0.5).float())).double()
    assert ((by_erf - exact).abs() > allowed).any()


@pytest.mark.processor
@pytest.mark.usefixtures("cpu_driver")
@pytest.mark.parametrize("name", PLAIN)
def test_slopes_on_a_cpu_are_right_to_four_units(name: str) -> None:
    x = torch.linspace(-20, 20, 50_001)
    _, ours = compiled_on_a_cpu(x, name)
    leaf = x.double().requires_grad_()
    (exact,) = torch.autograd.grad(reference(leaf, name).sum(), leaf)
    # Silu's has x (1 - s), where 1 - s carries the rounding of s. That of relu_squared grows with it.
    units = {"silu": 4 + 0.5 * leaf.abs(), "relu_squared": exact.abs()}.get(name, torch.tensor(4.0))
    assert ((ours.double() - exact).abs() <= units * 2.0**-23).all()


@pytest.mark.processor
@pytest.mark.usefixtures("cpu_driver")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PLAIN)
def test_infinities_and_nan_follow_the_rule(name: str, dtype: torch.dtype) -> None:
    """In a whole vector, and in the tail that is no vector."""
    x = torch.tensor([float("nan"), float("inf"), float("-inf"), 0.0] * 9, dtype=dtype)
    for given in (x, x[:3]):
        assert_rule(name, *compiled_on_a_cpu(given, name), given)


@pytest.mark.processor
@pytest.mark.usefixtures("cpu_driver")
@pytest.mark.parametrize("name", PLAIN)
def test_the_ends_of_the_range_are_those_of_float64(name: str) -> None:
    largest = 1e19 if name == "gelu_tanh" else 3e38  # its slope has x^2, which overflows beyond
    x = torch.tensor([largest, -largest, 1e-45, -1e-45, 0.0] * 5)
    wide = x.double().requires_grad_()
    exact = reference(wide, name)
    expected = (exact.detach(), torch.autograd.grad(exact.sum(), wide)[0])
    for found, true in zip(compiled_on_a_cpu(x, name), expected, strict=True):
        torch.testing.assert_close(found, true.float())  # what float64 holds and fp32 does not is infinite


@pytest.mark.usefixtures("cpu_path")
def test_function_transforms_differentiate_it() -> None:
    x = torch.tensor([[-1.0, 2.0], [3.0, -4.0]])
    slope = torch.func.grad(lambda row: activation(row, "relu").sum())
    assert torch.func.vmap(slope)(x).tolist() == [[0.0, 1.0], [1.0, 0.0]]


def tangents_and_slopes(
    name: str, dtype: torch.dtype, function: Any, requires_grad: bool
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The result and its tangent; and the gradients of the sum of both, if they are asked for."""
    x, bias = sample(3, 6).detach().to(dtype), sample(6, seed=1).detach().to(dtype)
    directions = [sample(3, 6, seed=2).detach().to(dtype), sample(6, seed=3).detach().to(dtype)]
    leaves = [tensor.requires_grad_(requires_grad) for tensor in (x, bias)]
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip(leaves, directions, strict=True)]
        y, tangent = forward_ad.unpack_dual(function(duals[0], name, duals[1]))
    gradients = torch.autograd.grad((y + tangent).sum(), leaves) if requires_grad else ()
    return [y.detach(), tangent.detach()], [gradient.detach() for gradient in gradients]


@pytest.mark.usefixtures("cpu_path")
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_tangents_are_those_of_float64_and_have_gradients(name: str, requires_grad: bool) -> None:
    ours, gradients = tangents_and_slopes(name, torch.float32, activation, requires_grad)
    exact, exact_gradients = tangents_and_slopes(name, torch.float64, reference, requires_grad)
    assert len(gradients) == 2 * requires_grad
    for one, other in zip([*ours, *gradients], [*exact, *exact_gradients], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("cpu_path")
def test_forward_mode_follows_a_tangent_wherever_it_comes_from() -> None:
    x, direction = torch.linspace(-2, 2, 6), torch.linspace(1, 3, 6)
    slope = 1 - torch.tanh(x.double()) ** 2
    close: Any = {"rtol": 1e-5, "atol": 1e-6}
    (jacobian,) = torch.autograd.functional.jacobian(
        lambda a: activation(a, "tanh"), (x,), vectorize=True, strategy="forward-mode"
    )
    torch.testing.assert_close(jacobian.double(), torch.diag(slope), **close)
    with forward_ad.dual_level():  # of the bias alone
        y = activation(torch.zeros(2, 6), "tanh", forward_ad.make_dual(x, direction))
        tangent = forward_ad.unpack_dual(y).tangent
        torch.testing.assert_close(tangent.double(), (slope * direction).expand(2, 6), **close)
    gaps = torch.stack([x, x], dim=1)[:, 0]
    with forward_ad.dual_level():  # of what is copied first
        tangent = forward_ad.unpack_dual(activation(forward_ad.make_dual(gaps, direction), "tanh")).tangent
        torch.testing.assert_close(tangent.double(), slope * direction, **close)


@pytest.mark.usefixtures("cpu_path")
@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_may_have_a_tangent_or_be_a_batch(name: str) -> None:
    x, bias = sample(3, 6), sample(6, seed=1)
    for function in (activation, operator):
        y = function(x, name, bias)
        dy, direction = torch.randn_like(y), torch.randn_like(y)

        def backward(dy: torch.Tensor, y: torch.Tensor = y, **options: Any) -> tuple[torch.Tensor, ...]:
            return torch.autograd.grad(y, (x, bias), dy, retain_graph=True, **options)

        one, other = backward(dy), backward(direction)
        found: list[torch.Tensor] = []
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(dy, direction)
            if name in ("mish", "silu", "swiglu"):  # as PyTorch's own functions do
                with pytest.raises(NotImplementedError, match=r"forward AD with aten::(mish|silu)_backward"):
                    backward(dual)
            else:
                found += [t for gradient in backward(dual) for t in forward_ad.unpack_dual(gradient)]
        # Backward is linear in dy: its tangent is the gradient of the direction.
        pairs = [tensor for pair in zip(one, other, strict=True) for tensor in pair]
        expected = pairs if found else []
        batch = torch.stack([dy, direction])
        for batched in (backward(batch, is_grads_batched=True), torch.func.vmap(backward)(batch)):
            found += [tensor for gradients in batched for tensor in gradients]
            expected = expected + pairs
        for left, right in zip(found, expected, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


def negated(values: torch.Tensor) -> torch.Tensor:
    """The same values by torch's lazy negative bit."""
    result = torch._neg_view(-values.detach())
    assert result.is_neg()
    return result


@pytest.mark.usefixtures("cpu_path")
@pytest.mark.parametrize("name", NAMES)
def test_a_negation_that_torch_puts_off_is_read(name: str) -> None:
    x, bias = sample(4, 6).detach(), sample(6, seed=1).detach()
    dy = torch.randn_like(activation(x, name))
    for kind in [(True, True, True), (True, False, False), (False, True, False), (False, False, True)]:
        found = []
        for lazily in (kind, (False, False, False)):
            given = [
                negated(tensor) if lazy else tensor.clone()
                for tensor, lazy in zip((x, bias, dy), lazily, strict=True)
            ]
            for wanted in (given[:1], given[:2]):
                leaves = [tensor.detach().requires_grad_() for tensor in wanted]
                assert [leaf.is_neg() for leaf in leaves] == [tensor.is_neg() for tensor in wanted]
                y = activation(leaves[0], name, leaves[1] if len(leaves) == 2 else given[1])
                found += [y.detach(), *torch.autograd.grad(y, leaves, given[2])]
        for one, other in zip(found[: len(found) // 2], found[len(found) // 2 :], strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("cpu_path")
def test_the_imaginary_part_of_a_conjugate_is_read() -> None:
    z = torch.complex(torch.randn(8), torch.randn(8))
    x = z.conj().imag
    assert x.is_neg()
    torch.testing.assert_close(activation(x, "silu"), F.silu(x))


@pytest.mark.usefixtures("cpu_path")
def test_tensors_without_memory_of_their_own_are_computed_by_torchs_rules() -> None:
    x = torch.randn(6)
    zeros, wide = torch._efficientzerotensor(6), torch.ones(2, 6)
    assert torch.equal(activation(zeros, "sigmoid"), torch.full((6,), 0.5))
    torch.testing.assert_close(activation(wide, "silu", zeros), F.silu(wide))
    functional = torch._to_functional_tensor(x)
    y = torch._from_functional_tensor(activation(functional, "tanh"))
    torch.testing.assert_close(y, torch.tanh(x))


@pytest.mark.usefixtures("cpu_path")
def test_gradients_without_memory_of_their_own_are_read() -> None:
    x = sample(6)
    (slope,) = torch.autograd.grad(torch.tanh(x).sum(), x)
    (dx,) = torch.autograd.grad(activation(x, "tanh"), x, torch._efficientzerotensor(6))
    assert not dx.any()
    dy = TwoTensor(torch.ones(6), torch.full((6,), 2.0))
    (dx,) = torch.autograd.grad(activation(x, "tanh"), x, dy)
    torch.testing.assert_close(dx.a, slope)  # type: ignore[attr-defined]
    torch.testing.assert_close(dx.b, 2 * slope)  # type: ignore[attr-defined]


def test_a_mode_around_backward_alone_sees_the_operator() -> None:
    seen = []

    class Listen(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> object:
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    x = sample(4)
    y = activation(x, "relu")
    with Listen():
        torch.autograd.grad(y, x, torch.ones(4))
    assert "fusetune.activation_backward.default" in seen


@pytest.mark.usefixtures("cpu_path")
@pytest.mark.parametrize("name", ["silu", "tanh", "swiglu"])
def test_what_was_saved_may_come_back_in_another_layout(name: str) -> None:
    """As from `save_on_cpu` with pinned memory, which keeps no strides."""
    x = sample(2, 4, 5, 6).detach().to(memory_format=torch.channels_last).requires_grad_()
    bias = sample(6, seed=1).detach()
    dy = torch.randn_like(activation(x, name))

    def unpacked(saved: torch.Tensor) -> torch.Tensor:
        if saved.dim() == 1:
            return torch.stack([saved, saved], dim=1)[:, 0]
        return saved.transpose(1, 2).contiguous().transpose(1, 2)

    found = []
    for unpack in (unpacked, torch.Tensor.contiguous, negated, lambda saved: saved):
        for given in (bias, bias.clone().requires_grad_()):
            with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, unpack):
                y = activation(x, name, given)
                gradients = torch.autograd.grad(y, [x, given] if given.requires_grad else [x], dy)
            found.append(gradients)
    for gradients in found:
        for one, other in zip(gradients, found[-1], strict=False):
            torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("cpu_path")
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_gives_the_same_gradients(use_reentrant: bool) -> None:
    def gradients(run: Any) -> list[Any]:
        x, bias = sample(4, 6), sample(6, seed=1)
        run(lambda x, b: activation(activation(x, "silu", b), "tanh"), x, bias).sum().backward()
        return [x.grad, bias.grad]

    checkpointed = gradients(lambda f, *inputs: checkpoint(f, *inputs, use_reentrant=use_reentrant))
    for one, other in zip(checkpointed, gradients(lambda f, *inputs: f(*inputs)), strict=True):
        assert torch.equal(one, other)
