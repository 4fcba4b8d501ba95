"""`bench gate --command` in scratch repositories: a planted change of each kind, and each exit code.

The programs print timings that a seeded generator draws, so that no verdict rests on this machine. Most tests run the
command line in this process. Those about signals start it as a program.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from fusetune.bench.cli import main
from tests.bench.gate.scratch_repository import commit, git, make_repository, write
from tests.bench.gate.stand_in_torch import make_torch
from tests.bench.page.checked import status_of
from tests.bench.test_records_page import listed
from tests.end_to_end.conftest import environment

# Isolated and without site-packages, an interpreter starts in a hundredth of a second.
PYTHON = f"{shlex.quote(sys.executable)} -I -S"
COMMAND = f"{PYTHON} bench.py"
# Noise of 0.4 % within a process and between processes. The seed is that of the pair with the side's name.
PROGRAM = """
import json, os, random
SIDE = "base"
SLOWER = 1.0
BYTES = 1000
ACCURACY = 0.9
NOISE = 0.004
noise = random.Random(SIDE + os.environ["BENCH_GATE_SEED"])
process = noise.gauss(1, NOISE)
seconds = [0.01 * SLOWER * process * noise.gauss(1, NOISE) for _ in range(30)]
found = {"step_s": seconds, "peak_bytes": BYTES, "accuracy": ACCURACY + noise.gauss(0, 0.002)}
print("a line of log")
print(json.dumps(found))
"""


def program(replaced: tuple[str, str] = ("", ""), **constants: object) -> str:
    """Return the program with other constants, and with a text replaced."""
    text = PROGRAM
    for name, value in constants.items():
        text, count = re.subn(rf"^{name} = .*$", f"{name} = {value!r}", text, flags=re.MULTILINE)
        assert count == 1
    assert replaced[0] in text
    return text.replace(*replaced) if replaced[0] else text


@dataclass
class Gated:
    """What a gate came to."""

    code: int
    out: str
    err: str
    repository: Path

    @property
    def directory(self) -> Path:
        """The only gate's directory."""
        (found,) = self.repository.glob("results/gate/*/gate.json")
        return found.parent

    @property
    def rows(self) -> dict[tuple[str, str], str]:
        """(benchmark, metric) -> outcome."""
        return {(row["benchmark"], row["metric"]): row["outcome"] for row in self.result["rows"]}

    @property
    def result(self) -> dict[str, Any]:
        return json.loads((self.directory / "result.json").read_text())

    @property
    def pairs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "pairs.jsonl").read_text().splitlines()]


