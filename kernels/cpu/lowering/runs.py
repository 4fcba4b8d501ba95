"""Strip-mining by quotients: the innermost loop is split into runs of lanes that share a quotient.

    row, column = place // columns, place % columns

differ in every lane. Within a row only the column changes, by 1, so the elements that it addresses are neighbours. The
innermost loop is therefore split where a row ends. Within a run the quotient is uniform, and accesses are contiguous.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from fusetune.kernels.cpu.ir_tree import Value
from fusetune.kernels.cpu.lowering.addresses import DIVISIONS, Affine, Division
from fusetune.kernels.cpu.lowering.shape import Index
from fusetune.kernels.cpu.lowering.state import FunctionState

# Beginning a run takes about as long as dividing and gathering in this many lanes.
_LEAST_LANES = 32
Element = tuple[Value, Index]


@dataclass(frozen=True)
class Quotient:
    """A quotient that is uniform over a run of neighbouring lanes.

    Args:
        name: of the C variable that holds it during the run.
        division: the tiles that are divided, and the index.
        dividend: grows by 1 from lane to lane.
        divisor: the same for all lanes: a C expression or a number.
        width: bits of both.
    """

    name: str
    division: Division
    dividend: Affine
    divisor: str | int
    width: int


def find_quotients(
    state: FunctionState, elements: Iterable[Element], pointers: Iterable[Element], inner: str, lanes: int
) -> list[Quotient]:
    """Find the divisions that split the innermost lanes into runs. None if no access becomes contiguous by them.

    Args:
        elements: what the loop nest computes, in program order.
        pointers: the elements of pointers that it loads from or stores to.
        inner: the variable of its innermost loop.
        lanes: of that loop. A short one, such as a tail, is not split.
    """
    if lanes < _LEAST_LANES:
        return []
    addresses = state.addresses
    scattered = [element for element in pointers if addresses.affine(*element) is None]
    found: list[Quotient] = []
    for value, index in elements if scattered else ():
        quotient = _quotient(state, value, index, inner)
        if quotient is not None:
            found.append(quotient)
            addresses.quotients[quotient.division] = quotient.name
    helps = any(addresses.affine(*element) is not None for element in scattered)
    addresses.quotients.clear()
    return found if helps else []


@contextmanager
def one_number_each(state: FunctionState, quotients: Sequence[Quotient]) -> Iterator[None]:
    """Within the context, treat the quotients as uniform over all lanes."""
    state.addresses.quotients.update({each.division: each.name for each in quotients})
    yield
    state.addresses.quotients.clear()


def are_long(quotients: Sequence[Quotient]) -> str:
    """The C condition that the runs are long enough. Empty where that is known."""
    open_ = [each.divisor for each in quotients if isinstance(each.divisor, str)]
    return " && ".join(f"{divisor} >= {_LEAST_LANES}" for divisor in open_)


def begin_run(state: FunctionState, quotients: Sequence[Quotient], inner: str, first: str, end: str) -> str:
    """Emit the quotients of the run from lane `first` on, and return a C expression of the lane behind its last."""
    state.has_runs = True
    for each in quotients:
        at = state.name("at")
        c = f"int{each.width}_t"
        state.line(f"const {c} {at} = ({c})({each.dividend.c(without=inner)} + {first});")
        state.line(f"const {c} {each.name} = div_i{each.width}({at}, {each.divisor});")
        end = f"fewer({end}, {first} + lanes_left({at}, {each.name}, {each.divisor}))"
    return end


def _quotient(state: FunctionState, value: Value, index: Index, inner: str) -> Quotient | None:
    """Describe a division by which the lanes of the innermost loop are split into runs."""
    division = value.producer
    if division is None or division.name not in DIVISIONS or not value.type.is_tile:
        return None
    first, second = division.operands
    dividend, divisor = state.addresses.affine(first, index), state.addresses.affine(second, index)
    key = (first, second, index)
    if dividend is None or divisor is None or divisor.coefficients or key in state.addresses.quotients:
        return None
    by = divisor.constant
    if isinstance(by, str) and any(name in by for name in state.addresses.quotients.values()):
        return None  # known only within a run, too late to tell whether runs are long
    if dividend.coefficients.get(inner) != 1 or (isinstance(by, int) and by < _LEAST_LANES):
        return None
    return Quotient(state.name("q"), key, dividend, by, dividend.width)
