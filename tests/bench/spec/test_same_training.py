"""A null for a person's own code reaches it. What is the same once it is built is refused before training."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fusetune.bench.errors import InputError, RunDirectoryError
from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.results.records import Record
from fusetune.bench.run import plan as runner
from fusetune.bench.run.plan import make_plan
from fusetune.bench.run.run_plan import RunPlan
from fusetune.bench.run.trial import run_trial
from fusetune.bench.run.workload import build_workload
from fusetune.bench.spec.load import load_spec
from fusetune.bench.spec.spec import Spec
from fusetune.bench.workers.worker import OnProgress, WorkerContext

OWN = """\
name: own
data:   {factory: "tests.bench.own_models:points", validation: 9}
model:  {factory: "tests.bench.own_models:capped"}
train:  {optimizer: sgd, base_lr: 0.1, batch_size: 10, epochs: 1}
"""


def plan_of(tmp_path: Path, text: str) -> RunPlan:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    return make_plan(load_spec(path), jobs=1, command=[], announce=print)


class Here:
    """A worker in this process."""

    def run(self, trial: Any, on_progress: OnProgress) -> Record:
        return run_trial(trial, WorkerContext(), lambda progress: None)

    def close(self) -> None:
        """Nothing is held."""


class Silent:
    """A display that shows nothing."""

    def message(self, text: str) -> None:
        """It is not shown."""


def rehearse(plan: RunPlan) -> None:
    runner._rehearse(plan, plan.trials, Here(), Silent())  # type: ignore[arg-type]


def test_a_null_reaches_a_models_factory_and_the_report(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, OWN + "factors: {model.width_cap: [4, null]}\n")
    rehearse(plan)
    sizes = {}
    for trial in plan.trials:
        model = build_workload(trial, WorkerContext()).model
        sizes[trial.id] = sum(parameter.numel() for parameter in model.parameters())
    # (2 + 1) w + 2 w + (w + 1) 3 for w of 4 and of 64
    assert sizes == {"model.width_cap=4,seed=0": 35, "model.width_cap=null,seed=0": 515}


def test_a_null_of_a_profile_or_of_set_is_passed_on_as_one_in_the_spec_is(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN + "profiles: {cuda: {model: {width_cap: null}, data: {shift: null}}}\n")
    by_set = load_spec(path, overrides=["model.width_cap=null", "data.shift=null"])
    by_profile = load_spec(path, device="cuda")
    for loaded in (by_set, by_profile):
        assert loaded.spec.model.arguments == {"width_cap": None}
        assert loaded.spec.data.extras == {"shift": None}
    assert "model.width_cap: (none) -> null" in by_profile.changes


@pytest.mark.parametrize("section", ["model", "data"])
def test_a_null_of_a_persons_own_survives_run_json(tmp_path: Path, section: str) -> None:
    key = "width_cap" if section == "model" else "shift"
    with_null = plan_of(tmp_path, re.sub(rf"({section}: +{{)", rf"\1{key}: null, ", OWN))
    without = plan_of(tmp_path, OWN)
    again = Spec.model_validate(json.loads(json.dumps(with_null.run.spec.content)))
    assert getattr(again, section).extras == {key: None}
    assert again.resolved() == with_null.run.spec.content
    with RunDirectory.create(tmp_path, "own", with_null.run) as directory:
        path = directory.path
    with pytest.raises(RunDirectoryError, match="started with something else"):
        RunDirectory.resume(path, without.run)
    RunDirectory.resume(path, with_null.run).close()


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("", "factors: {model.width_cap: [4, 8]}\ndesign: one-at-a-time\n", "width_cap=default"),
        ("", "factors: {data.shift: [0.5, 2.0]}\ndesign: one-at-a-time\n", "shift=default"),
        ("", "factors: {data.limit: [200, null]}\n", "limit=null"),
        ("", "factors: {data.validation: [9, null]}\n", "validation=null"),
        ("", "factors: {model.width_cap: [4, 8], data.shift: [null, 0.5]}\n", None),
    ],
)
def test_what_is_the_same_once_it_is_built_is_refused(
    tmp_path: Path, old: str, new: str, same: str | None
) -> None:
    plan = plan_of(tmp_path, OWN + new)
    if same is None:
        rehearse(plan)
        return
    with pytest.raises(InputError, match=r"own\.yaml: factors: .* gives the same training as") as error:
        rehearse(plan)
    assert same in str(error.value)


def test_a_null_in_a_schedule_is_its_default(tmp_path: Path) -> None:
    text = OWN + "factors: {schedule: [{name: triangular, down_epochs: null}, triangular]}\n"
    with pytest.raises(
        InputError, match=r"own\.yaml:5: factors\.schedule\[1\]: triangular gives the same training"
    ):
        plan_of(tmp_path, text)
    assert yaml.safe_load(text)["factors"]["schedule"][0]["down_epochs"] is None
