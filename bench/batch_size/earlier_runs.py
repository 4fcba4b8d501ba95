"""Results of earlier runs for batch sizes: steps and time to the target, and learning rates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fusetune.bench.errors import InputError, RunDirectoryError
from fusetune.bench.kinds import LR_RANGE, TRAINING
from fusetune.bench.results import (
    EarlierRangeTests,
    EarlierTrainings,
    RateAtSize,
    Record,
    RunDirectory,
    RunInfo,
    SizeToTarget,
    WrittenSpec,
    find_run,
)
from fusetune.bench.spec import by_field, freeze, name_of
from fusetune.bench.workloads import differences
from fusetune.tuner.learning_rate import LEAST_SIZES

_SIZE = "train.batch_size"
# Of configurations that differ only in the rate, each batch size is represented by its best one.
_RATE = "train.base_lr"
# Sections in which an earlier run must agree. The free keys of `train` may differ.
_SAME = ("data", "model", "train", "target")
_FREE = ("batch_size", "base_lr", "implementation", "compile", "foreach", "fused")
# A range test has no target, and its own rates and length.
_SAME_RANGE_TEST = ("data", "model", "train")
_FREE_IN_RANGE_TEST = (*_FREE, "schedule", "epochs")


def trainings_of(run: EarlierTrainings, factors: Mapping[str, Any]) -> EarlierTrainings:
    """Return a run with only the rows of one configuration. A factor that is not named has its value in `train`."""
    rows = tuple(row for row in run.rows if _agree(row.factors, {**run.baseline, **factors}))
    return replace(run, rows=rows)


def range_tests_of(run: EarlierRangeTests, factors: Mapping[str, Any]) -> EarlierRangeTests:
    """Return a run with only the rows of one configuration. A factor that is not named has its value in `train`."""
    rows = tuple(row for row in run.rows if _agree(row.factors, {**run.baseline, **factors}))
    return replace(run, rows=rows)


def find_rate_run(
    results: Path, spec: WrittenSpec, fingerprint: Mapping[str, Any] | None = None
) -> EarlierRangeTests | None:
    """Return the newest LR range tests of the same spec at three batch sizes or more. None if there are none.

    Args:
        results: the directory of all runs.
        spec: the resolved spec. Data, model and training must be the same.
        fingerprint: that of the current data, None if unknown. A run with another one is skipped.
    """
    for directory in _readable_runs(results / spec.name):
        theirs = directory.run.spec
        same = all(
            _fixed(name, theirs, _FREE_IN_RANGE_TEST) == _fixed(name, spec, _FREE_IN_RANGE_TEST)
            for name in _SAME_RANGE_TEST
        )
        if directory.run.kind != LR_RANGE.name or not same or _other_data(directory.run, fingerprint):
            continue
        rows = tuple(
            RateAtSize(_size(record.factors), record.values["range_lr"], record.factors)
            for record in directory.records()[0]
            if "range_lr" in record.values and _SIZE in by_field(record.factors)
        )
        if len({row.batch_size for row in rows}) >= LEAST_SIZES:
            return EarlierRangeTests(str(directory.path), dict(directory.run.baseline), rows)
    return None


def find_target_run(
    results: Path,
    spec: WrittenSpec,
    given: Path | None,
    fingerprint: Mapping[str, Any] | None = None,
) -> EarlierTrainings | None:
    """Return the trainings in `given`, or in the newest run of the same spec that varied the batch size.

    Args:
        results: the directory of all runs.
        spec: the resolved spec. Data, model, training and target must be the same.
        given: a run's directory, or results/<spec name>/. None: search `results`.
        fingerprint: that of the current data, see `find_rate_run`.

    Returns:
        None if no run was given and none was found.

    Raises:
        InputError: the given run has another spec, or did not vary the batch size.
        RunDirectoryError: `given` is not a run.
    """
    if given is not None:
        path = find_run(given)
        directory = RunDirectory.open(path)
        obstacle = _obstacle(directory.run, spec) or _other_data(directory.run, fingerprint)
        if obstacle:
            raise InputError(
                f"--runs {path}", obstacle, to_do="Give a run of this spec that varied batch_size"
            )
        return _read(directory)
    for directory in _readable_runs(results / spec.name):
        if not (_obstacle(directory.run, spec) or _other_data(directory.run, fingerprint)):
            found = _read(directory)
            if any(row.steps for row in found.rows):
                return found
    return None


def _readable_runs(parent: Path) -> Iterator[RunDirectory]:
    """Yield a spec's readable runs, newest first. Their names begin with the time."""
    for path in sorted((path for path in parent.glob("*") if path.is_dir()), reverse=True):
        with suppress(RunDirectoryError):
            directory = RunDirectory.open(path)
            directory.records()
            yield directory


