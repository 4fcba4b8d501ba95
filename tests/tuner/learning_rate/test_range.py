"""The LR range test: what it finds on real data, what it refuses, and that it leaves no trace."""

from __future__ import annotations

import copy
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fusetune.bench.workloads.generated import generate
from fusetune.bench.workloads.models import build_model
from fusetune.tuner.learning_rate.confirmation import Candidates, confirm
from fusetune.tuner.learning_rate.range import LRRange, lr_range_test
from fusetune.tuner.learning_rate.sweep import EndlessBatches, StepSettings, Sweeper
from fusetune.tuner.training.batches import Batches
from tests.tuner.snapshots import same

cross_entropy = nn.functional.cross_entropy


def sgd(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr)


def momentum(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def adam(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=lr)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return torch.tensor(x[order] / 16, dtype=torch.float32), torch.tensor(y[order])


@pytest.fixture
def batches(digits: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
    x, y = digits[0][:1280], digits[1][:1280]
    return list(zip(x.split(32), y.split(32), strict=True))


def mlp(activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(64, 64), activation(), nn.Linear(64, 10))


def accuracy_after(lr: float, make: Any, activation: Any, digits: tuple[Tensor, Tensor]) -> float:
    """Train plainly for five epochs of 1,280 samples and test on the others."""
    x, y = digits
    model = mlp(activation)
    optimizer = make(list(model.parameters()), lr)
    for epoch in range(5):
        for chosen in torch.randperm(1280, generator=torch.Generator().manual_seed(epoch)).split(32):
            optimizer.zero_grad()
            cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
    return (model(x[1280:]).argmax(1) == y[1280:]).float().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "activation"),
    [(momentum, nn.ReLU), (adam, nn.ReLU), (momentum, nn.Sigmoid), (adam, nn.Tanh)],
    ids=["momentum-relu", "adam-relu", "momentum-sigmoid", "adam-tanh"],
)
def test_a_training_at_the_suggestion_comes_near_the_best_of_a_grid(
    make: Any, activation: Any, digits: tuple[Tensor, Tensor], batches: list[tuple[Tensor, Tensor]]
) -> None:
    found = lr_range_test(mlp(activation), make, cross_entropy, batches)
    assert found.suggestion is not None
    best = max(accuracy_after(10**e, make, activation, digits) for e in (-3, -2.5, -2, -1.5, -1, -0.5, 0))
    assert accuracy_after(found.suggestion, make, activation, digits) > best - 0.02


def test_a_model_that_begins_with_bad_guesses_gets_a_rate_at_which_it_learns() -> None:
    # Logits of He's initialisation are worse than a blind guess, whose loss is log 3; the first fall only mends that.
    x, y, x_test, y_test = map(torch.from_numpy, generate("spirals", n_train=2000))
    mean, deviation = x.mean(0), x.std(0)
    x, x_test = (x - mean) / deviation, (x_test - mean) / deviation
    torch.manual_seed(0)
    model = build_model("mlp", input_shape=(2,), num_classes=3, width=64, depth=2)
    found = lr_range_test(model, momentum, cross_entropy, Batches(x, y, 64))
    assert found.suggestion is not None
    assert found.edge is not None
    assert found.interval is not None
    assert found.interval[1] < 10 * found.interval[0]
    optimizer = momentum(list(model.parameters()), found.suggestion)
    epochs = 12
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        for chosen in torch.randperm(2000, generator=torch.Generator().manual_seed(epoch)).split(64):
            optimizer.zero_grad()
            cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
        schedule.step()
    assert (model(x_test).argmax(1) == y_test).float().mean().item() > 0.85


def test_the_result_holds_together(batches: list[tuple[Tensor, Tensor]]) -> None:
    found = lr_range_test(mlp(), momentum, cross_entropy, batches)
    assert found.low is not None
    assert found.high is not None
    assert found.suggestion is not None
    assert found.interval is not None
    assert found.low < found.suggestion < found.high
    assert found.interval[0] <= found.suggestion <= found.interval[1]
    assert len(found.lrs) == len(found.losses) == len(found.smoothed)
    assert found.lrs[0] == pytest.approx(1e-7)
    assert found.lrs[1] / found.lrs[0] == pytest.approx(10 ** (8 / 99))
    assert len(found.sweeps) == 3
    assert found.steps_used <= 300
    assert f"{found.suggestion:.3g}" in found.reason


