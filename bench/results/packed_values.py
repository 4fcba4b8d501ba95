"""The values of a record as numbers in one block: a tenth of the memory of a dictionary."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_CODES = {int: "q", float: "d"}
_NUMBER_BYTES = 8


class PackedValues(Mapping[str, float]):
    """Values that are read as those of a dictionary, or of many records at once by `layout` and `cells`.

    Args:
        values: metric -> a float, or a whole number of 64 bits. They stay what they are.

    Attributes:
        layout: its metrics and types, the same object for equal ones.
        cells: the numbers in their order, of 8 bytes each.

    Raises:
        KeyError, ValueError: a value is neither.

    Example:
        >>> values = PackedValues({"steps": 3, "val_loss": 0.5})
        >>> values["steps"], values.get("lr"), values
        (3, None, {'steps': 3, 'val_loss': 0.5})
    """

    __slots__ = ("cells", "layout")

    def __init__(self, values: Mapping[str, float]) -> None:
        self.layout = _layout(tuple(values), tuple(map(type, values.values())))
        try:
            self.cells = self.layout.struct.pack(*values.values())
        except struct.error as error:
            raise ValueError("a value does not fit 64 bits") from error

    def __getitem__(self, name: str) -> float:
        at = self.layout.places[name]
        number: float = struct.unpack_from(self.layout.codes[at], self.cells, at * _NUMBER_BYTES)[0]
        return number

    def __contains__(self, name: object) -> bool:
        return name in self.layout.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.names)

    def __len__(self) -> int:
        return len(self.layout.names)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[type[PackedValues], tuple[dict[str, float]]]:
        return PackedValues, (dict(self),)


class Layout:
    """Metrics and types of packed values.

    Attributes:
        names: of the metrics.
        codes: the type of each, in the words of `struct`.
        places: metric -> its position.
        struct: packs the numbers.
    """

    def __init__(self, names: tuple[str, ...], codes: str) -> None:
        self.names, self.codes = names, codes
        self.places = {name: at for at, name in enumerate(names)}
        self.struct = struct.Struct(codes)

    def column(self, cells: bytes, at: int) -> np.ndarray:
        """Return the numbers of a metric of several records, as float64."""
        import numpy as np

        kind = np.int64 if self.codes[at] == "q" else np.float64
        return np.frombuffer(cells, kind)[at :: len(self.names)].astype(np.float64)


@lru_cache(maxsize=1024)
def _layout(names: tuple[str, ...], types: tuple[type, ...]) -> Layout:
    return Layout(names, "".join(_CODES[each] for each in types))
