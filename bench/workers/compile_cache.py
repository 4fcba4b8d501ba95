"""Where torch.compile keeps what it compiles: never where others could put code for us to run.

torch's own place is `torchinductor_<user>` in the directory for temporary files. Anybody can make it first. Compiled
headers go there whatever `TORCHINDUCTOR_CACHE_DIR` says.
"""

from __future__ import annotations

import getpass
import os
import re
import tempfile
from pathlib import Path

from fusetune.bench.user_cache import user_cache
from fusetune.kernels import have_private, temporary_directory

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_PREFIX = "fusetune-torch-"


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
    if not have_private(Path(tempfile.gettempdir(), "torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", user))):
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary_directory(_PREFIX))


def private_directory() -> Path:
    """Return the first directory that can be trusted, and have it."""
    named, cache = os.environ.get(VARIABLE), user_cache()
    for directory in (Path(named).absolute() if named else None, cache and cache / "torch"):
        if directory is not None and have_private(directory):
            return directory
    return temporary_directory(_PREFIX)
