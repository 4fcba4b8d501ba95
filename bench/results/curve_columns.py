"""Some fields of learning curves as numbers in one block: a twentieth of the memory of a mapping an epoch."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    import numpy as np

Entry = Mapping[str, float | None]
_DOUBLE_BYTES = 8


class CurveColumns(Sequence[Entry]):
    """A curve of which some fields are kept, to be read as its entries or by `columns_of`.

    Args:
        curve: an entry an epoch.
        fields: names of the fields to keep, at least one. Their numbers become floats.

    Attributes:
        fields: their names.
        cells: the float64 numbers of each entry in turn, in the order of the fields. NaN: the entry lacks it.

    Example:
        >>> curve = CurveColumns([{"epoch": 1, "lr": 0.1}, {"epoch": 2, "lr": None}], ("epoch", "lr"))
        >>> len(curve), curve[1]
        (2, {'epoch': 2.0, 'lr': None})
    """

    __slots__ = ("cells", "fields")

    def __init__(self, curve: Sequence[Entry], fields: tuple[str, ...]) -> None:
        self.fields = fields
        # Bytes, which Python's garbage collector does not look at.
        try:
            self.cells = array("d", chain.from_iterable(map(itemgetter(*fields), curve))).tobytes()
        except (KeyError, TypeError):  # an entry lacks a field, or there is only one field
            values = (entry.get(name) for entry in curve for name in fields)
            self.cells = array("d", [math.nan if value is None else value for value in values]).tobytes()

    def __len__(self) -> int:
        return len(self.cells) // (_DOUBLE_BYTES * len(self.fields))

    @overload
    def __getitem__(self, place: int) -> Entry: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Entry]: ...

    def __getitem__(self, place: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        start = range(len(self))[place] * len(self.fields)
        values = memoryview(self.cells).cast("d")[start : start + len(self.fields)]
        return {
            name: None if math.isnan(value) else value
            for name, value in zip(self.fields, values, strict=True)
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


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
    kept = {curve.fields if isinstance(curve, CurveColumns) else () for curve in given}
    # As those of one run: all keep the same fields.
    all_fields = next(iter(kept)) if len(kept) == 1 and set(fields) <= set(*kept) else fields
    blocks = [
        curve.cells
        if isinstance(curve, CurveColumns) and curve.fields == all_fields
        else CurveColumns(curve, all_fields).cells
        for curve in given
    ]
    columns = np.frombuffer(b"".join(blocks)).reshape(-1, len(all_fields)).T
    found: np.ndarray = columns[[all_fields.index(name) for name in fields]]
    return found
