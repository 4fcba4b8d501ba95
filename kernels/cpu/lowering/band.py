"""A band: a loop nest over the lanes of one shape, and all that is computed in it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

from fusetune.kernels.cpu.diagnostics import faults_of
from fusetune.kernels.cpu.ir_tree import Operation, Value
from fusetune.kernels.cpu.lowering.addresses import DIVISIONS, Limit
from fusetune.kernels.cpu.lowering.elementwise import RULES
from fusetune.kernels.cpu.lowering.runs import Quotient, are_long, begin_run, find_quotients, one_number_each
from fusetune.kernels.cpu.lowering.shape import VIEWS, Index, linear, viewed
from fusetune.kernels.cpu.lowering.state import FunctionState

_VARIABLE = re.compile(r"\bi(\d+)\b")
Element = tuple[Value, Index]


@dataclass(frozen=True)
class Sink:
    """The purpose of a band: a store, or a tile that an array is to hold.

    Args:
        order: its place in the program.
        store: a tt.store.
        value, target: the tile and the array.
    """

    order: int
    store: Operation | None = None
    value: Value | None = None
    target: str = ""


class Band:
    """The loop nest.

    Args:
        shape: its lanes.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.sinks: list[Sink] = []

    @property
    def last_order(self) -> int:
        return max((sink.order for sink in self.sinks), default=-1)

    @property
    def stores(self) -> list[Operation]:
        return [sink.store for sink in self.sinks if sink.store is not None]

    def add(self, sink: Sink) -> None:
        self.sinks.append(sink)

    def may_store_to(self, state: FunctionState, access: Operation) -> bool:
        """Return whether a store may alias the memory of a load or another access."""
        mask, pointer = _mask(access), access.operands[0]
        return any(
            state.overlaps.may_meet(state.addresses, store.operands[0], pointer, (_mask(store), mask))
            for store in self.stores
        )

    def conflicts(self, state: FunctionState, further: Sink) -> list[Operation]:
        """The loads (and stores) that another store could conflict with, in another lane."""
        stores = [sink.store for sink in [*self.sinks, further] if sink.store is not None]
        loads: dict[Operation, bool] = {}
        for value, index in self._demanded(state, [*self.sinks, further]):
            if value.producer is not None and value.producer.name == "tt.load":
                known = loads.get(value.producer, True)
                loads[value.producer] = known and index == self._own_index()
        found = [
            load
            for load, in_own_lane in loads.items()
            if any(_disturbs(state, store, load, in_own_lane) for store in stores)
        ]
        earlier = stores[:-1]
        return found + [store for store in earlier if _disturbs(state, stores[-1], store)]

    def takes(self, state: FunctionState, shape: tuple[int, ...], sinks: list[Sink]) -> bool:
        """Return whether arrays of a shape can be filled here, in the same loops as the stores."""
        return shape == self.shape and not any(self.conflicts(state, sink) for sink in sinks)

    def demanded_values(self, state: FunctionState) -> frozenset[Value]:
        """The tiles that the band computes."""
        return frozenset(value for value, _ in self._demanded(state, self.sinks))

    def to_keep_first(self, state: FunctionState) -> list[Value]:
        """The tiles that must be in arrays first.

        Computed here they would be computed several times, or only in part although all elements are needed later.
        """
        found: dict[Value, None] = {}
        places: dict[Value, Index] = {}
        demanded = self._demanded(state, self.sinks)
        emitted = frozenset([*self._worked_out(state, demanded), *self.stores])
        for value, index in demanded:
            if value.producer is not None and value.producer.name in VIEWS:
                continue
            if state.costs.is_cheap(value) or value in state.carried:
                continue
            simple = all(place.isdigit() or _VARIABLE.fullmatch(place) for place in index)
            repeated = self._runs(index) > value.type.elements
            in_part = not self._covers(value, index) and state.has_users_left(value, emitted)
            if not simple or repeated or in_part or places.setdefault(value, index) != index:
                found[value] = None
        return list(found)

    def emit(self, state: FunctionState) -> None:
        """Emit the loop nest. Keep the tiles of it that later operations need."""
        demanded = sorted(self._demanded(state, self.sinks), key=lambda element: _order(state, element[0]))
        state.done.update(self._worked_out(state, demanded))
        state.done.update(self.stores)
        kept = self._arrays_to_keep(state, demanded)
        nest = _Nest(self, state, demanded, kept)
        quotients = nest.quotients()
        if quotients:
            condition = are_long(quotients)
            state.line(f"if ({condition})" if condition else "")
            nest.write(quotients)
            state.line("else" if condition else "")
        if not quotients or are_long(quotients):
            nest.write([])
        state.arrays.update({value: array for (value, _), array in kept.items()})
        if self.stores:
            state.changed()

    def _arrays_to_keep(self, state: FunctionState, demanded: list[Element]) -> dict[Element, str]:
        """New arrays for the tiles that are computed here and needed again."""
        kept: dict[Element, str] = {}
        known = {sink.value for sink in self.sinks}
        for value, index in demanded:
            if value not in known and self._must_keep(state, value):
                # A kept array is read as the complete tile.
                assert self._covers(value, index), (
                    f"{value.type} would be kept in part: {index} of {self.shape}"
                )
                known.add(value)
                kept[value, index] = state.new_array(value.type)
        return kept

    def _must_keep(self, state: FunctionState, value: Value) -> bool:
        producer = value.producer
        if producer is None or producer.name in VIEWS or state.costs.is_cheap(value):
            return False
        return state.has_users_left(value)

    def _covers(self, value: Value, index: Index) -> bool:
        """Return whether the loops cover each element of a tile through an index."""
        sizes = {f"i{d}": size for d, size in enumerate(self.shape)}
        moved = [(place, size) for place, size in zip(index, value.type.dimensions, strict=True) if size != 1]
        return all(sizes.get(place) == size for place, size in moved) and len(dict(moved)) == len(moved)

    def _worked_out(self, state: FunctionState, demanded: list[Element]) -> list[Operation]:
        """The operations whose results are computed here, except those that are cheap to compute again."""
        producers = (value.producer for value, _ in demanded if not state.costs.is_cheap(value))
        return [producer for producer in producers if producer is not None]

    def _own_index(self) -> Index:
        return tuple("0" if size == 1 else f"i{d}" for d, size in enumerate(self.shape))

    def _runs(self, index: Index) -> int:
        """The trip count of the loop in which an element is computed."""
        level = _level(index)
        return math.prod(self.shape[: level + 1])

    def _demanded(self, state: FunctionState, sinks: list[Sink]) -> list[Element]:
        """Every element of every tile that the sinks need and no array holds."""
        found: dict[Element, None] = {}
        waiting: list[Element] = []
        for sink in sinks:
            if sink.store is not None:
                waiting += _accessed(state, sink.store, self._own_index())
            else:
                assert sink.value is not None
                waiting.append((sink.value, self._own_index()))
        while waiting:
            element = waiting.pop()
            value, index = element
            if value.type.is_tile and value not in state.arrays and element not in found:
                found[element] = None
                waiting += _needed(state, value, index)
        return list(found)


