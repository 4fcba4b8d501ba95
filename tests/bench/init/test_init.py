"""`bench init` in repositories that are made here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from fusetune.bench.cli.init import init
from fusetune.bench.errors import InputError
from fusetune.bench.init import find_out, write_files
from fusetune.bench.init.findings import _gpu
from fusetune.bench.init.workflow import WORKFLOW
from fusetune.bench.spec import load_spec
from tests.bench.gate.scratch_repository import clean_environment, commit, git, make_repository, write

ROOT = Path(__file__).parents[3]
HERE = ".".join(map(str, sys.version_info[:2]))
SPEC = "name: mine\ndata: {name: digits}\nmodel: {name: mlp}\ntrain: {optimizer: adam, base_lr: 0.1}\n"


@pytest.fixture(autouse=True)
def _no_settings_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key.startswith("GIT_")]:
        monkeypatch.delenv(key)
    for key, value in clean_environment().items():
        if key.startswith("GIT_"):
            monkeypatch.setenv(key, value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_repository(
        tmp_path / "project", {"pyproject.toml": '[project]\nname = "My.Lib"\nversion = "1"\n'}
    )


def run_init(folder: Path, *arguments: str) -> str:
    done = CliRunner().invoke(init, [str(folder), *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def workflow_of(folder: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load((folder / WORKFLOW).read_text())
    return found


def step(workflow: dict[Any, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in workflow["jobs"]["gate"]["steps"] if one.get("name") == name)
    return found


def valid(schema: str, file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_repository_gets_a_spec_and_a_workflow(folder: Path) -> None:
    said = run_init(folder)
    assert f"project     My.Lib, Python {HERE}, default branch main\n" in said
    assert "wrote       specs/gate.yaml\nwrote       .github/workflows/gpu-bench.yml\n" in said
    assert load_spec(folder / "specs" / "gate.yaml", device="cpu").spec.name == "My.Lib-gate"
    workflow = workflow_of(folder)
    assert workflow[True]["pull_request"] == {"branches": ["main"]}  # YAML reads the bare key `on` as true
    assert workflow["env"]["SPEC"] == "specs/gate.yaml"
    assert '"$FUSETUNE" -e .\n' in step(workflow, "Install")["run"]
    assert workflow["jobs"]["gate"]["steps"][1]["with"] == {"python-version": HERE}
    assert re.findall(r"@[A-Z]+@", (folder / WORKFLOW).read_text()) == []


@pytest.mark.parametrize("command", ["", "python bench.py --name 'a b' # \"é\" ${{ x }}"])
def test_the_workflow_follows_githubs_schema(folder: Path, command: str) -> None:
    run_init(folder, "--command", command)
    valid("vendor.github-workflows", folder / WORKFLOW)
    if command:
        assert workflow_of(folder)["env"]["COMMAND"] == command
        assert not (folder / "specs").exists()
    # Without a spec nothing is recorded at night.
    jobs = ["gate"] if command else ["gate", "history"]
    assert list(workflow_of(folder)["jobs"]) == jobs
    assert ("schedule" in workflow_of(folder)[True]) == ("history" in jobs)


def test_the_next_commands_can_be_pasted(folder: Path) -> None:
    said = run_init(folder).partition("Next:\n")[2]
    *prepare, last = [line.strip() for line in said.splitlines() if "cd " not in line]
    done = subprocess.run(
        ["bash", "-ec", "\n".join(prepare)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert git(folder, "status", "--porcelain") == ""
    write(
        folder,
        {"results/gate/1/pairs.jsonl": "", "results/history/a/b.jsonl": "", "results/baselines/c.json": ""},
    )
    untracked = git(folder, "status", "--porcelain", "-uall", "results").splitlines()
    assert untracked == ["?? results/baselines/c.json", "?? results/history/a/b.jsonl"]
    assert last.endswith("gate specs/gate.yaml --self-test")
    again = run_init(folder)
    assert ".gitignore" not in again
    assert again.endswith("gate specs/gate.yaml --base HEAD~1\n")


def test_nothing_is_overwritten(folder: Path) -> None:
    run_init(folder)
    written = [folder / "specs" / "gate.yaml", folder / WORKFLOW]
    for path in written:
        path.write_text(path.read_text() + "# mine\n")
    said = run_init(folder)
    assert "kept        specs/gate.yaml, which was there" in said
    assert "wrote" not in said
    assert all(path.read_text().endswith("# mine\n") for path in written)


def test_a_spec_that_is_there_is_gated(folder: Path) -> None:
    files = {"b.yaml": SPEC, "deep/a.yaml": SPEC, "deep/z.yml": f"{SPEC}gate: {{budget: 1min}}\n"}
    commit(folder, {**files, "other.yaml": "name: x\n", "broken.yaml": "[", "list.yaml": "- 1\n"}, "specs")
    write(folder, {".gitignore": "/results/\nignored.yaml\n", "ignored.yaml": SPEC, "new.yaml": SPEC})
    findings = find_out(folder)
    assert [str(path) for path in findings.specs] == ["deep/z.yml", "b.yaml", "new.yaml", "deep/a.yaml"]
    said = run_init(folder)
    assert "kept        deep/z.yml, which was there\nnot gated   b.yaml, new.yaml, deep/a.yaml\n" in said
    assert workflow_of(folder)["env"]["SPEC"] == "deep/z.yml"
    assert ".gitignore" not in said
    assert not (folder / "specs").exists()


def test_a_file_with_the_specs_name_that_is_none(folder: Path) -> None:
    write(folder, {"specs/gate.yaml": "name: x\n"})
    with pytest.raises(InputError, match="is there, but is no spec"):
        write_files(find_out(folder))
    assert not (folder / WORKFLOW).exists()


def test_a_project_in_a_folder_of_its_repository(folder: Path) -> None:
    commit(
        folder,
        {"parts/net/pyproject.toml": '[tool.poetry]\nname = "net"\n[build-system]\n', "x.yaml": SPEC},
        "2",
    )
    findings = find_out(folder / "parts" / "net")
    assert (findings.package, findings.installation) == ("net", "-e ./parts/net")
    assert [str(path) for path in findings.specs] == ["x.yaml"]
    assert not findings.results_ignored


@pytest.mark.parametrize(
    ("files", "installation"),
    [
        ({"setup.py": "from setuptools import setup\nsetup()\n"}, "-e ."),
        ({"requirements.txt": "torch\n"}, "-r requirements.txt"),
        ({"train.py": "1\n"}, ""),
    ],
)
def test_how_a_project_is_installed(tmp_path: Path, files: dict[str, str], installation: str) -> None:
    findings = find_out(make_repository(tmp_path / "project", files))
    assert (findings.package, findings.installation) == ("project", installation)


def test_the_python_that_the_project_names(folder: Path) -> None:
    write(folder, {".python-version": "3.13.1\n"})
    assert find_out(folder).python == "3.13"


def test_the_default_branch(folder: Path, tmp_path: Path) -> None:
    git(folder, "branch", "-m", "trunk")
    git(folder, "checkout", "--quiet", "-b", "topic")
    assert find_out(folder).branch == "trunk"
    git(folder, "branch", "-m", "trunk", "develop")
    assert find_out(folder).branch == "topic"
    git(folder, "checkout", "--quiet", "develop")
    git(tmp_path, "clone", "--quiet", str(folder), "clone")
    git(tmp_path / "clone", "checkout", "--quiet", "-b", "main")
    assert find_out(tmp_path / "clone").branch == "develop"


def test_a_gpu_is_seen_without_a_library(tmp_path: Path) -> None:
    assert _gpu(tmp_path) == ""
    write(tmp_path, {"dev/kfd": ""})
    assert _gpu(tmp_path) == "AMD"
    write(
        tmp_path, {"proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Kernel Module  550.54.15  Tue\n"}
    )
    assert _gpu(tmp_path) == "NVIDIA, driver 550.54.15"


def test_fusetunes_own_repository_installs_itself(tmp_path: Path) -> None:
    made = make_repository(
        tmp_path / "x", {"pyproject.toml": '[project]\nname = "fusetune"\nversion = "1"\n'}
    )
    run_init(made)
    assert "FUSETUNE" not in (made / WORKFLOW).read_text()
    assert "disable-pip-version-check -e .\n" in step(workflow_of(made), "Install")["run"]


def test_no_folder_no_repository_no_room(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    with pytest.raises(InputError, match="is no folder"):
        find_out(tmp_path / "absent")
    (tmp_path / "plain").mkdir()
    with pytest.raises(InputError, match="is not in a git repository"):
        find_out(tmp_path / "plain")
    write(folder, {".github": "a file"})
    with pytest.raises(InputError, match=r"gpu-bench\.yml: cannot be written; "):
        write_files(find_out(folder))


def test_it_does_without_torch(folder: Path) -> None:
    code = (
        "import sys\nfrom fusetune.bench.cli import main\n"
        "try:\n    main(['init', sys.argv[1]])\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT / "src", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "wrote" in done.stdout
