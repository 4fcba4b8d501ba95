"""A file of any name beside a spec or in the current directory hides no module of a library or of the suite."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusetune.bench import import_paths
from fusetune.bench.errors import InputError
from fusetune.bench.import_paths import append_folders, hidden_file, leave_out_current_directory, own_folders
from fusetune.bench.workloads.factories import load_factory

ROOT = Path(__file__).parents[2]
# Left out are names that Python imports itself before `python -m` runs anything.
HOSTILE = (
    "torch",
    "json",
    "numpy",
    "click",
    "yaml",
    "optuna",
    "pydantic",
    "__future__",
    "dataclasses",
    "pathlib",
)
# Packages with the names of the checkout's folders. What Python imports first in a process that multiprocessing starts.
HOSTILE_PACKAGES = ("kernels", "tuner", "rich")
STARTED_FIRST = ("multiprocessing",) if sys.version_info >= (3, 11) else ()

SPEC = """\
name: plain
data:  {name: spirals, limit: 120, validation: 60}
model: {name: mlp, width: 8, depth: 1}
train: {optimizer: momentum, base_lr: 0.1, batch_size: 30, epochs: 1, implementation: fused}
threads: 1
"""


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the path, and what the suite knows of it, back afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(import_paths, "_own_folders", [])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_own_folders_come_last_and_in_their_order(tmp_path: Path) -> None:
    before = list(sys.path)
    first, second = str(tmp_path / "b"), str(tmp_path / "a")
    append_folders(first, second, first)
    append_folders(second)
    assert sys.path == [*before, first, second]
    assert own_folders() == (first, second)


def test_the_current_directory_is_left_out_where_python_has_put_it_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rest = ["/elsewhere", str(tmp_path)]
    for first in ("", str(tmp_path), "."):
        monkeypatch.setattr(sys, "path", [first, *rest])
        leave_out_current_directory()
        assert sys.path == rest  # a later entry is a person's wish
    monkeypatch.setattr(sys, "path", ["/elsewhere", str(tmp_path)])
    leave_out_current_directory()
    assert sys.path == rest


def test_the_folder_that_holds_the_suite_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "src")
    monkeypatch.setattr(sys, "path", [str(ROOT / "src"), "/elsewhere"])
    leave_out_current_directory()
    assert sys.path == [str(ROOT / "src"), "/elsewhere"]


@pytest.mark.parametrize(
    ("file", "reference", "other"),
    [
        ("json.py", "json:loads", "json"),
        ("torch/nets.py", "torch.nets:make", "torch"),
        ("fusetune/mine.py", "fusetune.mine:make", "fusetune"),
        ("sys.py", "sys:exit", "Python itself"),
        ("textwrap/__init__.py", "textwrap:dedent", "textwrap.py"),
    ],
)
def test_a_factory_with_a_librarys_name_is_refused_in_one_sentence(
    tmp_path: Path, file: str, reference: str, other: str
) -> None:
    own = tmp_path / file
    own.parent.mkdir(exist_ok=True)
    own.write_text("raise AssertionError('it was run')\n")
    with pytest.raises(InputError) as caught:
        load_factory(reference, "own.yaml:3: data.factory", tmp_path)
    said = str(caught.value)
    assert said.startswith(
        f"own.yaml:3: data.factory: module '{reference.partition(':')[0]}' in {own} has the name"
    )
    assert other in said
    assert said.endswith("Rename yours")
    assert "\n" not in said


def test_a_library_is_a_factory_where_nothing_of_that_name_lies_beside_the_spec(tmp_path: Path) -> None:
    assert load_factory("math:sqrt", "model.factory", tmp_path)(9.0) == 3.0


def test_the_module_beside_the_spec_goes_before_that_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("here", "beside"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "mynets_of_two.py").write_text(f"def where(): return {place!r}\n")
    monkeypatch.chdir(tmp_path / "here")
    assert load_factory("mynets_of_two:where", "model.factory", tmp_path / "beside")() == "beside"
    assert hidden_file("mynets_of_two") is None


def write_hostile_files(folder: Path, told: Path) -> None:
    """Write modules that leave a mark when they are run, and then do nothing good."""
    text = f"open({str(told)!r}, 'a').write(__name__ + '\\n')\nraise SystemExit(77)\n"
    for name in (*HOSTILE, *STARTED_FIRST):
        (folder / f"{name}.py").write_text(text)
    for name in HOSTILE_PACKAGES:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(text)


@pytest.mark.slow
@pytest.mark.parametrize("beside", [True, False])
def test_a_run_amid_hostile_files_runs_none_of_them(tmp_path: Path, beside: bool) -> None:
    here, specs, told = tmp_path / "here", tmp_path / "specs", tmp_path / "told"
    here.mkdir()
    specs.mkdir()
    write_hostile_files(specs if beside else here, told)
    (specs / "plain.yaml").write_text(SPEC)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "fusetune.bench", "run", str(specs / "plain.yaml")],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert not told.exists(), told.read_text()
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_factory_beside_the_spec_brings_no_other_file_into_play(tmp_path: Path) -> None:
    told = tmp_path / "told"
    write_hostile_files(tmp_path, told)
    (tmp_path / "my_net.py").write_text(
        "import json, torch\n"
        "def make(input_shape, num_classes):\n"
        "    return torch.nn.Linear(input_shape[0], num_classes)\n"
    )
    spec = SPEC.replace("{name: mlp, width: 8, depth: 1}", "{factory: 'my_net:make'}")
    (tmp_path / "own.yaml").write_text(spec.replace(", implementation: fused", ""))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "fusetune.bench", "run", "own.yaml"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert not told.exists(), told.read_text()
    assert done.returncode == 0, done.stderr


def test_interpreters_are_started_safely_and_nothing_of_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    before = dict(os.environ)
    with import_paths.safe_path():
        assert os.environ["PYTHONSAFEPATH"] == "1"
        started = dict(os.environ)
    assert dict(os.environ) == before
    monkeypatch.setattr(os, "environ", started)
    import_paths.forget_safe_path()
    assert started == before


def test_a_safe_path_that_a_person_has_asked_for_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "yes")
    with import_paths.safe_path():
        import_paths.forget_safe_path()
    assert os.environ["PYTHONSAFEPATH"] == "yes"
