"""What can be found out about a repository, so that nobody has to be asked for it."""

from __future__ import annotations

import json
import platform
import re
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import yaml

from fusetune.bench.errors import InputError
from fusetune.bench.gate import Repository, find_repository, read_dependencies, run_git
from fusetune.bench.machine import nvidia_driver
from fusetune.bench.path_checks import is_folder

SPEC_KEYS = {"name", "data", "model", "train"}
_LARGEST_SPEC_BYTES = 2**20
_PYTHON = re.compile(r"3\.\d+")
_HOME_PAGE = "https://github.com/fusetune/fusetune"
_OURS = "fusetune"


@dataclass(frozen=True)
class Findings:
    """What is known of a repository.

    Args:
        repository: where it is.
        project: folder of the project, relative to the repository's root.
        package: its name. Of a folder without one, the folder's.
        installation: what `pip install` is given for it, from the repository's root. Empty: nothing has to be.
        python: version for the workflow, such as `3.12`.
        branch: the default branch.
        specs: every spec in the repository, relative to its root, the one to gate first.
        gpu: what says that there is one here. Empty: there is none.
        results_ignored: whether git ignores the runs in `results/`.
        fusetune: what `pip install` is given for fusetune itself.
    """

    repository: Repository
    project: Path
    package: str
    installation: str
    python: str
    branch: str
    specs: tuple[Path, ...] = field(default=())
    gpu: str = ""
    results_ignored: bool = False
    fusetune: str = _OURS


def find_out(folder: Path) -> Findings:
    """Look at a repository and at this machine. Nothing is written, and nothing is imported from it.

    Args:
        folder: of the project: the top of its repository, or a folder in it.

    Raises:
        InputError: it is no folder, or in no repository.
        SetupError: its pyproject.toml, or another file that says what it needs, cannot be read.
    """
    if not is_folder(folder):
        raise InputError(folder, "is no folder", to_do="Name the folder of a project that git holds.")
    repository = find_repository(folder)
    project = repository.relative(folder.resolve())
    needs = read_dependencies(folder)
    name = needs.name or folder.resolve().name
    return Findings(
        repository,
        project,
        name,
        _installation(folder, project, installable=needs.installable),
        _python(folder),
        _default_branch(repository),
        _specs(repository, project),
        _gpu(),
        run_git(repository.root, "check-ignore", "--quiet", "results/gate/x").code == 0,
        "" if name == _OURS else _fusetune(),
    )


def _installation(folder: Path, project: Path, *, installable: bool) -> str:
    where = project.as_posix()
    if installable:
        return f"-e {'.' if where == '.' else f'./{where}'}"
    if (folder / "requirements.txt").is_file():
        return f"-r {(project / 'requirements.txt').as_posix()}"
    return ""


def _python(folder: Path) -> str:
    """Return the version of `.python-version`, or of this interpreter: the project is used with it here."""
    named = folder / ".python-version"
    found = _PYTHON.search(named.read_text("utf-8", "replace")) if named.is_file() else None
    return found[0] if found else ".".join(platform.python_version_tuple()[:2])


def _default_branch(repository: Repository) -> str:
    """Return the default branch of the remote, else one with a usual name, else the current one."""
    remote = run_git(repository.root, "symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD")
    if remote.code == 0:
        return remote.text.strip().removeprefix("origin/")
    listed = run_git(repository.root, "for-each-ref", "--format=%(refname:short)", "refs/heads").text.split()
    current = run_git(repository.root, "symbolic-ref", "--quiet", "--short", "HEAD").text.strip()
    usual = next((name for name in ("main", "master", "trunk") if name in listed), "")
    return usual or current or "main"


def _specs(repository: Repository, project: Path) -> tuple[Path, ...]:
    """Return the specs that git holds or would hold. First those with a `gate` section, and in the project."""
    patterns = ("*.yaml", "*.yml")
    listed = run_git(
        repository.root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns
    )
    found = []
    for name in sorted(filter(None, listed.text.split("\0"))):
        content = read_mapping(repository.root / name)
        if content.keys() >= SPEC_KEYS:
            path = Path(name)
            found.append(
                ("gate" not in content, not path.is_relative_to(project), len(path.parts), name, path)
            )
    return tuple(path for *_, path in sorted(found))


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the top level of a YAML file. Nothing where it holds something else, or cannot be read."""
    try:
        if path.is_symlink() or path.stat().st_size > _LARGEST_SPEC_BYTES:
            return {}
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}


def _gpu(root: Path = Path("/")) -> str:
    driver = nvidia_driver(root)
    if driver is not None:
        return f"NVIDIA, driver {driver}"
    return "AMD" if (root / "dev" / "kfd").exists() else ""


def _fusetune() -> str:
    """Return what pip is given to install the fusetune that runs here: its release, or the commit of its repository."""
    try:
        distribution = metadata.distribution(_OURS)
        origin = json.loads(distribution.read_text("direct_url.json") or "null")
    except (metadata.PackageNotFoundError, ValueError):
        origin = {}
    if origin is None:
        return f"{_OURS}=={distribution.version}"
    commit = origin.get("vcs_info", {}).get("commit_id")
    if commit and urlparse(origin["url"]).scheme in ("https", "ssh"):
        return f"{_OURS} @ git+{origin['url']}@{commit}"
    return f"{_OURS} @ git+{_HOME_PAGE}"
