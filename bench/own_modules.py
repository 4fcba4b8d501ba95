"""A person's own modules and files: found, run, and every way of failing said in one sentence."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from fusetune.bench.errors import InputError
from fusetune.bench.import_paths import append_folders, hidden_file, own_folders, place_of

# The suite's packages had these names, without `fusetune.` before them.
_RENAMED = ("kernels", "tuner", "bench")
# Where `fusetune` lies, which may be within the current directory.
_SUITE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")


def import_own_module(name: str, where: object, folders: Sequence[str] = (), *, beside: str) -> ModuleType:
    """Import a person's module.

    It is searched for on Python's path, then in the folders, then in the current directory. A person's file with a
    library's name is refused, because Python would find the library.

    Args:
        name: `package.module`.
        where: what names it, for the errors.
        folders: absolute.
        beside: what a module that is not found can be put beside.

    Mutates:
        sys.path, to which these folders are appended: the module may import its neighbours later. See `import_paths`.

    Raises:
        InputError: a module that is not found, is hidden by a library, or fails while it is imported.

    Example:
        >>> import_own_module("math", "model.factory", beside="the spec").sqrt(9.0)
        3.0
    """
    append_folders(*folders, os.getcwd())
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
        _refuse_hidden(name, where)
        return module
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] in _RENAMED:
            _refuse_hidden(name, where)
            raise InputError(
                where,
                f"no module '{error.name}'",
                f"the suite's packages are fusetune.{', fusetune.'.join(_RENAMED)}",
                f"Write 'fusetune.{error.name}'",
            ) from error
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            _refuse_hidden(name, where)
            looked = ", ".join(own_folders())
            raise InputError(
                where,
                f"no module '{error.name}'",
                f"looked in {looked} and where Python finds modules",
                f"Check the name, or put the module beside {beside}",
            ) from error
        raise _import_failed(name, where, error) from error
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # a person's module, which runs while it is imported
        raise _import_failed(name, where, error) from error


def import_own_file(path: Path, where: object) -> ModuleType:
    """Run a person's file as a module, once in a process.

    Its neighbours can be imported. The module's own name is none that a library has.

    Args:
        path: absolute.
        where: what names it, for the errors.

    Mutates:
        sys.path, to which the file's folder is appended, and sys.modules.

    Raises:
        InputError: a file that is not there, or fails while it runs.
    """
    name = f"own_file_{path.stem}"
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == str(path):
        return loaded
    if not path.is_file():
        raise InputError(where, "no such file", f"looked for {path}", "Check the path")
    append_folders(str(path.parent))
    importlib.invalidate_caches()
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(where, "is no Python file", "known: FILE.py", "Check the path")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a person's file, which runs while it is imported
        del sys.modules[name]
        raise _import_failed(path.name, where, error) from error
    return module


def line_of(error: BaseException, file: str | None = None) -> str:
    """Return the file and line where an error comes from: the innermost one that is a person's own, if any is.

    Args:
        error: as it was caught.
        file: the person's file that is asked about. Other files in the folders of `import_paths` come second.

    Returns:
        E.g. `kernels.py, line 3`. It is empty where there is no traceback.
    """
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")
    ]
    in_file = [frame for frame in frames if frame.filename == file]
    own = in_file or [frame for frame in frames if _is_own(frame.filename)]
    if not frames:
        return ""
    last = (own or frames)[-1]
    return f"{os.path.basename(last.filename)}, line {last.lineno}"


def said_by(error: BaseException, file: str | None = None) -> str:
    """Return what an error of a person's code says, with its line: for the second part of a message.

    Args:
        error, file: as in `line_of`.
    """
    # The text of a SyntaxError has the line already.
    line = "" if isinstance(error, SyntaxError) else line_of(error, file)
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    return f"{text} ({line})" if line else text


def _is_own(file: str) -> bool:
    """Tell whether a file lies in a person's folders, and not in an environment that is installed there."""
    if "site-packages" in file or "dist-packages" in file or file.startswith(_SUITE):
        return False
    return any(file.startswith(os.path.join(folder, "")) for folder in own_folders())


def _refuse_hidden(name: str, where: object) -> None:
    """Raise InputError where a person's module has the name of a library, which Python finds first."""
    hidden = hidden_file(name)
    if hidden is not None:
        raise InputError(
            where,
            f"module '{name}' in {hidden} has the name of another, which is found first: {place_of(name)}",
            to_do="Rename yours",
        )


def _import_failed(name: str, where: object, error: BaseException) -> InputError:
    """Build the error of a module that was found and failed while it ran."""
    return InputError(where, f"importing '{name}' failed", said_by(error), "Mend the module, then try again")
