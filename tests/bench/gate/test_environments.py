"""Environments of the sides, made by venv and pip themselves. Wheels lie in a folder: no test needs a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from fusetune.bench.errors import SetupError
from fusetune.bench.gate.environments import Environment, make_environments
from fusetune.bench.gate.revisions import checkouts, find_repository, find_revisions
from tests.bench.gate.scratch_repository import clean_environment, commit, make_repository

# A build backend in the project's own folder needs no setuptools. It makes a wheel with a link to `src`.
BACKEND = """
import os, zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name, info = "tiny-1-py3-none-any.whl", "tiny-1.dist-info"
    if os.path.exists("broken"):
        raise RuntimeError("tiny does not build")
    files = {
        "tiny.pth": os.path.abspath("src") + "\\n",
        f"{info}/METADATA": open("METADATA").read(),
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        f"{info}/entry_points.txt": "[tiny.plugins]\\none = tiny:VALUE\\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
    return name
"""
REPORT = """
import importlib.metadata as m, json, sys, tiny
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return None
print(json.dumps([tiny.VALUE, tiny.__file__, version("needed-by-tiny"), version("packaging"), sys.prefix]))
"""


def project(value: int, needs: str, *, more: str = "") -> dict[str, str]:
    """The files of a project named tiny, which needs a package."""
    return {
        "backend.py": BACKEND,
        "METADATA": f"Metadata-Version: 2.1\nName: tiny\nVersion: 1\nRequires-Dist: {needs}\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "tiny"\nversion = "1"\ndependencies = ["{needs}"]\n{more}',
        "src/tiny/__init__.py": f"VALUE = {value}\n",
    }


def wheel(folder: Path, name: str, version: str) -> None:
    """Write a wheel that holds nothing but its name and version."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{info.removesuffix('.dist-info')}-py3-none-any.whl", "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git without this user's settings, and a pip that knows nothing but a folder of wheels."""
    for key in [key for key in os.environ if key.startswith(("GIT_", "PIP_"))]:
        monkeypatch.delenv(key)
    for key, value in clean_environment().items():
        if key.startswith("GIT_"):
            monkeypatch.setenv(key, value)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for version in ("1.0", "2.0"):
        wheel(wheels, "needed-by-tiny", version)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.delenv("PYTHONPATH", raising=False)


def repository_of(folder: Path, base: dict[str, str], head: dict[str, str]) -> Path:
    made = make_repository(folder / "project", base)
    commit(made, head, "the second")
    return made


class Recorder:
    """An installer that installs nothing."""

    def __init__(self, code: int = 0, output: str = "") -> None:
        self.calls: list[tuple[Path, list[str], Path]] = []
        self._answer = code, output

    def __call__(self, python: Path, arguments: Sequence[str], folder: Path) -> tuple[int, str]:
        self.calls.append((python, list(arguments), folder))
        return self._answer


def report(environment: Environment, folder: Path) -> list[str]:
    """Let a side's interpreter say what it imports."""
    done = subprocess.run(
        [str(environment.python), "-c", REPORT],
        cwd=folder,
        env=os.environ | dict(environment.variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def test_the_same_dependencies_share_this_interpreter(tmp_path: Path) -> None:
    made = repository_of(tmp_path, project(1, "packaging"), project(2, "Packaging"))
    repository, installer = find_repository(made), Recorder()
    with checkouts(repository, *find_revisions(repository, "HEAD~1", "HEAD")) as sides:
        both = make_environments(sides, install=installer, cache=tmp_path / "cache")
        assert (both.differs, both.base.kind, both.head.kind) == ((), "shared", "shared")
        assert both.base.python == Path(sys.executable)
        # The project is not installed here, and each side still imports its own.
        for side, environment, value in ((sides.base, both.base, 1), (sides.head, both.head, 2)):
            found = report(environment, tmp_path)
            assert found[:2] == [value, str(side.path / "src" / "tiny" / "__init__.py")]
    assert installer.calls == []
    assert not (tmp_path / "cache").exists()


def searched_first(tmp_path: Path, made: Path) -> list[str]:
    """The folders that head's processes search first, relative to its checkout."""
    repository = find_repository(made)
    with checkouts(repository, *find_revisions(repository, "HEAD~1", "HEAD")) as sides:
        both = make_environments(sides, install=Recorder(), cache=tmp_path / "cache")
        found = both.head.variables.get("PYTHONPATH", "").split(os.pathsep)
        return [str(Path(place).relative_to(sides.head.path)) for place in found if place]


def test_what_this_interpreter_imports_from_the_repository_a_side_imports_from_its_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "lib/tiny/__init__.py": "",
        "python/more/__init__.py": "",
        "env/lib/site-packages/x/__init__.py": "",
    }
    made = repository_of(tmp_path, files, {"README.md": "new"})
    assert searched_first(tmp_path, made) == []
    # By a .pth file, and by the hook of an editable install by setuptools.
    monkeypatch.setattr(sys, "path", [*sys.path, str(made / "lib"), str(made / "env/lib/site-packages")])
    hook = ModuleType("__editable___more_finder")
    hook.MAPPING = {"more": str(made / "python" / "more")}  # type: ignore[attr-defined]
    finder = type("_EditableFinder", (), {"__module__": hook.__name__, "find_spec": lambda *_arguments: None})
    monkeypatch.setitem(sys.modules, hook.__name__, hook)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder])
    monkeypatch.setattr(sys, "prefix", str(made / "env"))
    assert searched_first(tmp_path, made) == ["lib", "python"]


