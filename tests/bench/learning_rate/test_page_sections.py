"""What a page says of LR range tests, against the records that it was made of."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusetune.bench.learning_rate.page_sections import fit_columns, lr_range_part
from fusetune.bench.learning_rate.study import study_learning_rates
from fusetune.bench.page import Part, render
from fusetune.bench.page.page import Fold, Page
from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.results.records import Record
from fusetune.bench.results.run_info import RunInfo
from fusetune.tuner.learning_rate.scaling import LRScaling
from tests.bench.compiled_plots import check, compiled, rows_of, table_in, words_in
from tests.bench.learning_rate.test_study import FACTORS, flat_record, records, run_json, swept_record

OLD = Path(__file__).parents[1] / "old_runs" / "sizes" / "20261129-113216-3189"
HOSTILE = "</script><b>x[0].y"


def part_of(made: list[Record], factors: dict[str, list[Any]] | None = None, **options: Any) -> Part:
    content = run_json(factors or {})
    content["options"] |= options
    run = RunInfo.from_dict(content)
    return lr_range_part(study_learning_rates(run, made, "results/demo/20260102-030405-abcd"), made)


def marked(part: Part, title: str) -> dict[str, float]:
    """Label of each line across a sweep's plot -> where it is."""
    layers = check(part)[title].spec["layer"]
    values = [row for layer in layers for row in layer.get("data", {}).get("values", []) if "at" in row]
    return {row["label"]: row["at"] for row in values}


def test_a_sweep_has_the_losses_of_the_record_and_its_marks_at_the_rates_that_were_found() -> None:
    record = swept_record({}, 0.01)
    part = part_of([record])
    plot = check(part)["Sweep: train"]
    assert rows_of(plot.data["smoothed"]) == [
        {"lr": entry["lr"], "loss": entry["smoothed"]}
        for entry in record.curve
        if entry["smoothed"] is not None
    ]
    for number in (1, 2):
        assert [row["loss"] for row in rows_of(plot.data["repeats"]) if row["repeat"] == number] == [
            loss for entry in record.curve if (loss := entry[f"loss_{number}"]) is not None
        ]
    assert marked(part, "Sweep: train") == {
        "suggested 0.01": 0.01,
        "confirmed 0.005": 0.005,
        "diverges at 0.4": 0.4,
    }
    bands = [
        layer["data"]["values"][0] for layer in plot.spec["layer"] if layer["mark"].get("style") == "band"
    ]
    assert bands == [{"from": pytest.approx(0.008), "to": pytest.approx(0.0125)}]
    cycles = [
        layer["data"]["values"][0] for layer in plot.spec["layer"] if layer["mark"].get("style") == "other"
    ]
    assert {(cycle["from"], cycle["to"]) for cycle in cycles} == {(0.00125, 0.015)}
    x = next(scale for scale in compiled(plot)["scales"] if scale["name"] == "x")
    assert x["type"] == "log"
    assert x["domain"][0] < 1e-7
    assert "interval 0.008..0.0125" in plot.alt


def test_short_trainings_are_drawn_and_those_that_diverged_are_counted() -> None:
    plot = check(part_of([swept_record({}, 0.01)]))["Short trainings: train"]
    assert rows_of(plot.data["trainings"]) == [
        {"lr": 0.0025, "loss": 0.4},
        {"lr": 0.005, "loss": 0.3},
        {"lr": 0.01, "loss": 0.5},
    ]
    assert "1 more rate diverged" in plot.caption
    assert "the lowest validation loss is 0.3, at 0.005" in plot.alt


def test_what_a_sweep_cannot_tell_is_said_and_not_drawn() -> None:
    part = part_of([flat_record({})])
    assert part.answer == "These data cannot tell a rate."
    assert "never falls by more than its noise" in part.more
    assert marked(part, "Sweep: train") == {}
    assert not [
        layer for layer in check(part)["Sweep: train"].spec["layer"] if layer["mark"].get("style") == "band"
    ]
    assert "cannot tell" in check(part)["Sweep: train"].alt
    table = table_in(part, "Learning rates by configuration")
    assert [cell.text for cell in table.rows[0]] == ["train", "can't tell", "-", "-", "-"]
    assert table.rows[0][1].order is None


@pytest.mark.parametrize(("validation", "loss"), [(False, "training loss"), (True, "validation loss")])
def test_the_axis_names_the_loss_that_was_judged(validation: bool, loss: str) -> None:
    part = part_of([swept_record({}, 0.01)], validation=validation)
    axes = compiled(check(part)["Sweep: train"])["axes"]
    assert loss in {axis.get("title") for axis in axes}
    assert f"judged by the {loss}" in dict(part.facts)["sweep"]


def test_rates_of_several_configurations_stand_beside_each_other_with_their_intervals() -> None:
    part = part_of(records(), FACTORS)
    rates = rows_of(check(part)["Suggested rates"].data["rates"])
    known = [record for record in records() if "range_lr" in record.values]
    assert [row["lr"] for row in rates] == [record.values["range_lr"] for record in known]
    assert [(row["low"], row["high"]) for row in rates] == [
        (record.values["lr_interval_low"], record.values["lr_interval_high"]) for record in known
    ]
    # Names beside a plot are short enough for a phone. A pointer shows them whole.
    assert [row["name"] for row in rates] == [", ".join(map(str, r.factors.values())) for r in known]
    assert rates[0]["configuration"] == "batch_size=16, optimizer=adam"
    assert part.answer == (
        "Use 0.001 for batch_size=16, optimizer=adam to 0.032 for batch_size=64, optimizer=momentum, "
        "and the table's rate for others."
    )
    assert part.more == "These data cannot tell a rate for batch_size=256, optimizer=momentum."


