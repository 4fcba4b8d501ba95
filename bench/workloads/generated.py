"""Generated data sets: hard enough to distinguish training configurations, and always available.

Samples come in blocks. Block b of a split is drawn from its own stream, PCG64 seeded by (seed, split, b). So a smaller
set is a prefix of a larger one and costs in proportion. Every block has each class equally often, in random order.

The bytes depend on the seed alone, on every machine. Only the raw 64-bit words of the stream are used, because numpy
promises them for all its versions. Samples are made from them with + - * /, square roots and tables of rounded
numbers, because IEEE 754 promises this arithmetic. No numpy distribution is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusetune.bench.errors import InputError

FourArrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Generator:
    """One generated data set: its full sizes, whole blocks of whole rounds of classes, and how to draw a block."""

    n_train: int
    n_test: int
    block_samples: int
    num_classes: int
    shape: tuple[int, ...]
    dtype: type[np.generic]
    draw_block: Callable[[Words, np.ndarray], np.ndarray]


class Words:
    """The raw 64-bit words of one block's stream, handed out as uniform numbers and as bytes."""

    def __init__(self, seed: int, split: int, block: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, split, block]))

    def uniform(self, *shape: int) -> np.ndarray:
        """Uniform numbers in [0, 1): float64, the upper 53 bits of one word each."""
        words: NDArray[np.uint64] = self._bits.random_raw(math.prod(shape)) >> np.uint64(11)
        return (words * 2.0**-53).reshape(shape)

    def between(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Uniform numbers in [low, high): float64."""
        return low + (high - low) * self.uniform(*shape)

    def grain(self, *shape: int) -> np.ndarray:
        """Noise with a triangular density on [-1, 1], mean 0, variance 1/6: float32, two bytes a number."""
        count = math.prod(shape)
        words: NDArray[np.uint64] = self._bits.random_raw(-(-count // 4)).astype("<u8")
        pairs = words.view(np.uint8)[: 2 * count].reshape(2, count)
        grain: NDArray[np.float32] = pairs[0].astype(np.float32)
        grain -= pairs[1]
        grain /= np.float32(255)
        return grain.reshape(shape)

    def shuffled_classes(self, num_classes: int, samples: int) -> np.ndarray:
        """The labels of one block, each class equally often, in random order: int64."""
        labels = np.arange(samples, dtype=np.int64) % num_classes
        return labels[np.argsort(self.uniform(samples), kind="stable")]


def generate(
    name: str, *, seed: int = 0, n_train: int | None = None, n_test: int | None = None
) -> FourArrays:
    """Draw a generated data set, or the first samples of it.

    Args:
        name: `cifar10-like`, `mnist-like` or `spirals`.
        seed: int >= 0. Another seed draws other samples of the same classes.
        n_train: training samples, 1 up to the full size. None draws all.
        n_test: test samples, 1 up to the full size. None draws all.

    Returns:
        x_train, y_train, x_test, y_test: x is uint8 of shape (N, C, H, W), or float32 of shape (N, D). y is int64.

    Raises:
        InputError: an unknown name, a negative seed, or a size outside the range.

    Example:
        >>> x_train, y_train, x_test, y_test = generate("cifar10-like", n_train=200, n_test=100)
        >>> x_train.shape, x_train.dtype.name, np.bincount(y_test).tolist()
        ((200, 3, 32, 32), 'uint8', [10, 10, 10, 10, 10, 10, 10, 10, 10, 10])
    """
    if name not in GENERATORS:
        raise InputError.unknown("data.name", name, GENERATORS)
    generator = GENERATORS[name]
    if seed < 0:
        raise InputError("data", f"the seed is {seed}", to_do="Give an integer of 0 or more")
    n_train = _size("n_train", n_train, generator.n_train)
    n_test = _size("n_test", n_test, generator.n_test)
    x_train, y_train = _draw(generator, seed, 0, n_train)
    x_test, y_test = _draw(generator, seed, 1, n_test)
    return x_train, y_train, x_test, y_test


def _size(what: str, wanted: int | None, full: int) -> int:
    size = full if wanted is None else wanted
    if not 1 <= size <= full:
        raise InputError("data", f"{what} is {size}", f"there are {full} samples", f"Give 1 to {full}")
    return size


def _draw(generator: Generator, seed: int, split: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the first `size` samples of one split, block by block."""
    x = np.empty((size, *generator.shape), dtype=generator.dtype)
    y = np.empty(size, dtype=np.int64)
    for block, start in enumerate(range(0, size, generator.block_samples)):
        words = Words(seed, split, block)
        labels = words.shuffled_classes(generator.num_classes, generator.block_samples)
        count = min(generator.block_samples, size - start)
        x[start : start + count] = generator.draw_block(words, labels)[:count]
        y[start : start + count] = labels[:count]
    return x, y


# One turn in 1024 parts. Rounded to 20 bits, because the last bit of a sine differs between mathematical libraries.
_TURN = 1024
_SINE = np.array([round(math.sin(math.tau * i / _TURN) * 2**20) / 2**20 for i in range(_TURN)])
_SINE32 = _SINE.astype(np.float32)


def _sine(turns: NDArray[np.float64]) -> np.ndarray:
    """Return the sine of an angle in turns, from a table: float64."""
    return _SINE[np.floor(turns * _TURN).astype(np.int64) % _TURN]


def _cosine(turns: np.ndarray) -> np.ndarray:
    """Return the cosine of an angle in turns, from a table: float64."""
    return _sine(turns + 0.25)


def _per_image(values: np.ndarray) -> np.ndarray:
    """Reshape one float per sample so that it broadcasts over the sample's pixels: float32, (N, 1, 1)."""
    return values.astype(np.float32)[:, None, None]


# ---------------------------------------------------------------- cifar10-like

_SIDE = 32
_ANGLES_TURNS = (0.0, 0.0625, 0.125, 0.1875, 0.25)
_WAVELENGTHS_PIXELS = (4.0, 6.5)
_ANGLE_JITTER_TURNS = 0.030
_WAVELENGTH_JITTER = 0.22
_HUE_JITTER_TURNS = 0.18
_IMPOSTORS = 0.06
_ROW, _COLUMN = np.meshgrid(np.arange(_SIDE), np.arange(_SIDE), indexing="ij")


def _draw_textures(words: Words, labels: np.ndarray) -> np.ndarray:
    """Draw one block of `cifar10-like`: striped blobs on a cluttered background, uint8 (N, 3, 32, 32).

    The class is the angle (5) and the wavelength (2) of the blob's stripes. Both jitter, so neighbours overlap. Phase,
    position, size, mirroring, contrast and background are random, so the mean stripe of a class is 0. A linear model
    can only use the blob's tint, which depends loosely on the class. Mirroring maps every class onto itself, so flipped
    images may be used in training. 6 % of the images show a class drawn at random.
    """
    n = len(labels)
    shown = np.where(words.uniform(n) < _IMPOSTORS, np.floor(words.uniform(n) * 10).astype(np.int64), labels)
    mirror = np.where(words.uniform(n) < 0.5, -1.0, 1.0)
    angle = np.take(_ANGLES_TURNS, shown // 2) + words.between(-1, 1, n) * _ANGLE_JITTER_TURNS
    wavelength = np.take(_WAVELENGTHS_PIXELS, shown % 2) * (1 + words.between(-1, 1, n) * _WAVELENGTH_JITTER)
    # Angle and wavelength share the hue wheel: 0.3 x index mod 1 puts look-alike stripes far apart in tint.
    hue = shown * 0.3 + words.between(-1, 1, n) * _HUE_JITTER_TURNS

    ground = _tint(words.uniform(n), 22 + 25 * words.uniform(n)) + words.between(85, 170, n)[:, None]
    clutter_tint = _tint(words.uniform(n), words.between(0, 20, n)) + words.between(5, 18, n)[:, None]
    blob = _tint(hue, words.between(20, 60, n)) + words.between(85, 170, n)[:, None]
    stripe_tint = _tint(words.uniform(n), words.between(0, 12, n)) + words.between(16, 44, n)[:, None]

    stripes = _grating(angle * mirror, wavelength, words.uniform(n))
    clutter = _grating(words.uniform(n), words.between(4, 16, n), words.uniform(n))
    clutter += _grating(words.uniform(n), words.between(4, 16, n), words.uniform(n))
    window = _window(words, n)
    noise_level = _per_image(words.between(15, 50, n))

    images = np.empty((n, 3, _SIDE, _SIDE), dtype=np.float32)
    for channel in range(3):
        # In place: new temporaries took a third of the time, in page faults.
        behind = clutter * _per_image(clutter_tint[:, channel])
        behind += _per_image(ground[:, channel])
        front = stripes * _per_image(stripe_tint[:, channel])
        front += _per_image(blob[:, channel])
        front -= behind
        front *= window
        front += behind
        grain = words.grain(n, _SIDE, _SIDE)
        grain *= noise_level
        np.add(front, grain, out=images[:, channel])
    return _to_uint8(images)


def _tint(hue_turns: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Return colour offsets of one hue: three cosines a third of a turn apart, whose sum is 0, (N, 3)."""
    return np.stack([strength * _cosine(hue_turns + third / 3) for third in range(3)], axis=1)


def _grating(angle_turns: np.ndarray, wavelength_pixels: np.ndarray, phase_turns: np.ndarray) -> np.ndarray:
    """Return sine gratings of amplitude 1, one an image: float32 (N, 32, 32)."""
    scale = 65536 / wavelength_pixels
    # 16-bit unsigned integers wrap around after one turn, like a phase.
    across, down, start = (
        (np.round(part).astype(np.int64) % 65536).astype(np.uint16)[:, None, None]
        for part in (scale * _cosine(angle_turns), scale * _sine(angle_turns), phase_turns * 65536)
    )
    phase = _COLUMN.astype(np.uint16) * across + _ROW.astype(np.uint16) * down + start
    return _SINE32.take(phase >> 6)


def _window(words: Words, n: int) -> np.ndarray:
    """Return soft-edged ellipses, 1 inside and near 0 outside, at random places: float32 (N, 32, 32)."""
    x = (_COLUMN[0].astype(np.float32) - _column(words.between(10, 21, n))) / _column(words.between(5, 11, n))
    y = (_ROW[:, 0].astype(np.float32) - _column(words.between(10, 21, n))) / _column(words.between(5, 11, n))
    distance = (x * x)[:, None, :] + (y * y)[:, :, None]
    distance *= distance
    window: np.ndarray = 1 / (1 + distance * distance)
    return window


def _column(values: np.ndarray) -> np.ndarray:
    """Reshape one float per sample so that it broadcasts over a row of pixels: float32, (N, 1)."""
    return values.astype(np.float32)[:, None]


def _to_uint8(images: np.ndarray) -> np.ndarray:
    """Round to the nearest grey level and clip to 0..255. Overwrites `images`."""
    np.rint(images, out=images)
    return np.clip(images, 0, 255, out=images).astype(np.uint8)


# ---------------------------------------------------------------- mnist-like

_GREY_SIDE = 28
# Each glyph is a list of strokes x0, y0, x1, y1 in a box from -1 to 1, y downwards.
_GLYPHS: tuple[tuple[tuple[float, float, float, float], ...], ...] = (
    ((-0.6, -1, 0.6, -1), (0.6, -1, 0.6, 1), (0.6, 1, -0.6, 1), (-0.6, 1, -0.6, -1)),
    ((0, -1, 0, 1), (-0.4, -0.6, 0, -1)),
    ((-0.6, -1, 0.6, -1), (0.6, -1, 0.6, -0.1), (0.6, -0.1, -0.6, 1), (-0.6, 1, 0.6, 1)),
    ((-0.6, -1, 0.6, -1), (0.6, -1, 0, -0.1), (0, -0.1, 0.6, 0.6), (0.6, 0.6, -0.6, 1)),
    ((-0.6, -1, -0.6, 0.1), (-0.6, 0.1, 0.6, 0.1), (0.5, -1, 0.5, 1)),
    (
        (0.6, -1, -0.6, -1),
        (-0.6, -1, -0.6, -0.1),
        (-0.6, -0.1, 0.6, 0.2),
        (0.6, 0.2, 0.5, 1),
        (0.5, 1, -0.6, 1),
    ),
    (
        (0.3, -1, -0.6, 0.2),
        (-0.6, 0.2, -0.6, 1),
        (-0.6, 1, 0.6, 1),
        (0.6, 1, 0.6, 0.1),
        (0.6, 0.1, -0.6, 0.2),
    ),
    ((-0.6, -1, 0.6, -1), (0.6, -1, -0.2, 1)),
    ((-0.5, -1, 0.5, -1), (-0.5, -1, 0.5, 1), (0.5, -1, -0.5, 1), (-0.5, 1, 0.5, 1)),
    (
        (0.6, -0.1, -0.6, -0.1),
        (-0.6, -0.1, -0.6, -1),
        (-0.6, -1, 0.6, -1),
        (0.6, -1, 0.6, -0.1),
        (0.6, -0.1, 0.2, 1),
    ),
)
_MOST_STROKES = max(len(glyph) for glyph in _GLYPHS)
# Shorter glyphs repeat their last stroke: drawing it twice changes nothing.
_STROKES = np.array([glyph + (glyph[-1],) * (_MOST_STROKES - len(glyph)) for glyph in _GLYPHS])


def _draw_strokes(words: Words, labels: np.ndarray) -> np.ndarray:
    """Draw one block of `mnist-like`: a glyph of straight strokes, rotated, slanted, scaled and moved, in uint8."""
    n = len(labels)
    strokes = _STROKES[labels] + words.between(-0.14, 0.14, n, _MOST_STROKES, 4)
    turn = words.between(-0.055, 0.055, n)
    size = words.between(6.0, 10.0, n)
    slant = words.between(-0.3, 0.3, n)
    narrow = words.between(0.7, 1.1, n)
    sine, cosine = _sine(turn), _cosine(turn)
    centre_x = words.between(10.5, 16.5, n)
    centre_y = words.between(11.5, 15.5, n)
    points = []
    for x, y in ((strokes[..., 0], strokes[..., 1]), (strokes[..., 2], strokes[..., 3])):
        wide = size[:, None] * (narrow[:, None] * x + slant[:, None] * y)
        tall = size[:, None] * y
        points.append(centre_x[:, None] + cosine[:, None] * wide - sine[:, None] * tall)
        points.append(centre_y[:, None] + sine[:, None] * wide + cosine[:, None] * tall)
    distance = _distance_to_strokes(*(point.astype(np.float32) for point in points))
    ink = np.clip(_per_image(words.between(0.9, 1.9, n)) - distance + np.float32(0.5), 0, 1)
    images = ink * _per_image(words.between(150, 255, n))
    images += (words.grain(n, _GREY_SIDE, _GREY_SIDE) + np.float32(0.4)) * _per_image(words.between(0, 60, n))
    return _to_uint8(images)[:, None]


def _distance_to_strokes(x0: np.ndarray, y0: np.ndarray, x1: np.ndarray, y1: np.ndarray) -> np.ndarray:
    """Return the distance in pixels to the nearest stroke: endpoints (N, strokes) -> float32 (N, 28, 28)."""
    column = np.arange(_GREY_SIDE, dtype=np.float32)
    nearest = np.full((len(x0), _GREY_SIDE, _GREY_SIDE), np.inf, dtype=np.float32)
    for stroke in range(x0.shape[1]):
        start_x, start_y = x0[:, stroke, None], y0[:, stroke, None]
        along_x, along_y = x1[:, stroke, None] - start_x, y1[:, stroke, None] - start_y
        length_squared = along_x * along_x + along_y * along_y + np.float32(1e-6)
        right, below = column - start_x, column - start_y
        part = (right * (along_x / length_squared))[:, None, :] + (below * (along_y / length_squared))[
            :, :, None
        ]
        np.clip(part, 0, 1, out=part)
        off_x = right[:, None, :] - part * along_x[:, :, None]
        off_y = below[:, :, None] - part * along_y[:, :, None]
        np.minimum(nearest, off_x * off_x + off_y * off_y, out=nearest)
    return np.sqrt(nearest)


# ---------------------------------------------------------------- spirals

_SPIRAL_TURNS = 1.25
_SPIRAL_NOISE = 0.16


def _draw_spirals(words: Words, labels: np.ndarray) -> np.ndarray:
    """Draw one block of `spirals`: noisy points on three arms a third of a turn apart, float32 (N, 2)."""
    radius = words.between(0.12, 1.0, len(labels))
    turns = _SPIRAL_TURNS * radius + labels / 3
    points = np.stack([radius * _cosine(turns), radius * _sine(turns)], axis=1)
    return (points + _SPIRAL_NOISE * words.grain(len(labels), 2)).astype(np.float32)


GENERATORS: dict[str, Generator] = {
    "cifar10-like": Generator(50_000, 10_000, 100, 10, (3, _SIDE, _SIDE), np.uint8, _draw_textures),
    "mnist-like": Generator(60_000, 10_000, 100, 10, (1, _GREY_SIDE, _GREY_SIDE), np.uint8, _draw_strokes),
    "spirals": Generator(3_600, 1_200, 120, 3, (2,), np.float32, _draw_spirals),
}
