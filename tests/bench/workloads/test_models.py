"""Models: shapes, hand-counted parameters, initialisation against its analytic variance, the activations applied."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusetune.bench.catalog import ACTIVATIONS, MODELS, NORMS
from fusetune.bench.workloads import models
from fusetune.bench.workloads.models import build_model

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: x.clamp(min=0),
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "tanh": lambda x: 2 / (1 + torch.exp(-2 * x)) - 1,
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "elu": lambda x: torch.where(x > 0, x, torch.expm1(x)),
    "softplus": lambda x: torch.where(x > 20, x, torch.log1p(torch.exp(x))),  # torch's threshold
    "mish": lambda x: x * torch.tanh(torch.log1p(torch.exp(x))),
    "hardswish": lambda x: x * (x + 3).clamp(0, 6) / 6,
    "identity": lambda x: x,
}


def count_parameters(model: nn.Module) -> int:
    """Count the numbers that are trained."""
    return sum(parameter.numel() for parameter in model.parameters())


def test_catalog_and_builders_agree() -> None:
    assert set(models._BUILDERS) == set(MODELS)
    for name, builder in models._BUILDERS.items():
        taken = inspect.signature(builder).parameters.values()
        options = {each.name: each.default for each in taken if each.kind == each.KEYWORD_ONLY}
        assert options == MODELS[name].parameters
    assert set(FUNCTIONS) == set(ACTIVATIONS) == set(models._ACTIVATIONS)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 5, 7), (1, 1, 40), (1, 1, 1)])
@pytest.mark.parametrize("name", MODELS)
def test_logits_have_one_column_a_class(name: str, shape: tuple[int, ...]) -> None:
    parameters = {} if name == "linear" else {"width": 4}
    model = build_model(name, input_shape=shape, num_classes=7, **parameters)
    assert model(torch.randn(3, *shape)).shape == (3, 7)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_flat_input_is_read(name: str) -> None:
    assert build_model(name, input_shape=(5,), num_classes=3)(torch.randn(2, 5)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "shape", "parameters", "expected"),
    [
        ("linear", (1, 28, 28), {}, 784 * 10 + 10),
        ("mlp", (1, 28, 28), {}, 784 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10),
        ("mlp", (64,), {"width": 32, "depth": 1, "norm": "batch"}, 64 * 32 + 2 * 32 + 32 * 10 + 10),
        ("cnn", (1, 28, 28), {}, 94_186),
        ("cnn", (1, 28, 28), {"norm": "none"}, 94_186 - (32 + 64 + 128)),
        ("cnn", (3, 32, 32), {"width": 8, "depth": 2}, 3 * 8 * 9 + 8 * 16 * 9 + 2 * 24 + 16 * 10 + 10),
        # One more block in each residual stage: two convolutions and their norms.
        (
            "resnet9",
            (3, 32, 32),
            {"depth": 2},
            6_573_120 + 2 * (9 * 128**2 + 2 * 128) + 2 * (9 * 512**2 + 2 * 512),
        ),
    ],
)
def test_parameters_are_as_many_as_counted_by_hand(
    name: str, shape: tuple[int, ...], parameters: dict[str, object], expected: int
) -> None:
    assert count_parameters(build_model(name, input_shape=shape, num_classes=10, **parameters)) == expected


def test_resnet9_has_as_many_parameters_as_the_published_network() -> None:
    """6,575,370 are published for the variant with a bias in each convolution and in the classifier."""
    model = build_model("resnet9", input_shape=(3, 32, 32), num_classes=10)
    biases = sum(layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)) + 10
    assert count_parameters(model) + biases == 6_575_370


def test_resnet9_is_the_published_computation() -> None:
    torch.manual_seed(0)
    model = build_model("resnet9", input_shape=(3, 16, 16), num_classes=5, width=2, norm="none").double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    weights = iter(list(model.parameters()))

    def convolve(x: Tensor) -> Tensor:
        return F.conv2d(x, next(weights), next(weights), padding=1).clamp(min=0)

    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    x = F.max_pool2d(convolve(convolve(images)), 2)
    x = x + convolve(convolve(x))
    x = F.max_pool2d(convolve(x), 2)
    x = F.max_pool2d(convolve(x), 2)
    x = x + convolve(convolve(x))
    logits = x.amax(dim=(2, 3)) @ next(weights).T / 8
    torch.testing.assert_close(model(images), logits, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_is_applied_between_the_layers(activation: str) -> None:
    torch.manual_seed(0)
    model = build_model(
        "mlp", input_shape=(6,), num_classes=3, width=9, depth=2, activation=activation
    ).double()
    first, first_bias, second, second_bias, last, last_bias = (
        nn.init.normal_(parameter) for parameter in model.parameters()
    )
    x = torch.randn(20, 6, dtype=torch.float64)
    f = FUNCTIONS[activation]
    logits = f(f(x @ first.T + first_bias) @ second.T + second_bias) @ last.T + last_bias
    torch.testing.assert_close(model(x), logits, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "places"), [("mlp", 2), ("cnn", 3), ("resnet9", 8)])
def test_every_place_has_its_own_activation_module(name: str, places: int) -> None:
    model = build_model(name, input_shape=(1, 8, 8), num_classes=3, width=4, activation="mish")
    found = [module for module in model.modules() if isinstance(module, nn.Mish)]
    assert len(found) == len({id(module) for module in found}) == places


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_hidden_weights_have_the_variance_of_the_activation(activation: str) -> None:
    fan_in, fan_out = 1000, 2000
    torch.manual_seed(0)
    model = build_model(
        "mlp", input_shape=(fan_in,), num_classes=10, width=fan_out, depth=1, activation=activation
    )
    weight = model.get_parameter("hidden1.0.weight").double()
    if activation in ("sigmoid", "identity", "tanh"):
        gain = 5 / 3 if activation == "tanh" else 1.0
        variance = 2 * gain**2 / (fan_in + fan_out)
    else:
        variance = 2 / fan_in / (1 + 0.01**2 if activation == "leaky_relu" else 1)
    # Of 2 million normal numbers, the variance has a relative standard error of 0.001.
    assert weight.var().item() == pytest.approx(variance, rel=0.005)
    assert abs(weight.mean().item()) < 5 * math.sqrt(variance / weight.numel())


def test_convolutions_count_their_window_in_the_fan() -> None:
    torch.manual_seed(0)
    model = build_model("cnn", input_shape=(128, 8, 8), num_classes=10, width=256, depth=1)
    weight = next(module for module in model.modules() if isinstance(module, nn.Conv2d)).weight.double()
    assert weight.var().item() == pytest.approx(2 / (128 * 9), rel=0.02)


@pytest.mark.parametrize("name", MODELS)
def test_classifier_is_xaviers_and_biases_are_zero(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, input_shape=(1, 28, 28), num_classes=500)
    classifier = model.get_submodule("classifier")
    assert isinstance(classifier, nn.Linear)
    expected = 2 / (classifier.in_features + classifier.out_features)
    assert classifier.weight.double().var().item() == pytest.approx(expected, rel=0.03)
    assert all(not value.any() for key, value in model.named_parameters() if key.endswith("bias"))


def mean_square_after(activation: str, depth: int) -> list[float]:
    """Return the mean square after each hidden layer of a deep mlp, for normal input."""
    torch.manual_seed(0)
    model = build_model(
        "mlp", input_shape=(1024,), num_classes=10, width=1024, depth=depth, activation=activation
    )
    x = torch.randn(128, 1024)
    squares = []
    with torch.no_grad():
        for layer in list(model.children())[1:-1]:
            x = layer(x)
            squares.append(x.square().mean().item())
    return squares


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "identity"])
def test_signal_keeps_its_size_through_twenty_layers(activation: str) -> None:
    """torch's default initialisation shrinks it by about 6 a layer with relu: 1e-15 after twenty."""
    squares = mean_square_after(activation, depth=20)
    assert 1 / 3 < squares[-1] / squares[0] < 3


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet9"])
def test_training_lowers_the_loss(name: str, norm: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, input_shape=(1, 8, 8), num_classes=4, width=8, norm=norm)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    images, labels = torch.randn(32, 1, 8, 8), torch.arange(32) % 4
    losses = []
    for _ in range(10):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("norm", "kind"), [("batch", nn.BatchNorm2d), ("group", nn.GroupNorm), ("layer", nn.GroupNorm)]
)
def test_norm_follows_every_convolution_and_replaces_its_bias(norm: str, kind: type[nn.Module]) -> None:
    model = build_model("resnet9", input_shape=(1, 8, 8), num_classes=3, width=4, norm=norm)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert sum(isinstance(module, kind) for module in model.modules()) == len(convolutions) == 8
    assert all(convolution.bias is None for convolution in convolutions)


