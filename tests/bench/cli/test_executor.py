"""`--executor`: what it changes, and what is refused before anything starts."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fusetune.bench.cli.executor import plan_run, with_option
from fusetune.bench.cli.run import run
from fusetune.bench.cluster.connection import _check_reachable
from fusetune.bench.errors import InputError
from fusetune.bench.kinds import BATCH_SIZE, LR_RANGE, TRAINING
from fusetune.bench.results import Record
from fusetune.bench.run import make_plan
from fusetune.bench.spec import Executor, load_spec
from fusetune.bench.workers import ExecutorLostError
from tests.bench.spec_text import SPEC


def test_the_option_changes_the_specs_executor_and_keeps_its_other_keys() -> None:
    of_spec = Executor(name="ray", address="a:1", stage="/fast")
    assert with_option(of_spec, None) == of_spec
    assert with_option(of_spec, "local") == Executor()
    assert with_option(of_spec, "ray").address == "a:1"
    changed = with_option(of_spec, "ray=b:2")
    assert (changed.address, changed.stage) == ("b:2", "/fast")


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("slurm", "unknown 'slurm'; known: local, ray"),
        ("rai", "Did you mean 'ray'?"),
        ("local=2", "local has no address"),
        ("ray=", "the address is empty"),
    ],
)
def test_an_executor_that_nobody_knows_is_refused(option: str, told: str) -> None:
    with pytest.raises(InputError) as refused:
        with_option(Executor(), option)
    assert told in str(refused.value)


def test_a_command_that_runs_here_says_that_it_does_not_use_the_specs_executor(tmp_path: Path) -> None:
    spec = tmp_path / "tiny.yaml"
    spec.write_text(SPEC + "executor: {name: ray, address: head:6379}\n")
    loaded = load_spec(spec)
    told: list[str] = []
    for kind in (LR_RANGE, BATCH_SIZE):
        make_plan(loaded, jobs=1, command=[], announce=told.append, kind=kind)
    assert told == [
        f"note: the spec's executor ray is not used. bench {name} runs on this machine"
        for name in ("lr-range", "batch-size")
    ]
    told.clear()
    with ExitStack() as stack:
        plan_run(load_spec, loaded, "local", 1, stack, command=[], announce=told.append, kind=TRAINING)
    assert told == []  # it was asked for


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265"])
def test_an_address_of_another_kind_is_refused_with_what_to_do(address: str) -> None:
    with pytest.raises(InputError) as refused:
        _check_reachable(address)
    assert str(refused.value) == (
        f"--executor ray={address}: is an address of Ray Client or of a job server. Give host:port, and start this "
        "command on a node of the cluster, e.g. by `ray job submit`"
    )


SMALL = """\
name: small
data: {name: spirals, limit: 100, validation: 20}
model: {name: mlp, width: 4, depth: 1}
train: {optimizer: sgd, base_lr: 0.1, batch_size: 20, epochs: 1}
device: cpu
threads: 1
seeds: 3
"""


class LosingWorkers:
    """Workers that lose the device of the last trial four times."""

    def first(self) -> LosingWorkers:
        return self

    def run(self, trials: Any, listener: Any = None, **options: Any) -> Any:
        if not isinstance(trials, list):  # a rehearsal
            return Record(trials.id, {}, 0, "ok")
        for trial in trials:
            listener.started(trial)
            if trial is not trials[-1]:
                values = {"best_val_accuracy": 0.5, "steps": 4.0, "step_time_s": 0.1}
                listener.finished(trial, Record(trial.id, trial.factors, trial.seed, "ok", values=values))
        loss = ExecutorLostError("its node died", node="n1", device="0")
        for attempt in range(1, 5):
            listener.lost(trials[-1], loss, attempt, attempt < 4)
        return trials[-1:]

    def settle(self, plan: Any) -> None: ...
    def close(self) -> None: ...


def test_a_trial_that_lost_its_device_too_often_makes_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusetune.bench.run.plan.LocalWorkers", lambda plan, logs: LosingWorkers())
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)
    done = CliRunner().invoke(run, ["small.yaml"])
    assert done.exit_code == 1, done.output
    assert "1 trial without a record, because devices were lost too often. Continue with: " in done.stderr
    assert "--resume results/small/" in done.stderr
    (records,) = Path("results/small").glob("*/records.jsonl")
    assert len(records.read_text().splitlines()) == 2
