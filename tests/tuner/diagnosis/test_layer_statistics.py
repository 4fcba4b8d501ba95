from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from fusetune.tuner.diagnosis import layer_probes
from fusetune.tuner.diagnosis.layer_statistics import LayerStatistics
from fusetune.tuner.training import Plan, Snapshot, train
from fusetune.tuner.training.batches import Augment, Batches
from fusetune.tuner.training.outcome import Training


def _batches(batch_size: int = 32, *, samples: int = 256, features: int = 6) -> Batches:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(samples, features, generator=generator)
    return Batches(x, x[:, :3].argmax(1), batch_size)


def _look(model: nn.Module, batches: Batches | None = None) -> LayerStatistics:
    return LayerStatistics(model, batches or _batches(), loss_fn=functional.cross_entropy, precision="fp32")


def _layers(snapshot: Snapshot) -> dict[str, dict]:
    return {layer["name"]: layer for layer in snapshot["layers"]}


def _first_samples(batches: Batches, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    parts = list(batches.epoch(0))
    return torch.cat([x for x, _ in parts])[:count], torch.cat([y for _, y in parts])[:count]


# ---- the numbers


def test_numbers_of_layers_are_those_of_a_forward_pass_by_hand() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    batches = _batches()
    x, y = _first_samples(batches, 128)
    functional.cross_entropy(model(x), y).backward()
    snapshot = _look(model, batches).snapshot(3)
    with torch.no_grad():
        hidden = model[0](x)
        squashed = hidden.tanh()
        logits = model[2](squashed)
    layers = _layers(snapshot)
    assert (snapshot["epoch"], snapshot["samples"], snapshot["classes"]) == (3, 128, 3)
    assert snapshot["loss"] == pytest.approx(functional.cross_entropy(logits, y).item(), rel=1e-5)
    assert snapshot["accuracy"] == pytest.approx((logits.argmax(1) == y).float().mean().item())
    assert snapshot["output_std"] == pytest.approx(logits.std(0).mean().item(), rel=1e-5)
    assert snapshot["input_std"] == pytest.approx(x.std().item(), rel=1e-5)
    assert layers["0"]["std"] == pytest.approx(hidden.std().item(), rel=1e-5)
    assert layers["0"]["sample_std"] == pytest.approx(hidden.std(0).mean().item(), rel=1e-5)
    assert layers["0"]["weight_norm"] == pytest.approx(model[0].weight.norm().item(), rel=1e-6)  # type: ignore[operator]
    assert layers["0"]["grad_norm"] == pytest.approx(model[0].weight.grad.norm().item(), rel=1e-6)  # type: ignore[operator]
    assert layers["1"]["saturated_share"] == pytest.approx((squashed.abs() > 0.95).float().mean().item())
    assert list(layers) == ["0", "1", "2"]


def test_dead_units_of_a_layer_and_dead_channels_of_a_convolution_are_counted() -> None:
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        mlp[0].bias[:2] = -100.0  # type: ignore[operator]
        mlp[0].bias[2:] = 10.0  # type: ignore[operator]
    assert _layers(_look(mlp).snapshot(0))["1"]["dead_share"] == pytest.approx(2 / 8)
    assert _layers(_look(mlp).snapshot(0))["1"]["zero_share"] == pytest.approx(2 / 8)

    cnn = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    with torch.no_grad():
        cnn[0].bias[0] = -100.0  # type: ignore[operator]
    images = Batches(torch.randn(64, 1, 8, 8), torch.arange(64) % 2, 64)
    assert _layers(_look(cnn, images).snapshot(0))["1"]["dead_share"] == pytest.approx(1 / 4)


def test_a_unit_that_lives_on_one_sample_of_one_chunk_is_not_dead() -> None:
    x = torch.full((64, 1), -1.0)
    x[41] = 1.0
    batches = Batches(x, torch.arange(64) % 2, 4)
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 2))
    nn.init.ones_(model[0].weight)  # type: ignore[arg-type]
    layer = _layers(_look(model, batches).snapshot(0))["1"]
    assert (layer["dead_share"], layer["zero_share"]) == (0.0, pytest.approx(63 / 64))


