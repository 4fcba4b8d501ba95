"""A person's own code, for the nodes: the files of the folders in which factories are looked for.

Ray's runtime environment brings one directory to every node, as the current directory of its processes. It has a folder
for each folder of the driver.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from fusetune.bench.errors import InputError

_SUFFIXES = {".py", ".json", ".yaml", ".yml", ".toml", ".txt", ".csv"}
_LEFT_OUT = {"__pycache__", "node_modules", "results", "build", "dist", "venv", "env", "site-packages"}
_MOST_FILES = 2000
_MOST_BYTES = 64 * 2**20


def gather_code(folders: Sequence[str], target: Path) -> tuple[str, ...]:
    """Copy the code of some folders, and return the names of their copies in `target`, in the same order.

    Text files are copied: Python, JSON, YAML, TOML, txt and CSV. Hidden folders, environments and results are not.

    Args:
        folders: absolute.
        target: an empty directory.

    Raises:
        InputError: a folder has more than 2,000 such files, or more than 64 MiB.
    """
    names = []
    for number, folder in enumerate(folders):
        files = _code_of(Path(folder))
        names.append(f"code-{number}")
        for path in files:
            copy = target / names[-1] / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return tuple(names)


def _code_of(folder: Path) -> list[Path]:
    files: list[Path] = []
    total_bytes = 0
    left = [folder]
    while left:
        for entry in sorted(left.pop().iterdir()):
            hidden = entry.name.startswith(".")
            if entry.is_dir():
                if not (
                    hidden or entry.name in _LEFT_OUT or entry.is_symlink() or (entry / "pyvenv.cfg").exists()
                ):
                    left.append(entry)
            elif entry.suffix in _SUFFIXES and not hidden and entry.is_file():
                files.append(entry)
                total_bytes += entry.stat().st_size
        if len(files) > _MOST_FILES or total_bytes > _MOST_BYTES:
            raise InputError(
                f"--executor ray: {folder}",
                "has too much code to send to the nodes",
                f"at most {_MOST_FILES:,} text files and {_MOST_BYTES >> 20} MiB are sent",
                "Put spec and factories into a folder of their own, and start the command there",
            )
    return files
