"""Learning curves of a configuration: medians over its seeds, as numpy computes them."""

from __future__ import annotations

import random

import numpy as np

from fusetune.bench.results import Record
from fusetune.bench.stats import median_curve


def trial(seed: int, entries: list[tuple[int, float, float | None]]) -> Record:
    curve = [{"epoch": epoch, "time_s": time_s, "val_loss": loss} for epoch, time_s, loss in entries]
    return Record(f"seed={seed}", {}, seed, "ok", curve=curve)


def test_each_point_is_the_median_over_the_seeds() -> None:
    draw = random.Random(3)
    values = [[draw.random() for _ in range(6)] for _ in range(5)]
    records = [
        trial(seed, [(epoch, 2.0 * epoch + seed, loss) for epoch, loss in enumerate(losses, 1)])
        for seed, losses in enumerate(values)
    ]
    found = median_curve(records, "val_loss")
    assert [point.value for point in found] == list(np.median(np.array(values), axis=0))
    assert [point.time_s for point in found] == [2.0 * epoch + 2 for epoch in range(1, 7)]
    assert {point.n for point in found} == {5}


def test_the_curve_ends_where_half_of_the_seeds_are_left() -> None:
    """Two of four go on and are worse: their median would look like a fall of all."""
    early = [trial(seed, [(1, 1.0, 0.5)]) for seed in range(2)]
    late = [trial(seed, [(1, 1.0, 0.9), (2, 2.0, 0.8)]) for seed in (2, 3)]
    assert [point.epoch for point in median_curve([*early, *late], "val_loss")] == [1]
    assert [point.epoch for point in median_curve([early[0], *late], "val_loss")] == [1, 2]


def test_a_diverged_epoch_has_no_value_and_a_metric_without_values_no_curve() -> None:
    assert median_curve([trial(0, [(1, 1.0, None)])], "val_loss") == ()
    assert median_curve([trial(0, [(1, 1.0, 0.5)])], "val_accuracy") == ()
    assert median_curve([], "val_loss") == ()