def test_the_power_law_is_drawn_where_there_is_one_and_said_to_be_missing_elsewhere() -> None:
    part = part_of(records(), FACTORS)
    plots = check(part)
    fitted = plots["Learning rate against batch size: optimizer=adam"]
    assert fitted.data["fit"]["size"][::32] == pytest.approx([16, 256])
    assert fitted.data["fit"]["lr"][::32] == pytest.approx([0.002, 0.008])
    assert "batch_size^0.50" in fitted.alt
    assert "Learning rate against batch size: optimizer=momentum" not in plots
    assert "optimizer=momentum: no exponent: 2 batch sizes" in words_in(part)


def test_no_line_is_drawn_through_rates_that_are_hardly_known() -> None:
    made = [swept_record({"batch_size": size}, 0.001) for size in (16, 64, 256)]
    for record in made:
        assert isinstance(record.values, dict)
        record.values["lr_interval_high"] = 31 * record.values["lr_interval_low"]
    plot = check(part_of(made, {"batch_size": [16, 64, 256]}))["Learning rate against batch size"]
    assert set(plot.data) == {"tests"}
    assert "No line is drawn" in plot.caption
    assert "no exponent: 3 batch sizes with a suggestion, 3 tests left out" in plot.alt


def test_the_band_of_a_power_law_holds_each_line_of_the_interval_through_its_centre() -> None:
    fit = LRScaling(0.5, 0.2, 0.9, math.log(0.001), (16, 64, 256), 4)
    sizes = [16, 16, 64, 256]
    columns = {name: np.array(values) for name, values in fit_columns(fit, sizes).items()}
    centre = np.exp(np.log(sizes).mean())
    for exponent in (0.2, 0.5, 0.9):
        line = 0.001 * centre**0.5 * (columns["size"] / centre) ** exponent
        assert (line >= columns["low"] * (1 - 1e-12)).all()
        assert (line <= columns["high"] * (1 + 1e-12)).all()


def test_points_with_wide_intervals_are_pale_and_outside_of_the_fit() -> None:
    factors = {"batch_size": [16, 64, 256, 1024]}
    tested = [swept_record({"batch_size": size}, 0.002 * (size / 16) ** 0.5) for size in (16, 64, 256)]
    wide = swept_record({"batch_size": 1024}, 1e-6)
    assert isinstance(wide.values, dict)
    wide.values["lr_interval_high"] = 31 * wide.values["lr_interval_low"]
    plot = check(part_of([*tested, wide], factors))["Learning rate against batch size"]
    assert plot.data["tests"]["narrow"] == [True, True, True, False]
    assert plot.data["fit"]["size"][-1] == pytest.approx(256)
    assert "Pale points are left out" in plot.caption


def test_failed_tests_have_no_curve_but_their_reason() -> None:
    failed = Record("t", {"batch_size": 64}, 0, "failed", "the model broke", {}, {}, [])
    part = part_of([swept_record({"batch_size": 16}, 0.01), failed], {"batch_size": [16, 64]})
    assert "Sweep: batch_size=64" not in check(part)
    (row,) = table_in(part, "Trials that did not end well").rows
    assert [cell.text for cell in row] == ["batch_size=64", "failed", "the model broke"]


def test_many_tests_are_folded_away_and_none_is_lost() -> None:
    sizes = list(range(1, 10))
    made = [swept_record({"batch_size": size}, 0.001 * size) for size in sizes]
    part = part_of(made, {"batch_size": sizes})
    (section,) = [section for section in part.ordered if section.key == "learning-rate"]
    (fold,) = [block for block in section.blocks if isinstance(block, Fold)]
    assert fold.title == "3 more sweeps"
    assert {f"Sweep: batch_size={size}" for size in sizes} <= set(check(part))


def test_nothing_recorded_is_said() -> None:
    part = part_of([])
    assert part.answer == "Nothing is recorded yet."
    assert [section.key for section in part.ordered] == ["reproduce"]


def test_names_of_others_are_data_and_never_markup_or_fields() -> None:
    factors: dict[str, list[Any]] = {"optimizer": [HOSTILE, "adam"], "batch_size": [16, 32]}
    made = [
        swept_record({"optimizer": name, "batch_size": size}, 0.01)
        for name in factors["optimizer"]
        for size in (16, 32)
    ]
    made.append(
        dataclasses.replace(made[0], status="failed", reason=HOSTILE, curve=[], values={}, samples={})
    )
    part = part_of(made, factors)
    check(part)
    html = render(Page("t", (part,)))
    assert HOSTILE in words_in(part)
    assert "<b>x[0]" not in html


def test_an_old_run_has_its_page() -> None:
    directory = RunDirectory.open(OLD)
    made, _ = directory.records()
    part = lr_range_part(study_learning_rates(directory.run, made, str(OLD)), made)
    plots = check(part)
    assert part.answer == "Use 0.0142 for batch_size=64; 0.0148 for batch_size=128."
    assert part.more == "These data cannot tell a rate for batch_size=32."
    assert marked(part, "Sweep: batch_size=64")["diverges at 2.42"] == made[1].values["divergence_lr"]
    assert "Learning rate against batch size" not in plots
    assert "no exponent: 2 batch sizes" in words_in(part)