@pytest.mark.parametrize(("width", "groups"), [(64, 8), (32, 8), (28, 7), (12, 3), (8, 2), (11, 1), (3, 1)])
def test_group_norm_takes_up_to_eight_groups_of_four_channels(width: int, groups: int) -> None:
    model = build_model("mlp", input_shape=(4,), num_classes=3, width=width, depth=1, norm="group")
    assert [module.num_groups for module in model.modules() if isinstance(module, nn.GroupNorm)] == [groups]


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet9"])
def test_dropout_changes_training_but_not_evaluation(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, input_shape=(1, 8, 8), num_classes=4, width=16, norm="layer", dropout=0.5)
    images = torch.randn(4, 1, 8, 8)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))
    assert sum(isinstance(module, nn.Dropout) for module in model.modules()) == (2 if name == "mlp" else 1)


@pytest.mark.parametrize("name", MODELS)
def test_same_seed_gives_the_same_weights(name: str) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = build_model(name, input_shape=(1, 8, 8), num_classes=4)
        states.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_none_stands_for_the_default() -> None:
    model = build_model("cnn", input_shape=(1, 28, 28), num_classes=10, width=None, norm=None)
    assert count_parameters(model) == 94_186


@pytest.mark.parametrize(
    ("name", "shape", "parameters", "message"),
    [
        ("resnet", (1, 8, 8), {}, r"model: unknown 'resnet'; known: cnn, .*Did you mean 'resnet9'\?"),
        ("linear", (4,), {"width": 3}, r"model linear: width: unknown parameter; linear takes none"),
        (
            "mlp",
            (4,),
            {"widht": 3},
            r"model mlp: unknown 'widht'; known: activation, .*Did you mean 'width'\?",
        ),
        ("mlp", (4,), {"activation": "rulu"}, r"activation: unknown 'rulu'; .*Did you mean 'relu'\?"),
        ("mlp", (4,), {"norm": "bach"}, r"norm: unknown 'bach'; known: batch, group, layer, none"),
        ("mlp", (4,), {"width": 0}, r"width: 0 is out of range; known: integers from 1"),
        ("mlp", (4,), {"depth": 1.5}, r"depth: 1.5 is out of range"),
        ("mlp", (4,), {"depth": True}, r"depth: True is out of range"),
        ("mlp", (4,), {"dropout": 1.0}, r"dropout: 1.0 is out of range; known: \[0, 1\)"),
        ("mlp", (4,), {"dropout": math.nan}, r"dropout: nan is out of range"),
        ("cnn", (4,), {}, r"model cnn: input_shape \(4,\) is not \(C, H, W\); .*linear, mlp"),
        ("resnet9", (4, 4), {}, r"model resnet9: input_shape \(4, 4\) is not \(C, H, W\)"),
        ("mlp", (0,), {}, r"input_shape \(0,\) and 3 classes; every number must be at least 1"),
    ],
)
def test_wrong_names_and_values_say_what_is_known(
    name: str, shape: tuple[int, ...], parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(name, input_shape=shape, num_classes=3, **parameters)