def test_a_wide_linear_layer_under_sgd_stays_below_its_stability_limit() -> None:
    # For a quadratic loss with the curvature h, gradient descent diverges above 2 / h.
    torch.manual_seed(0)
    x = torch.randn(2048, 16)
    y = x @ torch.randn(16, 1) + 0.1 * torch.randn(2048, 1)
    curvature = 2 * torch.linalg.eigvalsh(x.T @ x / len(x))[-1].item()
    found = lr_range_test(
        nn.Linear(16, 1), sgd, nn.functional.mse_loss, list(zip(x.split(64), y.split(64), strict=True))
    )
    assert found.suggestion is not None
    assert found.divergence_lr is not None
    assert 0.02 / curvature < found.suggestion < 2 / curvature < found.divergence_lr


@pytest.mark.parametrize("mode", ["exponential", "linear"])
def test_both_modes_sweep_from_end_to_end(mode: Any, batches: list[tuple[Tensor, Tensor]]) -> None:
    found = lr_range_test(
        mlp(), sgd, cross_entropy, batches, lr_min=1e-4, lr_max=0.5, steps=21, mode=mode, repeats=1
    )
    rates = found.sweeps[0].lrs
    assert rates[0] == pytest.approx(1e-4)
    assert rates[-1] == pytest.approx(0.5)
    steps = np.diff(rates if mode == "linear" else np.log(rates))
    assert steps == pytest.approx([steps[0]] * 20)
    assert found.interval is None


def test_repeats_see_other_batches_from_the_same_weights(batches: list[tuple[Tensor, Tensor]]) -> None:
    found = lr_range_test(mlp(), sgd, cross_entropy, batches, lr_max=1e-5, steps=20)
    model = mlp()
    losses = {round(cross_entropy(model(x), y).item(), 4) for x, y in batches}
    # At rates of 1e-5 and less the weights stay what they were.
    for sweep in found.sweeps:
        assert {round(loss, 4) for loss in sweep.losses} <= {
            round(v + d, 4) for v in losses for d in (-1e-4, 0, 1e-4)
        }
    assert len({sweep.losses for sweep in found.sweeps}) == 3


def test_the_same_seed_gives_the_same_result(batches: list[tuple[Tensor, Tensor]]) -> None:
    first, again, other = (
        lr_range_test(mlp(), sgd, cross_entropy, batches, seed=seed, steps=30) for seed in (3, 3, 4)
    )
    assert first == again
    assert first.losses != other.losses


# Divergence and what cannot be told.


