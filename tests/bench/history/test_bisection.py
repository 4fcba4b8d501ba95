"""The first bad commit, found end to end in scratch repositories whose programs print fixed numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.cli import program
from fusetune.bench.history.bisect_step import Step, judge_rows, read_step
from tests.bench.gate.scratch_repository import clean_environment, commit, git, make_repository
from tests.bench.gate.stand_in_torch import make_torch
from tests.bench.history.made_runs import entry, process, write

ROOT = Path(__file__).parents[3]
COMMAND = "python measure.py"


def measuring(value: int, metric: str = "peak_bytes") -> str:
    return f'import json\nprint(json.dumps({{"{metric}": {value}}}))\n'


def made(folder: Path, values: list[int | None], metric: str = "peak_bytes") -> tuple[Path, list[str]]:
    """A repository with a commit for each value of the metric; None: one whose program cannot be imported."""
    root = make_repository(folder, {".gitignore": "results/\n"})
    hashes = [
        commit(
            root,
            {
                "measure.py": "def broken(:\n" if value is None else measuring(value, metric),
                "number": str(number),
            },
            f"commit {number}",
        )
        for number, value in enumerate(values)
    ]
    return root, hashes


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_torch(tmp_path_factory.mktemp("stand_ins"))


@pytest.fixture(autouse=True)
def here(stand_ins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(stand_ins)]))


def environment() -> dict[str, str]:
    return {
        **clean_environment(),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }


def bench(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fusetune.bench", *arguments],
        cwd=root,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def untouched(root: Path) -> Iterator[str]:
    """What a bisection must not change: HEAD, the working tree, worktrees and refs."""
    yield git(root, "symbolic-ref", "HEAD")
    yield git(root, "rev-parse", "HEAD")
    yield git(root, "status", "--porcelain")
    yield git(root, "worktree", "list", "--porcelain")
    yield git(root, "for-each-ref")
    yield " ".join(sorted(path.name for path in (root / ".git").glob("BISECT*")))
    yield " ".join(sorted(path.name for path in (root / ".git" / "worktrees").glob("*")))


@pytest.mark.slow
def test_the_commit_that_takes_more_instructions_is_found_past_one_that_does_not_build(
    tmp_path: Path,
) -> None:
    root, hashes = made(tmp_path, [10, 10, None, 10, 12, 12], "instructions")
    (root / "number").write_text("edited by its owner")
    before = list(untouched(root))
    done = bench(
        root, "history", "--bisect", "instructions", "--command", COMMAND, "--good", hashes[0], "--bad", "main",
        "--set", "gate.metrics.instructions.better=lower",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"commit  {hashes[4]}" in done.stdout
    assert "subject commit 4" in done.stdout
    steps = [line.split()[:2] for line in done.stderr.splitlines()]
    assert steps[0] == ["bad", hashes[5][:12]]
    assert ["skip", hashes[2][:12]] in steps
    assert ["bad", hashes[4][:12]] in steps
    assert "cannot be imported" in done.stderr
    assert list(untouched(root)) == before


@pytest.mark.slow
def test_commits_that_cannot_be_told_apart_are_listed(tmp_path: Path) -> None:
    root, hashes = made(tmp_path, [10, None, 12])
    done = bench(
        root, "history", "--bisect", "peak_bytes", "--command", COMMAND, "--good", hashes[0], "--bad", hashes[2],
        "--json",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    content = json.loads(done.stdout)
    assert content["found"] is None
    assert sorted(content["left"]) == sorted(hashes[1:])
    assert [step["judgement"] for step in content["steps"]] == ["bad", "skip"]


@pytest.mark.slow
def test_what_to_bisect_is_read_from_the_history(tmp_path: Path) -> None:
    root, hashes = made(tmp_path, [10, 12, 12])
    write(
        root / "results",
        [
            entry(number, {"x": [process(peak=peak)]}, commit=hashes[number], measured_command=COMMAND)
            for number, peak in ((0, 10), (2, 12))
        ],
    )
    done = bench(root, "history", "smoke", "--bisect", "peak_bytes")
    assert done.returncode == 0, done.stderr
    assert f"commit  {hashes[1]}" in done.stdout


@pytest.mark.slow
def test_a_change_that_is_in_no_commit_is_told(tmp_path: Path) -> None:
    root, hashes = made(tmp_path, [10, 10, 10])
    done = bench(
        root, "history", "--bisect", "peak_bytes", "--command", COMMAND, "--good", hashes[0], "--bad", "HEAD"
    )
    assert done.returncode == 1, done.stderr
    assert "No first bad commit: HEAD itself passes the gate." in done.stdout
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_metric_that_the_program_does_not_print_is_bad_input(tmp_path: Path) -> None:
    root, hashes = made(tmp_path, [10, 12])
    before = list(untouched(root))
    done = bench(
        root, "history", "--bisect", "peak", "--command", COMMAND, "--good", hashes[0], "--bad", "HEAD"
    )
    assert done.returncode == 2
    assert done.stderr == "error: --bisect: the gate has no metric 'peak'; known: peak_bytes\n"
    assert list(untouched(root)) == before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("in_step", [False, True], ids=["first gate", "git bisect run"])
def test_an_interruption_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, in_step: bool) -> None:
    """The program of one commit hangs, and says so: that of the bad commit, or one that git asks for."""
    root = make_repository(tmp_path / "repository", {".gitignore": "results/\n"})
    pids = tmp_path / "pids"
    pids.mkdir()
    hang = f"import os, time\nopen({str(pids)!r} + '/' + str(os.getpid()), 'w').close()\ntime.sleep(600)\n"
    programs = [measuring(10), measuring(10), measuring(12), measuring(12)]
    programs[1 if in_step else 3] = hang + programs[1 if in_step else 3]
    hashes = [commit(root, {"measure.py": text}, f"commit {each}") for each, text in enumerate(programs)]
    before = list(untouched(root))
    arguments = [
        "history",
        "--bisect",
        "peak_bytes",
        "--command",
        COMMAND,
        "--good",
        hashes[0],
        "--bad",
        "HEAD",
    ]
    running = subprocess.Popen(
        [sys.executable, "-m", "fusetune.bench", *arguments],
        cwd=root,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(pids.iterdir()) and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.05)
    assert list(pids.iterdir()), running.communicate()
    running.send_signal(number)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert list(untouched(root)) == before
    for path in pids.iterdir():
        assert not is_running(int(path.name))


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--good", "nowhere", "--bad", "HEAD"), "--good: unknown revision 'nowhere'"),
        (("--good", "HEAD", "--bad", "HEAD"), "--bad: 'HEAD' is the same commit as 'HEAD'"),
        (("--good", "HEAD", "--bad", "HEAD~1"), "--good: 'HEAD' does not lead to 'HEAD~1'"),
        (("--good", "HEAD~1"), "no run was recorded here"),
    ],
)
def test_revisions_that_cannot_be_bisected_are_one_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    root, _ = made(tmp_path, [10, 12])
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as stop:
        program.main(["history", "--bisect", "peak_bytes", "--command", COMMAND, *arguments])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
    assert not (root / ".git" / "fusetune-gate").exists() or not list(
        (root / ".git" / "fusetune-gate").glob("*/base")
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--good", "HEAD"), "--good is for --bisect METRIC"),
        (("--command", COMMAND), "--command is for --bisect METRIC"),
        (("--set", "a=1"), "--set is for --bisect METRIC"),
        (("x.yaml", "--bisect", "a", "--command", "b"), "name either a SPEC or a --command"),
    ],
)
def test_options_of_a_bisection_alone_are_a_usage_error(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        program.main(["history", *arguments])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_a_history_without_a_worsening_asks_for_revisions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = made(tmp_path, [10, 12])
    monkeypatch.chdir(root)
    write(Path("results"), [entry(0, measured_command=COMMAND)])
    for arguments, said in (
        (("smoke", "--bisect", "peak_bytes"), "'peak_bytes' has no change for the worse in this history"),
        (("smoke", "--bisect", "peak_byte"), "--metric: unknown 'peak_byte'; known: "),
    ):
        with pytest.raises(SystemExit) as stop:
            program.main(["history", *arguments])
        assert stop.value.code == 2
        assert said in capsys.readouterr().err


def row(outcome: str, metric: str = "a_s", sentence: str = "") -> dict[str, Any]:
    return {"benchmark": "b", "metric": metric, "outcome": outcome, "sentence": sentence or outcome}


@pytest.mark.parametrize(
    ("rows", "judgement"),
    [
        ([row("pass")], "good"),
        ([row("improved")], "good"),
        ([row("regressed")], "bad"),
        ([row("can't tell")], "skip"),
        ([row("missing")], "skip"),
        ([row("pass"), row("regressed"), row("missing")], "bad"),
        ([row("pass"), row("can't tell")], "skip"),
        ([row("pass"), row("regressed", "another_s")], "good"),
        ([row("pass", "another_s")], "refused"),
        ([], "refused"),
    ],
)
def test_the_rows_of_a_metric_make_a_commit_good_or_bad(rows: list[dict[str, Any]], judgement: str) -> None:
    assert judge_rows(rows, "a_s")[0] == judgement


def test_a_step_is_told_apart_from_what_git_says() -> None:
    step = Step("abc", "skip", 'it says "no"\nand more')
    assert "\n" not in step.as_line()
    assert read_step(step.as_line()) == step
    assert read_step("running 'python' '-c'") is None
