"""Where torch.compile keeps what it compiles: never where others could put code for us to run.

torch's own place is `torchinductor_<user>` in the directory for temporary files. Anybody can make it first. Compiled
headers go there whatever `TORCHINDUCTOR_CACHE_DIR` says.
"""

from __future__ import annotations

import atexit
import functools
import getpass
import os
import re
import shutil
import tempfile
from pathlib import Path

from bench.user_cache import user_cache
from kernels.trust import distrust

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def keep_compiled_code_private() -> None:
    """Have torch, here and in processes started from now on, keep compiled code where only this user can write.

    That is what `TORCHINDUCTOR_CACHE_DIR` names where it can be trusted, else a directory in the user's cache, else a
    temporary one, which is removed when this process ends.
    """
    os.environ[VARIABLE] = str(private_directory())


def keep_headers_private() -> None:
    """Have torch keep in this process what it compiles of C++ headers where only this user can write. Call it before.

    Where another user has made torch's directory, temporary files go to a directory of this process from now on.
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # Releases of torch before 2.13 ask for it too, and end where the system knows no name.
        user = os.environ["USER"] = f"uid_{os.getuid()}"
    if not _made(Path(tempfile.gettempdir(), "torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", user))):
        os.environ["TMPDIR"] = tempfile.tempdir = str(_temporary())


def private_directory() -> Path:
    """Return the first directory that can be trusted, and have it."""
    named, cache = os.environ.get(VARIABLE), user_cache()
    for directory in (Path(named).absolute() if named else None, cache and cache / "torch"):
        if directory is not None and _made(directory):
            return directory
    return _temporary()


def _made(directory: Path) -> bool:
    """Have a directory and those above it, closed to others where they are new. Say whether it can be used."""
    try:
        if distrust(directory) is not None:
            return False
        for path in (*reversed(directory.parents), directory):
            path.mkdir(mode=0o700, exist_ok=True)
        return distrust(directory) is None and os.access(directory, os.W_OK | os.X_OK)
    except OSError:
        return False


@functools.cache
def _temporary() -> Path:
    """A directory of this process, which is removed at its end."""
    directory = Path(tempfile.mkdtemp(prefix="fusetune-torch-"))
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(directory, ignore_errors=True)

    atexit.register(remove)
    return directory
