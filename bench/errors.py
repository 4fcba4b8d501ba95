"""The errors of the commands, as a tree. The command line turns each into one sentence and an exit code.

FusetuneError               see fusetune.errors, which also says how a message reads
└── BenchError              exit 1
    ├── InputError          exit 2   a spec, a flag, a file or a name that the user can correct
    ├── RunDirectoryError   exit 2   the results directory: not writable, full, in use, or of a changed spec
    └── SetupError          exit 4   a revision that cannot be made to run: neither bad input nor a regression
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from fusetune.errors import FusetuneError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_NOT_A_DIRECTORY = (errno.ENOTDIR, errno.EEXIST)
_MIB = 2**20


class BenchError(FusetuneError):
    """Base of the errors of the commands, which show them without a traceback."""

    code = "bench"
    exit_code = 1


class InputError(BenchError):
    """Input that the user can correct: a spec, an override, a data file, a factory."""

    code = "input"
    exit_code = 2


class RunDirectoryError(BenchError):
    """The results directory cannot be used as asked."""

    code = "run-directory"
    exit_code = 2


class SetupError(BenchError):
    """A revision that does not build, install or import. Nothing is said about its speed."""

    code = "setup"
    exit_code = 4


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
    said = error.strerror or str(error)
    if error.errno in _DISK_FULL:
        what = f"the disk is full{_space(path)}"
        known, to_do = "nothing that was written before is lost", "Free some space."
    elif error.errno == errno.EFBIG:
        what = "the file may not grow any more here"
        known, to_do = "nothing that was written before is lost", "Raise the limit, see `ulimit -f`."
    elif error.errno in _NOT_WRITABLE:
        what, known = "not allowed", said
        to_do = "Make it writable, or choose another results directory."
    elif error.errno in _NOT_A_DIRECTORY:
        what, known = "cannot be made", f"{error.filename or 'a part of it'} is a file"
        to_do = "Choose another results directory."
    else:
        what, known, to_do = "cannot be used", said, "Check the disk that it lies on."
    then = f" Then continue with `{go_on}`." if go_on else ""
    return RunDirectoryError(path, what, known, to_do + then)


def _space(path: Path) -> str:
    """Say how much of a full disk is free, for a quota can leave plenty. Nothing where the system does not say."""
    for folder in (path, *path.parents):
        try:
            usage = shutil.disk_usage(folder)
        except OSError:
            continue
        return f", {usage.free / _MIB:,.4g} MiB of {usage.total / _MIB:,.6g} MiB free"
    return ""
