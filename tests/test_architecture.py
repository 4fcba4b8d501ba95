"""The layers hold: leaves import only themselves, nothing goes in circles, the quick commands do without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("kernels", "tuner", "bench")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "misc"}


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports anywhere, functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in found if name in MODULES}


def test_there_is_something_to_check() -> None:
    assert {"bench.cli", "tuner.training", "kernels"} <= set(MODULES)


@pytest.mark.parametrize("leaf", ["kernels", "tuner"])
def test_leaves_import_only_themselves(leaf: str) -> None:
    for name, path in MODULES.items():
        if name.split(".")[0] == leaf:
            assert {other.split(".")[0] for other in imports(path)} <= {leaf}, name


def test_no_module_imports_itself_through_others() -> None:
    graph = {name: imports(path) - {name} for name, path in MODULES.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def test_files_have_telling_names() -> None:
    names = {path.stem for package in (*PACKAGES, "tests") for path in (ROOT / package).rglob("*.py")}
    assert not names & FORBIDDEN_NAMES


@pytest.mark.parametrize("command", ["--help", "list", "schema", "report --help", "run --help"])
def test_quick_commands_never_import_torch(command: str) -> None:
    code = (
        "import sys\nfrom bench.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split()], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
