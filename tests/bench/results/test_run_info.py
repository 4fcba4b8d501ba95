"""run.json is read into an object, and what the object writes is what was read, byte for byte."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.results.records import SCHEMA_VERSION, Record, ThreadsChoice
from fusetune.bench.results.run_info import Machine, RunInfo
from fusetune.bench.results.run_options import BatchSizeOptions, RangeTestOptions
from fusetune.bench.results.written_spec import WrittenSearch, WrittenSpec

OLD_RUNS = sorted((Path(__file__).parents[1] / "old_runs").glob("*/*/run.json"))


def read(path: Path) -> RunInfo:
    return RunInfo.from_dict(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", OLD_RUNS, ids=lambda path: path.parent.name)
def test_what_is_read_is_written_again_byte_for_byte(path: Path) -> None:
    assert json.dumps(read(path).as_dict(), indent=2, allow_nan=False) + "\n" == path.read_text(
        encoding="utf-8"
    )


def test_the_attributes_are_what_the_file_says() -> None:
    (path,) = [path for path in OLD_RUNS if path.parent.name == "20261129-111953-7da3"]
    run = read(path)
    assert (run.run_id, run.schema_version, run.kind, run.jobs) == (path.parent.name, 1, "run", 1)
    assert (run.spec_path, run.command, run.overrides) == ("old.yaml", ("bench", "run", "old.yaml"), ())
    assert (run.trials, run.baseline) == (9, {"batch_size": 32, "base_lr": 0.01})
    assert (run.device, run.data, run.stand_in, run.dirty) == ("cpu", ("spirals",), None, False)
    assert run.commit == "1e96ede8526c8910501bec2a41854cc712dd4d96"
    assert run.machine.device_name == "Example CPU"
    assert run.machine.details["cpu"] == "Example CPU"
    spec = run.spec
    assert (spec.name, spec.data, spec.model, spec.seeds) == ("trainings", "spirals", "mlp", (0,))
    assert (spec.threads, spec.design, spec.is_listed, spec.epochs) == (1, "grid", False, 2)
    assert (spec.accumulation_steps, spec.implementation, spec.target_metric) == (1, "torch", "val_accuracy")
    assert spec.target is not None
    assert spec.target.at_least == 0.38
    assert spec.levels == {"batch_size": [32, 64, 128], "base_lr": ["auto", 0.01, 1000000.0]}


def test_the_options_of_each_kind_are_read() -> None:
    runs = {run.run_id: run for run in map(read, OLD_RUNS)}
    assert RangeTestOptions.from_dict(runs["20261129-113216-3189"].options) == RangeTestOptions(
        lr_min=1e-7, lr_max=10.0, steps=40, repeats=2, mode="exponential", validation=False
    )
    assert BatchSizeOptions.from_dict(runs["20261129-113314-991a"].options) == BatchSizeOptions(
        max_batch=64, noise_epochs=(0, 1), train_batch_size=32, memory_bytes=64 * 2**20
    )


@pytest.mark.parametrize("missing", [{}, {field.name: None for field in dataclasses.fields(RunInfo)}])
def test_what_is_missing_or_null_has_its_default_and_what_is_unknown_is_left_out(
    missing: dict[str, Any],
) -> None:
    run = RunInfo.from_dict({**missing, "later": 1})
    assert run == RunInfo()
    assert (run.kind, run.jobs, run.schema_version, run.machine) == ("run", 1, SCHEMA_VERSION, Machine())
    spec = run.spec
    assert (spec.name, spec.data, spec.model, spec.seeds) == ("run", "unknown", "unknown", ())
    assert (spec.threads, spec.design, spec.target, spec.target_metric) == ("auto", "grid", None, None)
    assert (spec.accumulation_steps, spec.implementation, spec.factors) == (1, "torch", {})


def test_a_run_and_its_machine_cannot_be_changed() -> None:
    for thing in (RunInfo(), Machine(), WrittenSpec(), ThreadsChoice(1, "auto", "")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, dataclasses.fields(thing)[0].name, None)


def test_what_may_change_before_a_run_goes_on_is_said() -> None:
    begun = RunInfo(commit="a", machine=Machine.from_dict({"cores": 2}), jobs=1, started="then")
    now = dataclasses.replace(begun, commit="b", machine=Machine.from_dict({"cores": 4}), started="now")
    assert begun.changes(begun) == []
    assert begun.changes(now) == [
        "commit differs from the run's beginning: a -> b",
        "machine differs from the run's beginning: {'cores': 2} -> {'cores': 4}",
    ]


def test_parts_of_a_spec_in_their_several_forms() -> None:
    assert WrittenSpec({"data": {"factory": "own:data"}, "model": "mlp"}).data == "own:data"
    assert WrittenSpec({"seeds": 3}).seeds == (0, 1, 2)
    assert WrittenSpec({"design": {"random": 4}}).design == "random"
    assert WrittenSpec({"factors": {"a": [1], "b": None}}).factors == {"a": [1]}
    listed = WrittenSpec({"configurations": [{"a": 1}, {"a": 2}]})
    assert (listed.is_listed, listed.levels) == (True, {"a": [1, 2]})
    search = WrittenSpec({"design": {"search": {"budget_epochs": 9, "later": 1}}})
    assert (search.design, search.search) == ("search", WrittenSearch(9, prior=True, fresh_seeds=3))
    with pytest.raises(KeyError):
        _ = WrittenSpec().epochs


@pytest.mark.parametrize("speedups", [None, {"1": 1.0, "2": 1.8}])
def test_how_threads_were_chosen_is_written_and_read(speedups: dict[str, float] | None) -> None:
    choice = ThreadsChoice(2, "auto", "more do not help", speedups)
    assert ("speedups" in choice.as_dict()) == (speedups is not None)
    record = Record("a", {}, 0, "ok", provenance={"threads_choice": choice.as_dict()})
    assert Record.from_dict(json.loads(json.dumps(record.as_dict()))).threads_choice == choice
    assert Record("a", {}, 0, "ok").threads_choice is None
