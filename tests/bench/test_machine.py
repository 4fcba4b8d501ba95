"""Facts about the machine, read from file trees as Docker, systemd and Kubernetes lay them out."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fusetune.bench.machine import (
    container_memory,
    container_memory_limit_bytes,
    cpu_name,
    cpu_quota,
    describe_machine,
    machine_kind,
    memory_bytes,
    nvidia_driver,
    oom_kill_count,
    source_state,
    usable_cores,
    versions,
)

GIB = 2**30


def write_tree(root: Path, files: dict[str, str]) -> Path:
    """Make a file system below `root`."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def version_2(root: Path, **levels: str) -> Path:
    """Lay out a process in /outer/inner of control groups version 2, with memory.max for each level given."""
    names = {"top": "", "outer": "outer/", "inner": "outer/inner/"}
    files = {"proc/self/cgroup": "0::/outer/inner\n", "sys/fs/cgroup/cgroup.controllers": "cpu memory\n"}
    for level, limit in levels.items():
        files[f"sys/fs/cgroup/{names[level]}memory.max"] = limit
    return write_tree(root, files)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ({"inner": f"{2 * GIB}\n", "outer": f"{8 * GIB}\n"}, 2 * GIB),
        ({"inner": f"{8 * GIB}\n", "outer": f"{2 * GIB}\n"}, 2 * GIB),
        ({"inner": "max\n", "outer": "max\n", "top": f"{GIB}\n"}, GIB),
        ({"inner": "max\n", "outer": "max\n"}, None),
        ({}, None),
    ],
)
def test_the_tightest_limit_on_the_way_up_counts(
    tmp_path: Path, levels: dict[str, str], expected: int | None
) -> None:
    assert container_memory_limit_bytes(version_2(tmp_path, **levels)) == expected


