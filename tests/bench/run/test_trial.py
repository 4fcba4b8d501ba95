"""A trial in this process: from a spec to a record; a rehearsal refuses what cannot be."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fusetune.bench.batch_size.probe import run_job
from fusetune.bench.learning_rate.study import run_lr_range
from fusetune.bench.results.outcomes import MemoryPrediction, RehearsalOutcome
from fusetune.bench.results.records import Record
from fusetune.bench.run.trial import run_trial
from fusetune.bench.spec.design import expand
from fusetune.bench.spec.spec import Spec
from fusetune.bench.workers.worker import WorkerContext
from fusetune.bench.workloads.datasets import DataRequest, locate

SMALL = """\
name: small
data:   {name: spirals, limit: 300, validation: 90}
model:  {name: mlp, width: 8}
train:  {optimizer: adam, base_lr: 0.02, batch_size: 30, epochs: 2}
"""


def run(text: str, context: WorkerContext | None = None, *, rehearsal: bool = False) -> Record:
    """Run the first trial of a spec."""
    trial = expand(Spec.model_validate(yaml.safe_load(text)))[0]
    data = trial.spec.data
    source = locate(
        DataRequest(data.name, path=data.path, factory=data.factory, options=data.extras), spec_dir=Path.cwd()
    )
    trial = dataclasses.replace(trial, source=source, rehearsal=rehearsal)
    return run_trial(trial, context or WorkerContext(), lambda progress: None)


def timeless(record: Record) -> list[dict[str, Any]]:
    return [{key: value for key, value in entry.items() if key != "time_s"} for entry in record.curve]


def test_a_trial_becomes_a_record() -> None:
    record = run(SMALL)
    assert record.status == "ok"
    assert (record.values["steps"], record.values["samples"]) == (20, 600)
    assert record.values["parameters"] == (2 * 8 + 8) + (8 * 8 + 8) + (8 * 3 + 3)
    assert len(record.samples["step_time_s"]) == 20
    assert math.isclose(sum(record.samples["step_time_s"]), record.values["training_s"], rel_tol=1e-4)
    assert record.provenance["precision"] == "fp32"


def test_the_trial_before_leaves_no_trace_in_the_next() -> None:
    context = WorkerContext()
    first = run(SMALL, context)
    run(SMALL.replace("adam", "momentum").replace("limit: 300", "limit: 600"), context)
    torch.rand(7)
    assert timeless(run(SMALL, context)) == timeless(first)


@pytest.mark.parametrize(
    "schedule", ["constant", "{name: plateau, patience: 0}", "{name: one-cycle, cycle_momentum: true}"]
)
@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_schedules_and_optimizers_reach_the_training(schedule: str, optimizer: str) -> None:
    text = SMALL.replace("optimizer: adam", f"optimizer: {optimizer}, schedule: {schedule}")
    curve = run(text).curve
    rates = [entry["lr"] for entry in curve]
    assert all(rate is not None and 0 < rate <= 0.02 for rate in rates)
    if "one-cycle" in schedule:
        # torch's last value: base_lr / 25 / 1e4
        assert rates[-1] == pytest.approx(0.02 / 25 / 1e4, rel=1e-9)
    elif schedule == "constant":
        assert rates == [0.02, 0.02]


def test_parameters_of_optimizers_not_in_use_are_left_out() -> None:
    text = SMALL.replace("optimizer: adam", "optimizer: adam, momentum: 0.9, nesterov: true")
    assert run(text + "factors: {optimizer: [adam, momentum]}\n").status == "ok"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            "batch_size: 30",
            "batch_size: 301",
            "train.batch_size: 301 x 1 accumulation steps are more than the 300",
        ),
        (
            "epochs: 2",
            "epochs: 2, accumulation_steps: 11",
            "train.batch_size: 30 x 11 accumulation steps are more",
        ),
        ("validation: 90", "validation: 2", "data.validation: is 2"),
        ("name: mlp", "name: cnn", "cnn"),
        ("epochs: 2", "epochs: 2, precision: fp16", "fp16 needs a CUDA device"),
        ("epochs: 2", "epochs: 2, schedule: {name: cosine, warmup_epochs: 2}", "warmup_epochs"),
        ("optimizer: adam", "optimizer: momentum, nesterov: true, dampening: 0.5", "Nesterov"),
        ("limit: 300", "limit: 300, augment: {flip: true}", "augment: needs images"),
        ("{name: mlp, width: 8}", "{factory: 'nowhere:build'}", "model.factory: no module 'nowhere'"),
        ("{name: mlp, width: 8}", "{factory: 'tests.bench.own_models:no_module'}", "returned a str"),
        (
            "{name: mlp, width: 8}",
            "{factory: 'tests.bench.own_models:wrong_shape'}",
            "model: gives (2, 7) for two samples",
        ),
        (
            "{name: mlp, width: 8}",
            "{factory: 'tests.bench.own_models:right', depht: 1}",
            "Did you mean 'depth'?",
        ),
        ("optimizer: adam", "optimizer: 'nowhere:Lion'", "train.optimizer: no module 'nowhere'"),
        ("optimizer: adam", "optimizer: 'torch.optim:LBFGS'", "needs a closure"),
        (
            "optimizer: adam",
            "optimizer: 'torch.optim:SGD', implementation: fused",
            "of your own, torch.optim:SGD",
        ),
    ],
)
def test_a_rehearsal_refuses_what_cannot_be_trained(old: str, new: str, complaint: str) -> None:
    assert old in SMALL
    record = run(SMALL.replace(old, new), rehearsal=True)
    assert record.status == "failed"
    assert record.outcome == RehearsalOutcome(bad_input=True)
    assert complaint in record.reason
    assert "\n" not in record.reason


def test_a_rehearsal_of_what_can_be_trained_trains_nothing() -> None:
    text = SMALL.replace("{name: mlp, width: 8}", "{factory: 'tests.bench.own_models:right', depth: 2}")
    record = run(text, rehearsal=True)
    assert (record.status, record.curve, record.values) == ("ok", [], {})
    assert run(text).values["parameters"] == 2 * (2 * 2 + 2) + (2 * 3 + 3)


def test_an_optimizer_by_factory_trains_as_the_named_one_does() -> None:
    named = SMALL.replace("optimizer: adam", "optimizer: sgd, schedule: one-cycle, precision: fp32")
    for text in ("'torch.optim:SGD'", "{factory: 'torch.optim:SGD', momentum: 0.9}"):
        options = "optimizer: momentum" if "momentum" in text else "optimizer: sgd"
        record = run(named.replace("optimizer: sgd", f"optimizer: {text}"))
        assert timeless(record) == timeless(run(named.replace("optimizer: sgd", options)))
        assert record.provenance["path"]["optimizer"] == "torch"


@pytest.mark.parametrize("job", ["range test", "memory trace"])
def test_range_tests_and_memory_traces_take_an_optimizer_by_factory(job: str) -> None:
    found = []
    for optimizer in ("momentum", "{factory: 'torch.optim:SGD', momentum: 0.9}"):
        spec = SMALL.replace("optimizer: adam", f"optimizer: {optimizer}, precision: fp32")
        trial = expand(Spec.model_validate(yaml.safe_load(spec)))[0]
        sweep = {"lr_min": 1e-4, "lr_max": 10.0, "steps": 10, "repeats": 1, "mode": "exponential"}
        is_sweep = job == "range test"
        options = {"confirm": False, "validation": False, "all_seeds": False, **sweep}
        trial = dataclasses.replace(
            trial, source=locate(DataRequest("spirals")), options=options if is_sweep else {"job": "predict"}
        )
        run_it = run_lr_range if is_sweep else run_job
        record = run_it(trial, WorkerContext(), lambda progress: None)
        assert record.status == "ok"
        lines = record.outcome.memory["moments"] if isinstance(record.outcome, MemoryPrediction) else None
        found.append((record.curve, lines))
    assert found[0] == found[1]
    assert found[0][0] or found[0][1]


def test_the_peak_of_a_configuration_does_not_go_by_what_ran_before() -> None:
    large = SMALL.replace(
        "name: spirals, limit: 300, validation: 90", "name: digits, limit: 200, validation: 100"
    )
    large = large.replace("{name: mlp, width: 8}", "{name: cnn, width: 16}")
    other = SMALL.replace("width: 8", "width: 16").replace("adam", "momentum")
    context = WorkerContext()
    records = [run(text, context) for text in (SMALL, large, SMALL, other, SMALL)]
    peaks = [record.values["peak_bytes"] for record in records]
    assert peaks[0] == peaks[2] == peaks[4] < peaks[3] < peaks[1]
    assert {record.provenance["peak_bytes_of"] for record in records} == {"the tensors"}


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_fused_and_torch_train_to_the_same_within_rounding(optimizer: str) -> None:
    """A short training of the same model and seed: the implementations differ by rounding alone."""
    text = SMALL.replace("optimizer: adam", f"optimizer: {optimizer}").replace(
        "width: 8", "width: 8, activation: silu"
    )
    plain = run(text)
    fused = run(text.replace("epochs: 2", "epochs: 2, implementation: fused"))
    assert plain.provenance["path"] == {"optimizer": "torch", "activations": "torch"}
    assert fused.provenance["path"] == {"optimizer": "triton-cpu", "activations": "triton-cpu"}
    for ours, theirs in zip(fused.curve, plain.curve, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)


def test_a_record_says_why_fused_kernels_went_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusetune.kernels.launch.why_not_on_cpu", lambda: "triton 9.9: does not fit.")
    record = run(SMALL.replace("epochs: 2", "epochs: 2, implementation: fused"))
    assert record.status == "ok"
    assert record.provenance["path"]["optimizer"] == "torch"
    assert record.provenance["path_reason"] == "triton 9.9: does not fit."


def test_an_optimizer_without_a_fused_twin_is_refused() -> None:
    record = run(
        SMALL.replace("optimizer: adam", "optimizer: rmsprop, implementation: fused"), rehearsal=True
    )
    assert (
        "rmsprop: has no fused implementation; known: adam, adamw, momentum, nesterov, sgd" in record.reason
    )


def test_a_wrong_fused_optimizer_is_caught_before_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    from fusetune import kernels

    class Wrong(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            for group in self.param_groups:
                group["eps"] = 1e-3
            return super().step(closure)

    monkeypatch.setattr(kernels, "FusedAdam", Wrong)
    with pytest.raises(RuntimeError, match="the fused adam is off by"):
        run(SMALL.replace("epochs: 2", "epochs: 2, implementation: fused"))
