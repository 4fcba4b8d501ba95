"""What a page says of a search, against its event log, its records and what another library finds."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusetune.bench.page import Part
from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.search.event_log import LOG
from fusetune.bench.search.page_factors import Axis, Sample, sample_of, smooth_prediction, told_apart
from fusetune.bench.search.page_sections import search_part
from fusetune.bench.search.study import SearchStudy, study_search
from fusetune.bench.stats.wording import counted
from tests.bench.compiled_plots import check, plots_in, rows_of, table_in, words_in
from tests.bench.search.test_run import BUDGET, EPOCHS, Bench

OLD = Path(__file__).parents[1] / "old_runs" / "searched" / "20261129-112428-acc4"
HOSTILE = "</script><b>x[0].y"
SPACE: dict[str, Any] = {
    "base_lr": {"low": 1e-4, "high": 1.0, "log": True},
    "weight_decay": {"low": 0.0, "high": 0.1},
    "optimizer": ["adam", HOSTILE, "sgd"],
}
Value = Callable[[dict[str, Any], random.Random], float | None]


def peaked(config: dict[str, Any], chance: random.Random) -> float | None:
    """Best at a rate of 0.01, whatever the other factors are. Rates near 1 diverge."""
    if config["base_lr"] > 0.7:
        return None
    return 0.9 - 0.05 * (math.log10(config["base_lr"]) + 2) ** 2 + chance.gauss(0, 0.005)


def noise_alone(config: dict[str, Any], chance: random.Random) -> float | None:
    return chance.uniform(0.5, 0.9)


def search_of(path: Path, count: int, value: Value = peaked, epochs: int = 4) -> SearchStudy:
    """A search whose trainings all ran to the end, or diverged."""
    path.mkdir(parents=True)
    spec = {
        "name": "demo",
        "factors": SPACE,
        "seeds": [0],
        "train": {"epochs": epochs},
        "target": {"metric": "val_accuracy", "at_least": 0.95},
        "design": {"search": {"budget_epochs": count * epochs, "prior": False, "fresh_seeds": 2}},
    }
    (path / "run.json").write_text(
        json.dumps({"schema_version": 2, "kind": "search", "spec": spec, "run_id": "r"})
    )
    chance, events = random.Random(0), []
    for number in range(count):
        config = {
            "base_lr": 10 ** chance.uniform(-4, 0),
            "weight_decay": chance.uniform(0, 0.1),
            "optimizer": SPACE["optimizer"][number % 3],
        }
        events.append({"event": "begin", "training": number, "config": config})
        top = value(config, chance)
        if top is None:
            end = {"status": "diverged", "reason": f"the loss of {HOSTILE} is not finite"}
        else:
            end = {"status": "finished", "reason": "all epochs"}
            for epoch in range(1, epochs + 1):
                entry = {"epoch": epoch, "val_accuracy": top - 0.1 * (epochs - epoch)}
                events.append({"event": "epoch", "training": number, "entry": entry})
        events.append({"event": "end", "training": number, **end})
    (path / LOG).write_text("".join(json.dumps(event) + "\n" for event in events))
    (path / "records.jsonl").write_text("")
    return study_search(RunDirectory.open(path).run, [], str(path))


def events_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / LOG).read_text().splitlines()]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchStudy, Part, Path]:
    path = tmp_path_factory.mktemp("search") / "run"
    study = search_of(path, 40)
    return study, search_part(study, []), path


def test_every_plot_compiles_and_names_of_others_are_data(searched: tuple[SearchStudy, Part, Path]) -> None:
    _, part, _ = searched
    *others, contours = check(part)
    assert others == [
        "Best so far",
        "Every training",
        "Importance of each factor",
        "All trainings, factor by factor",
    ]
    assert contours.startswith("Predicted between the points: ")
    labels = plots_in(part)["All trainings, factor by factor"].data["levels"]["label"]
    assert HOSTILE in labels


def test_the_best_so_far_is_the_running_maximum_of_the_log(searched: tuple[SearchStudy, Part, Path]) -> None:
    study, part, path = searched
    told: list[float] = []
    for event in events_of(path):
        if event["event"] == "epoch":
            told.append(event["entry"]["val_accuracy"])
        elif event.get("status") == "diverged":
            told.append(-math.inf)
    best = plots_in(part)["Best so far"].data["best"]
    running = np.maximum.accumulate(told).tolist()
    assert best["value"] == [None if value == -math.inf else value for value in running]
    assert len(best["epoch"]) == study.epochs_used
    assert f"{max(told):.4g}" in plots_in(part)["Best so far"].alt


def test_curves_and_ends_are_those_of_the_log(searched: tuple[SearchStudy, Part, Path]) -> None:
    study, part, path = searched
    plot = plots_in(part)["Every training"]
    assert [(row["training"], row["epoch"], row["value"]) for row in rows_of(plot.data["curves"])] == [
        (event["training"], event["entry"]["epoch"], event["entry"]["val_accuracy"])
        for event in events_of(path)
        if event["event"] == "epoch"
    ]
    diverged = [event["training"] for event in events_of(path) if event.get("status") == "diverged"]
    assert diverged
    assert plot.data["ends"]["ended"] == ["finished"] * (40 - len(diverged))
    assert f"{counted(len(diverged), 'training')} without any value" in plot.caption
    failed = table_in(part, "Trainings that failed").rows
    assert len(failed) == len(diverged)
    assert failed[0][2].text == f"the loss of {HOSTILE} is not finite"
    assert len(table_in(part, "Trainings of the search").rows) == len(study.trials) == 40


def test_shares_are_the_studys_and_a_factor_without_effect_keeps_its_mark(
    searched: tuple[SearchStudy, Part, Path],
) -> None:
    study, part, _ = searched
    rows = rows_of(plots_in(part)["Importance of each factor"].data["factors"])
    assert [row["name"] for row in rows] == list(study.importances)
    assert [row["share"] for row in rows] == [
        pytest.approx(100 * share) for share in study.importances.values()
    ]
    assert rows[0]["name"] == "base_lr"
    assert rows[0]["told"]
    assert all(row["text"].startswith("~") != row["told"] for row in rows)
    assert (
        f"of {len(study.predicted.trials)} trainings" in plots_in(part)["Importance of each factor"].caption
    )


@pytest.mark.slow
def test_noise_alone_is_hardly_ever_told_from_chance() -> None:
    chance = np.random.default_rng(0)
    axes = tuple(Axis(name) for name in "abcd")
    passed: list[bool] = []
    for seed in range(4):
        places = chance.uniform(size=(30, 4))
        sample = Sample(axes, places, ({},) * 30, chance.normal(size=30))
        found = told_apart(sample, seed)
        assert found is not None
        passed += found.values()
    assert sum(passed) <= 2
    effect = chance.uniform(size=(60, 4))
    told = told_apart(Sample(axes, effect, ({},) * 60, effect[:, 2] + chance.normal(0, 0.05, 60)), 0)
    assert told is not None
    assert told["c"]


def test_too_few_trainings_cannot_be_checked_and_that_is_said(tmp_path: Path) -> None:
    study = search_of(tmp_path / "run", 15)
    part = search_part(study, [])
    plot = check(part)["Importance of each factor"]
    assert not any(plot.data["factors"]["told"])
    assert "cannot tell any factor's importance from chance. 20 are needed." in plot.alt
    few = search_part(search_of(tmp_path / "few", 4), [])
    assert "Importance of each factor" not in check(few)
    assert "cannot tell importances: fewer than 8 trainings reported a value" in words_in(few)
    assert not any(title.startswith("Predicted") for title in plots_in(few))


def test_each_line_runs_through_its_places_on_all_axes(searched: tuple[SearchStudy, Part, Path]) -> None:
    study, part, _ = searched
    sample = sample_of(study)
    rows = rows_of(plots_in(part)["All trainings, factor by factor"].data["lines"])
    count = len(sample.values)
    assert len(rows) == 4 * count
    for number in range(count):
        own = {row["axis"]: row for row in rows if row["training"] == number}
        params, value = sample.params[number], sample.values[number]
        assert own["base_lr"]["place"] == pytest.approx((math.log10(params["base_lr"]) + 4) / 4)
        assert own["weight_decay"]["place"] == pytest.approx(params["weight_decay"] / 0.1)
        assert own["optimizer"]["place"] == SPACE["optimizer"].index(params["optimizer"]) / 2
        assert own["base_lr"]["value"] == value
    strong = {row["value"] for row in rows if row["best"]}
    assert strong == set(sorted(sample.values.tolist())[-round(0.1 * count) :])


def test_contours_are_a_prediction_beside_the_points_and_say_so(
    searched: tuple[SearchStudy, Part, Path],
) -> None:
    study, part, _ = searched
    (plot,) = [plot for title, plot in plots_in(part).items() if title.startswith("Predicted between")]
    sample = sample_of(study)
    assert sorted(plot.data["trainings"]["value"]) == sorted(sample.values.tolist())
    assert "predicted between the points" in plot.caption
    assert "not measured" in plot.caption
    assert len(plot.data["cells"]["value"]) == 24 * 24
    lowest = min(plot.data["cells"]["x"]), min(plot.data["cells"]["y"])
    assert sorted(lowest) == [pytest.approx(0.0), pytest.approx(1e-4)]


def test_a_gaussian_process_finds_a_plane_again() -> None:
    chance = np.random.default_rng(0)
    places = chance.uniform(size=(60, 2))
    grid = np.array([(0.25, 0.5), (0.75, 0.5)])
    predicted = smooth_prediction(places, places[:, 0] + chance.normal(0, 0.01, 60), grid, 0)
    assert predicted == pytest.approx([0.25, 0.75], abs=0.02)


def test_a_search_that_found_nothing_says_what_to_try(tmp_path: Path) -> None:
    part = search_part(search_of(tmp_path / "run", 3, lambda config, chance: None), [])
    assert set(check(part)) == set()
    assert "diverged" in part.answer
    assert len(table_in(part, "Trainings that failed").rows) == 3


@pytest.mark.slow
def test_the_winner_is_shown_on_its_fresh_seeds_and_lost_workers_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    records = bench.run(dies=lambda number, step, others: "idle" if number == 6 else None)
    study = study_search(RunDirectory.open(bench.directory).run, records, str(bench.directory))
    part = search_part(study, records)
    plot = check(part)["The winner again, on fresh seeds"]
    fresh = [row["value"] for row in rows_of(plot.data["runs"]) if row["name"] == "winner on fresh seeds"]
    expected = [max(e["val_accuracy"] for e in r.curve) for r in records if r.seed in study.plan.fresh_seeds]
    assert fresh == expected
    assert len(fresh) == 3
    assert rows_of(plot.data["mean"])[0]["value"] == pytest.approx(np.mean(expected))
    assert rows_of(plot.data["mean"])[0]["low"] == study.fresh.low
    assert part.answer.startswith("Use base_lr=")
    assert "The best of many is partly luck; on 3 fresh seeds: " in part.more
    assert "The `train` configuration is not among the trainings" in part.more
    assert study.epochs_used == len(study.spent) == BUDGET
    assert max(row["epoch"] for row in rows_of(check(part)["Every training"].data["curves"])) == EPOCHS
    assert study.made_again > 0
    assert f"{study.made_again} epoch" in words_in(part)
    assert "trained again after a worker was lost" in words_in(part)


def test_an_old_search_has_its_page_without_an_order_that_nobody_knows() -> None:
    directory = RunDirectory.open(OLD)
    records, _ = directory.records()
    study = study_search(directory.run, records, str(OLD))
    part = search_part(study, records)
    assert "Best so far" not in check(part)
    assert "The order of the epochs is not known" in words_in(part)
    assert "Every training" in check(part)
    fresh = [
        max(e["val_accuracy"] or 0 for e in r.curve) for r in records if r.seed in study.plan.fresh_seeds
    ]
    again = rows_of(check(part)["The winner again, on fresh seeds"].data["runs"])
    assert [row["value"] for row in again if row["name"] == "winner on fresh seeds"] == fresh
