"""What a run leaves in its history, against numpy and git."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusetune.bench.gate.gate_directory import GateDirectory
from fusetune.bench.gate.measured import Measured, Metric, Pair
from fusetune.bench.gate.result import GateResult, Side
from fusetune.bench.history.commits import CommitCounter, CommitFacts, commit_facts
from fusetune.bench.history.entries import (
    MACHINE_FACTS,
    BenchmarkEntry,
    Entry,
    MetricEntry,
    QuartileLists,
    as_line,
    benchmark_entry,
)
from fusetune.bench.history.log import read_history
from fusetune.bench.history.recording import Recorded, RunRecorder, append_run, record_gate
from fusetune.bench.results.records import Record
from fusetune.bench.results.run_info import RunInfo
from tests.bench.gate.scratch_repository import commit, git, make_repository, write

PAGE = (Path(__file__).parents[3] / "docs" / "records.md").read_text(encoding="utf-8")
MACHINE = {"device": "cpu", "device_name": "Some CPU", "cores": 2, "os": "Linux 6.1 x86_64", "extra": 1}


def run_info(**more: Any) -> RunInfo:
    return RunInfo.from_dict(
        {
            "run_id": "20261129-120000-abcd",
            "spec": {"name": "smoke", "target": {"metric": "val_accuracy", "at_least": 0.5}},
            "machine": MACHINE,
            "versions": {"torch": "2.9.0", "triton": None},
            "stand_in": "generated stands in for cifar10.",
            **more,
        }
    )


def record(seed: int, factors: dict[str, Any], status: Any = "ok", **values: float) -> Record:
    rounds = list(np.random.default_rng(seed).lognormal(-4, 0.1, 12))
    return Record(
        f"seed={seed}",
        factors,
        seed,
        status,
        reason="the loss is not finite" if status == "diverged" else "",
        values={"step_time_s": 0.02, "peak_bytes": 123_456_789_012, "final_val_accuracy": 0.9, **values},
        samples={"step_time_s": rounds},
        provenance={"threads": 2},
    )


def test_a_run_is_recorded_by_configuration_with_quartiles_of_its_rounds(tmp_path: Path) -> None:
    records = [
        record(1, {"optimizer": "adam"}, steps_to_target=96.0, time_to_target_s=1.0),
        record(0, {"optimizer": "adam"}, "missed_target"),
        record(0, {"optimizer": "sgd"}, "diverged"),
    ]
    path = RunRecorder(tmp_path / "smoke.yaml", tmp_path).append(run_info(), records)
    assert path == tmp_path / "history" / "some-2-cores-linux-x86_64" / "smoke.jsonl"
    (entry,) = read_history(tmp_path, "smoke").entries
    assert list(entry.benchmarks) == ["smoke: optimizer=adam", "smoke: optimizer=sgd"]
    adam, sgd = entry.benchmarks.values()
    step_time = adam.metrics["step_time_s"]
    expected = [np.quantile(record(seed, {}).samples["step_time_s"], (0.25, 0.5, 0.75)) for seed in (0, 1)]
    assert step_time.q1 == pytest.approx([each[0] for each in expected], rel=1e-5)
    assert step_time.median == pytest.approx([each[1] for each in expected], rel=1e-5)
    assert step_time.q3 == pytest.approx([each[2] for each in expected], rel=1e-5)
    assert (step_time.unit, step_time.better, step_time.comparison) == ("s", "lower", "timing")
    # A missed target is written, and is no number.
    assert adam.metrics["steps_to_target"].median == [None, 96.0]
    assert adam.metrics["steps_to_target"].q1 is None
    # A count keeps all its digits.
    assert adam.metrics["peak_bytes"].median == [123_456_789_012.0] * 2
    assert adam.reference is not None
    assert len(adam.reference.median) == 2
    assert all(value > 0 for value in adam.reference.q1)
    assert adam.threads == 2
    assert sgd.metrics == {}
    assert sgd.failures == ["the training diverged: the loss is not finite"]


def test_a_line_has_what_the_numbers_depend_on_and_no_more_of_the_machine(tmp_path: Path) -> None:
    RunRecorder(tmp_path / "smoke.yaml", tmp_path).append(run_info(), [record(0, {})])
    (entry,) = read_history(tmp_path, "smoke").entries
    assert entry.run_id == "20261129-120000-abcd"
    assert entry.source == "run"
    assert entry.versions == {"torch": "2.9.0", "triton": None}
    assert entry.machine == {key: value for key, value in MACHINE.items() if key != "extra"}
    assert entry.stand_in == "generated stands in for cifar10."
    assert list(entry.benchmarks) == ["smoke"]
    assert (entry.commit, entry.commit_time, entry.subject, entry.dirty) == (None, None, None, None)


def test_the_commit_is_that_of_the_repository_of_the_spec_before_the_run(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "repository", {"specs/smoke.yaml": "name: smoke\n"})
    measured = commit(root, {"a.py": "1"}, "faster: by half")
    recorder = RunRecorder(root / "specs" / "smoke.yaml", root / "results")
    commit(root, {"a.py": "2"}, "made while the run was on")
    recorder.append(run_info(), [record(0, {})])
    (entry,) = read_history(root / "results", "smoke").entries
    assert (entry.commit, entry.subject, entry.dirty) == (measured, "faster: by half", False)
    assert entry.commit_time == git(root, "show", "--no-patch", "--format=%cI", measured).replace(
        "Z", "+00:00"
    )
    assert entry.spec_path == "specs/smoke.yaml"


def test_a_history_that_grows_does_not_make_its_own_repository_dirty(tmp_path: Path) -> None:
    root = make_repository(tmp_path, {"a.py": "1", "results/history/m/smoke.jsonl": "", "results/x": "1"})
    history = root / "results" / "history"
    write(root, {"results/history/m/smoke.jsonl": "{}\n", "untracked": "1"})
    assert commit_facts(root, apart_from=history).dirty is False
    assert commit_facts(root).dirty is True
    write(root, {"results/x": "2"})
    assert commit_facts(root, apart_from=history).dirty is True


def test_no_repository_is_no_commit(tmp_path: Path) -> None:
    assert commit_facts(tmp_path) == CommitFacts()
    make_repository(tmp_path / "empty")
    git(tmp_path / "empty", "switch", "--quiet", "--orphan", "none")
    assert commit_facts(tmp_path / "empty") == CommitFacts()


def test_commits_between_two_runs_are_counted(tmp_path: Path) -> None:
    root = make_repository(tmp_path)
    hashes = [commit(root, {"a": str(number)}, "next") for number in range(4)]
    count = CommitCounter(root / "nowhere" / "deeper")
    assert count(hashes[0], hashes[3]) == 3
    assert count(hashes[0], hashes[0]) == 0
    assert count(hashes[0], None) is None
    assert count(hashes[0], "0" * 40) is None
    assert count("--all", hashes[0]) is None
    assert CommitCounter(Path("/"))(hashes[0], hashes[3]) is None


def test_others_can_record_what_they_measured(tmp_path: Path) -> None:
    measured = Measured({"decode_s": Metric((0.3, 0.1, 0.2))}, ref=(0.001, 0.003))
    recorded = Recorded("gate-1", "gate", MACHINE, {}, command="python bench/decode.py")
    path = append_run(
        tmp_path, "python bench/decode.py", recorded, {"decode": [measured, measured], "none": []}
    )
    assert path.name == "python-bench-decode.py.jsonl"
    (entry,) = read_history(tmp_path, "python-bench-decode.py").entries
    assert (entry.source, entry.measured_command, entry.spec_path) == ("gate", "python bench/decode.py", None)
    assert list(entry.benchmarks) == ["decode"]
    assert entry.benchmarks["decode"].metrics["decode_s"].q3 == [0.25, 0.25]
    assert entry.benchmarks["decode"].reference == QuartileLists(
        q1=[0.0015] * 2, median=[0.002] * 2, q3=[0.0025] * 2
    )


def test_a_gate_of_a_spec_is_recorded_under_the_name_of_the_spec(tmp_path: Path) -> None:
    base, head = (Measured({"step_time_s": Metric((time,))}, ref=(0.001,)) for time in (0.1, 0.2))
    request = {"spec": "specs/smoke.yaml", "command": ""}
    with GateDirectory.create(tmp_path, {"request": request, "seed": 0}) as directory:
        directory.append([Pair("smoke: optimizer=adam", index, base, head) for index in range(5)])
    side = Side("working tree", "0" * 40, dirty=False, machine=MACHINE, versions={"torch": "2.9.0"})
    path = record_gate(
        tmp_path, GateResult("specs/smoke.yaml", side, side, (), directory=str(directory.path))
    )
    assert path.stem == "smoke"
    (entry,) = read_history(tmp_path, "smoke").entries
    assert (entry.run_id, entry.source, entry.spec_path) == (directory.path.name, "gate", "specs/smoke.yaml")
    assert entry.measured_command is None
    assert entry.benchmarks["smoke: optimizer=adam"].metrics["step_time_s"].median == [0.2] * 5


def test_a_reference_is_kept_where_all_processes_have_it() -> None:
    metrics = {"decode_s": Metric((0.1,))}
    assert benchmark_entry([Measured(metrics, ref=(0.1,)), Measured(metrics)]).reference is None
    assert benchmark_entry([Measured(metrics, ref=(0.1,)), Measured(failure="it fell")]).reference is not None


def test_a_metric_that_one_process_lacks_is_left_out() -> None:
    both, one = Metric((0.1,)), Metric((0.2,))
    entry = benchmark_entry([Measured({"a_s": both, "b_s": one}), Measured({"a_s": both})])
    assert list(entry.metrics) == ["a_s"]


def test_an_infinite_round_is_no_number_in_the_line() -> None:
    metric = Metric((math.inf,), "count", "lower", "learning")
    entry = benchmark_entry([Measured({"steps_to_target": metric})])
    assert entry.metrics["steps_to_target"].median == [None]


# The page


def listed(title: str) -> list[str]:
    part = PAGE.partition(f"\n### {title}\n")[2].partition("\n#")[0]
    return re.findall(r"^\| `(\w+)` \|", part, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("title", "model"),
    [
        ("history line", Entry),
        ("history benchmark", BenchmarkEntry),
        ("history metric", MetricEntry),
        ("history reference", QuartileLists),
    ],
)
def test_the_page_lists_exactly_the_fields_of_a_line(title: str, model: Any) -> None:
    assert sorted(listed(title)) == sorted(model.model_fields)


def test_the_page_lists_the_facts_of_a_machine() -> None:
    text = PAGE.partition("\n### history line\n")[2].partition("\n#")[0]
    row = next(line for line in text.splitlines() if line.startswith("| `machine`"))
    assert set(re.findall(r"`(\w+)`", row)) == {"machine", *MACHINE_FACTS}


def test_what_is_written_is_on_the_page() -> None:
    entry = Entry(
        schema_version=1,
        run_id="a",
        source="run",
        recorded="2026-11-29T12:00:00+00:00",
        benchmarks={"smoke": benchmark_entry([Measured({"a_s": Metric((0.1, 0.2))}, ref=(0.1,))])},
    )
    line = as_line(entry)
    assert set(line) <= set(listed("history line"))
    assert set(line["benchmarks"]["smoke"]) <= set(listed("history benchmark"))
    assert set(line["benchmarks"]["smoke"]["metrics"]["a_s"]) <= set(listed("history metric"))
