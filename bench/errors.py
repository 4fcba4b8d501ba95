"""What can go wrong, as a tree; the command line turns each leaf into one sentence and an exit code.

    BenchError              exit 1
    ├── InputError          exit 2   a spec, a flag, a file or a name that the user can mend
    └── RunDirectoryError   exit 2   the results directory: unwritable, full, in use, or of a changed spec

A message reads `<where>: <what is wrong>; <what is known>. <what to do>`.
"""

from __future__ import annotations

import difflib
import errno
import shutil
from collections.abc import Iterable
from pathlib import Path

from fusetune.bench.aliases import meant

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_NOT_A_DIRECTORY = (errno.ENOTDIR, errno.EEXIST)
_MIB = 2**20


class BenchError(Exception):
    """Base of every error the suite raises on purpose; shown without a traceback."""

    exit_code = 1


class InputError(BenchError):
    """Input that the user can mend: a spec, an override, a data file, a factory."""

    exit_code = 2


class RunDirectoryError(BenchError):
    """The results directory cannot be used as asked."""

    exit_code = 2


def closest(name: object, known: Iterable[str]) -> str | None:
    """Return the known name that other libraries call `name`, else the one most like it, or None.

    Example:
        >>> closest("lr", ["base_lr", "betas"]), closest("bettas", ["base_lr", "betas"])
        ('base_lr', 'betas')
    """
    known = list(known)
    if (alias := meant(name, known)) is not None:
        return alias
    matches = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.6)
    return matches[0] if matches else None


def unknown_name(where: str, name: object, known: Iterable[str]) -> InputError:
    """Build the error for a name that is not in a table: the known ones and the closest.

    Example:
        >>> str(unknown_name("spec.yaml:3: train.optimizer", "adamwt", ["sgd", "adamw", "adam"]))
        "spec.yaml:3: train.optimizer: unknown 'adamwt'; known: adam, adamw, sgd. Did you mean 'adamw'?"
    """
    names = sorted(known)
    near = closest(name, names)
    hint = f"Did you mean '{near}'?" if near else "Use one of these."
    return InputError(f"{where}: unknown '{name}'; known: {', '.join(names)}. {hint}")


def unusable(path: Path, error: OSError, *, go_on: str = "") -> RunDirectoryError:
    """Say in one sentence why a path of a results directory cannot be used, and what to do.

    Args:
        path: what was to be read or written.
        error: what the system said.
        go_on: the command that continues the run afterwards; empty where there is none.

    Example:
        >>> str(unusable(Path("results/demo"), OSError(errno.EROFS, "Read-only file system")))
        'results/demo: not allowed; Read-only file system. Make it writable, or choose another results directory.'
    """
    if error.errno in _DISK_FULL:
        what = f"the disk is full{_space(path)}; nothing that was written before is lost. Free some space."
    elif error.errno == errno.EFBIG:
        what = (
            "the file may not grow any more here; nothing that was written before is lost. "
            "Raise the limit, see `ulimit -f`."
        )
    elif error.errno in _NOT_WRITABLE:
        what = f"not allowed; {error.strerror}. Make it writable, or choose another results directory."
    elif error.errno in _NOT_A_DIRECTORY:
        what = (
            f"cannot be made; {error.filename or 'a part of it'} is a file. Choose another results directory."
        )
    else:
        what = f"cannot be used; {error.strerror}. Check the disk that it lies on."
    return RunDirectoryError(f"{path}: {what}{f' Then continue with `{go_on}`.' if go_on else ''}")


def _space(path: Path) -> str:
    """Say how much of a full disk is free, for a quota can leave plenty. Nothing where the system does not say."""
    for folder in (path, *path.parents):
        try:
            usage = shutil.disk_usage(folder)
        except OSError:
            continue
        return f", {usage.free / _MIB:,.4g} MiB of {usage.total / _MIB:,.6g} MiB free"
    return ""
