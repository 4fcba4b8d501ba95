"""What a checkout needs installed, read from its files: two checkouts can share an environment where this is the same.

Contents are compared, not text: a comment, a description or the order of lines changes nothing. Of extras, groups,
constraints and lock files, only packages count that are installed here, for no benchmark can use the others.
"""

from __future__ import annotations

import ast
import configparser
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from fusetune.bench.errors import SetupError

# Python 3.10 has no parser of TOML.
_toml_parser: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

_REQUIREMENT_FILES = ("requirements*.txt", "requirements/*.txt", "constraints*.txt")
_LOCKS = ("uv.lock", "poetry.lock", "pdm.lock", "pylock.toml")
_LOCAL_SOURCES = ("editable", "virtual", "directory", "path")
# Arguments of `setup` that describe a project, and change nothing of what is installed.
_DESCRIPTIONS = {
    "author",
    "author_email",
    "classifiers",
    "description",
    "download_url",
    "keywords",
    "license",
    "license_files",
    "long_description",
    "long_description_content_type",
    "maintainer",
    "maintainer_email",
    "platforms",
    "project_urls",
    "url",
    "version",
}
_COMPILING_BACKENDS = ("maturin", "mesonpy", "py_build_cmake", "scikit_build_core", "sipbuild", "skbuild")
_COMPILING_CALLS = re.compile(r"\b(ext_modules|rust_extensions|cffi_modules|cythonize|C\w+Extension)\b")
_COMMENT = re.compile(r"(^|\s)#.*$")


