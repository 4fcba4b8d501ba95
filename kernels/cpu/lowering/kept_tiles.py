"""A mode for tests: arrays are poisoned where they begin, and found not to be whole where they are read.

What is read of an array is taken for the tile that it holds. A loop nest that wrote a part of it would leave the rest
as it was, and nothing would say so. In this mode each array has another beside it, which tells what loop nests wrote.
Operations across lanes do not tell: of their arrays the elements count that are no longer poison.
"""

from __future__ import annotations

from collections.abc import Callable

from fusetune.kernels.cpu.failures import ASSERTION
from fusetune.kernels.cpu.ir_tree import Value
from fusetune.kernels.cpu.ir_types import Type
from fusetune.kernels.cpu.lowering.constants import c_string
from fusetune.kernels.cpu.lowering.scratch import Scratch

_POISON = 0xA5  # each byte: no bool, and as a float of 32 bits -2.9e-16
_COMPLAINT = (
    "a tile is read that was not kept in full; this is a fault of the CPU backend. Report it together with "
    "the kernel."
)
FUNCTIONS = f"""
INLINE bool kept_in_full(const void *array, const int8_t *written, int32_t elements, int32_t bytes, bool by_value) {{
  const uint8_t *byte = array;
  for (int32_t l = 0; l < elements; ++l) {{
    int32_t poisoned = 0;
    for (int32_t b = 0; b < bytes; ++b) poisoned += byte[l * bytes + b] == {_POISON:#x};
    if (!written[l] && (!by_value || poisoned == bytes)) return false;
  }}
  return true;
}}
"""


class KeptTiles:
    """The lines of C that poison and check the arrays of one function. None, outside of the mode.

    Args:
        scratch: where arrays are laid out; it says whether the mode is on.
        line: takes a line of C.
    """

    def __init__(self, scratch: Scratch, line: Callable[[str], None]) -> None:
        self._scratch = scratch
        self._line = line
        self._types: dict[str, Type] = {}
        self._told: set[str] = set()  # arrays that loop nests write, and tell of
        self._partial: set[str] = set()

    def begin(self, array: str, type_: Type) -> None:
        """Poison a new array."""
        if self._scratch.is_checked:
            self._types[array] = type_
            self._scratch.add(_beside(array), Type("i8", type_.shape))
            self._line(f"memset({array}, {_POISON:#x}, {type_.elements * type_.bytes});")
            self._line(f"memset({_beside(array)}, 0, {type_.elements});")

    def written(self, array: str, place: str) -> str:
        """What is to follow the assignment of one element by a loop nest."""
        if array not in self._types:
            return ""
        self._told.add(array)
        return f" {_beside(array)}[{place}] = 1;"

    def moved(self, source: str, target: str) -> None:
        """Note that one array was copied to another."""
        if target in self._types:
            if source in self._told:
                self._told.add(target)
            elements = self._types[target].elements
            self._line(f"memcpy({_beside(target)}, {_beside(source)}, {elements});")

    def allow_partial(self, array: str) -> None:
        """Note that an array holds those lanes alone that are stored later on."""
        self._partial.add(array)

    def read(self, array: str, value: Value) -> None:
        """Check an array that is about to be read as the tile that it holds.

        Integers and floats of 8 and 16 bits may well equal the poison: they are checked where a loop nest tells.
        """
        if array not in self._types or array in self._partial:
            return
        type_ = self._types[array]
        by_value = type_.bytes >= 4 or type_.element == "i1"
        if by_value or array in self._told:
            complaint = c_string(f"{ASSERTION}{_place(value)}: {_COMPLAINT}".encode().decode("latin-1"))
            arguments = f"{array}, {_beside(array)}, {type_.elements}, {type_.bytes}, {by_value:d}"
            # The first complaint stays: what is computed of poison may be poison.
            self._line(f"if (!*grid->failure && !kept_in_full({arguments})) *grid->failure = {complaint};")


def _beside(array: str) -> str:
    """The array that tells which elements of another were written."""
    return f"told{array}"


def _place(value: Value) -> str:
    """The line of Python that makes a tile, or else one that needs it, and by which operation."""
    concerned = [*([value.producer] if value.producer is not None else []), *value.users]
    for operation in concerned:
        if operation.nearest_source is not None:
            file, line, _ = operation.nearest_source
            return f"{file}:{line}: {operation.name}"
    return concerned[0].line if concerned else "?"
