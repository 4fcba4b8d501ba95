"""Bounds checks: accesses are checked against the tensors of a launch (FUSETUNE_CHECK_BOUNDS=1, `check_bounds=True`).

The launcher passes the beginning and the end of each pointer argument's memory. A lane's load, store or atomic update
is made if it is within one of them. Otherwise it is left out and recorded, and the launch raises when all programs have
ended. An address that is loaded from a table of pointers, or computed from numbers, may be right wherever it leads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fusetune.kernels.cpu.diagnostics import place
from fusetune.kernels.cpu.failures import OUT_OF_BOUNDS, SEPARATOR
from fusetune.kernels.cpu.ir_tree import Operation, Value
from fusetune.kernels.cpu.ir_types import Type
from fusetune.kernels.cpu.lowering.constants import c_string
from fusetune.kernels.cpu.lowering.shape import VIEWS

TYPES = """
typedef struct { uint64_t at, begin, end; } region_t;
typedef struct { int32_t count, taken; const region_t *regions; char *complaint; } bounds_t;
"""
FIELD = "bounds_t *bounds; "
FUNCTIONS = r"""
/* An access of some bytes lies in one of the regions; `own`, if not negative, is that of the pointer's argument. */
static __attribute__((noinline)) bool is_noted(const grid_t *grid) {
  return __atomic_load_n(&grid->bounds->taken, __ATOMIC_SEQ_CST) != 0;
}
static __attribute__((noinline)) bool inside(
    const grid_t *grid, const volatile void *p, int64_t size, int32_t own, const char *what) {
  bounds_t *const bounds = grid->bounds;
  const uint64_t at = (uint64_t)p, end = at + (uint64_t)size;
  for (int32_t i = 0; i < bounds->count; ++i) {
    const region_t *const each = &bounds->regions[i];
    if (each->end == UINT64_MAX ? own < 0 || own == i : at >= each->begin && end <= each->end && end > at) return true;
  }
  int32_t nobody = 0;
  if (__atomic_compare_exchange_n(&bounds->taken, &nobody, 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    const region_t origin = own < 0 ? (region_t){0} : bounds->regions[own];
    const int64_t first = (int64_t)(origin.begin - origin.at), last = (int64_t)(origin.end - origin.at);
    snprintf(bounds->complaint, COMPLAINT_BYTES, "OUT_OF_BOUNDS%s" NUMBER NUMBER NUMBER NUMBER NUMBER, what,
             (long long)own, (long long)size, (long long)(at - origin.at), (long long)first, (long long)last);
  }
  return false;
}
"""
_COMPLAINT_BYTES = 4096
_TABLE, _UNKNOWN, _ANY = -3, -2, -1
_NAMES = {"tt.load": "load", "tt.store": "store"}


def definitions() -> str:
    """The C functions that check accesses."""
    text = FUNCTIONS.replace("OUT_OF_BOUNDS", OUT_OF_BOUNDS).replace("COMPLAINT_BYTES", str(_COMPLAINT_BYTES))
    return text.replace("NUMBER", f'"\\{ord(SEPARATOR):03o}%lld"')


def beginning(regions: int, offset: int) -> str:
    """The C that the entry begins with, when accesses are checked.

    Args:
        regions: how many the launcher passes.
        offset: where they begin among the arguments' bytes.
    """
    return "\n".join(
        [
            f"  static __thread char out_of_bounds[{_COMPLAINT_BYTES}];",
            f"  region_t regions[{max(1, regions)}];",
            f"  memcpy(regions, arguments + {offset}, {regions} * sizeof(region_t));",
            f"  bounds_t bounds = {{{regions}, 0, regions, out_of_bounds}};",
        ]
    )


ENDING = "  if (bounds.taken) failure = out_of_bounds;"


class Bounds:
    """The argument that each pointer of a module is derived from.

    Args:
        functions: of the module.
    """

    def __init__(self, functions: Sequence[Operation]) -> None:
        self._regions: dict[Value, int] = {}
        self._handed: dict[Value, list[Value]] = {}
        self._has_tables = False
        callees = {function.text("sym_name"): function for function in functions}
        for function in functions:
            blocks = function.regions[0]
            if function.text("sym_visibility") == "public":
                pointers = [argument for argument in blocks[0].arguments if argument.type.is_pointer]
                self._regions = {argument: number for number, argument in enumerate(pointers)}
            for operation in (each for block in blocks for each in block.walk()):
                self._has_tables |= _kind(operation) == _TABLE
                self._note(operation, callees)

    @property
    def regions(self) -> int:
        """The number of the kernel's pointer arguments."""
        return len(self._regions)

    def condition(self, access: Operation, address: str) -> str:
        """The C condition that an access is within the tensors.

        An address that is not checked is used until another access was out of bounds: after that it may be garbage.

        Args:
            access: its first operand is the pointer, or the tile of pointers.
            address: C expression of the pointer.
        """
        pointer = access.operands[0]
        own = self._origin(pointer)
        if own is None:
            return "!is_noted(grid)"
        name = _NAMES.get(access.name, "atomic access")
        what = c_string(f"{name}{SEPARATOR}{place(access)}".encode().decode("latin-1"))
        return f"inside(grid, {address}, {Type(pointer.type.pointee).bytes}, {own}, {what})"

    def _origin(self, pointer: Value) -> int | None:
        """The number of the one argument that a pointer is derived from, or `_ANY`. None: it is not checked."""
        found: set[int] = set()
        seen: set[Value] = set()
        waiting = [pointer]
        while waiting:
            value = waiting.pop()
            if value in seen:
                continue
            seen.add(value)
            if value in self._regions:
                found.add(self._regions[value])
            elif value in self._handed:
                waiting += self._handed[value]
            elif value.producer is None:
                found.add(_UNKNOWN)
            elif (kind := _kind(value.producer)) is not None:
                found.add(kind)
            else:
                waiting += [operand for operand in value.producer.operands if operand.type.is_pointer]
        if _TABLE in found or (_UNKNOWN in found and self._has_tables):
            return None
        return found.pop() if len(found) == 1 and min(found) >= 0 else _ANY

    def _note(self, operation: Operation, callees: dict[str, Operation]) -> None:
        """Record the values that control flow passes to others."""
        name, blocks = operation.name, [block for region in operation.regions for block in region]
        if name == "scf.for":
            (body,) = blocks
            for handed in (operation.operands[3:], body.operations[-1].operands):
                self._hand(body.arguments[1:], handed)
                self._hand(operation.results, handed)
        elif name == "scf.while":
            before, after = blocks
            self._hand(before.arguments, operation.operands)
            self._hand(before.arguments, after.operations[-1].operands)
            self._hand(after.arguments, before.operations[-1].operands[1:])
            self._hand(operation.results, before.operations[-1].operands[1:])
        elif name == "scf.if":
            for block in blocks:
                self._hand(operation.results, block.operations[-1].operands)
        elif name in ("cf.br", "cf.cond_br"):
            handed = operation.operands[1:] if name == "cf.cond_br" else operation.operands
            for block in operation.successors:
                self._hand(block.arguments, handed)
                handed = handed[len(block.arguments) :]
        elif name == "tt.call":
            callee = callees[operation.handle.get_flat_symbol_ref_attr("callee")]
            self._hand(callee.regions[0][0].arguments, operation.operands)

    def _hand(self, targets: Iterable[Value], values: Iterable[Value]) -> None:
        for target, value in zip(
            targets, values, strict=False
        ):  # an `if` may have no results, a branch more operands
            if target.type.is_pointer:
                self._handed.setdefault(target, []).append(value)


def _kind(operation: Operation) -> int | None:
    """The kind of a pointer that an operation makes from no other pointer."""
    pointers = [result for result in operation.results if result.type.is_pointer]
    if not pointers:
        return None
    if operation.name in ("tt.int_to_ptr", "tt.load"):
        return _TABLE
    passed_on = operation.name in (
        "tt.addptr",
        "tt.splat",
        "tt.bitcast",
        "arith.select",
        "tt.join",
        "tt.cat",
        *VIEWS,
    )
    return None if passed_on or operation.regions else _UNKNOWN
