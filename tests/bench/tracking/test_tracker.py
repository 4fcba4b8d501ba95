"""What a tracker is told of a run is what the records say, and nothing that a tracker refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path

from fusetune.bench.results import RunInfo, WrittenSpec
from fusetune.bench.tracking import tracked_run, tracked_trial
from tests.bench.tracking.sample_run import HOSTILE, make_run, record


def test_a_run_is_its_spec_and_tags(tmp_path: Path) -> None:
    directory = make_run(tmp_path)
    run = tracked_run(directory.run)
    assert dict(run.spec) == {
        "spec.name": "demo",
        "spec.seeds": "[0, 1]",
        "spec.train.epochs": 2,
        "spec.train.base_lr": 0.1,
        "spec.factors.lr": "[0.1, 0.2]",
    }
    assert dict(run.tags) == {
        "spec": "demo",
        "run": directory.path.name,
        "kind": "run",
        "device": "a processor",
        "commit": "0123456789ab-dirty",
        "stand_in": "digits-like",
    }
    assert run.started_s == 1767323045  # date -d 2026-01-02T03:04:05Z +%s


def test_a_run_of_nothing_has_no_empty_tags() -> None:
    assert dict(tracked_run(RunInfo()).tags) == {"spec": "run", "kind": "run"}


def test_a_trial_has_its_curve_by_steps_and_its_results() -> None:
    trial = tracked_trial(record("a"))
    assert dict(trial.config) == {"lr": 0.1, "seed": 0}
    assert [point.step for point in trial.curve] == [10, 20]
    assert dict(trial.curve[0].values) == {"curve/epoch": 1, "curve/time_s": 0.5, "curve/val_loss": 1.5}
    assert trial.curve[1].values["curve/grad_norm"] == 0.3
    assert dict(trial.results) == {"result/step_time_s": 1.2345678901, "result/peak_bytes": 16_777_217}
    assert (trial.last_step, trial.seconds) == (20, 1.25)


def test_a_curve_without_steps_is_counted() -> None:
    trial = tracked_trial(record("a", curve=[{"lr": 1e-7, "loss_1": 2.5}, {"lr": 1e-6, "loss_1": 2.4}]))
    assert [(point.step, point.values["curve/lr"]) for point in trial.curve] == [(1, 1e-7), (2, 1e-6)]


def test_what_is_not_finite_is_no_number() -> None:
    curve = [{"step": math.nan, "time_s": math.inf, "val_loss": math.nan, "lr": 0.1}]
    trial = tracked_trial(record("a", math.inf, values={"steps": math.inf, "epochs": 2}, curve=curve))
    assert dict(trial.config) == {"lr": "inf", "seed": 0}
    assert dict(trial.results) == {"result/epochs": 2}
    assert [(point.step, point.time_s, dict(point.values)) for point in trial.curve] == [
        (1, 0.0, {"curve/lr": 0.1})
    ]


def test_values_are_scalars_that_json_has() -> None:
    schedule = {"name": "cosine", "warmup": [1, math.nan]}
    config = tracked_trial(record("a", schedule)).config
    assert config["lr"] == '{"name": "cosine", "warmup": [1, NaN]}'
    json.dumps(dict(tracked_trial(record("a", HOSTILE)).config), allow_nan=False)


def test_texts_of_others_have_no_control_characters() -> None:
    trial = tracked_trial(record("a", "\ud800\x00", reason="\x1b[2J", findings=[{"title": "\x07"}]))
    texts = (str(trial.config["lr"]), trial.reason, *trial.findings)
    assert texts == ("\\ud800\\x00", "\\x1b[2J", "\\x07")
    spec = tracked_run(RunInfo(spec=WrittenSpec({"name": "\x1b", "a\x00": {"b": {}}}))).spec
    assert dict(spec) == {"spec.name": "\\x1b", "spec.a\\x00.b": "{}"}


def test_a_factor_called_seed_does_not_hide_the_seed_of_another() -> None:
    assert tracked_trial(record("a", seed=3)).config["seed"] == 3
