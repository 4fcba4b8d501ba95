"""docs/records.md lists exactly the fields that are on disk, with the units that the code has for them."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch

from fusetune.bench.autotune import Candidate, Confirmation, Tuning
from fusetune.bench.gate import GateResult, Measured, Metric, Pair, Row, Side, as_json
from fusetune.bench.gate.measured import Comparison
from fusetune.bench.gate.verdict import Outcome
from fusetune.bench.kernels import Case, CopySpeed, Policy, SideResult, Verification
from fusetune.bench.kernels import Row as Row_
from fusetune.bench.machine import describe_machine
from fusetune.bench.results import outcomes
from fusetune.bench.results.records import SCHEMA_VERSION, STATUSES, Record
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.results.run_options import BatchSizeOptions, RangeTestOptions
from fusetune.bench.results.schema import Provenance, Run, WrittenRecord
from fusetune.bench.search.event_log import LOG, EventLog
from fusetune.bench.search.plan import SearchPlan
from fusetune.bench.status import DeviceNow, Loss, NodeNow, RunStatus, TrialNow
from fusetune.bench.units import METRICS
from fusetune.tuner.diagnosis.finding import Finding
from fusetune.tuner.search import SearchTrial
from fusetune.tuner.search import Status as SearchStatus

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "records.md").read_text(encoding="utf-8")
GATE = GateResult(
    "", Side("main"), Side("working tree"), (Row("smoke", "step_time_s", "timing", "pass", ""),)
)
_PROCESS = Measured({"step_time_s": Metric((0.1,))})
PAIR = Pair("smoke", 0, _PROCESS, _PROCESS).as_dict()
PARTS = {
    "auto_rate": outcomes.AutoRate,
    "contended_epochs": outcomes.ContendedEpochs,
    "sharing": outcomes.Sharing,
    "simulated_batch": outcomes.SimulatedBatch,
    "size_to_target": outcomes.SizeToTarget,
    "rate_at_size": outcomes.RateAtSize,
    "kernel_row": Row_,
    "kernel_case": Case,
    "kernel_side": SideResult,
    "kernel_verification": Verification,
    "kernel_policy": Policy,
    "copy_speed": CopySpeed,
    "kernel_tuning": Tuning,
    "kernel_candidate": Candidate,
    "kernel_confirmation": Confirmation,
}


def sections() -> dict[str, list[list[str]]]:
    """Heading -> the rows of its table of fields, split into cells."""
    found = {}
    for part in re.split(r"^##+ ", PAGE, flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
        found[title] = [[cell.strip() for cell in row] for row in rows if len(row) == 5]
    return found


SECTIONS = sections()


def listed(title: str) -> list[str]:
    return [row[0].strip("`") for row in SECTIONS[title]]


def fields(of: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(of)]


@pytest.mark.parametrize(
    ("title", "names"),
    [
        ("run.json", list(Run.model_fields)),
        ("run.json", fields(RunInfo)),
        ("options of lr-range", fields(RangeTestOptions)),
        ("options of batch-size", fields(BatchSizeOptions)),
        ("records.jsonl", list(WrittenRecord.model_fields)),
        ("provenance", list(Provenance.model_fields)),
        ("values", list(METRICS)),
        ("worker", fields(outcomes.WorkerEvents)),
        ("status.json", fields(RunStatus)),
        ("a node", fields(NodeNow)),
        ("a device", fields(DeviceNow)),
        ("a trial in flight", fields(TrialNow)),
        ("a loss", fields(Loss)),
        ("pairs.jsonl", list(PAIR)),
        ("a process of a pair", list(PAIR["base"])),
        ("a metric of a process", list(PAIR["base"]["metrics"]["step_time_s"])),
        ("result.json of a gate", list(as_json(GATE))),
        ("a side of a gate", list(as_json(GATE)["base"])),
        ("a row of a gate", list(as_json(GATE)["rows"][0])),
        ("findings", list(Finding("overfitting", "").as_dict())),
        *((kind, fields(each)) for kind, each in outcomes.OUTCOMES.items()),
        *((title, fields(part)) for title, part in PARTS.items()),
    ],
)
def test_the_page_lists_exactly_the_fields_there_are(title: str, names: list[str]) -> None:
    assert sorted(listed(title)) == sorted(names)


def test_the_page_lists_exactly_what_is_written_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    of_cuda = {row[0].strip("`") for row in SECTIONS["machine"] if row[4].startswith("CUDA only")}
    assert set(describe_machine("cpu")) == set(listed("machine")) - of_cuda
    device = SimpleNamespace(
        name="Example GPU", total_memory=2**34, major=9, minor=0, multi_processor_count=132
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda name: device)
    assert set(describe_machine("cuda")) == set(listed("machine"))


def test_the_page_lists_exactly_the_events_of_a_search_and_their_fields(tmp_path: Path) -> None:
    plan = SearchPlan({"width": [8]}, 2, 0, "val_accuracy", budget_epochs=2, prior=False, fresh_seeds=(1,))
    log = EventLog(tmp_path, plan)
    training = SearchTrial(0, {"width": 8})
    log.begin(training)
    log.report(training, {"epoch": 1, "val_accuracy": 0.5})
    log.add_repeats(training, 1)
    training.status = "dropped"
    log.close(training)
    log.conclude()
    written = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]

    page = PAGE.partition("\n## search.jsonl\n")[2].partition("\n## ")[0]
    assert re.findall(r"^### (.+)$", page, flags=re.MULTILINE) == [event["event"] for event in written]
    assert {event["event"] for event in written} == set(log._apply)
    for event in written:
        assert sorted(event) == sorted([*listed(event["event"]), "event"])
    (statuses,) = [row[4] for row in SECTIONS["end"] if row[0] == "`status`"]
    assert {*re.findall(r"`(\w+)`", statuses), "paused"} == set(get_args(SearchStatus))


def test_every_class_on_disk_is_on_the_page_and_every_heading_is_one() -> None:
    outcome_part = PAGE.partition("\n## Outcomes\n")[2]
    assert re.findall(r"^### (\w+)$", outcome_part, flags=re.MULTILINE) == [*outcomes.OUTCOMES, *PARTS]


def test_what_a_record_writes_is_what_is_checked() -> None:
    record = Record("a", {}, 0, "ok", worker=outcomes.WorkerEvents(unexplained_kill=True))
    assert sorted(record.as_dict()) == sorted(WrittenRecord.model_fields)
    assert set(STATUSES) <= set(re.findall(r"`(\w+)`", " ".join(SECTIONS["records.jsonl"][4])))


def test_metrics_have_the_units_of_the_code() -> None:
    assert {row[0].strip("`"): row[2] for row in SECTIONS["values"]} == {
        name: metric.unit for name, metric in METRICS.items()
    }
    for rows in SECTIONS.values():
        for name, _, unit, *_ in rows:
            ending = name.strip("`")
            assert unit == "bytes" or not ending.endswith("_bytes")
            assert unit == "s" or not ending.endswith("_s") or ending.endswith("_per_s")


def test_the_page_names_every_outcome_and_comparison_of_a_gate() -> None:
    rows = {row[0].strip("`"): row[4] for row in SECTIONS["a row of a gate"]}
    assert set(re.findall(r"`([^`]+)`", rows["outcome"])) == set(get_args(Outcome))
    assert set(re.findall(r"`([^`]+)`", rows["comparison"])) == set(get_args(Comparison))


def test_a_field_is_since_a_version_that_there_was() -> None:
    sinces = {row[3] for rows in SECTIONS.values() for row in rows}
    assert sinces == {str(version) for version in range(1, SCHEMA_VERSION + 1)}
    versions = PAGE.partition("## Versions")[2].partition("\n## ")[0]
    assert re.findall(r"^\| (\d+) \|", versions, flags=re.MULTILINE) == sorted(sinces)


@pytest.mark.parametrize("path", sorted((HERE / "old_runs").glob("*/*")), ids=lambda path: path.name)
def test_runs_of_version_1_have_no_field_that_the_page_lacks(path: Path) -> None:
    run = json.loads((path / "run.json").read_text())
    assert set(run) <= set(listed("run.json"))
    assert set(run["machine"]) <= set(listed("machine"))
    if run["options"]:
        assert set(run["options"]) <= set(listed(f"options of {run['kind']}"))
    moved = set(
        re.findall(r"`(\w+)`", PAGE.partition("How a record of version 1 is read")[2].partition("## ")[0])
    )
    for line in (path / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert set(record) <= set(listed("records.jsonl"))
        assert set(record["provenance"]) <= set(listed("provenance")) | moved
        assert set(record["values"]) <= set(listed("values"))
