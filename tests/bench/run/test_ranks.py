"""A trial on several devices is one record, whichever of its processes ends, and nothing of it is left."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import yaml

from fusetune.bench.results import RunInfo
from fusetune.bench.results.outcomes import TrainingOutcome
from fusetune.bench.results.records import Record
from fusetune.bench.run.ranks import run_on_ranks
from fusetune.bench.run.trial import run_trial
from fusetune.bench.spec.design import Trial, expand
from fusetune.bench.spec.spec import Spec
from fusetune.bench.stats.caveats import caveats_of
from fusetune.bench.workers.executors import WorkerExecutor
from fusetune.bench.workers.guard import descendants
from fusetune.bench.workers.worker import WorkerContext, WorkerSetup
from fusetune.bench.workloads.datasets import DataRequest, locate

pytestmark = pytest.mark.slow

TEXT = """\
name: ranks
data:   {name: spirals, limit: 300, validation: 90}
model:  {factory: "tests.bench.run.rank_models:ends"}
train:  {optimizer: sgd, base_lr: 0.1, batch_size: 30, epochs: 3, devices: 2}
limits: {memory: 1GiB, trial_time: 2min}
factors: {model.how: ["", exit, kill, raise, memory]}
"""


def trials(text: str) -> dict[str, Trial]:
    """Return the trials of a spec by what ends them."""
    found = expand(Spec.model_validate(yaml.safe_load(text)))
    source = locate(DataRequest("spirals"), spec_dir=Path.cwd())
    return {trial.factors["model.how"]: dataclasses.replace(trial, source=source) for trial in found}


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
    assert (sharing.devices, sharing.parallel, sharing.threads, sharing.batch_norm) == (2, "ddp", 1, "share")
    assert None not in (sharing.communication_s, sharing.overlap, sharing.bytes_per_step)
    assert ok.provenance["threads"] == 2
    assert [caveat.name for caveat in caveats_of(RunInfo(), [ok])] == ["shares_normalised"]
    assert any(update["phase"] == "training" for update in updates)

    assert records["exit"].reason.startswith("rank 1 of 2 exited with code 7")
    assert records["kill"].reason.startswith("rank 1 of 2 died of SIGKILL")
    assert records["raise"].reason.startswith("rank 1 of 2: ValueError: the sample is not to its taste")
    assert {records[how].status for how in ("exit", "kill", "raise")} == {"failed"}
    assert records["memory"].status == "out_of_memory"
    assert records["memory"].reason.startswith("rank 1 of 2: wanted ")
    assert "the limit of the spec is 1.00 GiB" in records["memory"].reason
    for how, record in records.items():
        assert (record.worker.put_back, record.worker.replaced_for) == ((), ()), how
        # multiprocessing's tracker stays with the worker.
        assert left[how] <= 1, how


@pytest.mark.parametrize(
    ("how", "shown"), [("hang", "hung at rank_models.py"), ("stop", "answered no question")]
)
def test_a_process_that_hangs_is_named_within_the_limit(how: str, shown: str) -> None:
    text = TEXT.replace('["", exit, kill, raise, memory]', f"[{how}]")
    before = descendants(os.getpid())
    record = run_on_ranks(
        trials(text)[how], WorkerContext(), lambda progress: None, start_s=300.0, give_up_s=8.0
    )
    assert record.status == "failed"
    assert record.reason.startswith("rank 1 of 2 hung")
    assert shown in record.reason
    assert len(descendants(os.getpid()) - before) <= 1


def test_two_devices_reach_what_one_does() -> None:
    """Without batch normalisation the record is the same, up to the rounding of sums."""
    text = TEXT.replace('{factory: "tests.bench.run.rank_models:ends"}', "{name: mlp, width: 8}").replace(
        'model.how: ["", exit, kill, raise, memory]', "devices: [1, 2]"
    )
    found = expand(Spec.model_validate(yaml.safe_load(text)))
    source = locate(DataRequest("spirals"), spec_dir=Path.cwd())
    one, two = (
        run_trial(dataclasses.replace(trial, source=source), WorkerContext(), lambda progress: None)
        for trial in sorted(found, key=lambda trial: trial.spec.train.devices)
    )
    for mine, other in zip(one.curve, two.curve, strict=True):
        for name in ("step", "samples", "train_loss", "val_loss", "val_accuracy", "lr", "grad_norm"):
            assert other[name] == pytest.approx(mine[name], rel=1e-4)
    assert one.values["test_accuracy"] == pytest.approx(two.values["test_accuracy"], abs=0.02)
