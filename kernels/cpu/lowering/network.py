"""Exchange networks, such as a bitonic sort: which tiles are kept, and the stages that compute each from others.

Triton sorts by reductions over dimensions of two. Each takes both values of every pair of lanes, and elementwise
operations choose. One after another, each would be a loop nest of as many dimensions as the tile has bits, and no two
would be alike. Instead, the result of each stage of the network is kept in an array. The elements of both lanes of a
pair are expressions of that pair in earlier kept tiles.

Any reduction over a dimension of two is lowered so, for any computation with its result: the lowering does not look
for sorting. A stage that needs more than the lanes of a pair is emitted lane by lane.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fusetune.kernels.cpu.ir_tree import Block, Operation, Value
from fusetune.kernels.cpu.lowering.elementwise import CHEAP
from fusetune.kernels.cpu.lowering.halves import (
    ONE,
    ZERO,
    Bits,
    Element,
    count_bits,
    exchanged_bit,
    halved_bits,
    is_exchange,
    is_lanewise,
    viewed_bits,
)
from fusetune.kernels.cpu.lowering.shape import VIEWS

# A block with fewer exchanges is lowered without a network.
FEWEST_EXCHANGES = 3
# Operations that are computed again for each lane that needs the result, from the kept tile that they begin with.
_REPEATED = {*CHEAP, "tt.bitcast", "arith.bitcast"} - {"tt.trans"}
_MOST_PLACES = 100  # candidates for the end of the last stage
_MOST_OF_LANES = 24  # operations of an expression of the lane's number alone


@dataclass(eq=False)
class Stage:
    """Kept tiles that one loop over all lanes computes.

    Args:
        outputs: the tiles.
        inputs: the kept tiles and others that the outputs are computed from.
        elements: those to compute for a lane, in topological order. Equal stages have equal orders.
        bits: of the place of an output's element.
        exchanged: the bit in which the lanes of a pair differ, or None where there are no pairs.
        pairs: each iteration writes both lanes of a pair, else one element that both lanes yield.
        owned: inputs with no later use, so that their arrays can be reused.
    """

    outputs: list[Value]
    inputs: dict[Value, None]
    elements: list[Element]
    bits: int
    exchanged: int | None
    pairs: bool
    owned: list[Value] = field(default_factory=list)

    @property
    def operations(self) -> set[Operation]:
        """All operations that are computed."""
        values = [*self.outputs, *(value for value, _ in self.elements)]
        return {value.producer for value in values if value.producer is not None}


@dataclass(eq=False)
class Network:
    """The stages of a block.

    Args:
        stages: operation -> the stages that replace it.
        inside: operations whose results only the stages use.
    """

    stages: dict[Operation, list[Stage]] = field(default_factory=dict)
    inside: set[Operation] = field(default_factory=set)


def find_network(block: Block) -> Network:
    """Plan the stages of a block. The network is empty where it has few reductions over a dimension of two."""
    exchanges = [operation for operation in block.operations if is_exchange(operation)]
    if len(exchanges) < FEWEST_EXCHANGES:
        return Network()
    return _Planner(block, exchanges).plan()


class _Planner:
    """The analysis of a block for its network.

    Args:
        block: the block.
        exchanges: its reductions over a dimension of two.
    """

    def __init__(self, block: Block, exchanges: list[Operation]) -> None:
        self._block = block
        self._exchanges = exchanges
        self._own = set(block.operations)
        self._costs: dict[Value, int] = {}
        self._kept: dict[Value, None] = {}
        # Values that depend on an exchange by lanewise operations.
        self._dependent: set[Value] = set()
        for operation in block.operations:
            if is_exchange(operation) or (
                is_lanewise(operation) and not self._dependent.isdisjoint(operation.operands)
            ):
                self._dependent.update(operation.results)

    def plan(self) -> Network:
        for exchange in self._exchanges:
            for operand in exchange.operands:
                if not self._is_of_lanes(operand):
                    self._kept[self._start_of(operand)] = None
        self._kept.update(dict.fromkeys(self._ends()))
        while True:
            stages = self._stages()
            inside = {operation for stage in stages for operation in stage.operations}
            inside &= {value.producer for value in self._dependent}
            inside.update(self._exchanges)
            missing = self._needed_outside(inside)
            if not missing:
                break
            self._kept.update(dict.fromkeys(missing))
        stages = _grouped(stages)
        _give_away(stages, inside, self._dependent)
        network = Network(inside=inside)
        for stage in stages:
            network.stages.setdefault(_place(stage), []).append(stage)
        return network

    def _start_of(self, value: Value) -> Value:
        """The tile that a value is computed from by cheap operations on it alone."""
        while (operation := value.producer) in self._own:
            assert operation is not None
            tiles = {each for each in operation.operands if not self._is_of_lanes(each)}
            if operation.name not in _REPEATED or not is_lanewise(operation) or len(tiles) != 1:
                break
            (value,) = tiles
        return value

    def _is_of_lanes(self, value: Value) -> bool:
        """Return whether a value is a scalar, or a tile that is a cheap function of the lane's number and scalars."""
        return self._cost(value) <= _MOST_OF_LANES

    def _cost(self, value: Value) -> int:
        operation = value.producer
        if not value.type.is_tile:
            return 0
        if value not in self._costs:
            cost = _MOST_OF_LANES + 1
            if (
                operation is not None
                and operation.name in {*_REPEATED, "tt.trans"}
                and is_lanewise(operation)
            ):
                cost = min(cost, 1 + sum(map(self._cost, operation.operands)))
            self._costs[value] = cost
        return self._costs[value]

    def _ends(self) -> Iterator[Value]:
        """Yield the tiles to keep of the last exchanges: those with the fewest elements, behind each group."""
        feeding = self._feeding()
        groups: dict[Value, int] = {}
        for number, exchange in enumerate(self._exchanges):
            groups.update({result: number for result in exchange.results if result not in feeding})
        followers: list[Operation] = []
        for operation in self._block.operations:
            met = {groups[operand] for operand in operation.operands if operand in groups}
            if met and is_lanewise(operation) and feeding.isdisjoint(operation.results):
                together = min(met)
                if len(met) > 1:
                    groups.update({value: together for value, group in groups.items() if group in met})
                groups.update(dict.fromkeys(operation.results, together))
                followers.append(operation)
        for group in sorted(set(groups.values())):
            ours = dict.fromkeys(value for value, other in groups.items() if other == group)
            last = max(_order(value) for value in ours if value.producer in self._exchanges)
            places = [last, *(each.order for each in followers if groups[each.result] == group)]
            values = {**ours, **self._side(ours, last)}
            at = min(
                [place for place in places if place >= last][:_MOST_PLACES],
                key=lambda place: sum(map(_bytes, _live(values, place))),
            )
            yield from (value for value in _live(values, at) if value in self._dependent)

    def _side(self, values: Iterable[Value], since: int) -> dict[Value, None]:
        """The values that others are computed from behind a place of the program, and those that exist by then."""
        found: dict[Value, None] = {}
        waiting = list(values)
        while waiting:
            value = waiting.pop()
            if value.producer is None or value.producer.order <= since:
                continue
            for operand in value.producer.operands:
                if operand not in found and not self._is_of_lanes(operand):
                    found[operand] = None
                    waiting.append(operand)
        return found

    def _feeding(self) -> set[Value]:
        """The values that exchanges depend on by lanewise operations."""
        found: set[Value] = set()
        waiting = [operand for exchange in self._exchanges for operand in exchange.operands]
        while waiting:
            value = waiting.pop()
            if value not in self._dependent or value in found:
                continue
            found.add(value)
            if value.producer is not None and not is_exchange(value.producer):
                waiting += value.producer.operands
        return found

    def _stages(self) -> list[Stage]:
        """A stage for each kept tile that depends on an exchange."""
        outputs = [value for value in self._kept if value in self._dependent]
        found = [self._stage(value) for value in outputs]
        return sorted(found, key=lambda stage: _place(stage).order)

    def _stage(self, output: Value) -> Stage:
        bits = count_bits(output.type.dimensions)
        own = tuple(range(bits))
        elements, inputs = self._descend([(output, own)])
        met = [(value.producer, place) for value, place in elements if value.producer in self._exchanges]
        whole = {_whole(exchange, place) for exchange, place in met if exchange is not None}
        exchanged = whole.pop() if len(whole) == 1 else None
        if exchanged is not None and all(place == own for _, place in met):
            return Stage([output], inputs, elements, bits, exchanged, pairs=False)
        if exchanged is not None and all(
            len(place) == bits - 1 and exchanged not in place for _, place in met
        ):
            halves = [(output, halved(own, exchanged, half)) for half in (ZERO, ONE)]
            elements, inputs = self._descend(halves)
            return Stage([output], inputs, elements, bits, exchanged, pairs=True)
        return Stage([output], inputs, elements, bits, None, pairs=False)

    def _descend(self, outputs: list[Element]) -> tuple[list[Element], dict[Value, None]]:
        """All elements that others are computed from, down to kept tiles, and those tiles."""
        found: dict[Element, None] = {}
        inputs: dict[Value, None] = {}
        waiting = [(element, False) for element in reversed(outputs)]
        while waiting:
            element, is_ready = waiting.pop()
            value, _ = element
            if element in found or not value.type.is_tile:
                continue
            if value not in self._dependent and not self._is_of_lanes(value):
                self._kept[self._start_of(value)] = None
            is_input = value in self._kept and element not in outputs
            if is_ready or is_input:
                found[element] = None
                inputs.update({value: None} if is_input else {})
            else:
                waiting.append((element, True))
                waiting += [(each, False) for each in reversed(operands_of(*element))]
        return list(found), inputs

    def _needed_outside(self, inside: set[Operation]) -> list[Value]:
        """The tiles made inside that other operations use and that are not kept, except views of kept ones."""
        found = []
        for operation in inside:
            for value in operation.results:
                start = _seen(value)
                if (
                    start in self._dependent
                    and start not in self._kept
                    and not inside.issuperset(value.users)
                ):
                    found.append(start)
        return sorted(found, key=_order)


