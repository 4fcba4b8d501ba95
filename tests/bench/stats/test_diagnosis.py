from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fusetune.bench.results.records import Record
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.results.written_spec import WrittenSpec
from fusetune.bench.stats.diagnosis import merge
from fusetune.bench.stats.summary import summarize
from fusetune.tuner.diagnosis import FINDINGS
from tests.bench.run.test_trial import SMALL, run


def _finding(name: str, sentence: str = "Shown.") -> dict[str, Any]:
    return {
        "name": name,
        "title": FINDINGS[name],
        "sentence": sentence,
        "evidence": {},
        "try_next": "Try.",
        "confidence": "likely",
    }


def _record(seed: int, *findings: dict[str, Any], **factors: Any) -> Record:
    return Record(f"{factors},seed={seed}", factors, seed, "ok", findings=list(findings))


def test_equal_findings_of_seeds_are_one_and_what_most_seeds_have_comes_first() -> None:
    merged = merge(
        [
            _record(0, _finding("overfitting", "Turns after epoch 3.")),
            _record(1, _finding("underfitting")),
            _record(2, _finding("underfitting")),
            _record(3),
        ]
    )
    assert [(diagnosis.title, diagnosis.seeds, diagnosis.n) for diagnosis in merged] == [
        ("underfitting", (1, 2), 4),
        ("overfitting", (0,), 4),
    ]
    assert merged[1].sentence == "Turns after epoch 3."


def test_sound_trials_and_records_from_before_the_diagnosis_have_none() -> None:
    data = _record(0).as_dict()
    del data["findings"]
    assert merge([Record.from_dict(data), _record(1)]) == []


def test_a_summary_has_the_diagnoses_of_each_configuration_by_rank() -> None:
    good = dataclasses.replace(_record(0, batch_size=64), values={"best_val_accuracy": 0.9})
    bad = _record(0, _finding("learning_rate_too_low"), batch_size=128)
    spec = WrittenSpec({"factors": {"batch_size": [64, 128]}})
    run = RunInfo(spec=spec, baseline={"batch_size": 64}, trials=2)
    (diagnosis,) = summarize(run, [bad, good]).diagnoses
    assert diagnosis.factors == {"batch_size": 128}


@pytest.mark.parametrize(
    ("base_lr", "name"), [("1.0e-5", "learning_rate_too_low"), ("30.0", "learning_rate_too_high")]
)
def test_a_trial_with_a_bad_learning_rate_says_so_in_its_record(base_lr: str, name: str) -> None:
    text = SMALL.replace("base_lr: 0.02", f"base_lr: {base_lr}").replace("epochs: 2", "epochs: 12")
    (finding, *_) = run(text).findings
    assert (finding["name"], finding["title"]) == (name, FINDINGS[name])
    assert {"sentence", "evidence", "try_next", "confidence"} < set(finding)


def test_a_sound_trial_has_no_findings() -> None:
    text = SMALL.replace("limit: 300, validation: 90", "limit: 1200, validation: 200")
    text = text.replace("width: 8", "width: 32").replace("epochs: 2", "epochs: 20")
    record = run(text)
    assert record.values["final_val_accuracy"] > 0.9
    assert record.findings == []


@pytest.mark.parametrize("seed", range(3))
def test_a_rate_thirty_times_too_low_is_not_taken_for_too_small_a_model(seed: int) -> None:
    spec = """
    name: spirals
    data: {name: spirals, limit: 2000, validation: 400}
    model: {name: mlp, width: 64, depth: 2}
    train: {optimizer: momentum, base_lr: 0.003, batch_size: 64, epochs: 25, schedule: cosine}
    """
    record = run(f"{spec}seeds: [{seed}]")
    assert record.values["final_val_accuracy"] < 0.6
    assert [finding["name"] for finding in record.findings] == ["learning_rate_too_low"]


def test_weights_that_are_nan_from_the_start_are_said_first_with_their_layer() -> None:
    record = run(SMALL.replace("{name: mlp, width: 8}", "{factory: 'tests.bench.own_models:with_nan'}"))
    assert record.status == "diverged"
    assert [finding["name"] for finding in record.findings] == ["not_finite"]
    assert "weights of layer 2" in record.findings[0]["sentence"]
