"""What this machine is: processor, memory, the container's limits, versions and the state of the source.

Nothing here imports torch before a function that needs it is called. The host's name is left out on purpose:
records are meant to be shared.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

_ROOT = Path("/")
# Version 1 control groups write "no limit" as the largest multiple of the page size below 2**63.
_NO_LIMIT_BYTES = 2**60
_GIT_TIMEOUT_S = 10
# What says nothing in the name of a processor.
_WITHOUT_MEANING = re.compile(
    r"\((?:r|tm|c)\)|\b(?:cpu|processor|\d+-core|with radeon graphics)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class ContainerMemory:
    """The tightest memory limit that the container (or any control group around it) sets.

    Args:
        limit_bytes: the limit of that control group.
        in_use_bytes: what its processes hold; file pages that the kernel drops first are not counted.
    """

    limit_bytes: int
    in_use_bytes: int

    @property
    def available_bytes(self) -> int:
        """Bytes that can still be taken."""
        return max(0, self.limit_bytes - self.in_use_bytes)


@dataclass(frozen=True)
class _MemoryFiles:
    """Names of one control group version's files and of the fields inside them."""

    limit: str
    usage: str
    droppable: str
    kills: str


_MEMORY_FILES = (
    _MemoryFiles("memory.max", "memory.current", "inactive_file", "memory.events"),
    _MemoryFiles(
        "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "memory.oom_control"
    ),
)


def container_memory(root: Path = _ROOT) -> ContainerMemory | None:
    """Return the memory limit with the least room left among this process's control groups, or None.

    Both versions of control groups are read. Limits add up along the path, so each level up to the root counts.

    Args:
        root: the root of the file system.

    Example:
        >>> container_memory(Path("/nowhere")) is None
        True
    """
    found = [
        memory
        for group in _control_groups("memory", root)
        for files in _MEMORY_FILES
        if (memory := _group_memory(group, files)) is not None
    ]
    return min(found, key=lambda memory: memory.available_bytes, default=None)


def container_memory_limit_bytes(root: Path = _ROOT) -> int | None:
    """Return the container's tightest memory limit in bytes, or None where there is none."""
    memory = container_memory(root)
    return memory.limit_bytes if memory else None


def oom_kill_count(root: Path = _ROOT) -> int | None:
    """Return how many processes the kernel has killed for memory; None where it does not say.

    Those of this control group, or of the machine where the group has no count.
    """
    for group in _control_groups("memory", root):
        for files in _MEMORY_FILES:
            count = _field(group / files.kills, "oom_kill")
            if count is not None:
                return count
    return _field(root / "proc/vmstat", "oom_kill")


def usable_cores() -> int:
    """Return the number of cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(root: Path = _ROOT) -> float | None:
    """Return the container's processor quota in cores (1.5: one and a half), or None where there is none."""
    quotas = [quota for group in _control_groups("cpu", root) if (quota := _group_quota(group)) is not None]
    return min(quotas, default=None)


def memory_bytes(root: Path = _ROOT) -> int:
    """Return the memory that can be used: the machine's, or the container's limit where that is less."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = container_memory_limit_bytes(root)
    return physical if limit is None else min(physical, limit)


def cpu_name(root: Path = _ROOT) -> str:
    """Return the processor's model name, or its architecture where the system does not name it."""
    match = re.search(r"^model name\s*:\s*(.+)$", _read(root / "proc/cpuinfo") or "", re.MULTILINE)
    return match.group(1).strip() if match else platform.processor() or platform.machine()


