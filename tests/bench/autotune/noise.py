"""Scripted samplers: times with noise as machines have it, from seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def noisy(
    seconds: Sequence[float],
    seed: int,
    *,
    scale: float = 0.02,
    outliers: float = 0.05,
    drift: float = 0.003,
    correlation: float = 0.0,
) -> Callable[[int, int], float]:
    """Return a sampler: lognormal noise, rare long outliers, and a drift that all share.

    Args:
        seconds: the true times.
        seed: of all that is random.
        scale: of the logarithms.
        outliers: share of samples that take up to several times as long.
        drift: step of the machine's random walk, a round.
        correlation: of a candidate's noise from one sample to the next.
    """
    generator = np.random.default_rng(seed)
    level, last_turn = 0.0, -1
    before = 0.0

    def sample(candidate: int, turn: int) -> float:
        nonlocal level, last_turn, before
        if turn != last_turn:
            level, last_turn = level + drift * generator.standard_normal(), turn
        before = correlation * before + (1 - correlation**2) ** 0.5 * scale * float(
            generator.standard_normal()
        )
        log = level + before
        if generator.random() < outliers:
            log += float(generator.exponential(0.5))
        return float(seconds[candidate] * np.exp(log))

    return sample
