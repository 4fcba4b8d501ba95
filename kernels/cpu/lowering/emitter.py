"""The lowering of one function to C: its scalars, its arrays, and the loop nest ("band") that is still open.

A scalar becomes a C variable at once. A tile stays an expression of the lanes until an operation across lanes, control
flow or another loop nest needs its elements. Then they are kept in an array. Stores and arrays of one shape share one
loop nest, so a chain of elementwise operations never leaves registers.

Memory accesses keep program order through the same root pointer and across barriers, atomics and control flow.
Otherwise each lane keeps its own order, as threads of a GPU do. That assumes that two pointer arguments do not alias.
Such assumptions are recorded, and launches check them (see `overlaps`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fusetune.kernels.cpu.diagnostics import faults_of, unsupported
from fusetune.kernels.cpu.ir_tree import Block, Operation, Value
from fusetune.kernels.cpu.lowering.band import Band, Sink
from fusetune.kernels.cpu.lowering.elementwise import RULES
from fusetune.kernels.cpu.lowering.functions import SharedFunctions
from fusetune.kernels.cpu.lowering.network import Network, find_network
from fusetune.kernels.cpu.lowering.overlaps import Overlaps
from fusetune.kernels.cpu.lowering.scratch import Scratch
from fusetune.kernels.cpu.lowering.shape import VIEWS
from fusetune.kernels.cpu.lowering.stages import emit_stage
from fusetune.kernels.cpu.lowering.state import FunctionState

Lower = Callable[[Any, Operation], None]
_LAZY = {"tt.splat", "tt.make_range", "tt.join", *VIEWS}
_LAST = 1 << 30


class Emitter(FunctionState):
    """Emits the operations of one function as lines of C.

    Args:
        lowerings: name of an operation -> its lowering, for all that are not elementwise.
        scratch: the layout of arrays, shared by the functions of a module.
        overlaps: the alias analysis of the function's pointer arguments.
        functions: C functions that the module's functions share.
    """

    def __init__(
        self,
        lowerings: Mapping[str, Lower],
        scratch: Scratch,
        overlaps: Overlaps,
        functions: SharedFunctions,
    ) -> None:
        super().__init__(scratch, overlaps, functions)
        self._lowerings = lowerings
        self._band: Band | None = None
        self._loads: list[Operation] = []

    def block(self, block: Block) -> None:
        """Emit all operations of a block. A band that is open at its end stays open."""
        network = find_network(block)
        for operation in block.operations:
            with faults_of(operation):
                if operation in network.inside:
                    self._stages(network, operation)
                else:
                    self._operation(operation)

    def array_of(self, value: Value) -> str:
        """Keep a tile's elements in an array, and return its name."""
        self.flush()
        if value not in self.arrays:
            self.emit_alone(value)
        self.kept.read(self.arrays[value], value)
        return self.arrays[value]

    def fill(self, targets: Mapping[str, Value], joining: bool = False) -> None:
        """Write the elements of tiles of one shape into given arrays, in one loop nest.

        Args:
            targets: array -> the tile that it is to hold.
            joining: join the loop nest of earlier stores, where lanes do not conflict.
        """
        shape = next(iter(targets.values())).type.dimensions
        sinks = [Sink(_LAST, value=value, target=array) for array, value in targets.items()]
        band = self._band
        if not (joining and band is not None and band.takes(self, shape, sinks)):
            self.flush()
            self._band = band = Band(shape)
        for sink in sinks:
            band.add(sink)
        self.flush()

    @property
    def pending_stores(self) -> list[Operation]:
        """The stores of the open band."""
        return [] if self._band is None else self._band.stores

    def store(self, operation: Operation) -> None:
        """Add a tile store to the open band, or begin another band where lanes could conflict."""
        sink = Sink(operation.order, store=operation)
        self._open(operation.operands[0].type.dimensions)
        assert self._band is not None
        if self._band.conflicts(self, sink):
            self.flush()
            self._open(operation.operands[0].type.dimensions)
            for load in self._band.conflicts(self, sink):
                self.emit_alone(load.result)
        self._band.add(sink)

    def load(self, operation: Operation) -> None:
        """Record a tile load. It is emitted where its elements are needed."""
        self.before_access(operation)
        self._loads.append(operation)

    def before_access(self, access: Operation) -> None:
        """Close the band if it stores to memory that an access may use."""
        if self._band is not None and self._band.may_store_to(self, access):
            self.flush()

    def before_effect(self) -> None:
        """Close the band and emit every earlier load, because the next operation may write anywhere."""
        self.flush()
        self.keep_loads(before=None)

    def keep_loads(self, before: int | None, but: frozenset[Value] = frozenset()) -> None:
        """Emit loads that come before an order (None: all so far) and still have users."""
        for load in list(self._loads):
            value = load.result
            if value in self.arrays or not self.has_users_left(value):
                self._loads.remove(load)
            elif value not in but and (before is None or load.order < before):
                self.emit_alone(value)
                self._loads.remove(load)

    def emit_alone(self, value: Value) -> None:
        """Keep a tile in an array by a loop nest of its own, ahead of the open band."""
        if value in self.arrays:
            return
        array = self.new_array(value.type)
        band = Band(value.type.dimensions)
        band.add(Sink(_LAST, value=value, target=array))
        self._emit(band)
        self.arrays[value] = array

    def keep_for(self, blocks: list[Block]) -> None:
        """Keep the tiles in arrays that nested blocks use and that are expensive to compute again."""
        self.flush()
        inside = {operation for block in blocks for operation in block.walk()}
        for operation in sorted(inside, key=lambda each: each.order):
            for operand in operation.operands:
                self._keep_outer(operand, inside)

    def flush(self) -> None:
        """Emit the open band."""
        band, self._band = self._band, None
        if band is not None and band.sinks:
            self.keep_loads(before=band.last_order, but=band.demanded_values(self))
            self._emit(band)

    def _operation(self, operation: Operation) -> None:
        lower = self._lowerings.get(operation.name)
        if lower is not None:
            lower(self, operation)
        elif operation.name in RULES:
            if not operation.result.type.is_tile:
                arguments = [self.scalars[operand] for operand in operation.operands]
                self.scalar(operation.result, RULES[operation.name](operation, arguments))
                self.done.add(operation)
            else:
                _ = operation.result.type.c  # refuses types that have no counterpart
        elif operation.name not in _LAZY:
            raise unsupported(operation, "it has no lowering")

    def _stages(self, network: Network, operation: Operation) -> None:
        """Emit the stages that replace an operation."""
        for stage in network.stages.get(operation, ()):
            sources = {value: self.array_of(value) for value in stage.inputs}
            self.flush()
            emit_stage(self, stage, sources)
            # Only now, because a load that a store would overwrite must still count as used until here.
            self.done.update(stage.operations & network.inside)

    def _open(self, shape: tuple[int, ...]) -> None:
        """Open a band of this shape, unless one is open."""
        if self._band is not None and self._band.shape != shape:
            self.flush()
        if self._band is None:
            self._band = Band(shape)

    def _keep_outer(self, value: Value, inside: set[Operation]) -> None:
        """Keep a tile, or the tile that it is a view of, that was defined outside of the nested operations."""
        producer = value.producer
        if not value.type.is_tile or value in self.arrays or producer is None or producer in inside:
            return
        if producer.name in VIEWS or self.costs.is_cheap(value):
            for operand in producer.operands:
                self._keep_outer(operand, inside)
        else:
            self.emit_alone(value)

    def _emit(self, band: Band) -> None:
        """Emit a band, after the tiles that it needs in arrays."""
        while True:
            missing = band.to_keep_first(self)
            if not missing:
                break
            for value in missing:
                self.emit_alone(value)
        band.emit(self)