def test_a_container_that_sees_its_own_group_as_the_root_is_read_there(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        {
            "proc/self/cgroup": "12:memory:/docker/0123abc\n3:cpu,cpuacct:/docker/0123abc\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{3 * GIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    memory = container_memory(root)
    assert memory is not None
    assert (memory.limit_bytes, memory.in_use_bytes) == (3 * GIB, GIB)
    assert oom_kill_count(root) == 4
    assert cpu_quota(root) == 1.5


def test_version_1_writes_no_limit_as_a_huge_number(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000\n",
        },
    )
    assert container_memory(root) is None


def test_file_pages_that_the_kernel_drops_first_are_not_in_use(tmp_path: Path) -> None:
    root = version_2(tmp_path, inner=f"{4 * GIB}\n")
    group = root / "sys/fs/cgroup/outer/inner"
    (group / "memory.current").write_text(f"{3 * GIB}\n")
    (group / "memory.stat").write_text(f"anon 5\nfile 9\ninactive_file {2 * GIB}\nactive_file 7\n")
    memory = container_memory(root)
    assert memory is not None
    assert memory.in_use_bytes == GIB
    assert memory.available_bytes == 3 * GIB


def test_the_group_with_the_least_room_left_counts_even_if_its_limit_is_not_the_lowest(
    tmp_path: Path,
) -> None:
    root = version_2(tmp_path, inner=f"{2 * GIB}\n", outer=f"{4 * GIB}\n")
    (root / "sys/fs/cgroup/outer/memory.current").write_text(f"{4 * GIB - 100}\n")
    memory = container_memory(root)
    assert memory is not None
    assert memory.available_bytes == 100


def test_kills_are_counted_by_the_innermost_group(tmp_path: Path) -> None:
    root = version_2(tmp_path, inner="max\n")
    (root / "sys/fs/cgroup/outer/inner/memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    (root / "sys/fs/cgroup/outer/memory.events").write_text("oom_kill 9\n")
    assert oom_kill_count(root) == 1


@pytest.mark.parametrize(("text", "expected"), [("250000 100000\n", 2.5), ("max 100000\n", None), ("", None)])
def test_version_2_quota_is_in_cores(tmp_path: Path, text: str, expected: float | None) -> None:
    root = version_2(tmp_path, inner="max\n")
    (root / "sys/fs/cgroup/outer/inner/cpu.max").write_text(text)
    assert cpu_quota(root) == expected


def test_no_quota_of_version_1_is_written_as_minus_one(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "1:cpu:/\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }
    assert cpu_quota(write_tree(tmp_path, files)) is None


def test_a_limit_below_the_machines_memory_is_the_memory(tmp_path: Path) -> None:
    assert memory_bytes(version_2(tmp_path, inner="12345678\n")) == 12345678
    assert memory_bytes(tmp_path / "nowhere") == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_the_processor_is_named_by_its_model_or_else_by_its_architecture(tmp_path: Path) -> None:
    files = {"proc/cpuinfo": "processor\t: 0\nmodel\t\t: 1\nmodel name\t: Example 9000 CPU @ 3 GHz\n"}
    assert cpu_name(write_tree(tmp_path, files)) == "Example 9000 CPU @ 3 GHz"
    assert cpu_name(tmp_path / "nowhere") in {platform.processor(), platform.machine()}


def test_the_nvidia_driver_is_read_from_the_kernel_module(tmp_path: Path) -> None:
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: 12\n"
    assert nvidia_driver(write_tree(tmp_path, {"proc/driver/nvidia/version": text})) == "550.54.15"
    assert nvidia_driver(tmp_path / "nowhere") is None


def test_the_description_is_json_and_does_not_name_the_host() -> None:
    machine = describe_machine("cpu")
    text = json.dumps(machine, allow_nan=False)
    assert socket.gethostname() not in [str(value) for value in machine.values()]
    assert json.loads(text) == machine
    assert machine["cores"] == usable_cores() <= (os.cpu_count() or 1)
    assert machine["memory_bytes"] > 2**27


def test_versions_are_those_that_the_packages_report() -> None:
    import numpy as np
    import torch

    found = versions()
    assert found["numpy"] == np.__version__
    # A build's mark (+cu130) may stand in the module alone.
    assert str(found["torch"]).split("+")[0] == torch.__version__.split("+")[0]
    assert found["python"] == platform.python_version()


def test_asking_about_the_machine_without_a_device_does_not_import_torch() -> None:
    code = (
        "import sys, fusetune.bench.machine as m; m.versions(); m.source_state();"
        " m.container_memory(); m.memory_bytes();"
        "print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def git(directory: Path, *arguments: str) -> str:
    """Run git in `directory`, untouched by the user's configuration."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.org",
    }
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git repository with a tracked package in it."""
    package = tmp_path / "project" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(package.parent, "init", "--quiet")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "--quiet", "-m", "first")
    return package


def test_a_checkout_says_its_commit_and_whether_tracked_files_were_changed(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD").strip()
    (checkout / "notes.txt").write_text("untracked")
    assert source_state(checkout) == {"commit": commit, "dirty": False}
    (checkout / "__init__.py").write_text("changed = True\n")
    assert source_state(checkout) == {"commit": commit, "dirty": True}


def test_a_package_installed_inside_another_projects_checkout_has_no_commit(checkout: Path) -> None:
    installed = checkout.parent / ".venv" / "bench"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert source_state(installed) == {"commit": None, "dirty": None}


def test_a_git_hooks_environment_does_not_lead_to_another_repository(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert source_state(checkout)["commit"] is not None


def test_without_git_the_commit_is_unknown(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert source_state(checkout) == {"commit": None, "dirty": None}


@pytest.mark.parametrize(
    ("device", "cores", "system", "kind"),
    [
        (
            "Intel(R) Xeon(R) Processor @ 2.70GHz",
            8,
            "Linux 6.1.0-13 x86_64",
            "intel-xeon-2.70ghz-8-cores-linux-x86_64",
        ),
        ("Apple M2 Pro", 1, "Darwin 23.1.0 arm64", "apple-m2-pro-1-core-darwin-arm64"),
        ("../..", 2, "Linux 6 x86_64", "2-cores-linux-x86_64"),
        (None, None, None, "unknown-unknown-cores-unknown"),
    ],
)
def test_the_kind_of_a_machine_is_the_name_of_a_folder(
    device: str | None, cores: int | None, system: str | None, kind: str
) -> None:
    assert machine_kind({"device_name": device, "cores": cores, "os": system}) == kind


def test_machines_of_one_kind_differ_in_their_kernels_release_alone() -> None:
    here = {"device_name": "NVIDIA H200", "cores": 16, "os": "Linux 6.1 x86_64"}
    assert machine_kind(here) == machine_kind({**here, "os": "Linux 6.2 x86_64"})
    for other in ({"device_name": "NVIDIA H100"}, {"cores": 8}, {"os": "Linux 6.1 aarch64"}):
        assert machine_kind({**here, **other}) != machine_kind(here)
