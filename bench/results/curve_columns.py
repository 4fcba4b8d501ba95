"""Some fields of learning curves as numbers in one block: a twentieth of the memory of a mapping an epoch."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    import numpy as np

Entry = Mapping[str, float | None]
_DOUBLE_BYTES = 8


class CurveColumns(Sequence[Entry]):
    """A curve of which some fields are kept, to be read as its entries or by `columns_of`.

    Args:
        curve: an entry an epoch, as a mapping, or as an object with the fields as attributes.
        fields: names of the fields to keep, at least one. Their numbers become floats.

    Attributes:
        fields: their names.
        cells: the float64 numbers of each field in turn, in the order of the entries. NaN: the entry lacks it.

    Example:
        >>> curve = CurveColumns([{"epoch": 1, "lr": 0.1}, {"epoch": 2, "lr": None}], ("epoch", "lr"))
        >>> len(curve), curve[1]
        (2, {'epoch': 2.0, 'lr': None})
    """

    __slots__ = ("cells", "fields")

    def __init__(self, curve: Sequence[Entry], fields: tuple[str, ...]) -> None:
        self.fields = fields
        self.cells = _packed([entry.get(name) for name in fields for entry in curve])

    @classmethod
    def of_objects(cls, curve: Sequence[object], fields: tuple[str, ...]) -> CurveColumns:
        """Return the columns of entries that have the fields as attributes.

        Raises:
            AttributeError: an entry lacks one.
        """
        found = cls.__new__(cls)
        found.fields = fields
        numbers: list[float | None] = []
        for get in _getters(fields):
            numbers += map(get, curve)
        found.cells = _packed(numbers)
        return found

    def __len__(self) -> int:
        return len(self.cells) // (_DOUBLE_BYTES * len(self.fields))

    @overload
    def __getitem__(self, place: int) -> Entry: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Entry]: ...

    def __getitem__(self, place: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        values = memoryview(self.cells).cast("d")[range(len(self))[place] :: len(self)]
        return {
            name: None if math.isnan(value) else value
            for name, value in zip(self.fields, values, strict=True)
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def column(self, name: str) -> bytes:
        """Return the float64 numbers of one of the fields, as bytes."""
        size = len(self.cells) // len(self.fields)
        start = self.fields.index(name) * size
        return self.cells[start : start + size]


@lru_cache(maxsize=64)
def _getters(fields: tuple[str, ...]) -> tuple[attrgetter[float | None], ...]:
    """Return what reads each field of an object."""
    return tuple(map(attrgetter, fields))


def _packed(numbers: Sequence[float | None]) -> bytes:
    """Return numbers as float64, in bytes, which Python's garbage collector does not look at."""
    try:
        return struct.pack(f"{len(numbers)}d", *numbers)
    except struct.error:  # one is None
        return array("d", [math.nan if number is None else number for number in numbers]).tobytes()


def columns_of(curves: Iterable[Sequence[Entry]], fields: tuple[str, ...]) -> np.ndarray:
    """Return some fields of all curves' entries, one curve after the other, with NaN where an entry lacks one.

    Returns:
        float64 of shape (fields, entries).

    Example:
        >>> columns_of([[{"epoch": 1, "val_loss": 0.5}], [{"epoch": 1}]], ("epoch", "val_loss")).tolist()
        [[1.0, 1.0], [0.5, nan]]
    """
    import numpy as np

    given = list(curves)
    kept = {curve.fields for curve in given if isinstance(curve, CurveColumns)}
    # As those of one run: all keep the same fields.
    all_fields = next(iter(kept)) if len(kept) == 1 and set(fields) <= set(*kept) else fields
    blocks = [
        curve
        if isinstance(curve, CurveColumns) and curve.fields == all_fields
        else CurveColumns(curve, all_fields)
        for curve in given
    ]
    if len({len(block.cells) for block in blocks} - {0}) == 1:  # with as many epochs each, or with none
        cells = np.frombuffer(b"".join([block.cells for block in blocks]))
        columns = cells.reshape(-1, len(all_fields), len(cells) // len(all_fields) // sum(map(bool, blocks)))
        places = [all_fields.index(name) for name in fields]
        found: np.ndarray = columns[:, places].transpose(1, 0, 2).reshape(len(fields), -1)
        return found
    return np.stack([np.frombuffer(b"".join([block.column(name) for block in blocks])) for name in fields])
