"""The workflow of `bench init` on pull requests of a scratch repository: its `run:` steps run as they stand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fusetune.bench.init import find_out, write_files
from fusetune.bench.init.workflow import WORKFLOW
from tests.bench.gate.scratch_repository import IDENTITY, clean_environment, commit, git, make_repository
from tests.bench.init.github_runner import JobRun, run_job

ROOT = Path(__file__).parents[3]
# A program whose clock is its own: it counts what it does, and its rounds differ by what the seed says.
PROGRAM = """
import json, os, random
from work import STEPS
rng = random.Random(os.environ.get("BENCH_GATE_SEED", "0"))
print("warming up")
print(json.dumps({"decode_s": [STEPS * 1e-5 * rng.uniform(0.99, 1.01) for _ in range(30)], "peak_bytes": 4096}))
"""
TINY = """
name: tiny
data: {name: spirals, limit: 200, validation: 50}
model: {name: mlp, width: 8}
train: {optimizer: adam, base_lr: 0.01, batch_size: 50, epochs: 1}
threads: 1
"""


def variables(*, with_identity: bool = True) -> dict[str, str]:
    """The environment of a runner, whose pip knows no index."""
    kept = {key: value for key, value in clean_environment().items() if not key.startswith("PIP_")}
    if not with_identity:
        kept = {key: value for key, value in kept.items() if "AUTHOR" not in key and "COMMITTER" not in key}
    # The checkout is on the path by .pth files alone, as an installation is.
    kept.pop("PYTHONPATH", None)
    return {
        **kept,
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "FUSETUNE": "fusetune",
        "BUDGET": "5min",
    }


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with `main`, where `bench init` was run, and pull requests 1 (README), 2 (slower) and 3 (broken)."""
    patch = pytest.MonkeyPatch()
    for key, value in clean_environment().items():
        if key.startswith("GIT_"):
            patch.setenv(key, value)
    made = make_repository(
        tmp_path_factory.mktemp("hub") / "origin", {"bench.py": PROGRAM, "work.py": "STEPS = 100\n"}
    )
    write_files(find_out(made), "python bench.py")
    patch.undo()
    commit(made, {"README.md": "a project\n"}, "bench init")
    changes = {
        1: {"README.md": "a better project\n"},
        2: {"work.py": "STEPS = 120\n"},
        3: {"work.py": "STEPS = 1 / 0\n"},
    }
    for number, files in changes.items():
        git(made, "checkout", "--quiet", "-b", f"topic-{number}", "main~1" if number == 1 else "main")
        commit(made, files, f"change {number}")
        # What GitHub makes of an open pull request.
        git(made, "checkout", "--quiet", "--detach", "main")
        git(made, "merge", "--quiet", "--no-ff", "-m", f"Merge {number}", f"topic-{number}", "-X", "theirs")
        git(made, "update-ref", f"refs/pull/{number}/merge", "HEAD")
    git(made, "checkout", "--quiet", "main")
    return made


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runner's folder, with the environment that an earlier run has left there."""
    made = tmp_path_factory.mktemp("runner")
    environment = made / f"gpu-bench-{sys.version_info[0]}.{sys.version_info[1]}"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    places = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    lines = [f"import site; site.addsitedir({place!r})" for place in places]
    links = next(environment.glob("lib/python*/site-packages")) / "earlier.pth"
    links.write_text("\n".join([str(ROOT / "src"), *lines]) + "\n")
    return made


def gated(origin: Path, workspace: Path, number: int) -> JobRun:
    """Run the job `gate` on a pull request."""
    checkout = workspace / "checkout"
    shutil.rmtree(checkout, ignore_errors=True)
    shutil.rmtree(workspace / "temp", ignore_errors=True)
    git(workspace, "clone", "--quiet", "--no-checkout", str(origin), str(checkout))
    git(checkout, "fetch", "--quiet", "origin", f"refs/pull/{number}/merge")
    git(checkout, "checkout", "--quiet", "--detach", "FETCH_HEAD")
    workflow = yaml.safe_load((checkout / WORKFLOW).read_text())
    return run_job(workflow, "gate", checkout, workspace, variables())