def operands_of(value: Value, bits: Bits) -> list[Element]:
    """The elements that one element of a lanewise operation's or an exchange's result is computed from."""
    operation = value.producer
    assert operation is not None
    if operation.name == "tt.reduce":
        halves = [halved_bits(operation, bits, half) for half in (ZERO, ONE)]
        return [(operand, half) for half in halves for operand in operation.operands]
    if operation.name in VIEWS:
        return [viewed_bits(value, bits)]
    if operation.name == "tt.join":
        return [(operand, bits[1:]) for operand in operation.operands]
    return [(operand, bits) for operand in operation.operands]


def _whole(exchange: Operation, bits: Bits) -> int | None:
    """The bit of the lane that an exchange removes, by the bits of its result: the one that would fit in."""
    at = exchanged_bit(exchange)
    rest = (*range(at), *range(at + 1, len(bits) + 1))
    return at if bits in (rest, tuple(range(len(bits)))) else None


def halved(bits: Bits, exchanged: int, half: int) -> Bits:
    """Bits where one of them is known."""
    return tuple(half if bit == exchanged else bit for bit in bits)


def _seen(value: Value) -> Value:
    """The tile that a value is a view of."""
    while value.producer is not None and value.producer.name in VIEWS and value.producer.name != "tt.split":
        value = value.producer.operands[0]
    return value


