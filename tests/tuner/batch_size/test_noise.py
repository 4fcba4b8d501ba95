"""The gradient noise scale against the closed form of linear regression, and what it leaves behind."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fusetune.tuner.batch_size.noise import gradient_norms, noise_scale, norms_along_training
from fusetune.tuner.batch_size.noise_estimate import estimate_noise_scale
from fusetune.tuner.training import Plan, train
from fusetune.tuner.training.batches import Batches

DIMENSIONS = 6


def half_square(prediction: Tensor, y: Tensor) -> Tensor:
    return 0.5 * (prediction.squeeze(1) - y).square().mean()


def linear_model(offset: Tensor) -> nn.Linear:
    """A model whose weights are off the true ones, which are 0, by `offset`."""
    model = nn.Linear(len(offset), 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(offset[None])
    return model


def linear_truth(offset: Tensor, deviation: float) -> tuple[float, float]:
    """|G|^2 and tr(Sigma) of one sample's gradient x (x.d - e), x ~ N(0, I), e ~ N(0, deviation^2).

    G = d; E[x x' (x.d)^2] = |d|^2 I + 2 d d', so tr(Sigma) = n (|d|^2 + deviation^2) + 2 |d|^2 - |d|^2.
    """
    square = offset.square().sum().item()
    return square, len(offset) * (square + deviation**2) + square


class Fresh:
    """Fresh samples of the regression in every pass."""

    def __init__(self, deviation: float, seed: int, size: int = 256, dimensions: int = DIMENSIONS) -> None:
        self.deviation, self.size, self.dimensions = deviation, size, dimensions
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        x = torch.randn(self.size, self.dimensions, generator=self.generator)
        yield x, self.deviation * torch.randn(self.size, generator=self.generator)


def test_it_finds_the_noise_scale_of_a_linear_regression() -> None:
    offset = torch.full((DIMENSIONS,), 0.5)
    square, trace = linear_truth(offset, 2.0)

    found = noise_scale(linear_model(offset), half_square, Fresh(2.0, 0), small=8, big=256, repeats=60)

    assert found.gradient_norm_squared == pytest.approx(square, abs=3 * found.gradient_norm_squared_error)
    assert found.noise_trace == pytest.approx(trace, abs=3 * found.noise_trace_error)
    assert found.noise_trace_error < 0.1 * trace
    assert found.value == pytest.approx(trace / square, rel=0.2)
    assert found.low < found.value < found.high


def test_both_parts_are_unbiased_and_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    offset = torch.full((DIMENSIONS,), 0.4)
    square, trace = linear_truth(offset, 1.5)
    model = linear_model(offset)

    found = [
        noise_scale(model, half_square, Fresh(1.5, seed, size=64), small=16, big=64, repeats=8)
        for seed in range(200)
    ]

    for estimates, truth in (
        ([one.gradient_norm_squared for one in found], square),
        ([one.noise_trace for one in found], trace),
    ):
        error = np.std(estimates, ddof=1) / math.sqrt(len(estimates))
        assert error < 0.05 * truth
        assert np.mean(estimates) == pytest.approx(truth, abs=3 * error)
    covered = sum(one.low <= trace / square <= one.high for one in found) / len(found)
    assert 0.85 <= covered <= 0.95


@pytest.mark.parametrize("noise_to_big", [0.2, 1.0, 3.0])
def test_intervals_cover_the_truth_from_little_noise_to_much(noise_to_big: float) -> None:
    """Gaussian gradients in 50 dimensions, big batch 64: |g_B|^2 and the spread around it are drawn directly."""
    generator = np.random.default_rng(1)
    big, small, runs, repeats = 64, 8, 1000, 10
    dimensions, parts = 50, big // small
    trace = noise_to_big * big
    mean = np.zeros(dimensions)
    mean[0] = 1.0
    covered = 0
    for _ in range(runs):
        deviation = math.sqrt(trace / dimensions / small)
        gradients = mean + deviation * generator.standard_normal((repeats, parts, dimensions))
        small_squares = (gradients**2).sum(2).mean(1)
        big_squares = (gradients.mean(1) ** 2).sum(1)
        found = estimate_noise_scale(list(small_squares), list(big_squares), small=small, big=big)
        covered += found.low <= trace <= found.high
    assert 0.87 <= covered / runs <= 0.93


def test_a_gradient_of_zero_gives_no_value_but_a_lower_end() -> None:
    found = noise_scale(
        linear_model(torch.zeros(DIMENSIONS)), half_square, Fresh(1.0, 3), small=16, big=256, repeats=8
    )

    assert found.value is None
    assert math.isinf(found.high)
    assert found.low > 0
    assert "cannot be told from 0" in found.reason
    assert "more repeats or a bigger batch" in found.reason


def test_equal_samples_have_no_noise() -> None:
    x, y = torch.ones(64, 3), torch.full((64,), 2.0)
    found = noise_scale(
        linear_model(torch.zeros(3)),
        half_square,
        [(x + shift, y) for shift in (0.0, 0.01, 0.02, 0.03)],
        small=4,
        big=64,
        repeats=4,
    )
    assert found.value == pytest.approx(0, abs=1e-9)


def test_a_gradient_that_is_not_finite_gives_no_value() -> None:
    found = estimate_noise_scale([1.0, math.nan, 1.0, 1.0], [0.5] * 4, small=1, big=2)
    assert found.value is None
    assert "not finite" in found.reason


def test_the_size_of_the_set_is_allowed_for_when_batches_are_drawn_without_replacement() -> None:
    generator = torch.Generator().manual_seed(5)
    count = 512
    x = torch.randn(count, DIMENSIONS, generator=generator)
    y = (2.0 * torch.randn(count, generator=generator)).round().long()
    model = linear_model(torch.full((DIMENSIONS,), 0.3))
    error = (x @ model.weight[0].detach()) - y
    gradients = (x * error[:, None]).double()
    square = gradients.mean(0).square().sum().item()
    trace = (gradients - gradients.mean(0)).square().sum().item() / (count - 1)

    def measured(samples: int | None) -> tuple[float, float]:
        found = [
            noise_scale(
                model,
                half_square,
                Batches(x, y, 256, seed=seed),
                small=16,
                big=256,
                repeats=10,
                samples=samples,
            )
            for seed in range(20)
        ]
        squares = [one.gradient_norm_squared for one in found]
        assert np.mean([one.noise_trace for one in found]) == pytest.approx(trace, rel=0.03)
        return float(np.mean(squares)), 3 * float(np.std(squares)) / math.sqrt(len(squares))

    mean, error_bar = measured(count)
    assert mean == pytest.approx(square, abs=error_bar)
    naive, error_bar = measured(None)
    assert naive < square - error_bar


def test_the_big_batch_is_the_mean_of_its_small_ones() -> None:
    x, y = torch.randn(32, 4, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()

    norms = gradient_norms(
        model,
        nn.functional.cross_entropy,
        DataLoader(TensorDataset(x.double(), y), batch_size=32, shuffle=True),
        small=8,
        big=32,
        repeats=4,
    )

    nn.functional.cross_entropy(model(x.double()), y).backward()
    expected = sum(parameter.grad.square().sum().item() for parameter in model.parameters())
    assert norms.big_squares == pytest.approx([expected] * 4, rel=1e-9)
    assert all(one > expected for one in norms.small_squares)


def stateful_model() -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    model[3].bias.requires_grad_(False)
    return model


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_as_before(fails: bool) -> None:
    model = stateful_model()
    x, y = torch.randn(256, 4), torch.arange(256) % 3
    nn.functional.cross_entropy(model(x), y).backward()
    model.eval()
    model[0].train()
    modes = [module.training for module in model.modules()]
    gradients = [
        (parameter.grad, None if parameter.grad is None else parameter.grad.clone())
        for parameter in model.parameters()
    ]
    state = state_of(model)
    loader = DataLoader(
        TensorDataset(x, y), batch_size=64, shuffle=True, generator=torch.Generator().manual_seed(4)
    )
    calls = []

    def loss_fn(logits: Tensor, labels: Tensor) -> Tensor:
        calls.append(1)
        random.random()
        np.random.random()
        if fails and len(calls) == 9:
            raise RuntimeError("a loss of somebody's own")
        return nn.functional.cross_entropy(logits, labels)

    before = (
        torch.get_rng_state(),
        loader.generator.get_state(),
        random.getstate(),
        np.random.get_state()[1],  # type: ignore[index]
    )
    if fails:
        with pytest.raises(RuntimeError, match="somebody's own"):
            noise_scale(model, loss_fn, loader, small=8, big=64, repeats=4)
    else:
        noise_scale(model, loss_fn, loader, small=8, big=64, repeats=4)

    assert torch.equal(before[0], torch.get_rng_state())
    assert torch.equal(before[1], loader.generator.get_state())
    assert before[2] == random.getstate()
    assert np.array_equal(before[3], np.random.get_state()[1])  # type: ignore[index]
    assert modes == [module.training for module in model.modules()]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    for parameter, (gradient, values) in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is gradient
        assert gradient is None or torch.equal(gradient, values)


def test_it_works_where_gradients_are_off_and_parameters_play_no_part() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    data = Batches(torch.randn(128, 4), torch.arange(128) % 3, 64)
    with torch.no_grad():
        found = noise_scale(Half(), nn.functional.cross_entropy, data, small=8, big=64, repeats=4)
    assert found.noise_trace > 0


DATA = Batches(torch.randn(100, 4), torch.arange(100) % 3, 50)
LIST = [(torch.randn(64, 4), torch.arange(64) % 3)]
BAD_INPUT: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "big not above small": ({"small": 16, "big": 16}, ValueError, "big: 16 must be above small, 16"),
    "big no multiple": ({"small": 16, "big": 40}, ValueError, "a multiple of small, 16"),
    "small of 0": ({"small": 0}, ValueError, "small: 0 must be 1 or more"),
    "one repeat": ({"repeats": 1}, ValueError, "repeats: 1 are too few"),
    "confidence of 1": ({"confidence": 1.0}, ValueError, "confidence: 1.0 must be between 0 and 1"),
    "set smaller than big": ({"samples": 10}, ValueError, "samples: 10 must be at least big"),
    "pass too short": ({"small": 50, "big": 150}, ValueError, "a pass has 2 small batches of 50"),
    "no batches": ({"batches": []}, ValueError, "a pass has 0 small batches"),
    "always the same": ({"batches": LIST}, ValueError, "come in the same order in every pass"),
    "no pair": ({"batches": [torch.ones(3, 4)]}, ValueError, "a Tensor is not a pair"),
    "an iterator": ({"batches": iter(LIST)}, TypeError, "iterated only once"),
    "no parameters": ({"model": nn.ReLU()}, ValueError, "model: has no parameters to train"),
    "all frozen": ({"model": nn.Linear(4, 3).requires_grad_(False)}, ValueError, "no parameters to train"),
    "loss of each sample": (
        {"loss_fn": nn.CrossEntropyLoss(reduction="none")},
        ValueError,
        r"loss_fn: gave \(5,\), not a scalar",
    ),
    "loss without gradient": (
        {"loss_fn": lambda logits, y: logits.detach().mean()},
        ValueError,
        "does not depend on the parameters",
    ),
    "fp16": ({"precision": "fp16"}, ValueError, "fp16"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_refused_in_a_sentence(case: str) -> None:
    changes, error, message = BAD_INPUT[case]
    arguments: dict[str, Any] = {
        "model": nn.Linear(4, 3),
        "loss_fn": nn.functional.cross_entropy,
        "batches": DATA,
        "small": 5,
        "big": 50,
        "repeats": 4,
        **changes,
    }
    model, loss_fn, batches = (arguments.pop(name) for name in ("model", "loss_fn", "batches"))
    with pytest.raises(error, match=message):
        noise_scale(model, loss_fn, batches, **arguments)


def test_pairs_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="as many of each"):
        estimate_noise_scale([1.0] * 5, [1.0] * 4, small=1, big=2)


def momentum(lr: float) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def test_measuring_along_training_changes_nothing_of_the_training() -> None:
    x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    data = Batches(x, (x[:, 0] > 0).long(), 32, seed=2)
    plan = Plan(epochs=3, schedule=lambda step: 1 / (1 + step), grad_clip=1.0)
    models = []
    for measured in (True, False):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 2))
        torch.manual_seed(4)
        if measured:
            points = norms_along_training(
                model, momentum(0.1), data, plan=plan, epochs=[0, 1, 3], small=8, big=32, repeats=4
            )
        else:
            train(model, momentum(0.1), data, plan=plan, validation=data)
        models.append(model.state_dict())

    assert [(point.epoch, point.steps) for point in points] == [(0, 0), (1, 8), (3, 24)]
    for name, tensor in models[0].items():
        assert torch.equal(tensor, models[1][name]), name


def test_the_noise_scale_grows_as_a_model_learns() -> None:
    x = torch.randn(2048, 8, generator=torch.Generator().manual_seed(0))
    y = ((x[:, 0] + 0.5 * torch.randn(2048, generator=torch.Generator().manual_seed(1))) > 0).long()
    torch.manual_seed(0)
    points = norms_along_training(
        nn.Linear(8, 2),
        momentum(0.02),
        Batches(x, y, 64),
        plan=Plan(epochs=1),
        epochs=[0, 1],
        small=32,
        big=1024,
    )
    first, last = (
        estimate_noise_scale(
            point.norms.small_squares, point.norms.big_squares, small=32, big=1024, samples=2048
        )
        for point in points
    )
    assert first.high < last.low


@pytest.mark.parametrize("epochs", [[], [1, 0], [0, 0], [-1]])
def test_points_must_come_in_order(epochs: list[int]) -> None:
    with pytest.raises(ValueError, match=r"epochs: .* must be 0 or more and increase"):
        norms_along_training(
            nn.Linear(4, 3), momentum(0.1), DATA, plan=Plan(epochs=1), epochs=epochs, small=5, big=50
        )


@pytest.mark.parametrize("rows", [2, 4])
def test_shuffled_data_of_a_few_distinct_rows_are_not_refused(rows: int) -> None:
    torch.manual_seed(0)
    x, y = torch.eye(rows), torch.arange(rows) % 2
    model = nn.Linear(rows, 2)
    for seed in range(20):
        loader = DataLoader(
            TensorDataset(x, y), batch_size=1, shuffle=True, generator=torch.Generator().manual_seed(seed)
        )
        for source in (loader, Batches(x, y, 1, seed=seed)):
            found = noise_scale(model, nn.functional.cross_entropy, source, small=1, big=2, repeats=4 * rows)
            assert found.repeats == 4 * rows


@pytest.mark.parametrize("rows", [4, 8, 200])
def test_a_fixed_order_is_refused_however_few_the_rows(rows: int) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(rows, 3), torch.arange(rows) % 2
    loader = DataLoader(TensorDataset(x, y), batch_size=1)
    with pytest.raises(ValueError, match="same order in every pass"):
        noise_scale(nn.Linear(3, 2), nn.functional.cross_entropy, loader, small=1, big=2, repeats=4 * rows)
