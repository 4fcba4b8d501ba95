"""A container that runs under any user id: HOME is not set, and the system knows neither the user's name nor home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT

# Python imports this before anything else: the password file has no line for this user.
UNKNOWN_USER = """
import pwd

def unknown(who):
    raise KeyError(f"getpwuid(): uid not found: {who}")

pwd.getpwuid = pwd.getpwnam = unknown
"""
SPEC = """\
name: tiny
device: cpu
threads: 1
data:   {name: spirals, limit: 200, validation: 50}
model:  {name: mlp, width: 8, depth: 1}
train:  {optimizer: adam, base_lr: 0.02, batch_size: 50, epochs: 1}
target: {metric: val_accuracy, at_least: 0.01}
"""
NAMES_AND_HOMES = (
    "HOME",
    "USER",
    "LOGNAME",
    "LNAME",
    "USERNAME",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "BENCH_DATA",
)
CACHES = ("TRITON_CACHE_DIR", "TRITON_HOME", "TORCHINDUCTOR_CACHE_DIR", "MPLCONFIGDIR")


def bench(directory: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command for a user without name and home."""
    site = directory / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(UNKNOWN_USER)
    (directory / "tmp").mkdir(exist_ok=True)
    (directory / "work").mkdir(exist_ok=True)
    (directory / "work" / "tiny.yaml").write_text(SPEC)
    kept = {key: value for key, value in os.environ.items() if key not in (*NAMES_AND_HOMES, *CACHES)}
    done = subprocess.run(
        [sys.executable, "-m", "fusetune.bench", *arguments],
        cwd=directory / "work",
        env={
            **kept,
            "PYTHONPATH": f"{site}{os.pathsep}{ROOT / 'src'}",
            "TMPDIR": str(directory / "tmp"),
            "http_proxy": "http://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
            "NO_COLOR": "1",
            "COLUMNS": "200",
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == code, done.stdout + done.stderr
    assert not list(directory.rglob("~*"))  # a home that is taken literally
    return done


def test_a_run_and_its_report(tmp_path: Path) -> None:
    assert bench(tmp_path, "run", "tiny.yaml").stderr == ""
    (run,) = (tmp_path / "work/results/tiny").iterdir()
    assert bench(tmp_path, "report", str(run)).stderr == ""
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["results", "tiny.yaml"]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_doctor_says_that_there_is_no_home(tmp_path: Path) -> None:
    said = " ".join(bench(tmp_path, "doctor").stdout.split())
    assert "HOME is not set and the system knows no home of this user" in said
    assert "Name a directory for downloads in BENCH_DATA" in said


@pytest.mark.parametrize("arguments", [("list",), ("schema",), ("--help",)])
def test_commands_that_train_nothing(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert bench(tmp_path, *arguments).stderr == ""


def test_a_data_set_that_would_have_to_be_kept(tmp_path: Path) -> None:
    cifar = ("--set", "data={name: cifar10, limit: 200, validation: 50}", "--set", "model.name=mlp")
    said = bench(tmp_path, "run", "tiny.yaml", *cifar, code=2).stderr
    assert (
        "there is no directory to put it in, as HOME is not set and the system knows no home of this user"
        in said
    )
    bench(tmp_path, "run", "tiny.yaml", *cifar, "--set", "data.stand_in=cifar10-like")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["train.compile=true", "train.implementation=fused"])
def test_what_is_compiled_is_kept_in_a_temporary_directory(how: str, tmp_path: Path) -> None:
    bench(tmp_path, "run", "tiny.yaml", "--set", how)
    assert list((tmp_path / "tmp").glob("fusetune-*")) == []
    for directory in (tmp_path / "tmp").glob("torchinductor*"):
        assert directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
def test_a_range_test_with_its_picture(tmp_path: Path) -> None:
    bench(tmp_path, "lr-range", "tiny.yaml")
