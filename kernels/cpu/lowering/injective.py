"""Whether the addresses of a tile's lanes are injective, so that one lane may store before another has loaded.

    pointer(i0, i1, ...) = base + coefficient0 * i0 + coefficient1 * i1 + ...

is injective if each coefficient, in rising order, exceeds the largest sum that the smaller ones reach. Coefficients
known only at launch, such as strides, give a condition. The shared object's entry checks it before any program runs.
Where it does not hold, the kernel is compiled once more without assumptions (see `overlaps`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from fusetune.kernels.cpu.ir_tree import Value
from fusetune.kernels.cpu.lowering.addresses import SIGNED_COMPARISONS, Addresses, Number
from fusetune.kernels.cpu.lowering.constants import decimal, integer
from fusetune.kernels.cpu.lowering.elementwise import RULES
from fusetune.kernels.cpu.lowering.shape import VIEWS, Index, viewed

FUNCTIONS = r"""
static bool injective(int32_t rank, const int64_t *steps, const int64_t *lanes) {
  unsigned __int128 reach = 0;
  uint32_t left = 0;
  for (int32_t d = 0; d < rank; ++d) {
    if (lanes[d] <= 0) return true;
    if (lanes[d] > 1) left |= 1u << d;
  }
  while (left != 0) {
    int32_t smallest = -1;
    uint64_t step = 0;
    for (int32_t d = 0; d < rank; ++d) {
      const uint64_t size = steps[d] < 0 ? 0 - (uint64_t)steps[d] : (uint64_t)steps[d];
      if ((left >> d & 1) != 0 && (smallest < 0 || size < step)) { smallest = d; step = size; }
    }
    if (step <= reach) return false;
    reach += (unsigned __int128)step * (uint64_t)(lanes[smallest] - 1);
    left &= ~(1u << smallest);
  }
  return true;
}
"""
_LOCAL = re.compile(r"\b[a-z]+\d+\b")
_ARGUMENT = re.compile(r"arg\d+$")
_MOST_CHARACTERS = 4000
_GRID_AXES = "xyz"


def injective(addresses: Addresses, pointer: Value, masks: Sequence[Value | None]) -> bool | str:
    """Return whether the addresses of a tile's lanes are injective, or under which condition.

    Args:
        pointer: the tile.
        masks: of the accesses at these addresses. Lanes beyond the limits of all masks are not checked.

    Returns: a C condition in the kernel's arguments, where coefficients are known only at launch. False where that
        cannot be decided before the kernel runs.
    """
    variables = [f"i{d}" for d in range(len(pointer.type.dimensions))]
    sizes = dict(zip(variables, pointer.type.dimensions, strict=True))
    index = tuple("0" if size == 1 else name for name, size in sizes.items())
    at = addresses.affine(pointer, index)
    if at is None:
        return False
    factors = {name: at.coefficients.get(name, 0) for name, size in sizes.items() if size != 1}
    known = sorted((abs(factor), name) for name, factor in factors.items() if isinstance(factor, int))
    reach = 0  # of the lanes with smaller coefficients
    for factor, name in known:
        if factor <= reach:
            return False
        reach += factor * (sizes[name] - 1)
    if len(known) == len(factors):
        return True
    steps = [_at_entry(addresses, factor) for factor in factors.values()]
    if None in steps:
        return False
    bounds = [_bounds(addresses, mask, index) for mask in masks]
    lanes = [_lanes(sizes[name], [each.get(name) for each in bounds]) for name in factors]
    arrays = (f"(const int64_t[]){{{', '.join(map(str, each))}}}" for each in (steps, lanes))
    return f"injective({len(factors)}, {', '.join(arrays)})"


def _lanes(size: int, bounds: Sequence[str | None]) -> str:
    """The number of lanes of a dimension that may be active, as a C expression: the largest limit of the masks."""
    found = dict.fromkeys(bounds)
    if not found or None in found:
        return str(size)
    largest, *others = (str(each) for each in found)
    for other in others:
        largest = f"({largest} > {other} ? {largest} : {other})"
    return f"fewer({size}, {largest})"


def _bounds(addresses: Addresses, mask: Value | None, index: Index) -> Mapping[str, str]:
    """Lanes' variable -> an exclusive upper bound of active lanes, a C expression in the kernel's arguments."""
    producer = mask.producer if mask is not None and mask.type.is_tile else None
    if mask is None or producer is None:
        return {}
    if producer.name in VIEWS:
        return _bounds(addresses, *viewed(mask, index))
    if producer.name == "arith.andi":
        first, second = (_bounds(addresses, operand, index) for operand in producer.operands)
        return {**first, **second}
    if producer.name != "arith.cmpi" or producer.predicate not in SIGNED_COMPARISONS:
        return {}
    direction, or_equal = SIGNED_COMPARISONS[producer.predicate]
    low, high = producer.operands if direction == "<" else reversed(producer.operands)
    start, end = addresses.compared(low, index), addresses.compared(high, index)
    if start is None or end is None or any(factor != 0 for factor in end.coefficients.values()):
        return {}
    moving = {name: factor for name, factor in start.coefficients.items() if factor != 0}
    limit = _at_entry(addresses, end.constant)
    if list(moving.values()) != [1] or limit is None or not _is_non_negative(low):
        return {}
    return dict.fromkeys(moving, f"((int64_t){limit} + {or_equal:d})")


def _is_non_negative(value: Value) -> bool:
    """Return whether an integer, or every element of a tile, is known to be >= 0 unless a sum wraps around."""
    producer = value.producer
    if producer is None:
        return False
    if producer.name == "arith.constant":
        number = decimal(producer)
        return number is not None and number >= 0
    if producer.name in ("tt.get_program_id", "tt.get_num_programs", "tt.make_range"):
        return True
    if producer.name in (*VIEWS, "tt.splat", "arith.addi", "arith.muli", "arith.divsi", "arith.extsi"):
        return all(map(_is_non_negative, producer.operands))
    return producer.name == "arith.remsi" and _is_non_negative(producer.operands[0])


def _at_entry(addresses: Addresses, number: Number) -> str | None:
    """A number, or C expression of the function, in terms of the kernel's arguments. None: it is not known at entry."""
    if isinstance(number, int):
        return integer(number, 64)
    producers = {name: value for value, name in addresses.scalars.items()}
    known: dict[str, str | None] = {}

    def spelt_out(expression: str) -> str | None:
        for name in dict.fromkeys(_LOCAL.findall(expression)):
            if name not in known:
                known[name] = name if _ARGUMENT.match(name) else made(producers.get(name))
            if known[name] is None:
                return None
        text = _LOCAL.sub(lambda found: str(known[found[0]]), expression)
        return text if len(text) <= _MOST_CHARACTERS else None

    def made(value: Value | None) -> str | None:
        """The expression of a scalar that is neither loaded nor different between programs."""
        producer = None if value is None else value.producer
        if producer is None:
            return None
        if producer.name == "tt.get_num_programs":
            return _GRID_AXES[producer.axis]
        if producer.name not in RULES:
            return None
        operands = [spelt_out(addresses.scalars[operand]) for operand in producer.operands]
        if None in operands:
            return None
        return f"({RULES[producer.name](producer, [f'({operand})' for operand in operands])})"

    found = spelt_out(number)
    return None if found is None else f"({found})"
