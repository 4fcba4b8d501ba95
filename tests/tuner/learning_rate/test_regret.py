"""Suggested learning rates trained for real, against the best of a grid of rates.

Regret is what a suggestion loses: points of test accuracy below the best of thirteen rates, half a decade apart. That
one is found with three seeds and trained again with the ten seeds of the suggestions, so that luck favours neither.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from fusetune.bench.workloads.generated import generate
from fusetune.bench.workloads.models import build_model
from fusetune.tuner.learning_rate.confirmation import candidates_around, confirm
from fusetune.tuner.learning_rate.curve import smoothed
from fusetune.tuner.learning_rate.range import LRRange, lr_range_test

SEEDS = range(10)
GRID_SEEDS = range(20, 23)
GRID = [float(lr) for lr in np.geomspace(1e-5, 10, 13)]
CONFIRM_STEPS = 100
N_TRAIN, N_VALIDATION, N_LARGE = 1100, 197, 3072

cross_entropy = nn.functional.cross_entropy

Samples = tuple[Tensor, Tensor]


@cache
def digits() -> tuple[Samples, Samples, Samples]:
    """Return training, validation and test data, flat, 8x8."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    images, labels = torch.tensor(x[order] / 16, dtype=torch.float32), torch.tensor(y[order])
    ends = (N_TRAIN, N_VALIDATION, len(labels) - N_TRAIN - N_VALIDATION)
    train, validation, test = zip(images.split(ends), labels.split(ends), strict=True)
    return train, validation, test


@cache
def large_digits() -> tuple[Samples, Samples, Samples]:
    """Return the same strokes as 28x28 images: enlarged to 20x20 and laid down at a random place, more than once."""
    random = torch.Generator().manual_seed(0)

    def placed(samples: Samples, copies: int) -> Samples:
        small, labels = samples[0].reshape(-1, 1, 8, 8), samples[1]
        large = nn.functional.interpolate(small, size=(20, 20), mode="bicubic", align_corners=False).clamp(
            0, 1
        )
        images = torch.zeros(copies * len(large), 1, 28, 28)
        for index, (row, column) in enumerate(
            torch.randint(2, 7, (len(images), 2), generator=random).tolist()
        ):
            images[index, :, row : row + 20, column : column + 20] = large[index % len(large)]
        return images, labels.repeat(copies)

    train, validation, test = digits()
    x, y = placed(train, 3)
    return (x[:N_LARGE], y[:N_LARGE]), placed(validation, 1), placed(test, 4)


@cache
def spirals() -> tuple[Samples, Samples, Samples]:
    """Return three spirals in the plane, normalised."""
    x, y, x_test, y_test = map(torch.from_numpy, generate("spirals", n_train=2000))
    mean, deviation = x.mean(0), x.std(0)
    x, x_test = (x - mean) / deviation, (x_test - mean) / deviation
    return (x, y), (x_test[:200], y_test[:200]), (x_test[200:], y_test[200:])


@dataclass(frozen=True)
class Workload:
    """A model, an optimizer and how they are trained."""

    name: str
    make_model: Callable[[], nn.Module]
    make_optimizer: Callable[[list[nn.Parameter], float], torch.optim.Optimizer]
    batch_size: int = 32
    epochs: int = 5
    data: Callable[[], tuple[Samples, Samples, Samples]] = digits


@dataclass(frozen=True)
class End:
    """Where a training at one rate ended, on the test set."""

    lr: float
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Outcome:
    """Trainings of one workload, one a seed each: at the grid's best rate, and at what each rule suggests."""

    name: str
    found: list[LRRange]
    best: list[End]
    by_rule: dict[str, list[End]]

    def regret(self, rule: str) -> float:
        """Mean accuracy points below the grid's best rate."""
        return 100 * statistics.mean(
            best.accuracy - end.accuracy for best, end in zip(self.best, self.by_rule[rule], strict=True)
        )

    def lost(self, rule: str) -> list[End]:
        """Trainings that diverged or got stuck: half the grid's accuracy or less, or a loss of an untrained model."""
        least = statistics.mean(end.accuracy for end in self.best) / 2
        return [end for end in self.by_rule[rule] if not end.loss <= 2.5 or end.accuracy < least]


def mlp(activation: type[nn.Module], *, normalised: bool = False) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        norm = [nn.BatchNorm1d(64)] if normalised else []
        return nn.Sequential(nn.Linear(64, 64), *norm, activation(), nn.Linear(64, 10))

    return make


