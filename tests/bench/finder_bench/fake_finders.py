"""Calls for child processes that end in all the ways there are."""

from __future__ import annotations

import os
import sys
import time


def process_id() -> int:
    return os.getpid()


def raises() -> None:
    raise RuntimeError("no\nluck")


def prints() -> str:
    print("noise")
    return "kept apart"


def dies() -> None:
    print("out of everything", file=sys.stderr, flush=True)
    os._exit(3)


def hangs() -> None:
    time.sleep(60)
