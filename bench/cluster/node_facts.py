"""What a node says of itself. Sent to nodes by value, so it imports the standard library alone.

A node without this project can still answer, and its answer then says that it lacks it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
from importlib import metadata, util
from pathlib import Path
from typing import Any

_LIBRARIES = ("torch", "triton", "numpy", "fusetune")
_TIMEOUT_S = 30
# How often Ray looks at the memory, in ms. 0: never.
_MONITOR = "RAY_memory_monitor_refresh_ms"


def node_facts() -> dict[str, Any]:
    """Return versions, source hash, processor, cores, GPUs and settings of the node that this runs on."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _LIBRARIES}},
        "source": source_hash(),
        "processor": _processor(),
        "cores": _cores(),
        "gpus": _gpus(),
        "memory_monitor": os.environ.get(_MONITOR) != "0",
    }


def source_hash() -> str | None:
    """Return a hash of this project's installed Python files. None: it is not installed."""
    found = util.find_spec("fusetune")
    if found is None or not found.submodule_search_locations:
        return None
    root = Path(next(iter(found.submodule_search_locations)))
    digest = hashlib.sha256()
    # Links are followed: an editable install has links to the folders of the checkout.
    files = sorted(
        (os.path.relpath(Path(folder, name), root), Path(folder, name))
        for folder, _, names in os.walk(root, followlinks=True)
        for name in names
        if name.endswith(".py")
    )
    for name, path in files:
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1).strip() if match else platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[dict[str, str]]:
    """Return index, UUID and name of each GPU that the driver knows. Empty where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [line.split(", ", 2) for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return [{"index": row[0], "uuid": row[1], "name": row[2]} for row in rows if len(row) == 3]
