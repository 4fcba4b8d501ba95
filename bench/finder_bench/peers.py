"""The libraries of others whose finders are compared, and what is missing."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

from fusetune.bench.errors import InputError

PEERS = ("torch-lr-finder", "fastai", "lightning", "accelerate")


def peer_versions(version: Callable[[str], str] = metadata.version) -> dict[str, str]:
    """Return library -> installed version.

    Args:
        version: distribution -> its version. Raises PackageNotFoundError where there is none.

    Raises:
        InputError: a library is not installed. The message names the command that installs it.
    """
    found, missing = {}, []
    for name in PEERS:
        try:
            found[name] = version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        raise InputError(
            "finder-bench",
            f"{', '.join(missing)}: not installed",
            to_do="Run `make finder-bench`, which installs them into build/peers",
        )
    return found
