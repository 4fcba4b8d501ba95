from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fusetune.tuner.diagnosis import diagnose, layer_probes
from fusetune.tuner.diagnosis.layer_probes import watching
from fusetune.tuner.diagnosis.layer_statistics import LayerStatistics
from fusetune.tuner.training import Plan, train
from fusetune.tuner.training.batches import Batches

Call = Callable[[Tensor], Tensor]


class Block(nn.Module):
    """A layer whose activation is a function call in its own forward."""

    def __init__(self, features: int, width: int, call: Call) -> None:
        super().__init__()
        self.linear = nn.Linear(features, width)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.linear(x))


class Net(nn.Module):
    """Two blocks and an output layer: no activation is a module."""

    def __init__(self, first: Call, second: Call | None = None, *, width: int = 8) -> None:
        super().__init__()
        self.block1 = Block(6, width, first)
        self.block2 = Block(width, width, second or first)
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.block2(self.block1(x)))


class Plain(nn.Module):
    """One layer, and whatever is called on its output."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.linear(x))


def _inputs(samples: int = 64) -> Tensor:
    return torch.randn(samples, 6, generator=torch.Generator().manual_seed(3))


def _batches(batch_size: int = 32) -> Batches:
    x = _inputs(256)
    return Batches(x, x[:, :3].argmax(1), batch_size)


def _probes(model: nn.Module, x: Tensor | None = None) -> dict[str, dict[str, float]]:
    """Name (and call, from the second on) -> numbers of a forward pass."""
    with watching(model) as watch, watch.forward(), torch.no_grad():
        model(_inputs() if x is None else x)
    return {
        f"{name}#{call}" if call else name: {
            "kind": probe.kind,  # type: ignore[dict-item]
            **{number: value.item() for number, value in probe.numbers().items()},
        }
        for (name, call), probe in watch.probes.items()
    }


def _layers(model: nn.Module) -> list[dict]:
    look = LayerStatistics(model, _batches(), loss_fn=functional.cross_entropy, precision="fp32")
    return look.snapshot(0)["layers"]


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (functional.relu, "relu"),
        (torch.relu, "relu"),
        (Tensor.relu, "relu"),
        (Tensor.relu_, "relu"),
        (lambda x: functional.relu(x, inplace=True), "relu"),
        (functional.relu6, "relu6"),
        (torch.sigmoid, "sigmoid"),
        (Tensor.sigmoid, "sigmoid"),
        (functional.sigmoid, "sigmoid"),
        (torch.special.expit, "sigmoid"),
        (torch.tanh, "tanh"),
        (functional.tanh, "tanh"),
        (Tensor.tanh_, "tanh"),
        (functional.softsign, "softsign"),
        (functional.gelu, "gelu"),
        (functional.silu, "silu"),
        (functional.leaky_relu, "leakyrelu"),
    ],
)
def test_a_function_is_seen_as_the_activation_it_is(call: Call, kind: str) -> None:
    model = Plain(call)
    with torch.no_grad():
        model.linear.weight.mul_(4)
        expected = call(model.linear(_inputs()).clone())
    seen = _probes(model)
    assert list(seen) == ["linear", kind]
    assert seen[kind]["kind"] == kind
    assert seen[kind]["mean"] == pytest.approx(expected.mean().item(), rel=1e-5)
    assert seen[kind]["std"] == pytest.approx(expected.std().item(), rel=1e-5)
    assert ("dead_share" in seen[kind]) == (kind in ("relu", "relu6"))
    assert ("saturated_share" in seen[kind]) == (kind in ("sigmoid", "tanh", "softsign"))


def test_dead_units_and_saturation_of_functions_are_those_counted_by_hand() -> None:
    model = Net(functional.relu, torch.tanh)
    with torch.no_grad():
        model.block1.linear.bias[:3] = -100.0
        model.block2.linear.weight.mul_(10)
        hidden = model.block1.linear(_inputs()).clamp(min=0)
        squashed = model.block2.linear(hidden).tanh()
    seen = _probes(model)
    assert list(seen) == ["block1.linear", "block1.relu", "block2.linear", "block2.tanh", "last"]
    never_positive = sum(not bool((unit > 0).any()) for unit in hidden.T)
    assert never_positive >= 3
    assert seen["block1.relu"]["dead_share"] == pytest.approx(never_positive / 8)
    assert seen["block1.relu"]["zero_share"] == pytest.approx((hidden == 0).float().mean().item())
    share = (squashed.abs() > 0.95).float().mean().item()
    assert 0 < share < 1
    assert seen["block2.tanh"]["saturated_share"] == pytest.approx(share)


def test_a_model_of_functions_has_the_numbers_of_its_twin_of_modules() -> None:
    called = Net(functional.relu, torch.sigmoid)
    twin = nn.Sequential(called.block1.linear, nn.ReLU(), called.block2.linear, nn.Sigmoid(), called.last)
    numbers = [{name: value for name, value in layer.items() if name != "name"} for layer in _layers(called)]
    assert numbers == [
        {name: value for name, value in layer.items() if name != "name"} for layer in _layers(twin)
    ]
    assert len(numbers) == 5


class Named(nn.Module):
    """An activation of one's own that says by its name which one it is."""

    name = "relu"

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x)


