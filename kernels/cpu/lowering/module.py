"""A whole module in C: the prelude, its functions, and the entry that runs the grid on threads."""

from __future__ import annotations

from dataclasses import dataclass

from fusetune.kernels.cpu.diagnostics import faults_of
from fusetune.kernels.cpu.failures import LANES_OVERLAP
from fusetune.kernels.cpu.ir_tree import Operation, Value
from fusetune.kernels.cpu.lowering import (
    atomics,
    bounds,
    branches,
    control,
    debug,
    dot,
    gather,
    injective,
    kept_tiles,
    memory,
    outline,
    program,
    reduce,
    waiting,
)
from fusetune.kernels.cpu.lowering.bounds import Bounds
from fusetune.kernels.cpu.lowering.constants import c_string
from fusetune.kernels.cpu.lowering.emitter import Emitter, Lower
from fusetune.kernels.cpu.lowering.functions import SharedFunctions
from fusetune.kernels.cpu.lowering.math import declarations
from fusetune.kernels.cpu.lowering.overlaps import Apart, Overlaps
from fusetune.kernels.cpu.lowering.prelude import PRELUDE
from fusetune.kernels.cpu.lowering.program import function_name, programs_worth_a_thread
from fusetune.kernels.cpu.lowering.scratch import Scratch

LOWERINGS: dict[str, Lower] = {
    **memory.LOWERINGS,
    **program.LOWERINGS,
    **control.LOWERINGS,
    **branches.LOWERINGS,
    **reduce.LOWERINGS,
    **atomics.LOWERINGS,
    **dot.LOWERINGS,
    **gather.LOWERINGS,
    **debug.LOWERINGS,
}
ENTRY = "run"

_GRID = """
typedef struct {{ int32_t place[3], size[3]; const char **failure; {fields}}} grid_t;
"""
_ENTRY = """
const char *{entry}(int32_t x, int32_t y, int32_t z, int32_t threads, const char *arguments) {{
  const char *failure = NULL;
{unpacking}
{beginning}
  const int64_t programs = (int64_t)x * y * z;
  /* One thread or all: libgomp ends the threads that a smaller team leaves over, and begins them anew. */
  const int32_t team = programs < {few} ? 1 : threads;
  #pragma omp parallel num_threads(team) if (team > 1)
  {{
    {scratch}
    #pragma omp for schedule(static)
    for (int64_t i = 0; i < programs; ++i) {{
      grid_t place = {{{{i % x, i / x % y, i / x / y}}, {{x, y, z}}, &failure{bounds}}};
      {call};
    }}
    {release}
  }}
{ending}
  return failure;
}}
"""
# Larger scratch memory is not on a thread's stack.
_MOST_ON_STACK = 256 << 10


@dataclass(frozen=True)
class Code:
    """The C code of a module.

    Args:
        name: of the kernel.
        text: the C code.
        scratch_bytes: memory that each thread needs for its arrays.
        has_runs: loops are split into runs of lanes, which end anywhere.
        apart: the assumptions about aliasing of the kernel's pointer arguments, see `overlaps`.
    """

    name: str
    text: str
    scratch_bytes: int
    has_runs: bool
    apart: tuple[Apart, ...]


