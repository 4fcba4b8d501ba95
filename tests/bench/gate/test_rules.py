"""Thresholds and directions come from the spec. A name that was not measured is an error. A run ignores it all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fusetune.bench.errors import InputError, RunDirectoryError
from fusetune.bench.gate import Measured, Metric, Pair, Rules
from fusetune.bench.gate.rules import better_by_name, unknown_direction
from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.run.plan import make_plan
from fusetune.bench.run.run_plan import RunPlan
from fusetune.bench.spec.load import load_spec
from tests.bench.spec_text import SPEC

GATE = """
gate:
  budget: 2min
  configurations: [{optimizer: adam}, {batch_size: [32, 64]}]
  metrics: {step_time_s: {threshold: 0.05}, my_score: {better: higher}}
  benchmarks: {"small: optimizer=adam": {step_time_s: {threshold: 0.1}}}
"""


def spec_file(folder: Path, gate: str = GATE) -> Path:
    path = folder / "small.yaml"
    path.write_text(SPEC + gate)
    return path


def rules(folder: Path, gate: str = GATE) -> Rules:
    path = spec_file(folder, gate)
    return Rules.of_section(load_spec(path).spec.gate, f"{path.name}: gate")


def side(**metrics: Metric) -> Measured:
    return Measured(metrics)


def pair(benchmark: str, **metrics: Metric) -> Pair:
    return Pair(benchmark, 0, side(**metrics), side(**metrics))


TIMING = Metric((0.01,))
BYTES = Metric((512.0,), "bytes", comparison="exact")


def test_a_benchmarks_rule_goes_before_that_of_a_metric_and_that_before_the_default(tmp_path: Path) -> None:
    found = rules(tmp_path)
    assert found.threshold("small: optimizer=adam", "step_time_s", TIMING) == 0.1
    assert found.threshold("small", "step_time_s", TIMING) == 0.05
    assert found.threshold("small", "other_s", TIMING) == 0.02
    assert found.threshold("small", "peak_bytes", BYTES) == 0
    assert found.threshold("small", "steps_to_target", Metric((9.0,), "count", comparison="learning")) == 0.05
    accuracy = Metric((0.9,), "fraction", "higher", "learning")
    assert found.threshold("small", "final_val_accuracy", accuracy) == 0.01


def test_a_spec_without_the_section_has_the_defaults(tmp_path: Path) -> None:
    found = rules(tmp_path, "")
    assert found == Rules(where="small.yaml: gate")
    assert found.threshold("small", "step_time_s", TIMING) == 0.02


def test_directions_come_from_the_section_then_from_the_name(tmp_path: Path) -> None:
    found = rules(tmp_path)
    assert found.better("small", "my_score") == "higher"
    assert found.better("small", "step_time_s") == "lower"
    assert found.better("small", "another_score") is None
    directions = {
        name: better_by_name(name) for name in ("x_s", "x_bytes", "val_loss_2", "x_per_s", "top5_accuracy")
    }
    assert directions == {
        "x_s": "lower",
        "x_bytes": "lower",
        "val_loss_2": "lower",
        "x_per_s": "higher",
        "top5_accuracy": "higher",
    }
    assert str(unknown_direction("bench.py", "score")) == (
        "bench.py: which direction of 'score' is better is not known; known by name: *_s, *_bytes, *loss* lower, "
        "*_per_s, *accuracy* higher. Write gate: {metrics: {score: {better: higher}}}"
    )


def test_names_that_were_not_measured_are_errors_with_the_closest_one(tmp_path: Path) -> None:
    measured = [
        pair("small: optimizer=adam", step_time_s=TIMING, my_score=TIMING),
        pair("small", step_time_s=TIMING),
    ]
    rules(tmp_path).check(measured)
    for gate, text in (
        (
            "gate: {metrics: {step_time: {threshold: 0.05}}}",
            "small.yaml: gate.metrics: unknown 'step_time'; known: my_score, step_time_s. "
            "Did you mean 'step_time_s'?",
        ),
        (
            "gate: {benchmarks: {smal: {step_time_s: {threshold: 0.05}}}}",
            "small.yaml: gate.benchmarks: unknown 'smal'; known: small, small: optimizer=adam. "
            "Did you mean 'small'?",
        ),
        (
            "gate: {benchmarks: {small: {my_scor: {better: higher}}}}",
            "small.yaml: gate.benchmarks.small: unknown 'my_scor'; known: step_time_s. Use one of these.",
        ),
    ):
        with pytest.raises(InputError) as error:
            rules(tmp_path, gate).check(measured)
        assert str(error.value) == text


def test_names_are_not_checked_while_a_benchmark_measured_nothing(tmp_path: Path) -> None:
    failed = Pair("small", 0, Measured(failure="out of memory"), Measured(failure="out of memory"))
    rules(tmp_path).check([failed, pair("other", step_time_s=TIMING)])
    rules(tmp_path).check([])


def test_a_timing_cannot_have_a_threshold_of_0_and_an_exact_metric_can(tmp_path: Path) -> None:
    found = rules(tmp_path, "gate: {metrics: {step_time_s: {threshold: 0}, peak_bytes: {threshold: 0}}}")
    with pytest.raises(InputError, match=r"gate\.metrics\.step_time_s\.threshold: is 0; two processes are"):
        found.check([pair("small", step_time_s=TIMING, peak_bytes=BYTES)])
    rules(tmp_path, "gate: {metrics: {peak_bytes: {threshold: 0}}}").check([pair("small", peak_bytes=BYTES)])


@pytest.mark.parametrize(
    ("gate", "text"),
    [
        (
            "gate: {treshold: 1}",
            "gate.treshold: unknown key; known: benchmarks, budget, configurations, metrics",
        ),
        (
            "gate: {metrics: {a: {treshold: 1}}}",
            "gate.metrics.a.treshold: unknown key; known: better, threshold",
        ),
        (
            "gate: {benchmarks: {b: {a: {beter: lower}}}}",
            "gate.benchmarks.b.a.beter: unknown key; known: better, threshold. Did you mean 'better'?",
        ),
        ("gate: {metrics: {a: {threshold: -0.1}}}", "gate.metrics.a.threshold: must be at least 0, is -0.1"),
        ("gate: {metrics: {a: {threshold: 5 %}}}", "gate.metrics.a.threshold: must be a number, is '5 %'"),
        (
            "gate: {metrics: {a: {better: more}}}",
            "gate.metrics.a.better: unknown 'more'; known: higher, lower, neither",
        ),
        ("gate: {budget: soon}", "gate.budget: 'soon' is not a quantity"),
        ("gate: {configurations: [{optimiser: adam}]}", "gate.configurations[0].optimiser: "),
        ("gate: {configurations: [{optimizer: adom}]}", "gate.configurations[0].optimizer: unknown 'adom'"),
        ("gate: {configurations: []}", "gate.configurations: must have at least 1 values"),
    ],
)
def test_what_is_wrong_in_the_section_is_said_with_its_line(tmp_path: Path, gate: str, text: str) -> None:
    path = spec_file(tmp_path, gate)
    with pytest.raises(InputError) as error:
        load_spec(path)
    line = len(SPEC.splitlines()) + 1
    assert str(error.value).startswith(f"{path}:{line}: {text}")


def plan_of(path: Path, *overrides: str) -> RunPlan:
    return make_plan(load_spec(path, overrides=overrides), jobs=1, command=[], announce=print)


def test_a_run_can_be_continued_after_a_change_of_the_section_alone(tmp_path: Path) -> None:
    plan = plan_of(spec_file(tmp_path))
    with RunDirectory.create(tmp_path, "small", plan.run) as directory:
        path = directory.path
    assert "gate" not in json.loads((path / "run.json").read_text())["spec"]
    for other in (plan_of(spec_file(tmp_path, "")), plan_of(spec_file(tmp_path), "gate.budget=5min")):
        assert [trial.id for trial in other.trials] == [trial.id for trial in plan.trials]
        RunDirectory.resume(path, other.run).close()
    with pytest.raises(RunDirectoryError, match=r"train\.epochs: 2 -> 4"):
        RunDirectory.resume(path, plan_of(spec_file(tmp_path), "train.epochs=4").run)