@dataclass(frozen=True)
class Dependencies:
    """What one checkout needs installed.

    Args:
        required: place -> requirements that are installed with the project, in one form.
        optional: place -> requirements of extras, groups, constraints and lock files.
        facts: place -> what else an installation leaves behind: entry points, or setup.py as a whole.
        installable: whether pip can install the checkout itself.
        compiles: whether its installation compiles something.
        build_requires: what is needed to build it.
        name: of the project. Empty where no file has it.
    """

    required: Mapping[str, frozenset[str]] = field(default_factory=dict)
    optional: Mapping[str, frozenset[str]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    installable: bool = False
    compiles: bool = False
    build_requires: tuple[str, ...] = ("setuptools",)
    name: str = ""

    def differs_from(self, other: Dependencies, installed: Mapping[str, str]) -> tuple[str, ...]:
        """Name the places that differ, with what stands there on either side.

        Args:
            other: the other side's.
            installed: canonical name -> version of what is installed here, see `installed_here`.

        Example:
            >>> old = Dependencies(required={"pyproject.toml: dependencies": frozenset({"numpy>=1"})})
            >>> new = Dependencies(required={"pyproject.toml: dependencies": frozenset({"numpy>=2"})})
            >>> old.differs_from(new, {})
            ('pyproject.toml: dependencies (numpy>=1 against numpy>=2)',)
        """
        found = []
        for ours, theirs in ((self.required, other.required), (self.optional, other.optional)):
            for place in sorted({*ours, *theirs}):
                here, there = ours.get(place, frozenset()), theirs.get(place, frozenset())
                if ours is self.optional:
                    here, there = _used(here, installed), _used(there, installed)
                if here != there:
                    found.append(f"{place} ({_some(here - there)} against {_some(there - here)})")
        places = sorted({*self.facts, *other.facts})
        return (*found, *(place for place in places if self.facts.get(place) != other.facts.get(place)))

    def lines_beside(self, other: Dependencies, installed: Mapping[str, str]) -> list[str]:
        """Return the requirements that pip has to be given besides the project: those that the other side lacks."""
        wanted: set[str] = set()
        for place, lines in self.optional.items():
            wanted |= _used(lines, installed) - other.optional.get(place, frozenset())
        if not self.installable:
            wanted = wanted.union(*self.required.values())
        return sorted(wanted)


def installed_here() -> dict[str, str]:
    """Return canonical name -> version of each distribution that this interpreter finds."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(canonicalize_name(name), distribution.version)
    return found


def read_dependencies(checkout: Path) -> Dependencies:
    """Read what a checkout needs.

    Args:
        checkout: its top.

    Raises:
        SetupError: a file is not what its name says.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "requirements.txt").write_text("NumPy >= 1.26  # arrays\\n")
        ...     dict(read_dependencies(Path(folder)).required)
        {'requirements.txt': frozenset({'numpy>=1.26'})}
    """
    project = _toml(checkout / "pyproject.toml")
    legacy = (checkout / "setup.py").is_file() or (checkout / "setup.cfg").is_file()
    poetry = "poetry" in _table(project, "tool")
    installable = "project" in project or "build-system" in project or poetry or legacy
    required: dict[str, frozenset[str]] = {}
    optional: dict[str, frozenset[str]] = {}
    facts: dict[str, str] = {}
    _read_pyproject(checkout, project, required, optional, facts)
    _read_setup_cfg(checkout, required, optional, facts)
    _read_setup_py(checkout, facts)
    for pattern in _REQUIREMENT_FILES:
        for path in sorted(checkout.glob(pattern)):
            place = path.relative_to(checkout).as_posix()
            alone = place == "requirements.txt" and not installable
            (required if alone else optional)[place] = frozenset(_requirement_lines(path))
    _read_locks(checkout, optional)
    build = _table(project, "build-system")
    return Dependencies(
        _filled(required),
        _filled(optional),
        facts,
        installable,
        _compiles(checkout, project),
        tuple(_texts(build.get("requires", ["setuptools"]))),
        _name(project, checkout),
    )


def _name(project: Mapping[str, Any], checkout: Path) -> str:
    poetry = _table(_table(project, "tool"), "poetry")
    named = _table(project, "project").get("name") or poetry.get("name")
    return str(named or _setup_cfg(checkout).get("metadata", "name", fallback=""))


def _read_pyproject(
    checkout: Path,
    content: Mapping[str, Any],
    required: dict[str, frozenset[str]],
    optional: dict[str, frozenset[str]],
    facts: dict[str, str],
) -> None:
    project, tool = _table(content, "project"), _table(content, "tool")
    at = "pyproject.toml: "
    required[f"{at}dependencies"] = _forms(project.get("dependencies"))
    for name, lines in _table(project, "optional-dependencies").items():
        optional[f"{at}optional-dependencies.{name}"] = _forms(lines)
    for name, lines in _table(content, "dependency-groups").items():
        optional[f"{at}dependency-groups.{name}"] = _forms(lines)
    for manager in ("uv", "pdm"):
        for key, lines in _table(tool, manager).items():
            if key.endswith("-dependencies"):
                groups = lines.values() if isinstance(lines, dict) else [lines]
                optional[f"{at}tool.{manager}.{key}"] = frozenset().union(*map(_forms, groups))
    dynamic = _table(_table(tool, "setuptools"), "dynamic")
    required[f"{at}tool.setuptools.dynamic.dependencies"] = _from_files(checkout, dynamic.get("dependencies"))
    for name, files in _table(dynamic, "optional-dependencies").items():
        optional[f"{at}tool.setuptools.dynamic.{name}"] = _from_files(checkout, files)
    poetry = _table(tool, "poetry")
    for table, keys, prefix in (
        (project, ("scripts", "gui-scripts", "entry-points"), "project."),
        (poetry, ("dependencies", "extras", "scripts", "plugins"), "tool.poetry."),
    ):
        for key in keys:
            if key in table:
                facts[f"{at}{prefix}{key}"] = json.dumps(table[key], sort_keys=True, default=str)


def _read_setup_cfg(
    checkout: Path,
    required: dict[str, frozenset[str]],
    optional: dict[str, frozenset[str]],
    facts: dict[str, str],
) -> None:
    parser = _setup_cfg(checkout)
    wanted = parser.get("options", "install_requires", fallback="")
    if wanted.lstrip().startswith("file:"):
        files = [name.strip() for name in wanted.partition("file:")[2].split(",")]
        required["setup.cfg: install_requires"] = _from_files(checkout, {"file": files})
    else:
        required["setup.cfg: install_requires"] = _forms(wanted.splitlines())
    if parser.has_section("options.extras_require"):
        for name, text in parser.items("options.extras_require"):
            optional[f"setup.cfg: extras_require.{name}"] = _forms(text.splitlines())
    if parser.has_section("options.entry_points"):
        entries = {key: sorted(text.split("\n")) for key, text in parser.items("options.entry_points")}
        facts["setup.cfg: entry_points"] = json.dumps(entries, sort_keys=True)


def _setup_cfg(checkout: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(checkout / "setup.cfg", encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise _broken(checkout / "setup.cfg", error) from error
    return parser


def _read_setup_py(checkout: Path, facts: dict[str, str]) -> None:
    """Take setup.py as a whole, without what only describes: it may compute what it needs."""
    path = checkout / "setup.py"
    if not path.is_file():
        return
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise _broken(path, error) from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "setup":
            node.keywords = [word for word in node.keywords if word.arg not in _DESCRIPTIONS]
            node.keywords.sort(key=lambda word: word.arg or "")
        if (
            isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
            and ast.get_docstring(node) is not None
        ):
            del node.body[0]
    facts["setup.py"] = ast.dump(tree)


def _read_locks(checkout: Path, optional: dict[str, frozenset[str]]) -> None:
    for name in _LOCKS:
        content = _toml(checkout / name)
        packages = content.get("package", content.get("packages", []))
        pins = [
            (str(package["name"]), str(package["version"]))
            for package in packages
            if isinstance(package, dict)
            and {"name", "version"} <= set(package)
            and not any(kind in _table(package, "source") for kind in _LOCAL_SOURCES)
            and "directory" not in package
        ]
        optional[name] = _pinned(pins)
    path = checkout / "Pipfile.lock"
    if path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise _broken(path, error) from error
        optional[path.name] = _pinned(
            (name, str(entry["version"]).removeprefix("=="))
            for section in ("default", "develop")
            for name, entry in _table(content, section).items()
            if isinstance(entry, dict) and "version" in entry
        )


def _pinned(pins: Sequence[tuple[str, str]] | Iterator[tuple[str, str]]) -> frozenset[str]:
    """Return requirements of locked versions. A package with several, for other platforms, is left out."""
    versions: dict[str, set[str]] = {}
    for name, version in pins:
        versions.setdefault(canonicalize_name(name), set()).add(version)
    return frozenset(f"{name}=={next(iter(found))}" for name, found in versions.items() if len(found) == 1)


def _requirement_lines(path: Path, seen: frozenset[Path] = frozenset()) -> Iterator[str]:
    """Yield the requirements of a file in one form, those of files that it includes too."""
    whole = path.resolve()
    if whole in seen or not path.is_file():
        return
    text = re.sub(r"\\\r?\n", " ", path.read_text(encoding="utf-8", errors="replace"))
    for raw in text.splitlines():
        line = re.sub(r"\s--hash[= ]\S+", "", _COMMENT.sub("", raw)).strip()
        included = re.fullmatch(r"(?:-r|-c|--requirement|--constraint)[ =]?\s*(\S+)", line)
        if included:
            yield from _requirement_lines(path.parent / included[1], seen | {whole})
        elif form := _form(line):
            yield form


def _from_files(checkout: Path, value: object) -> frozenset[str]:
    """Return the requirements in the files that `{file = ...}` names."""
    files = value.get("file", ()) if isinstance(value, dict) else ()
    names = [files] if isinstance(files, str) else files
    return frozenset(line for name in names for line in _requirement_lines(checkout / str(name)))


def _forms(lines: object) -> frozenset[str]:
    return frozenset(form for line in _texts(lines) if (form := _form(line)))


def _form(line: str) -> str:
    """Write a requirement in the one form that all that mean the same have. An option stays as it is.

    Nothing is left of a requirement for another system or Python.
    """
    try:
        wanted = Requirement(line)
    except InvalidRequirement:
        return " ".join(line.split())
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        return ""
    wanted.marker = None
    wanted.name = canonicalize_name(wanted.name)
    return str(wanted)


def _used(lines: frozenset[str], installed: Mapping[str, str]) -> frozenset[str]:
    """Return the requirements whose package is installed here. Those without a name are kept, and options are not."""
    kept = set()
    for line in lines:
        try:
            named = canonicalize_name(Requirement(line).name) in installed
        except InvalidRequirement:
            named = not line.startswith("-")
        if named:
            kept.add(line)
    return frozenset(kept)


def _compiles(checkout: Path, project: Mapping[str, Any]) -> bool:
    backend = str(_table(project, "build-system").get("build-backend", ""))
    if backend.startswith(_COMPILING_BACKENDS) or "ext-modules" in _table(
        _table(project, "tool"), "setuptools"
    ):
        return True
    script = checkout / "setup.py"
    return script.is_file() and bool(_COMPILING_CALLS.search(script.read_text("utf-8", "replace")))


def _toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file. Nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        content: dict[str, Any] = _toml_parser.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not TOML, or not UTF-8
        raise _broken(path, error) from error
    return content


def _table(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _texts(value: object) -> list[str]:
    """Return the texts of a list. Groups may include others by a table, which are compared where they stand."""
    return (
        [text for text in value if isinstance(text, str) and text.strip()] if isinstance(value, list) else []
    )


def _filled(places: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    return {place: lines for place, lines in places.items() if lines}


def _some(lines: frozenset[str]) -> str:
    shown = sorted(lines)
    return (", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")) or "none"


def _broken(path: Path, error: Exception) -> SetupError:
    return SetupError(path, "cannot be read", str(error).splitlines()[0])
