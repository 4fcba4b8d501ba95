"""`bench lr-range` and `base_lr: auto`; `UPDATE_GOLDEN=1` writes the golden report anew."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from fusetune.bench.cli.program import commands
from fusetune.bench.errors import InputError
from fusetune.bench.learning_rate.plot import draw_lr_range
from fusetune.bench.learning_rate.report import render_lr_range, sweep_plot
from fusetune.bench.learning_rate.study import study_learning_rates, with_swept_factors
from fusetune.bench.results.outcomes import RangeTestOutcome
from fusetune.bench.results.pictures import Pictures
from fusetune.bench.results.records import Record
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.spec.load import load_spec
from fusetune.tuner.learning_rate.scaling import LRScaling

GOLDEN = Path(__file__).parents[1] / "golden"

SPEC = """\
name: tiny
data:  {name: digits, limit: 600, validation: 100}
model: {name: mlp, width: 16, depth: 1}
train: {optimizer: adam, base_lr: 0.01, batch_size: 32, epochs: 2}
"""


def run_of(factors: dict[str, list[Any]]) -> RunInfo:
    return RunInfo.from_dict(run_json(factors))


def run_json(factors: dict[str, list[Any]]) -> dict[str, Any]:
    return {
        "kind": "lr-range",
        "options": {
            "lr_min": 1e-7,
            "lr_max": 10.0,
            "steps": 100,
            "repeats": 2,
            "mode": "exponential",
            "validation": False,
            "confirm": True,
            "all_seeds": False,
        },
        "spec": {"name": "demo", "factors": factors, "seeds": [0]},
        "machine": {"device": "cpu", "device_name": "Example CPU"},
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "data": ["digits"],
        "stand_in": None,
    }


def swept_record(factors: dict[str, Any], best: float) -> Record:
    """A sweep whose loss falls from 2.3 around three times `best` and explodes above thirty times it."""
    curve = []
    for index in range(100):
        lr = 10 ** (-7 + 8 * index / 99)
        loss = 2.3 - 1.9 / (1 + (3 * best / lr) ** 2) + (lr / (30 * best)) ** 4
        entry: dict[str, float | None] = {
            "lr": lr,
            "smoothed": loss,
            "loss_1": loss + 0.05,
            "loss_2": loss - 0.05,
        }
        if lr > 40 * best:
            entry["loss_1"] = entry["smoothed"] = None
        curve.append(entry)
        if lr > 60 * best:
            break
    values = {
        "range_lr": best,
        "suggested_lr": best / 2,
        "lr_low": best / 8,
        "lr_high": 1.5 * best,
        "lr_interval_low": 0.8 * best,
        "lr_interval_high": 1.25 * best,
        "divergence_lr": 40 * best,
        "steps": 180.0,
    }
    samples = {"confirm_lr": [best / 4, best / 2, best], "confirm_val_loss": [0.4, 0.3, 0.5]}
    outcome = RangeTestOutcome("because", (), (best / 4, best / 2, best, 2 * best))
    name = ",".join(f"{key}={value}" for key, value in factors.items())
    return Record(name, factors, 0, "ok", "", values, samples, curve, outcome=outcome)


def flat_record(factors: dict[str, Any]) -> Record:
    curve: list[dict[str, float | None]] = [
        {"lr": 10 ** (-7 + 8 * index / 99), "smoothed": 2.3, "loss_1": 2.3} for index in range(100)
    ]
    reason = "no suggestion: the loss never falls by more than its noise: from 2.3 to 2.3 at best"
    return Record("flat", factors, 0, "ok", reason, {"steps": 300.0}, {}, curve, {"warnings": []})


FACTORS: dict[str, list[Any]] = {"batch_size": [16, 64, 256], "optimizer": ["adam", "momentum"]}


def records() -> list[Record]:
    adam = [
        swept_record({"batch_size": b, "optimizer": "adam"}, 0.002 * (b / 16) ** 0.5) for b in (16, 64, 256)
    ]
    momentum = [swept_record({"batch_size": b, "optimizer": "momentum"}, 0.001 * b) for b in (16, 64)]
    return [*adam, *momentum, flat_record({"batch_size": 256, "optimizer": "momentum"})]


def rendered(width: int = 100) -> str:
    output = io.StringIO()
    study = study_learning_rates(run_of(FACTORS), records(), "results/demo/20260102-030405-abcd")
    render_lr_range(study, Console(file=output, width=width))
    return output.getvalue()


def test_the_report_is_the_golden_one() -> None:
    text = rendered()
    path = GOLDEN / "lr_range.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_a_suggestion_comes_with_its_reason_and_the_rate_to_use() -> None:
    record = swept_record({"batch_size": 16, "optimizer": "adam"}, 0.002)
    lines = study_learning_rates(run_of(FACTORS), [record]).tested[0]
    assert lines.advice.startswith("because")
    assert f"Use {record.values['suggested_lr']:.3g}" in lines.advice
    values = {name: value for name, value in record.values.items() if name != "suggested_lr"}
    (diverged,) = study_learning_rates(run_of(FACTORS), [dataclasses.replace(record, values=values)]).tested
    assert diverged.advice == ""
    assert "diverged" in diverged.notes[0]
    (flat,) = study_learning_rates(run_of(FACTORS), [flat_record({"batch_size": 16})]).tested
    assert flat.advice == ""


@pytest.mark.parametrize("width", [80, 100])
def test_no_line_of_the_report_is_wider_than_the_console(width: int) -> None:
    lines = rendered(width).splitlines()
    assert max(map(len, lines)) <= width


def test_the_scaling_is_fitted_for_each_optimizer_or_says_what_is_missing() -> None:
    scalings = study_learning_rates(run_of(FACTORS), records()).scalings
    adam = scalings["optimizer=adam"]
    assert isinstance(adam, LRScaling)
    assert adam.exponent == pytest.approx(0.5)
    assert scalings["optimizer=momentum"] == (
        "2 batch sizes with a suggestion; an exponent with an interval needs 3"
    )


def test_rates_that_are_hardly_known_are_left_out_of_the_fit_and_counted() -> None:
    factors = {"batch_size": [16, 64, 256, 1024]}
    tested = [swept_record({"batch_size": size}, 0.002 * (size / 16) ** 0.5) for size in (16, 64, 256)]
    unknown = swept_record({"batch_size": 1024}, 1e-6)
    assert isinstance(unknown.values, dict)
    unknown.values["lr_interval_high"] = 31 * unknown.values["lr_interval_low"]
    study = study_learning_rates(run_of(factors), [*tested, unknown])
    scaling = study.scalings["all"]
    assert isinstance(scaling, LRScaling)
    assert scaling.exponent == pytest.approx(0.5)
    assert (scaling.points, scaling.left_out) == (3, 1)
    output = io.StringIO()
    render_lr_range(study, Console(file=output, width=200))
    assert (
        "(3 tests at 16, 64, 256); 1 more test left out, with an interval wider than a factor of 30"
        in output.getvalue()
    )
    missing = study_learning_rates(run_of(factors), [*tested[:2], unknown]).scalings["all"]
    assert missing == (
        "3 batch sizes with a suggestion, 1 test left out with an interval wider than a factor of 30; "
        "an exponent with an interval needs 3"
    )


def test_no_exponent_is_spoken_of_without_batch_sizes() -> None:
    assert study_learning_rates(run_of({}), [swept_record({}, 0.01)]).scalings == {}


def test_the_character_plot_has_its_marks_where_they_belong() -> None:
    (tested,) = study_learning_rates(run_of({}), [swept_record({}, 0.01)]).tested
    head, *rows = sweep_plot(tested, "training loss").lines(100)
    assert head == "train: training loss against learning rate"
    left, frame = rows[10].index("└") + 1, rows[:10]
    columns = {
        mark: {line.index(mark, left) - left for line in frame if mark in line[left:]} for mark in "│║┃"
    }
    span, last = math.log10(tested.lrs[-1] / tested.lrs[0]), 100 - left - 1
    assert columns["│"] == {round(5 / span * last)}
    assert columns["┃"] == {round(math.log10(0.005 / 1e-7) / span * last)}
    assert columns["║"] == {round(math.log10(0.4 / 1e-7) / span * last)}
    edges = {at - left for line in frame for at in range(left, len(line)) if line[at] == "┊"}
    assert edges == {round(math.log10(rate / 1e-7) / span * last) for rate in (0.008, 0.0125)}


@pytest.mark.slow
def test_pictures_are_drawn_and_the_same_each_time(tmp_path: Path) -> None:
    tested = study_learning_rates(run_of(FACTORS), records()[-2:]).tested
    pictures = Pictures(tmp_path, drawing=True)
    draw_lr_range(tested, pictures)
    paths = pictures.paths
    assert [path.name for path in paths] == ["lr-range-1.png", "lr-range-2.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    svg = paths[0].with_suffix(".svg").read_text()
    assert "suggestion 0.064" in svg
    assert "confirmed 0.032" in svg
    draw_lr_range(tested, Pictures(tmp_path, drawing=True))
    assert paths[0].with_suffix(".svg").read_text() == svg


def loaded_from(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "tiny.yaml"
    path.write_text(text)
    return load_spec(path)


def test_what_sets_the_rate_is_no_factor(tmp_path: Path) -> None:
    text = (
        SPEC
        + "factors: {base_lr: [0.1, 0.2], schedule: [constant, cosine], batch_size: [16, 32]}\nseeds: 3\n"
    )
    reduced, notes = with_swept_factors(loaded_from(tmp_path, text), all_seeds=False)
    assert list(reduced.spec.factors) == ["batch_size"]
    assert reduced.spec.seeds == [0]
    assert "base_lr, schedule" in notes[0]
    assert with_swept_factors(loaded_from(tmp_path, text), all_seeds=True)[0].spec.seeds == [0, 1, 2]


# The commands, in this process; a worker runs the trials.


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(commands, list(arguments), catch_exceptions=False, standalone_mode=True)


def written_records(results: Path) -> list[dict[str, Any]]:
    (path,) = results.glob("*/*/records.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_the_command_tests_records_draws_and_reports_again(tmp_path: Path) -> None:
    spec = tmp_path / "tiny.yaml"
    spec.write_text(SPEC + "factors: {batch_size: [16, 32]}\n")
    results = tmp_path / "results"
    done = invoke("lr-range", str(spec), "--repeats", "2", "--results", str(results))
    assert done.exit_code == 0, done.output
    found = written_records(results)
    assert [record["status"] for record in found] == ["ok", "ok"]
    for record in found:
        assert f"Use {record['values']['suggested_lr']:.3g}" in " ".join(done.output.split())
    for record in found:
        values = record["values"]
        assert 1e-4 < values["range_lr"] < 1
        assert values["lr_low"] < values["range_lr"] < values["lr_high"]
        assert values["steps"] <= 200
        assert values["suggested_lr"] in record["samples"]["confirm_lr"]
        assert len(record["curve"]) <= 100
        assert {"lr", "smoothed", "loss_1", "loss_2"} == set(record["curve"][0])
    (run,) = results.glob("*/*/run.json")
    assert (run.parent / "lr-range-2.svg").is_file()
    assert "no exponent: 2 batch sizes" in done.output
    again = invoke("report", str(run.parent))
    assert again.exit_code == 0
    report = again.output[again.output.index("LR range test") :]
    assert report in done.output
    resumed = invoke("lr-range", "--resume", str(run.parent))
    assert resumed.exit_code == 0, resumed.output
    assert written_records(results) == found


@pytest.mark.slow
def test_a_test_that_cannot_tell_is_a_finding(tmp_path: Path) -> None:
    spec = tmp_path / "tiny.yaml"
    spec.write_text(SPEC)
    done = invoke("lr-range", str(spec), "--max", "1e-6", "--results", str(tmp_path / "results"))
    assert done.exit_code == 0, done.output
    (record,) = written_records(tmp_path / "results")
    assert "never falls by more than its noise" in record["reason"]
    assert "range_lr" not in record["values"]
    assert "can't tell" in done.output


@pytest.mark.slow
def test_auto_finds_the_rate_before_the_training_and_says_so(tmp_path: Path) -> None:
    spec = tmp_path / "tiny.yaml"
    spec.write_text(SPEC + "factors: {base_lr: [auto, 0.01]}\n")
    results = tmp_path / "results"
    done = invoke("run", str(spec), "--results", str(results))
    assert done.exit_code == 0, done.output
    found = {record["factors"]["base_lr"]: record for record in written_records(results)}
    chosen = found["auto"]["outcome"]["base_lr_auto"]
    assert found["auto"]["curve"][0]["lr"] == chosen["base_lr"] != 0.01
    assert chosen["interval"][0] <= chosen["base_lr"] <= chosen["interval"][1]
    assert found[0.01]["outcome"]["base_lr_auto"] is None
    assert found["auto"]["values"]["steps"] == found[0.01]["values"]["steps"]
    assert f"{chosen['base_lr']:.3g}" in done.output
    assert "auto lr" in done.output


@pytest.mark.slow
def test_auto_that_cannot_tell_fails_its_trial_with_the_reason(tmp_path: Path) -> None:
    spec = tmp_path / "tiny.yaml"
    spec.write_text(
        SPEC.replace("base_lr: 0.01", "base_lr: auto, grad_clip: 1.0e-12, optimizer: sgd").replace(
            "optimizer: adam, ", ""
        )
    )
    done = invoke("run", str(spec), "--results", str(tmp_path / "results"))
    assert done.exit_code == 1, done.output
    (record,) = written_records(tmp_path / "results")
    assert record["status"] == "failed"
    assert "auto finds no learning rate; the loss never falls" in record["reason"]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("-1", "must be above 0"),
        ("fast", "must be a number or auto, is 'fast'"),
        (".inf", "finite"),
        ("true", "auto"),
    ],
)
def test_a_wrong_base_lr_is_one_sentence(tmp_path: Path, value: str, sentence: str) -> None:
    with pytest.raises(Exception, match=sentence) as caught:
        loaded_from(tmp_path, SPEC.replace("base_lr: 0.01", f"base_lr: {value}"))
    assert str(caught.value).count("\n") == 0
    assert "train.base_lr" in str(caught.value)


def test_bounds_that_cross_are_bad_input(tmp_path: Path) -> None:
    spec = tmp_path / "tiny.yaml"
    spec.write_text(SPEC)
    with pytest.raises(InputError, match=r"--min: 1 must be below --max, 0\.1"):
        invoke("lr-range", str(spec), "--min", "1", "--max", "0.1")
