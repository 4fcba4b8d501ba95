"""Storages that change their size in place, which no tensor operation tells: FSDP frees gathered parameters so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def seen_resizes(seen: Callable[[torch.UntypedStorage], None]) -> Iterator[None]:
    """Call `seen` with every storage that was resized within the block, after it was.

    `UntypedStorage.resize_` passes no dispatch mode, so it is replaced within the block, as torch's own memory
    tracker does.
    """
    original = torch.UntypedStorage.resize_

    def resize_(storage: torch.UntypedStorage, size: int) -> Any:
        result = original(storage, size)
        seen(storage)
        return result

    torch.UntypedStorage.resize_ = resize_  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.UntypedStorage.resize_ = original  # type: ignore[method-assign]
