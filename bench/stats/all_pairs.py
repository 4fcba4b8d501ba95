"""The first of many samples against each other one, corrected over all pairs of samples.

A pair's exact p-value depends on few numbers: how many values each side has, which of them are equal, and U. Thousands
of configurations have millions of pairs, but few different ones. Each of these is tested once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np

from fusetune.bench.stats.significance import tails, two_sided

_MOST_KEPT = 2**22  # codes, before equal ones are counted together


def first_against_each(samples: Sequence[Sequence[float]]) -> list[float]:
    """Return p-values of the first sample against each other one, by Holm's method over all pairs of samples.

    They equal those of `mann_whitney` for all pairs, adjusted by `holm`, of which the first len(samples) - 1 are kept.

    Args:
        samples: two or more, with at least one value each and without NaN. Infinity ranks last.

    Returns:
        The adjusted p-values, 0..1.

    Time: O(k v + k^2 log k) for k samples of v values in all. With ties among finite values, each pair may need a
    distribution of its own.

    Example:
        >>> first_against_each([[1.0, 2.0, 3.0], [4.0, 5.0, math.inf]])
        [0.1]
    """
    tests = math.comb(len(samples), 2)
    if _is_hopeless(samples, tests):
        return [1.0] * (len(samples) - 1)
    pairs = _Pairs(samples)
    codes, counts = _counted(map(pairs.of, range(len(samples) - 1)))
    p_values = pairs.p_values(codes)
    order = np.argsort(p_values)
    multiples = tests - np.cumsum(counts[order]) + counts[order]
    adjusted = np.empty(len(codes))
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, multiples * p_values[order]))
    found: list[float] = adjusted[np.searchsorted(codes, pairs.of(0))].tolist()
    return found


def _is_hopeless(samples: Sequence[Sequence[float]], tests: int) -> bool:
    """Return whether the correction makes even the smallest possible p-value 1, so that nothing needs a test.

    That is 2 / C(n + m, n), for the two largest samples if they do not overlap.
    """
    largest, next_ = sorted(map(len, samples))[:-3:-1]
    return 2 * tests > math.comb(largest + next_, largest)


def _counted(rows: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the different codes in ascending order, and how often each occurs."""
    codes, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    kept: list[np.ndarray] = []
    for row in rows:
        kept.append(row)
        if sum(map(len, kept)) > _MOST_KEPT:
            codes, counts = _merged(codes, counts, kept)
            kept = []
    return _merged(codes, counts, kept)


def _merged(codes: np.ndarray, counts: np.ndarray, more: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the different codes of both, and how often each occurs in both."""
    all_codes = np.concatenate([codes, *more])
    all_counts = np.append(counts, np.ones(len(all_codes) - len(codes), np.int64))
    order = np.argsort(all_codes, kind="stable")
    firsts = np.flatnonzero(np.diff(all_codes[order], prepend=-1))
    return all_codes[order][firsts], np.add.reduceat(all_counts[order], firsts)


class _Pairs:
    """Pairs of samples as codes. A code is a number for all that a p-value depends on: ties, both sizes and U.

    Args:
        samples: as `first_against_each` takes them.
    """

    def __init__(self, samples: Sequence[Sequence[float]]) -> None:
        self._sizes = np.array([len(sample) for sample in samples])
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._different_sizes, self._size_at = np.unique(self._sizes, return_inverse=True)
        most = int(self._sizes.max())
        self._span = 2 * most**2 + 1
        values, self._ranks = np.unique(
            np.concatenate([np.sort(sample) for sample in samples]), return_inverse=True
        )
        # Missed targets are infinite, so most ties are at the end, and their number says all. Others need a look.
        self._last = len(values) - 1
        self._at_end = np.add.reduceat((self._ranks == self._last).astype(np.int64), self._starts)
        equal = np.append(False, (self._ranks[1:] == self._ranks[:-1]) & (self._ranks[1:] < self._last))
        equal[self._starts] = False
        self._is_tied = np.logical_or.reduceat(equal, self._starts)
        self._occurs_again = np.bincount(self._ranks) > 1
        self._occurs_again[self._last] = False
        self._most_at_end = 2 * most
        self._patterns: dict[bytes, int] = {}

    def of(self, a: int) -> np.ndarray:
        """Return the codes of the pairs of sample a with each that follows it."""
        after = slice(a + 1, None)
        sizes, starts = self._sizes[after], self._starts[after] - self._starts[a + 1]
        ours, theirs = self._ranks[self._starts[a] :][: self._sizes[a]], self._ranks[self._starts[a + 1] :]
        here = np.bincount(ours, minlength=self._last + 1)
        doubled_u = 2 * len(ours) * sizes - np.add.reduceat((2 * np.cumsum(here) - here)[theirs], starts)
        ties = np.maximum(1, self._at_end[a] + self._at_end[after])
        tied = self._is_tied[a] | self._is_tied[after]
        if self._occurs_again[ours].any():
            here[self._last] = 0
            tied |= np.logical_or.reduceat(here[theirs] > 0, starts)
        for size in np.unique(sizes[tied]) if tied.any() else ():
            those = np.flatnonzero(tied & (sizes == size))
            ties[those] = self._numbers(ours, theirs[starts[those, None] + np.arange(size)])
        kinds = len(self._different_sizes)
        sides = (ties * kinds + self._size_at[a]) * kinds + self._size_at[after]
        codes: np.ndarray = sides * self._span + doubled_u
        return codes

    def _numbers(self, ours: np.ndarray, theirs: np.ndarray) -> list[int]:
        """Return a number for each row's pattern of ties with our values, above all numbers of ties at the end."""
        pooled = np.sort(np.concatenate([np.tile(ours, (len(theirs), 1)), theirs], axis=1), axis=1)
        bits = np.packbits(pooled[:, 1:] == pooled[:, :-1], axis=1)
        first = self._most_at_end + 1
        return [first + self._patterns.setdefault(row.tobytes(), len(self._patterns)) for row in bits]

    def p_values(self, codes: np.ndarray) -> np.ndarray:
        """Return the two-sided p-values of pairs, from their codes in ascending order."""
        p_values = np.empty(len(codes))
        sides, doubled_u = np.divmod(codes, self._span)
        firsts = np.flatnonzero(np.diff(sides, prepend=-1))
        kinds = len(self._different_sizes)
        patterns = list(self._patterns)
        for start, end in zip(firsts, [*firsts[1:], len(codes)], strict=True):
            rest, second = divmod(int(sides[start]), kinds)
            ties, first = divmod(rest, kinds)
            ours, total = (int(size) for size in np.cumsum(self._different_sizes[[first, second]]))
            if ties <= self._most_at_end:
                groups = [1] * (total - ties) + [ties]
            else:
                groups = _group_sizes(patterns[ties - self._most_at_end - 1], total)
            sums = doubled_u[start:end] + ours * (ours + 1)
            p_values[start:end] = two_sided(*tails(_doubled_midranks(groups), ours, sums))
        return p_values


def _group_sizes(pattern: bytes, total: int) -> list[int]:
    """Return the sizes of the groups of equal values. A bit is set where a value equals the one before it."""
    equal = np.unpackbits(np.frombuffer(pattern, np.uint8), count=total - 1)
    return [len(list(group)) for _, group in groupby(np.cumsum(np.append(1, 1 - equal)).tolist())]


def _doubled_midranks(groups: Sequence[int]) -> tuple[int, ...]:
    """Return twice the midranks of values in ascending order, from the sizes of the groups of equal values."""
    ends = np.cumsum(groups)
    return tuple(np.repeat(2 * ends - groups + 1, groups).tolist())