def test_a_project_without_src_is_imported_from_the_top_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = repository_of(
        tmp_path, {"pyproject.toml": '[project]\nname = "tiny"\n', "tiny/__init__.py": ""}, {"a": "b"}
    )
    assert searched_first(tmp_path, made) == []
    info = tmp_path / "installed" / "tiny-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1\n")
    (info / "direct_url.json").write_text(json.dumps({"url": made.as_uri(), "dir_info": {}}))
    monkeypatch.setattr(sys, "path", [*sys.path, str(info.parent)])
    assert searched_first(tmp_path, made) == ["."]


@pytest.mark.slow
def test_different_dependencies_get_environments_of_their_own(tmp_path: Path) -> None:
    made = repository_of(tmp_path, project(1, "needed-by-tiny==1.0"), project(2, "needed-by-tiny==2.0"))
    repository = find_repository(made)
    said: list[str] = []
    with checkouts(repository, *find_revisions(repository, "HEAD~1", "HEAD")) as sides:
        both = make_environments(sides, cache=tmp_path / "cache", announce=said.append)
        place = "pyproject.toml: dependencies (needed-by-tiny==1.0 against needed-by-tiny==2.0)"
        assert (both.differs, both.base.kind, both.head.kind) == ((place,), "own", "own")
        for side, environment, value in ((sides.base, both.base, 1), (sides.head, both.head, 2)):
            found = report(environment, tmp_path)
            assert found[:3] == [value, str(side.path / "src" / "tiny" / "__init__.py"), f"{value}.0"]
            assert found[3] is not None  # what is installed here is seen there
            assert Path(found[4]).is_relative_to(tmp_path / "cache")
    assert len(said) == 2
    # They are kept, and serve other checkouts of the same revisions.
    with checkouts(repository, *find_revisions(repository, "HEAD~1", "HEAD")) as sides:
        installer = Recorder()
        again = make_environments(sides, install=installer, cache=tmp_path / "cache")
        assert installer.calls == []
        assert again.base.python == both.base.python
        assert report(again.base, tmp_path)[:3] == [
            1,
            str(sides.base.path / "src" / "tiny" / "__init__.py"),
            "1.0",
        ]


@pytest.mark.slow
@pytest.mark.parametrize("why", ["broken", "missing"])
def test_a_side_that_does_not_install_is_a_failed_setup(tmp_path: Path, why: str) -> None:
    head = project(2, "needed-by-tiny==2.0" if why == "broken" else "needed-by-tiny==3.0")
    if why == "broken":
        head["broken"] = "yes"
    repository = find_repository(repository_of(tmp_path, project(1, "needed-by-tiny==1.0"), head))
    with (
        pytest.raises(SetupError, match=r"HEAD \([0-9a-f]{12}\): cannot be installed; the last") as error,
        checkouts(repository, *find_revisions(repository, "HEAD~1", "HEAD")) as sides,
    ):
        make_environments(sides, cache=tmp_path / "cache")
    assert error.value.exit_code == 4
    expected = "tiny does not build" if why == "broken" else "needed-by-tiny==3.0"
    assert expected in str(error.value)
    assert not list((tmp_path / "cache").glob("*/complete"))[1:]
    assert not list((repository.git_dir / "fusetune-gate").glob("*/"))


@pytest.mark.slow
def test_setuptools_still_imports_where_environments_were_made(tmp_path: Path) -> None:
    """torch.compile imports setuptools, whose hook on imports gives up once somebody looks for pip."""
    made = repository_of(tmp_path, project(1, "needed-by-tiny==1.0"), project(2, "needed-by-tiny==2.0"))
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from fusetune.bench.gate.environments import make_environments\n"
        "from fusetune.bench.gate.revisions import checkouts, find_repository, find_revisions\n"
        "repository = find_repository(Path(sys.argv[1]))\n"
        "with checkouts(repository, *find_revisions(repository, 'HEAD~1', 'HEAD')) as sides:\n"
        "    make_environments(sides, cache=Path(sys.argv[2]))\n"
        "import setuptools\n"
    )
    subprocess.run([sys.executable, "-c", code, made, tmp_path / "cache"], check=True)


