"""The workers of one machine: which GPUs each has."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fusetune.bench.errors import InputError
from fusetune.bench.results import Record
from fusetune.bench.run import local_workers, place
from fusetune.bench.run.local_workers import LocalWorkers
from fusetune.bench.run.place import local_place
from fusetune.bench.spec import Spec
from fusetune.bench.status import Board
from fusetune.bench.workers import (
    OnProgress,
    Progress,
    WorkerContext,
    WorkerExecutor,
    WorkerSetup,
    visible_gpus,
)
from fusetune.bench.workers.executors import InProcessExecutor
from tests.bench.workers.test_executors import FakeTrial


def spec(**resources: Any) -> Spec:
    text = {
        "name": "a",
        "data": {"name": "spirals"},
        "model": {"name": "mlp"},
        "train": {"base_lr": 0.1, "batch_size": 8, "epochs": 1},
        "resources": resources,
    }
    return Spec.model_validate(text)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with four GPUs and 16 cores."""
    monkeypatch.setattr(place, "visible_gpus", lambda: ("4", "5", "6", "7"))
    monkeypatch.setattr(place, "describe_machine", lambda device: {"device": device})
    monkeypatch.setattr(place, "usable_cores", lambda: 16)
    monkeypatch.setattr(place, "most_threads", lambda jobs: 16 // jobs)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("resources", "jobs", "at_once", "sharing", "gpus", "threads"),
    [
        ({}, None, 4, 1, ("4", "5", "6", "7"), 4),
        ({}, 2, 2, 1, ("4", "5"), 8),
        ({}, 8, 8, 2, ("4", "5", "6", "7"), 2),
        ({}, 1, 1, 1, (), 16),
        ({"gpus": 2}, None, 2, 1, ("4,5", "6,7"), 8),
        ({"gpus": 3}, None, 1, 1, ("4,5,6",), 16),
        ({"gpus": 4}, None, 1, 1, (), 16),
        ({"gpus": 1, "cpus": 3}, None, 4, 1, ("4", "5", "6", "7"), 3),
    ],
)
def test_each_worker_has_gpus_of_its_own_where_there_are_enough(
    resources: dict[str, int],
    jobs: int | None,
    at_once: int,
    sharing: int,
    gpus: tuple[str, ...],
    threads: int,
) -> None:
    found = local_place(spec(**resources), "cuda", jobs)
    assert (found.trials_at_once, found.sharing, found.gpus) == (at_once, sharing, gpus)
    assert found.most_threads == threads


@pytest.mark.usefixtures("machine")
def test_a_trial_on_several_devices_has_as_many_gpus() -> None:
    assert local_place(spec(), "cuda", None, 2).gpus == ("4,5", "6,7")
    with pytest.raises(InputError, match=r"1 are asked for each trial, and train.devices is 2"):
        local_place(spec(gpus=1), "cuda", None, 2)


@pytest.mark.usefixtures("machine")
def test_on_a_cpu_one_trial_has_the_machine() -> None:
    found = local_place(spec(), "cpu", None)
    assert (found.trials_at_once, found.sharing, found.gpus, found.described) == (1, 1, (), "local")
    assert local_place(spec(), "cpu", 3).sharing == 3


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("resources", "told"),
    [
        ({"gpus": 5}, "5 are asked for each trial, and this machine has 4"),
        ({"cpus": 17}, "this machine has 16"),
    ],
)
def test_what_the_machine_does_not_have_is_refused(resources: dict[str, int], told: str) -> None:
    with pytest.raises(InputError, match=told):
        local_place(spec(**resources), "cuda", None)


@pytest.mark.parametrize(
    ("given", "names"), [(None, ("0", "1")), ("3,1", ("3", "1")), ("GPU-aa, GPU-bb", ("GPU-aa", "GPU-bb"))]
)
def test_gpus_are_called_as_this_process_sees_them(
    given: str | None, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    if given is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == names


def test_a_gpu_belongs_to_one_run_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local_workers, "visible_gpus", lambda: ("0", "1"))
    monkeypatch.setattr(local_workers, "gpu_uuids", lambda: ("GPU-aa", "GPU-bb"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))

    def workers(*gpus: str) -> LocalWorkers:
        plan = SimpleNamespace(run=SimpleNamespace(device="cuda"), place=SimpleNamespace(gpus=gpus))
        return LocalWorkers(plan, tmp_path)  # type: ignore[arg-type]

    first, second = workers("0"), workers("1")
    with pytest.raises(InputError, match=r"GPU 0 \(GPU-aa\) is used by another run"):
        workers("0")
    first.close()
    third = workers("0")
    with pytest.raises(InputError, match="GPU 0"):
        workers()  # one worker that sees both
    second.close()
    third.close()
    workers().close()


def test_a_worker_sees_its_gpus_before_torch_asks(tmp_path: Path) -> None:
    setup = WorkerSetup(f"{__name__}:say_gpus", gpus="2,3")
    executor = WorkerExecutor(setup, log=tmp_path / "worker.log")
    try:
        record = executor.run(FakeTrial("a"), lambda progress: None)
    finally:
        executor.close()
    assert record.factors == {"gpus": "2,3"}


def say_gpus(trial: FakeTrial, context: WorkerContext, on_progress: OnProgress) -> Record:
    """The trial of the test above, in a worker."""
    return Record(trial.id, {"gpus": os.environ["CUDA_VISIBLE_DEVICES"]}, 0, "ok")


def test_news_of_a_worker_says_on_which_gpus_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = SimpleNamespace(device_name="Example GPU")
    run, place = SimpleNamespace(device="cpu", machine=machine), SimpleNamespace(gpus=("2", "3"))
    workers = LocalWorkers(SimpleNamespace(run=run, place=place, jobs=2), tmp_path)  # type: ignore[arg-type]
    monkeypatch.setattr(workers, "_make", lambda index: InProcessExecutor(say_step))
    board = Board()

    class Listener:
        joined = staticmethod(board.device_joined)

        def started(self, trial: FakeTrial) -> None:
            board.trial_started(trial.id, 1, now_s=0.0)

        def progressed(self, trial: FakeTrial, progress: Progress) -> None:
            board.trial_progress(trial.id, progress)

        def finished(self, trial: FakeTrial, record: Record) -> None:
            assert board.flights[trial.id].update["step"] == 1
            board.trial_finished(record, now_s=1.0)

    workers.run([FakeTrial(name) for name in "abcdef"], Listener())  # type: ignore[arg-type]
    (node,) = board.status(1.0, datetime.now(timezone.utc)).nodes
    assert (node.node, node.done) == ("local", 6)
    assert [(each.device, each.kind) for each in node.devices] == [("2", "Example GPU"), ("3", "Example GPU")]
    assert sum(each.done for each in node.devices) == 6


def say_step(trial: FakeTrial, context: WorkerContext, on_progress: OnProgress) -> Record:
    """A trial of the test above."""
    on_progress({"step": 1})
    return Record(trial.id, {}, 0, "ok")