def result(workspace: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((workspace / "temp" / "gpu-bench" / "gate.json").read_text())
    return found


@pytest.mark.slow
def test_a_change_of_the_readme_stays_green(origin: Path, workspace: Path) -> None:
    run = gated(origin, workspace, 1)
    assert run.failed == [], run.output
    assert {row["outcome"] for row in result(workspace)["rows"]} == {"pass"}
    report = (workspace / "temp" / "gpu-bench" / "gate.md").read_text()
    assert "PASS" in report
    assert report.strip() in run.summary
    assert (workspace / "temp" / "gpu-bench" / "gate.xml").exists()


@pytest.mark.slow
def test_a_slowdown_of_20_percent_turns_it_red(origin: Path, workspace: Path) -> None:
    run = gated(origin, workspace, 2)
    assert run.failed == ["Gate"], run.output
    outcomes = {row["metric"]: row["outcome"] for row in result(workspace)["rows"]}
    assert outcomes["decode_s"] == "regressed"
    assert outcomes["peak_bytes"] == "pass"
    assert "20" in run.summary


@pytest.mark.slow
def test_a_program_that_breaks_turns_it_red(origin: Path, workspace: Path) -> None:
    run = gated(origin, workspace, 3)
    assert run.failed == ["Gate"], run.output
    assert "ZeroDivisionError" in run.output


@pytest.mark.slow
def test_the_pull_request_that_brings_the_spec_is_green(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in clean_environment().items():
        if key.startswith("GIT_"):
            monkeypatch.setenv(key, value)
    made = make_repository(tmp_path / "origin", {"README.md": "a project\n"})
    git(made, "checkout", "--quiet", "-b", "topic")
    write_files(find_out(made))
    commit(made, {}, "bench init")
    git(made, "checkout", "--quiet", "--detach", "main")
    git(made, "merge", "--quiet", "--no-ff", "-m", "Merge 1", "topic")
    git(made, "update-ref", "refs/pull/1/merge", "HEAD")
    run = gated(made, workspace, 1)
    assert run.failed == [], run.output
    assert "The base has no specs/gate.yaml yet" in (workspace / "temp" / "gpu-bench" / "gate.md").read_text()


@pytest.mark.slow
def test_the_nightly_job_records_a_run_on_a_branch_of_its_own(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in clean_environment().items():
        if key.startswith("GIT_"):
            monkeypatch.setenv(key, value)
    made = make_repository(tmp_path / "origin", {"tiny.yaml": TINY})
    write_files(find_out(made))
    commit(made, {}, "bench init")
    # The identity is the workflow's.
    for key in [key for key in IDENTITY if "AUTHOR" in key or "COMMITTER" in key]:
        monkeypatch.delenv(key)
    for night in (1, 2):
        checkout = workspace / "checkout"
        shutil.rmtree(checkout, ignore_errors=True)
        shutil.rmtree(workspace / "temp", ignore_errors=True)
        git(workspace, "clone", "--quiet", str(made), str(checkout))
        workflow = yaml.safe_load((checkout / WORKFLOW).read_text())
        run = run_job(workflow, "history", checkout, workspace, variables(with_identity=False))
        assert run.failed == [], run.output
        files = git(made, "ls-tree", "-r", "--name-only", "gpu-bench-history").splitlines()
        [recorded] = [name for name in files if name.endswith("/tiny.jsonl")]
        lines = git(made, "show", f"gpu-bench-history:{recorded}").splitlines()
        assert len(lines) == night
        assert git(made, "rev-parse", "main") in lines[-1]
        assert "tiny" in run.summary
        commit(made, {"README.md": f"after night {night}\n"}, "a day's work")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node, which runs a workflow's scripts")
@pytest.mark.parametrize("earlier", [True, False])
def test_a_pull_request_has_one_comment(origin: Path, tmp_path: Path, earlier: bool) -> None:
    workflow = yaml.safe_load((origin / WORKFLOW).read_text())
    steps = workflow["jobs"]["gate"]["steps"]
    script = next(step["with"]["script"] for step in steps if "github-script" in step.get("uses", ""))
    comments = [
        {"id": 1, "body": "mine"},
        *([{"id": 2, "body": "<!-- gpu-bench -->\nold"}] if earlier else []),
    ]
    fake = f"""
        const said = [];
        const issues = {{
          listComments: 'list',
          updateComment: async (what) => said.push(['update', what]),
          createComment: async (what) => said.push(['create', what]),
        }};
        const github = {{ paginate: async (what) => {json.dumps(comments)}, rest: {{ issues }} }};
        const repo = {{ owner: 'o', repo: 'r' }};
        const context = {{ repo, issue: {{ number: 7 }}, runId: 9, serverUrl: 'https://h' }};
        (async () => {{ {script} }})().then(() => console.log(JSON.stringify(said)));
    """
    (tmp_path / "gpu-bench").mkdir()
    for report, expected in (("| a table |", "| a table |"), (None, "https://h/o/r/actions/runs/9")):
        file = tmp_path / "gpu-bench" / "gate.md"
        file.unlink(missing_ok=True)
        if report:
            file.write_text(report)
        done = subprocess.run(
            ["node", "-e", fake],
            env=os.environ | {"RUNNER_TEMP": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        [[kind, what]] = json.loads(done.stdout)
        assert kind == ("update" if earlier else "create")
        assert what.get("comment_id", what.get("issue_number")) == (2 if earlier else 7)
        assert what["body"].startswith("<!-- gpu-bench -->\n")
        assert expected in what["body"]
