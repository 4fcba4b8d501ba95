"""What a checkout needs, by the rules of the files that say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusetune.bench.errors import SetupError
from fusetune.bench.gate.dependencies import Dependencies, installed_here, read_dependencies
from tests.bench.gate.scratch_repository import write

INSTALLED = {"numpy": "2.0", "triton": "3.6", "setuptools": "80"}
PYPROJECT = """
[build-system]
requires = ["setuptools>=77"]
[project]
name = "tiny"
version = "1"
description = "words"
dependencies = ["NumPy>=1.26, <3", "torch"]
[project.optional-dependencies]
gpu = ["triton==3.6"]
docs = ["sphinx>=7"]
[project.scripts]
tiny = "tiny:main"
"""
SETUP = '''
"""A docstring."""
from setuptools import setup
needs = ["numpy>=1"]
setup(name="tiny", version="1", description="words", install_requires=needs)
'''
UV_LOCK = """
version = 1
[[package]]
name = "tiny"
version = "1"
source = { editable = "." }
[[package]]
name = "NumPy"
version = "2.0"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "sphinx"
version = "7"
source = { registry = "https://pypi.org/simple" }
"""


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "base", tmp_path / "head"


def differences(pair: tuple[Path, Path], base: dict[str, str], head: dict[str, str]) -> tuple[str, ...]:
    for folder, files in zip(pair, (base, head), strict=True):
        folder.mkdir()
        write(folder, files)
    return read_dependencies(pair[0]).differs_from(read_dependencies(pair[1]), INSTALLED)


@pytest.mark.parametrize(
    ("file", "text", "old", "new"),
    [
        ("pyproject.toml", PYPROJECT, '"words"', '"other words"  # and a comment'),
        ("pyproject.toml", PYPROJECT, 'version = "1"', 'version = "2"'),
        ("pyproject.toml", PYPROJECT, '["NumPy>=1.26, <3", "torch"]', '["torch", "numpy<3,>=1.26"]'),
        ("pyproject.toml", PYPROJECT, "sphinx>=7", "sphinx>=8"),  # not installed here
        ("requirements.txt", "numpy==2.0\ntorch\n", "numpy==2.0", "# arrays\nnumpy == 2.0  # pinned"),
        ("requirements-docs.txt", "sphinx==7\n", "7", "8"),
        ("setup.py", SETUP, '"words"', '"other words"'),
        ("setup.py", SETUP, 'version="1", description="words"', 'description="words", version="2"'),
        ("setup.py", SETUP, "A docstring.", "Another one."),
        (
            "setup.cfg",
            "[metadata]\ndescription = words\n[options]\ninstall_requires =\n  numpy\n",
            "words",
            "others",
        ),
        ("uv.lock", UV_LOCK, 'name = "tiny"\nversion = "1"', 'name = "tiny"\nversion = "2"'),
        ("uv.lock", UV_LOCK, 'version = "7"', 'version = "8"'),
    ],
)
def test_what_changes_nothing(pair: tuple[Path, Path], file: str, text: str, old: str, new: str) -> None:
    assert old in text
    assert differences(pair, {file: text}, {file: text.replace(old, new)}) == ()


@pytest.mark.parametrize(
    ("file", "text", "old", "new", "said"),
    [
        (
            "pyproject.toml",
            PYPROJECT,
            "1.26",
            "2",
            "pyproject.toml: dependencies (numpy<3,>=1.26 against numpy<3,>=2)",
        ),
        (
            "pyproject.toml",
            PYPROJECT,
            "3.6",
            "3.7",
            "pyproject.toml: optional-dependencies.gpu (triton==3.6 against triton==3.7)",
        ),
        ("pyproject.toml", PYPROJECT, "tiny:main", "tiny:other", "pyproject.toml: project.scripts"),
        (
            "pyproject.toml",
            '[dependency-groups]\ntest = ["numpy<2", {include-group = "x"}]\n',
            "<2",
            "<3",
            "pyproject.toml: dependency-groups.test (numpy<2 against numpy<3)",
        ),
        (
            "pyproject.toml",
            '[tool.poetry.dependencies]\npython = "^3.10"\nnumpy = "^1"\n',
            "^1",
            "^2",
            "pyproject.toml: tool.poetry.dependencies",
        ),
        (
            "pyproject.toml",
            '[tool.uv]\ndev-dependencies = ["triton>3"]\n',
            ">3",
            ">4",
            "pyproject.toml: tool.uv.dev-dependencies (triton>3 against triton>4)",
        ),
        (
            "requirements.txt",
            "torch==2.9\n",
            "2.9",
            "2.10",
            "requirements.txt (torch==2.9 against torch==2.10)",
        ),
        (
            "requirements/gpu.txt",
            "triton==3.5\n",
            "3.5",
            "3.6",
            "requirements/gpu.txt (triton==3.5 against triton==3.6)",
        ),
        ("constraints.txt", "numpy<2\n", "<2", "<3", "constraints.txt (numpy<2 against numpy<3)"),
        ("setup.py", SETUP, "numpy>=1", "numpy>=2", "setup.py"),
        (
            "setup.cfg",
            "[options]\ninstall_requires =\n  numpy\n",
            "numpy",
            "numpy\n  torch",
            "setup.cfg: install_requires (none against torch)",
        ),
        (
            "setup.cfg",
            "[options.extras_require]\nx =\n  numpy<2\n",
            "<2",
            "<3",
            "setup.cfg: extras_require.x (numpy<2 against numpy<3)",
        ),
        ("setup.cfg", "[options.entry_points]\na =\n  b = c:d\n", "c:d", "c:e", "setup.cfg: entry_points"),
        ("uv.lock", UV_LOCK, '"2.0"', '"2.1"', "uv.lock (numpy==2.0 against numpy==2.1)"),
        (
            "Pipfile.lock",
            '{"default": {"numpy": {"version": "==2.0"}}}',
            "2.0",
            "2.1",
            "Pipfile.lock (numpy==2.0 against numpy==2.1)",
        ),
    ],
)
def test_what_makes_a_difference(
    pair: tuple[Path, Path], file: str, text: str, old: str, new: str, said: str
) -> None:
    assert old in text
    assert differences(pair, {file: text}, {file: text.replace(old, new)}) == (said,)


def test_included_files_count_and_circles_end(pair: tuple[Path, Path]) -> None:
    base = {"requirements.txt": "-r deps/prod.txt\n", "deps/prod.txt": "-r ../requirements.txt\ntorch==2.9\n"}
    head = {**base, "deps/prod.txt": "torch==2.10 \\\n  --hash=sha256:00\n"}
    assert differences(pair, base, head) == ("requirements.txt (torch==2.9 against torch==2.10)",)


def test_files_of_dynamic_dependencies_count(pair: tuple[Path, Path]) -> None:
    dynamic = (
        '[build-system]\nrequires = []\n[tool.setuptools.dynamic]\ndependencies = {file = ["needs.in"]}\n'
    )
    base = {"pyproject.toml": dynamic, "needs.in": "torch==2.9\n"}
    said = "pyproject.toml: tool.setuptools.dynamic.dependencies (torch==2.9 against torch==2.10)"
    assert differences(pair, base, {**base, "needs.in": "torch==2.10\n"}) == (said,)


def test_a_package_that_a_lock_holds_in_several_versions_is_left_out(tmp_path: Path) -> None:
    more = '[[package]]\nname = "numpy"\nversion = "1.0"\n'
    write(tmp_path, {"uv.lock": UV_LOCK + more})
    assert read_dependencies(tmp_path).optional["uv.lock"] == {"sphinx==7"}


@pytest.mark.parametrize("place", ["uv.lock", "requirements-gpu.txt"])
def test_pip_is_given_what_the_other_side_lacks(place: str) -> None:
    base = Dependencies(
        optional={place: frozenset({"numpy==1.0", "sphinx==6", "triton==3.6"})}, installable=True
    )
    head = Dependencies(
        optional={place: frozenset({"numpy==2.0", "sphinx==7", "triton==3.6"})}, installable=True
    )
    assert base.lines_beside(head, INSTALLED) == ["numpy==1.0"]
    assert head.lines_beside(base, INSTALLED) == ["numpy==2.0"]


def test_a_checkout_that_is_no_project_gets_its_requirements(tmp_path: Path) -> None:
    write(tmp_path, {"requirements.txt": "numpy==1.0\nsphinx\n"})
    needs = read_dependencies(tmp_path)
    assert not needs.installable
    assert needs.lines_beside(Dependencies(), INSTALLED) == ["numpy==1.0", "sphinx"]


@pytest.mark.parametrize(
    ("files", "compiles"),
    [
        ({"pyproject.toml": PYPROJECT}, False),
        ({"pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "mesonpy"\n'}, True),
        ({"pyproject.toml": '[tool.setuptools]\next-modules = [{name = "x", sources = ["x.c"]}]\n'}, True),
        ({"setup.py": SETUP}, False),
        ({"setup.py": "from torch.utils.cpp_extension import CUDAExtension\nsetup(ext_modules=[])\n"}, True),
        ({}, False),
    ],
)
def test_what_compiles_something(tmp_path: Path, files: dict[str, str], compiles: bool) -> None:
    write(tmp_path, files)
    assert read_dependencies(tmp_path).compiles == compiles


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pyproject.toml", "[project\n"),
        ("pyproject.toml", "\udcff"),
        ("setup.py", "setup(\n"),
        ("setup.cfg", "no section\n"),
        ("uv.lock", "[[package\n"),
        ("Pipfile.lock", "{"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_failed_setup(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SetupError, match=f"{file}: cannot be read;") as error:
        read_dependencies(tmp_path)
    assert "\n" not in str(error.value)


def test_this_interpreter_has_what_pip_lists() -> None:
    assert installed_here()["packaging"]