def _order(value: Value) -> int:
    return value.producer.order if value.producer is not None else -1


def _place(stage: Stage) -> Operation:
    """The operation that a stage replaces: the first of those that make its outputs."""
    producers = [value.producer for value in stage.outputs if value.producer is not None]
    return min(producers, key=lambda operation: operation.order)


def _live(values: Iterable[Value], place: int) -> dict[Value, None]:
    """The live values at a place of the program, among those that given values are views of."""
    return {
        _seen(value): None
        for value in values
        if _order(value) <= place and any(user.order > place for user in value.users)
    }


def _bytes(value: Value) -> int:
    return value.type.elements * value.type.bytes


def _grouped(stages: list[Stage]) -> list[Stage]:
    """Stages, where neighbours over the same lanes that do not depend on each other are fused."""
    found: list[Stage] = []
    for stage in stages:
        last = found[-1] if found else None
        if last is not None and _go_together(last, stage):
            outputs = [*last.outputs, *stage.outputs]
            elements = list(dict.fromkeys([*last.elements, *stage.elements]))
            inputs = {**last.inputs, **stage.inputs}
            found[-1] = Stage(outputs, inputs, elements, stage.bits, stage.exchanged, stage.pairs)
        else:
            found.append(stage)
    return found


def _go_together(first: Stage, second: Stage) -> bool:
    lanes = [(stage.bits, stage.exchanged, stage.pairs) for stage in (first, second)]
    if lanes[0] != lanes[1] or not first.inputs.keys() & second.inputs.keys():
        return False
    scalars = {
        operand
        for operation in second.operations
        for operand in operation.operands
        if not operand.type.is_tile
    }
    place = _place(first).order
    return all(_order(value) < place for value in (*second.inputs, *scalars))


def _give_away(stages: list[Stage], inside: set[Operation], dependent: set[Value]) -> None:
    """Record for each stage its last uses: the inputs that no later operation uses."""
    needed: set[Value] = set()
    for stage in reversed(stages):
        for value in stage.inputs:
            if value in dependent and value not in needed and not _is_seen_outside(value, inside):
                stage.owned.append(value)
        needed.update(stage.inputs)


def _is_seen_outside(value: Value, inside: set[Operation]) -> bool:
    """Return whether other operations use a value or a view of it."""
    return any(
        user not in inside
        or (user.name in VIEWS and any(_is_seen_outside(each, inside) for each in user.results))
        for user in value.users
    )
