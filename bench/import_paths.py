"""Where modules come from: libraries and the suite first, a person's own folders last, and for factories alone.

`python -m` puts the current directory first. A `torch.py` or a `json.py` there, or beside a spec, would be run in place
of the library. This module imports nothing that Python has not loaded by itself, for it runs before the path is safe.
"""

import os
import sys

# The folder that holds `fusetune`.
_SUITE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Python 3.11 and newer leave the current directory out of the path of an interpreter that is started with this.
_SAFE_PATH = "PYTHONSAFEPATH"
# What a started interpreter has to know, to take that back for those that it starts.
_TAKE_BACK = "BENCH_TAKES_SAFE_PATH_BACK"

_own_folders: list[str] = []


def leave_out_current_directory() -> None:
    """Take away the entry for the current directory that `python -m` has put first.

    Where the current directory is the one that holds `fusetune` itself, it stays.

    Mutates: sys.path.
    """
    if getattr(sys.flags, "safe_path", False) or not sys.path:
        return
    first = os.path.abspath(sys.path[0])
    if first == os.getcwd() and first != _SUITE:
        del sys.path[0]


class safe_path:  # noqa: N801, a context manager that imports nothing
    """Start interpreters in the block so that no file in the current directory is imported by their first lines.

    Mutates: os.environ, inside the block.
    """

    def __enter__(self) -> None:
        self._mine = _SAFE_PATH not in os.environ
        if self._mine:
            os.environ[_SAFE_PATH] = os.environ[_TAKE_BACK] = "1"

    def __exit__(self, *error: object) -> None:
        if self._mine:
            forget_safe_path()


def forget_safe_path() -> None:
    """Let interpreters that are started from here on look where they always do, unless a person has set it so.

    Mutates: os.environ.
    """
    if os.environ.pop(_TAKE_BACK, None):
        os.environ.pop(_SAFE_PATH, None)


def append_folders(*folders: str) -> None:
    """Let modules be found in a person's folders, after all other places.

    Args:
        folders: absolute, in their order; one that is on the path already stays where it is.

    Mutates: sys.path.
    """
    for folder in folders:
        if folder not in _own_folders:
            _own_folders.append(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def own_folders() -> tuple[str, ...]:
    """Return the folders that were appended and are on the path still, in the order in which they are searched."""
    return tuple(folder for folder in _own_folders if folder in sys.path)


def hidden_file(name: str) -> str | None:
    """Return a person's own file that another module of the same name hides. None: there is none.

    Args:
        name: `package.module`, after the attempt to import it.

    Example:
        >>> hidden_file("json") is None
        True
    """
    for folder in own_folders():
        own = os.path.join(folder, *name.split("."))
        for file in (f"{own}.py", os.path.join(own, "__init__.py")):
            if os.path.isfile(file):
                return None if _is_loaded_from(name, file, folder) else file
    return None


def place_of(name: str) -> str:
    """Return the file of the module that the first part of a name stands for, or where it is built in.

    Example:
        >>> place_of("sys.path")
        'Python itself'
    """
    return getattr(sys.modules.get(name.partition(".")[0]), "__file__", None) or "Python itself"


def _is_loaded_from(name: str, file: str, folder: str) -> bool:
    """Tell whether a module is that of a file. One whose import failed: whether its package is the folder's."""
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if loaded is not None:
        return bool(os.path.realpath(loaded) == os.path.realpath(file))
    top = name.partition(".")[0]
    if top not in sys.modules:
        return name not in sys.builtin_module_names
    package = os.path.realpath(os.path.join(folder, top))
    return package in map(os.path.realpath, getattr(sys.modules[top], "__path__", []))
