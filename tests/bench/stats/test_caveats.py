"""Caveats are derived once from a run's data, and every kind of report says them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fusetune.bench.kinds import KINDS, function
from fusetune.bench.results.pictures import Pictures
from fusetune.bench.results.records import Record
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.results.written_spec import WrittenSpec
from fusetune.bench.stats.caveats import caveats_of

STAND_IN = "cifar10 is not on this machine; its stand-in cifar10-like is used."


def run_of(kind: str, metric: str = "test_accuracy", **changes: Any) -> RunInfo:
    search = {"search": {"budget_epochs": 4, "prior": False, "fresh_seeds": 1}}
    spec: dict[str, Any] = {
        "name": "demo",
        "data": {"name": "cifar10"},
        "train": {"epochs": 2},
        "factors": {"optimizer": ["sgd", "adam"]},
        "seeds": [0],
        "design": search if kind == "search" else "grid",
        "target": {"metric": metric, "at_least": 0.9},
    }
    sweep = {"repeats": 1, "steps": 10, "lr_min": 1e-5, "lr_max": 1.0, "mode": "linear", "validation": False}
    plain = {"kind": kind, "spec": spec, "options": sweep, "trials": 2, "jobs": 1, "device": "cpu"}
    return RunInfo.from_dict({**plain, **changes})


def report(run: RunInfo, records: list[Record], directory: Path) -> str:
    console = Console(width=100, record=True, quiet=False, file=io.StringIO())
    kind = KINDS[run.kind]
    study = function(kind.study)(run, records, str(directory))
    function(kind.show)(study, console, Pictures(directory, drawing=False))
    return " ".join(console.export_text().replace("┃", " ").split())


# Kernels have no data that could be a stand-in, and no target.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("kernels", "autotune")])
def test_every_kind_of_report_says_all_that_its_data_hold(kind: str, tmp_path: Path) -> None:
    run = run_of(kind, stand_in=STAND_IN, jobs=2, dirty=True, same=["a=1 = a=2", "b=1 = b=2"])
    text = report(run, [], tmp_path)
    for words in (
        f"STAND-IN DATA: {STAND_IN}",
        "the test set for selection"
        if kind == "batch-size" or kind == "lr-range"
        else "the test set is used for selection",
        "2 trials at once",
        ": a=1 = a=2 and 1 more",
        "uncommitted changes",
    ):
        assert words.lower() in text.lower(), words
    assert text.index("STAND-IN") < text.index("demo")
    if kind == "search":
        assert "The test set was used for selection" in text
    clean = run_of(kind, "val_accuracy")
    assert caveats_of(clean, []) == ()
    assert not any(
        words in report(clean, [], tmp_path).lower() for words in ("for selection", "note:", "stand-in")
    )


def test_a_run_that_was_resumed_under_other_conditions_says_which() -> None:
    def record(**provenance: Any) -> Record:
        return Record(str(provenance), {}, 0, "ok", provenance=provenance)

    first = {"device_name": "CPU A", "torch": "2.9.0", "commit": "a" * 40, "threads": 2, "jobs": 1}
    run = RunInfo()
    assert caveats_of(run, [record(**first), record(**first)]) == ()
    changed = {
        "device_name": "CPU B",
        "torch": "2.10.0",
        "commit": "b" * 40,
        "threads": 1,
        "jobs": 3,
        "dirty": True,
    }
    found = {caveat.name: caveat for caveat in caveats_of(run, [record(**first), record(**changed)])}
    assert found.keys() == {
        "mixed_device_name", "mixed_torch", "mixed_commit", "mixed_threads", "shared_timings", "changed_sources",
    }  # fmt: skip
    assert "CPU A (1 of 2 trials), CPU B (1 of 2 trials)" in found["mixed_device_name"].sentence
    assert "3 trials" in found["shared_timings"].sentence


@pytest.mark.parametrize(("metric", "name"), [("test_loss", "test"), ("train_accuracy", "training")])
def test_a_target_on_samples_that_should_not_steer_is_said_with_the_recommendation(
    metric: str, name: str
) -> None:
    (caveat,) = caveats_of(RunInfo(spec=WrittenSpec({"target": {"metric": metric}})), [])
    assert caveat.name == f"steered_by_{name}_set"
    assert f"{name} set was used for selection" in caveat.short
    assert caveat.mend.startswith("target:")


def test_trials_that_share_a_node_of_a_cluster_need_more_of_its_cores_and_no_option_of_one_machine() -> None:
    (there,) = caveats_of(RunInfo(jobs=2, executor="ray: 4 devices on 2 nodes"), [])
    assert there.sentence == "Timings were taken with 2 trials at once on a node."
    assert "resources.cpus" in there.mend
    assert "--jobs" not in there.mend
    (here,) = caveats_of(RunInfo(jobs=2), [])
    assert here.mend.endswith("--jobs 1 times them alone")


def test_timings_on_devices_slower_than_their_kind_are_said() -> None:
    def record(**provenance: Any) -> Record:
        return Record("a", {}, 0, "ok", provenance=provenance)

    slow = {"node": "n2", "device_id": "GPU-7", "device_slow": True, "device_speed": 0.8}
    fine = {"node": "n1", "device_id": "GPU-1", "device_slow": False, "device_speed": 1.0}
    found = {
        each.name: each for each in caveats_of(RunInfo(), [record(**slow), record(**fine), record(**slow)])
    }
    assert "2 of 3 timings were taken on devices slower than their kind (n2 device GPU-7)" in (
        found["slow_devices"].sentence
    )
    assert "slow_devices" not in {each.name for each in caveats_of(RunInfo(), [record(**fine)])}
