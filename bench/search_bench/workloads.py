"""The data sets of the recorded tables: images, tabular data and points in the plane. None is downloaded.

Workloads of one family share their images or the rule that generates them. A search is evaluated on the tables of one
family, with a prior from the other families.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import affine_transform

from fusetune.bench.workloads import DataRequest, generate, load, locate


@dataclass(frozen=True)
class Workload:
    """Training and validation samples, (N, D) float32 and (N,) int64, with the widths of the hidden layers."""

    x: torch.Tensor
    y: torch.Tensor
    x_val: torch.Tensor
    y_val: torch.Tensor
    hidden: tuple[int, int] = (64, 32)


def _normalised(x: np.ndarray, y: np.ndarray, x_val: np.ndarray, y_val: np.ndarray) -> Workload:
    """Flatten and standardize by the training samples' mean and standard deviation over all features."""
    flat, flat_val = (a.reshape(len(a), -1).astype(np.float32) for a in (x, x_val))
    mean, std = flat.mean(), flat.std()
    return Workload(
        torch.from_numpy((flat - mean) / std),
        torch.from_numpy(y.astype(np.int64)),
        torch.from_numpy((flat_val - mean) / std),
        torch.from_numpy(y_val.astype(np.int64)),
    )


def strokes(seed: int = 1) -> Workload:
    """8,000 generated images of digits, averaged to 14 x 14 pixels."""
    x, y, x_val, y_val = generate("mnist-like", seed=seed, n_train=8000, n_test=2000)
    small, small_val = (
        a.reshape(len(a), 14, 2, 14, 2).astype(np.float32).mean(axis=(2, 4)) for a in (x, x_val)
    )
    return _normalised(small, y, small_val, y_val)