def deep_mlp() -> nn.Module:
    layers = [
        layer for width in (64, 64) for layer in (nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU())
    ]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def large_cnn() -> nn.Module:
    """102,130 parameters for 28x28 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 120),
        nn.ReLU(),
        nn.Linear(120, 10),
    )


def momentum(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def adam(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=lr)


PROMISED = [
    Workload("MLP relu, momentum", mlp(nn.ReLU), momentum),
    Workload("MLP relu, Adam", mlp(nn.ReLU), adam),
    Workload("MLP sigmoid, momentum", mlp(nn.Sigmoid), momentum),
    Workload("CNN relu, momentum", cnn, momentum, epochs=3),
]
OTHERS = [
    Workload("CNN relu, Adam", cnn, adam, epochs=3),
    Workload("MLP tanh, momentum", mlp(nn.Tanh), momentum),
    Workload("MLP sigmoid, Adam", mlp(nn.Sigmoid), adam),
    Workload("BatchNorm MLP, momentum, batch 128", deep_mlp, momentum, batch_size=128),
]
LARGE = [
    Workload("28x28 CNN relu, momentum", large_cnn, momentum, batch_size=64, epochs=3, data=large_digits),
    Workload("28x28 CNN relu, Adam", large_cnn, adam, batch_size=64, epochs=3, data=large_digits),
]


# Their untrained models guess worse than blindly, so that the loss falls in two stages.
TWO_STAGES = [
    Workload(
        "spirals MLP, momentum, batch 64",
        partial(build_model, "mlp", input_shape=(2,), num_classes=3, width=64, depth=2),
        momentum,
        batch_size=64,
        epochs=12,
        data=spirals,
    ),
    Workload(
        "tiny CNN, momentum, batch 16",
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            build_model("cnn", input_shape=(1, 8, 8), num_classes=10, width=8, depth=2),
        ),
        momentum,
        batch_size=16,
        epochs=12,
    ),
]


def train(workload: Workload, lr: float, seed: int) -> End:
    """Train at a constant rate and evaluate."""
    (x, y), _, (x_test, y_test) = workload.data()
    model = seeded_model(workload, seed)
    optimizer = workload.make_optimizer(list(model.parameters()), lr)
    for _ in range(workload.epochs):
        for batch in torch.randperm(len(x)).split(workload.batch_size):
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        logits = model(x_test)
        loss = cross_entropy(logits, y_test).item()
        return End(lr, loss, (logits.argmax(1) == y_test).double().mean().item())


def seeded_model(workload: Workload, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return workload.make_model()


def batches(workload: Workload) -> list[tuple[Tensor, Tensor]]:
    (x, y), _, _ = workload.data()
    pairs = zip(x.split(workload.batch_size), y.split(workload.batch_size), strict=True)
    return [(xs, ys) for xs, ys in pairs if len(ys) == workload.batch_size]


def fastai_minimum(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """A tenth of the rate with the lowest loss, smoothed as fastai smooths: our imitation."""
    curve = smoothed(losses, smoothing=0.98)[len(losses) // 10 :]
    return lrs[len(losses) // 10 + int(np.argmin(curve))] / 10


def fastai_valley(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """The middle of the last two thirds of the longest falling subsequence: our imitation of fastai's default."""
    curve = smoothed(losses, smoothing=0.98)[len(losses) // 10 :]
    length, before = [1] * len(curve), [-1] * len(curve)
    for i in range(len(curve)):
        for j in range(i):
            if curve[j] > curve[i] and length[j] + 1 > length[i]:
                length[i], before[i] = length[j] + 1, j
    last = int(np.argmax(length))
    first = last - length[last]
    sections = (last - first) / 3
    return lrs[len(losses) // 10 + first + int(sections) + int(sections / 2)]


def judge(workload: Workload) -> Outcome:
    """Suggest, train and compare."""
    _, validation, _ = workload.data()
    by_lr = {lr: [train(workload, lr, seed).accuracy for seed in GRID_SEEDS] for lr in GRID}
    best_lr = max(GRID, key=lambda lr: statistics.mean(by_lr[lr]))
    data = batches(workload)
    found, by_rule = [], {name: [] for name in ("suggestion", "confirmed", "minimum / 10", "valley")}  # type: ignore[var-annotated]
    for seed in SEEDS:
        model = seeded_model(workload, seed)
        range_test = lr_range_test(model, workload.make_optimizer, cross_entropy, data, seed=seed)
        found.append(range_test)
        assert range_test.suggestion is not None, f"{workload.name}: {range_test.reason}"
        confirmed = confirm(
            model,
            workload.make_optimizer,
            cross_entropy,
            data,
            [validation],
            candidates_around(range_test),
            steps=CONFIRM_STEPS,
            seed=seed,
        )
        assert confirmed.lr is not None
        sweep = range_test.sweeps[0]
        finite = [loss for loss in sweep.losses if math.isfinite(loss)]
        rates = {
            "suggestion": range_test.suggestion,
            "confirmed": confirmed.lr,
            "minimum / 10": fastai_minimum(sweep.lrs, finite),
            "valley": fastai_valley(sweep.lrs, finite),
        }
        for rule, lr in rates.items():
            by_rule[rule].append(train(workload, lr, seed))
    return Outcome(workload.name, found, [train(workload, best_lr, seed) for seed in SEEDS], by_rule)


def judge_all(workloads: Sequence[Workload], capsys: pytest.CaptureFixture[str]) -> list[Outcome]:
    """Judge and print, whatever a test makes of it."""
    outcomes = [judge(workload) for workload in workloads]
    with capsys.disabled():
        print("\nregret in accuracy points; minimum / 10 and valley: our imitations of fastai's")
        print(table(outcomes))
    return outcomes


def table(outcomes: Sequence[Outcome]) -> str:
    """Regret in accuracy points of each rule and workload, the rates, and the steps a test took."""
    rules = list(outcomes[0].by_rule)
    widest = max(len(outcome.name) for outcome in outcomes)
    heads = ["best lr", "accuracy", "suggested", "steps", *rules]
    lines = [" " * widest + "".join(f"{head:>14}" for head in heads)]
    for outcome in outcomes:
        cells = [
            f"{outcome.best[0].lr:.3g}",
            f"{100 * statistics.mean(end.accuracy for end in outcome.best):.1f} %",
            f"{statistics.median(end.lr for end in outcome.by_rule['suggestion']):.3g}",
            f"{statistics.mean(found.steps_used for found in outcome.found):.0f}",
            *(f"{outcome.regret(rule):.2f}" for rule in rules),
        ]
        lines.append(f"{outcome.name:<{widest}}" + "".join(f"{cell:>14}" for cell in cells))
    means = [statistics.mean(outcome.regret(rule) for outcome in outcomes) for rule in rules]
    lines.append(f"{'mean':<{widest}}" + " " * 56 + "".join(f"{mean:14.2f}" for mean in means))
    return "\n".join(lines)


def assert_good(outcomes: Sequence[Outcome]) -> None:
    """Hold suggestions to what is promised of them."""
    for outcome in outcomes:
        assert outcome.lost("suggestion") == []
        for found in outcome.found:
            assert max(len(sweep.lrs) for sweep in found.sweeps) <= 100
            assert found.steps_used <= 300
    assert statistics.mean(outcome.regret("suggestion") for outcome in outcomes) <= 0.4


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> object:
    """Small models train no faster with more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
def test_a_suggestion_trains_as_well_as_the_best_rate_of_a_grid(capsys: pytest.CaptureFixture[str]) -> None:
    assert_good(judge_all(PROMISED, capsys))


@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
def test_a_suggestion_trains_a_cnn_on_large_images_as_well_as_the_best_rate_of_a_grid(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert_good(judge_all(LARGE, capsys))


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
def test_suggestions_hold_on_further_workloads_confirmed_or_not(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = judge_all(OTHERS, capsys)
    for rule in ("suggestion", "confirmed"):
        assert [outcome.lost(rule) for outcome in outcomes] == [[]] * len(outcomes)
        assert statistics.mean(outcome.regret(rule) for outcome in outcomes) <= 0.5


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_suggestions_hold_where_the_loss_falls_in_two_stages(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = judge_all(TWO_STAGES, capsys)
    for rule in ("suggestion", "confirmed"):
        assert [outcome.lost(rule) for outcome in outcomes] == [[]] * len(outcomes)
        assert statistics.mean(outcome.regret(rule) for outcome in outcomes) <= 2.0
