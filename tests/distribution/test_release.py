"""What is released: sdist and wheel are whole, and the wheel alone does what the README's two commands do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import TypeVar

import pytest

from tests.distribution.environments import ROOT, Environment

pytestmark = [pytest.mark.release, pytest.mark.timeout(3600)]

T = TypeVar("T")

PACKAGES = ("kernels", "tuner", "bench")
DATA = {".py", ".npz"}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fresh sdist, and of the wheel that is built from it."""
    folder = ROOT / "build" / "release" / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(released: Path) -> Path:
    return only(released.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path) -> Environment:
    """An environment that has the wheel and what it depends on, and sees nothing of this checkout."""
    made = Environment.at(ROOT / "build" / "release" / "environment")
    made.install("torch")
    made.uninstall("fusetune")
    made.install(f"{wheel}[test]")
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the specs, elsewhere than this checkout."""
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    return tmp_path


def test_the_wheel_holds_fusetune_alone_and_all_of_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0] for name in names} == {
        "fusetune",
        wheel.name.rsplit("-", 3)[0] + ".dist-info",
    }
    packed = {name for name in names if name.startswith("fusetune/")}
    assert packed == {"fusetune/py.typed"} | {
        (Path("fusetune") / path.relative_to(top)).as_posix()
        for top, folders in ((ROOT / "src" / "fusetune", ["."]), (ROOT, PACKAGES))
        for one in folders
        for path in (top / one).glob("*.py" if one == "." else "**/*")
        if path.suffix in DATA
    }


def test_the_sdist_builds_and_has_license_and_readme(released: Path) -> None:
    with tarfile.open(only(released.glob("*.tar.gz"))) as archive:
        names = archive.getnames()
    assert {"LICENSE", "README.md", "pyproject.toml", "PKG-INFO"} <= {
        name.partition("/")[2] for name in names
    }
    # The folders that src/fusetune links to lie there, and nowhere twice.
    assert {name.split("/")[1] for name in names if "/" in name}.isdisjoint({"tests", *PACKAGES})


def test_the_metadata_name_license_python_and_home(wheel: Path) -> None:
    metadata = metadata_of(wheel)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Requires-Python"] == ">=3.10"
    assert "Homepage, https://github.com/fusetune/fusetune" in metadata.get_all("Project-URL", [])
    assert not [name for name in metadata.get_all("Classifier", []) if name.startswith("License ::")]


def test_an_index_accepts_both(released: Path) -> None:
    files = [str(path) for path in released.iterdir()]
    command = [sys.executable, "-m", "twine", "check", "--strict", *files]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("PASSED") == len(files) == 2


def test_the_wheel_runs_what_make_run_does(environment: Environment, folder: Path) -> None:
    environment.run("python", "-m", "fusetune.bench", "run", "specs/cifar.yaml", folder=folder)
    records = records_in(folder / "results" / "cifar")
    assert {record["status"] for record in records} <= {"ok", "missed_target"}
    assert len(records) == 20
    report = environment.run("bench", "report", "results/cifar", folder=folder)
    assert "Recommendation" in report


def test_the_wheels_kernels_train(environment: Environment, folder: Path) -> None:
    environment.run("bench", "run", "specs/smoke.yaml", folder=folder)
    records = records_in(folder / "results" / "smoke")
    assert len(records) == 8
    assert {record["status"] for record in records} <= {"ok", "missed_target"}
    script = only(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL))
    assert environment.run("python", "-c", script, folder=folder).strip() in {"triton", "triton-cpu", "torch"}


def test_the_wheel_passes_tests_of_ours(environment: Environment, folder: Path) -> None:
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    files = [
        "tests/kernels/test_adam.py",
        "tests/tuner/schedules/test_schedules.py",
        "tests/bench/spec/test_design.py",
    ]
    summary = environment.run("python", "-m", "pytest", "-q", *files, folder=folder).splitlines()[-1]
    assert re.search(r"\b\d+ passed", summary), summary


def test_the_wheel_trains_where_triton_is_not_installed(
    environment: Environment, wheel: Path, folder: Path
) -> None:
    environment.uninstall("triton")
    try:
        environment.run(
            "bench", "run", "specs/smoke.yaml", "--set", "factors.implementation=[torch]", folder=folder
        )
        records = records_in(folder / "results" / "smoke")
        assert len(records) == 4
        assert {record["status"] for record in records} <= {"ok", "missed_target"}
    finally:
        environment.install(str(wheel))


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = only(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def records_in(runs: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (only(runs.iterdir()) / "records.jsonl").read_text().splitlines()]


def only(found: Iterable[T]) -> T:
    """The one thing there is."""
    (one,) = found
    return one
