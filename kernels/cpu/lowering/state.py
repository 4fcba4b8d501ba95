"""The state of one function during its lowering: its lines of C, and the place of each value."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fusetune.kernels.cpu.ir_tree import Block, Operation, Value
from fusetune.kernels.cpu.ir_types import Type
from fusetune.kernels.cpu.lowering.addresses import Addresses, Carried
from fusetune.kernels.cpu.lowering.bounds import Bounds
from fusetune.kernels.cpu.lowering.elementwise import Costs
from fusetune.kernels.cpu.lowering.functions import SharedFunctions
from fusetune.kernels.cpu.lowering.kept_tiles import KeptTiles
from fusetune.kernels.cpu.lowering.overlaps import Overlaps
from fusetune.kernels.cpu.lowering.scratch import Scratch
from fusetune.kernels.cpu.lowering.shape import VIEWS


class FunctionState:
    """Lines of C and the names of values.

    Args:
        scratch: the layout of arrays, shared by the functions of a module.
        functions: C functions that the module's functions share.

    Attributes:
        scalars: scalar -> C expression.
        arrays: tile -> the array that holds its elements.
        carried: induction variables, tiles that a loop advances by a constant step.
        arguments: argument of the function -> its number.
        done: operations on tiles that have been emitted.
        labels: of the blocks that are still to come.
        has_runs: loops were split into runs of lanes, see `runs`.
        waits: programs of the kernel can wait for others, see `waiting`.
        bounds: the bounds checks, see `bounds`, or None.
        overlaps: the alias analysis of the pointer arguments, with its assumptions.
        kept: checks the contents of the arrays, if asked to.
    """

    def __init__(self, scratch: Scratch, overlaps: Overlaps, functions: SharedFunctions) -> None:
        self.lines: list[str] = []
        self.scalars: dict[Value, str] = {}
        self.arrays: dict[Value, str] = {}
        self.carried: dict[Value, Carried] = {}
        self.done: set[Operation] = set()
        self.labels: dict[Block, str] = {}
        self.has_runs = False
        self.waits = False
        self.bounds: Bounds | None = None
        self.overlaps = overlaps
        self.functions = functions
        self.costs = Costs()
        self.arguments: dict[Value, int] = {}
        self.addresses = Addresses(self.scalars, self.carried, self.arguments)
        self.kept = KeptTiles(scratch, self.line)
        self._scratch = scratch
        self._names = 0

    def name(self, prefix: str) -> str:
        """A name that the function does not have yet."""
        self._names += 1
        return f"{prefix}{self._names}"

    def line(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def braces(self, head: str) -> Iterator[None]:
        """Lines within braces behind `head`."""
        self.line(f"{head} {{")
        yield
        self.line("}")

    @contextmanager
    def branch(self, own: Block | None = None) -> Iterator[None]:
        """Lines that may not run. Arrays filled there are forgotten, except those of the block `own`'s values."""
        known = set(self.arrays)
        yield
        made = set(own.operations) if own is not None else set()
        for value in set(self.arrays) - known:
            if value.producer not in made:
                del self.arrays[value]

    def inside(self, access: Operation, address: str) -> list[str]:
        """The C condition that an access is in bounds, where accesses are checked."""
        return [self.bounds.condition(access, address)] if self.bounds is not None else []

    def changed(self, condition: str = "") -> None:
        """Record that memory has changed, under a C condition, where programs can wait for that."""
        if self.waits:
            self.line(f"{f'if ({condition}) ' if condition else ''}changed(grid);")

    def new_array(self, type_: Type) -> str:
        """Lay out an array for a tile's elements."""
        name = self.name("a")
        self._scratch.add(name, type_)
        self.kept.begin(name, type_)
        return name

    def new_scalar(self, value: Value) -> str:
        """Declare a C variable for a scalar that is assigned later."""
        self.scalars[value] = self.name("v")
        self.line(f"{value.type.c} {self.scalars[value]};")
        return self.scalars[value]

    def scalar(self, value: Value, expression: str) -> None:
        """Declare a C variable with its value."""
        self.scalars[value] = self.name("v")
        self.line(f"{value.type.c} {self.scalars[value]} = {expression};")

    def has_users_left(self, value: Value, but: frozenset[Operation] = frozenset()) -> bool:
        """Return whether operations that are not emitted yet use a tile, or a view of it.

        Args:
            but: operations that are about to be emitted, which do not count.
        """
        for user in value.users:
            if user.name in VIEWS:
                if any(self.has_users_left(result, but) for result in user.results):
                    return True
            elif user not in self.done and user not in but:
                return True
        return False