def test_sigmoid_is_saturated_where_its_slope_is_below_a_tenth_of_its_largest() -> None:
    x = torch.linspace(-6, 6, 64).reshape(64, 1)
    model = nn.Sequential(nn.Linear(1, 1), nn.Sigmoid(), nn.Linear(1, 2))
    nn.init.ones_(model[0].weight)  # type: ignore[arg-type]
    nn.init.zeros_(model[0].bias)  # type: ignore[arg-type]
    slope = torch.sigmoid(x) * (1 - torch.sigmoid(x)) / 0.25
    share = _layers(_look(model, Batches(x, torch.arange(64) % 2, 64)).snapshot(0))["1"]["saturated_share"]
    assert share == pytest.approx((slope < 0.1).float().mean().item())


def test_movement_is_measured_from_the_weights_at_the_start() -> None:
    model = nn.Sequential(nn.Linear(6, 3))
    look = _look(model)
    assert _layers(look.snapshot(0))["0"]["moved"] == 0
    with torch.no_grad():
        model[0].weight.mul_(1.5)  # type: ignore[operator]
    assert _layers(look.snapshot(1))["0"]["moved"] == pytest.approx(0.5, rel=1e-6)


def test_labels_are_described_by_their_entropy_and_commonest_share() -> None:
    batches = Batches(torch.randn(256, 6), torch.arange(256) % 4 // 3, 64)
    snapshot = _look(nn.Linear(6, 4), batches).snapshot(0)
    exact = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert snapshot["label_entropy"] == pytest.approx(exact, abs=0.01)
    assert snapshot["label_majority"] == 0.75
    assert snapshot["classes"] == 4


def test_gradient_noise_of_single_samples_is_the_covariance_of_their_gradients() -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 3).double()
    base = _batches(2, samples=64)
    batches = Batches(torch.cat([x for x, _ in base.in_order()]).double(), torch.arange(64) % 3, 2)
    snapshot = _look(model, batches).snapshot(0)
    gradients = []
    for x, y in batches.epoch(0):
        one = torch.autograd.grad(functional.cross_entropy(model(x), y), list(model.parameters()))
        gradients.append(torch.cat([gradient.flatten() for gradient in one]))
    stacked = torch.stack(gradients)
    # The variance of a mean of two samples is half the samples' variance.
    noise = 2 * stacked.var(0).sum().item()
    assert snapshot["gradient_noise"] == pytest.approx(noise, rel=1e-5)
    assert snapshot["gradient_square"] == pytest.approx(
        stacked.mean(0).square().sum().item() - noise / 64, rel=1e-5
    )
    assert "gradient_noise" not in _look(nn.Linear(6, 3), _batches(16)).snapshot(0)


def test_a_snapshot_is_json_and_what_is_not_finite_is_null() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan  # type: ignore[operator]
    snapshot = _look(model).snapshot(0)
    assert json.loads(json.dumps(snapshot, allow_nan=False)) == snapshot
    assert snapshot["loss"] is None
    layers = _layers(snapshot)
    assert layers["0"]["weight_norm"] is None
    assert layers["0"]["not_finite"] == ["weights", "outputs"]
    assert layers["1"]["not_finite"] == ["outputs"]
    assert layers["1"]["dead_share"] == 0, "NaN is not 0"
    assert snapshot["not_finite"] == ["outputs", "loss"]
    sound = _look(nn.Linear(6, 3)).snapshot(0)
    assert "not_finite" not in sound
    assert "not_finite" not in sound["layers"][0]


def test_deep_models_are_thinned_and_keep_their_ends() -> None:
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(99)), nn.Linear(6, 3))
    names = [layer["name"] for layer in _look(model).snapshot(0)["layers"]]
    assert len(names) == layer_probes.MOST_LAYERS
    assert (names[0], names[-1]) == ("0", "99")
    assert names == sorted(names, key=int)


def test_a_module_that_is_used_twice_is_two_layers() -> None:
    class Reused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.relu, self.last = nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.relu(self.last(self.relu(self.first(x))))

    names = [layer["name"] for layer in _look(Reused(), _batches(8)).snapshot(0)["layers"]]
    assert names == ["first", "relu", "last", "relu (call 2)"]


# ---- nothing is changed


