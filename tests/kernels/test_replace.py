"""Replacing a model's activations: what is replaced, what is left and said, and that nothing else changes."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fusetune.kernels.activations.api import Activation
from fusetune.kernels.activations.functions import FUNCTIONS
from fusetune.kernels.replace import models as subject
from fusetune.kernels.replace.models import replace_activations, verify_activation
from fusetune.kernels.static.recorder import record_launches
from tests.kernels.random_programs import Program


class Residual(nn.Module):
    """One block with an activation that is used in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.first = nn.ReLU(inplace=True)
        self.second = self.first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(self.linear(self.first(self.linear(x))))


ALL = [
    (nn.ReLU(inplace=True), "relu"),
    (nn.LeakyReLU(), "leaky_relu"),
    (nn.Sigmoid(), "sigmoid"),
    (nn.Tanh(), "tanh"),
    (nn.GELU(), "gelu"),
    (nn.GELU("tanh"), "gelu_tanh"),
    (nn.SiLU(inplace=True), "silu"),
    (nn.ELU(), "elu"),
    (nn.Softplus(), "softplus"),
    (nn.Mish(), "mish"),
    (nn.Hardswish(), "hardswish"),
]


@pytest.mark.parametrize(("module", "name"), ALL)
def test_each_class_becomes_its_name(module: nn.Module, name: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2), module)
    assert replace_activations(model) == ["1"]
    assert isinstance(model[1], Activation)
    assert model[1].name == name


@pytest.mark.processor
@pytest.mark.usefixtures("without_compiler")
def test_model_computes_and_saves_the_same() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.BatchNorm1d(4), Residual())
    before = copy.deepcopy(model)
    assert replace_activations(model) == ["1", "3.first", "3.second"]
    assert list(model.state_dict()) == list(before.state_dict())
    x = torch.randn(5, 4)
    loss, loss_before = model(x).square().sum(), before(x).square().sum()
    assert torch.equal(loss, loss_before)
    loss.backward()
    loss_before.backward()
    for ours, theirs in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_a_shared_activation_stays_shared_and_keeps_its_mode() -> None:
    block = Residual().eval()
    replace_activations(block)
    assert block.first is block.second
    assert not block.first.training


@pytest.mark.parametrize(
    "module", [nn.ELU(alpha=2.0), nn.LeakyReLU(0.2), nn.Softplus(beta=2), nn.Softplus(threshold=5)]
)
def test_parameters_are_carried_over(module: nn.Module) -> None:
    model = nn.Sequential(module)
    assert replace_activations(model) == ["0"]
    x = torch.linspace(-4, 8, 50)
    torch.testing.assert_close(model(x), module(x))


@pytest.mark.parametrize("module", [nn.LeakyReLU(-0.1), nn.Softplus(beta=-1), nn.ELU(alpha=float("inf"))])
def test_parameters_out_of_range_are_left_alone_and_reported(module: nn.Module) -> None:
    model = nn.Sequential(module)
    with pytest.warns(UserWarning, match="left alone: 0 .*it can be from"):
        assert replace_activations(model) == []
    assert model[0] is module


def test_the_approximate_variant_is_handed_on() -> None:
    model = nn.Sequential(nn.GELU(), nn.Sequential(nn.Tanh()))
    replace_activations(model, approximate=True)
    assert model[0].approximate
    assert model[1][0].approximate  # type: ignore[index]


def test_verification_takes_the_parameters_it_is_given() -> None:
    verify_activation("softplus", torch.float32, torch.device("cpu"), beta=2.0, threshold=1.0)
    with pytest.raises(TypeError, match="takes no 'gamma'"):
        verify_activation("softplus", torch.float32, torch.device("cpu"), gamma=2.0)


def test_hooks_are_not_lost() -> None:
    model = nn.Sequential(nn.ReLU())
    model[0].register_forward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match="it has hooks"):
        assert replace_activations(model) == []


def test_a_bare_activation_is_reported() -> None:
    with pytest.warns(UserWarning, match="no parent"):
        assert replace_activations(nn.ReLU()) == []


