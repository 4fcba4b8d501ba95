"""Rows on disk: what is written is what is read, and what no run writes is refused with the field's name."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.kernels.records import record_of_row, row_of_record
from fusetune.bench.results import Record, RunDirectory
from fusetune.errors import InvalidValueError
from tests.bench.kernels.made_rows import (
    all_rows,
    failed_row,
    good_row,
    row,
    run_info,
    short_row,
    side,
    sweep_rows,
    verified,
)


def plain(value: Any) -> Any:
    """Sequences as tuples, for a comparison of what is equal on disk."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return tuple(map(plain, value)) if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("made", [*all_rows(), *sweep_rows()[:1]], ids=lambda each: each.case.name)
def test_a_row_is_the_same_after_a_round_trip(made: Any, tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path, "kernels", run_info()) as directory:
        directory.append(record_of_row(made))
    (record,), notes = RunDirectory.open(directory.path).records()
    assert not notes
    assert plain(dataclasses.asdict(row_of_record(record))) == plain(dataclasses.asdict(made))


def test_a_record_has_the_values_that_the_gate_compares_and_the_rounds_once() -> None:
    record = record_of_row(short_row())
    assert record.status == "ok"
    assert record.factors == {"kernel": "gelu", "shape": 1000, "dtype": "float32"}
    assert record.values["latency_s"] == pytest.approx(21.3e-6)
    assert record.values["launches"] == 1
    assert record.values["moved_bytes"] == 8000
    assert record.values["extra_bytes"] == 0
    assert len(record.samples["latency_s"]) == 20
    text = json.dumps(record.as_dict())
    assert text.count(repr(record.samples["latency_s"][3])) == 1


def test_a_row_without_a_time_is_a_failed_record_with_its_reason() -> None:
    record = record_of_row(failed_row())
    assert record.status == "failed"
    assert record.reason.startswith("wrong: at 1,048,576 elements the largest error")
    assert not record.values
    assert not record.samples


def test_an_infinite_error_is_null_on_disk_and_infinite_again() -> None:
    made = row([side("ours", 1e-3, verification=verified(math.inf))])
    written = json.loads(json.dumps(record_of_row(made).as_dict(), allow_nan=False))
    assert written["outcome"]["row"]["sides"][0]["verification"]["error"] is None
    again = row_of_record(Record.from_dict(written))
    assert again.ours.verification is not None
    assert again.ours.verification.error == math.inf


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sides": []}, "has no sides"),
        ({"sides": [{"name": "ours", "status": "fine"}]}, "status"),
        ({"case": {}}, "case"),
        ({"policies": "wall"}, "policies"),
        ({"bytes_moved": "many"}, "bytes_moved"),
        ({"searches": [{"kernel": "negate"}]}, "searches"),
    ],
)
def test_what_no_run_writes_is_refused_with_the_fields_name(change: dict[str, Any], field: str) -> None:
    content = json.loads(json.dumps(record_of_row(good_row()).as_dict()))
    content["outcome"]["row"] |= change
    with pytest.raises(InvalidValueError, match=field):
        row_of_record(Record.from_dict(content))
