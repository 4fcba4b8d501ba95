"""Training specs under the gate: the words of `bench run`, and what its record becomes.

`python` of the side is a program of a few lines that writes down its words and leaves a canned run.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.errors import InputError, SetupError
from fusetune.bench.gate.measured import Measured
from fusetune.bench.gate.processes import Place
from fusetune.bench.gate.record_metrics import metrics_in
from fusetune.bench.gate.rules import Rule, Rules
from fusetune.bench.gate.trainings import Trainings, is_fusetune
from fusetune.bench.results import Record, Status
from fusetune.bench.spec import load_spec

SPEC = """
name: tiny
data: {name: spirals, limit: 100, validation: 20}
model: {name: mlp}
train: {optimizer: adam, base_lr: 0.01, batch_size: 20, epochs: 2}
factors: {optimizer: [adam, momentum]}
target: {metric: val_accuracy, at_least: 0.9}
"""
RUN = {"schema_version": 2, "kind": "run", "machine": {"device": "cpu"}, "versions": {"torch": "9"}}
VALUES = {
    "time_to_target_s": 1.5,
    "steps_to_target": 30,
    "epochs_to_target": 3,
    "step_time_s": 0.05,
    "samples_per_s": 400.0,
    "final_val_accuracy": 0.95,
    "peak_bytes": 1000,
    "compile_s": 2.0,
    "processor_missing": 0.2,
}
FAKE = """#!{python}
import json, os, sys
words = sys.argv[1:]
json.dump({{"words": words, "path": os.environ.get("PYTHONPATH")}}, open({said!r}, "w"))
content = json.load(open({content!r}))
if content["record"]:
    folder = os.path.join(words[words.index("--results") + 1], "tiny", "one")
    os.makedirs(folder)
    json.dump(content["run"], open(os.path.join(folder, "run.json"), "w"))
    with open(os.path.join(folder, "records.jsonl"), "w") as file:
        file.write(json.dumps(content["record"]) + "\\n")
