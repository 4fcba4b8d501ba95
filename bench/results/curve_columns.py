"""Some fields of a learning curve as columns: a tenth of the memory of a mapping an epoch."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import overload

Entry = Mapping[str, float | None]


class CurveColumns(Sequence[Entry]):
    """A curve of which some fields are kept, to be read as its entries or by `columns_of`.

    Args:
        curve: an entry an epoch.
        fields: names of the fields to keep. Their numbers become floats.

    Example:
        >>> curve = CurveColumns([{"epoch": 1, "lr": 0.1}, {"epoch": 2, "lr": None}], ("epoch", "lr"))
        >>> len(curve), curve[1]
        (2, {'epoch': 2.0, 'lr': None})
    """

    __slots__ = ("columns",)

    def __init__(self, curve: Iterable[Entry], fields: Sequence[str]) -> None:
        entries = list(curve)
        self.columns = {name: _column(entries, name) for name in fields}

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    @overload
    def __getitem__(self, place: int) -> Entry: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Entry]: ...

    def __getitem__(self, place: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        return {
            name: None if math.isnan(column[place]) else column[place]
            for name, column in self.columns.items()
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def columns_of(curve: Sequence[Entry], fields: Sequence[str]) -> list[array[float]]:
    """Return some fields of a curve, a column each, with NaN where an entry lacks one.

    Example:
        >>> columns_of([{"epoch": 1, "val_loss": 0.5}, {"epoch": 2}], ("epoch", "val_loss"))
        [array('d', [1.0, 2.0]), array('d', [0.5, nan])]
    """
    if isinstance(curve, CurveColumns) and all(name in curve.columns for name in fields):
        return [curve.columns[name] for name in fields]
    return [_column(curve, name) for name in fields]


def _column(curve: Iterable[Entry], name: str) -> array[float]:
    return array("d", [math.nan if (value := entry.get(name)) is None else value for entry in curve])