def describe_machine(device: str) -> dict[str, Any]:
    """Return what the numbers of a run depend on, as a JSON object. Imports torch.

    Args:
        device: `cpu`, `cuda` or `cuda:<index>`.

    Example:
        >>> machine = describe_machine("cpu")
        >>> machine["device"], machine["cores"] >= 1, "hostname" in machine
        ('cpu', True, False)
    """
    import torch

    machine: dict[str, Any] = {
        "device": torch.device(device).type,
        "device_name": cpu_name(),
        "cpu": cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": usable_cores(),
        "cpu_quota": cpu_quota(),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory_bytes(),
        "container_memory_bytes": container_memory_limit_bytes(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    if torch.device(device).type == "cuda":
        machine |= _describe_cuda(device)
    return machine


def _describe_cuda(device: str) -> dict[str, Any]:
    """Return the facts about a CUDA device."""
    import torch

    properties = torch.cuda.get_device_properties(device)
    return {
        "device_name": properties.name,
        "device_memory_bytes": properties.total_memory,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": nvidia_driver(),
    }


def machine_kind(machine: Mapping[str, Any]) -> str:
    """Return a short readable name of a machine's kind: device, cores, system and architecture.

    Two machines of one kind run the same code about equally fast. The name is one of a folder: lower-case letters,
    digits, `.`, `_` and `-`.

    Args:
        machine: from `describe_machine`, or from a run.json. What is missing is called `unknown`.

    Example:
        >>> machine_kind({"device_name": "AMD EPYC 9554 64-Core Processor", "cores": 2, "os": "Linux 6.1.0 x86_64"})
        'amd-epyc-9554-2-cores-linux-x86_64'
        >>> machine_kind({"device_name": "NVIDIA H200", "cores": 16, "os": "Linux 5.15 x86_64"})
        'nvidia-h200-16-cores-linux-x86_64'
    """
    device = _WITHOUT_MEANING.sub(" ", str(machine.get("device_name") or "unknown"))
    words = str(machine.get("os") or "unknown").split()
    system = (
        words if len(words) < 3 else [words[0], words[-1]]
    )  # the kernel's release changes with every update
    cores = machine.get("cores")
    parts = [device, f"{cores or 'unknown'} core{'' if cores == 1 else 's'}", *system]
    return re.sub(r"[^a-z0-9._]+", "-", " ".join(parts).lower()).strip("-.")


def nvidia_driver(root: Path = _ROOT) -> str | None:
    """Return the version of the NVIDIA kernel driver, or None where there is none."""
    match = re.search(r"\b\d{3}\.\d+(?:\.\d+)?\b", _read(root / "proc/driver/nvidia/version") or "")
    return match.group() if match else None


def versions() -> dict[str, str | None]:
    """Return the versions that the numbers depend on, read from package metadata; None for what is not installed.

    Example:
        >>> sorted(versions())
        ['fusetune', 'numpy', 'python', 'torch', 'triton']
    """
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("torch", "triton", "numpy", "fusetune"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def source_state(package: Path = Path(__file__).parent) -> dict[str, Any]:
    """Return the commit of the code that runs and whether tracked files differ from it.

    Both are None where `package` is not tracked by git: an installed copy may lie inside a checkout of something
    else, whose commit says nothing about it.

    Args:
        package: the directory of the package; it holds an `__init__.py`.
    """
    unknown: dict[str, Any] = {"commit": None, "dirty": None}
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return unknown
    commit = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changes is None:
        return unknown
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def _git(directory: Path, *arguments: str) -> str | None:
    """Run git in `directory` and return what it prints, or None when it fails or is not installed."""
    # A git hook sets GIT_DIR and friends, which would point git at another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, env=environment, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _control_groups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the directories of this process's control groups for `controller`, innermost first."""
    mounts = root / "sys/fs/cgroup"
    unified = mounts if (mounts / "cgroup.controllers").exists() else mounts / "unified"
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount = unified
        elif controller in controllers.split(","):
            mount = mounts / controller
        else:
            continue
        # A container often sees its own group as the mount itself while the path is the host's: missing levels
        # are passed over, the mount is always looked at.
        group = mount / path.lstrip("/")
        for directory in (group, *group.parents):
            if directory.is_dir() and directory.is_relative_to(mount):
                yield directory
            if directory == mount:
                break


def _group_memory(group: Path, files: _MemoryFiles) -> ContainerMemory | None:
    """Read one control group's memory limit and use; None when it sets no limit."""
    limit = _number(group / files.limit)
    if limit is None or limit >= _NO_LIMIT_BYTES:
        return None
    usage = _number(group / files.usage) or 0
    droppable = _field(group / "memory.stat", files.droppable) or 0
    return ContainerMemory(limit, max(0, usage - droppable))


def _group_quota(group: Path) -> float | None:
    """Read one control group's processor quota in cores; None when it sets none."""
    quota, _, period = (_read(group / "cpu.max") or "").strip().partition(" ")
    if not quota:
        quota = (_read(group / "cpu.cfs_quota_us") or "").strip()
        period = (_read(group / "cpu.cfs_period_us") or "").strip()
    if not quota.isdigit() or not period.isdigit():
        return None
    return int(quota) / int(period)


def _field(path: Path, name: str) -> int | None:
    """Read the number after `name` in a file of `name number` lines."""
    match = re.search(rf"^{name} (\d+)$", _read(path) or "", re.MULTILINE)
    return int(match.group(1)) if match else None


def _number(path: Path) -> int | None:
    """Read a file that holds one number; None when it is missing or holds a word such as `max`."""
    text = (_read(path) or "").strip()
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str | None:
    """Return the text of a file of the kernel, or None when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
