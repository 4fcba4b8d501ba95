"""The console that reports are printed to."""

from __future__ import annotations

import sys

from fusetune.bench.terminal import SafeConsole

WIDTH_WITHOUT_TERMINAL = 100


def make_console(*, stderr: bool = False) -> SafeConsole:
    """Return a console as wide as the terminal, or 100 columns wide without one."""
    if (sys.stderr if stderr else sys.stdout).isatty():
        return SafeConsole(stderr=stderr)
    return SafeConsole(stderr=stderr, width=WIDTH_WITHOUT_TERMINAL)
