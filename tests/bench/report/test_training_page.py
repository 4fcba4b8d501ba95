"""What the page says of trainings: its figures are those worked out by hand, and so are its marks."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from fusetune.bench.page import Command, Fold, Items, Page, Part, Prose, plots_of, render
from fusetune.bench.report import training_part
from fusetune.bench.report.comparison import render_run
from fusetune.bench.report.curves_section import MOST_FAINT, MOST_IN_COLOUR
from fusetune.bench.report.page_parts import spec_yaml
from fusetune.bench.results import Record, RunDirectory
from fusetune.bench.spec import load_spec
from fusetune.bench.stats import recommendation, summarize
from fusetune.bench.units import parse_seconds
from tests.bench.page.checked import checked_page
from tests.bench.report.training_runs import HOSTILE, TARGET, part_of, plot, run_of, section, table, trial
from tests.bench.spec_text import SPEC

OLD_RUNS = Path(__file__).parents[1] / "old_runs"
TWO: dict[str, list[Any]] = {"batch_size": [32, 64], "optimizer": ["momentum", "adam"]}
# Steps to the target of each configuration, and its seconds a step.
FACTS = {
    (32, "momentum"): (100, 0.01),
    (32, "adam"): (50, 0.02),
    (64, "momentum"): (80, 0.03),
    (64, "adam"): None,
}


def grid() -> list[Record]:
    """Seeds 0, 1 and 2 take 1, 2 and 4 times the step time. One configuration misses the target."""
    records = []
    for (size, optimizer), known in FACTS.items():
        for seed, slower in enumerate((1.0, 2.0, 4.0)):
            steps, step_time = known or (None, 0.05)
            factors = {"batch_size": size, "optimizer": optimizer}
            peak = size * 2.0**20 + (2.0**20 if optimizer == "adam" else 0.0)
            records.append(trial(factors, seed, steps=steps, step_time=step_time * slower, peak=peak))
    return records


def one_seed_missed() -> Part:
    records = [trial({}, 0), trial({}, 1), trial({}, 2, steps=None)]
    return part_of(run_of({}, records), records)


def one_seed_reached() -> Part:
    records = [trial({}, 0), trial({}, 1, steps=None), trial({}, 2, steps=None)]
    return part_of(run_of({}, records), records)


def seeds_of_different_length() -> Part:
    curves = [(0.1, 0.5, 0.7), (0.2, 0.4), (0.6, None)]
    records = [
        trial({}, seed, accuracies=each, step_time=0.01 * (seed + 1)) for seed, each in enumerate(curves)
    ]
    return part_of(run_of({}, records), records)


def one_diverged() -> Part:
    bad = trial({"base_lr": 9.0}, 0, steps=None, status="diverged", reason="the loss is not finite")
    bad = replace(bad, curve=[{**bad.curve[0], "train_loss": 1e12}, {**bad.curve[1], "train_loss": None}])
    records = [trial({"base_lr": 0.1}, 0), bad]
    return part_of(run_of({"base_lr": [0.1, 9.0]}, records, seeds=[0]), records)


def rates_and_sizes() -> Part:
    factors: dict[str, list[Any]] = {"batch_size": [64, 32], "train.base_lr": [0.1, 0.01]}
    records = [
        trial(
            {"batch_size": size, "train.base_lr": rate},
            seed,
            steps=None if size == 64 and rate == 0.1 else size,
        )
        for size, rate, seed in product(*factors.values(), range(3))
    ]
    return part_of(run_of(factors, records), records)


def no_target() -> Part:
    records = [
        trial({"optimizer": name}, seed, steps=None, accuracies=(0.5, best + 0.01 * seed), status="ok")
        for name, best in (("momentum", 0.6), ("adam", 0.8))
        for seed in range(3)
    ]
    return part_of(run_of({"optimizer": ["momentum", "adam"]}, records, target=None), records)


def nobody_reached() -> Part:
    records = [trial({}, seed, steps=None, accuracies=(0.3, 0.5)) for seed in range(3)]
    return part_of(run_of({}, records), records)


def all_failed() -> Part:
    values = {"wanted_bytes": 3.0 * 2**30, "limit_bytes": 2.0**31}
    records = [
        Record("a", {"batch_size": 32}, 0, "out_of_memory", "too much", values),
        Record("b", {"batch_size": 64}, 0, "failed", "KeyError: 'x'"),
    ]
    return part_of(run_of({"batch_size": [32, 64]}, records), records)


def no_records() -> Part:
    return part_of(run_of(TWO, trials=12), [])


def sixty_configurations() -> Part:
    records = [trial({"width": width}, 0, steps=100 + width) for width in range(60)]
    return part_of(run_of({"width": list(range(60))}, records, seeds=[0]), records)


def hostile_names() -> Part:
    factors: dict[str, list[Any]] = {HOSTILE: [HOSTILE, "b"], "a.b[0]": [1, 2]}
    records = [
        trial(dict(zip(factors, cell, strict=True)), seed)
        for cell in product(*factors.values())
        for seed in range(3)
    ]
    return part_of(run_of(factors, records, name=HOSTILE, model={"name": HOSTILE}), records)


def one_missed_of_three() -> Part:
    records = grid()
    at = next(
        at for at, each in enumerate(records) if each.factors == {"batch_size": 64, "optimizer": "momentum"}
    )
    records[at + 2] = trial(records[at].factors, 2, steps=None, step_time=0.12)
    return part_of(run_of(TWO, records), records)


def gained() -> Part:
    records = [trial({"optimizer": "adam"}, seed, steps=25, step_time=0.02) for seed in range(3)]
    records += [
        trial({"optimizer": "momentum"}, seed, steps=100 + 10 * seed, step_time=0.04) for seed in range(3)
    ]
    return part_of(run_of({"optimizer": ["momentum", "adam"]}, records), records)


@pytest.mark.slow
@pytest.mark.parametrize(
    "made",
    [
        one_seed_reached,
        seeds_of_different_length,
        one_diverged,
        rates_and_sizes,
        no_target,
        nobody_reached,
        all_failed,
        no_records,
        sixty_configurations,
        hostile_names,
        one_missed_of_three,
        gained,
    ],
)
def test_every_plot_compiles_and_draws(made: Callable[[], Part]) -> None:
    checked_page(made())


@pytest.mark.slow
def test_the_plots_of_one_configuration_compile_and_draw() -> None:
    titles = [each.title for each in checked_page(one_seed_missed())]
    assert "Time to target by configuration" in titles
    assert len(titles) == 8


@pytest.fixture(scope="module")
def whole() -> Part:
    return part_of(run_of(TWO, grid()), grid())


def test_the_head_has_question_answer_and_facts(whole: Part) -> None:
    assert (
        whole.asked
        == "With which batch_size and optimizer does cnn reach val_accuracy >= 0.6 on digits first?"
    )
    assert f"{whole.answer} {whole.more}" == recommendation(summarize(run_of(TWO, grid()), grid()))
    assert whole.answer.startswith(
        "Use batch_size=32, optimizer=momentum: reaches val_accuracy >= 0.6 in 2.00 s"
    )
    facts = dict(whole.facts)
    assert facts["trials"].startswith("grid: 4 configurations x 3 seeds = 12 trials")
    assert facts["target"] == "val_accuracy >= 0.6"
    assert facts["device"] == "cpu, Example CPU, 2 cores, 16.0 GiB"


def test_the_ranking_has_medians_ranges_and_no_number_for_a_miss(whole: Part) -> None:
    data = plot(whole, "ranking", "Time to target").data["rows"]
    assert data["name"] == ["1* 32, momentum", "~2 32, adam", "~3 64, momentum", "~4 64, adam"]
    # 100 x 0.01 s, 50 x 0.02 s and 80 x 0.03 s, times 1, 2 and 4.
    assert data["middle"] == pytest.approx([2.0, 2.0, 4.8, None])
    assert data["low"] == pytest.approx([1.0, 1.0, 2.4, None])
    assert data["high"] == pytest.approx([4.0, 4.0, 9.6, None])
    assert data["note"][3] == "missed"
    assert data["figures"][3] == "missed, best val acc 70.00 %"
    assert data["role"] == ["first", "tied", "tied", "tied"]
    assert "1 have no dot" in plot(whole, "ranking", "Time to target").alt


def test_the_table_sorts_on_raw_numbers_and_a_miss_has_none(whole: Part) -> None:
    rows = table(whole, "ranking", "by rank")
    assert [row["#"].text for row in rows] == ["1*", "~2", "~3", "~4"]
    assert [row["time to target"].order for row in rows] == pytest.approx([2.0, 2.0, 4.8, None])
    assert [row["time to target"].text for row in rows] == ["2.00 s", "2.00 s", "4.80 s", "missed"]
    assert rows[0]["time to target"].small == "1.00..4.00 s"
    assert [row["batch_size"].order for row in rows] == [32.0, 32.0, 64.0, 64.0]
    assert [row["reached"].text for row in rows] == ["3/3", "3/3", "3/3", "0/3"]


def test_a_seed_that_missed_leaves_the_range_open() -> None:
    part = one_seed_missed()
    data = plot(part, "ranking", "Time to target").data["rows"]
    assert (data["middle"], data["high"], data["open"]) == ([1.0], [None], [True])
    assert data["note"] == ["reached by 2 of 3"]
    assert table(part, "ranking", "by rank")[0]["time to target"].small == "1.00 s..∞"


def test_a_median_that_missed_has_no_dot() -> None:
    part = one_seed_reached()
    data = plot(part, "ranking", "Time to target").data["rows"]
    assert (data["low"], data["middle"], data["high"]) == ([1.0], [None], [None])
    assert table(part, "ranking", "by rank")[0]["time to target"].order is None


def test_steps_times_step_time_is_the_time_of_each_point_and_line(whole: Part) -> None:
    found = plot(whole, "ranking", "Why the times differ")
    points, lines = (dict[str, Any](found.data[name]) for name in ("points", "lines"))
    assert points["rank"] == ["1*", "~2", "~3"]
    assert points["x"] == pytest.approx([20.0, 40.0, 60.0])  # ms, of the middle seed
    assert points["y"] == pytest.approx([100.0, 50.0, 80.0])
    assert [x * y / 1000 for x, y in zip(points["x"], points["y"], strict=True)] == pytest.approx(
        [2.0, 2.0, 4.8]
    )
    products = [x * y / 1000 for x, y in zip(lines["x"], lines["y"], strict=True)]
    assert products == pytest.approx([parse_seconds(text) for text in lines["time"]])
    assert "50 steps of 40.0 ms" in found.alt


def test_the_gain_is_split_into_steps_and_step_time() -> None:
    part = gained()
    data = plot(part, "ranking", "Gain over train").data["gain"]
    steps = (100 * 110 * 120) ** (1 / 3) / 25
    assert data["ratio"] == pytest.approx([2 * steps, steps, 2.0])
    assert data["name"] == ["8.78x sooner", "= 4.39x fewer steps", "x 2.00x faster steps"]
    shares = [row["share of the gain"].text for row in table(part, "ranking", "Gain of the first place")[:3]]
    assert shares == ["", "68 %", "32 %"]  # log 4.39 / log 8.78


def test_curves_are_medians_with_ranges_over_the_seeds_that_have_the_epoch() -> None:
    part = seeds_of_different_length()
    found = plot(part, "curves", "Validation accuracy by epoch")
    data = found.data["curves"]
    assert data["epoch"] == [1, 2, 3]
    assert data["val_accuracy"] == pytest.approx([20.0, 45.0, None])
    assert data["val_accuracy_low"] == pytest.approx([10.0, 40.0, None])
    assert data["val_accuracy_high"] == pytest.approx([60.0, 50.0, None])
    # Epoch 3 has one seed of three, which is no median of them.
    assert data["time"] == pytest.approx([1.0, 2.0, 1.5])
    assert "ended at different epochs" in section(part, "curves").lead
    assert "1* train at 45.00 % after 2 epochs" in found.alt
    assert len({id(each.data["curves"]) for each in plots_of(section(part, "curves").blocks)}) == 1


def test_what_diverged_leaves_room_for_the_others() -> None:
    part = one_diverged()
    found = plot(part, "curves", "Training loss")
    assert found.caption == "What diverged goes on above 6."  # three times the other's 2.0
    assert max(found.data["curves"]["train_loss"][:2]) == 2.0
    assert "nan" not in json.dumps(dict(found.spec)).lower()
    row = table(part, "failures", "Not trained")[0]
    assert (row["status"].text, row["why"].text) == ("diverged", "the loss is not finite")
    assert section(part, "failures").lead == "1 trial of 2 could not be trained to the end."


def test_main_effects_have_the_ratios_and_mark_what_cannot_be_told(whole: Part) -> None:
    data = plot(whole, "effects", "Main effects as ratios").data["levels"]
    found = dict(zip(zip(data["name"], data["measure"], strict=True), data["value"], strict=True))
    # momentum / adam at batch size 32, the only pairs that both reached: 100 x 0.01 against 50 x 0.02.
    assert found["optimizer: adam / momentum", "sooner"] == pytest.approx(1.0)
    assert found["optimizer: adam / momentum", "= fewer steps"] == pytest.approx(2.0)
    # Over all pairs: the geometric mean of 0.01 / 0.02 and 0.03 / 0.05.
    assert found["optimizer: adam / momentum", "x faster steps"] == pytest.approx((0.5 * 0.6) ** 0.5)
    for told, figure, low, high in zip(
        *(data[name] for name in ("told", "figure", "low", "high")), strict=True
    ):
        assert told == (not figure.startswith("~"))
        assert not told or not low <= 1 <= high
    rows = table(whole, "effects", "Main effects")
    assert [row["level"].small for row in rows] == ["reference", "", "reference", ""]


def test_interactions_are_medians_of_pairs_and_a_miss_is_a_word(whole: Part) -> None:
    found = plot(whole, "effects", "Time to target: optimizer with batch_size")
    data = found.data["cells"]
    medians = dict(zip(zip(data["x"], data["line"], strict=True), data["middle"], strict=True))
    assert medians == {
        ("momentum", "32"): pytest.approx(2.0),
        ("adam", "32"): pytest.approx(2.0),
        ("momentum", "64"): pytest.approx(4.8),
        ("adam", "64"): None,
    }
    assert "missed: adam with 64." in found.caption
    # Of three seeds of momentum with 64, one missed: from 2.4 s on, without an end.
    open_ended = plot(one_missed_of_three(), "effects", "Time to target: optimizer with batch_size")
    highs = dict(zip(*(open_ended.data["cells"][name] for name in ("low", "high")), strict=True))
    assert highs[2.4] is None
    assert "A dashed line is open" in open_ended.caption
    assert "A dashed line is open" not in found.caption


def test_learning_rate_by_batch_size_is_a_heat_map_that_says_missed() -> None:
    part = rates_and_sizes()
    found = plot(part, "effects", "Time to target (ms) by learning rate and batch size")
    data = found.data["cells"]
    cells = {
        (x, y): (value, text)
        for x, y, value, text in zip(*(data[n] for n in ("x", "y", "value", "text")), strict=True)
    }
    assert cells["64", "0.1"] == (None, "missed")
    assert cells["32", "0.01"] == (pytest.approx(320.0), "320")
    assert not [each for each in plots_of(section(part, "effects").blocks) if " with " in each.title]


@pytest.mark.parametrize("design", ["one-at-a-time", "random"])
def test_factors_that_were_not_crossed_have_no_interaction(design: str) -> None:
    cells = [(32, "momentum"), (64, "momentum"), (32, "adam")]
    records = [trial({"batch_size": s, "optimizer": o}, seed) for s, o in cells for seed in range(3)]
    part = part_of(run_of(TWO, records, design=design), records)
    assert not [each for each in plots_of(section(part, "effects").blocks) if " with " in each.title]
    assert dict(part.facts)["trials"].startswith(f"{design}: 3 configurations")


def test_the_front_is_what_no_other_beats_in_both(whole: Part) -> None:
    found = plot(whole, "batch-size", "Time to target against peak memory")
    # Ranks 1 and 2 take as long, and rank 1 takes less memory.
    assert found.data["points"]["front"] == [True, False, False]
    assert found.data["front"] == {"x": [32.0], "y": pytest.approx([2.0])}


def test_without_a_target_the_score_is_ranked() -> None:
    part = no_target()
    data = plot(part, "ranking", "Best val acc").data["rows"]
    assert data["middle"] == pytest.approx([81.0, 61.0])
    assert part.asked == "With which optimizer does cnn have the best validation accuracy on digits?"
    assert not [each for each in plots_of(section(part, "ranking").blocks) if "Why the times" in each.title]


def test_a_target_that_nobody_reached_is_a_line_and_no_time() -> None:
    part = nobody_reached()
    found = plot(part, "ranking", "Best val acc")
    assert "target 60.00 %" in json.dumps(dict(found.spec))
    assert part.answer == "No configuration reached val_accuracy >= 0.6."


def test_without_records_only_advice_is_left() -> None:
    part = no_records()
    assert [each.key for each in part.ordered] == ["surer", "reproduce"]
    assert part.answer == "No trial has finished, so there is nothing to recommend."


def test_when_all_failed_each_reason_is_said() -> None:
    part = all_failed()
    assert part.answer == "No configuration could be trained to its end."
    rows = table(part, "failures", "Not trained")
    found = [(row["status"].text, row["wanted of limit"].text, row["wanted of limit"].small) for row in rows]
    assert found == [("out of memory", "3.00 GiB", "of 2.00 GiB"), ("failed", "-", "")]


def test_a_run_that_goes_on_says_so_and_how_to_continue() -> None:
    records = grid()[:4]
    part = part_of(run_of(TWO, trials=12), records)
    assert part.more.endswith("8 trials of 12 not run yet, so the answer may change.")
    commands = [each.text for each in section(part, "surer").blocks if isinstance(each, Command)]
    assert any("--resume results/demo/" in text for text in commands)
    assert any(isinstance(each, Prose | Items) for each in section(part, "surer").blocks)


def test_findings_have_evidence_confidence_and_advice() -> None:
    finding = {
        "name": "overfitting",
        "title": "overfitting",
        "sentence": "The validation loss turns at epoch 3.",
        "evidence": {"turn_epoch": 3.0, "rise": 0.25},
        "try_next": "Stop earlier.",
        "confidence": "likely",
    }
    records = [trial({}, 0, findings=[finding]), trial({}, 1)]
    part = part_of(run_of({}, records), records)
    (row,) = table(part, "diagnosis", "Findings")
    cell = row["finding: what shows it, and what to try"]
    assert cell.text == "overfitting: The validation loss turns at epoch 3. Stop earlier."
    assert cell.small == "likely, 1/2 seeds. turn epoch 3, rise 0.25"
    items = section(part, "diagnosis").blocks[0]
    assert isinstance(items, Items)
    assert items.sentences[0].startswith("The first place, overfitting:")


def test_a_stand_in_and_contention_are_said() -> None:
    records = [
        replace(each, values={**each.values, "processor_missing": 0.4 if each.seed == 1 else 0.0})
        for each in grid()
    ]
    part = part_of(run_of(TWO, records, stand_in="digits is not there; spirals stand in"), records)
    assert part.banners == ("STAND-IN DATA: digits is not there; spirals stand in",)
    assert table(part, "ranking", "by rank")[0]["step time"].text.endswith("!")
    assert any(name == "note" and text.startswith("Contended: 4 of 12") for name, text in part.facts)


def test_many_configurations_are_ten_colours_grey_lines_and_a_count() -> None:
    part = sixty_configurations()
    found = plot(part, "curves", "Validation accuracy by epoch")
    assert len(set(found.data["curves"]["series"])) == MOST_IN_COLOUR == 10
    assert len(set(found.data["others"]["series"])) == MOST_FAINT
    assert "20 configurations of lower rank are left out." in section(part, "curves").lead
    assert len(table(part, "ranking", "by rank")) == 60
    assert len(plot(part, "ranking", "Time to target").data["rows"]["name"]) == 20


def test_every_trial_is_in_the_table_with_raw_numbers(whole: Part) -> None:
    rows = table(whole, "ranking", "Trials")
    assert len(rows) == 12
    assert [row["time to target"].order for row in rows[:3]] == pytest.approx([1.0, 2.0, 4.0])
    assert {row["status"].text for row in rows[9:]} == {"missed"}


def test_names_of_others_are_values_and_never_fields_or_markup() -> None:
    part = hostile_names()
    html = render(Page("hostile", (part,)))
    assert HOSTILE not in html
    assert "<img src=x" not in html


def test_the_resolved_spec_is_yaml_that_loads_to_the_same_spec(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(SPEC)
    first = load_spec(path)
    run = replace(run_of(TWO), spec=replace(run_of(TWO).spec, content=first.spec.resolved()))
    again = tmp_path / "again.yaml"
    again.write_text(spec_yaml(run))
    assert load_spec(again).spec.resolved() == first.spec.resolved()
    folds = [each for each in section(part_of(run, []), "reproduce").blocks if isinstance(each, Fold)]
    assert [each.title for each in folds] == ["The resolved spec", "Versions and data"]
    assert yaml.safe_load(spec_yaml(run_of(TWO)))["target"] == TARGET


OLD_TRAININGS = [
    path for path in sorted(OLD_RUNS.glob("*/*/run.json")) if json.loads(path.read_text())["kind"] == "run"
]


def test_there_are_old_trainings() -> None:
    assert len(OLD_TRAININGS) >= 3


@pytest.mark.parametrize("path", OLD_TRAININGS, ids=lambda path: path.parent.name)
def test_old_runs_make_a_page(path: Path) -> None:
    directory = RunDirectory.open(path.parent)
    records, _ = directory.records()
    part = part_of(directory.run, records)
    assert {"ranking", "curves", "reproduce"} <= {each.key for each in part.ordered}


def test_page_and_terminal_name_the_devices_of_a_cluster() -> None:
    runs = [
        replace(
            trial({"batch_size": 32}, seed),
            provenance={"node": f"n{seed}", "device_id": "0", "device_name": "NVIDIA H100"},
        )
        for seed in range(2)
    ]
    run = run_of({"batch_size": [32]}, runs, executor="ray: 8 devices on 1 node, NVIDIA H100")
    summary = summarize(run, runs)
    said = "ray, 2 nodes, 2 devices (NVIDIA H100)"
    assert dict(training_part(summary, runs).facts)["executor"] == said
    printed = io.StringIO()
    render_run(summary, Console(file=printed, width=100))
    assert f"\nexecutor  {said}" in printed.getvalue()
    local = training_part(summarize(run_of({"batch_size": [32]}, runs), []), [])
    assert "executor" not in dict(local.facts)
