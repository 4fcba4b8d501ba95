"""Which earlier runs are taken for a spec, and what is read from them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.batch_size.earlier_runs import (
    find_rate_run,
    find_target_run,
    range_tests_of,
    rows_by_size,
    trainings_of,
)
from fusetune.bench.errors import InputError, RunDirectoryError
from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.results.records import Record
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.results.written_spec import WrittenSpec

SPEC: dict[str, Any] = {
    "name": "demo",
    "data": {"name": "digits"},
    "model": {"name": "mlp"},
    "train": {
        "optimizer": "adam",
        "base_lr": 0.01,
        "batch_size": 64,
        "epochs": 5,
        "schedule": {"name": "constant"},
    },
    "target": {"metric": "val_accuracy", "at_least": 0.9},
    "factors": {"batch_size": [16, 64, 256]},
}


def trained(size: int, seed: int = 0, steps: float | None = 100.0, **factors: Any) -> Record:
    values = {} if steps is None else {"steps_to_target": steps, "time_to_target_s": 0.01 * steps}
    status = "missed_target" if steps is None else "ok"
    return Record(
        f"batch_size={size},{factors},seed={seed}",
        {"batch_size": size, **factors},
        seed,
        status,  # type: ignore[arg-type]
        values=values,
    )


def written(
    results: Path, records: list[Record], kind: str = "run", baseline: Any = None, **changes: Any
) -> Path:
    spec = {**SPEC, **changes}
    run = RunInfo(kind=kind, spec=WrittenSpec(spec), baseline=baseline or {"batch_size": 64})
    with RunDirectory.create(results, "demo", run) as directory:
        for record in records:
            directory.append(record)
        return directory.path


def three_sizes(steps: float = 100.0) -> list[Record]:
    return [trained(size, steps=steps) for size in (16, 64, 256)]


def test_steps_and_times_of_each_size_are_gathered_and_a_miss_is_infinite() -> None:
    records = [trained(16, seed, steps) for seed, steps in enumerate((100.0, 120.0, None))]
    records += [trained(64, seed, steps) for seed, steps in enumerate((50.0, None, None))]

    small, large = rows_by_size(records, accumulation_steps=2)

    assert (small.batch_size, small.samples_per_step, small.n) == (16, 32, 3)
    assert small.steps == (100, 120)
    assert (small.median_steps, small.median_time_s) == (120, 1.2)
    assert math.isinf(large.median_steps)


def test_each_size_is_judged_at_the_rate_that_suits_it() -> None:
    records = [
        trained(size, steps=steps, base_lr=lr)
        for size, lr, steps in ((16, 0.01, 100.0), (16, 0.1, 400.0), (64, 0.01, 300.0), (64, 0.1, 50.0))
    ]
    assert [(row.factors["base_lr"], row.steps) for row in rows_by_size(records)] == [
        (0.01, (100,)),
        (0.1, (50,)),
    ]


def test_only_the_configuration_in_question_counts(tmp_path: Path) -> None:
    records = [
        trained(size, steps=steps, activation=name)
        for size in (16, 64)
        for name, steps in (("relu", 100.0), ("tanh", 200.0))
    ]
    written(tmp_path, records, baseline={"batch_size": 64, "activation": "relu"})
    found = find_target_run(tmp_path, WrittenSpec(SPEC), None)
    assert found is not None
    assert [row.steps for row in trainings_of(found, {}).rows] == [(100,), (100,)]
    assert [row.steps for row in trainings_of(found, {"activation": "tanh"}).rows] == [(200,), (200,)]


def test_the_newest_run_that_fits_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(["20260101-000000-aa", "20260102-000000-bb", "20260103-000000-cc", "20260104-000000-dd"])

    def make_unique(parent: Path) -> Path:
        path = parent / next(names)
        path.mkdir()
        return path

    monkeypatch.setattr("fusetune.bench.results.directory.make_unique", make_unique)
    written(tmp_path, three_sizes(300.0))
    expected = written(tmp_path, three_sizes(200.0))
    written(tmp_path, [trained(16, steps=None)])  # nothing reached the target
    written(tmp_path, three_sizes(100.0), kind="batch-size")
    (tmp_path / "demo" / "20260105-000000-ee").mkdir()  # no run at all

    found = find_target_run(tmp_path, WrittenSpec(SPEC), None)

    assert found is not None
    assert found.directory == str(expected)
    assert found.rows[0].steps == (200,)


OTHERS: dict[str, dict[str, Any]] = {
    "another model": {"model": {"name": "cnn"}},
    "another data": {"data": {"name": "cifar10"}},
    "another train": {"train": {**SPEC["train"], "optimizer": "sgd"}},
    "another target": {"target": {"metric": "val_accuracy", "at_least": 0.99}},
    "did not vary the batch size": {"factors": {"activation": ["relu"]}},
    "is a run of the kind 'lr-range'": {"kind": "lr-range"},
}


@pytest.mark.parametrize("obstacle", OTHERS)
def test_a_run_of_something_else_is_passed_over_or_refused(tmp_path: Path, obstacle: str) -> None:
    path = written(tmp_path, three_sizes(), **OTHERS[obstacle])
    assert find_target_run(tmp_path, WrittenSpec(SPEC), None) is None
    with pytest.raises(InputError, match=f"--runs .*{obstacle}"):
        find_target_run(tmp_path, WrittenSpec(SPEC), path)


def test_batch_size_and_rate_of_the_spec_itself_do_not_matter(tmp_path: Path) -> None:
    path = written(tmp_path, three_sizes(), train={**SPEC["train"], "batch_size": 8, "base_lr": 0.5})
    for given in (None, path, tmp_path / "demo"):
        found = find_target_run(tmp_path, WrittenSpec(SPEC), given)
        assert found is not None
        assert found.directory == str(path)


def test_a_run_whose_records_are_damaged_is_passed_over(tmp_path: Path) -> None:
    whole = written(tmp_path, three_sizes())
    damaged = written(tmp_path, three_sizes(50.0))
    damaged = damaged.rename(damaged.with_name("9" + damaged.name))
    with (damaged / "records.jsonl").open("a") as file:
        file.write("half a line\n")
    found = find_target_run(tmp_path, WrittenSpec(SPEC), None)
    assert found is not None
    assert found.directory == str(whole)
    rates = written(tmp_path, [range_test(size, 0.1) for size in (16, 64, 256)], "lr-range")
    with (rates / "records.jsonl").open("a") as file:
        file.write("half a line\n")
    assert find_rate_run(tmp_path, WrittenSpec(SPEC)) is None


def test_no_run_at_all(tmp_path: Path) -> None:
    assert find_target_run(tmp_path, WrittenSpec(SPEC), None) is None
    assert find_rate_run(tmp_path, WrittenSpec(SPEC)) is None
    with pytest.raises(RunDirectoryError, match="is not a directory"):
        find_target_run(tmp_path, WrittenSpec(SPEC), tmp_path / "nowhere")


def range_test(size: int, lr: float | None, **factors: Any) -> Record:
    values = {} if lr is None else {"range_lr": lr}
    return Record(f"batch_size={size},{factors}", {"batch_size": size, **factors}, 0, "ok", values=values)


def test_rates_are_read_from_range_tests_whatever_their_schedule(tmp_path: Path) -> None:
    records = [range_test(size, size / 1000) for size in (16, 64, 256)]
    longer = {**SPEC["train"], "schedule": {"name": "one-cycle"}, "epochs": 50}
    written(tmp_path, records, kind="lr-range", train=longer, target=None)
    found = find_rate_run(tmp_path, WrittenSpec(SPEC))
    assert found is not None
    assert [(row.batch_size, row.lr) for row in range_tests_of(found, {}).rows] == [
        (16, 0.016),
        (64, 0.064),
        (256, 0.256),
    ]


def test_rates_at_two_sizes_or_of_another_optimizer_are_no_use(tmp_path: Path) -> None:
    written(tmp_path, [range_test(16, 0.1), range_test(64, 0.2), range_test(256, None)], kind="lr-range")
    sgd = {**SPEC["train"], "optimizer": "sgd"}
    written(tmp_path, [range_test(size, 0.1) for size in (16, 64, 256)], kind="lr-range", train=sgd)
    assert find_rate_run(tmp_path, WrittenSpec(SPEC)) is None