def test_what_pip_is_asked_for(tmp_path: Path) -> None:
    # `packaging` is installed here, so its lines in an extra count; those of a package that is not do not.
    extra = '[project.optional-dependencies]\ngpu = ["packaging<{}", "no-such-package=={}"]\n'
    base, head = (project(value, "packaging", more=extra.format(900 + value, value)) for value in (1, 2))
    repository = find_repository(repository_of(tmp_path, base, head))
    with checkouts(repository, *find_revisions(repository, "HEAD~1", "HEAD")) as sides:
        installer = Recorder()
        both = make_environments(sides, install=installer, cache=tmp_path / "cache")
        assert both.differs == (
            "pyproject.toml: optional-dependencies.gpu (packaging<901 against packaging<902)",
        )
        expected = [
            (environment.python, ["--no-build-isolation", line, "--editable", str(side.path)], side.path)
            for side, environment, line in (
                (sides.base, both.base, "packaging<901"),
                (sides.head, both.head, "packaging<902"),
            )
        ]
        assert installer.calls == expected


def test_options_in_a_requirements_file_are_handed_on(tmp_path: Path) -> None:
    files = [{"requirements.txt": f"--no-index\n-f wheels\nneeded-by-tiny=={value}.0\n"} for value in (1, 2)]
    repository = find_repository(repository_of(tmp_path, *files))
    with checkouts(repository, *find_revisions(repository, "HEAD~1", "HEAD")) as sides:
        installer = Recorder()
        make_environments(sides, install=installer, cache=tmp_path / "cache")
        asked = [arguments for _, arguments, _ in installer.calls]
        options = ["--no-build-isolation", "--no-index", "-f", "wheels"]
        assert asked == [[*options, "needed-by-tiny==1.0"], [*options, "needed-by-tiny==2.0"]]


def test_what_compiles_is_built_beside_its_checkout_each_time(tmp_path: Path) -> None:
    script = "from setuptools import setup, Extension\nsetup(name='tiny', ext_modules=[])\n"
    made = repository_of(tmp_path, {"setup.py": script, "a.c": "1"}, {"a.c": "2"})
    repository = find_repository(made)
    with checkouts(repository, *find_revisions(repository, "HEAD~1", "HEAD")) as sides:
        installer = Recorder()
        both = make_environments(sides, install=installer, cache=tmp_path / "cache")
        assert both.differs == ("an installation that compiles",)
        assert [call[2] for call in installer.calls] == [sides.base.path, sides.head.path]
        assert both.base.python.is_relative_to(sides.folder)
        folder = sides.folder
    assert not folder.exists()
    assert not (tmp_path / "cache").exists()


def test_a_failed_installation_is_tried_again(tmp_path: Path) -> None:
    made = repository_of(tmp_path, project(1, "needed-by-tiny==1.0"), project(2, "needed-by-tiny==2.0"))
    repository = find_repository(made)
    for _ in range(2):
        failing = Recorder(1, "\n".join(f"line {number}" for number in range(99)))
        with (
            pytest.raises(SetupError, match=r"said:\n  line 91\n(  line \d\d\n)+  line 98$"),
            checkouts(repository, *find_revisions(repository, "HEAD~1", "HEAD")) as sides,
        ):
            make_environments(sides, install=failing, cache=tmp_path / "cache")
        assert len(failing.calls) == 1


def test_environments_that_nobody_used_for_a_month_are_removed(tmp_path: Path) -> None:
    made = repository_of(tmp_path, project(1, "needed-by-tiny==1.0"), project(2, "needed-by-tiny==2.0"))
    repository, cache = find_repository(made), tmp_path / "cache"
    for name, age in (("old", 0), ("recent", None)):
        (cache / name).mkdir(parents=True)
        (cache / name / "complete").touch()
        if age is not None:
            os.utime(cache / name / "complete", (age, age))
    with checkouts(repository, *find_revisions(repository, "HEAD~1", "HEAD")) as sides:
        make_environments(sides, install=Recorder(), cache=cache)
    assert not (cache / "old").exists()
    assert (cache / "recent").exists()


def test_a_package_from_elsewhere_stops_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import hook that goes before the path would have both sides measure the same code."""
    elsewhere = tmp_path / "elsewhere"
    hook = (
        "import importlib.util, sys\n"
        "class Finder:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == 'tiny':\n"
        f"            return importlib.util.spec_from_file_location(name, {str(elsewhere / 'tiny.py')!r})\n"
        "sys.meta_path.insert(0, Finder)\n"
    )
    elsewhere.mkdir()
    (elsewhere / "sitecustomize.py").write_text(hook)
    (elsewhere / "tiny.py").write_text("VALUE = 3\n")
    monkeypatch.setenv("PYTHONPATH", str(elsewhere))
    repository = find_repository(repository_of(tmp_path, project(1, "packaging"), project(2, "packaging")))
    with (
        pytest.raises(SetupError, match=r"'tiny' would be imported from .*elsewhere/tiny\.py"),
        checkouts(repository, *find_revisions(repository, "HEAD~1", "HEAD")) as sides,
    ):
        make_environments(sides)
