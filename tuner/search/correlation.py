"""What a decision need not compute of correlations: those that are known, and those of points far from each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# Trainings whose correlations are kept: twice what a model sees. Beyond them, all are computed anew.
_MOST_KEPT = 512

Correlate = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


class KeptCorrelations:
    """Correlations of trainings with many points, computed once for each pair.

    Args:
        correlate: returns (n, m) correlations of (n, factors) with (m, factors). Elementwise: a pair's does not depend
            on the others.

    Example:
        >>> kept = KeptCorrelations(lambda left, right: -abs(left - right[:, 0]))
        >>> trainings, points = np.array([[1.0], [2.0]]), np.array([[0.0], [3.0], [5.0]])
        >>> kept.of([7, 4], trainings, points, np.array([0, 2])).tolist()
        [[-1.0, -4.0], [-2.0, -3.0]]
    """

    def __init__(self, correlate: Correlate) -> None:
        self._correlate = correlate
        self._rows = np.zeros((0, 0))
        self._row: dict[int, int] = {}
        self._known = np.zeros(0, dtype=int)

    def forget(self) -> None:
        """Take that the correlations are others from now on."""
        self._row = {}

    def of(
        self,
        numbers: list[int],
        trainings: NDArray[np.float64],
        points: NDArray[np.float64],
        asked: NDArray[np.intp],
    ) -> NDArray[np.float64]:
        """Return the correlations of trainings with some of the points: (trainings, asked).

        Args:
            numbers: of the trainings.
            trainings: (trainings, factors) their own points.
            points: (points, factors); those of the last time, then new ones.
            asked: rows of `points`.
        """
        new = [place for place, number in enumerate(numbers) if number not in self._row]
        if len(self._row) + len(new) > max(_MOST_KEPT, len(numbers)):
            self._row, new = {}, list(range(len(numbers)))
        self._make_room(len(self._row) + len(new), len(points))
        for place in new:
            self._row[numbers[place]] = len(self._row)
        rows = np.array([self._row[number] for number in numbers], dtype=int)
        self._known[rows[new]] = 0
        known = self._known[rows]
        # Some lack all points, the others those that are new.
        for late in (known == 0, (known > 0) & (known < len(points))):
            if late.any():
                first = int(known[late].min())
                self._rows[rows[late], first : len(points)] = self._correlate(trainings[late], points[first:])
        self._known[rows] = len(points)
        return self._rows.ravel().take(rows[:, None] * self._rows.shape[1] + asked)

    def _make_room(self, rows: int, columns: int) -> None:
        """Enlarge the matrix by halves, so that trainings that begin one by one rarely move it."""
        high, wide = self._rows.shape
        if rows <= high and columns <= wide:
            return
        room = np.empty((max(high, rows * 3 // 2), wide if columns <= wide else columns * 3 // 2))
        room[:high, :wide] = self._rows
        self._rows = room
        self._known = np.concatenate([self._known, np.zeros(len(room) - high, dtype=int)])


def near_pairs(
    left: NDArray[np.float64], right: NDArray[np.float64], widths: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows of all pairs of points that are at most `widths` apart in every factor.

    Args:
        left: (n, factors).
        right: (m, factors).
        widths: (factors,); 0 where the coordinates must be equal, inf for a factor that does not matter.

    Example:
        >>> points = np.array([[0.0, 1.0], [0.5, 1.0], [0.5, 2.0]])
        >>> [rows.tolist() for rows in near_pairs(points[:1], points, np.array([0.5, 0.0]))]
        [[0, 0], [0, 1]]
    """
    lowest, highest = left - widths, left + widths
    numbers = np.flatnonzero(np.isfinite(widths) & (widths > 0))
    # Of the numbers, the one that leaves the fewest pairs goes first, as places in the sorted coordinates.
    rank, first, last = np.arange(len(right)), np.zeros(len(left), dtype=int), np.full(len(left), len(right))
    fewest = len(left) * len(right) + 1
    for j in numbers:
        order = np.argsort(right[:, j])
        ordered = right[order, j]
        low = np.searchsorted(ordered, lowest[:, j], side="left")
        high = np.searchsorted(ordered, highest[:, j], side="right")
        if (high - low).sum() < fewest:
            fewest, first, last = (high - low).sum(), low, high
            rank[order] = np.arange(len(right))
    # Points whose names agree stand together, and there in that order.
    group = np.zeros(len(left) + len(right), dtype=int)
    for j in np.flatnonzero(widths == 0):
        values = np.unique(np.concatenate([left[:, j], right[:, j]]), return_inverse=True)[1]
        group = np.unique(group * len(group) + values, return_inverse=True)[1]
    begins = group[: len(left)] * len(right)
    key = group[len(left) :] * len(right) + rank
    order = np.argsort(key)
    first, last = np.searchsorted(key[order], np.stack([begins + first, begins + last]))
    counts = last - first
    rows = np.repeat(np.arange(len(left)), counts)
    columns = order[np.arange(len(rows)) + np.repeat(first - np.cumsum(counts) + counts, counts)]
    for j in numbers:
        coordinates = right[columns, j]
        near = (coordinates >= lowest[rows, j]) & (coordinates <= highest[rows, j])
        rows, columns = rows[near], columns[near]
    return rows, columns
