"""The recorded tables and their replay: tables hold what plain trainings reach, costs are counted right."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fusetune.bench.search_bench import record as recorder
from fusetune.bench.search_bench.narrow import NARROW, shares_found
from fusetune.bench.search_bench.peers import PEERS
from fusetune.bench.search_bench.record import record
from fusetune.bench.search_bench.replay import (
    interval,
    load_table,
    prior_without_family,
    replay,
    summary_row,
    table_names,
)
from fusetune.bench.search_bench.table import Table
from fusetune.bench.search_bench.workloads import WORKLOADS, Workload
from fusetune.tuner.schedules import table as schedules
from fusetune.tuner.search.prior import Prior, shipped_prior

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
    multiplier = schedules.build_schedule(
        config["schedule"], total_steps=EPOCHS * steps, steps_per_epoch=steps
    )
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
    table = Table({"lr": [0.1, 1.0], "name": ["a", "b", "c"]}, correct, 50, "letters")
    table.save(tmp_path / "table.npz")
    read = Table.load(tmp_path / "table.npz")
    assert (read.choices, read.validation, read.family) == (table.choices, 50, "letters")
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


def prior_of(tables: list[Table]) -> Prior:
    shape = [len(values) for values in tables[0].choices.values()]
    return Prior.from_tables(tables[0].choices, [table.accuracies.reshape(*shape, -1) for table in tables])


def test_a_prior_never_comes_from_data_related_to_the_table_it_is_judged_on() -> None:
    assert len({load_table(name).family for name in table_names()}) >= 4
    for name in table_names():
        family = load_table(name).family
        others = [table for table in map(load_table, table_names()) if table.family != family]
        np.testing.assert_array_equal(prior_without_family(family).terms, prior_of(others).terms)


def test_every_table_that_ships_is_of_a_workload_that_can_be_recorded_again() -> None:
    for name in table_names():
        table = load_table(name)
        assert table.family == WORKLOADS[name].family
        assert table.correct.max() <= table.validation


def test_the_shipped_prior_is_that_of_the_shipped_tables() -> None:
    np.testing.assert_allclose(shipped_prior().terms, prior_without_family(None).terms, atol=0.01)


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_a_workload_is_the_same_each_time_and_holds_out_samples_of_its_own(name: str) -> None:
    one, again = WORKLOADS[name].draw(), WORKLOADS[name].draw()
    assert torch.equal(one.x, again.x)
    assert torch.equal(one.y_val, again.y_val)
    assert abs(float(one.x.mean())) < 1e-3
    assert float(one.x.std()) == pytest.approx(1, abs=1e-3)
    assert set(one.y_val.tolist()) <= set(one.y.tolist())
    assert not {row.tobytes() for row in one.x.numpy()} & {row.tobytes() for row in one.x_val.numpy()}


def median_epochs(name: str, prior: Prior | None, seeds: int) -> float:
    """Median epochs to 0.5 points; not found within 400 counts as 400."""
    table = load_table(name)
    searcher = PEERS["tuner.search" if prior else "tuner.search, no prior"]
    found = [replay(searcher(table, seed, prior), table.best, 400).epochs[0] for seed in range(seeds)]
    return float(np.median([epochs or 400 for epochs in found]))


def test_earlier_runs_on_other_data_lead_to_the_best_in_few_epochs() -> None:
    for name, bound in (("jittered-digits", 60), ("strokes", 60), ("redrawn-digits", 100)):
        assert median_epochs(name, prior_without_family(load_table(name).family), seeds=5) <= bound, name


def test_earlier_runs_that_mislead_cost_no_more_than_half_as_much_again() -> None:
    table = load_table("strokes")
    others = [load_table(name) for name in table_names()]
    shape = [len(values) for values in table.choices.values()]
    opposite = Prior.from_tables(
        table.choices,
        [1 - other.accuracies.reshape(*shape, -1) for other in others if other.family != table.family],
    )
    alone = median_epochs("strokes", None, seeds=3)
    assert median_epochs("strokes", opposite, seeds=3) <= 1.5 * alone + 2 * table.epochs


def test_a_prior_that_is_right_of_all_but_the_best_is_given_up() -> None:
    # Two configurations win by luck, where earlier runs recommend none. Without a prior they take about 214 epochs.
    assert median_epochs("digits", prior_without_family(load_table("digits").family), seeds=3) < 400


@pytest.mark.parametrize(
    "name",
    ["half a decade of nine", "a momentum near 1 with a small rate", "batches that fit, of a million"],
)
def test_a_narrow_region_that_random_search_finds_is_found(name: str) -> None:
    ours, chance = shares_found([name], range(3))[name]
    assert chance > 0.5
    assert ours > 0.5


@pytest.mark.exhaustive
def test_nine_of_ten_narrow_regions_that_random_search_finds_are_found() -> None:
    found = shares_found(list(NARROW), range(5))
    assert len(found) == 10
    assert all(chance > 0.5 for _, chance in found.values())
    assert sum(ours > 0.5 for ours, _ in found.values()) >= 9


def test_replays_with_different_seeds_are_different_replays() -> None:
    table = load_table("strokes")
    prior = prior_without_family(table.family)
    told = [tuple(itertools.islice(PEERS["tuner.search"](table, seed, prior), 40)) for seed in (0, 0, 1, 2)]
    assert told[0] == told[1]
    assert len(set(told)) == 3


@pytest.mark.parametrize("searcher", list(PEERS))
def test_every_searcher_reports_values_of_the_table_epoch_by_epoch(searcher: str) -> None:
    table = load_table("digits")
    values = PEERS[searcher](table, 0, prior_without_family(table.family))
    known = set(table.accuracies.ravel().tolist())
    assert all(next(values) in known for _ in range(24))
