"""Runs' directories of each kind as stored results."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fusetune.bench.compare.runs import read_run
from fusetune.bench.errors import InputError, RunDirectoryError
from fusetune.bench.gate.measured import Measured
from fusetune.bench.results.records import Record
from tests.bench.compare.made_runs import MACHINE, STEPS, sized, training, write_run

OLD_RUNS = Path(__file__).parents[1] / "old_runs"


def values_of(measured: Measured) -> dict[str, tuple[float, ...]]:
    return {name: metric.values for name, metric in measured.metrics.items()}


def test_a_training_has_its_rounds_and_what_it_learned(tmp_path: Path) -> None:
    stored = read_run(write_run(tmp_path, [training(0), training(1, accuracy=0.9)]))
    assert stored.form == "run"
    assert stored.title == "digits"
    assert stored.device == "Example CPU"
    assert list(stored.benchmarks) == ["digits"]
    seeds = stored.benchmarks["digits"]
    assert set(seeds) == {0, 1}
    assert values_of(seeds[1]) == {
        "time_to_target_s": (100 * sum(STEPS) / len(STEPS),),
        "steps_to_target": (100.0,),
        "step_time_s": STEPS,
        "final_val_accuracy": (0.9,),
        "peak_bytes": (4096.0,),
    }
    found = {name: (m.unit, m.better, m.comparison) for name, m in seeds[0].metrics.items()}
    assert found == {
        # One process has one speed, whatever its seeds.
        "time_to_target_s": ("s", "lower", "timing"),
        "steps_to_target": ("count", "lower", "learning"),
        "step_time_s": ("s", "lower", "timing"),
        "final_val_accuracy": ("fraction", "higher", "learning"),
        "peak_bytes": ("bytes", "lower", "exact"),
    }


def test_a_missed_target_is_infinite_and_without_a_target_there_is_none(tmp_path: Path) -> None:
    missed = read_run(write_run(tmp_path, [training(steps=None)]))
    values = values_of(missed.benchmarks["digits"][0])
    assert values["steps_to_target"] == values["time_to_target_s"] == (math.inf,)
    without = read_run(write_run(tmp_path, [training(steps=None, status="ok")], spec={"target": None}))
    assert not {"steps_to_target", "time_to_target_s"} & set(values_of(without.benchmarks["digits"][0]))


@pytest.mark.parametrize(
    ("status", "said"),
    [("diverged", "seed 3: the training diverged: at once"), ("failed", "seed 3: the training failed: at once"),
     ("out_of_memory", "seed 3: the training ran out of memory: at once")],
)  # fmt: skip
def test_what_failed_has_a_sentence_and_no_number(status: str, said: str, tmp_path: Path) -> None:
    stored = read_run(write_run(tmp_path, [training(3, status=status, reason="at once")]))
    assert stored.benchmarks["digits"][3] == Measured({}, failure=said)


def test_configurations_are_benchmarks(tmp_path: Path) -> None:
    records = [training(0, {"optimizer": name, "batch_size": 32}) for name in ("adam", "sgd")]
    stored = read_run(write_run(tmp_path, records, trials=3))
    assert list(stored.benchmarks) == [
        "digits: optimizer=adam,batch_size=32",
        "digits: optimizer=sgd,batch_size=32",
    ]
    assert stored.notes == (f"{stored.path} is not complete: 2 of 3 trials are recorded.",)


def test_a_search_is_its_winner_on_fresh_seeds(tmp_path: Path) -> None:
    spec = {
        "design": {"search": {"budget_epochs": 4, "prior": False, "fresh_seeds": 2}},
        "factors": {"batch_size": [16, 32]},
        "seeds": [0],
    }
    records = [
        training(0, {"batch_size": 16}, status="stopped_early", steps=None),
        training(1, {"batch_size": 16}, accuracy=0.1),  # of a winner before the search was continued
        training(1, {"batch_size": 32}, accuracy=0.91),
        training(2, {"batch_size": 32}, accuracy=0.92),
    ]
    path = write_run(tmp_path, records, kind="search", spec=spec)
    stored = read_run(path)
    assert stored.form == "search"
    assert list(stored.benchmarks) == ["digits: the search's winner"]
    seeds = stored.benchmarks["digits: the search's winner"]
    found = {seed: each.metrics["final_val_accuracy"].values for seed, each in seeds.items()}
    assert found == {1: (0.91,), 2: (0.92,)}
    unfinished = write_run(tmp_path, records[:1], kind="search", spec=spec)
    with pytest.raises(InputError, match="holds nothing that can be compared; a run of the kind 'search'"):
        read_run(unfinished)


def test_a_search_of_batch_sizes_is_compared_by_size(tmp_path: Path) -> None:
    records = [
        sized(64, probe=True, needed_bytes=1e6, peak_bytes=2e6, step_time_s=9.0),
        sized(128, probe=True, needed_bytes=2e6, peak_bytes=3e6),
        sized(256, probe=True, status="out_of_memory", wanted_bytes=9e6),
        sized(64, probe=False, step_time_s=0.5, samples_per_s=128.0, processor_missing=0.2),
        sized(32, probe=False, step_time_s=0.25, samples_per_s=128.0),
    ]
    options = {"device": "cpu", "train_batch_size": 32}
    stored = read_run(write_run(tmp_path, records, kind="batch-size", options=options))
    found = {name: values_of(seeds[0]) for name, seeds in stored.benchmarks.items()}
    assert found == {
        "digits: batch_size=64": {"step_time_s": (0.5,) * 12, "needed_bytes": (1e6,)},
        "digits: batch_size=128": {"needed_bytes": (2e6,)},
        "digits: batch_size=32": {"step_time_s": (0.25,) * 12},
        "digits": {"largest_batch_size": (128.0,)},
    }
    assert stored.benchmarks["digits: batch_size=64"][0].contention == 0.2


@pytest.mark.parametrize(
    ("folder", "run_id", "benchmarks"),
    [
        ("trainings", "20261129-111953-7da3", 9),
        ("sizes", "20261129-113113-d761", 3),
        ("sizes", "20261129-113216-3189", 3),
        ("sizes", "20261129-113314-991a", 7),
        ("searched", "20261129-112428-acc4", 1),
        ("fused", "20261129-112100-f83c", 2),
    ],
)
def test_runs_of_version_1_are_read(folder: str, run_id: str, benchmarks: int) -> None:
    path = OLD_RUNS / folder / run_id
    stored = read_run(path)
    assert json.loads((path / "run.json").read_text())["schema_version"] == 1
    assert len(stored.benchmarks) == benchmarks
    assert stored.device == "Example CPU"
    lines = [json.loads(line) for line in (path / "records.jsonl").read_text().splitlines()]
    rounds = {tuple(line["samples"].get("step_time_s", ())) for line in lines}
    for seeds in stored.benchmarks.values():
        for measured in seeds.values():
            if "step_time_s" in measured.metrics:
                assert measured.metrics["step_time_s"].values in rounds


def test_a_range_test_has_its_rates_and_their_interval() -> None:
    stored = read_run(OLD_RUNS / "sizes" / "20261129-113216-3189")
    measured = stored.benchmarks["sizes: batch_size=64"][0]
    assert values_of(measured) == {
        "suggested_lr": (0.014154070192749708,),
        "divergence_lr": (2.424462017082326,),
    }
    assert {metric.better for metric in measured.metrics.values()} == {"neither"}
    assert stored.intervals["sizes: batch_size=64"] == (0.007664972012032465, 0.1045471282644194)
    assert stored.benchmarks["sizes: batch_size=32"][0] == Measured()  # it has no suggestion


def test_a_run_of_a_prediction_alone_has_nothing_to_compare() -> None:
    with pytest.raises(InputError, match="holds nothing that can be compared"):
        read_run(OLD_RUNS / "fused" / "20261129-112348-ad6c")


def test_an_unknown_kind_and_a_broken_record_are_one_sentence(tmp_path: Path) -> None:
    path = write_run(tmp_path, [training()], kind="tomorrow")
    with pytest.raises(InputError, match="a run of the kind 'tomorrow' is newer"):
        read_run(path)
    path = write_run(tmp_path, [training()])
    with (path / "records.jsonl").open("a") as file:
        file.write('{"trial": 1}\n')
    with pytest.raises(RunDirectoryError, match=r"records\.jsonl:2"):
        read_run(path)


def test_what_the_numbers_depend_on_is_kept(tmp_path: Path) -> None:
    provenance = {"jobs": 2, "threads": 4, "peak_bytes_of": "the process"}
    path = write_run(tmp_path, [training(provenance=provenance)], stand_in="x for y", dirty=True)
    stored = read_run(path)
    assert (stored.jobs, stored.threads, stored.peak_bytes_of) == (2, (4,), ("the process",))
    assert (stored.stand_in, stored.dirty, stored.commit) == ("x for y", True, "a" * 40)
    assert stored.machine == MACHINE
    assert stored.settings["spec"]["train"]["batch_size"] == 32


def test_a_record_without_rounds_has_its_mean(tmp_path: Path) -> None:
    record = Record("seed=0", {}, 0, "ok", values={"step_time_s": 0.002, "processor_missing": 0.3})
    measured = read_run(write_run(tmp_path, [record], spec={"target": None})).benchmarks["digits"][0]
    assert values_of(measured) == {"step_time_s": (0.002,)}
    assert measured.contention == 0.3


def test_a_run_that_went_on_elsewhere_is_refused_or_said(tmp_path: Path) -> None:
    def resumed(**there: str) -> Path:
        here = {"device_name": "Example CPU", "torch": "2.9.0"}
        return write_run(tmp_path, [training(0, provenance=here), training(1, provenance=here | there)])

    with pytest.raises(
        InputError, match=r"trials ran on different devices: Example CPU \(1 of 2 trials\), Other CPU"
    ):
        read_run(resumed(device_name="Other CPU"))
    stored = read_run(resumed(torch="2.10.0"))
    assert stored.notes == ("Trials ran on different versions of torch: 2.10.0, 2.9.0.",)
