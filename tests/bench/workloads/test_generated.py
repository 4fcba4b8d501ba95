"""Generated data: the same bytes for the same seed, prefixes, balance, and hard in the way that is claimed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from fusetune.bench.catalog import GENERATED
from fusetune.bench.errors import InputError
from fusetune.bench.workloads.generated import GENERATORS, Words, generate


def digest(*arrays: np.ndarray) -> str:
    """A short fingerprint of the arrays' bytes."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]


def flat(x: np.ndarray) -> np.ndarray:
    """Samples as standardised rows."""
    rows = x.reshape(len(x), -1).astype(np.float32)
    return (rows - rows.mean()) / rows.std()


def train_cnn(x: np.ndarray, y: np.ndarray, *, epochs: int, width: int = 12) -> nn.Module:
    """Train three convolutions by SGD with momentum and a falling learning rate."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = x.shape[1]
    for i in range(3):
        layers += [nn.Conv2d(channels, width << i, 3, padding=1, bias=False), nn.BatchNorm2d(width << i)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        channels = width << i
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
    images, labels = torch.from_numpy(scaled(x)), torch.from_numpy(y)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    steps = epochs * (len(x) // 50)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(50):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def scaled(x: np.ndarray) -> np.ndarray:
    """Pixels around 0."""
    return (x.astype(np.float32) - 110) / 60


def accuracy(model: nn.Module, x: np.ndarray, y: np.ndarray) -> float:
    """Share of samples whose class the model says."""
    with torch.no_grad():
        said = torch.cat([model(part) for part in torch.from_numpy(scaled(x)).split(250)]).argmax(dim=1)
    return float((said.numpy() == y).mean())


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("cifar10-like", (3, 32, 32), np.uint8),
        ("mnist-like", (1, 28, 28), np.uint8),
        ("spirals", (2,), np.float32),
    ],
)
def test_shape_and_type(name: str, shape: tuple[int, ...], dtype: type) -> None:
    x_train, y_train, x_test, y_test = generate(name, n_train=250, n_test=130)
    assert x_train.shape == (250, *shape)
    assert x_test.shape == (130, *shape)
    assert x_train.dtype == x_test.dtype == dtype
    assert y_train.shape == (250,)
    assert y_train.dtype == y_test.dtype == np.int64
    assert set(y_train) == set(range(GENERATORS[name].num_classes))


def test_every_generated_name_of_the_catalog_has_a_generator() -> None:
    assert set(GENERATORS) == set(GENERATED)


@pytest.mark.parametrize("name", GENERATED)
def test_sizes_are_whole_blocks_of_whole_rounds_of_classes(name: str) -> None:
    generator = GENERATORS[name]
    assert generator.block_samples % generator.num_classes == 0
    assert generator.n_train % generator.block_samples == generator.n_test % generator.block_samples == 0


@pytest.mark.parametrize("name", GENERATED)
def test_each_block_holds_each_class_equally_often_in_another_order(name: str) -> None:
    generator = GENERATORS[name]
    y_train = generate(name, n_train=3 * generator.block_samples, n_test=1)[1].reshape(3, -1)
    for block in y_train:
        assert len(set(np.bincount(block))) == 1
    assert not np.array_equal(y_train[0], y_train[1])


@pytest.mark.parametrize("name", GENERATED)
def test_fewer_samples_are_a_prefix_of_more(name: str) -> None:
    many, few = generate(name, n_train=330, n_test=250), generate(name, n_train=170, n_test=40)
    for more, fewer in zip(many, few, strict=True):
        np.testing.assert_array_equal(more[: len(fewer)], fewer)


@pytest.mark.parametrize("name", GENERATED)
def test_another_seed_and_another_split_are_other_samples(name: str) -> None:
    first, other = (
        generate(name, seed=0, n_train=100, n_test=100),
        generate(name, seed=1, n_train=100, n_test=100),
    )
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[0], first[2])


# A change of these bytes changes what published results mean: it must be meant.
@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [
        ("cifar10-like", "4ef15a7d2561a8c1"),
        ("mnist-like", "edb4043071f7cd23"),
        ("spirals", "6b343ff101fbe572"),
    ],
)
def test_the_bytes_stay_the_same(name: str, fingerprint: str) -> None:
    assert digest(*generate(name, seed=3, n_train=200, n_test=100)) == fingerprint


def test_words_are_those_that_numpy_promises() -> None:
    # The first words of PCG64 seeded with 0 by SeedSequence, as default_rng(0).random() shows them.
    assert np.random.default_rng(np.random.SeedSequence([0, 0, 0])).random() == Words(0, 0, 0).uniform(1)[0]


def test_grain_has_the_mean_and_variance_of_a_triangle() -> None:
    grain = Words(0, 0, 0).grain(200_000).astype(np.float64)
    assert abs(grain.mean()) < 4 * np.sqrt(1 / 6 / 200_000)
    assert grain.var() == pytest.approx(1 / 6, rel=0.02)
    assert -1 <= grain.min() < -0.98
    assert 0.98 < grain.max() <= 1


def test_textures_keep_their_class_when_mirrored() -> None:
    # Mirroring is used to augment; a class and its mirror image must have one mean spectrum.
    x, y, _, _ = generate("cifar10-like", n_train=6000, n_test=1)
    grey = x.astype(np.float64).mean(axis=1)
    spectrum = np.abs(np.fft.fft2(grey - grey.mean(axis=(1, 2), keepdims=True))) ** 2
    mirrored = np.roll(spectrum[:, :, ::-1], 1, axis=2)
    for label in (2, 4, 6):  # slanted stripes; upright and level ones are mirror images of themselves
        here, there = spectrum[y == label].mean(axis=0), mirrored[y == label].mean(axis=0)
        elsewhere = spectrum[y == (label + 4) % 10].mean(axis=0)
        assert np.abs(here - there).sum() < 0.5 * np.abs(here - elsewhere).sum()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "cifar10-lik"}, "Did you mean 'cifar10-like'"),
        ({"name": "spirals", "n_train": 0}, "Give 1 to 3600"),
        ({"name": "spirals", "n_test": 1201}, "Give 1 to 1200"),
        ({"name": "spirals", "seed": -1}, "0 or more"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        generate(**arguments)


@pytest.mark.slow
def test_a_linear_model_is_far_below_a_cnn_on_textures() -> None:
    x_train, y_train, x_test, y_test = generate("cifar10-like", n_train=3000, n_test=1000)
    scores = []
    for strength in (1e-4, 1e-3):
        linear = LogisticRegression(C=strength, max_iter=60, tol=1e-2).fit(flat(x_train), y_train)
        scores.append(linear.score(flat(x_test), y_test))
    cnn = accuracy(train_cnn(x_train, y_train, epochs=6), x_test, y_test)
    assert 0.15 < max(scores) < 0.40
    assert cnn > max(scores) + 0.15
    assert cnn < 0.95  # 6 % of the labels are drawn at random


@pytest.mark.slow
def test_a_cnn_overfits_few_textures() -> None:
    x_train, y_train, x_test, y_test = generate("cifar10-like", n_train=500, n_test=1000)
    model = train_cnn(x_train, y_train, epochs=30)
    assert accuracy(model, x_train, y_train) > accuracy(model, x_test, y_test) + 0.2


def test_a_linear_model_is_below_a_cnn_on_strokes() -> None:
    x_train, y_train, x_test, y_test = generate("mnist-like", n_train=2000, n_test=1000)
    linear = LogisticRegression(C=1e-2, max_iter=60, tol=1e-2).fit(flat(x_train), y_train)
    cnn = accuracy(train_cnn(x_train, y_train, epochs=3), x_test, y_test)
    assert linear.score(flat(x_test), y_test) < 0.9
    assert cnn > 0.95


def test_spirals_are_beyond_a_line_and_within_a_neighbourhood() -> None:
    x_train, y_train, x_test, y_test = generate("spirals")
    linear = LogisticRegression().fit(x_train, y_train).score(x_test, y_test)
    squares = (x_test**2).sum(axis=1)[:, None] - 2 * x_test @ x_train.T + (x_train**2).sum(axis=1)
    nearest = np.argsort(squares, axis=1)[:, :15]
    votes = np.apply_along_axis(lambda row: np.bincount(row, minlength=3).argmax(), 1, y_train[nearest])
    assert linear < 0.45
    assert 0.9 < (votes == y_test).mean() < 1
