"""Change points of a series of levels: where it jumps by more than its noise. Pure functions of numbers.

A regression tree over the position in the series splits it by binary segmentation, with absolute deviations from each
segment's median as its cost. Cost-complexity pruning keeps the splits that save more than a penalty. So the number of
change points is not chosen beforehand. scikit-learn has both parts.

Sources: Gey and Lebarbier, Using CART to detect multiple change points in the mean for large samples, 2008. Breiman et
al., Classification and regression trees, 1984, chapter 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

# What a change point has to save, in noises. Chosen by `measure` on half of the benchmarks of three recordings.
PENALTY = 10.0
# A segment has so many runs at least, so that one or two outliers are none.
LEAST_RUNS = 3
# Nothing is said about shorter series: their noise is not known well enough.
LEAST_SERIES = 8
# No program repeats its time better than this.
NOISE_FLOOR = 0.002

_TO_STANDARD_DEVIATION = 1.4826  # of a median absolute deviation, for normal noise
_NORMAL_90 = 1.645  # 90 % of normal values lie within so many standard deviations

_Name = TypeVar("_Name")


@dataclass(frozen=True)
class ChangePoint:
    """A jump.

    Args:
        index: of the first run after it.
        before, after: medians of the segments on both sides.
    """

    index: int
    before: float
    after: float

    @property
    def jump(self) -> float:
        """After minus before."""
        return self.after - self.before


def noise_of(levels: Sequence[float]) -> float:
    """Return the standard deviation between runs, from differences of successive ones.

    A jump changes a single difference, so that it does not count as noise. The estimate is the larger of one from the
    median and one from the 90 % quantile of the differences. Thus rare and frequent disturbances both count.

    Args:
        levels: of at least two runs. Else 0.

    Example:
        >>> round(noise_of([0.0, 0.1, 0.0, 0.1, 5.0, 5.1, 5.0, 5.1, 5.0, 5.1, 5.0, 5.1]), 3)
        0.105
    """
    import numpy as np

    if len(levels) < 2:
        return 0.0
    sizes = np.abs(np.diff(levels))
    robust = max(_TO_STANDARD_DEVIATION * np.median(sizes), np.quantile(sizes, 0.9) / _NORMAL_90)
    return float(robust) / math.sqrt(2)


def quietest(candidates: Mapping[_Name, Sequence[float]]) -> _Name:
    """Return the name of the series with the least noise. The first of equal ones.

    Args:
        candidates: several measures of the same runs, at least one.

    Example:
        >>> quietest({"wall": [1.0, 2.0, 1.0], "wall / reference": [1.0, 1.1, 1.0]})
        'wall / reference'
    """
    return min(candidates, key=lambda name: noise_of(candidates[name]))


def find_change_points(
    levels: Sequence[float],
    *,
    threshold: float = 0.02,
    noise: float | None = None,
    penalty: float = PENALTY,
) -> tuple[ChangePoint, ...]:
    """Find the jumps of a series.

    Args:
        levels: one finite number a run, in order. Logarithms, so that a jump is a relative change.
        threshold: the smallest relative change that counts.
        noise: standard deviation between runs; None: estimated from the series. At least 0.2 % is assumed.
        penalty: what a jump has to save of the summed absolute deviations, in noises.

    Returns:
        Change points in order. Each has three runs on both sides at least, and a jump that is larger than the noise.

    Example:
        >>> [point.index for point in find_change_points([0.0, 0.01] * 6 + [0.10, 0.11] * 4)]
        [12]
    """
    import numpy as np
    from sklearn.tree import DecisionTreeRegressor

    if len(levels) < LEAST_SERIES:
        return ()
    noise = max(noise_of(levels) if noise is None else noise, NOISE_FLOOR)
    scaled = (np.asarray(levels, dtype=float) - np.median(levels)) / noise
    tree = DecisionTreeRegressor(
        criterion="absolute_error",
        min_samples_leaf=LEAST_RUNS,
        ccp_alpha=penalty / len(levels),
        random_state=0,
    )
    structure = tree.fit(np.arange(len(levels)).reshape(-1, 1), scaled).tree_
    splits = sorted(math.ceil(at) for at in structure.threshold[structure.children_left >= 0])
    points = _points(levels, splits)
    least = max(math.log1p(threshold), noise)
    while doubtful := [
        point
        for point, ends in zip(points, _ends(splits, len(levels)), strict=True)
        if abs(point.jump) < least or not _is_lasting(point, levels, *ends)
    ]:
        # Without the smallest, its neighbours are judged against longer segments.
        splits.remove(min(doubtful, key=lambda point: abs(point.jump)).index)
        points = _points(levels, splits)
    return tuple(points)


def find_steps(values: Sequence[float]) -> tuple[ChangePoint, ...]:
    """Find where a series that has no noise, such as a count of bytes, takes another value.

    A value that was there for one or two runs and went away again is no change.

    Example:
        >>> find_steps([64.0, 64.0, 32.0, 64.0, 64.0, 80.0])
        (ChangePoint(index=5, before=64.0, after=80.0),)
    """
    segments: list[tuple[float, int]] = []  # value, first run
    for index, value in enumerate(values):
        if segments and segments[-1][0] == value:
            continue
        if len(segments) > 1 and segments[-2][0] == value and index - segments[-1][1] < LEAST_RUNS:
            segments.pop()
        else:
            segments.append((value, index))
    return tuple(ChangePoint(index, before, after) for (before, _), (after, index) in pairwise(segments))


def _points(levels: Sequence[float], splits: Sequence[int]) -> list[ChangePoint]:
    """Return a change point for each split."""
    import numpy as np

    return [
        ChangePoint(index, float(np.median(levels[start:index])), float(np.median(levels[index:end])))
        for index, (start, end) in zip(splits, _ends(splits, len(levels)), strict=True)
    ]


def _ends(splits: Sequence[int], length: int) -> list[tuple[int, int]]:
    """Return for each split where the segment before it begins, and where the one after it ends."""
    edges = [0, *splits, length]
    return list(zip(edges[:-2], edges[2:], strict=True))


def _is_lasting(point: ChangePoint, levels: Sequence[float], start: int, end: int) -> bool:
    """Whether three runs on each side are on their side of the middle. Two outliers and a usual run are no segment."""
    middle = (point.before + point.after) / 2
    sign = math.copysign(1, point.jump)
    before = sum((level - middle) * sign < 0 for level in levels[start : point.index])
    after = sum((level - middle) * sign > 0 for level in levels[point.index : end])
    return min(before, after) >= LEAST_RUNS