def _accessed(state: FunctionState, access: Operation, index: Index) -> list[Element]:
    """The operands of a load or store at an index. An affine pointer is none of them."""
    pointer, *others = access.operands
    needed = [(other, index) for other in others]
    return needed if state.addresses.affine(pointer, index) else [(pointer, index), *needed]


def _needed(state: FunctionState, value: Value, index: Index) -> list[Element]:
    """The elements that one element of a tile is computed from."""
    operation = value.producer
    if value in state.carried:
        carried = state.carried[value]
        return [(carried.first, index), (carried.step, index)]
    assert operation is not None, "a tile without a producer is in an array"
    if operation.name in VIEWS:
        operand, place = viewed(value, index)
        kept_elsewhere = operation.name == "tt.reshape" and operand in state.arrays
        return [] if kept_elsewhere else [(operand, place)]
    if operation.name == "tt.load":
        return _accessed(state, operation, index)
    if operation.name == "tt.join":
        return [(operand, index[:-1]) for operand in operation.operands]
    return [(operand, index) for operand in operation.operands]


def _order(state: FunctionState, value: Value) -> float:
    """A value's place in program order, behind every value that it is computed from."""
    if value in state.carried:
        carried = state.carried[value]
        return max(_order(state, carried.first), _order(state, carried.step)) + 0.5
    return value.producer.order if value.producer is not None else -1


