"""The space of a search: factors with choices or ranges, checked, as coordinates that a model can measure distances in.

A point is a vector with one coordinate a factor. Numbers whose values span a factor of ten or more are measured in
decades, others as a share of their range; names are numbered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from fusetune.errors import InvalidValueError

# Spaces of choices up to this size are listed in full; of others, this many points are looked at for each decision.
LISTED = 4096
SAMPLED = 1024
_LOG_SPAN = 10.0
# Digits of a number from a range: significant ones where the range holds decades, and of the range's width in any case.
_DIGITS = 4
# A point drawn near a good one moves by this share of the range in each ranged factor, or by as little as a hundredth.
_NEARBY = 0.08
_NEAREST_DECADES = 2.0
# Points on all scales come as near to an end of a range as this many decades below its width.
_END_DECADES = 4.0
# A range from above 0 whose ends lie this far apart holds decades, whether or not it says so.
_DECADES_SPAN = 100.0


@dataclass(frozen=True)
class Factor:
    """One dimension: `values` for a list of choices, else a range from `low` to `high`.

    Args:
        name: as the caller writes it.
        values: the choices; empty for a range.
        is_number: whether distances between its values mean something.
        low, high: ends of the coordinates.
        log: coordinates are decades.
        whole: a range of integers.
    """

    name: str
    values: tuple[Any, ...]
    is_number: bool
    low: float
    high: float
    log: bool = False
    whole: bool = False

    @property
    def coordinates(self) -> np.ndarray:
        """The coordinates of the choices."""
        if not self.is_number:
            return np.arange(len(self.values), dtype=float)
        return np.array([self.coordinate(value) for value in self.values])

    def coordinate(self, value: Any) -> float:
        """Return a value's coordinate."""
        if not self.is_number:
            return float([*map(_frozen, self.values)].index(_frozen(value)))
        if self.log:
            return math.log10(value)
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0

    def value(self, coordinate: float) -> Any:
        """Return the value at a coordinate: the nearest choice, or the number of a range."""
        if self.values:
            return self.values[int(np.abs(self.coordinates - coordinate).argmin())]
        number = 10.0**coordinate if self.log else self.low + coordinate * (self.high - self.low)
        if self.whole:
            return int(min(max(round(number), self.low), self.high))
        return float(min(max(round(number, self._decimals(number)) + 0.0, self.low), self.high))

    def _decimals(self, number: float) -> int:
        """Return how many decimals a number of a range needs to be told from its neighbours."""
        size = abs(number)
        if self.log:
            # Steps are shares of the number, and finer where the range is shorter than a factor of e.
            span = math.log(self.high / self.low)
            return _DIGITS - 1 - _magnitude(size) if span >= 1 else _DIGITS - _magnitude(size * span)
        width = _DIGITS - _magnitude(self.high - self.low)
        return max(width, _DIGITS - 1 - _magnitude(size)) if size else width

    def spread(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn numbers in [0, 1) into coordinates: the choices in equal parts, or the range."""
        if self.values:
            chosen: NDArray[np.float64] = self.coordinates[(shares * len(self.values)).astype(int)]
            return chosen
        bottom, top = self.coordinate(self.low), self.coordinate(self.high)
        return self.snap(bottom + shares * (top - bottom))

    def snap(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the coordinates of the values nearest to the given ones."""
        bottom, top = self.coordinate(self.low), self.coordinate(self.high)
        clipped = np.clip(coordinates, bottom, top)
        if not self.whole:
            return clipped
        width = self.high - self.low
        whole = np.round(10.0**clipped if self.log else self.low + clipped * width)
        held = np.clip(whole, self.low, self.high)
        return np.log10(held) if self.log else (held - self.low) / width

    def holds_decades(self) -> bool:
        """Whether a linear range spans two decades or more, so that nearly all of it is in the highest decade."""
        return not (self.values or self.log) and self.low >= 0 and self.high >= _DECADES_SPAN * self.low

    def on_all_scales(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Draw coordinates: some evenly, the others at a log-uniform distance from an end of the range.

        So a region that is small on a linear scale, as that of small rates, is also drawn.
        """
        shares = rng.random(count)
        if not self.values:
            decades = self.holds_decades() and self.low > 0
            ends = rng.integers(8 if self.log else 4, size=count)  # of a range in decades, less is at an end
            if decades:
                size = self.low * (self.high / self.low) ** rng.random(count)
                low = (size - self.low) / (self.high - self.low)
            else:
                low = 10.0 ** (-_END_DECADES * rng.random(count))
            high = 1 - 10.0 ** (-_END_DECADES * rng.random(count))
            shares = np.select([ends == 0, ends == 1, (ends == 2) & decades], [low, high, low], shares)
        return self.spread(shares)


class Space:
    """The factors of a search.

    Args:
        space: name -> list of choices, or {low, high} and optionally `log: true`; a range between two integers holds
            the integers. A tuple of two numbers is refused: it may mean either.

    Raises:
        ValueError: no factors, no choices, a choice twice, a range that is empty or whose logarithm does not exist, a
            tuple of two numbers.

    Example:
        >>> space = Space({"lr": {"low": 1e-4, "high": 1.0, "log": True}, "optimizer": ["sgd", "adam"]})
        >>> space.configuration(np.array([-2.0, 1.0]))
        {'lr': 0.01, 'optimizer': 'adam'}
        >>> Space({"lr": {"low": 0, "high": 1, "log": "yes"}})
        Traceback (most recent call last):
        ...
        fusetune.errors.InvalidValueError: space.lr: log is 'yes'. Give True or False
    """

    def __init__(self, space: Mapping[str, Any]) -> None:
        if not isinstance(space, Mapping) or not space:
            raise InvalidValueError(
                "space", "has no factors", to_do="Give name -> list of choices, or {low, high, log}"
            )
        self.factors = [_factor(name, given) for name, given in space.items()]
        self.is_name = np.array([not factor.is_number for factor in self.factors])

    @property
    def size(self) -> float:
        """Number of configurations; infinite with a range of real numbers."""
        return math.prod(_count(factor) for factor in self.factors)

    @property
    def is_listed(self) -> bool:
        """Whether all configurations can be looked at for each decision."""
        return self.size <= LISTED

    def configuration(self, point: np.ndarray) -> dict[str, Any]:
        """Return the values at a point."""
        return {
            factor.name: factor.value(coordinate)
            for factor, coordinate in zip(self.factors, point.tolist(), strict=True)
        }

    def point(self, configuration: Mapping[str, Any]) -> np.ndarray:
        """Return the coordinates of a configuration."""
        return np.array([factor.coordinate(configuration[factor.name]) for factor in self.factors])

    def all_points(self) -> np.ndarray:
        """Return every point of a listed space, the last factor running fastest."""
        axes = [
            factor.coordinates
            if factor.values
            else np.array([factor.coordinate(v) for v in range(int(factor.low), int(factor.high) + 1)])
            for factor in self.factors
        ]
        return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)

    def filling(self, count: int, seed: int) -> np.ndarray:
        """Return points that fill the space evenly: a scrambled Sobol sequence."""
        power = max(0, math.ceil(math.log2(max(count, 1))))
        shares = qmc.Sobol(len(self.factors), seed=np.random.default_rng(seed)).random_base2(power)[:count]
        return self._spread(shares)

    def sampled(self, rng: np.random.Generator, near: np.ndarray) -> np.ndarray:
        """Return points to look at: half of them anywhere, half near the given ones."""
        anywhere = self._spread(rng.random((SAMPLED // 2, len(self.factors))))
        if not len(near):
            return anywhere
        moved = near[rng.integers(len(near), size=SAMPLED // 2)]
        # Log-uniform distances, because the width of a good region is unknown.
        reach = _NEARBY * 10.0 ** (-_NEAREST_DECADES * rng.random(len(moved)))
        for j, factor in enumerate(self.factors):
            if factor.values:
                redrawn = rng.random(len(moved)) < 1 / len(self.factors)
                moved[redrawn, j] = factor.spread(rng.random(int(redrawn.sum())))
            else:
                width = factor.coordinate(factor.high) - factor.coordinate(factor.low)
                moved[:, j] = factor.snap(moved[:, j] + width * reach * rng.normal(0, 1, len(moved)))
        return np.concatenate([anywhere, moved])

    def on_all_scales(self, rng: np.random.Generator) -> np.ndarray:
        """Return points to look at while nothing is known, or nothing is left: see `Factor.on_all_scales`."""
        drawn = [factor.on_all_scales(rng, SAMPLED) for factor in self.factors]
        return np.stack(drawn, axis=1)

    def _spread(self, shares: np.ndarray) -> np.ndarray:
        """Turn rows of numbers in [0, 1) into points."""
        return np.stack([factor.spread(shares[:, j]) for j, factor in enumerate(self.factors)], axis=1)


def _count(factor: Factor) -> float:
    if factor.values:
        return len(factor.values)
    return factor.high - factor.low + 1 if factor.whole else math.inf


def _magnitude(number: float) -> int:
    """Return the power of ten of a number's first digit. As if 1e-300 for none."""
    return math.floor(math.log10(max(abs(number), 1e-300)))


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number (a flag is not)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _factor(name: str, given: Any) -> Factor:
    where = f"space.{name}"
    if isinstance(given, Mapping):
        return _range(name, where, given)
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise InvalidValueError(where, f"is {given!r}", to_do="Give a list of choices, or {low, high, log}")
    if not given:
        raise InvalidValueError(where, "has no choices", to_do="Give one or more")
    if isinstance(given, tuple) and len(given) == 2 and all(map(_is_number, given)):
        low, high = sorted(given)
        log = ", 'log': True" if low > 0 and high >= _LOG_SPAN * low else ""
        raise InvalidValueError(
            where,
            f"{given!r} may be a range or two choices",
            to_do=f"Give {{'low': {low!r}, 'high': {high!r}{log}}} for the range, {list(given)!r} for the "
            "choices",
        )
    for index, value in enumerate(given):
        if _frozen(value) in map(_frozen, given[:index]):
            raise InvalidValueError(where, f"{value!r} stands twice", to_do="Keep one")
    values = tuple(given)
    if not all(map(_is_number, values)):
        return Factor(name, values, False, 0, len(values) - 1)
    low, high = min(values), max(values)
    return Factor(name, values, True, low, high, log=low > 0 and high >= _LOG_SPAN * low)


def _frozen(value: Any) -> Any:
    """Return a stand-in that is equal for equal values of equal types: true is not 1, though Python says so."""
    if isinstance(value, Mapping):
        return {key: _frozen(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_frozen(item) for item in value]
    return (isinstance(value, bool), value)


def _range(name: str, where: str, given: Mapping[str, Any]) -> Factor:
    extra = sorted(set(given) - {"low", "high", "log"})
    if extra or not {"low", "high"} <= set(given):
        wrong = f"unknown '{extra[0]}'" if extra else "low and high are needed"
        raise InvalidValueError(where, wrong, "a range has low, high and optionally log", "Correct it")
    low, high, log = given["low"], given["high"], given.get("log", False)
    if not isinstance(log, bool):
        raise InvalidValueError(where, f"log is {log!r}", to_do="Give True or False")
    if not (_is_number(low) and _is_number(high)):
        raise InvalidValueError(where, f"low {low!r} and high {high!r} must be finite numbers")
    if not low < high:
        raise InvalidValueError(
            where, f"low {low!r} is not below high {high!r}", to_do="Give a range with something in it"
        )
    if log and low <= 0:
        raise InvalidValueError(
            where, f"low is {low!r}, which has no logarithm", to_do="Give a low above 0, or leave out log"
        )
    if not math.isfinite(high - low):
        raise InvalidValueError(
            where, f"from {low!r} to {high!r} is farther than a float holds", to_do="Give a shorter range"
        )
    whole = isinstance(low, int) and isinstance(high, int)
    return Factor(name, (), True, low, high, log=log, whole=whole)
