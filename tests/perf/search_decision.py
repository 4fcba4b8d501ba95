"""What a decision of a search takes, with 64 trainings in flight and 1,000 seen: milliseconds of processor time.

OMP_NUM_THREADS=1 python -m tests.perf.search_decision
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np

from fusetune.tuner.search import Searcher, shipped_prior
from tests.tuner.search.test_in_flight import EPOCHS, SPACE, accuracy, asked

_SEEN, _IN_FLIGHT, _DECISIONS = 1000, 64, 40
_RANGES: dict[str, Any] = {
    **SPACE,
    "lr": {"low": 1e-4, "high": 1.0, "log": True},
    "batch_size": {"low": 16, "high": 256, "log": True},
}


def decisions_s(space: dict[str, Any], *, with_prior: bool) -> Iterator[float]:
    """Yield the seconds of processor time of each decision."""
    searcher = Searcher(space, max_epochs=EPOCHS, prior=shipped_prior() if with_prior else None)
    rng = np.random.default_rng(0)
    listed = searcher.space.is_listed
    points = searcher.space.all_points() if listed else np.zeros((0, len(space)))
    while len(points) < _SEEN:
        points = np.concatenate([points, searcher.space.sampled(rng, np.zeros((0, len(space))))])
    for place, row in enumerate(rng.permutation(len(points))[:_SEEN].tolist()):
        config = searcher.space.configuration(points[row])
        curve = [accuracy(config, epoch) for epoch in range(1, 2 + place % 3)]
        searcher.restore(config, curve, "dropped" if place % 20 else "paused", "")
    for trial in asked(searcher, _IN_FLIGHT)[:_DECISIONS]:
        searcher.tell(trial, accuracy(trial.config, trial.epochs + 1))
        start_s = time.process_time()
        assert searcher.ask() is not None
        yield time.process_time() - start_s


def main() -> None:
    """Print the median and the largest of each kind of space."""
    for name, space in (("choices", SPACE), ("ranges", _RANGES)):
        for with_prior in (False, True):
            taken_ms = [1e3 * seconds for seconds in decisions_s(space, with_prior=with_prior)]
            prior = "with the prior" if with_prior else "no prior"
            print(f"{name}, {prior}: median {median(taken_ms):.1f} ms, largest {max(taken_ms):.1f} ms")


if __name__ == "__main__":
    main()
