"""The largest batch that several devices share: the rules of the search with runs made up, and one real run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.batch_size import shared_search as module
from fusetune.bench.batch_size.shared_search import search_on_devices
from fusetune.bench.batch_size.study import study_batch_sizes, with_limits
from fusetune.bench.cli import program as cli
from fusetune.bench.kinds import BATCH_SIZE
from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.results.outcomes import DeviceMemory, DeviceProbe, MemoryPrediction, MemoryProbe
from fusetune.bench.results.records import Record, Status
from fusetune.bench.run.plan import make_plan
from fusetune.bench.spec import load_spec
from fusetune.tuner.memory.lines import Line, Moment, StepMemory
from tests.bench.batch_size.test_study import needs_linux

MIB = 2**20
LIMIT = 200 * MIB
SPEC = """\
name: small
data:   {name: spirals, limit: 4000, validation: 500}
model:  {name: mlp, width: 64, depth: 2}
train:  {optimizer: adam, base_lr: 0.01, batch_size: 65, epochs: 3}
seeds: 2
"""


def tensors_bytes(share: int) -> float:
    return (10 + 0.5 * share) * MIB


def needs(share: int) -> float:
    """What a device really needs: more than the runs on one device say."""
    return 25 * MIB + 1.6 * tensors_bytes(share)


def known_records(*numbers: int) -> list[Record]:
    """Return a run of one device, and predictions for several."""
    memory = StepMemory((Moment("backward", {"parameters": Line(10.0 * MIB, 0.5 * MIB)}),)).as_dict()
    alone = MemoryPrediction(memory, 3000, LIMIT, "--memory", 0)
    found = [Record("seed=0,prediction", {}, 0, "ok", outcome=alone)]
    found += [
        Record(f"seed=0,devices={n}", {}, 0, "ok", outcome=DeviceMemory(n, "ddp", memory, 3000 // n))
        for n in numbers
    ]
    values = {"needed_bytes": 20 * MIB + 1.2 * tensors_bytes(280)}
    found.append(Record("seed=0,probe=1", {"batch_size": 280}, 0, "ok", values=values, outcome=MemoryProbe()))
    return found


def search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, there: int, timed: bool
) -> tuple[Any, list[str]]:
    """Search on two and on eight devices, of which some are there. Return the probes and what was announced."""

    def run(job: Any, *_: Any) -> Record:
        section = job.spec.train
        share = section.batch_size // section.devices
        assert section.batch_size == share * section.devices
        fits = needs(share) <= LIMIT
        name = "needed_bytes" if fits else "wanted_bytes"
        outcome = DeviceProbe(section.devices, section.parallel)
        status: Status = "ok" if fits else "out_of_memory"
        return Record(job.id, job.factors, 0, status, values={name: needs(share)}, outcome=outcome)

    monkeypatch.setattr(module, "run_under_limit", run)
    monkeypatch.setattr(module, "devices_there", lambda device: there)
    (tmp_path / "small.yaml").write_text(SPEC)
    loaded = with_limits(load_spec(tmp_path / "small.yaml"), LIMIT, grid=False, device=None)
    options = {"memory_bytes": LIMIT, "train_batch_size": 65, "devices": [1, 2, 8]}
    plan = make_plan(loaded, jobs=1, command=[], announce=print, kind=BATCH_SIZE, options=options)
    told: list[str] = []
    with RunDirectory.create(tmp_path / "r", "small", plan.run) as directory:
        records = known_records(2, 8)
        for record in records:
            directory.append(record)
        study = study_batch_sizes(directory.run, records, None)
        found = search_on_devices(plan, directory, study, told.append, timed=timed)
        kept = [record for record in directory.records()[0] if isinstance(record.outcome, DeviceProbe)]
        assert [record.trial for record in kept] == [record.trial for record in found]
    return found, told


def test_the_largest_that_ran_is_within_the_rules_for_one_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, told = search(tmp_path, monkeypatch, there=2, timed=False)
    assert {record.outcome.devices for record in found} == {2}
    assert "8 devices: not run, because 2 are here. Their batch stays predicted" in told[-1]
    # Runs on one device promised less, so the first batch does not fit. It is a row, and a smaller one ran.
    assert found[0].status == "out_of_memory"
    assert len(found) <= 4
    largest = ((LIMIT / MIB - 25) / 1.6 - 10) / 0.5
    shares = [record.factors["batch_size"] // 2 for record in found if record.status == "ok"]
    assert 0.9 * largest <= max(shares) <= largest


def test_the_specs_own_batch_is_timed_too_rounded_to_what_devices_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = search(tmp_path, monkeypatch, there=8, timed=True)
    last = {record.outcome.devices: record.factors["batch_size"] for record in found}
    assert last == {2: 64, 8: 64}


@pytest.mark.slow
@needs_linux
def test_the_command_runs_the_pair_under_the_limit_of_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "devices_there", lambda device: 2)
    (tmp_path / "small.yaml").write_text(SPEC)
    arguments = ("--memory", "1GiB", "--max", "128", "--devices", "1,2", "--memory-only", "--json")
    with pytest.raises(SystemExit) as stop:
        cli.main(["batch-size", str(tmp_path / "small.yaml"), *arguments, "--results", str(tmp_path / "r")])
    out, err = capsys.readouterr()
    assert not stop.value.code, err
    measured = json.loads(out)["configurations"][0]["measurements"]
    alone, two = measured["devices"]
    (run,) = two["runs"]
    assert (two["share"], two["batch_size"], two["ran"], run["status"]) == (64, 128, True, "ok")
    # Weights, gradients, and Adam's two moments of each: 5 layers of 64 x 64 at most.
    assert 4 * 2 * 64 * 64 * 4 <= run["needed_bytes"] < 2**30
    assert run["step_time_s"] > 0
    assert measured["device_choice"]["batch_size"] == 65
    assert alone["ran"]