class Counting(nn.ReLU):
    """A subclass of its own."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(x)


def test_other_modules_are_not_touched_and_a_subclass_keeps_what_it_does() -> None:
    model = nn.Sequential(nn.ReLU6(), nn.Identity(), nn.PReLU())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert replace_activations(model) == []
    model.append(Counting())
    assert replace_activations(model) == ["3.forward:relu"]
    assert model(torch.tensor([-4.0, 2.0])).tolist() == [0.0, 2.0]
    assert model[3].calls == 1
    model[3] = Counting(inplace=True)
    with pytest.warns(UserWarning, match=r"left alone: relu in 3\.forward"):
        assert replace_activations(model) == []


@pytest.mark.parametrize("values", [[-2, 0, 3], [1j, -2 + 1j]], ids=["integers", "complex"])
def test_what_torchs_activation_took_is_taken(values: list[Any]) -> None:
    module = nn.ReLU() if isinstance(values[0], int) else nn.Tanh()
    model, x = nn.Sequential(module), torch.tensor(values)
    assert replace_activations(model) == ["0"]
    assert torch.equal(model(x), module(x))
    if not x.is_complex():
        assert torch.equal(model(x.double().to_sparse()).to_dense(), module(x.double()))


def test_an_activation_that_holds_more_keeps_it() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Tanh())
    model[0].register_buffer("calls", torch.zeros(()))
    model[1].forward = lambda x: 2 * x
    with pytest.warns(UserWarning, match="state or a forward of its own.*state or a forward of its own"):
        assert replace_activations(model) == []
    assert list(model.state_dict()) == ["0.calls"]


class Reused(nn.Module):
    """One linear layer, and an in-place activation whose input or result is used as `use` says."""

    def __init__(self, use: Callable[..., torch.Tensor], act: nn.Module) -> None:
        super().__init__()
        self.linear, self.act, self.use = nn.Linear(3, 3), act, use

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.use(self.linear(x), self.act)


def twice(h: torch.Tensor, act: Any) -> torch.Tensor:
    return h + act(h)


def view_of_it(h: torch.Tensor, act: Any) -> torch.Tensor:
    flat = h.flatten()
    act(h)
    return flat.exp()


def after_a_view(h: torch.Tensor, act: Any) -> torch.Tensor:
    return act(h.view(-1, 3)) * h


def where_it_pleases(h: torch.Tensor, act: Any) -> torch.Tensor:
    return h * act(h) if h.sum() > 1e9 else act(h)


def added_to(h: torch.Tensor, act: Any) -> torch.Tensor:
    other = h
    other += 1
    return act(other) * h


def handed_on(h: torch.Tensor, act: Any) -> torch.Tensor:
    return h + torch.utils.checkpoint.checkpoint(act, h, use_reentrant=False)


def in_a_row(h: torch.Tensor, act: Any) -> torch.Tensor:
    return act(act(h) - 0.1) * 2


def of_its_result(h: torch.Tensor, act: Any) -> torch.Tensor:
    y = act(h)
    return y + y.square()


def normal(*shape: int) -> torch.Tensor:
    """A normal sample, the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def outputs_and_gradients(model: nn.Module, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """What two calls on the same input return, what is left of the input, and all gradients."""
    model.zero_grad()
    given = [tensor.clone() for tensor in inputs]
    outputs = [model(*given) for _ in range(2)]
    sum(output.square().sum() for output in outputs).backward()
    return [*outputs, *given, *(parameter.grad.clone() for parameter in model.parameters())]


def assert_computes_the_same(model: nn.Module, before: nn.Module, *inputs: torch.Tensor) -> None:
    """Compare with a copy from before, in float64 and in fp32, in evaluation and, with the same seed, in training."""
    assert list(model.state_dict()) == list(before.state_dict())
    for dtype, training in ((torch.float64, False), (torch.float64, True), (torch.float32, False)):
        found = []
        for each in (model, before):
            each.to(dtype).train(training)
            torch.manual_seed(0)
            found.append(outputs_and_gradients(each, *(tensor.to(dtype) for tensor in inputs)))
        # Sums may cancel: what rounding leaves is small beside the largest number alone.
        allowed = 64 * torch.finfo(dtype).eps * max(float(each.detach().abs().max()) for each in found[1])
        torch.testing.assert_close(*found, rtol=0, atol=allowed)


@pytest.mark.parametrize("act", [nn.ReLU(inplace=True), nn.SiLU(inplace=True)], ids=str)
@pytest.mark.parametrize(
    "use", [twice, view_of_it, after_a_view, added_to, where_it_pleases, handed_on], ids=lambda f: f.__name__
)
def test_what_overwrites_a_tensor_that_is_used_again_stays(
    use: Callable[..., torch.Tensor], act: nn.Module
) -> None:
    block = Reused(use, act)
    model = nn.Sequential(nn.Linear(3, 3), block)
    with pytest.warns(UserWarning, match=r"left alone: 1\.act .*overwrites its input"):
        assert replace_activations(model) == []
    assert block.act is act


@pytest.mark.parametrize("overwrite", [lambda y: y.mul_(2), torch.relu_, lambda y: F.elu(y, inplace=True)])
def test_a_leaky_relu_whose_result_is_overwritten_stays(overwrite: Callable[[torch.Tensor], Any]) -> None:
    """PyTorch differentiates it from its input, the fused kernel from its result."""

    def use(h: torch.Tensor, act: Any) -> torch.Tensor:
        y = act(h)
        y += h
        overwrite(y)
        return y

    model = Reused(use, nn.LeakyReLU())
    before = copy.deepcopy(model)
    with pytest.warns(UserWarning, match="left alone: act .*its result is overwritten"):
        assert replace_activations(model) == []
    assert_computes_the_same(model, before, normal(5, 3))


def test_what_overwrites_a_tensor_that_an_attribute_or_a_hook_keeps_stays() -> None:
    class Keeping(Reused):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.use.kept = [h := self.linear(x)]  # type: ignore[attr-defined]
            return self.act(h)

    seen: list[torch.Tensor] = []
    model = nn.Sequential(
        Keeping(nn.Identity(), nn.ReLU(inplace=True)), nn.Linear(3, 3), nn.ReLU(inplace=True)
    )
    model[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    with pytest.warns(UserWarning, match=r"2 .*used again.*; 0\.act .*cannot be traced"):
        assert replace_activations(model) == []
    assert not hasattr(model[0].use, "kept")  # as before
    y = model(normal(2, 3))
    assert seen[0] is y or torch.equal(seen[0], y)
    assert (model[0].use.kept[0] >= 0).all()  # type: ignore[attr-defined]


@pytest.mark.parametrize("use", [in_a_row, of_its_result], ids=lambda f: f.__name__)
def test_what_overwrites_a_tensor_that_nobody_reads_is_replaced(use: Callable[..., torch.Tensor]) -> None:
    model = nn.Sequential(Reused(use, nn.SiLU(inplace=True)), nn.ReLU(inplace=True))
    before = copy.deepcopy(model)
    assert replace_activations(model) == ["1", "0.act"]
    assert_computes_the_same(model, before, normal(5, 3))


class Twice(nn.Module):
    """Calls an inner module whose first act is to overwrite its input."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


@pytest.mark.parametrize(
    "outer", [lambda inner: inner, Twice, lambda inner: nn.Sequential(nn.Flatten(), Twice(inner))]
)
def test_an_input_of_the_caller_is_not_spared(outer: Callable[[nn.Module], nn.Module]) -> None:
    """`x + relu_(x)` of [-2, 6] is [0, 12], wherever x comes from."""
    model = outer(nn.Sequential(nn.ReLU(inplace=True), nn.Identity()))
    before = copy.deepcopy(model)
    with pytest.warns(UserWarning, match="overwrites"):
        assert replace_activations(model) == []
    x, y = torch.tensor([[-2.0, 6.0]]), torch.tensor([[-2.0, 6.0]])
    assert torch.equal(model(x), before(y))
    assert x.tolist() == y.tolist() == [[0.0, 6.0]]


@pytest.mark.filterwarnings("ignore:replace_activations")
def test_random_models_compute_the_same_and_spare_what_they_spared() -> None:
    counts = {True: 0, False: 0}
    for seed in range(60):
        torch.manual_seed(seed)
        model = Program(Random(seed)).double()
        before = copy.deepcopy(model)
        overwriting = [name for name, each in model.named_modules() if getattr(each, "inplace", False)]
        replaced = replace_activations(model)
        for name in overwriting:
            counts[name in replaced] += 1
        found = []
        for each in (model, before):
            x = normal(3, 4).double()
            with torch.no_grad():
                found.append([each(x), each(x), x])
        torch.testing.assert_close(*found, msg=f"seed {seed}")
    assert min(counts.values()) > 10  # both kinds were met


class Calls(nn.Module):
    """Calls functions and methods, holds one, depends on the mode, and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.act, self.scale = nn.Linear(4, 4), F.mish, 1.0
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        self.calls += 1  # type: ignore[assignment, operator]
        h = F.gelu(self.linear(x), approximate="tanh") + torch.relu(x) * x.sigmoid()
        h = F.dropout(self.act(h), training=self.training) + F.softplus(h, 2.0) + F.elu(input=h, alpha=0.5)
        if mask is not None:
            h = h * mask
        return F.leaky_relu(h, -0.1) + F.silu(h + torch.rand(()).item(), inplace=True)


@pytest.mark.processor
def test_functions_are_replaced_where_they_are_called_and_held() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Calls(), Calls())
    model[1] = model[0]  # called twice
    before, random = copy.deepcopy(model), torch.get_rng_state()
    with pytest.warns(UserWarning, match=r"left alone: leaky_relu, silu in 0\.forward"):
        names = replace_activations(model)
    assert names == [
        "0.act",
        *(f"0.forward:{name}" for name in ("elu", "gelu_tanh", "relu", "sigmoid", "softplus")),
    ]
    assert torch.equal(torch.get_rng_state(), random)
    assert int(model[0].calls) == 0  # type: ignore[arg-type]
    assert isinstance(model[0], Calls)
    assert model[0].linear is model[1].linear
    assert_computes_the_same(model, before, normal(5, 4))
    masked = []
    for each in (model, before):
        torch.manual_seed(0)
        masked.append(each[0].eval()(torch.ones(2, 4), torch.zeros(2, 4)))
    torch.testing.assert_close(*masked)


@pytest.mark.usefixtures("cpu_driver")
def test_calls_reach_the_kernels_also_from_copies_and_other_functions_watching() -> None:
    model = Calls()
    with pytest.warns(UserWarning, match="left alone"):
        replace_activations(model)
    for each in (model, copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert isinstance(each, Calls)
        with record_launches() as recording:
            each(torch.ones(2, 4))
        kernels = [launch.kernel for launch in recording.launches]
        assert kernels == ["forward_kernel"] * 6
    seen = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Watch():  # as the probe of layers does, which is to see what the model calls
        model(torch.ones(2, 4))
    assert {F.gelu, torch.relu, torch.Tensor.sigmoid, F.elu} <= set(seen)


def test_calls_are_compiled_and_exported() -> None:
    class Block(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x) * F.silu(x)

    model, x = nn.Sequential(Block()), torch.randn(3, 4)
    expected = model(x)
    assert replace_activations(model) == ["0.forward:silu", "0.forward:tanh"]
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(x), expected)
    program = torch.export.export(model, (x,), strict=False)
    assert torch.ops.fusetune.activation.default in {node.target for node in program.graph.nodes}
    torch.testing.assert_close(program.module()(x), expected)
    assert replace_activations(model) == []  # a second time


def test_calls_in_a_forward_that_cannot_be_traced_are_found_by_its_code() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.gelu(x) if x.sum() > 0 else torch.tanh(x)

    model = Branching()
    before = copy.deepcopy(model)
    assert replace_activations(model) == ["forward:gelu", "forward:tanh"]
    for x in (torch.ones(3), -torch.ones(3)):
        torch.testing.assert_close(model(x), before(x))


@pytest.mark.processor
@pytest.mark.parametrize("activation", ["relu", "gelu", nn.ReLU(inplace=True)], ids=str)
def test_a_transformer_computes_the_same(activation: Any) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, activation=activation, batch_first=True)
    model = nn.TransformerEncoder(layer, 2)
    before = copy.deepcopy(model)
    assert replace_activations(model) == ["layers.0.activation", "layers.1.activation"]
    assert all(isinstance(each.activation, Activation) for each in model.layers)
    x = normal(2, 5, 8)
    assert_computes_the_same(model, before, x)
    with torch.no_grad():  # the fast path, which calls no activation
        torch.testing.assert_close(model.eval()(x), before.eval()(x))
    with torch.no_grad():
        torch.testing.assert_close(pickle.loads(pickle.dumps(model))(x), before(x))


