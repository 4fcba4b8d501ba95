"""A mode for tests: arrays are poisoned when they begin, and incomplete ones are detected when they are read.

A read takes an array for the complete tile that it holds. A loop nest that wrote only a part would leave the rest
unchanged, and nothing would detect that. In this mode a second array beside each one marks the elements that loop
nests wrote. Operations across lanes do not mark. Of their arrays, the elements count that are no longer poison.
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
    """The C that poisons and checks the arrays of one function. Outside of the mode there is none.

    Args:
        scratch: the layout of arrays, which knows whether the mode is on.
        line: takes a line of C.
    """

    def __init__(self, scratch: Scratch, line: Callable[[str], None]) -> None:
        self._scratch = scratch
        self._line = line
        self._types: dict[str, Type] = {}
        self._told: set[str] = set()  # arrays whose elements loop nests write and mark
        self._partial: set[str] = set()

    def begin(self, array: str, type_: Type) -> None:
        """Poison a new array."""
        if self._scratch.is_checked:
            self._types[array] = type_
            self._scratch.add(_beside(array), Type("i8", type_.shape))
            self._line(f"memset({array}, {_POISON:#x}, {type_.elements * type_.bytes});")
            self._line(f"memset({_beside(array)}, 0, {type_.elements});")

    def written(self, array: str, place: str) -> str:
        """The C that marks an element, behind its assignment by a loop nest."""
        if array not in self._types:
            return ""
        self._told.add(array)
        return f" {_beside(array)}[{place}] = 1;"

    def moved(self, source: str, target: str) -> None:
        """Record that one array was copied to another."""
        if target in self._types:
            if source in self._told:
                self._told.add(target)
            elements = self._types[target].elements
            self._line(f"memcpy({_beside(target)}, {_beside(source)}, {elements});")

    def allow_partial(self, array: str) -> None:
        """Record that an array holds only those lanes that are stored later."""
        self._partial.add(array)

    def read(self, array: str, value: Value) -> None:
        """Check an array that is about to be read as the complete tile.

        Integers and floats of 8 and 16 bits may equal the poison, so they are checked only where a loop nest marks.
        """
        if array not in self._types or array in self._partial:
            return
        type_ = self._types[array]
        by_value = type_.bytes >= 4 or type_.element == "i1"
        if by_value or array in self._told:
            complaint = c_string(f"{ASSERTION}{_place(value)}: {_COMPLAINT}".encode().decode("latin-1"))
            arguments = f"{array}, {_beside(array)}, {type_.elements}, {type_.bytes}, {by_value:d}"
            # The first complaint is kept, because values computed from poison may be poison.
            self._line(f"if (!*grid->failure && !kept_in_full({arguments})) *grid->failure = {complaint};")


def _beside(array: str) -> str:
    """The array that marks which elements of another were written."""
    return f"told{array}"


def _place(value: Value) -> str:
    """The Python line that makes a tile, or else one that needs it, with the operation."""
    concerned = [*([value.producer] if value.producer is not None else []), *value.users]
    for operation in concerned:
        if operation.nearest_source is not None:
            file, line, _ = operation.nearest_source
            return f"{file}:{line}: {operation.name}"
    return concerned[0].line if concerned else "?"
