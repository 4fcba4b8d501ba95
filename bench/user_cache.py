"""The suite's directory in the user's cache, where there is one: see `fusetune.user_cache`."""

from __future__ import annotations

from fusetune.user_cache import NO_HOME, user_cache

__all__ = ["NO_HOME", "user_cache"]
