"""`threads: auto|N`: which configurations are timed, what is chosen, and what workers and records make of it."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest
import torch
import yaml

from fusetune.bench.results.records import Record, ThreadsChoice
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.results.written_spec import WrittenSpec
from fusetune.bench.run.place import Place
from fusetune.bench.run.plan import settle_threads
from fusetune.bench.run.run_plan import RunPlan
from fusetune.bench.run.threads import measure_threads, most_threads, samples_of, timed_trials, times_of
from fusetune.bench.run.trial import run_trial
from fusetune.bench.spec.design import Trial, expand
from fusetune.bench.spec.spec import Spec
from fusetune.bench.workers import worker
from fusetune.bench.workers.worker import WorkerContext, WorkerSetup, attempt
from fusetune.bench.workloads.datasets import DataRequest, locate
from tests.bench.spec_text import SPEC


class Worker:
    """Takes `seconds(batch size, threads)` a step. Remembers what it was asked for."""

    def __init__(self, seconds: Any) -> None:
        self.seconds = seconds
        self.timed: list[int] = []

    def run(self, trial: Trial, on_progress: Any) -> Record:
        assert trial.rehearsal
        size = trial.spec.train.batch_size
        self.timed.append(size)
        times = {count: [self.seconds(size, count)] * 3 for count in trial.thread_counts}
        return Record(trial.id, trial.factors, trial.seed, "ok", samples=samples_of(times))

    def cancel(self) -> None: ...

    def close(self) -> None: ...


class Display:
    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


def trials(sizes: list[int]) -> list[Trial]:
    return expand(Spec.model_validate({**yaml.safe_load(SPEC), "factors": {"batch_size": sizes}}))


def plan(threads: Any = "auto", *, device: str = "cpu", bound: int | None = None) -> RunPlan:
    run = RunInfo(spec=WrittenSpec({"threads": threads}), device=device)
    setup = WorkerSetup("fusetune.bench.run.trial:run_trial", threads=bound)
    return RunPlan(trials([8, 16]), run, setup, None, Place(device, {}, most_threads=4))


def settled(a_plan: RunPlan, done: list[Record]) -> tuple[RunPlan, list[str], Worker]:
    fast, display = Worker(lambda size, count: 1.0 / count), Display()
    return settle_threads(a_plan, fast, display, done), display.said, fast  # type: ignore[arg-type]


def test_the_smallest_the_middle_and_the_largest_batch_stand_for_all() -> None:
    assert [t.spec.train.batch_size for t in timed_trials(trials([64, 8, 32, 16, 128]))] == [8, 32, 128]
    assert len(timed_trials(trials([64, 8]))) == 2


def test_one_number_is_chosen_for_all_configurations_and_a_step_that_fails_is_left_out() -> None:
    helps = Worker(lambda size, count: size / count)
    assert measure_threads(trials([8, 64]), helps, 2, print)[:1] == (2,)
    assert helps.timed == [8, 64]
    hinders = Worker(lambda size, count: size * count)
    assert measure_threads(trials([8]), hinders, 2, print)[:1] == (1,)
    broken = Worker(lambda size, count: size)
    broken.run = lambda trial, on_progress: Record("a", {}, 0, "out_of_memory")  # type: ignore[method-assign]
    assert measure_threads(trials([8]), broken, 2, print) == (2, "no step could be timed", {})


def test_the_choice_is_said_and_binds_workers_and_trials() -> None:
    found, said, timed = settled(plan(), [])
    assert timed.timed == [8, 16]
    assert (found.setup.threads, {trial.threads for trial in found.trials}) == (4, {4})
    assert found.threads is not None
    assert (found.threads.asked, found.threads.threads) == ("auto", 4)
    assert found.threads.speedups == {"1": 1.0, "2": 2.0, "4": 4.0}
    assert any("threads: 4" in line for line in said)


def test_a_number_in_the_spec_needs_no_measurement() -> None:
    found, _, timed = settled(plan(3, bound=3), [])
    assert found.threads == ThreadsChoice(3, 3, "the spec says so")
    assert (found.setup.threads, timed.timed) == (3, [])


def test_a_resumed_run_keeps_the_number_of_its_beginning() -> None:
    done = [Record("a", {}, 0, "ok", provenance={"threads": 2})]
    found, _, timed = settled(plan(), done)
    assert (found.setup.threads, timed.timed) == (2, [])


def test_on_a_gpu_torchs_own_number_stays() -> None:
    found, said, _ = settled(plan(device="cuda"), [])
    assert (found.setup.threads, said) == (None, [])


def test_a_workers_share_of_cores_and_quota() -> None:
    assert [most_threads(jobs, cores=8) for jobs in (1, 3, 16)] == [8, 2, 1]
    assert most_threads(1, cores=8, quota=2.5) == 2


def test_a_rehearsal_times_real_steps_with_each_number_and_a_trial_has_its_own() -> None:
    before = torch.get_num_threads()
    trial = dataclasses.replace(trials([8])[0], source=locate(DataRequest("spirals")))
    timed = run_trial(
        dataclasses.replace(trial, rehearsal=True, thread_counts=(1, 2)), WorkerContext(), print
    )
    assert {count: len(seconds) >= 3 for count, seconds in times_of(timed).items()} == {1: True, 2: True}
    assert torch.get_num_threads() == before
    try:
        record = attempt(
            run_trial, dataclasses.replace(trial, threads=1), WorkerContext(), lambda progress: None
        )
    finally:
        torch.set_num_threads(before)
    assert record.provenance["threads"] == 1


def test_workerswait_passively_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    for given, expected in (
        ({}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE", "KMP_BLOCKTIME": "0"}),
        (
            {"GOMP_SPINCOUNT": "7"},
            {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "7", "KMP_BLOCKTIME": "0"},
        ),
    ):
        with monkeypatch.context() as scoped:
            scoped.setattr(os, "environ", dict(given))
            worker.wait_passively()
            assert {name: value for name in names if (value := os.environ.get(name)) is not None} == expected
