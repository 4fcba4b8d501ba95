"""Where torch.compile stores compiled code: never where others could put code for us to run.

torch's own place is `torchinductor_<user>` in the directory for temporary files. Any user can create it first. Compiled
headers go there whatever the value of `TORCHINDUCTOR_CACHE_DIR`.
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
    """Have torch store compiled code where only this user can write, here and in processes started later.

    The directory of `TORCHINDUCTOR_CACHE_DIR` is used if it can be trusted, else one in the user's cache. Else it is a
    temporary one, which is removed when this process ends.
    """
    os.environ[VARIABLE] = str(private_directory())


def keep_headers_private() -> None:
    """Have torch store compiled C++ headers where only this user can write. Call it before torch.compile.

    Where another user has created torch's directory, temporary files go to a directory of this process from then on.
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # Releases of torch before 2.13 ask for it too, and fail where the system has no user name.
        user = os.environ["USER"] = f"uid_{os.getuid()}"
    if not have_private(Path(tempfile.gettempdir(), "torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", user))):
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary_directory(_PREFIX))


def private_directory() -> Path:
    """Return the first directory that can be trusted, and create it."""
    named, cache = os.environ.get(VARIABLE), user_cache()
    for directory in (Path(named).absolute() if named else None, cache and cache / "torch"):
        if directory is not None and have_private(directory):
            return directory
    return temporary_directory(_PREFIX)
