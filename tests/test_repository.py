"""The files around the code name what there is: versions, tools, make's targets, forms that GitHub can show."""

from __future__ import annotations

import hashlib
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
MAKEFILE = (ROOT / "Makefile").read_text()
# Of the text that apache.org publishes, as plain text.
APACHE_2_SHA256 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
ELEMENTS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}


def project() -> dict[str, Any]:
    """pyproject.toml's [project]. Python 3.10 has no parser of TOML: there, the one that pytest brings."""
    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    found: dict[str, Any] = toml.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_the_license_is_the_apache_license() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2_SHA256
    assert project()["license"] == load(ROOT / "CITATION.cff")["license"] == "Apache-2.0"
    assert project()["license-files"] == ["LICENSE"]


def test_the_citation_is_of_this_version_of_this_project() -> None:
    citation = load(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "version"} <= set(citation)
    assert citation["title"] == project()["name"]
    assert citation["version"] == project()["version"]
    assert citation["repository-code"] == project()["urls"]["Repository"]


def test_classifiers_name_each_python_that_the_workflow_tests() -> None:
    prefix = "Programming Language :: Python :: 3."
    named = {f"3.{name[len(prefix) :]}" for name in project()["classifiers"] if name.startswith(prefix)}
    workflow = (GITHUB / "workflows" / "test.yml").read_text()
    assert named == set(re.findall(r'"(3\.\d+)"', workflow))
    oldest = min(named, key=lambda version: int(version.partition(".")[2]))
    assert project()["requires-python"] == f">={oldest}"


def make_targets_in(text: str) -> set[str]:
    return set(re.findall(r"^\s*(?:- run: |run: )?make ([a-z-]+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize("path", [".github/workflows/test.yml", ".ci/run"])
def test_continuous_integration_names_targets_of_make(path: str) -> None:
    named = make_targets_in((ROOT / path).read_text())
    assert named
    assert {
        target for target in named if not re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE)
    } == set()


def test_the_workflow_does_what_the_check_of_a_fresh_clone_does() -> None:
    workflow = load(GITHUB / "workflows" / "test.yml")
    # YAML reads the bare key `on` as true.
    assert set(workflow[True]) == {"push", "pull_request"}
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    assert "bash .ci/run" in {step.get("run") for step in steps}
    installed = set(" ".join(step.get("run", "") for step in steps).split())
    wanted = re.findall(r"apt-get install -y -qq (.+)$", (ROOT / ".ci/run").read_text(), flags=re.MULTILINE)
    assert wanted
    assert {package for line in wanted for package in line.split()} <= installed


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_is_one_that_github_shows(path: Path) -> None:
    form = load(path)
    assert {"name", "description", "body"} <= set(form)
    elements = form["body"]
    assert {element["type"] for element in elements} <= ELEMENTS
    assert all(element["attributes"].get("label") for element in elements)
    ids = [element["id"] for element in elements]
    assert len(set(ids)) == len(ids)
    assert any(element.get("validations", {}).get("required") for element in elements)


def test_there_are_forms_and_those_on_failures_ask_for_doctor() -> None:
    asked = {path.stem: "bench doctor" in path.read_text() for path in FORMS}
    assert asked == {"bug": True, "feature": False, "wrong-number": True}
    assert set(load(GITHUB / "ISSUE_TEMPLATE" / "config.yml")) == {"blank_issues_enabled", "contact_links"}


def test_a_commits_hooks_are_the_linters_of_make_lint() -> None:
    hooks = [hook for repo in load(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    recipe = MAKEFILE.partition("\nlint:")[2].partition("\n\n")[0]
    tools = {line.strip().partition("$(BIN)/")[2].split(" ", 1)[0] for line in recipe.splitlines()[1:]}
    assert {hook["entry"].removeprefix(".venv/bin/").split()[0] for hook in hooks} == tools
    assert all(hook["language"] == "system" for hook in hooks)


def test_editors_are_told_the_limits_that_the_linter_holds() -> None:
    limit = re.search(r"^max_line_length = (\d+)$", (ROOT / ".editorconfig").read_text(), flags=re.MULTILINE)
    held = re.search(r"max-line-length = (\d+)", (ROOT / "pyproject.toml").read_text())
    assert limit is not None
    assert held is not None
    assert limit[1] == held[1]
