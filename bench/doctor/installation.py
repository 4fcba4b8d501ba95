"""Where fusetune is imported from, and what an older release left behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import fusetune

# Before fusetune had one import name, it installed three packages. Each has a file that no other library of that name
# has, so that remains are not confused with, for example, Hugging Face's package `kernels`.
_OLD_PACKAGES: Mapping[str, str] = {
    "kernels": "triton_inside.py",
    "tuner": "schedule_functions.py",
    "bench": "yaml_source.py",
}


def imported_from() -> Path:
    """Return the directory of the package `fusetune` that is imported."""
    return Path(fusetune.__file__).parent


def remains_of_older(places: Mapping[str, Sequence[str]] | None = None) -> list[Path]:
    """Return the directories of an older fusetune that `import kernels`, `tuner` or `bench` would find.

    Args:
        places: name -> the directories that an import of the name looks in. None: those of this process.

    Example:
        >>> remains_of_older({"kernels": [], "tuner": []})
        []
    """
    if places is None:
        places = {name: _places(name) for name in _OLD_PACKAGES}
    own = {(imported_from() / name).resolve() for name in _OLD_PACKAGES}
    return [
        directory
        for name, directories in places.items()
        for directory in map(Path, directories)
        if directory.resolve() not in own and (directory / _OLD_PACKAGES[name]).is_file()
    ]


def _places(name: str) -> list[str]:
    """Return the directories of a top-level package, without importing it."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):  # a program may have replaced it
        return []
    return list(spec.submodule_search_locations or []) if spec is not None else []
