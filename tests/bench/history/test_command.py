"""`bench history` and `--record` as a person uses them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fusetune.bench.cli import program
from fusetune.bench.history.log import read_history
from tests.bench.gate.scratch_repository import commit, git, make_repository
from tests.bench.history.made_runs import entry, write
from tests.bench.history.test_study import slowed

ROOT = Path(__file__).parents[3]
TINY = """
name: tiny
data: {name: digits}
model: {name: mlp, width: 8, depth: 1, activation: relu}
train: {optimizer: sgd, base_lr: 0.1, batch_size: 256, epochs: 1}
factors: {batch_size: [256, 512]}
seeds: 2
threads: 1
"""


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        program.main(arguments)
    out, err = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, out, err


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_only_history_needs_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("results"), slowed())
    code, out, err = run(capsys, "history")
    assert (code, err) == (0, "")
    assert "✗ smoke: step time +10.0 % worse" in out
    assert run(capsys, "history", "smoke")[1] == out


def test_several_histories_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for spec in ("smoke", "digits"):
        write(Path("results"), [entry(0)], spec=spec)
    code, out, _ = run(capsys, "history")
    assert code == 0
    assert "results/history/some-cpu-2-cores-linux-x86_64/digits.jsonl" in out
    code, out, _ = run(capsys, "history", "--json")
    assert json.loads(out) == {name: ["some-cpu-2-cores-linux-x86_64"] for name in ("digits", "smoke")}


def test_a_spec_is_meant_by_its_file_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write(Path("results"), [entry(0)])
    (tmp_path / "other.yaml").write_text("name: smoke\n")
    for spec in ("other.yaml", "specs/smoke.yaml"):
        code, out, _ = run(capsys, "history", spec)
        assert code == 0
        assert out.startswith("history  smoke")


def test_json_is_one_object_with_every_run(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("results"), slowed())
    code, out, _ = run(capsys, "history", "smoke", "--metric", "step_time_s", "--json")
    assert code == 0
    content = json.loads(out)
    (series,) = content["series"]
    assert len(series["points"]) == content["runs"] == 24
    assert series["changes"][0]["index"] == 12


def test_commits_are_counted_in_the_repository_around(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_repository(tmp_path / "repository")
    hashes = [commit(root, {"a": str(number)}, f"next {number}") for number in range(24)]
    monkeypatch.chdir(root)
    write(
        root / "results",
        [
            each.model_copy(update={"commit": hashes[number]})
            for number, each in enumerate(slowed())
            if number not in (12, 13)
        ],
    )
    _, out, _ = run(capsys, "history")
    assert f"last before {hashes[11][:12]}" in out
    assert f"first after {hashes[14][:12]}" in out
    assert "3 commits, the last one included" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("history",), "results/history: no run was recorded here. Record one with"),
        (("history", "smoke", "--results", "elsewhere"), "elsewhere/history: no run was recorded here"),
        (
            ("history", "smok", "--results", "some"),
            "SPEC: unknown 'smok'; known: smoke. Did you mean 'smoke'?",
        ),
        (
            ("history", "smoke", "--results", "some", "--machine", "x"),
            "--machine: unknown 'x'; known: some-cpu",
        ),
        (("history", "smoke", "--results", "some", "--metric", "step_time"), "Did you mean 'step_time_s'?"),
        (("history", "smoke", "--results", "torn"), "smoke.jsonl:2: not a run of a history"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    write(Path("some"), [entry(0)])
    path = write(Path("torn"), [entry(0)])
    path.write_text(path.read_text() + "torn in the middle\n" + path.read_text())
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1


def test_showing_a_history_never_imports_torch() -> None:
    write(Path("results"), slowed())
    code = (
        "import sys\nfrom fusetune.bench.cli import main\n"
        "try:\n    main(['history', 'smoke'])\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "step time" in done.stdout


@pytest.mark.slow
def test_runs_are_recorded_and_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_repository(tmp_path / "repository", {"specs/tiny.yaml": TINY})
    monkeypatch.chdir(root)
    for number in range(2):
        code, _, err = run(capsys, "run", "specs/tiny.yaml", "--record")
        assert code == 0, err
        (path,) = (root / "results" / "history").glob("*/tiny.jsonl")
        assert f"recorded in results/history/{path.parent.name}/tiny.jsonl" in err
        commit(root, {"code.py": str(number)}, "next")
    runs = read_history(root / "results", "tiny").entries
    assert [each.commit for each in runs] == [git(root, "rev-parse", name) for name in ("HEAD~2", "HEAD~1")]
    assert [each.dirty for each in runs] == [False, False]
    assert {each.run_id for each in runs} == {path.name for path in (root / "results" / "tiny").iterdir()}
    for each in runs:
        assert list(each.benchmarks) == ["tiny: batch_size=256", "tiny: batch_size=512"]
        for measured in each.benchmarks.values():
            assert len(measured.metrics["step_time_s"].median) == 2
            assert measured.threads == 1
    code, out, _ = run(capsys, "history", "specs/tiny.yaml")
    assert code == 0
    assert re.search(r"step time\s+[\d.]+ [um]?s", out)


@pytest.mark.slow
def test_a_gate_records_its_head(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import json\nprint(json.dumps({'a': {'peak_bytes': 10}, 'b': {'peak_bytes': 20}}))\n"
    root = make_repository(tmp_path / "repository", {"measure.py": text, ".gitignore": "results/gate/\n"})
    head = commit(root, {"measure.py": text.replace("20", "22")}, "hungrier")
    commit(root, {"measure.py": text}, "the newest")
    monkeypatch.chdir(root)
    command = f"{sys.executable} -I -S measure.py"
    code, _, err = run(
        capsys, "gate", "--command", command, "--base", "HEAD~2", "--head", "HEAD~1", "--record"
    )
    assert code == 1, err
    (path,) = (root / "results" / "history").glob("*/*.jsonl")
    assert f"recorded in {path.relative_to(root)}" in err
    (entry,) = read_history(root / "results", path.stem).entries
    assert (entry.source, entry.measured_command, entry.spec_path) == ("gate", command, None)
    assert (entry.commit, entry.subject, entry.dirty) == (head, "hungrier", False)
    assert [gate.name for gate in (root / "results" / "gate").glob("*-*")] == [entry.run_id]
    for name, peak in (("a", 10.0), ("b", 22.0)):
        found = entry.benchmarks[name]
        assert set(found.metrics["peak_bytes"].median) == {peak}
        assert found.reference is not None
    code, out, _ = run(capsys, "history", command)
    assert code == 0
    assert out.startswith(f"history  {path.stem}")


def test_a_search_is_not_recorded(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    spec = TINY.replace(
        "seeds: 2", "design: {search: {budget_epochs: 8}}\ntarget: {metric: val_accuracy, at_least: 0.5}"
    )
    (tmp_path / "tiny.yaml").write_text(spec)
    code, _, err = run(capsys, "run", "tiny.yaml", "--record")
    assert code == 2
    assert "--record: a search trains other configurations each time" in err
    assert not (tmp_path / "results").exists()


GATED = (
    TINY.replace("tiny", "smoke")
    + """
