"""Swapping a model's activations: what is swapped, what is left, and that nothing else changes."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from kernels import replace as subject
from kernels.activation_functions import FUNCTIONS
from kernels.activations import Activation
from kernels.replace import replace_activations, verify_activation


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
    model = nn.Sequential(module)
    assert replace_activations(model) == ["0"]
    assert isinstance(model[0], Activation)
    assert model[0].name == name


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
    with pytest.warns(UserWarning, match="0: .*left alone; .*it can be from"):
        assert replace_activations(model) == []
    assert model[0] is module


def test_the_approximate_variant_is_handed_on() -> None:
    model = nn.Sequential(nn.GELU(), nn.Sequential(nn.Tanh()))
    replace_activations(model, approximate=True)
    assert model[0].approximate
    assert model[1][0].approximate


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


def test_other_modules_and_subclasses_are_not_touched() -> None:
    class Counting(nn.ReLU):
        calls = 0

    model = nn.Sequential(Counting(), nn.ReLU6(), nn.Identity(), nn.PReLU())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert replace_activations(model) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_verification_passes_what_is_right(name: str, dtype: torch.dtype) -> None:
    verify_activation(name, dtype, torch.device("cpu"), bias=True)


@pytest.mark.parametrize("wrong", [lambda y: y * 1.001, lambda y: y * float("nan")])
def test_verification_stops_what_is_wrong(monkeypatch: pytest.MonkeyPatch, wrong: object) -> None:
    right = subject.activation
    monkeypatch.setattr(subject, "activation", lambda *arguments, **named: wrong(right(*arguments, **named)))  # type: ignore[operator]
    with pytest.raises(RuntimeError, match=r"silu in torch\.float32 on cpu: the value is off by"):
        verify_activation("silu", torch.float32, torch.device("cpu"))


def test_verification_of_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match="unknown 'silo'"):
        verify_activation("silo", torch.float32, torch.device("cpu"))
