"""Where each side runs: in this interpreter, or in a virtual environment of its own where its dependencies differ.

An own environment sees the packages of this interpreter. pip installs over them what the side needs otherwise, so a
change of one package neither downloads nor changes the others. Environments are kept in the user's cache, by what they
hold. One whose installation compiles something is made anew for each gate, beside its checkout.

Either way a side imports the project from its own checkout, though this interpreter may have it from elsewhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlparse

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from fusetune.bench.errors import SetupError
from fusetune.bench.gate.dependencies import Dependencies, installed_here, read_dependencies
from fusetune.bench.gate.revisions import Checkout, Checkouts
from fusetune.bench.user_cache import user_cache
from fusetune.bench.workers import running_program

# pip's exit code and all that it printed.
Installer = Callable[[Path, Sequence[str], Path], tuple[int, str]]

_COMPLETE = "complete"
_OVERLAY = "zz_fusetune_gate.pth"
_KEPT_FOR_S = 30 * 24 * 3600
_LINES_SHOWN = 8
# Prints where modules would be imported from. The current directory is no place that an installed project has.
_ORIGINS = (
    "import sys, json; from importlib.util import find_spec; sys.path = [each for each in sys.path if each]; "
    "print(json.dumps({name: getattr(find_spec(name), 'origin', None) for name in sys.argv[1:]}))"
)
_SITE_FOLDERS = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Environment:
    """What the processes of one side are started with.

    Args:
        python: the interpreter.
        kind: `shared`: this process's own. `own`: a virtual environment.
        variables: environment variables that they need besides those of this process.
    """

    python: Path
    kind: Literal["shared", "own"] = "shared"
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Environments:
    """Both sides' environments.

    Args:
        base, head: what to start processes with.
        differs: the places where their dependencies differ. Empty where they share an environment.
    """

    base: Environment
    head: Environment
    differs: tuple[str, ...] = ()


def pip_install(python: Path, arguments: Sequence[str], folder: Path) -> tuple[int, str]:
    """Run `pip install` of an environment and return its exit code and output. All that it starts ends with the gate.

    Args:
        python: the environment's interpreter.
        arguments: what follows `pip install`.
        folder: where relative paths begin.
    """
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", *arguments]
    with running_program(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        output, _ = process.communicate()
    return process.returncode, output.decode(errors="replace")


def make_environments(
    sides: Checkouts,
    *,
    install: Installer = pip_install,
    cache: Path | None = None,
    announce: Callable[[str], object] = lambda text: None,
) -> Environments:
    """Return what to start each side's processes with. Where the dependencies differ, both sides get environments.

    Args:
        sides: both checkouts.
        install: runs pip.
        cache: the folder for environments. None: `gate/environments` in the user's cache, see `user_cache`.
        announce: called with a sentence before something that takes long.

    Raises:
        SetupError: a side cannot be installed. The message has pip's last lines.

    Example:
        environments = make_environments(sides)
        side = environments.head
        subprocess.run([side.python, "-m", "pytest"], cwd=sides.head.path, env=os.environ | dict(side.variables))
    """
    base, head = (read_dependencies(side.path) for side in (sides.base, sides.head))
    installed = installed_here()
    differs = base.differs_from(head, installed)
    if base.compiles or head.compiles:
        differs = (*differs, "an installation that compiles")
    if not differs:
        shared = [
            Environment(Path(sys.executable), "shared", _variables(sides, side, needs, None))
            for side, needs in ((sides.base, base), (sides.head, head))
        ]
        return _checked(sides, Environments(shared[0], shared[1]))
    home = user_cache()
    store = cache or (home / "gate" / "environments" if home else sides.folder / "environments")
    made = []
    for side, needs, other in ((sides.base, base, head), (sides.head, head, base)):
        lines = needs.lines_beside(other, installed)
        if needs.compiles:
            announce(f"Building {side.revision.name} in an environment of its own.")
            folder = sides.folder / f"environment-{side.path.name}"
            _make(folder, sides, side, needs, lines, install)
        else:
            folder = _kept(store, sides, side, needs, lines, install, announce)
        variables = _variables(sides, side, needs, folder)
        made.append(Environment(folder / "bin" / "python", "own", variables))
    return _checked(sides, Environments(made[0], made[1], differs))


def _kept(
    store: Path,
    sides: Checkouts,
    side: Checkout,
    needs: Dependencies,
    lines: Sequence[str],
    install: Installer,
    announce: Callable[[str], object],
) -> Path:
    """Return an environment of the cache, made where there is none yet."""
    folder = store / _key(needs, lines)
    try:
        store.mkdir(parents=True, exist_ok=True)
        with _only_one(folder.with_suffix(".lock")):
            if not (folder / _COMPLETE).exists():
                announce(f"Installing {side.revision.name} into an environment of its own, which is kept.")
                _remove_old(store)
                _make(folder, sides, side, needs, lines, install)
            (folder / _COMPLETE).touch()
    except OSError as error:
        raise SetupError(folder, "cannot be made", str(error.strerror or error)) from error
    return folder


def _make(
    folder: Path,
    sides: Checkouts,
    side: Checkout,
    needs: Dependencies,
    lines: Sequence[str],
    install: Installer,
) -> None:
    """Make an environment over this interpreter's packages, and install a side into it."""
    shutil.rmtree(folder, ignore_errors=True)
    # By the path alone: setuptools' hook in sys.meta_path gives its distutils up for good once pip is asked for.
    bare = ["--without-pip"] if PathFinder.find_spec("pip") else []
    made = subprocess.run(
        [sys.executable, "-m", "venv", *bare, str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if made.returncode:
        raise _failed(side, "has no environment", made.stdout.decode(errors="replace"))
    python = folder / "bin" / "python"
    own = next(folder.glob("lib/python*/site-packages"))
    (own / _OVERLAY).write_text(
        "".join(f"{line}\n" for line in _overlay(sides.repository.root)), encoding="utf-8"
    )
    arguments = [*(["--no-build-isolation"] if _can_build(needs) else [])]
    for line in lines:
        arguments += shlex.split(line) if line.startswith("-") else [line]
    if needs.installable:
        arguments += ["--editable", str(side.path)]
    if needs.installable or lines:
        code, output = install(python, arguments, side.path)
        if code:
            shutil.rmtree(folder, ignore_errors=True)
            raise _failed(side, "cannot be installed", output)


def _failed(side: Checkout, what: str, output: str) -> SetupError:
    lines = [line.rstrip() for line in output.splitlines() if line.strip()][-_LINES_SHOWN:]
    said = "".join(f"\n  {line}" for line in lines) or " nothing"
    return SetupError(
        f"{side.revision.name} ({side.revision.commit[:12]})", what, f"the last that was said:{said}"
    )


def _overlay(root: Path) -> Iterator[str]:
    """Yield the lines of a .pth file that shows this interpreter's packages, but for what the repository put there."""
    links = set(_links_into(root))
    for folder in _site_folders():
        yield str(folder)
        for link in sorted(folder.glob("*.pth")):
            if link not in links and link.name != _OVERLAY:
                yield f"import site; site.addpackage({str(folder)!r}, {link.name!r}, None)"


def _site_folders() -> list[Path]:
    """Return the folders of installed packages, in the order in which this interpreter searches them."""
    found = [Path(entry) for entry in sys.path if Path(entry).name in _SITE_FOLDERS and Path(entry).is_dir()]
    return list(dict.fromkeys(found))


def _links_into(root: Path) -> Iterator[Path]:
    """Yield the .pth files of distributions that are installed from the repository itself."""
    for distribution in _distributions_from(root):
        for file in distribution.files or ():
            if file.suffix == ".pth":
                yield Path(str(distribution.locate_file(file)))


def _distributions_from(root: Path) -> Iterator[metadata.Distribution]:
    """Yield the distributions that pip installed from a folder in the repository."""
    for distribution in metadata.distributions():
        with suppress(ValueError, KeyError, TypeError):
            address = urlparse(json.loads(distribution.read_text("direct_url.json") or "{}")["url"])
            if address.scheme == "file" and Path(unquote(address.path)).resolve().is_relative_to(root):
                yield distribution


def _can_build(needs: Dependencies) -> bool:
    """Whether all that a build needs is installed here, so that pip has nothing to fetch for it."""
    installed = installed_here()
    for line in needs.build_requires:
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            return False
        version = installed.get(canonicalize_name(wanted.name))
        applies = wanted.marker is None or wanted.marker.evaluate()
        if applies and (version is None or not wanted.specifier.contains(version, prereleases=True)):
            return False
    return True


def _variables(
    sides: Checkouts, side: Checkout, needs: Dependencies, environment: Path | None
) -> dict[str, str]:
    """Return the variables by which a side's processes find its project and its programs."""
    roots = [
        str(side.path / root) for root in _import_roots(sides.repository.root, side.path, needs, environment)
    ]
    inherited = os.environ.get("PYTHONPATH", "")
    variables = {"PYTHONPATH": os.pathsep.join([*roots, *filter(None, [inherited])])} if roots else {}
    if environment is not None:
        programs = str(environment / "bin")
        variables |= {
            "PATH": os.pathsep.join([programs, os.environ.get("PATH", os.defpath)]),
            "VIRTUAL_ENV": str(environment),
        }
    return variables


def _import_roots(root: Path, checkout: Path, needs: Dependencies, environment: Path | None) -> list[Path]:
    """Return the folders of a checkout, relative to it, from which its project is imported.

    They are those that this interpreter searches in the repository, and `src`. A project that is installed without
    links is found from the top.
    """
    found = [Path("src")] if not (checkout / "src" / "__init__.py").exists() else []
    searched = [Path(entry).resolve() for entry in sys.path if entry]
    for finder in sys.meta_path:
        module = sys.modules.get(getattr(finder, "__module__", ""))
        # The import hook of an editable install by setuptools.
        mapping = getattr(module, "MAPPING", {})
        searched += (
            [Path(place).resolve().parent for place in mapping.values()] if isinstance(mapping, dict) else []
        )
    prefix = Path(sys.prefix).resolve()
    found += [
        entry.relative_to(root)
        for entry in searched
        # This interpreter's environment may lie in the repository.
        if entry.is_relative_to(root) and not (prefix.is_relative_to(root) and entry.is_relative_to(prefix))
    ]
    there = [one for one in dict.fromkeys(found) if (checkout / one).is_dir()]
    flat = not there and needs.installable and (environment is not None or any(_distributions_from(root)))
    return [Path()] if flat else there


def _checked(sides: Checkouts, made: Environments) -> Environments:
    """Return the environments if either side would import its packages from its own checkout."""
    for side, environment in ((sides.base, made.base), (sides.head, made.head)):
        roots = environment.variables.get("PYTHONPATH", "").split(os.pathsep)
        names = sorted(
            path.parent.name
            for root in roots
            if root and Path(root).is_relative_to(side.path)
            for path in Path(root).glob("*/__init__.py")
        )
        if not names:
            continue
        done = subprocess.run(
            [str(environment.python), "-c", _ORIGINS, *names],
            cwd=side.path,
            env=os.environ | dict(environment.variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise _failed(side, "has an interpreter that does not start", done.stdout + done.stderr)
        for name, origin in json.loads(done.stdout.splitlines()[-1]).items():
            if origin and not Path(origin).resolve().is_relative_to(side.path.resolve()):
                raise SetupError(
                    f"{side.revision.name} ({side.revision.commit[:12]})",
                    f"'{name}' would be imported from {origin}",
                    "the checkout has a package of that name",
                    "Uninstall the other one, or run the gate in an environment without it.",
                )
    return made


def _key(needs: Dependencies, lines: Sequence[str]) -> str:
    """Return the name of an environment: equal for all sides that need the same over the same packages."""
    content = [
        platform.python_version(),
        os.path.realpath(sys.executable),
        list(map(str, _site_folders())),
        sorted(installed_here().items()),
        sorted((place, sorted(found)) for place, found in needs.required.items()),
        sorted(needs.facts.items()),
        list(lines),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Hold a lock that other gates wait for. The kernel frees it when this process dies."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_old(store: Path) -> None:
    """Remove environments that no gate has used for a month."""
    for marker in store.glob(f"*/{_COMPLETE}"):
        with suppress(OSError):
            if time.time() - marker.stat().st_mtime > _KEPT_FOR_S:
                shutil.rmtree(marker.parent, ignore_errors=True)
