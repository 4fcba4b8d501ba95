"""Virtual environments that a test installs packages into, runs programs in and takes packages out of."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
# A compiled torch of the first installation counts, not a network's.
_LIMIT_S = 1800


@dataclass(frozen=True)
class Environment:
    """A virtual environment with this Python's version.

    Args:
        directory: it is made where it is missing, and kept.
    """

    directory: Path

    @classmethod
    def at(cls, directory: Path) -> Environment:
        """Return the environment in a directory. Make it where there is none."""
        environment = cls(directory)
        if not environment.python.exists():
            _run([sys.executable, "-m", "venv", str(directory)], directory.parent)
        return environment

    @property
    def python(self) -> Path:
        return self.directory / "bin" / "python"

    def install(self, *requirements: str) -> None:
        """Install by pip, at the versions of constraints.txt where that names one."""
        self._pip("install", "-c", str(CONSTRAINTS), *requirements)

    def uninstall(self, *names: str) -> None:
        """Uninstall by pip. A name that is not installed is passed over."""
        self._pip("uninstall", "--yes", *names)

    def run(self, *arguments: str, folder: Path) -> str:
        """Run a program of the environment in a folder and return what it prints.

        Args:
            arguments: `python` with its arguments, or a script that a package has installed.
            folder: the current directory; a checkout there could be imported from.
        """
        program, *rest = arguments
        return _run([str(self.directory / "bin" / program), *rest], folder)

    def _pip(self, *arguments: str) -> None:
        command, *rest = arguments
        options = ["--quiet", "--disable-pip-version-check", "--no-input"]
        _run([str(self.python), "-m", "pip", command, *options, *rest], self.directory)


def _run(command: list[str], folder: Path) -> str:
    """Run a command without this process's Python settings. Fail with what it printed."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        command, cwd=folder, env=clean, capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