def _obstacle(run: RunInfo, spec: WrittenSpec) -> str:
    """Return why a run has no steps to the target by batch size. Empty if it has them."""
    if run.kind != TRAINING.name:
        return f"is a run of the kind '{run.kind}', which does not train to a target"
    theirs = run.spec
    different = [name for name in _SAME if _fixed(name, theirs, _FREE) != _fixed(name, spec, _FREE)]
    if different:
        return f"has another {' and '.join(different)}"
    if theirs.target_metric is None:
        return "has no target"
    if name_of(_SIZE, theirs.levels) is None:
        return "did not vary the batch size"
    return ""


def _other_data(run: RunInfo, fingerprint: Mapping[str, Any] | None) -> str:
    """Return how a run's data differ from the current data. Empty if they do not, or if a fingerprint is missing."""
    if fingerprint is None or run.fingerprint is None:
        return ""
    changes = differences(run.fingerprint, fingerprint)
    return f"was made on other data: {'; '.join(changes)}" if changes else ""


def _fixed(section: str, spec: WrittenSpec, free: Sequence[str]) -> object:
    """Return the part of a section in which two runs must agree."""
    content = spec.content.get(section)
    if section != "train" or content is None:
        return content
    return {key: value for key, value in content.items() if key not in free}


def _read(directory: RunDirectory) -> EarlierTrainings:
    records, _ = directory.records()
    rows = rows_by_size(records, directory.run.spec.accumulation_steps)
    return EarlierTrainings(str(directory.path), dict(directory.run.baseline), rows)


def rows_by_size(records: Sequence[Record], accumulation_steps: int = 1) -> tuple[SizeToTarget, ...]:
    """Return the trainings at the fastest rate, for each batch size and each choice of the other factors.

    Args:
        records: records of trainings that varied the batch size.
        accumulation_steps: forwards per step, where that is not a factor.
    """
    cells: dict[str, list[Record]] = {}
    for record in records:
        cells.setdefault(_key(record.factors), []).append(record)
    best: dict[tuple[int, str], SizeToTarget] = {}
    for cell in cells.values():
        row = _row(cell, accumulation_steps)
        key = (row.batch_size, _key(_others(row.factors)))
        if key not in best or row.median_steps < best[key].median_steps:
            best[key] = row
    return tuple(sorted(best.values(), key=lambda row: row.batch_size))


def _row(records: Sequence[Record], accumulation_steps: int) -> SizeToTarget:
    factors = records[0].factors
    size = _size(factors)
    reached = [record for record in records if "steps_to_target" in record.values]
    return SizeToTarget(
        batch_size=size,
        samples_per_step=size * int(by_field(factors).get("train.accumulation_steps", accumulation_steps)),
        factors=factors,
        n=len(records),
        steps=tuple(record.values["steps_to_target"] for record in reached),
        times_s=tuple(record.values["time_to_target_s"] for record in reached),
    )


def _size(factors: Mapping[str, Any]) -> int:
    """Return the batch size of a record that has it as a factor."""
    return int(by_field(factors)[_SIZE])


def _agree(factors: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether a record's factors other than batch size and rate equal the expected ones."""
    wanted = by_field(expected)
    return all(freeze(wanted.get(field, value)) == freeze(value) for field, value in _others(factors).items())


def _others(factors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values by field, without batch size and learning rate."""
    return {field: value for field, value in by_field(factors).items() if field not in (_SIZE, _RATE)}


def _key(factors: Mapping[str, Any]) -> str:
    """Return factors as a text that does not depend on their order."""
    return repr(sorted(factors.items(), key=lambda item: item[0]))
