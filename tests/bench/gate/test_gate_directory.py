"""A gate on disk: what is kept, what a crash leaves, and what may not change before it goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fusetune.bench.errors import InputError, RunDirectoryError
from fusetune.bench.gate.gate_directory import GateDirectory, read_gate
from fusetune.bench.gate.measured import Measured, Metric, Pair
from fusetune.bench.gate.run import Request, resumed_request

CONTENT = {"title": "bench.py", "base": {"commit": "a" * 40}, "request": {"base": "main"}, "seed": 1}


def pair(index: int, benchmark: str = "digits") -> Pair:
    side = Measured({"steps_to_target": Metric((math.inf,), "count", comparison="learning")}, (0.1,), 2.0)
    return Pair(benchmark, index, base=side, head=side, head_first=True, started=7.0)


def test_finished_pairs_are_there_after_a_crash_and_the_torn_line_is_cut(tmp_path: Path) -> None:
    with GateDirectory.create(tmp_path, CONTENT) as directory:
        directory.append([pair(0), pair(0, "other")])
        directory.append([pair(1)])
    file = directory.path / "pairs.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"benchmark": "dig')
    with GateDirectory.resume(directory.path) as again:
        assert again.pairs() == [pair(0), pair(0, "other"), pair(1)]
        assert file.read_bytes() == whole
        assert "cut short by a crash" in again.notes[0]
        again.append([pair(2)])
    with GateDirectory.resume(directory.path) as third:
        assert [each.index for each in third.pairs()] == [0, 0, 1, 2]


def test_a_line_that_is_no_pair_is_named(tmp_path: Path) -> None:
    with GateDirectory.create(tmp_path, CONTENT) as directory:
        directory.append([pair(0)])
        with (directory.path / "pairs.jsonl").open("a") as file:
            file.write('{"benchmark": "digits"}\n')
        with pytest.raises(RunDirectoryError, match=r"pairs\.jsonl:2: not a pair of a gate; without 'index'"):
            directory.pairs()


def test_two_gates_do_not_write_in_one_directory(tmp_path: Path) -> None:
    with GateDirectory.create(tmp_path, CONTENT) as directory:
        with pytest.raises(RunDirectoryError, match="in use; process"):
            GateDirectory.resume(directory.path)
        assert GateDirectory.create(tmp_path, CONTENT).path != directory.path


def test_what_is_compared_must_be_the_same(tmp_path: Path) -> None:
    with GateDirectory.create(tmp_path, CONTENT) as directory:
        directory.check_unchanged({"base": {"commit": "a" * 40}})
        with pytest.raises(RunDirectoryError) as caught:
            directory.check_unchanged({"base": {"commit": "b" * 40}})
    message = str(caught.value)
    assert f"base.commit: {'a' * 40} -> {'b' * 40}" in message
    assert "\n" not in message


def test_an_empty_gate_leaves_nothing_and_one_with_pairs_stays(tmp_path: Path) -> None:
    results = tmp_path / "results"
    with GateDirectory.create(results, CONTENT) as directory:
        directory.remove_if_empty()
    assert not results.exists()
    with GateDirectory.create(results, CONTENT) as kept, GateDirectory.create(results, CONTENT) as empty:
        kept.append([pair(0)])
        kept.remove_if_empty()
        empty.remove_if_empty()
    assert sorted(path.name for path in (results / "gate").iterdir()) == [".gitignore", kept.path.name]


def test_gate_json_is_completed_whole(tmp_path: Path) -> None:
    with GateDirectory.create(tmp_path, CONTENT) as directory:
        directory.describe({"sides": {"base": {"device": "cpu"}}})
    content = read_gate(directory.path)
    assert content == {
        **CONTENT,
        "schema_version": 1,
        "gate_id": directory.path.name,
        "sides": content["sides"],
    }
    assert content["sides"] == {"base": {"device": "cpu"}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is broken"),
        ("[]", "it has no schema_version"),
        ('{"title": "x"}', "it has no schema_version"),
        ('{"schema_version": 1, "seed": 1}', "it has no request"),
        ('{"schema_version": 1, "request": {}}', "it has no seed"),
        ('{"schema_version": 2}', "schema_version 2 is newer than this program"),
    ],
)
def test_a_gate_json_that_cannot_be_used_is_one_sentence(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "gate.json").write_text(content)
    with pytest.raises(RunDirectoryError, match=said):
        GateDirectory.resume(tmp_path)


def test_a_directory_without_a_gate_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="no gate is there"):
        read_gate(tmp_path)


def test_a_pair_is_one_line_of_json(tmp_path: Path) -> None:
    with GateDirectory.create(tmp_path, CONTENT) as directory:
        directory.append([pair(0)])
    (line,) = (directory.path / "pairs.jsonl").read_text().splitlines()
    assert json.loads(line)["base"]["metrics"]["steps_to_target"]["values"] == [None]


@pytest.mark.parametrize("request_", [[], {"nonsense": 1}])
def test_a_request_that_no_gate_has_written_is_one_sentence(tmp_path: Path, request_: object) -> None:
    content = {"schema_version": 1, "seed": 1, "request": request_}
    (tmp_path / "gate.json").write_text(json.dumps(content))
    with pytest.raises(RunDirectoryError, match="is broken; its request cannot be read"):
        resumed_request(tmp_path, None)


def test_a_self_test_is_not_continued(tmp_path: Path) -> None:
    content = {"schema_version": 1, "seed": 1, "request": Request(command="x", self_test_s=5.0).as_dict()}
    (tmp_path / "gate.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="a self-test is not continued"):
        resumed_request(tmp_path, None)


def test_a_request_is_read_as_it_was_written(tmp_path: Path) -> None:
    request = Request("specs/a.yaml", base="main", configurations=("a=1",), overrides=("b=2",), budget_s=3.0)
    content = {"schema_version": 1, "seed": 1, "request": request.as_dict()}
    (tmp_path / "gate.json").write_text(json.dumps(content))
    assert resumed_request(tmp_path, None) == request
    assert resumed_request(tmp_path, 7.0).budget_s == 7.0
