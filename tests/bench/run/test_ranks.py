"""A trial on several devices is one record, whichever of its processes ends, and nothing of it is left."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest
import yaml

from fusetune.bench.results.outcomes import Sharing, TrainingOutcome
from fusetune.bench.results.records import Record
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.run.rank_process import Whereabouts
from fusetune.bench.run.ranks import judge, run_on_ranks
from fusetune.bench.run.trial import run_trial
from fusetune.bench.spec.design import Trial, expand
from fusetune.bench.spec.spec import Spec
from fusetune.bench.stats.caveats import caveats_of
from fusetune.bench.workers.executors import WorkerExecutor
from fusetune.bench.workers.guard import descendants
from fusetune.bench.workers.worker import WorkerContext, WorkerSetup
from fusetune.bench.workloads.datasets import DataRequest, locate

TEXT = """\
name: ranks
data:   {name: spirals, limit: 300, validation: 90}
model:  {factory: "tests.bench.run.rank_models:ends"}
train:  {optimizer: sgd, base_lr: 0.1, batch_size: 30, epochs: 3, devices: 2, sync_batchnorm: true}
limits: {memory: 1GiB, trial_time: 2min}
factors: {model.how: ["", exit, raise, memory]}
"""


def on_one_device(trial: Trial) -> Trial:
    """Return the same training on one device."""
    train = trial.spec.train.model_copy(update={"devices": 1})
    return dataclasses.replace(trial, spec=trial.spec.model_copy(update={"train": train}))


def trials(text: str) -> dict[str, Trial]:
    """Return the trials of a spec by what ends them."""
    found = expand(Spec.model_validate(yaml.safe_load(text)))
    source = locate(DataRequest("spirals"), spec_dir=Path.cwd())
    return {trial.factors["model.how"]: dataclasses.replace(trial, source=source) for trial in found}


@pytest.mark.slow
def test_each_end_of_a_process_is_one_record_that_names_it(tmp_path: Path) -> None:
    """One worker runs all of them, so each also shows that the one before has left nothing."""
    setup = WorkerSetup(
        "fusetune.bench.run.trial:run_trial", limit_bytes=2**30, threads=2, import_paths=(str(Path.cwd()),)
    )
    executor = WorkerExecutor(setup, log=tmp_path / "log")
    records: dict[str, Record] = {}
    left: dict[str, int] = {}
    updates: list[dict[str, object]] = []
    try:
        for how, trial in trials(TEXT).items():
            records[how] = executor.run(trial, updates.append)
            worker = executor.process_id
            left[how] = len(descendants(worker)) if worker is not None else 0
    finally:
        executor.close()

    ok = records[""]
    assert (ok.status, ok.values["steps"], ok.values["samples"]) == ("ok", 30, 900)
    assert isinstance(ok.outcome, TrainingOutcome)
    sharing = ok.outcome.sharing
    assert sharing is not None
    assert (sharing.devices, sharing.parallel, sharing.threads, sharing.batch_norm) == (2, "ddp", 1, "batch")
    assert None not in (sharing.communication_s, sharing.overlap, sharing.bytes_per_step)
    assert ok.provenance["threads"] == 2
    one = run_trial(on_one_device(trials(TEXT)[""]), WorkerContext(), updates.append)
    for mine, other in zip(one.curve, ok.curve, strict=True):
        for name in ("step", "samples", "train_loss", "val_loss", "lr", "grad_norm"):
            assert other[name] == pytest.approx(mine[name], rel=1e-3)
    assert {"starting 2 processes", "data", "training"} <= {str(update["phase"]) for update in updates}

    assert records["exit"].reason.startswith("rank 1 of 2 exited with code 7")
    assert records["raise"].reason.startswith("rank 1 of 2: ValueError: the sample is not to its taste")
    assert {records[how].status for how in ("exit", "raise")} == {"failed"}
    assert records["memory"].status == "out_of_memory"
    assert records["memory"].reason.startswith("rank 1 of 2: wanted ")
    assert "the limit of the spec is 1.00 GiB" in records["memory"].reason
    for how, record in records.items():
        assert (record.worker.put_back, record.worker.replaced_for) == ((), ()), how
        # multiprocessing's tracker stays with the worker.
        assert left[how] <= 1, how


@pytest.mark.slow
def test_a_process_that_hangs_is_named_within_the_limit() -> None:
    before = descendants(os.getpid())
    trial = trials(TEXT.replace('["", exit, raise, memory]', "[hang]"))["hang"]
    record = run_on_ranks(trial, WorkerContext(), lambda progress: None, start_s=300.0, give_up_s=25.0)
    assert record.status == "failed"
    assert re.match(r"rank 1 of 2 hung at rank_models.py:\d+ in end", record.reason)
    assert len(descendants(os.getpid()) - before) <= 1


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ({0: Whereabouts(42, "step.py:1 in a", True)}, (1, "hung: it answered no question")),
        (
            {0: Whereabouts(42, "step.py:1 in a", True), 1: Whereabouts(41, "own.py:2 in b", True)},
            (1, "hung at own.py:2 in b; it had entered 41 collective operations, another 42"),
        ),
        (
            {0: Whereabouts(41, "own.py:2 in b", False), 1: Whereabouts(41, "step.py:1 in a", True)},
            (0, "hung at own.py:2 in b"),
        ),
    ],
)
def test_the_process_that_the_others_wait_for_is_found(
    answers: dict[int, Whereabouts], found: tuple[int, str]
) -> None:
    rank, reason = judge([0, 1], answers, lost=())
    assert (rank, reason.startswith(found[1])) == (found[0], True), reason


def test_batch_normalisation_over_shares_is_said() -> None:
    outcome = TrainingOutcome(sharing=Sharing(4, "ddp", 1, batch_norm="share"))
    record = Record("a", {}, 0, "ok", outcome=outcome)
    [caveat] = caveats_of(RunInfo(), [record])
    assert (caveat.name, "down to a 4th of it" in caveat.sentence) == ("shares_normalised", True)
