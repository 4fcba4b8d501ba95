"""Scratch memory: the arrays of a program, one after another in memory that each thread has for itself."""

from __future__ import annotations

from fusetune.kernels.cpu.ir_types import Type

_ALIGNMENT = 64


class Scratch:
    """Lays out the arrays of a module's functions.

    Args:
        is_checked: their contents are checked, see `kept_tiles`.
    """

    def __init__(self, is_checked: bool = False) -> None:
        self.bytes = 0
        self.is_checked = is_checked
        self._pending: list[str] = []

    def add(self, name: str, type_: Type) -> None:
        """Lay out an array for a tile."""
        size = -(-type_.elements * type_.bytes // _ALIGNMENT) * _ALIGNMENT
        self._pending.append(f"{type_.c} *restrict {name} = (void *)(scratch + {self.bytes});")
        self.bytes += size

    def declarations(self) -> list[str]:
        """The C declarations of the arrays added since the last call."""
        pending, self._pending = self._pending, []
        return pending
