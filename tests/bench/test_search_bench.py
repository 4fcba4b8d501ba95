"""The recorded tables and their replay: tables hold what plain trainings reach, costs are counted right."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench.search_bench import record as recorder
from bench.search_bench.peers import PEERS
from bench.search_bench.record import Workload, record
from bench.search_bench.replay import interval, load_table, prior_without, replay, summary_row, table_names
from bench.search_bench.table import Table
from tuner import schedules

EPOCHS, BATCH = 2, 16


def workload() -> Workload:
    generator = torch.Generator().manual_seed(0)
    x, x_val = torch.randn(128, 6, generator=generator), torch.randn(400, 6, generator=generator)
    return Workload(x, x[:, :3].argmax(1), x_val, x_val[:, :3].argmax(1), hidden=(8, 5))


def plain_training(data: Workload, config: dict[str, Any]) -> list[int]:
    """Train one configuration by itself with torch's own layers and optimizers; right answers after each epoch."""
    torch.manual_seed(0)
    widths = (6, 8, 5, 3)
    layers: list[nn.Module] = []
    activation = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[config["activation"]]
    for fan_in, fan_out in itertools.pairwise(widths):
        layer = nn.Linear(fan_in, fan_out)
        layers += [layer, activation()]
    model = nn.Sequential(*layers[:-1])
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in (module for module in model if isinstance(module, nn.Linear)):
            bound = layer.in_features**-0.5
            layer.weight.copy_(torch.empty(layer.in_features, layer.out_features).uniform_(-bound, bound).T)
            layer.bias.copy_(torch.empty(1, layer.out_features).uniform_(-bound, bound)[0])
    optimizer: torch.optim.Optimizer
    if config["optimizer"] == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"])
    else:
        momentum = 0.9 if config["optimizer"] == "momentum" else 0.0
        optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=momentum)
    steps = len(data.y) // BATCH
    multiplier = schedules.build(config["schedule"], total_steps=EPOCHS * steps, steps_per_epoch=steps)
    right = []
    for epoch in range(EPOCHS):
        order = torch.randperm(len(data.y), generator=torch.Generator().manual_seed(epoch))
        for index in range(steps):
            rows = order[index * BATCH : (index + 1) * BATCH]
            optimizer.param_groups[0]["lr"] = config["lr"] * multiplier(epoch * steps + index)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data.x[rows]), data.y[rows]).backward()
            optimizer.step()
        right.append(int((model(data.x_val).argmax(1) == data.y_val).sum()))
    return right


def test_a_recorded_curve_is_that_of_a_training_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "LRS", (0.01, 0.1))
    monkeypatch.setattr(recorder, "BATCH_SIZES", (BATCH,))
    data = workload()
    table = record(data, epochs=EPOCHS)
    for config, right in zip(table.configurations(), table.correct, strict=True):
        # Rounding may tip an answer that is on the edge between two classes.
        assert np.abs(right.astype(int) - plain_training(data, config)).max() <= 2, config


def test_a_table_is_read_as_it_was_written_and_finds_each_curve(tmp_path: Path) -> None:
    correct = np.arange(24, dtype=np.uint16).reshape(6, 4)
    table = Table({"lr": [0.1, 1.0], "name": ["a", "b", "c"]}, correct, 50)
    table.save(tmp_path / "table.npz")
    read = Table.load(tmp_path / "table.npz")
    assert read.choices == table.choices
    for config, row in zip(read.configurations(), correct, strict=True):
        assert read.curve(config).tolist() == (row / 50).tolist()


def test_costs_are_counted_to_the_first_value_within_each_margin() -> None:
    assert replay(iter([0.5, 0.889, 0.8905, 0.8951, 0.9]), best=0.9).epochs == (4, 3)
    assert replay(iter([0.5, 0.5, 0.9]), best=0.9, cap=2).epochs == (None, None)


def test_a_replay_that_does_not_get_there_counts_as_the_cap() -> None:
    found, missed = replay(iter([0.9]), best=0.9), replay(iter([0.1]), best=0.9)
    row = summary_row("x", [found, missed], cap=99)
    assert row[2:5] == ["50", "89", "50%"]


def test_interval_of_the_median_holds_the_median_and_narrows() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.exponential(100, 20), rng.exponential(100, 2000)
    for sample in (few, many):
        low, high = interval(sample)
        assert low <= np.median(sample) <= high
    assert np.subtract(*interval(many)[::-1]) < np.subtract(*interval(few)[::-1])


def test_a_prior_never_comes_from_the_table_it_is_judged_on() -> None:
    for name in table_names():
        others = [load_table(other) for other in table_names() if other != name]
        shape = [len(values) for values in others[0].choices.values()]
        from tuner.search_prior import Prior

        expected = Prior.from_tables(
            others[0].choices, [other.accuracies.reshape(*shape, -1) for other in others]
        )
        np.testing.assert_array_equal(prior_without(name).z, expected.z)


def test_the_shipped_prior_is_that_of_the_shipped_tables() -> None:
    from tuner.search_prior import shipped_prior

    np.testing.assert_allclose(shipped_prior().z, prior_without(None).z, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("searcher", list(PEERS))
def test_every_searcher_reports_values_of_the_table_epoch_by_epoch(searcher: str) -> None:
    table = load_table("digits")
    values = PEERS[searcher](table, 0, prior_without("digits"))
    known = set(table.accuracies.ravel().tolist())
    assert all(next(values) in known for _ in range(24))