class Exploding(nn.Module):
    """Its output is `value` once its weight has moved by more than 0.1."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        moved = self.weight.abs().item() > 0.1
        return (x.sum() * 0 + 1 - self.weight) * (self.value if moved else 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_sweep(value: float) -> None:
    data = [(torch.zeros(2, 1), torch.zeros(2))]
    found = lr_range_test(Exploding(value), sgd, lambda output, y: output.abs().sum(), data, repeats=2)
    assert all(not math.isfinite(sweep.losses[-1]) for sweep in found.sweeps)
    assert all(map(math.isfinite, found.losses))
    assert found.divergence_lr == found.sweeps[0].lrs[-1] < 10
    assert found.steps_used < 200


def test_a_loss_that_is_never_finite_gives_no_suggestion() -> None:
    data = [(torch.ones(2, 1), torch.zeros(2))]
    found = lr_range_test(nn.Linear(1, 1), sgd, lambda output, y: output.sum() * math.nan, data)
    assert found.suggestion is found.low is found.high is found.interval is None
    assert found.lrs == found.losses == ()
    assert "nan before any update in 3 of 3 sweeps" in found.reason
    assert "rates" not in found.reason
    assert found.divergence_lr is None
    assert found.steps_used == 3


def _pairs(broken: int | None = None) -> list[tuple[Tensor, Tensor]]:
    """Make 3 batches of 8 samples, one of them with an infinity in its fifth."""
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(8, 4, generator=generator), torch.arange(8) % 2) for _ in range(3)]
    if broken is not None:
        data[broken][0][5, 0] = math.inf
    return data


def _resident(pairs: list[tuple[Tensor, Tensor]]) -> Batches:
    x, y = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return Batches(x, y, 8)


def test_one_bad_sample_is_named_by_its_index_and_no_rate_is_blamed() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    with pytest.raises(ValueError, match=r"training data: sample 13 .*1 of 24"):
        lr_range_test(model, sgd, cross_entropy, _resident(_pairs(broken=1)))
    with pytest.raises(ValueError, match=r"validation data: sample 21 "):
        lr_range_test(model, sgd, cross_entropy, _pairs(), validation=_resident(_pairs(broken=2)))
    with pytest.raises(ValueError, match=r"training data: sample 13 "):
        confirm(model, sgd, cross_entropy, _resident(_pairs(broken=1)), _pairs(), Candidates([0.1]), steps=4)
    # Other sources are looked at where the loss shows it: shuffled or not, the batch is named by its place.
    for pairs in (_pairs(broken=1), DataLoader(_pairs(broken=1), batch_size=None)):  # type: ignore[arg-type, var-annotated]
        with pytest.raises(ValueError, match=r"batches: batch 1: sample 5 "):
            lr_range_test(model, sgd, cross_entropy, pairs)
    with pytest.raises(ValueError, match=r"validation: batch 2: sample 5 "):
        lr_range_test(model, sgd, cross_entropy, _pairs(), validation=_pairs(broken=2))
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_weights_that_are_not_finite_are_named_and_no_rate_is_blamed() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight[0, 0] = math.nan  # type: ignore[operator]
    found = lr_range_test(model, sgd, cross_entropy, _pairs())
    assert found.suggestion is found.divergence_lr is None
    assert "1.weight is not finite" in found.reason


def test_rates_too_low_to_move_anything_give_no_suggestion(batches: list[tuple[Tensor, Tensor]]) -> None:
    found = lr_range_test(mlp(), sgd, cross_entropy, batches, lr_min=1e-9, lr_max=1e-6)
    assert found.suggestion is None
    assert "never falls by more than its noise" in found.reason


def test_labels_without_meaning_give_no_suggestion() -> None:
    torch.manual_seed(0)
    data = [(torch.randn(32, 20), torch.randint(0, 10, (32,))) for _ in range(300)]
    found = lr_range_test(
        nn.Linear(20, 10), sgd, lambda z, y: cross_entropy(z, y) + 0 * z.sum(), data, lr_max=0.01
    )
    assert found.suggestion is None


def test_a_curve_that_still_falls_at_the_end_is_warned_of(batches: list[tuple[Tensor, Tensor]]) -> None:
    found = lr_range_test(mlp(), adam, cross_entropy, batches, lr_max=5e-3)
    assert any("still falls at the highest rate, 0.005" in warning for warning in found.warnings)


def test_a_curve_that_falls_from_the_start_is_warned_of(batches: list[tuple[Tensor, Tensor]]) -> None:
    found = lr_range_test(mlp(), adam, cross_entropy, batches, lr_min=0.03)
    assert any("from the lowest rate" in warning for warning in found.warnings)


def test_repeats_that_cannot_differ_are_warned_of() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    found = lr_range_test(nn.Linear(4, 2), sgd, cross_entropy, [(x, (x[:, 0] > 0).long())])
    assert any("same batches in the same order" in warning for warning in found.warnings)


# Options.


def test_validation_losses_are_judged_where_they_are_given(batches: list[tuple[Tensor, Tensor]]) -> None:
    x, y = batches[0]
    found = lr_range_test(mlp(), momentum, cross_entropy, batches[1:], validation=[(x, y)], repeats=2)
    swept = found.sweeps[0]
    assert len(swept.lrs) - 1 <= len(swept.validation_losses) <= len(swept.lrs)
    assert swept.validation_losses[0] == pytest.approx(cross_entropy(mlp()(x), y).item(), abs=1e-4)
    assert found.suggestion is not None


def test_each_parameter_group_is_swept_alone(batches: list[tuple[Tensor, Tensor]]) -> None:
    def make(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        weights = [p for p in parameters if p.ndim > 1]
        biases = [p for p in parameters if p.ndim == 1]
        return torch.optim.SGD([{"params": weights}, {"params": biases, "lr": 2 * lr}], lr=lr, momentum=0.9)  # type: ignore[arg-type]

    found = lr_range_test(mlp(), make, cross_entropy, batches, per_group=True, repeats=2)
    weights, biases = found.groups
    assert weights.suggestion == pytest.approx(found.suggestion, rel=1.0)
    # Biases alone learn next to nothing, in comparison.
    assert min(biases.losses) > 2 * min(weights.losses)
    assert found.steps_used == sum(len(s.lrs) for f in (found, weights, biases) for s in f.sweeps)


def test_groups_keep_the_ratio_of_their_rates(batches: list[tuple[Tensor, Tensor]]) -> None:
    seen: list[list[float]] = []

    class Watched(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            seen.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    def make(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return Watched([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 3 * lr}], lr=lr)  # type: ignore[arg-type]

    found = lr_range_test(mlp(), make, cross_entropy, batches, repeats=1, lr_max=0.1, steps=20)
    assert [first for first, _ in seen] == pytest.approx(list(found.sweeps[0].lrs))
    assert [other / first for first, other in seen] == pytest.approx([3.0] * 20)


@pytest.mark.parametrize(
    ("make", "usual"),
    [
        (sgd, 1.0),
        (momentum, 0.1),
        (lambda parameters, lr: torch.optim.SGD(parameters, lr, momentum=0.99, nesterov=True), 0.01),
        (adam, None),
        (torch.optim.RMSprop, None),
    ],
    ids=["sgd", "momentum", "nesterov", "adam", "rmsprop"],
)
def test_the_usual_rate_of_sgd_is_a_tenth_with_a_momentum_of_nine_tenths(
    make: Any, usual: float | None, batches: list[tuple[Tensor, Tensor]]
) -> None:
    reason = lr_range_test(mlp(), make, cross_entropy, batches, repeats=1).reason
    drawn_to = [float(part) for part in re.findall(r"towards the usual ([0-9.]+)", reason)]
    assert drawn_to == ([] if usual is None else [pytest.approx(usual)])


def test_adams_bound_comes_from_the_untrained_weights(batches: list[tuple[Tensor, Tensor]]) -> None:
    # Weights of a thousandth: any sweep makes them much larger.
    model = mlp()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e-3)
    sizes = [
        parameter.square().mean().sqrt().item() for parameter in model.parameters() if parameter.ndim == 2
    ]
    found = lr_range_test(model, adam, cross_entropy, batches, repeats=1)
    assert found.suggestion == pytest.approx(0.4 * sum(sizes) / 2)


class PlainSGD(torch.optim.Optimizer):
    """A user's own: subtracts rate times gradient, and has no option but the rate."""

    def __init__(self, parameters: list[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(group["lr"] * parameter.grad)


def test_an_optimizer_is_known_by_its_steps_not_by_its_options(batches: list[tuple[Tensor, Tensor]]) -> None:
    own, plain = (lr_range_test(mlp(), make, cross_entropy, batches) for make in (PlainSGD, torch.optim.SGD))
    assert own.losses == pytest.approx(plain.losses)
    assert own.suggestion is not None
    # Nobody has said what is usual with it.
    assert own.suggestion == pytest.approx(plain.suggestion, rel=1.0)
    assert own.interval is not None
    assert own.interval[0] < own.suggestion < own.interval[1]
    assert "usual" in plain.reason
    assert "usual" not in own.reason


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (torch.optim.SGD, None),
        (momentum, None),
        (PlainSGD, None),
        (adam, 1.0),
        (torch.optim.AdamW, 1.0),
        (torch.optim.RMSprop, 1.0),
        (torch.optim.Adagrad, 1.0),
        # Adadelta steps sqrt(eps / (0.1 g^2)) g at first, and its eps is 1e-6.
        (torch.optim.Adadelta, math.sqrt(1e-5)),
    ],
    ids=["sgd", "momentum", "own", "adam", "adamw", "rmsprop", "adagrad", "adadelta"],
)
def test_steps_of_adaptive_optimizers_are_as_long_for_any_gradient(make: Any, size: float | None) -> None:
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    data = [(torch.zeros(2, 64), torch.zeros(2, dtype=torch.long))]
    endless = EndlessBatches(data, torch.device("cpu"), 0)
    sweeper = Sweeper(model, make, cross_entropy, endless, [0.1], settings=StepSettings(), validation=None)
    step = sweeper.normalised_step()
    assert step == (None if size is None else pytest.approx(size, rel=0.02))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_where_the_bound_decides_no_interval_is_pretended(batches: list[tuple[Tensor, Tensor]]) -> None:
    model = mlp()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e-3)
    found = lr_range_test(model, torch.optim.Adagrad, cross_entropy, batches)
    assert "a bound decides" in found.reason
    assert found.interval is None