def _noisy_model() -> nn.Module:
    """Build a model with buffers, draws from the random state, and a layer in evaluation mode."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
    model.train()
    model[3].eval()
    return model


@pytest.mark.parametrize("batch_size", [2, 32])
def test_a_snapshot_leaves_the_model_and_the_random_state_as_they_were(batch_size: int) -> None:
    model = _noisy_model()
    functional.cross_entropy(model(torch.randn(8, 6)), torch.arange(8) % 3).backward()
    look = _look(model, _batches(batch_size))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    look.snapshot(0)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, model.parameters(), strict=True))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_hooks for module in model.modules())


def test_hooks_are_removed_when_the_model_raises() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.layer(x)
            raise RuntimeError("broken")

    model = Broken()
    with pytest.raises(RuntimeError, match="broken"):
        _look(model).snapshot(0)
    assert not model.layer._forward_hooks


def _curve(training: Training) -> list[dict]:
    return [{name: value for name, value in entry.items() if name != "time_s"} for entry in training.curve]


@pytest.mark.parametrize(
    "plan",
    [Plan(epochs=3), Plan(epochs=2, grad_clip=0.1), Plan(epochs=2, accumulation_steps=2, precision="bf16")],
    ids=["plain", "clipped", "bf16"],
)
@pytest.mark.parametrize("batch_size", [4, 32])
def test_a_training_is_the_same_bit_for_bit_with_statistics_and_without(plan: Plan, batch_size: int) -> None:
    trained, curves = [], []
    for on in (False, True):
        model = _noisy_model()
        torch.manual_seed(1)
        training = train(
            model,
            lambda parameters: torch.optim.Adam(parameters, lr=0.01),
            _batches(batch_size),
            plan=plan,
            validation=_batches(64),
            observer=LayerStatistics if on else None,
        )
        trained.append(model.state_dict())
        curves.append(_curve(training))
        assert [snapshot["epoch"] for snapshot in training.statistics] == (
            [0, *range(1, plan.epochs + 1)] if on else []
        )
    assert curves[0] == curves[1]
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())


def test_a_training_with_augmentation_is_the_same_with_statistics_and_without() -> None:
    x = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    losses = []
    for on in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 2))
        data = Batches(x, torch.arange(64) % 2, 16, augment=Augment(flip=True, translate=2, cutout=2))
        training = train(
            model,
            lambda parameters: torch.optim.SGD(parameters, lr=0.1),
            data,
            plan=Plan(epochs=2),
            validation=data,
            observer=LayerStatistics if on else None,
        )
        losses.append(_curve(training))
    assert losses[0] == losses[1]


def test_statistics_are_off_the_training_clock() -> None:
    from fusetune.tuner.measure.stopwatch import Stopwatch

    now = [0.0]

    class Slow(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            now[0] += 0.25
            return super().forward(x)

    training = train(
        Slow(6, 3),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        _batches(32),
        plan=Plan(epochs=2),
        validation=_batches(256),
        stopwatch=Stopwatch(clock=lambda: now[0]),
        observer=LayerStatistics,
    )
    assert training.step_times_s == [0.25] * 16
    # One pass of 128 samples before the first update and one after each epoch.
    assert training.statistics_s == 0.75
    assert training.evaluation_s == 0.5


def test_the_untrained_models_gradients_are_those_of_the_first_batch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y = next(_batches(32).epoch(0))
    expected = torch.autograd.grad(functional.cross_entropy(model(x), y), model[0].weight)[0].norm().item()  # type: ignore[arg-type]
    training = train(
        model,
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        _batches(32),
        plan=Plan(epochs=1, grad_clip=1e-4),
        validation=_batches(64),
        observer=LayerStatistics,
    )
    assert _layers(training.statistics[0])["0"]["grad_norm"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_a_compiled_training_is_looked_into_through_the_model_itself() -> None:
    curves = []
    for on in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        training = train(
            model,
            lambda parameters: torch.optim.SGD(parameters, lr=0.1),
            _batches(32),
            plan=Plan(epochs=2, compile=True),
            validation=_batches(64),
            observer=LayerStatistics if on else None,
        )
        curves.append(_curve(training))
    assert curves[0] == curves[1]
    assert [layer["kind"] for layer in training.statistics[-1]["layers"]] == ["Linear", "relu", "Linear"]