Gate = Callable[..., Gated]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose branch `main` has the program, and is checked out."""
    return make_repository(tmp_path / "repository", {"bench.py": PROGRAM, "README.md": "one\n"})


@pytest.fixture
def gate(repository: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Gate:
    """Return a function that gates the working tree, and checks that no worktree and no change is left behind."""
    monkeypatch.chdir(repository)
    for name in ("GITHUB_ACTIONS", "GITHUB_BASE_REF"):
        monkeypatch.delenv(name, raising=False)

    def run(*options: str, command: str | None = COMMAND) -> Gated:
        before = git(repository, "status", "--porcelain")
        words = ["gate", *(["--command", command] if command else []), *options]
        with pytest.raises(SystemExit) as end:
            main(words)
        captured = capfd.readouterr()
        assert not captured.err.startswith("Traceback")
        assert "\nTraceback" not in captured.err  # indented: that of a program
        assert git(repository, "worktree", "list").count("\n") == 0
        assert git(repository, "status", "--porcelain") == before
        return Gated(end.value.code, captured.out, captured.err, repository)

    return run


def test_a_slower_head_is_red(repository: Path, gate: Gate) -> None:
    write(repository, {"bench.py": program(SIDE="head", SLOWER=1.05)})
    gated = gate("--base", "main")
    assert gated.code == 1
    assert gated.rows == {
        (COMMAND, "step_s"): "regressed",
        (COMMAND, "peak_bytes"): "pass",
        (COMMAND, "accuracy"): "pass",
    }
    (row,) = (row for row in gated.result["rows"] if row["metric"] == "step_s")
    assert row["effect"] == pytest.approx(0.05, abs=0.01)
    assert row["low"] < row["effect"] < row["high"]
    assert "REGRESSED" in gated.out
    assert "main" in gated.out
    assert "working tree" in gated.out


def test_the_files_of_a_gate_are_those_of_the_page(repository: Path, gate: Gate) -> None:
    write(repository, {"bench.py": program(SIDE="head")})
    gated = gate("--base", "main", "--budget", "1ms")
    assert {file.name for file in gated.directory.iterdir()} == {
        "gate.json",
        "pairs.jsonl",
        "result.json",
        "report.html",
        "lock",
    }
    content = json.loads((gated.directory / "gate.json").read_text())
    of_a_spec = {"sides", "threads"}
    assert {*content, *of_a_spec} == set(listed("gate.json"))


def test_a_faster_head_is_green(repository: Path, gate: Gate) -> None:
    write(repository, {"bench.py": program(SIDE="head", SLOWER=0.9)})
    gated = gate("--base", "main")
    assert (gated.code, gated.rows[COMMAND, "step_s"]) == (0, "improved")
    assert gated.result["outcome"] == "improved"


def test_a_change_of_the_readme_is_green_after_few_pairs(repository: Path, gate: Gate) -> None:
    write(repository, {"README.md": "two\n"})
    gated = gate("--base", "main")
    assert gated.code == 0
    assert set(gated.rows.values()) == {"pass"}
    assert len(gated.pairs) <= 8


def test_equal_speed_with_other_noise_is_green(repository: Path, gate: Gate) -> None:
    write(repository, {"bench.py": program(SIDE="head")})
    gated = gate("--base", "main")
    assert (gated.code, gated.rows[COMMAND, "step_s"]) == (0, "pass")


def test_a_head_that_is_worse_at_learning_is_red(repository: Path, gate: Gate) -> None:
    write(repository, {"bench.py": program(SIDE="head", ACCURACY=0.85)})
    gated = gate("--base", "main")
    assert (gated.code, gated.rows[COMMAND, "accuracy"]) == (1, "regressed")
    assert gated.rows[COMMAND, "step_s"] == "pass"


def test_a_hungrier_head_is_red(repository: Path, gate: Gate) -> None:
    write(repository, {"bench.py": program(SIDE="head", BYTES=1001)})
    gated = gate("--base", "main")
    assert (gated.code, gated.rows[COMMAND, "peak_bytes"]) == (1, "regressed")
    assert "exact" in gated.out


def test_a_head_that_ends_with_an_error_is_red_at_once(repository: Path, gate: Gate) -> None:
    text = program(
        SIDE="head", SLOWER=0.5, replaced=('print("a line of log")', "assert 2 + 2 == 5, 'wrong sum'")
    )
    write(repository, {"bench.py": text})
    gated = gate("--base", "main")
    assert (gated.code, gated.rows[COMMAND, "failure"]) == (1, "regressed")
    assert len(gated.pairs) == 1
    assert "AssertionError: wrong sum" in gated.err


def test_a_program_that_fails_on_both_sides_is_not_green(repository: Path, gate: Gate) -> None:
    fails = ('print("a line of log")', "raise SystemExit('no device')")
    commit(repository, {"bench.py": program(replaced=fails)}, "fails")
    write(repository, {"bench.py": program(SIDE="head", replaced=fails)})
    gated = gate("--base", "main")
    assert gated.code == 4
    assert "fails on both sides, so nothing is compared; of head: it ended with exit code 1" in gated.err
    assert len(gated.pairs) == 1


def test_a_metric_that_vanished_is_red(repository: Path, gate: Gate) -> None:
    write(repository, {"bench.py": program(SIDE="head", replaced=('"peak_bytes": BYTES, ', ""))})
    gated = gate("--base", "main")
    assert (gated.code, gated.rows[COMMAND, "peak_bytes"]) == (1, "missing")
    assert gated.rows[COMMAND, "step_s"] == "pass"


def test_a_benchmark_that_vanished_is_red(repository: Path, gate: Gate) -> None:
    both = ("print(json.dumps(found))", 'print(json.dumps({"small": found, "large": found}))')
    commit(repository, {"bench.py": program(replaced=both)}, "two benchmarks")
    one = ("print(json.dumps(found))", 'print(json.dumps({"small": found}))')
    write(repository, {"bench.py": program(SIDE="head", replaced=one)})
    gated = gate("--base", "main")
    assert gated.code == 1
    assert {metric: outcome for (name, metric), outcome in gated.rows.items() if name == "large"} == {
        "step_s": "missing",
        "peak_bytes": "missing",
        "accuracy": "missing",
    }
    assert gated.rows["small", "step_s"] == "pass"


def test_too_few_pairs_cannot_tell_and_are_an_error_where_that_is_asked_for(
    repository: Path, gate: Gate
) -> None:
    write(repository, {"bench.py": program(SIDE="head", SLOWER=1.2)})
    gated = gate("--base", "main", "--budget", "1ms", "--strict")
    assert (gated.code, gated.rows[COMMAND, "step_s"]) == (3, "can't tell")
    assert len(gated.pairs) == 1
    assert "The budget" in gated.out
    again = gate("--budget", "1ms", "--resume", str(gated.directory), command=None)
    assert again.code == 0
    # A larger budget makes it clear, with the pair that there was.
    more = gate("--budget", "10min", "--resume", str(gated.directory), command=None)
    assert (more.code, more.rows[COMMAND, "step_s"]) == (1, "regressed")
    assert more.pairs[0] == gated.pairs[0]


def test_a_head_that_cannot_be_imported_is_no_regression(repository: Path, gate: Gate) -> None:
    write(repository, {"bench.py": "import no_such_module_anywhere\n" + program(SIDE="head")})
    gated = gate("--base", "main")
    assert gated.code == 4
    assert "error: head working tree: cannot be imported; it says ModuleNotFoundError" in gated.err
    assert gated.out == ""
    assert not (repository / "results").exists()


def test_a_head_that_cannot_be_installed_is_no_regression(repository: Path, gate: Gate) -> None:
    build = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    project = '[project]\nname = "scratch-project"\nversion = "1"\ndependencies = []\n'
    commit(repository, {"pyproject.toml": build + project, "scratch_module.py": ""}, "a project")
    broken = project.replace("dependencies = []", 'dependencies = ["no such thing at all"]')
    write(repository, {"pyproject.toml": build + broken})
    gated = gate("--base", "main")
    assert gated.code == 4
    assert not (repository / "results").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--base", "mian"],
            "error: --base: unknown revision 'mian'; branches and tags like it: main. Did you mean",
        ),
        (["--base", "main"], "'main' and 'working tree' without changes are the same commit"),
        (["--base", "main", "--budget", "soon"], "'soon' is not a quantity"),
        (
            ["--base", "main", "--json", "nowhere/x.json"],
            "--json nowhere/x.json: its folder is not there. Make it",
        ),
        (["--base", "main", "--resume", "x"], "--resume has the options of its gate"),
        (["spec.yaml", "--base", "main"], "name either a SPEC, e.g. specs/digits.yaml, or a --command"),
        (["--base", "main", "--configuration", "a=1"], "--configuration is for a SPEC"),
    ],
)
def test_bad_options_are_one_sentence(gate: Gate, options: list[str], said: str) -> None:
    gated = gate(*options)
    assert gated.code == 2
    assert said in gated.err


@pytest.mark.parametrize(
    ("last_line", "said"),
    [
        ("done", "its last line is no JSON object: 'done'"),
        ('{"step_s": NaN}', "'step_s' is nan, which is not finite"),
        ('{"score": 1}', "which direction of 'score' is better is not known"),
    ],
)
def test_a_startedthat_prints_something_else_is_bad_input(
    repository: Path, gate: Gate, last_line: str, said: str
) -> None:
    text = program(SIDE="head", replaced=("print(json.dumps(found))", f"print({last_line!r})"))
    write(repository, {"bench.py": text})
    gated = gate("--base", "main")
    assert gated.code == 2
    assert f"error: head working tree: {said}" in gated.err
    assert not (repository / "results").exists()


def test_a_startedthat_one_side_lacks_is_bad_input(repository: Path, gate: Gate) -> None:
    write(repository, {"new.py": PROGRAM})
    git(repository, "add", "new.py")
    gated = gate("--base", "main", command=f"{PYTHON} new.py")
    assert (gated.code, gated.out) == (2, "")
    assert "error: base main: has no file 'new.py'" in gated.err


def test_a_spec_that_one_side_lacks_is_bad_input(repository: Path, gate: Gate) -> None:
    write(repository, {"spec.yaml": "name: new\n"})
    git(repository, "add", "spec.yaml")
    gated = gate("spec.yaml", "--base", "main", command=None)
    assert gated.code == 2
    assert "is in 'working tree' but not in 'main'" in gated.err


def test_a_faulty_spec_is_bad_input_before_anything_is_checked_out(repository: Path, gate: Gate) -> None:
    commit(
        repository,
        {"specs/mine.yaml": "name: mine\ngate: {metrics: {step_time_s: {threshhold: 1}}}\n"},
        "spec",
    )
    write(repository, {"README.md": "two\n"})
    gated = gate("specs/mine.yaml", "--base", "main", command=None)
    assert gated.code == 2
    assert "specs/mine.yaml:2: gate.metrics.step_time_s.threshhold: unknown key" in gated.err
    assert "Did you mean 'threshold'?" in gated.err
    assert not (repository / "results").exists()


def test_a_direction_can_be_given_where_the_name_tells_none(repository: Path, gate: Gate) -> None:
    score = ("print(json.dumps(found))", 'print(json.dumps({"registers": 64}))')
    commit(repository, {"bench.py": program(replaced=score)}, "registers")
    write(repository, {"bench.py": program(SIDE="head", replaced=(score[0], score[1].replace("64", "72")))})
    gated = gate("--base", "main", "--set", "gate.metrics.registers.better=lower")
    assert (gated.code, gated.rows) == (1, {(COMMAND, "registers"): "regressed"})
    assert "Did you mean" in gate("--base", "main", "--set", "gate.metrics.registers.beter=lower").err


def test_a_misspelt_rule_is_heard_of_after_the_first_pair(repository: Path, gate: Gate) -> None:
    write(repository, {"bench.py": program(SIDE="head")})
    gated = gate("--base", "main", "--set", "gate.metrics.steps.threshold=0.1")
    assert gated.code == 2
    assert "unknown 'steps'; known: " in gated.err
    assert gated.err.count("pair ") == 1


def test_the_outputs_say_the_same(
    repository: Path, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(repository, {"bench.py": program(SIDE="head", BYTES=2000)})
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    files = {name: tmp_path / f"out.{name}" for name in ("json", "markdown", "junit")}
    options = [word for name, file in files.items() for word in (f"--{name}", str(file))]
    gated = gate("--base", "main", *options)
    assert gated.code == 1
    assert json.loads(files["json"].read_text()) == gated.result
    markdown = files["markdown"].read_text()
    assert "REGRESSED" in markdown
    assert summary.read_text() == f"before\n{markdown}\n"
    failures = ElementTree.parse(files["junit"]).getroot().iter("failure")
    assert len(list(failures)) == 1


def test_the_base_is_where_the_branch_left_main(repository: Path, gate: Gate) -> None:
    left = git(repository, "rev-parse", "HEAD")
    git(repository, "checkout", "--quiet", "-b", "mine")
    commit(repository, {"bench.py": program(SIDE="head", BYTES=2000)}, "hungrier")
    git(repository, "checkout", "--quiet", "main")
    commit(repository, {"bench.py": program(SIDE="later", BYTES=5000)}, "main goes on")
    git(repository, "checkout", "--quiet", "mine")
    gated = gate()
    assert gated.code == 1
    assert gated.result["base"]["commit"] == left
    assert "merge base with main" in gated.out
    assert f"base: merge base with main, {left[:12]}" in gated.err


def test_two_commits_are_compared_whatever_the_working_tree_has(repository: Path, gate: Gate) -> None:
    commit(repository, {"bench.py": program(SIDE="head", BYTES=2000)}, "hungrier")
    write(repository, {"bench.py": "raise SystemExit('not measured')\n"})
    gated = gate("--base", "HEAD~1", "--head", "HEAD")
    assert (gated.code, gated.rows[COMMAND, "peak_bytes"]) == (1, "regressed")
    assert "Uncommitted changes are not measured" in " ".join(gated.out.split())


def test_a_command_runs_in_the_folder_that_it_was_given_in(
    repository: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(repository, {"inner/bench.py": program(BYTES=1)}, "inner")
    write(repository, {"inner/bench.py": program(SIDE="head", BYTES=2)})
    monkeypatch.chdir(repository / "inner")
    gated = gate("--base", "main", "--results", str(repository / "results"))
    assert (gated.code, gated.rows[COMMAND, "peak_bytes"]) == (1, "regressed")


def test_a_gate_that_compares_something_else_by_now_is_not_continued(repository: Path, gate: Gate) -> None:
    write(repository, {"bench.py": program(SIDE="head")})
    gated = gate("--base", "main", "--budget", "1ms")
    write(repository, {"bench.py": program(SIDE="changed")})
    refused = gate("--resume", str(gated.directory), command=None)
    assert refused.code == 2
    assert "cannot be continued; what it compares has changed: head.changes: " in refused.err
    write(repository, {"bench.py": program(SIDE="head")})
    commit(repository, {}, "committed")
    assert "has changed: base.commit: " in gate("--resume", str(gated.directory), command=None).err


class Program:
    """The gate as a program of its own, that can be killed when it has come far enough."""

    def __init__(self, repository: Path, *words: str) -> None:
        self.repository = repository
        variables = environment(repository.parent)
        stand_in = repository.parent / "stand-in"
        stand_in.mkdir(exist_ok=True)
        paths = [variables["PYTHONPATH"], str(make_torch(stand_in))]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fusetune.bench", "gate", *words],
            cwd=repository,
            env={**variables, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_pairs(self, count: int) -> None:
        """Return when so many pairs are on the disk."""
        while True:
            has_ended = self.process.poll() is not None
            files = list(self.repository.glob("results/gate/*/pairs.jsonl"))
            if sum(file.read_bytes().count(b"\n") for file in files) >= count:
                return
            assert not has_ended, self.process.communicate()
            time.sleep(0.01)

    def end(self) -> Gated:
        out, err = self.process.communicate()
        return Gated(self.process.returncode, out, err, self.repository)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_gate_that_is_ended_keeps_its_pairs_and_goes_on(
    repository: Path, gate: Gate, number: signal.Signals
) -> None:
    # The third process of a side waits until it is killed; when the gate goes on, it does not.
    waits = ('print("a line of log")', WAITING.format(file=str(repository.parent / "go-on")))
    write(repository, {"bench.py": program(SIDE="head", SLOWER=1.2, replaced=waits)})
    started = Program(repository, "--command", COMMAND, "--base", "main")
    started.wait_for_pairs(2)
    waiting = repository.parent / "go-on.waiting"
    while not waiting.exists():
        time.sleep(0.01)
    os.kill(started.process.pid, number)
    ended = started.end()
    assert len(ended.pairs) == 2
    if number == signal.SIGKILL:
        assert ended.code == -signal.SIGKILL
        assert git(repository, "worktree", "list").count("\n") == 2
        git(repository, "worktree", "prune")
    else:
        assert ended.code == 130
        assert git(repository, "worktree", "list").count("\n") == 0
        told = "interrupted; 2 finished pairs are kept. Continue with: "
        assert told in ended.err
        assert str(ended.directory.relative_to(repository)) in ended.err.partition(told)[2]
        assert "Traceback" not in ended.err
        assert ended.err.rstrip().splitlines()[-1].startswith("page: ")
    page = ended.directory / "report.html"
    if number == signal.SIGKILL:
        assert not page.exists()
        with pytest.raises(SystemExit) as end:
            main(["report", str(ended.directory.relative_to(repository)), "--html"])
        assert not end.value.code
    status = status_of(page.read_text())
    assert status.startswith("Interrupted: 2 pairs are finished. Continue with ")
    assert f"gate --resume {ended.directory.relative_to(repository)}" in status
    (repository.parent / "go-on").touch()
    first = ended.pairs
    resumed = Program(repository, "--resume", str(ended.directory)).end()
    assert resumed.code == 1, resumed.err
    assert resumed.rows[COMMAND, "step_s"] == "regressed"
    assert status_of(page.read_text()) == ""
    assert resumed.pairs[:2] == first
    assert [pair["index"] for pair in resumed.pairs] == list(range(len(resumed.pairs)))
    assert git(repository, "worktree", "list").count("\n") == 0


@pytest.mark.slow
def test_a_gate_that_is_ended_again_and_again_loses_no_finished_pair(repository: Path) -> None:
    """`make chaos` has more of this."""
    chance = random.Random(0)
    write(repository, {"bench.py": program(SIDE="head", SLOWER=1.2)})
    words = ["--command", COMMAND, "--base", "main"]
    kept = b""
    for _ in range(4):
        started = Program(repository, *words)
        started.wait_for_pairs(kept.count(b"\n") + chance.choice([0, 1, 1]))
        time.sleep(chance.uniform(0, 0.3))
        started.process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        ended = started.end()
        # 1: it was quicker. SIGTERM and SIGINT end a program that has not begun.
        assert ended.code in (130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 1)
        for file in repository.glob("results/gate/*/pairs.jsonl"):
            now = file.read_bytes()
            assert now.startswith(kept[: kept.rfind(b"\n") + 1])
            kept = now[: now.rfind(b"\n") + 1]
            words = ["--resume", str(file.parent)]
    done = Program(repository, *words).end()
    assert (done.code, done.rows[COMMAND, "step_s"]) == (1, "regressed"), done.err
    whole = (done.directory / "pairs.jsonl").read_bytes()
    assert whole.startswith(kept)
    assert [pair["index"] for pair in done.pairs] == list(range(len(done.pairs)))
    assert git(repository, "worktree", "list").count("\n") == 0
    assert [file.name for file in (repository / ".git/fusetune-gate").iterdir()] in ([], ["lock"])


@pytest.mark.slow
def test_a_gate_that_is_ended_before_its_first_pair_leaves_nothing(repository: Path) -> None:
    file = repository.parent / "go-on"
    waits = ('print("a line of log")', WAITING.replace('== "2"', '== "0"').format(file=str(file)))
    write(repository, {"bench.py": program(SIDE="head", replaced=waits)})
    started = Program(repository, "--command", COMMAND, "--base", "main")
    while not file.with_suffix(".waiting").exists():
        time.sleep(0.01)
    started.process.terminate()
    ended = started.end()
    assert (ended.code, ended.out) == (130, "")
    assert "interrupted; no pair was finished." in ended.err
    assert not (repository / "results").exists()
    assert git(repository, "worktree", "list").count("\n") == 0


WAITING = """
import pathlib, time
go_on = pathlib.Path({file!r})
while os.environ["BENCH_GATE_SEED"] == "2" and not go_on.exists():
    go_on.with_suffix(".waiting").touch()
    time.sleep(0.01)
