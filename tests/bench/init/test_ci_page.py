"""The scripts of docs/ci.md, run as they stand, but for what they gate."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.bench.gate.scratch_repository import clean_environment, commit, git, make_repository
from tests.bench.init.test_init import valid
from tests.bench.init.test_pull_requests import PROGRAM, ROOT

PAGE = (ROOT / "docs" / "ci.md").read_text()
BLOCKS = re.findall(r"^```(?:bash|yml)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def block(mark: str) -> str:
    """Return the block with a mark. It gates a program whose clock is its own, in place of a spec, and is quick."""
    [found] = [text for text in BLOCKS if mark in text]
    assert found.count("specs/gate.yaml") == 1
    return found.replace("specs/gate.yaml", '--command "python bench.py"')


def run(script: str, folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script by bash, with the Python of the tests as `python`."""
    environment = {**clean_environment(), "PYTHONPATH": str(ROOT / "src"), **variables}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    return subprocess.run(
        ["bash", "-c", script, "script", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of a project whose last commit changes nothing that is measured."""
    origin = make_repository(tmp_path / "origin", {"bench.py": PROGRAM, "work.py": "STEPS = 100\n"})
    commit(origin, {"README.md": "a project\n"}, "a README")
    git(tmp_path, "clone", "--quiet", str(origin), "clone")
    return tmp_path / "clone"


def test_the_first_command_writes_both_files(clone: Path) -> None:
    [first] = [text for text in BLOCKS if "bench init" in text]
    install, command = first.splitlines()
    assert install.startswith("pip install ")  # that of the tests is at hand
    done = run(command, clone)
    assert done.returncode == 0, done.stdout + done.stderr
    assert git(clone, "status", "--porcelain", "-uall").splitlines() == [
        "?? .github/workflows/gpu-bench.yml",
        "?? specs/gate.yaml",
    ]


def test_the_gitlab_pipeline_follows_its_schema(tmp_path: Path) -> None:
    (tmp_path / ".gitlab-ci.yml").write_text(block(".gitlab-ci.yml"))
    valid("vendor.gitlab-ci", tmp_path / ".gitlab-ci.yml")


@pytest.mark.slow
def test_the_gitlab_script_gates_a_merge_request(clone: Path) -> None:
    lines = yaml.safe_load(block(".gitlab-ci.yml"))["gpu-bench"]["script"]
    # The environment is that of the tests: nothing is installed.
    script = "\n".join(
        line.replace(".venv/bin/", "") for line in lines if "venv .venv" not in line and "pip" not in line
    )
    commit(clone, {"work.py": "STEPS = 120\n"}, "slower")
    done = run(script, clone, CI_MERGE_REQUEST_DIFF_BASE_SHA=git(clone, "rev-parse", "HEAD~1"))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "regressed" in (clone / "gpu-bench" / "gate.xml").read_text().lower()
    assert "REGRESSED" in (clone / "gpu-bench" / "gate.md").read_text()


@pytest.mark.slow
def test_the_nightly_script_keeps_the_last_good_commit(clone: Path, tmp_path: Path) -> None:
    script, origin = block("gate-nightly.sh"), tmp_path / "origin"
    good = git(origin, "rev-parse", "main")
    done = run(script, tmp_path, str(clone))
    assert done.returncode == 0, done.stdout + done.stderr
    assert git(clone, "rev-parse", "refs/gpu-bench/good") == good
    assert run(script, tmp_path, str(clone)).stdout == ""  # nothing new
    commit(origin, {"work.py": "STEPS = 120\n"}, "slower")
    commit(origin, {"README.md": "a better project\n"}, "innocent")
    done = run(script, tmp_path, str(clone), "main")
    assert done.returncode == 1, done.stdout + done.stderr
    assert git(clone, "rev-parse", "refs/gpu-bench/good") == good


@pytest.mark.slow
def test_the_slurm_script_hands_the_exit_code_on(clone: Path, tmp_path: Path) -> None:
    commit(clone, {"README.md": "a better project\n"}, "innocent")
    done = run(block("#SBATCH"), tmp_path, SLURM_SUBMIT_DIR=str(clone))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS" in (clone / "gpu-bench" / "gate.md").read_text()
    assert run(block("#SBATCH"), tmp_path, SLURM_SUBMIT_DIR=str(clone), BASE="no-such").returncode == 2
