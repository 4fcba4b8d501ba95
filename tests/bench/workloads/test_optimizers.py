"""Optimizers by name take the steps of torch's own classes, constructed directly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from fusetune.bench.catalog import OPTIMIZERS
from fusetune.bench.errors import InputError
from fusetune.bench.workloads import optimizers
from fusetune.bench.workloads.optimizers import build_optimizer, build_optimizer_from_factory

CASES: list[tuple[str, dict[str, Any], Callable[..., Optimizer], dict[str, Any]]] = [
    ("sgd", {}, SGD, {}),
    ("sgd", {"weight_decay": 0.1, "foreach": True}, SGD, {"weight_decay": 0.1}),
    ("momentum", {}, SGD, {"momentum": 0.9}),
    (
        "momentum",
        {"momentum": 0.5, "dampening": 0.25, "weight_decay": 0.1},
        SGD,
        {"momentum": 0.5, "dampening": 0.25, "weight_decay": 0.1},
    ),
    ("momentum", {"nesterov": True}, SGD, {"momentum": 0.9, "nesterov": True}),
    ("nesterov", {}, SGD, {"momentum": 0.9, "nesterov": True}),
    (
        "nesterov",
        {"momentum": 0.8, "maximize": True},
        SGD,
        {"momentum": 0.8, "nesterov": True, "maximize": True},
    ),
    ("adam", {}, Adam, {}),
    (
        "adam",
        {"betas": [0.8, 0.9], "eps": 1e-3, "weight_decay": 0.1, "amsgrad": True},
        Adam,
        {"betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1, "amsgrad": True},
    ),
    ("adamw", {}, AdamW, {}),
    (
        "adamw",
        {"betas": [0.5, 0.7], "weight_decay": 0.2, "maximize": True},
        AdamW,
        {"betas": (0.5, 0.7), "weight_decay": 0.2, "maximize": True},
    ),
    ("rmsprop", {}, RMSprop, {}),
    (
        "rmsprop",
        {"alpha": 0.8, "eps": 1e-3, "weight_decay": 0.1, "momentum": 0.5, "centered": True},
        RMSprop,
        {"alpha": 0.8, "eps": 1e-3, "weight_decay": 0.1, "momentum": 0.5, "centered": True},
    ),
    ("adagrad", {}, Adagrad, {}),
    (
        "adagrad",
        {"lr_decay": 0.1, "eps": 1e-3, "weight_decay": 0.1, "initial_accumulator_value": 0.2},
        Adagrad,
        {"lr_decay": 0.1, "eps": 1e-3, "weight_decay": 0.1, "initial_accumulator_value": 0.2},
    ),
]


def parameters_to_fit() -> list[torch.nn.Parameter]:
    """Make a matrix and a bias, always the same."""
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 3), (3,))]


def take_five_steps(optimizer: Optimizer, parameters: list[torch.nn.Parameter]) -> None:
    """Fit a fixed linear regression."""
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(16, 4, generator=generator), torch.randn(16, 3, generator=generator)
    for _ in range(5):
        optimizer.zero_grad()
        (x @ parameters[0] + parameters[1] - y).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize(("name", "options", "cls", "torchs"), CASES)
def test_five_steps_are_those_of_torchs_class(
    name: str, options: dict[str, Any], cls: Callable[..., Optimizer], torchs: dict[str, Any]
) -> None:
    ours, theirs = parameters_to_fit(), parameters_to_fit()
    take_five_steps(build_optimizer(name, ours, lr=0.07, **options), ours)
    take_five_steps(cls(theirs, lr=0.07, **torchs), theirs)
    for mine, reference, start in zip(ours, theirs, parameters_to_fit(), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-6, atol=1e-7)
        assert not torch.equal(mine, start)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_option_of_the_catalog_is_passed_on(name: str) -> None:
    values = {
        "betas": [0.7, 0.8],
        "foreach": False,
        "fused": False,
        "maximize": True,
        "nesterov": False,
        "amsgrad": True,
        "centered": True,
    }
    for option in OPTIMIZERS[name].parameters:
        value = values.get(option, 0.125)
        optimizer = build_optimizer(name, parameters_to_fit(), lr=0.1, **{option: value})  # type: ignore[arg-type]
        group = optimizer.param_groups[0]
        assert group[option] == (tuple(value) if isinstance(value, list) else value)


def test_catalog_and_builder_agree() -> None:
    assert set(optimizers._OPTIMIZERS) == set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_catalogs_defaults_are_those_of_the_optimizer(name: str) -> None:
    defaults = build_optimizer(name, parameters_to_fit(), lr=0.1).defaults
    for option, value in OPTIMIZERS[name].parameters.items():
        assert defaults[option] == (tuple(value) if isinstance(value, list) else value), option


def test_none_stands_for_the_default() -> None:
    optimizer = build_optimizer("momentum", parameters_to_fit(), lr=0.1, momentum=None, foreach=None)
    assert optimizer.defaults["momentum"] == 0.9


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamwt", {}, r"optimizer: unknown 'adamwt'; known: adagrad, .*Did you mean 'adamw'\?"),
        ("adam", {"beta": 0.9}, r"optimizer adam: unknown 'beta'; known: amsgrad, betas, .*'betas'\?"),
        ("sgd", {"momentum": 0.9}, r"optimizer sgd: unknown 'momentum'; known: foreach"),
        ("adam", {"betas": 0.9}, r"optimizer adam: betas: 0.9 is not two numbers"),
        ("adam", {"betas": [0.9]}, r"betas: \[0.9\] is not two numbers"),
        ("adam", {"betas": [1.5, 0.9]}, r"optimizer adam: torch refuses it; Invalid beta parameter"),
        ("adam", {"foreach": True, "fused": True}, r"torch refuses it; .*fused.*foreach"),
        ("nesterov", {"momentum": 0.0}, r"torch refuses it; Nesterov momentum requires a momentum"),
    ],
)
def test_wrong_names_and_options_say_what_is_known(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_optimizer(name, parameters_to_fit(), lr=0.1, **options)


def test_negative_learning_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="optimizer sgd: torch refuses it; Invalid learning rate"):
        build_optimizer("sgd", parameters_to_fit(), lr=-0.1)


@pytest.mark.parametrize(
    ("reference", "options", "make"),
    [
        (
            "torch.optim:NAdam",
            {"betas": (0.7, 0.8)},
            lambda p: torch.optim.NAdam(p, lr=0.07, betas=(0.7, 0.8)),
        ),
        (
            "tests.bench.own_optimizers:by_function",
            {"momentum": 0.5},
            lambda p: SGD([{"params": p[:1]}, {"params": p[1:], "lr": 0.035}], lr=0.07, momentum=0.5),
        ),
    ],
    ids=["class", "function"],
)
def test_five_steps_of_a_factory_are_those_of_what_it_makes(
    reference: str, options: dict[str, Any], make: Callable[..., Optimizer]
) -> None:
    ours, theirs = parameters_to_fit(), parameters_to_fit()
    built = build_optimizer_from_factory(reference, "train.optimizer", iter(ours), lr=0.07, options=options)
    take_five_steps(built, ours)
    take_five_steps(make(theirs), theirs)
    for mine, reference_values in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference_values, rtol=0, atol=0)


def test_a_key_that_is_null_is_passed_on_as_none() -> None:
    optimizer = build_optimizer_from_factory(
        "tests.bench.own_optimizers:SignSGD", "here", parameters_to_fit(), lr=0.1, options={"beta": None}
    )
    assert optimizer.param_groups[0]["beta"] is None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nowhere", {}, "unknown 'nowhere'"),
        ("RATE", {}, "not a function"),
        ("without_rate", {}, "takes no 'lr'; known: learning_rate"),
        ("no_optimizer", {}, "returned a str"),
        ("of_something_else", {}, "none of the model's parameters"),
        ("Rateless", {}, "keeps no 'lr'"),
        ("LBFGS", {}, "needs a closure"),
        ("SignSGD", {"beta": 3}, "ValueError: beta is 3"),
        ("SignSGD", {"bata": 0.5}, r"takes no 'bata'.*Did you mean 'beta'\?"),
        ("SignSGD", {"params": 1}, "takes no 'params'"),
    ],
)
def test_a_factory_that_cannot_be_used_is_one_sentence(
    name: str, options: dict[str, Any], message: str
) -> None:
    module = "torch.optim" if name == "LBFGS" else "tests.bench.own_optimizers"
    with pytest.raises(InputError, match=message) as caught:
        build_optimizer_from_factory(
            f"{module}:{name}", "train.optimizer", parameters_to_fit(), lr=0.1, options=options
        )
    assert str(caught.value).startswith("train.optimizer: ")
    assert "\n" not in str(caught.value)