gate:
  metrics: {step_time_s: {threshold: 0.5, better: higher}}
  benchmarks: {smoke: {step_time_s: {threshold: THRESHOLD}}}
"""
)


def changes(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[tuple[str, float]]:
    code, out, err = run(capsys, "history", *arguments, "--metric", "step_time_s", "--json")
    assert (code, err) == (0, "")
    return [(each["direction"], round(each["effect"], 3)) for each in json.loads(out)["series"][0]["changes"]]


def test_thresholds_and_directions_are_those_of_the_specs_gate(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The spec is known by its path, or by that of the newest run. That of a benchmark goes first."""
    root = make_repository(tmp_path, {".gitignore": "results/\n"})
    write(root / "results", slowed(spec_path="specs/smoke.yaml"))
    (root / "specs").mkdir()
    assert changes(capsys, "smoke") == [("worse", 0.1)]  # the spec is not here
    spec = root / "specs" / "smoke.yaml"
    for threshold, expected in (("0.2", []), ("0.05", [("better", 0.1)])):
        spec.write_text(GATED.replace("THRESHOLD", threshold))
        assert changes(capsys, "smoke") == changes(capsys) == changes(capsys, "specs/smoke.yaml") == expected
    spec.write_text(TINY)
    assert changes(capsys, "smoke") == [("worse", 0.1)]


def test_a_gate_section_that_cannot_be_read_is_bad_input(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write(Path("results"), slowed())
    (tmp_path / "smoke.yaml").write_text(GATED.replace("THRESHOLD", "much"))
    code, _, err = run(capsys, "history", "smoke.yaml")
    assert code == 2
    assert "smoke.yaml" in err
    assert "threshold" in err