def test_a_function_of_its_own_in_a_transformer_is_reported() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=lambda x: F.relu(x).square())
    with pytest.warns(UserWarning, match="left alone: activation, because it is none of torch's activations"):
        assert replace_activations(layer) == []


def test_what_is_quantized_or_compiled_stays_and_is_reported() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    quantized = copy.deepcopy(model)
    quantized.append(type("Stub", (nn.Module,), {"__module__": "torch.ao.nn.quantized.modules"})())
    compiled_in_place = copy.deepcopy(model)
    compiled_in_place.compile(backend="eager")
    for each, reason in (
        (quantized, "quantized"),
        (torch.compile(model, backend="eager"), "compiled"),
        (compiled_in_place, "compiled"),
    ):
        with pytest.warns(UserWarning, match=f"the whole model, because it is {reason}"):
            assert replace_activations(each) == []  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_is_scripted_stays_and_is_reported_once() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    model = nn.Sequential(scripted, nn.GELU())
    with pytest.warns(UserWarning, match=r"left alone: 0, because it is scripted[^;]*$"):
        assert replace_activations(model) == ["1"]
    with pytest.warns(UserWarning, match="left alone: the whole model, because it is scripted"):
        assert replace_activations(scripted) == []


@pytest.mark.processor
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_verification_passes_what_is_right(name: str, dtype: torch.dtype) -> None:
    verify_activation(name, dtype, torch.device("cpu"), bias=True)


@pytest.mark.parametrize("wrong", [lambda y: y * 1.001, lambda y: y * float("nan")])
def test_verification_stops_what_is_wrong(monkeypatch: pytest.MonkeyPatch, wrong: object) -> None:
    right = subject.activation  # type: ignore[attr-defined]
    monkeypatch.setattr(subject, "activation", lambda *arguments, **named: wrong(right(*arguments, **named)))  # type: ignore[operator]
    with pytest.raises(RuntimeError, match=r"silu in torch\.float32 on cpu: the value is off by"):
        verify_activation("silu", torch.float32, torch.device("cpu"))


def test_verification_of_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match="unknown 'silo'"):
        verify_activation("silo", torch.float32, torch.device("cpu"))
