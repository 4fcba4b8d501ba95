"""`fusetune.load`: which runs a path means, and what is no run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import fusetune
from fusetune.bench.errors import InputError, RunDirectoryError
from fusetune.bench.frames import Run
from fusetune.bench.gate import read_stored_gate
from fusetune.bench.history import read_history
from fusetune.bench.kinds import KINDS
from fusetune.bench.stats import Summary

OLD = Path(__file__).parents[1] / "old_runs"
LINE = {"schema_version": 2, "trial": "a", "factors": {}, "seed": 0, "status": "ok", "values": {"steps": 8}}


def write_run(path: Path, *lines: dict[str, object], **fields: object) -> Path:
    """Write a run by hand, as docs/records.md describes it."""
    path.mkdir(parents=True)
    content = {"schema_version": 2, "run_id": path.name, "spec": {"name": path.parent.name}, **fields}
    (path / "run.json").write_text(json.dumps(content))
    (path / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three runs of two specs beside a gate and a history."""
    top = tmp_path / "results"
    write_run(top / "b" / "20260101-000000-aaaa", LINE)
    write_run(top / "a" / "20260103-000000-bbbb", LINE, {**LINE, "trial": "b"})
    write_run(top / "b" / "20260102-000000-cccc")
    (top / "gate" / "20260104-000000-dddd").mkdir(parents=True)
    (top / "gate" / "20260104-000000-dddd" / "gate.json").write_text("{}")
    (top / "history" / "cpu").mkdir(parents=True)
    (top / "history" / "cpu" / "a.jsonl").write_text("{}\n")
    return top


def names(*paths: Path) -> list[str]:
    return [run.path.name[-4:] for run in fusetune.load(*paths).runs]


def test_a_path_is_a_run_a_spec_or_all_results_with_the_newest_last(results: Path) -> None:
    assert names(results) == ["aaaa", "cccc", "bbbb"]
    assert names(results / "b") == ["aaaa", "cccc"]
    assert names(results / "a" / "20260103-000000-bbbb") == ["bbbb"]
    assert names(results / "a", results / "b") == ["bbbb", "aaaa", "cccc"]


def test_a_run_that_two_paths_lead_to_counts_once(results: Path) -> None:
    (results.parent / "link").symlink_to(results / "a")
    assert names(results / "b", results, results.parent / "link") == ["aaaa", "cccc", "bbbb"]


def test_a_text_is_a_path_and_results_is_the_default(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(results.parent)
    assert fusetune.load() == fusetune.load("results")
    assert [run.path for run in fusetune.load().runs][-1] == Path("results/a/20260103-000000-bbbb")


def test_what_is_loaded_is_what_is_on_disk(results: Path) -> None:
    (run,) = fusetune.load(results / "a").runs
    assert isinstance(run, Run)
    assert (run.info.run_id, run.info.spec.name, run.info.kind) == ("20260103-000000-bbbb", "a", "run")
    assert [record.trial for record in run.records] == ["a", "b"]
    assert run.records[0].values == {"steps": 8}
    one, other = run.records
    assert fusetune.load(results).records == (one, one, other)
    with pytest.raises(AttributeError):
        run.path = Path()  # type: ignore[misc]


def test_a_torn_line_is_a_note(results: Path) -> None:
    run = write_run(results / "c" / "20260105-000000-eeee", LINE)
    with (run / "records.jsonl").open("a") as file:
        file.write('{"torn')
    found = fusetune.load(run)
    assert len(found.records) == 1
    assert found.notes == (
        f"{run / 'records.jsonl'}: the last line was cut short by a crash and is left out",
    )


@pytest.mark.parametrize(
    ("below", "what", "to_do"),
    [
        ("nothing", "no such folder", "Check the path."),
        ("a/20260103-000000-bbbb/run.json", "is a file", "Give its folder."),
        ("a/20260103-000000-bbbb/records.jsonl", "is a file", "Check the path."),
        ("gate", "holds a gate", "Use fusetune.bench.gate.read_stored_gate."),
        (
            "gate/20260104-000000-dddd",
            "holds a gate",
            "Use fusetune.bench.gate.read_stored_gate.",
        ),
        ("history", "holds a history", "Use fusetune.bench.history.read_history."),
        ("history/cpu", "holds a history", "Use fusetune.bench.history.read_history."),
        ("empty", "holds no run", "Give results/<spec name>/<run id>/ or a folder above it."),
        ("x" * 300, "no such folder", "Check the path."),
    ],
)
def test_what_is_no_run_gets_one_sentence(results: Path, below: str, what: str, to_do: str) -> None:
    (results / "empty").mkdir()
    with pytest.raises(RunDirectoryError) as caught:
        fusetune.load(results / below)
    assert str(caught.value) == f"{results / below}: {what}; a run is a folder with run.json. {to_do}"


def test_what_a_gate_and_a_history_are_sent_to_is_there() -> None:
    assert callable(read_stored_gate)
    assert callable(read_history)


def test_a_newer_run_and_a_broken_one_are_refused(results: Path) -> None:
    newer = write_run(results / "n" / "20260106-000000-ffff", schema_version=99)
    with pytest.raises(RunDirectoryError, match="99"):
        fusetune.load(results)
    (newer / "run.json").write_text("{")
    with pytest.raises(RunDirectoryError, match="is broken"):
        fusetune.load(newer)


def test_a_pipe_is_no_run(results: Path) -> None:
    (results / "empty").mkdir()
    os.mkfifo(results / "empty" / "run.json")
    with pytest.raises(RunDirectoryError, match="holds no run"):
        fusetune.load(results / "empty")


def test_a_summary_is_the_study_of_the_runs_kind() -> None:
    (run,) = fusetune.load(OLD / "trainings").runs
    summary = run.summary()
    assert isinstance(summary, Summary)
    assert summary.configurations[0].rank == 1
    kinds = {run.info.kind: type(run.summary()).__name__ for run in fusetune.load(OLD / "sizes").runs}
    assert kinds == {"run": "Summary", "lr-range": "LRStudy", "batch-size": "MeasuredStudy"}


def test_a_kind_of_later_versions_loads_and_has_no_summary(results: Path) -> None:
    run = write_run(results / "n" / "20260106-000000-ffff", LINE, kind="later", trials=1)
    (found,) = fusetune.load(run).runs
    assert found.info.kind == "later"
    with pytest.raises(InputError, match="a run of the kind 'later' is newer than this program"):
        found.summary()


def test_the_summary_classes_that_the_docstring_names_exist() -> None:
    named = dict(re.findall(r"\| `([\w-]+)` \| `([\w.]+)` \|", Run.summary.__doc__ or ""))
    assert named.keys() == KINDS.keys()
    for place in named.values():
        module, _, name = place.rpartition(".")
        assert hasattr(import_module(module), name), place


def test_nothing_is_written_and_torch_is_not_imported(results: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    code = (
        "import sys, fusetune\n"
        "found = fusetune.load(*sys.argv[1:])\n"
        "assert 'pandas' not in sys.modules\n"
        "for table in ('trials', 'curves', 'samples'):\n"
        "    found.to_frame(table)\n"
        "found.runs[0].summary()\n"
        "assert 'torch' not in sys.modules\n"
        "print(len(found.runs))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(OLD), str(results)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "11\n"), done.stderr
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*")} == before