@pytest.mark.parametrize(
    "module",
    [nn.ReLU(), nn.ReLU6(), nn.Tanh(), nn.Sigmoid(), nn.Softsign(), nn.Hardtanh(), nn.GELU(), Named()],
)
def test_an_activation_module_is_counted_once(module: nn.Module) -> None:
    assert list(_probes(nn.Sequential(nn.Linear(6, 4), module))) == ["0", "1"]


def test_activation_modules_beyond_those_looked_at_are_not_counted_as_functions() -> None:
    deep = nn.Sequential(*(layer for _ in range(60) for layer in (nn.Linear(6, 6), nn.ReLU())))
    seen = _probes(deep)
    assert len(seen) == layer_probes.MOST_LAYERS
    assert all(name.isdigit() for name in seen)


def test_calls_are_counted_in_their_order_and_names_of_modules_are_not_taken() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.tanh = nn.ReLU(), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(functional.relu(self.tanh(functional.relu(self.relu(x)))))

    assert list(_probes(Mixed())) == ["relu", "relu()", "tanh", "relu()#1", "tanh()"]
    repeated = Plain(lambda x: torch.tanh(torch.tanh(x)))
    names = [layer["name"] for layer in _layers(repeated)]
    assert names == ["linear", "tanh", "tanh (call 2)"]


def test_a_call_after_a_module_that_failed_is_its_callers() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("broken")

    class Guarded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.broken = Broken()

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.broken(x)
            except RuntimeError:
                return torch.relu(x)

    assert list(_probes(Guarded())) == ["relu"]


@pytest.mark.parametrize(
    ("wrap", "names"),
    [
        (torch.compile, ["inner._orig_mod.linear", "inner._orig_mod.relu", "last", "tanh"]),
        (lambda block: torch.jit.trace(block, _inputs()), ["last", "tanh"]),
    ],
    ids=["compiled", "traced"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_parts_run_uncompiled_and_parts_in_torchscript_are_passed_over(
    wrap: Callable[[nn.Module], nn.Module], names: list[str]
) -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = wrap(Block(6, 6, torch.relu))
            self.last = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.last(self.inner(x)))

    assert list(_probes(Partly())) == names


def test_a_parameter_that_is_squashed_is_no_activation() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 3)
            self.gate = nn.Parameter(torch.full((3,), 9.0))

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.linear(x)) * torch.sigmoid(input=self.gate)

    assert list(_probes(Gated())) == ["linear", "tanh"]


def test_functions_of_the_loss_are_no_layers() -> None:
    def hinge(logits: Tensor, labels: Tensor) -> Tensor:
        right = logits.gather(1, labels[:, None])
        return functional.relu(1 + logits - right).mean()

    look = LayerStatistics(Net(torch.tanh), _batches(), loss_fn=hinge, precision="fp32")
    assert [layer["kind"] for layer in look.snapshot(0)["layers"]] == [
        *("Linear", "tanh") * 2,
        "Linear",
    ]


def test_of_many_functions_as_many_as_of_layers_are_listed() -> None:
    def often(x: Tensor) -> Tensor:
        for _ in range(100):
            x = torch.tanh(x)
        return x

    names = [layer["name"] for layer in _layers(Plain(often))]
    assert len(names) == 1 + layer_probes.MOST_LAYERS
    assert (names[1], names[-1]) == ("tanh", "tanh (call 100)")


def test_nothing_is_seen_once_watching_is_over() -> None:
    model = Plain(torch.relu)

    def fail(x: Tensor) -> Tensor:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"), watching(model) as watch, watch.forward():
        Plain(fail)(_inputs())
    model(_inputs())
    assert watch.probes == {}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("batch_size", [4, 32])
def test_training_a_model_of_functions_is_the_same_bit_for_bit_when_it_is_looked_into(
    precision: str, batch_size: int
) -> None:
    def noisy(x: Tensor) -> Tensor:
        return functional.dropout(x.relu_(), 0.3)

    trained, losses = [], []
    for on in (False, True):
        torch.manual_seed(0)
        model = Net(noisy, torch.tanh)
        training = train(
            model,
            lambda parameters: torch.optim.Adam(parameters, lr=0.01),
            _batches(batch_size),
            plan=Plan(epochs=2, precision=precision),
            validation=_batches(64),
            observer=LayerStatistics if on else None,
        )
        trained.append(model.state_dict())
        losses.append([(entry["train_loss"], entry["val_loss"]) for entry in training.curve])
    assert losses[0] == losses[1]
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())
    assert "block1.relu" in [layer["name"] for layer in training.statistics[-1]["layers"]]


def _diagnosed(model: nn.Module) -> list[tuple[str, str]]:
    training = train(
        model,
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        _batches(),
        plan=Plan(epochs=3),
        validation=_batches(256),
        observer=LayerStatistics,
    )
    found = diagnose(training.curve, statistics=training.statistics, batch_size=32)
    return [(finding.name, finding.sentence) for finding in found]


def test_dead_relus_and_saturated_tanhs_are_found_where_only_functions_are_called() -> None:
    torch.manual_seed(0)
    dead = Net(torch.relu)
    with torch.no_grad():
        dead.block1.linear.bias.fill_(-10)
    ((name, sentence),) = _diagnosed(dead)
    assert name == "dead_relus"
    assert "block1.relu" in sentence

    saturated = Net(Tensor.tanh, width=32)
    with torch.no_grad():
        saturated.block2.linear.weight.mul_(60)
    ((name, sentence),) = _diagnosed(saturated)
    assert name == "saturated_units"
    assert "block2.tanh" in sentence