def lower_module(
    functions: list[Operation],
    arguments_overlap: bool = False,
    check_bounds: bool = False,
    check_tiles: bool = False,
) -> Code:
    """Lower the functions of a module to C.

    Args:
        functions: the kernel and the functions that it calls, see `kernels.cpu.ir_tree`.
        arguments_overlap: assume nothing about aliasing of the kernel's pointer arguments.
        check_bounds: check each access against the tensors passed, see `bounds`.
        check_tiles: the code checks that the tiles kept in arrays are complete, see `kept_tiles`.

    Raises:
        CompilationError: an operation or a type has no C counterpart, or this package has a bug.
    """
    scratch, shared = Scratch(check_tiles), SharedFunctions()
    heads, bodies = [], []
    kernel: Operation | None = None
    name, has_runs = "", False
    apart: list[Apart] = []
    conditions: list[str] = []
    can_wait = waiting.can_wait(functions)
    held_to = Bounds(functions) if check_bounds else None
    for function in functions:
        is_kernel = function.text("sym_visibility") != "private"
        if is_kernel:
            kernel, name = function, function.text("sym_name")
        with faults_of(function):
            parameters = _parameters(function)
            # Launches check the arguments of the kernel, but not those of the functions that it calls.
            overlaps = Overlaps(arguments_overlap or not is_kernel)
            emitter = _emitted(function, Emitter(LOWERINGS, scratch, overlaps, shared), can_wait, held_to)
        outlined = outline.Function(
            function_name(function.text("sym_name")), parameters, scratch.declarations(), emitter.lines
        )
        heads.append(f"{outlined.head};")
        apart += emitter.overlaps.apart
        conditions += emitter.overlaps.conditions
        has_runs |= emitter.has_runs
        bodies += outline.definitions(outlined)
    assert kernel is not None, "a module has one public function"
    bodies = [*shared.definitions(), *bodies]
    looking = [injective.FUNCTIONS] if conditions else []
    checking = [kept_tiles.FUNCTIONS] if check_tiles else []
    before = [waiting.GRID] if can_wait else []
    fields = waiting.FIELD if can_wait else ""
    behind = []
    if can_wait:
        behind = [waiting.definitions(min(scratch.bytes, _MOST_ON_STACK)), waiting.POLLING]
    if held_to is not None:
        before.append(bounds.TYPES)
        fields += bounds.FIELD
        behind.append(bounds.definitions())
    parts = [
        PRELUDE,
        declarations("\n".join(bodies)),
        *before,
        _GRID.format(fields=fields),
        atomics.FUNCTIONS,
        *behind,
        *looking,
        *checking,
        *heads,
        *bodies,
    ]
    few = None if can_wait else programs_worth_a_thread(functions)
    entry = _entry(kernel, name, scratch.bytes, few, conditions, held_to)
    return Code(name, "\n".join([*parts, entry]), scratch.bytes, has_runs, tuple(apart))


def _parameters(function: Operation) -> list[str]:
    """A function's parameters, as C declares them."""
    parameters = ["const grid_t *grid", "char *scratch"]
    for place, argument in enumerate(function.regions[0][0].arguments):
        parameters.append(f"{argument.type.c} arg{place}")
    for place, result in enumerate(_returned(function)):
        parameters.append(f"{result.type.c} *result{place}")
    return parameters


def _returned(function: Operation) -> list[Value]:
    """The values that a function returns, by one of its returns."""
    returns = (
        operation
        for block in function.regions[0]
        for operation in block.operations
        if operation.name == "tt.return"
    )
    return next((operation.operands for operation in returns), [])


def _emitted(function: Operation, emitter: Emitter, waits: bool, held_to: Bounds | None) -> Emitter:
    """Emit a function, and return its emitter."""
    emitter.waits, emitter.bounds = waits, held_to
    blocks = function.regions[0]
    for place, argument in enumerate(blocks[0].arguments):
        emitter.scalars[argument] = f"arg{place}"
        emitter.arguments[argument] = place
    branches.emit_blocks(emitter, blocks)
    emitter.flush()
    return emitter


def _entry(
    kernel: Operation,
    symbol: str,
    scratch_bytes: int,
    few: int | None,
    conditions: list[str],
    held_to: Bounds | None,
) -> str:
    """The function that is called from Python: it unpacks the arguments and runs every program of the grid.

    Args:
        few: fewer programs run on one thread. None: programs can wait for others.
        conditions: injectivity that the code assumes, see `injective`.
        held_to: the bounds checks, if accesses are checked.
    """
    unpacking = []
    offset = 0
    arguments: list[Value] = kernel.regions[0][0].arguments
    for place, argument in enumerate(arguments):
        unpacking.append(f"  {argument.type.c} arg{place};")
        unpacking.append(f"  memcpy(&arg{place}, arguments + {offset}, sizeof arg{place});")
        offset += argument.type.bytes
    names = ["&place", "scratch", *(f"arg{place}" for place in range(len(arguments)))]
    on_stack = scratch_bytes <= _MOST_ON_STACK
    if on_stack:
        allocation = f"char scratch[{max(64, scratch_bytes)}] __attribute__((aligned(64)));"
    else:
        allocation = f"char *scratch = aligned_alloc(64, {scratch_bytes});"
    beginning = [f"  if (!{condition}) return {c_string(LANES_OVERLAP)};" for condition in conditions]
    if held_to is not None:
        beginning.append(bounds.beginning(held_to.regions, offset))
    parts = {
        "entry": ENTRY,
        "unpacking": "\n".join(unpacking),
        "beginning": "\n".join(beginning),
        "scratch": allocation,
        "call": f"{function_name(symbol)}({', '.join(names)})",
        "release": "" if on_stack else "free(scratch);",
        "ending": bounds.ENDING if held_to is not None else "",
    }
    if few is None:
        return waiting.entry(held_to is not None, **parts)
    return _ENTRY.format(few=few, bounds=", &bounds" if held_to is not None else "", **parts)
