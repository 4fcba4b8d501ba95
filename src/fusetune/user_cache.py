"""The suite's directory in the user's cache, where there is one."""

from __future__ import annotations

import os
from pathlib import Path

NO_HOME = "HOME is not set and the system knows no home of this user"


def user_cache() -> Path | None:
    """Return `$XDG_CACHE_HOME/fusetune`, else `~/.cache/fusetune`. None where this user has no home. Nothing is made.

    In a container that runs under any user id, HOME is often not set and the system knows no home either.
    """
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named, "fusetune")
    home = Path(os.path.expanduser("~"))
    return home / ".cache" / "fusetune" if home.is_absolute() else None
