"""`python -m bench`, and the script `bench`."""

from __future__ import annotations

import sys
from typing import NoReturn

from bench.interrupts import ignore_interrupts


def start() -> NoReturn:
    """Run the command line as a program: Ctrl-C is an end and not a traceback, from the first import to the last."""
    try:
        from bench.cli import main

        main()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        ignore_interrupts()


if __name__ == "__main__":
    start()
