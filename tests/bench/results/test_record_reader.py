"""The short way of a line accepts a part of what the long way accepts, and finds the same."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.results.packed_values import PackedValues
from fusetune.bench.results.record_reader import RecordReader
from fusetune.bench.results.records import SCHEMA_VERSION
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.results.schema import record_of
from fusetune.bench.results.written_spec import WrittenSpec
from tests.perf.large_runs import factors_of, large_run, training_lines

RUN = RunInfo(spec=WrittenSpec({"target": {"metric": "val_accuracy", "at_least": 0.6}}))
FIELDS = ("epoch", "step", "time_s", "val_accuracy")
READERS = RecordReader(RUN), RecordReader(RUN, needed_by="report")
LINE = next(training_lines(factors_of(20), 1))


def written(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def check(line: bytes) -> bool:
    """Whether the short way knows the line. What it finds is then held to the long way."""
    whole, found = (reader.quick(line) for reader in READERS)
    if whole is None and found is None:
        return False
    long = record_of(json.loads(line), "run")
    if whole is not None:
        assert repr(whole) == repr(long)  # 1, 1.0 and true differ
    if found is not None:
        assert repr(dataclasses.replace(found, curve=[])) == repr(
            dataclasses.replace(long, curve=[], samples={})
        )
        assert list(found.curve) == [{name: entry.get(name) for name in FIELDS} for entry in long.curve]
    return found is not None


def test_it_knows_what_this_version_writes() -> None:
    assert LINE["schema_version"] == SCHEMA_VERSION
    findings = [{"name": "a", "title": "b", "sentence": "c", "try_next": "d", "evidence": {"fit": 0.5}}]
    events = {"put_back": ["a"], "replaced_for": [], "unexplained_kill": False}
    diverged = [{**LINE["curve"][0], "val_loss": None}, *LINE["curve"][1:]]
    several: list[dict[str, Any]] = [
        {},
        {"findings": findings},
        {"worker": events},
        {"curve": diverged},
        {"outcome": None},
        {"values": {}},
        {"samples": {"step_time_s": [5e-05, 1.5]}},
        {"samples": {"step_time_s": [], "another": [1.5]}},
    ]
    for changes in several:
        line = written({**LINE, **changes})
        assert check(line)
        assert READERS[0].quick(line)


WRONG: list[Any] = [
    None,
    True,
    -1,
    1.5,
    2**63,
    "a",
    [],
    {},
    [1],
    {"a": 1},
    [[]],
    float("nan"),
    float("inf"),
    10**400,
]


@pytest.mark.parametrize(
    "place", [*LINE, "unknown", "values.steps", "values.step_time_s", "curve.0.epoch", "curve.0"]
)
def test_a_wrong_value_is_known_only_where_the_long_way_takes_it(place: str) -> None:
    for wrong in WRONG:
        content: Any = copy.deepcopy(LINE)
        *parents, last = place.split(".")
        inner = content
        for key in parents:
            inner = inner[int(key) if isinstance(inner, list) else key]
        inner[int(last) if isinstance(inner, list) else last] = wrong
        check(written(content))


@given(
    at=st.integers(0, 10**6),
    byte=st.sampled_from(b'0123456789.eE-+"\\{}[],: tnf\x00\x7f\xff'),
    cut=st.integers(0, 3),
)
@settings(max_examples=300, deadline=None)
def test_a_changed_byte_is_known_only_where_the_long_way_takes_it(at: int, byte: int, cut: int) -> None:
    line = written(LINE)
    at %= len(line) - 1
    check(line[:at] + bytes([byte]) + line[at + cut :])


DIGITS = st.text("0123456789", min_size=1, max_size=25) | st.sampled_from(["9" * 309, "9" * 400, "0", "00"])
NUMBERS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "-", "+"]),
    DIGITS,
    st.just("") | DIGITS.map(".{}".format),
    st.just("") | st.builds("e{}{}".format, st.sampled_from(["", "-", "+"]), st.integers(0, 400)),
)
TEXTS = st.text(st.sampled_from('ae,:[]{}0é\x00\x1f\ud800\ud83d\ude00\U0001f600"\\'), max_size=8)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
PLACES = [
    ["seed"],
    ["samples", "step_time_s"],
    ["values", "steps"],
    ["values", "step_time_s"],
    ["samples", "step_time_s", 0],
    ["curve", 0, "epoch"],
    ["curve", 0, "train_loss"],
    ["factors", "batch_size"],
    ["provenance", "jobs"],
    ["outcome", "epochs_made_again"],
]


def with_part(place: list[Any], part: str) -> bytes:
    """The line with a JSON text at a place."""
    content: Any = copy.deepcopy(LINE)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = "HERE"
    return written(content).replace(b'"HERE"', part.encode("utf-8", "surrogatepass"))


@given(place=st.sampled_from(PLACES), number=NUMBERS)
@settings(max_examples=150, deadline=None)
def test_a_number_is_known_only_as_the_long_way_reads_it(place: list[Any], number: str) -> None:
    check(with_part(place, number))


@given(name=st.sampled_from([*LINE]), value=ANYTHING, ascii_only=st.booleans())
@settings(max_examples=60, deadline=None)
def test_anything_is_known_only_as_the_long_way_reads_it(name: str, value: Any, ascii_only: bool) -> None:
    part = json.dumps(value, ensure_ascii=ascii_only)
    for place in ([name], ["factors", "x"], ["provenance", "x"], ["values", "x"], ["curve", 0, "x"]):
        check(with_part(place, part))


@pytest.mark.parametrize(
    "changed",
    [
        (b'"seed":0', b'"seed":0,"seed":1'),
        (b'"reason":""', b'"reason":"\\ud800"'),
        (b'"reason":""', b'"reason":",\\"provenance\\":{"'),
        (b'"factors":{', b'"factors":{"provenance":{},'),
        (b'"findings":[]', b'"findings":[],"seed":3'),
        (b'"seed":0', b'"seed":-0'),
        (b'"findings":[]', b'"findings":[],"provenance":{"jobs":2}'),
    ],
)
def test_lines_that_no_run_writes_are_read_the_same(changed: tuple[bytes, bytes]) -> None:
    line = written(LINE)
    assert changed[0] in line
    check(line.replace(*changed, 1))


def test_a_report_reads_a_line_once_and_keeps_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = RunDirectory.open(large_run(tmp_path, 20, 3))
    calls: Counter[str] = Counter()
    for name in ("quick", "build", "_rest"):
        method = getattr(RecordReader, name)
        monkeypatch.setattr(
            RecordReader,
            name,
            lambda self, *given, name=name, method=method: (calls.update([name]), method(self, *given))[1],
        )
    records, _ = directory.records(needed_by="report")
    assert calls == {"quick": 60, "_rest": 2 if any(record.outcome is None for record in records) else 1}
    assert len({id(record.factors) for record in records}) == 20
    # What is packed is as large as its numbers, and few layouts serve all records.
    assert (
        len({id(record.values.layout) for record in records if isinstance(record.values, PackedValues)}) <= 3
    )
    whole, _ = directory.records()
    assert [record.trial for record in records] == [record.trial for record in whole]
    assert [record.values for record in records] == [record.values for record in whole]
    assert whole[0].samples
    assert not records[0].samples