def test_accumulated_batches_count_as_one_step(batches: list[tuple[Tensor, Tensor]]) -> None:
    found = lr_range_test(
        mlp(), sgd, cross_entropy, batches, accumulation_steps=len(batches), lr_max=1e-6, steps=10, repeats=1
    )
    model = mlp()
    mean = sum(cross_entropy(model(x), y).item() for x, y in batches) / len(batches)
    assert found.sweeps[0].losses == pytest.approx([mean] * 10, abs=1e-4)


@pytest.mark.parametrize(("width", "expected"), [(8, 1), (4096, 2)])
def test_small_steps_run_on_one_thread_and_the_number_is_put_back(width: int, expected: int) -> None:
    seen = []

    def loss_fn(logits: Tensor, y: Tensor) -> Tensor:
        seen.append(torch.get_num_threads())
        return cross_entropy(logits, y)

    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    data = [(torch.randn(128, 64), torch.randint(10, (128,)))]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        lr_range_test(model, sgd, loss_fn, data, steps=10, repeats=2)
        after = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert after == 2
    assert set(seen[1:10]) == {expected}


def test_a_regression_needs_no_classes() -> None:
    torch.manual_seed(0)
    x = torch.randn(640, 3)
    y = x.sum(1, keepdim=True)
    data = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
    assert lr_range_test(nn.Linear(3, 1), adam, nn.functional.mse_loss, data).suggestion is not None


