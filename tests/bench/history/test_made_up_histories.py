"""Histories that somebody made up or broke: one sentence, or a report. Never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusetune.bench.cli import program
from fusetune.bench.history.entries import as_line
from tests.bench.history.made_runs import entry, process

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in a line."""
    inner = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


LINE = as_line(entry(0, {"smoke": [process(0.1), process(0.2)]}))


def shown(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        program.main(["history", "--results", str(folder), *arguments])
    capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(places(LINE)[1:]), value=JSON)
def test_a_line_with_any_other_value_is_read_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: tuple[Any, ...], value: Any
) -> None:
    content = json.loads(json.dumps(LINE))
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path = tmp_path / "history" / "m" / "smoke.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps(each) + "\n" for each in (LINE, {**content, "run_id": content.get("run_id")}))
    )
    assert shown(tmp_path, capsys) in (0, 2)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "history" / "m" / "smoke.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    assert shown(tmp_path, capsys) == 2


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(FLOATS | st.none(), min_size=1, max_size=20),
    times=st.lists(POSITIVE, min_size=20, max_size=20),
)
def test_any_numbers_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], values: list[float | None], times: list[float]
) -> None:
    lines = []
    for number, (value, time) in enumerate(zip(values, times, strict=False)):
        line = json.loads(json.dumps(LINE)) | {"run_id": str(number)}
        metrics = line["benchmarks"]["smoke"]["metrics"]
        metrics["step_time_s"]["median"] = [time]
        metrics["steps_to_target"]["median"] = [value]
        metrics["peak_bytes"]["median"] = [value]
        lines.append(json.dumps(line) + "\n")
    path = tmp_path / "history" / "m" / "smoke.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))
    for arguments in ((), ("--json",), ("--metric", "step_time_s")):
        assert shown(tmp_path, capsys, *arguments) == 0