def _handwritten(rng: np.random.Generator, held: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Return scikit-learn's 1,797 digits in random order, (N, 8, 8) with labels, as training and held-out samples."""
    arrays = load(locate(DataRequest("digits")))
    x = np.concatenate([arrays.x_train, arrays.x_test]).reshape(-1, 8, 8).astype(np.float32)
    y = np.concatenate([arrays.y_train, arrays.y_test])
    order = rng.permutation(len(x))
    return (x[order[held:]], y[order[held:]]), (x[order[:held]], y[order[:held]])


def digits(seed: int = 3) -> Workload:
    """scikit-learn's handwritten digits unchanged, 1,297 for training and 500 held out."""
    kept, held = _handwritten(np.random.default_rng(seed), 500)
    return _normalised(*kept, *held)


def jittered_digits(seed: int = 2) -> Workload:
    """The handwritten digits with random shifts and noise, several copies of each. No original is in both sets."""
    rng = np.random.default_rng(seed)
    kept, held = _handwritten(rng, 400)

    def drawn(x: np.ndarray, y: np.ndarray, copies: int) -> tuple[np.ndarray, np.ndarray]:
        index = np.tile(np.arange(len(x)), copies)
        images = np.pad(x[index], ((0, 0), (1, 1), (1, 1)))
        shifts = rng.integers(-1, 2, (len(index), 2))
        moved = np.stack([np.roll(i, tuple(s), (0, 1)) for i, s in zip(images, shifts, strict=True)])
        moved += rng.normal(0, 0.15 * scale, moved.shape)
        mixed = rng.permutation(len(index))
        return moved[mixed], y[index][mixed]

    scale = np.concatenate([kept[0], held[0]]).std()
    return _normalised(*drawn(*kept, 6), *drawn(*held, 5))


def redrawn_digits(seed: int = 7) -> Workload:
    """The handwritten digits at 28 x 28 pixels, with random affine transforms. No original is in both sets."""
    rng = np.random.default_rng(seed)
    kept, held = _handwritten(rng, 500)

    def drawn(x: np.ndarray, y: np.ndarray, copies: int) -> tuple[np.ndarray, np.ndarray]:
        index = rng.permutation(np.tile(np.arange(len(x)), copies))
        images = np.empty((len(index), 28, 28), dtype=np.float32)
        for i, original in enumerate(x[index]):
            angle, shear = rng.normal(0, (0.15, 0.15))
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            matrix = turn @ np.array([[1.0, shear], [0.0, 1.0]]) * rng.uniform(0.34, 0.42)
            centre = np.array([3.5, 3.5]) - matrix @ (13.5 + rng.uniform(-2, 2, 2))
            images[i] = affine_transform(original, matrix, centre, output_shape=(28, 28), order=1)
        return images, y[index]

    return _normalised(*drawn(*kept, 4), *drawn(*held, 4))


def digit_sums(seed: int = 8) -> Workload:
    """Pairs of handwritten digits, with their sum as the label, 5,000 for training. No original is in both sets."""
    rng = np.random.default_rng(seed)
    kept, held = _handwritten(rng, 500)

    def pairs(x: np.ndarray, y: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        left, right = rng.integers(0, len(x), (2, count))
        return np.concatenate([x[left], x[right]], axis=2), y[left] + y[right]

    return _normalised(*pairs(*kept, 5000), *pairs(*held, 2000))


def spirals(seed: int = 4) -> Workload:
    """Three spirals in the plane, 3,600 points for training and 1,200 held out."""
    return _normalised(*generate("spirals", seed=seed))


def clusters(seed: int = 9) -> Workload:
    """Ten classes of three clusters each in 30 features, 12 of them informative. 2 % of the labels are wrong."""
    from sklearn.datasets import make_classification  # here, because it takes a second to import

    x, y = make_classification(
        n_samples=6000,
        n_features=30,
        n_informative=12,
        n_redundant=6,
        n_classes=10,
        n_clusters_per_class=3,
        class_sep=2.0,
        flip_y=0.02,
        random_state=seed,
    )
    return _normalised(x[2000:], y[2000:], x[:2000], y[:2000])


def teacher(seed: int = 10) -> Workload:
    """20 normal features, labelled by a random tanh network, 6,000 samples for training and 2,000 held out."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(8000, 20))
    hidden = np.tanh(x @ rng.normal(0, 1.0 / 20**0.5, (20, 24)) * 2)
    scores = hidden @ rng.normal(size=(24, 6))
    y = (scores - scores.mean(axis=0)).argmax(axis=1)
    return _normalised(x[2000:], y[2000:], x[:2000], y[:2000])


def textures(seed: int = 11) -> Workload:
    """8,000 generated colour images of ten textures, averaged to 8 x 8 pixels."""
    x, y, x_val, y_val = generate("cifar10-like", seed=seed, n_train=6000, n_test=2000)
    small, small_val = (
        a.reshape(len(a), 3, 8, 4, 8, 4).astype(np.float32).mean(axis=(3, 5)) for a in (x, x_val)
    )
    return _normalised(small, y, small_val, y_val)


def tones(seed: int = 12) -> Workload:
    """64 samples of a noisy sound of random phase and overtone, with one of eight pitches as the label."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 8, 8000)
    time = np.arange(64) / 64
    phase, overtone = rng.uniform(0, 2 * np.pi, (2, 8000, 1))
    turns = 2 * np.pi * (3 + y[:, None]) * time
    strength = rng.uniform(0, 1, (8000, 1))
    x = np.sin(turns + phase) + strength * np.sin(2 * turns + overtone) + rng.normal(0, 0.7, (8000, 64))
    return _normalised(x[2000:], y[2000:], x[:2000], y[:2000])


@dataclass(frozen=True)
class Source:
    """The function that generates a workload, and its family."""

    draw: Callable[[], Workload]
    family: str


WORKLOADS: dict[str, Source] = {
    "clusters": Source(clusters, "clusters"),
    "digit-sums": Source(digit_sums, "handwritten"),
    "digits": Source(digits, "handwritten"),
    "jittered-digits": Source(jittered_digits, "handwritten"),
    "redrawn-digits": Source(redrawn_digits, "handwritten"),
    "spirals": Source(spirals, "spirals"),
    "strokes": Source(strokes, "strokes"),
    "teacher": Source(teacher, "teacher"),
    "textures": Source(textures, "textures"),
    "tones": Source(tones, "tones"),
}