print(content["err"], file=sys.stderr)
sys.exit(content["code"])
"""


class Side:
    """A checkout whose interpreter is the fake one.

    Args:
        folder: of the test.
        text: the spec.
        settings: further arguments of `Trainings`.
    """

    def __init__(self, folder: Path, text: str = SPEC, **settings: Any) -> None:
        (folder / "spec.yaml").write_text(text)
        self.folder = folder
        self.python = folder / "python"
        self.said = folder / "said.json"
        self.content = folder / "content.json"
        self.python.write_text(
            FAKE.format(python=sys.executable, said=str(self.said), content=str(self.content))
        )
        self.python.chmod(0o755)
        self.told: list[str] = []
        overrides = settings.pop("overrides", ())
        configurations = settings.pop("configurations", ())
        loaded = load_spec(folder / "spec.yaml", overrides=(*overrides, *configurations))
        rules = settings.pop("rules", Rules())
        self.trainings = Trainings(loaded, Path("spec.yaml"), overrides, rules, self.told.append, **settings)

    def measure(
        self, record: Record | None, *, job: str = "tiny", code: int = 0, err: str = "", index: int = 3
    ) -> Measured:
        written = record and record.as_dict()
        self.content.write_text(json.dumps({"run": RUN, "record": written, "code": code, "err": err}))
        place = Place("head", "head main", self.folder, str(self.python))
        return self.trainings.measure(job, index, place, None)[job]

    @property
    def words(self) -> list[str]:
        return json.loads(self.said.read_text())["words"]

    @property
    def overrides(self) -> list[str]:
        words = self.words
        return [words[number + 1] for number, word in enumerate(words) if word == "--set"]


def record(status: Status = "ok", **content: Any) -> Record:
    steps = [0.01 * number for number in range(1, 61)]
    fields = {"values": VALUES, "samples": {"step_time_s": steps}, "provenance": {"threads": 2}, **content}
    return Record("seed=3", {}, 3, status, **fields)


def test_one_configuration_is_trained_with_the_seed_of_the_pair(tmp_path: Path) -> None:
    side = Side(tmp_path, overrides=("train.epochs=1", "gate.budget=5min"))
    assert side.trainings.jobs == ("tiny",)
    side.measure(record())
    assert side.words[:4] == ["-m", "fusetune.bench", "run", "spec.yaml"]
    assert side.overrides == ["train.epochs=1", "factors={}", "seeds=[3]"]


def test_a_configuration_is_a_factor_with_one_value(tmp_path: Path) -> None:
    text = 'gate.configurations=[{"optimizer": momentum, "train.betas": null}, {"batch_size": 10}]'
    side = Side(tmp_path, SPEC.replace("factors:", "design: grid\nfactors:"), configurations=(text,))
    assert side.trainings.jobs == ("tiny: optimizer=momentum,train.betas=null", "tiny: batch_size=10")
    side.measure(record(), job=side.trainings.jobs[0])
    assert side.overrides == [
        "factors={}",
        "seeds=[3]",
        "design=grid",
        'factors={"optimizer": ["momentum"], "train.betas": [null]}',
    ]
    trained = load_spec(tmp_path / "spec.yaml", overrides=side.overrides).spec
    assert trained.factors == {"optimizer": ["momentum"], "train.betas": [None]}
    assert trained.seeds == [3]


def test_a_list_of_values_is_a_configuration_each(tmp_path: Path) -> None:
    text = 'gate.configurations=[{"optimizer": [adam, momentum], "train.betas": [[0.9, 0.99]]}]'
    side = Side(tmp_path, configurations=(text,))
    assert side.trainings.jobs == (
        "tiny: optimizer=adam,train.betas=[0.9;0.99]",
        "tiny: optimizer=momentum,train.betas=[0.9;0.99]",
    )
    side.measure(record(), job=side.trainings.jobs[0])
    assert side.overrides[-1] == 'factors={"optimizer": ["adam"], "train.betas": [[0.9, 0.99]]}'


def test_a_list_of_configurations_is_emptied(tmp_path: Path) -> None:
    text = SPEC.replace("factors: {optimizer: [adam, momentum]}", "configurations: [{batch_size: [10, 20]}]")
    side = Side(tmp_path, text)
    side.measure(record())
    trained = load_spec(tmp_path / "spec.yaml", overrides=side.overrides).spec
    assert (trained.configurations, trained.factors) == (None, {})


def test_both_sides_have_the_threads_that_the_first_process_chose(tmp_path: Path) -> None:
    side = Side(tmp_path)
    side.measure(record())
    side.measure(record(provenance={"threads": 1}), index=4)
    assert side.overrides[-1] == "threads=2"
    fixed = Side(tmp_path, SPEC + "threads: 1\n")
    fixed.measure(record())
    fixed.measure(record())
    assert not any(text.startswith("threads") for text in fixed.overrides)


def test_both_sides_are_measured_on_this_machine(tmp_path: Path) -> None:
    text = (
        SPEC
        + "executor: {name: ray, address: head:6379}\nprofiles: {cpu: {executor: ray}}\ngate: {budget: 5min}\n"
    )
    side = Side(tmp_path, text, overrides=("executor.stage=/fast", "executor=ray", "train.epochs=1"))
    assert side.trainings.loaded.spec.executor.name == "ray"
    side.measure(record())
    assert side.overrides == ["train.epochs=1", "factors={}", "seeds=[3]"]
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    side.trainings.prepare(checkout)
    written = load_spec(checkout / "spec.yaml", overrides=side.overrides, device="cpu").spec
    assert (written.executor.name, written.gate) == ("local", None)


def test_the_metrics_of_a_training(tmp_path: Path) -> None:
    measured = Side(tmp_path).measure(record())
    kinds = {
        name: (each.values[0], each.unit, each.better, each.comparison)
        for name, each in measured.metrics.items()
        if name != "step_time_s"
    }
    assert kinds == {
        "time_to_target_s": (1.5, "s", "lower", "learning"),
        "steps_to_target": (30.0, "count", "lower", "learning"),
        "final_val_accuracy": (0.95, "fraction", "higher", "learning"),
        "peak_bytes": (1000.0, "bytes", "lower", "exact"),
    }
    step = measured.metrics["step_time_s"]
    # 60 steps of 0.01, 0.02, ... s: the mean of each two.
    assert step.values == pytest.approx([0.015 + 0.02 * number for number in range(30)])
    assert (step.unit, step.better, step.comparison) == ("s", "lower", "timing")
    assert (measured.contention, measured.failure) == (0.2, "")


def test_a_rule_brings_a_metric_in(tmp_path: Path) -> None:
    rules = Rules({"compile_s": Rule(0.1)}, {"tiny": {"samples_per_s": Rule(0.1)}})
    measured = Side(tmp_path, rules=rules).measure(record())
    assert measured.metrics["compile_s"].comparison == "timing"
    assert measured.metrics["samples_per_s"].better == "higher"


@pytest.mark.parametrize("status", ["missed_target", "stopped_early"])
def test_a_missed_target_is_infinite_and_no_failure(tmp_path: Path, status: Status) -> None:
    values = {name: value for name, value in VALUES.items() if "_to_target" not in name}
    measured = Side(tmp_path).measure(record(status, values=values))
    assert measured.failure == ""
    assert measured.metrics["steps_to_target"].values == (math.inf,)
    assert measured.metrics["time_to_target_s"].values == (math.inf,)
    assert measured.metrics["final_val_accuracy"].values == (0.95,)


def test_without_a_target_none_is_missed() -> None:
    values = {"step_time_s": 0.5, "final_val_accuracy": 0.5}
    stopped = Record("seed=0", {}, 0, "stopped_early", values=values)
    assert set(metrics_in(stopped, has_target=False)) == {"step_time_s", "final_val_accuracy"}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("failed", "the training failed: why"),
        ("diverged", "the training diverged: why"),
        ("out_of_memory", "the training ran out of memory: why"),
    ],
)
def test_other_ends_are_failures(tmp_path: Path, status: Status, said: str) -> None:
    side = Side(tmp_path)
    measured = side.measure(record(status, reason="why"), code=int(status == "failed"))
    assert (measured.failure, dict(measured.metrics)) == (said, {})
    assert side.told == [f"head main: {said}"]


def test_a_process_that_dies_without_a_record_is_a_failure(tmp_path: Path) -> None:
    measured = Side(tmp_path).measure(None, code=1, err="Segmentation fault")
    assert measured.failure == "it ended with exit code 1, and said: Segmentation fault"


def test_a_side_that_rejects_the_spec_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        Side(tmp_path).measure(None, code=2, err="error: spec.yaml:3: train.foo: unknown key; known: epochs")
    assert str(caught.value) == (
        "head main: `bench run` rejects the spec; it says:\n  spec.yaml:3: train.foo: unknown key; known: epochs"
    )


def test_a_side_without_the_command_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="head main: has no command `bench run`"):
        Side(tmp_path).measure(None, code=1, err="/usr/bin/python: No module named fusetune")


def test_a_side_that_cannot_be_imported_is_no_regression(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be imported; it says ImportError: no torch"):
        Side(tmp_path).measure(None, code=1, err="Traceback\nImportError: no torch")


def test_a_worker_that_cannot_be_imported_is_no_regression(tmp_path: Path) -> None:
    reason = (
        "the worker exited with code 1; its last lines: import x | ModuleNotFoundError: No module named 'x'"
    )
    with pytest.raises(
        SetupError, match="cannot be imported; it says ModuleNotFoundError: No module named 'x'"
    ):
        Side(tmp_path).measure(record("failed", reason=reason), code=1)


def test_what_the_run_says_of_machine_and_versions_is_kept(tmp_path: Path) -> None:
    side = Side(tmp_path)
    side.measure(record())
    assert side.trainings.facts["head"]["machine"] == {"device": "cpu"}
    assert side.trainings.facts["head"]["versions"] == {"torch": "9"}


def test_the_base_gets_the_spec_of_head_without_its_gate(tmp_path: Path) -> None:
    section = "gate: {metrics: {step_time_s: {threshold: 0.05}}}\nprofiles: {cpu: {gate: {budget: 1min}}}\n"
    side = Side(tmp_path, SPEC + section + 'description: "1e3"\n')
    base = tmp_path / "base"
    base.mkdir()
    side.trainings.prepare(base)
    spec = load_spec(base / "spec.yaml").spec
    assert spec.gate is None
    assert "gate" not in (base / "spec.yaml").read_text()
    assert spec.resolved() == side.trainings.loaded.spec.resolved()
    plain = Side(tmp_path)
    plain.trainings.prepare(base)
    assert (base / "spec.yaml").read_text() == SPEC


def test_which_checkouts_are_fusetune_itself(tmp_path: Path) -> None:
    assert is_fusetune(Path(__file__).parents[3])
    assert not is_fusetune(tmp_path)
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/__main__.py").touch()
    assert not is_fusetune(tmp_path)
    (tmp_path / "bench/spec").mkdir()
    (tmp_path / "bench/spec/spec.py").touch()
    assert is_fusetune(tmp_path)


def test_a_checkout_of_fusetune_runs_its_own_code(tmp_path: Path) -> None:
    side = Side(tmp_path)
    (tmp_path / "src/fusetune").mkdir(parents=True)
    (tmp_path / "src/fusetune/__init__.py").touch()
    side.measure(record())
    assert json.loads(side.said.read_text())["path"].split(":")[0] == str(tmp_path / "src")
    before = tmp_path / "before"
    (before / "bench/spec").mkdir(parents=True)
    for file in ("bench/__main__.py", "bench/spec/spec.py"):
        (before / file).touch()
    side = Side(before)
    side.measure(record())
    assert side.words[:2] == ["-m", "bench"]
    assert json.loads(side.said.read_text())["path"].split(":")[0] == str(before)