# No trace.


class Noisy(nn.Module):
    """Normalises, drops out, counts its calls, and has a frozen layer and a buffer that it replaces."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(32, 10)
        self.head.bias.requires_grad_(False)
        self.register_buffer("seen", torch.zeros(()))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen = self.seen + 1  # type: ignore[has-type]
        return self.head(self.body(x))


class Stream:
    """Batches drawn from generators of its own, counting its passes."""

    def __init__(self, digits: tuple[Tensor, Tensor]) -> None:
        self.x, self.y = digits
        self.torch_generator = torch.Generator().manual_seed(1)
        self.numpy_generator = np.random.default_rng(1)
        self.python_generator = random.Random(1)
        self.passes = 0
        self.log: list[int] = []

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        self.log.append(self.passes)
        order = torch.randperm(len(self.x), generator=self.torch_generator)
        self.numpy_generator.random()
        self.python_generator.random()
        random.random()
        np.random.rand()
        for chosen in order[:640].split(64):
            yield self.x[chosen], self.y[chosen]


def state_of(model: Noisy, stream: Stream) -> list[Any]:
    return [
        {name: value.clone() for name, value in model.state_dict().items()},
        [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()],
        [module.training for module in model.modules()],
        model.calls,
        torch.get_rng_state(),
        np.random.get_state()[1].tolist(),  # type: ignore[index]
        random.getstate(),
        stream.passes,
        list(stream.log),
        stream.torch_generator.get_state(),
        stream.numpy_generator.bit_generator.state,
        stream.python_generator.getstate(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
    ]


@pytest.mark.parametrize("ending", ["returns", "loss raises", "optimizer raises", "diverges at once"])
def test_everything_is_put_back(ending: str, digits: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(2)
    model, stream = Noisy(), Stream(digits)
    model.body.eval()
    model.body[3].train()
    cross_entropy(model(digits[0][:8]), digits[1][:8]).backward()
    addresses = [(p.data_ptr(), id(p.grad)) for p in model.parameters()]
    before = state_of(model, stream)
    calls = 0

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if ending == "loss raises" and calls == 30:
            raise RuntimeError("on purpose")
        return cross_entropy(logits, y) * (math.nan if ending == "diverges at once" else 1)

    class Failing(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            if ending == "optimizer raises" and calls > 20:
                raise RuntimeError("on purpose")
            return super().step(closure)

    def run() -> LRRange:
        return lr_range_test(
            model,
            lambda p, lr: Failing(p, lr=lr),
            loss,
            stream,
            steps=40,
            validation=[(digits[0], digits[1])],
        )

    with torch.no_grad():
        if "raises" in ending:
            with pytest.raises(RuntimeError, match="on purpose"):
                run()
        else:
            run()
    assert calls > 0
    assert same(before, state_of(model, stream))
    assert addresses == [(p.data_ptr(), id(p.grad)) for p in model.parameters()]


def test_a_shuffling_loader_goes_on_as_if_nothing_had_been(digits: tuple[Tensor, Tensor]) -> None:
    def loader() -> DataLoader[Any]:
        data = TensorDataset(digits[0][:320], digits[1][:320])
        return DataLoader(data, batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(5))

    used, untouched = loader(), loader()
    lr_range_test(mlp(), sgd, cross_entropy, used, steps=25)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(used, untouched, strict=True))


def test_resident_batches_are_drawn_anew_in_each_pass(digits: tuple[Tensor, Tensor]) -> None:
    data = Batches(digits[0], digits[1], 64)
    found = lr_range_test(mlp(), sgd, cross_entropy, data, lr_max=1e-6, steps=20)
    assert len({loss for sweep in found.sweeps for loss in sweep.losses}) == 60


# Bad input.


def once() -> Iterator[tuple[Tensor, Tensor]]:
    yield torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)


PAIRS = [(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))]
LINEAR: dict[str, Any] = {
    "model": nn.Linear(3, 2),
    "make_optimizer": sgd,
    "loss_fn": cross_entropy,
    "batches": PAIRS,
}


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        ({"model": nn.ReLU()}, ValueError, "model: has no parameters"),
        ({"model": nn.LazyLinear(2)}, ValueError, "has no values yet"),
        ({"model": abs}, TypeError, "model: is a builtin"),
        (
            {"loss_fn": lambda z, y: cross_entropy(z, y, reduction="none")},
            ValueError,
            r"loss_fn: gave the shape \(2,\)",
        ),
        ({"loss_fn": lambda z, y: 1.0}, TypeError, "loss_fn: gave a float"),
        ({"loss_fn": lambda z, y: z.detach().sum()}, ValueError, "does not depend on the parameters"),
        ({"make_optimizer": lambda p, lr: None}, TypeError, "make_optimizer: gave a NoneType"),
        ({"batches": []}, ValueError, "batches: there is none"),
        ({"batches": once()}, TypeError, "can be iterated only once"),
        ({"batches": 3}, TypeError, "batches: int cannot be iterated"),
        ({"batches": [torch.zeros(2, 3)]}, ValueError, r"is not a pair \(x, y\)"),
        ({"lr_min": 1.0, "lr_max": 0.1}, ValueError, "lr_min: 1.0 must be below lr_max, 0.1"),
        ({"lr_min": 0.0}, ValueError, "must be finite and above 0"),
        ({"lr_max": math.nan}, ValueError, "must be finite and above 0"),
        ({"steps": 2}, ValueError, "steps: 2 are too few"),
        ({"repeats": 0}, ValueError, "repeats: 0 must be 1 or more"),
        ({"mode": "expotential"}, ValueError, "Did you mean 'exponential'"),
        ({"validation": []}, ValueError, "validation: there are no samples"),
        ({"seed": -1}, ValueError, "seed: -1 must be 0 or more"),
        ({"seed": 2**70}, ValueError, "seed: 1180591620717411303424 must be below"),
        ({"seed": 1.5}, TypeError, "seed: 1.5 is a float. Give a whole number"),
        ({"seed": None}, TypeError, "seed: None is a NoneType"),
        ({"steps": None}, TypeError, "steps: None is a NoneType. Give a whole number"),
        ({"steps": "a"}, TypeError, "steps: 'a' is a str"),
        ({"steps": 20.0}, TypeError, "steps: 20.0 is a float"),
        ({"repeats": 1.5}, TypeError, "repeats: 1.5 is a float"),
        ({"repeats": True}, TypeError, "repeats: True is a bool"),
        ({"lr_min": "1e-7"}, TypeError, "lr_min: '1e-7' is a str. Give a number"),
        ({"lr_max": None}, TypeError, "lr_max: None is a NoneType"),
        ({"accumulation_steps": 0}, ValueError, "accumulation_steps: 0 must be 1 or more"),
        ({"accumulation_steps": 1.5}, TypeError, "accumulation_steps: 1.5 is a float"),
        ({"grad_clip": -1.0}, ValueError, "grad_clip: -1.0 must be finite and above 0, or None"),
        ({"grad_clip": 0}, ValueError, "grad_clip: 0 must be finite and above 0"),
        ({"grad_clip": math.nan}, ValueError, "grad_clip: nan must be finite"),
        ({"grad_clip": "1"}, TypeError, "grad_clip: '1' is a str"),
        ({"loss_fn": None}, TypeError, "loss_fn: a NoneType cannot be called"),
        ({"make_optimizer": None}, TypeError, "make_optimizer: a NoneType cannot be called"),
        ({"make_optimizer": torch.optim.LBFGS}, ValueError, "LBFGS needs a closure for each step"),
        (
            {"make_optimizer": lambda p, lr: torch.optim.SGD(p, lr=0.1)},
            ValueError,
            "parameter group 0 is 0.1 for 1e-07 and 0.1 for 2e-07: it does not follow",
        ),
        (
            {"make_optimizer": lambda p, lr: sgd([{"params": p[:1]}, {"params": p[1:], "lr": 1}], lr)},  # type: ignore[list-item]
            ValueError,
            "parameter group 1 is 1 for",
        ),
        (
            {"make_optimizer": lambda p, lr: torch.optim.SGD(nn.Linear(3, 2).parameters(), lr)},
            ValueError,
            "holds none of the model's parameters",
        ),
        ({"validation": once()}, TypeError, "validation: generator can be iterated only once"),
        ({"validation": 3}, TypeError, "validation: int cannot be iterated"),
        ({"validation": [torch.zeros(2, 3)]}, ValueError, r"validation: a Tensor is not a pair \(x, y\)"),
    ],
)
def test_bad_input_is_one_clear_sentence(
    changes: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    arguments = copy.copy(LINEAR) | changes
    positional = [arguments.pop(name) for name in ("model", "make_optimizer", "loss_fn", "batches")]
    with pytest.raises(kind, match=sentence):
        lr_range_test(*positional, **arguments)


def test_batches_that_can_be_iterated_once_are_not_consumed() -> None:
    for name in ("batches", "validation"):
        source = iter([*PAIRS, *PAIRS])
        with pytest.raises(TypeError, match=f"{name}: "):
            lr_range_test(**(LINEAR | {name: source}))
        assert len(list(source)) == 2


def test_groups_with_a_rate_of_zero_are_held_still(batches: list[tuple[Tensor, Tensor]]) -> None:
    def make(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": parameters[:2], "lr": 0.0}, {"params": parameters[2:]}], lr=lr)  # type: ignore[arg-type]

    assert lr_range_test(mlp(), make, cross_entropy, batches).suggestion is not None


def test_a_rate_that_is_a_tensor_follows(batches: list[tuple[Tensor, Tensor]]) -> None:
    def make(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=torch.tensor(lr))

    assert lr_range_test(mlp(), make, cross_entropy, batches).suggestion is not None


def test_labels_may_be_missing_where_the_loss_needs_none(batches: list[tuple[Tensor, Tensor]]) -> None:
    bare: Any = [(x, None) for x, _ in batches]
    found = lr_range_test(
        nn.Linear(64, 4), sgd, lambda z, y: (z - 1).square().mean(), bare[1:], validation=bare[:1], repeats=1
    )
    assert found.suggestion is not None
    assert found.sweeps[0].validation_losses


class Lazy(Sequence[tuple[Tensor, Tensor]]):
    """Many batches, each loaded when it is asked for."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        self.batches = batches
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return 5000

    def __getitem__(self, index: Any) -> Any:
        self.loaded.append(index)
        return self.batches[index % len(self.batches)]


def test_a_sequence_is_loaded_batch_by_batch_as_steps_need_them(batches: list[tuple[Tensor, Tensor]]) -> None:
    lazy = Lazy(batches)
    loaded: list[int] = []

    def loss_fn(logits: Tensor, y: Tensor) -> Tensor:
        loaded.append(len(lazy.loaded))
        return cross_entropy(logits, y)

    # What the test does to its source is put back, so what was loaded is counted on the way.
    lr_range_test(mlp(), sgd, loss_fn, lazy, lr_max=1e-5, steps=20, repeats=2)
    # Later calls judge a blind guess, on labels that have been loaded.
    assert loaded[:40] == list(range(1, 41))
    assert set(loaded[40:]) == {40}


def test_frozen_parameters_alone_are_nothing_to_train() -> None:
    with pytest.raises(ValueError, match="no parameters to train"):
        lr_range_test(nn.Linear(3, 2).requires_grad_(False), sgd, cross_entropy, PAIRS)