def _disturbs(state: FunctionState, store: Operation, access: Operation, in_own_lane: bool = True) -> bool:
    """Return whether a store in one lane may alias the load or store of another lane.

    Args:
        in_own_lane: a lane needs the element of the access that has its own index.
    """
    first, second = store.operands[0], access.operands[0]
    masks = (_mask(store), _mask(access))
    if first is second:
        return not (in_own_lane and state.overlaps.is_injective(state.addresses, first, masks))
    return state.overlaps.may_meet(state.addresses, first, second, masks, in_own_lane)


def _level(index: Index) -> int:
    """The innermost loop that an index depends on, or -1."""
    return max((int(number) for place in index for number in _VARIABLE.findall(place)), default=-1)


class _Nest:
    """The text of a loop nest: the lines of each loop.

    Args:
        elements: those to compute, in program order.
        kept: elements that are written to arrays -> the array.
    """

    def __init__(
        self, band: Band, state: FunctionState, elements: list[Element], kept: dict[Element, str]
    ) -> None:
        self._band = band
        self._state = state
        self._elements = elements
        self._kept = kept
        self._loops = [d for d, size in enumerate(band.shape) if size != 1]
        self._inner = self._loops[-1] if self._loops else -1
        self._lines: dict[int, list[str]] = {}
        self._names: dict[Element, str] = {}
        self._limits: dict[Limit, None] = {}
        self._masks: set[Element] = set()
        self._arrays_read: dict[Value, None] = {}
        self._find_masks()
        masks = {_mask(store) for store in band.stores}
        # Beyond the limit no iteration has an effect if all stores are under one and the same mask, and all kept tiles
        # serve such stores.
        self._all_within = (
            len(band.stores) == len(band.sinks)
            and len(self._masks) == 1
            and masks == {mask for mask, _ in self._masks}
            and all(_is_for_stores_under(state, value, masks) for value, _ in kept)
        )
        if self._all_within:
            for array in kept.values():
                state.kept.allow_partial(array)

    def quotients(self) -> list[Quotient]:
        """The quotients that split the innermost loop into runs."""
        pointers = [(access.operands[0], index) for access, index in self._accesses()]
        lanes = self._band.shape[self._inner] if self._loops else 1
        return find_quotients(self._state, self._elements, pointers, f"i{self._inner}", lanes)

    def write(self, quotients: list[Quotient]) -> None:
        """Pass the loops to the state. The innermost one is split into runs by quotients, if there are any."""
        self._names = {element: self._state.name("t") for element in self._elements}
        with one_number_each(self._state, quotients):
            self._fill()
        state = self._state
        state.line("{")
        for value in self._arrays_read:
            state.kept.read(state.arrays[value], value)
        self._copy(-1, set())
        for d in self._loops[:-1]:
            state.line(f"for (int32_t i{d} = 0; i{d} < {self._band.shape[d]}; ++i{d}) {{")
            self._copy(d, set())
        if self._loops:
            self._innermost(quotients)
        state.line("}" * max(1, len(self._loops)))

    def _find_masks(self) -> None:
        """Find the prefix masks that shorten the innermost loop."""
        size, inner = self._band.shape[self._inner] if self._loops else 1, f"i{self._inner}"
        for access, index in self._accesses():
            mask = _mask(access)
            if mask is None or not mask.type.is_tile or not self._loops or _level(index) != self._inner:
                continue
            limits = self._state.addresses.prefix_limits(mask, index, inner, size)
            if limits:
                self._masks.add((mask, index))
                self._limits.update(dict.fromkeys(limits))

    def _accesses(self) -> Iterator[tuple[Operation, Index]]:
        """The loads and stores, with their indices."""
        for value, index in self._elements:
            if value.producer is not None and value.producer.name == "tt.load":
                yield value.producer, index
        for store in self._band.stores:
            yield store, self._band._own_index()

    def _fill(self) -> None:
        """Emit the lines of every loop."""
        self._lines = {level: [] for level in (-1, *self._loops)}
        sinks = sorted(self._band.sinks, key=lambda sink: sink.order)
        for value, index in self._elements:
            while sinks and sinks[0].store is not None and sinks[0].order < _order(self._state, value):
                self._store(sinks.pop(0).store)
            name = self._names[value, index]
            with faults_of(value.producer) if value.producer is not None else nullcontext():
                self._add(index, f"{value.type.c} const {name} = {self._expression(value, index)};")
            if (value, index) in self._kept:
                self._keep(self._kept[value, index], value, index)
        for sink in sinks:
            if sink.store is not None:
                self._store(sink.store)
            else:
                assert sink.value is not None
                self._keep(sink.target, sink.value, self._band._own_index())

    def _keep(self, array: str, value: Value, index: Index) -> None:
        """Write an element to an array."""
        place = linear(index, value.type.dimensions)
        told = self._state.kept.written(array, place)
        self._add(index, f"{array}[{place}] = {self._read(value, index)};{told}")

    def _store(self, operation: Operation | None) -> None:
        """Store an element to memory, if its mask is set."""
        assert operation is not None
        index = self._band._own_index()
        mask = _mask(operation)
        target = self._memory(operation.operands[0], index)
        conditions = [self._read(mask, index)] if mask is not None else []
        conditions += self._state.inside(operation, f"&{target}")
        condition = f"if ({' && '.join(conditions)}) " if conditions else ""
        self._add(index, f"{condition}{target} = {self._read(operation.operands[1], index)};")

    def _innermost(self, quotients: list[Quotient]) -> None:
        """Emit the innermost loop: first the lanes whose masks are all set, then the rest."""
        size = str(self._band.shape[self._inner])
        if not self._limits:
            self._lanes("0", size, set(), quotients)
            return
        state = self._state
        first, *others = self._limits
        count = first.count
        for other in others:
            count = f"fewer({count}, {other.count})"
        name = state.name("n")
        state.line(f"const int32_t {name} = {count};")
        self._lanes("0", name, self._masks, quotients)
        if not self._all_within:
            self._lanes(name, size, set(), quotients)
        for limit in self._limits:
            if self._all_within and limit.wraps:
                # A second copy of the loop could continue there, but no kernel wraps around on purpose.
                state.line(f"if ({limit.wraps}) *grid->failure = {limit.complaint};")

    def _lanes(self, begin: str, end: str, set_masks: set[Element], quotients: list[Quotient]) -> None:
        """Emit lanes of the innermost loop that all have the masks set, run after run if there are quotients."""
        state, i = self._state, f"i{self._inner}"
        if quotients:
            first, last = state.name("b"), state.name("e")
            state.line(f"for (int32_t {first} = {begin}, {last}; {first} < {end}; {first} = {last}) {{")
            state.line(f"{last} = {begin_run(state, quotients, i, first, end)};")
            begin, end = first, last
        side_by_side = "#pragma omp simd\n" if state.bounds is None else ""
        state.line(f"{side_by_side}for (int32_t {i} = {begin}; {i} < {end}; ++{i}) {{")
        self._copy(self._inner, set_masks)
        state.line("}}" if quotients else "}")

    def _copy(self, level: int, set_masks: set[Element]) -> None:
        """Emit the lines of one loop, where some masks are known to be set."""
        names = {self._names[element] for element in set_masks if element in self._names}
        for line in self._lines[level]:
            found = re.match(r"bool const (t\d+) = ", line)
            self._state.line(f"bool const {found[1]} = 1;" if found and found[1] in names else line)

    def _add(self, index: Index, line: str) -> None:
        level = _level(index)
        self._lines[level if level in self._lines else -1].append(line)

    def _read(self, value: Value, index: Index) -> str:
        """The C name of one element of a tile, its place in an array, or a scalar's name."""
        state = self._state
        if not value.type.is_tile:
            return state.scalars[value]
        if value in state.arrays:
            self._arrays_read[value] = None
            return f"{state.arrays[value]}[{linear(index, value.type.dimensions)}]"
        return self._names[(value, index)]

    def _memory(self, pointer: Value, index: Index) -> str:
        """The C expression of the memory that one element of a pointer tile points to."""
        affine = self._state.addresses.affine(pointer, index)
        if affine is not None and affine.base is not None:
            return f"{affine.base}[{affine.c()}]"
        return f"*{self._read(pointer, index)}"

    def _expression(self, value: Value, index: Index) -> str:
        """The C expression of one element of a tile, in terms of others."""
        operation = value.producer
        if value in self._state.carried:
            carried = self._state.carried[value]
            first, step = self._read(carried.first, index), self._read(carried.step, index)
            number = "int64_t" if carried.first.type.is_pointer else carried.step.type.c
            return f"{first} + {step} * ({number}){carried.count}"
        assert operation is not None
        if operation.name in DIVISIONS:
            same = self._state.addresses.affine(value, index)
            if same is not None:
                return f"({value.type.c})({same.c()})"
        if operation.name in VIEWS:
            operand, place = viewed(value, index)
            if operation.name == "tt.reshape" and operand in self._state.arrays:
                self._arrays_read[operand] = None
                return f"{self._state.arrays[operand]}[{linear(index, value.type.dimensions)}]"
            return self._read(operand, place)
        if operation.name == "tt.splat":
            return self._state.scalars[operation.operands[0]]
        if operation.name == "tt.make_range":
            return f"(int32_t)({index[0]} + {operation.integer('start')})"
        if operation.name == "tt.load":
            return self._loaded(operation, index)
        if operation.name == "tt.join":
            first, second = (self._read(operand, index[:-1]) for operand in operation.operands)
            return f"({index[-1]} == 0 ? {first} : {second})"
        return RULES[operation.name](
            operation, [self._read(operand, index) for operand in operation.operands]
        )

    def _loaded(self, operation: Operation, index: Index) -> str:
        memory = self._memory(operation.operands[0], index)
        mask = _mask(operation)
        conditions = [self._read(mask, index)] if mask is not None else []
        conditions += self._state.inside(operation, f"&{memory}")
        if operation.flag("isVolatile"):
            memory = f"*(volatile {operation.result.type.c} *)&{memory}"
        if not conditions:
            return memory
        other = self._read(operation.operands[2], index) if len(operation.operands) > 2 else "0"
        return f"({' && '.join(conditions)} ? {memory} : {other})"


def _is_for_stores_under(state: FunctionState, value: Value, masks: set[Value | None]) -> bool:
    """Return whether a tile is needed only in lanes that store under one of the masks, lane by lane."""
    for user in value.users:
        if user in state.done:
            continue
        if user.name == "tt.store":
            pointer, stored, *rest = user.operands
            if _mask(user) not in masks or stored is not value or value in (pointer, *rest):
                return False
        elif user.name not in RULES or not _is_for_stores_under(state, user.result, masks):
            return False
    return True


def _mask(access: Operation) -> Value | None:
    """The mask of a load or store, or None."""
    place = 1 if access.name == "tt.load" else 2
    return access.operands[place] if len(access.operands) > place else None