"""


def test_a_self_test_tells_what_the_gate_is_worth_here(repository: Path, gate: Gate, tmp_path: Path) -> None:
    # Both sides are the same code with the same seed. So the noise of a process comes from its number.
    changed = ("random.Random(SIDE", "random.Random(str(os.getpid())")
    write(repository, {"bench.py": program(changed)})
    found = tmp_path / "found.json"
    gated = gate("--self-test", "--minutes", "0.1", "--json", str(found))
    assert gated.code == 0
    content = json.loads(found.read_text())
    (row,) = content["rows"]
    assert (row["benchmark"], row["metric"]) == (COMMAND, "step_s")
    assert row["pairs"] == len(gated.pairs) >= 2
    assert row["noise"] < 0.02
    assert all(row["reached"][outcome] for outcome in ("regressed", "improved", "missing"))
    assert "of the same code" in gated.out
    assert set(content) == set(listed("a self-test"))
    assert set(row) == set(listed("a row of a self-test"))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--self-test", "--base", "main"), "--self-test has no base"),
        (("--self-test", "--minutes", "0"), "--minutes"),
    ],
)
def test_a_self_test_with_wrong_options(gate: Gate, options: tuple[str, ...], complaint: str) -> None:
    gated = gate(*options)
    assert gated.code == 2
    assert complaint in gated.err


def test_a_self_test_of_a_program_that_fails_is_refused(repository: Path, gate: Gate) -> None:
    write(repository, {"bench.py": "raise SystemExit('broken on purpose')\n"})
    gated = gate("--self-test", "--minutes", "0.01")
    # A base that never works is a set-up that failed.
    assert gated.code == 4
    assert "broken on purpose" in gated.err
