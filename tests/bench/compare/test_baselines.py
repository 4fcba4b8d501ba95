"""Baselines: what is kept of a run, where, and how it is found again."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusetune.bench.compare.baselines import MOST_PROCESSES, Baseline, find_baseline, save_baseline
from fusetune.bench.compare.comparison import compare_stored, compare_with_baseline
from fusetune.bench.compare.runs import read_run
from fusetune.bench.compare.sources import read_side
from fusetune.bench.errors import InputError, RunDirectoryError
from tests.bench.compare.made_runs import MACHINE, STEPS, training, write_run

PAGE = (Path(__file__).parents[3] / "docs" / "records.md").read_text(encoding="utf-8")
KIND = "example-2-cores-linux-x86_64"


def saved(tmp_path: Path, *records: Any, **changes: Any) -> tuple[Path, int]:
    """Save a run with these records."""
    run = write_run(tmp_path / "results", list(records) or [training(0), training(1)], **changes)
    return save_baseline(tmp_path / "baselines", read_run(run))


def test_a_baseline_is_small_sorted_json_with_one_value_a_line(tmp_path: Path) -> None:
    path, processes = saved(tmp_path, training(0), training(1, steps=None))
    assert (path, processes) == (tmp_path / "baselines" / KIND / "digits.json", 1)
    text = path.read_text()
    content = json.loads(text)
    assert text == json.dumps(content, indent=1, sort_keys=True) + "\n"
    assert all(len(re.findall(r"[^\s\[\]{}:,]", line)) < 60 for line in text.splitlines())
    assert len(text) < 3000
    seeds = content["processes"][0]["benchmarks"]["digits"]
    # numpy's quantiles are the independent ones: the linear interpolation of R's type 7.
    quantiles = np.quantile(STEPS, [0.05, 0.25, 0.5, 0.75, 0.95])
    assert seeds["0"]["metrics"]["step_time_s"] == pytest.approx(quantiles.tolist(), rel=5e-4)
    assert seeds["0"]["metrics"]["steps_to_target"] == 100
    assert seeds["0"]["metrics"]["final_val_accuracy"] == 0.95
    assert seeds["0"]["metrics"]["peak_bytes"] == 4096
    assert seeds["1"]["metrics"]["steps_to_target"] is None
    assert content["commit"] == "a" * 40
    assert content["machine"] == MACHINE


def test_the_page_lists_exactly_the_fields_there_are(tmp_path: Path) -> None:
    section = PAGE.partition("\n## Baselines\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    path, _ = saved(tmp_path, training(0, status="diverged", reason="at once"))
    process = json.loads(path.read_text())["processes"][0]
    assert listed == {*Baseline.model_fields, "metrics", "failure", "contention"}
    assert set(process) | {"intervals"} <= set(re.findall(r"`(\w+)`", section))
    assert process["benchmarks"]["digits"]["0"] == {"failure": "seed 0: the training diverged: at once"}


def test_a_run_equals_the_baseline_that_it_became(tmp_path: Path) -> None:
    run = write_run(tmp_path / "results", [training(s, accuracy=1 / 3 + s) for s in range(3)])
    save_baseline(tmp_path / "baselines", read_run(run))
    result = compare_with_baseline(tmp_path / "baselines", str(run))
    found = {row.metric: row for row in result.rows}
    assert all(row.effect == 0 for row in found.values())
    assert found["final_val_accuracy"].outcome == found["steps_to_target"].outcome == "pass"
    assert found["peak_bytes"].outcome == "pass"
    assert result.base.name == str(tmp_path / "baselines" / KIND / "digits.json")
    assert result.base.commit == "a" * 40


def test_what_is_read_back_is_what_was_written(tmp_path: Path) -> None:
    path, _ = saved(tmp_path, training(0), training(1, steps=None), training(2, status="failed", reason="x"))
    (stored,), notes = read_side(str(path))
    assert not notes
    seeds = stored.benchmarks["digits"]
    assert seeds[1].metrics["steps_to_target"].values == (math.inf,)
    assert seeds[1].metrics["time_to_target_s"].comparison == "timing"
    assert seeds[2].failure == "seed 2: the training failed: x"
    assert list(seeds[0].metrics) == [
        "time_to_target_s",
        "steps_to_target",
        "step_time_s",
        "final_val_accuracy",
        "peak_bytes",
    ]


def test_runs_of_one_clean_commit_add_up_and_make_timings_judgeable(tmp_path: Path) -> None:
    for number in range(6):
        started = f"2026-11-29T12:00:0{number}+00:00"
        path, processes = saved(tmp_path, training(slower=1 + 0.001 * number), started=started)
        assert processes == number + 1
    heads = [write_run(tmp_path / "head", [training(slower=1.2 + 0.001 * n)]) for n in range(6)]
    result = compare_with_baseline(tmp_path / "baselines", str(heads[0].parent / "*"))
    assert {row.metric: row.outcome for row in result.rows}["step_time_s"] == "regressed"
    assert dict(result.pairs) == {"digits": 6}
    same = compare_stored(str(path), str(path))
    assert {row.metric: row.outcome for row in same.rows}["step_time_s"] == "pass"


@pytest.mark.parametrize(
    "changes",
    [
        {"commit": "b" * 40},
        {"dirty": True},
        {"commit": None, "dirty": None},
        {"versions": {"python": "3.12.0"}},
        {"spec": {"train": {"epochs": 3, "batch_size": 32}}},
        {"fingerprint": {"digits": {"a": {"bytes": 1, "sha256": "0"}}}},
    ],
    ids=str,
)
def test_another_run_replaces_what_is_there(changes: dict[str, Any], tmp_path: Path) -> None:
    saved(tmp_path, started="1")
    assert saved(tmp_path, started="2")[1] == 2
    assert saved(tmp_path, started="3", **changes)[1] == 1


def test_a_run_that_is_saved_again_is_one_process(tmp_path: Path) -> None:
    stored = read_run(write_run(tmp_path / "results", [training()]))
    for _ in range(2):
        assert save_baseline(tmp_path / "baselines", stored)[1] == 1


def test_the_oldest_processes_are_dropped(tmp_path: Path) -> None:
    for number in range(MOST_PROCESSES + 1):
        path, processes = saved(tmp_path, training(), started=f"{number:02}")
    assert processes == MOST_PROCESSES
    started = [each["started"] for each in json.loads(path.read_text())["processes"]]
    assert started == [f"{number:02}" for number in range(1, MOST_PROCESSES + 1)]


def test_the_baseline_is_that_of_the_kind_of_machine_and_the_spec(tmp_path: Path) -> None:
    saved(tmp_path)
    folder = tmp_path / "baselines"
    same = read_run(write_run(tmp_path / "here", [training()], machine={**MACHINE, "os": "Linux 6.9 x86_64"}))
    assert find_baseline(folder, same) == folder / KIND / "digits.json"
    cores = read_run(write_run(tmp_path / "here", [training()], machine={**MACHINE, "cores": 8}))
    with pytest.raises(
        InputError,
        match=f"has no baseline example-8-cores-linux-x86_64/digits; known: {KIND}/digits. Save one",
    ):
        find_baseline(folder, cores)
    other = read_run(write_run(tmp_path / "here", [training()], name="cifar"))
    with pytest.raises(InputError, match=f"has no baseline {KIND}/cifar; known: {KIND}/digits"):
        find_baseline(folder, other)
    with pytest.raises(InputError, match="nowhere: no baselines are there"):
        find_baseline(tmp_path / "nowhere", same)


def test_a_baseline_of_another_device_in_that_place_is_refused(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    path.write_text(path.read_text().replace("Example CPU", "Other CPU"))
    head = write_run(tmp_path / "head", [training()])
    with pytest.raises(InputError, match="two devices, 'Other CPU' and 'Example CPU'"):
        compare_with_baseline(tmp_path / "baselines", str(head))


def break_at(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"baseline_version": 1', '"baseline_version": 2', "baseline_version 2 is newer than this program"),
        ('"kind": "run"', '"kind": "ru"', "kind: unknown 'ru'; known: .* Did you mean 'run'"),
        ('"spec_name"', '"spec_nam"', "is broken; "),
        ('"steps_to_target": 100', '"steps_to_target": "many"', "is broken; processes"),
        ('"steps_to_target": 100', '"steps_to_target": -1', "is broken; processes"),
        ('"steps_to_target": 100', '"steps_to_go": 100', "is broken; steps_to_go is no metric of a run"),
        ('"0": {', '"first": {', "is broken; processes"),
        ('"peak_bytes": 4096', '"peak_bytes": NaN', "holds NaN, which is no finite number"),
    ],
)
def test_a_broken_baseline_is_one_sentence_and_is_not_written_over(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    path, _ = saved(tmp_path)
    break_at(path, old, new)
    before = path.read_text()
    with pytest.raises(InputError, match=said) as error:
        read_side(str(path))
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(InputError, match=said):
        saved(tmp_path)
    assert path.read_text() == before


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "baselines").write_text("")
    with pytest.raises(RunDirectoryError, match="cannot be made"):
        saved(tmp_path)


def test_searches_and_range_tests_have_baselines_too(tmp_path: Path) -> None:
    old = Path(__file__).parents[1] / "old_runs"
    for run in (old / "searched" / "20261129-112428-acc4", old / "sizes" / "20261129-113216-3189"):
        stored = read_run(run)
        path, _ = save_baseline(tmp_path, stored)
        (again,), _ = read_side(str(path))
        assert again.form == stored.form
        assert again.benchmarks.keys() == stored.benchmarks.keys()
        assert again.intervals == stored.intervals
        assert {row.outcome for row in compare_stored(str(path), str(run)).rows} <= {"pass", "can't tell"}
