"""Where fusetune comes from, and what releases before it had one import name left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import fusetune
from fusetune.bench.doctor.checks import check_installation, diagnose
from fusetune.bench.doctor.installation import imported_from, remains_of_older

ROOT = Path(__file__).parents[3]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that imports look in first."""
    monkeypatch.syspath_prepend(str(tmp_path))
    # A module that was imported already would be found in its place.
    for name in ("kernels", "tuner", "bench"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def write(folder: Path, *files: str) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("raise AssertionError('it is imported')\n")


def test_fusetune_comes_from_this_checkout_and_nothing_older_is_there() -> None:
    assert imported_from() == Path(fusetune.__file__).parent == ROOT / "src" / "fusetune"
    own = {name: [str(ROOT / name)] for name in ("kernels", "tuner", "bench")}
    assert remains_of_older(own) == []


def test_packages_of_an_older_fusetune_are_found_and_not_imported(packages: Path) -> None:
    write(
        packages,
        "kernels/__init__.py",
        "kernels/triton_inside.py",
        "bench/__init__.py",
        "bench/yaml_source.py",
    )
    assert remains_of_older() == [packages / "kernels", packages / "bench"]
    assert "kernels" not in sys.modules


def test_what_is_left_among_another_librarys_files_is_found(packages: Path) -> None:
    write(packages, "kernels/__init__.py", "kernels/hf_hub.py")
    assert packages / "kernels" not in remains_of_older()
    write(packages, "kernels/triton_inside.py")
    assert packages / "kernels" in remains_of_older()


def test_a_folder_without_init_is_found_too(packages: Path) -> None:
    write(packages, "tuner/schedule_functions.py")
    assert remains_of_older({"tuner": [str(packages / "tuner")]}) == [packages / "tuner"]


def test_doctor_says_where_fusetune_is_and_what_is_in_the_way(packages: Path) -> None:
    write(packages, "tuner/__init__.py", "tuner/schedule_functions.py")
    check = next(check for check in diagnose(packages) if check.name == "fusetune")
    assert check.state == "note"
    assert f"imported from {imported_from()}" in check.detail
    assert check.detail.endswith(str(packages / "tuner"))
    assert "pip uninstall fusetune" in check.what_to_do
    assert check_installation("0.1.0", imported_from(), []).state == "ok"
