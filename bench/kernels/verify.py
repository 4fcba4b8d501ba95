"""Is what a kernel gives right? Judged by the driver, on arrays alone, against float64 and against the reference.

For each tensor, T is the reference's in float64, E the reference's in the tensor's own dtype, R the kernel's. There are
two norms, the largest element and the root mean square (rms).

    error(X)  = |X - T| / |T|                    once by each norm
    floor     = eps + 4 eps32 sqrt(n)            16-bit results
              = 4 eps sqrt(n)                    others
    R passes where error(R) <= max(2 error(E), floor), by both norms

`eps` is the gap above 1. A kernel that computes in fp32 rounds a 16-bit result once, or twice where it is stored in
between: by eps in all. In the working precision a handful of operations are off by a few eps. A chain of n is off by
about sqrt(n) times as much, by the probabilistic bound of Higham and Mary. n is the number of inputs for an output.
Where the reference is off by more, twice its error is allowed, which is the rule of flash-attention's tests.
A tensor's scale is its own, so nothing near zero passes for free. NaN and infinities must be the reference's.

A tensor that is updated must change as the true one does, too. The part of its change that lies along the true change
is <R - before, T - before> / <T - before, T - before>. It must be that of the reference, or nearer to 1. In bf16 a
kernel that does nothing has small errors, and no progress.

Sources: Higham and Mary 2019, "A new approach to probabilistic rounding error analysis". Dao et al. 2022,
FlashAttention, whose tests compare with twice the error of PyTorch in the same dtype.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np

from fusetune.bench.kernels.case import Case
from fusetune.bench.kernels.lane import LARGE_BYTES, LaneError
from fusetune.bench.kernels.process import PUBLIC_SEED, Answer, KernelFacts, ProcessLane, ReferenceLane
from fusetune.bench.kernels.row import Verification
from fusetune.bench.kernels.shared_arrays import (
    Array,
    SharedTree,
    Tree,
    arrays_of,
    mapped,
    moved,
    parts_of,
    rounded_to,
    shuffled,
)
from fusetune.bench.units import format_bytes

# Times the error of the reference, which is allowed.
_OF_EAGER = 2.0
_OPERATIONS = 4.0
_EPS32 = 2.0**-23
# Too few elements say nothing of progress.
_ELEMENTS_FOR_PROGRESS = 64
_SIGMAS = 5.0
_PROGRESS_FLOOR = 0.02
# What a call may allocate without being asked: a share of what it moves, or this much.
_NEGLIGIBLE_SHARE, _NEGLIGIBLE_BYTES = 0.01, 64 * 2**10
_SEEDS = 3
_GUARD_BYTES = 256
# Larger inputs are tried once at the size of the case, beside the timed calls. All other tries have fewer elements.
_LARGE_BYTES = 1 << 22
_FEWER = 1 << 16


@dataclass(frozen=True)
class Finding:
    """What the comparison of one call came to.

    Args:
        error: the relative error of the kernel, of the tensor that came nearest to what is allowed.
        eager_error: that of the reference in the same dtype.
        tolerance: what was allowed.
        notes: sentences.
    """

    error: float = 0.0
    eager_error: float = 0.0
    tolerance: float = 0.0
    notes: tuple[str, ...] = ()

    def and_also(self, other: Finding) -> Finding:
        """Return both in one."""
        nearer = max(self, other, key=lambda each: each.error / each.tolerance if each.tolerance else -1.0)
        notes = tuple(dict.fromkeys((*self.notes, *other.notes)))
        return Finding(nearer.error, nearer.eager_error, nearer.tolerance, notes)


def compare(
    answer: Answer,
    before: Tree,
    truth: Answer,
    eager: Answer,
    mutates: Sequence[str],
    *,
    tolerance: float | None = None,
) -> Finding:
    """Judge one call.

    Args:
        answer: of the kernel.
        before: the inputs that it got.
        truth: of the reference in float64, on the same values.
        eager: of the reference in the same dtype.
        mutates: names of the inputs that are updated in place.
        tolerance: the largest error that passes. None: by the rule of this module.

    Returns: errors and what was allowed.

    Raises:
        LaneError: `wrong`, `mutated` or `not a tensor`, with the first thing that is not right.
    """
    changed = _unchanged_or_raise(answer, before, mutates, truth)
    found = Finding()
    read = sum(array.elements for _, array in arrays_of(before))
    pairs = [*_results(answer, truth, eager), *changed(eager)]
    for name, result, true, plain, old in pairs:
        one = _compare_tensor(name, result, true, plain, tolerance, read)
        if old is not None:
            _judge_progress(name, result, true, plain, old)
        found = found.and_also(one)
    return found


def _results(
    answer: Answer, truth: Answer, eager: Answer
) -> list[tuple[str, Array, Array, Array, Array | None]]:
    """Pair what was returned with what is right."""
    got, plain = dict(arrays_of(answer.results)), dict(arrays_of(eager.results))
    right = dict(arrays_of(truth.results))
    if not plain:
        return []
    if len(got) != len(plain):
        raise LaneError("wrong", f"it returned {_count(len(got))}, the reference {_count(len(plain))}")
    # A list for a tuple is as good. The order is what counts.
    return [
        (_said(path) or "the result", result, true, each, None)
        for path, result, true, each in zip(plain, got.values(), right.values(), plain.values(), strict=True)
    ]


def _unchanged_or_raise(answer: Answer, before: Tree, mutates: Sequence[str], truth: Answer) -> Any:
    """Raise where memory that is not to be updated has changed. Return what pairs the updated tensors."""
    old, new = dict(arrays_of(before)), dict(arrays_of(answer.inputs))
    right = dict(arrays_of(truth.inputs))
    if list(old) != list(new) or any(
        (old[path].dtype, old[path].shape) != (new[path].dtype, new[path].shape) for path in old
    ):
        raise LaneError("mutated", "its inputs are other tensors than before")
    updated = {path for path in old if _root(path) in mutates}
    for path in old:
        if path not in updated and not _same_bits(old[path], new[path]):
            where = _first_difference(old[path], new[path])
            raise LaneError("mutated", f"it changed {_said(path)}, which it may not ({where})")
    checked: set[int] = set()
    for path in old:
        key = id(new[path].storage)
        if key not in checked:
            checked.add(key)
            _judge_surroundings(path, old, new, updated)

    def pairs(eager: Answer) -> list[tuple[str, Array, Array, Array, Array | None]]:
        plain = dict(arrays_of(eager.inputs))
        return [
            (_said(path), new[path], right[path], plain[path], old[path]) for path in old if path in updated
        ]

    return pairs


def _judge_surroundings(
    path: tuple[Any, ...], old: Mapping[Any, Array], new: Mapping[Any, Array], updated: set[Any]
) -> None:
    """Raise where a storage has changed outside of the tensors that are updated."""
    was, now = old[path].storage, new[path].storage
    if len(was) != len(now):
        raise LaneError("mutated", f"the memory of {_said(path)} is another")
    differs = was != now
    if not differs.any():
        return
    for each in updated:
        if new[each].storage is now:
            window = replace(new[each], storage=differs.view(np.uint8))
            item = window.itemsize
            # The bytes of the elements, as a window of their own.
            as_bytes = Array(
                "uint8",
                (*window.shape, item),
                (*(stride * item for stride in window.strides), 1),
                window.storage,
                window.offset * item,
            )
            as_bytes.bits[...] = 0
    if differs.any():
        raise LaneError("mutated", f"it wrote outside of {_said(path)}, into memory beside it")


def _compare_tensor(
    name: str, result: Array, true: Array, plain: Array, tolerance: float | None, read: int
) -> Finding:
    """Judge one tensor."""
    if result.shape != plain.shape:
        raise LaneError("wrong", f"{name} has the shape {result.shape}, not {plain.shape}")
    if result.dtype != plain.dtype:
        raise LaneError("wrong", f"{name} is {result.dtype}, not {plain.dtype}")
    if not result.elements:
        return Finding()
    if not result.is_inexact or not true.is_inexact:
        return _compare_exact(name, result, true, plain)
    with np.errstate(all="ignore"):
        return _compare_floats(name, result, true, plain, tolerance, read)


def _compare_exact(name: str, result: Array, true: Array, plain: Array) -> Finding:
    """Integers and truth values are those of the reference, in its own dtype or in float64."""
    wrong, where, told = 0, -1, ""
    for first, _, (r, t, e) in parts_of(result, true, plain):
        good = (r.bits == e.bits) | (r.values == t.values)
        wrong += good.size - int(good.sum())
        if where < 0 and wrong:
            here = int(good.argmin())
            where, told = first + here, f"{r.values[here]} at {{}}, not {e.values[here]}"
    if not wrong:
        return Finding()
    said = told.format(_place(where, result))
    raise LaneError("wrong", f"{name} is {said} ({wrong} of {result.elements} differ)")


def _compare_floats(
    name: str, result: Array, true: Array, plain: Array, tolerance: float | None, read: int
) -> Finding:
    wrong, where, told = 0, -1, ""
    # Of what is finite: the largest |r - t|, |t| and |e - t|, and where the first one is.
    most = np.zeros(3)
    worst, compared = 0, 0
    for first, _, parts in parts_of(result, true, plain):
        r, t, e, matches, both = _matched(*parts)
        if not matches.all():
            wrong += matches.size - int(matches.sum())
            if where < 0:
                here = int(matches.argmin())
                where, told = (
                    first + here,
                    f"{_number(r[here])} at {{}}, where the reference gives {_number(e[here])}",
                )
        sizes = _sizes(r, t, e, both)
        largest = [float(each.max()) for each in sizes]
        if largest[0] > most[0]:
            worst = first + int(sizes[0].argmax())
        most = np.maximum(most, largest)
        compared += int(both.sum())
    if wrong:
        said = told.format(_place(where, result))
        raise LaneError("wrong", f"{name} is {said} ({wrong} of {result.elements} like it)")
    if not compared:
        return Finding()
    scales = np.where(most > 0, most, 1.0)
    squares = np.zeros(3)
    for _, _, parts in parts_of(result, true, plain):
        r, t, e, _, both = _matched(*parts)
        squares += [
            float(np.square(each / scale).sum())
            for each, scale in zip(_sizes(r, t, e, both), scales, strict=True)
        ]
    roots = most * np.sqrt(squares / result.elements)
    allowed_at_least = _floor(result, max(1.0, read / result.elements))
    found = Finding()
    for norm, (off, size, plain_off) in (("largest element", most), ("rms", roots)):
        scale = max(size, result.smallest / result.eps)
        error, eager_error = float(off / scale), float(plain_off / scale)
        allowed = max(_OF_EAGER * eager_error, allowed_at_least) if tolerance is None else tolerance
        if not error <= allowed:
            told = f"{name} is off by {error:.2g} of its {norm}, and {allowed:.2g} is allowed"
            got, right = (_number(_element(array, worst)) for array in (result, true))
            place = f"{got} at {_place(worst, result)}, not {right}"
            raise LaneError("wrong", f"{told} ({place}, and the reference is off by {eager_error:.2g})")
        found = found.and_also(Finding(error, eager_error, allowed))
    return found


def _matched(result: Array, true: Array, plain: Array) -> tuple[np.ndarray, ...]:
    """Return three parts in the widest dtype, where they match as to what is finite, and where both are finite."""
    wide = np.complex128 if true.dtype.startswith("complex") else np.float64
    r, t, e = (each.values.astype(wide) for each in (result, true, plain))
    # What float64 holds and the dtype does not is an infinity there.
    fitting = true.values.astype(result.values.dtype).astype(wide)
    largest = _largest(result.dtype)
    fitting = np.where(np.abs(fitting) > largest, np.sign(fitting) * np.inf, fitting)
    finite = np.isfinite(r)
    matches = (
        (finite & np.isfinite(fitting))
        | _same_special(r, e)
        | _same_special(r, fitting)
        # Rounding decides whether a number next to the largest one fits.
        | (finite & np.isfinite(e))
    )
    return r, t, e, matches, finite & np.isfinite(t)


def _sizes(r: np.ndarray, t: np.ndarray, e: np.ndarray, both: np.ndarray) -> list[np.ndarray]:
    """Return |r - t|, |t| and |e - t|, with 0 where they say nothing."""
    off, plain_off = np.where(both, np.abs(r - t), 0.0), np.where(both & np.isfinite(e), np.abs(e - t), 0.0)
    return [off, np.where(both, np.abs(t), 0.0), plain_off]


def _floor(result: Array, inputs: float) -> float:
    """Return the error that is allowed whatever the reference's is."""
    growth = _OPERATIONS * float(np.sqrt(inputs))
    if result.itemsize <= 2:
        return result.eps + growth * _EPS32
    return growth * result.eps


def _judge_progress(name: str, result: Array, true: Array, plain: Array, old: Array) -> None:
    """Raise where an updated tensor has not moved as far as the reference moved it."""
    if not result.is_float or result.elements < _ELEMENTS_FOR_PROGRESS:
        return
    whole = along = plain_along = off = 0.0
    with np.errstate(all="ignore"):
        for _, _, parts in parts_of(result, true, plain, old):
            r, t, e, o = (each.values.astype(np.float64) for each in parts)
            good = np.isfinite(r) & np.isfinite(t) & np.isfinite(e) & np.isfinite(o)
            change, error = np.where(good, t - o, 0.0), np.where(good, e - t, 0.0)
            whole += float(np.vdot(change, change))
            along += float(np.vdot(np.where(good, r - o, 0.0), change))
            plain_along += float(np.vdot(np.where(good, e - o, 0.0), change))
            off += float(np.vdot(error, error))
    if not whole:
        return
    moved_by, plain_by = along / whole, plain_along / whole
    spread = np.sqrt(off / whole / result.elements)
    slack = _SIGMAS * float(spread) + _PROGRESS_FLOOR
    if not min(plain_by, 1.0) - slack <= moved_by <= max(plain_by, 1.0) + slack:
        told = f"{name} moves {moved_by:.2g} of its true change, and {plain_by:.2g} by the reference"
        raise LaneError("wrong", told)


def _largest(dtype: str) -> float:
    """The largest finite number of a dtype."""
    known = {"bfloat16": 2.0**127 * (2 - 2.0**-7), "float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}
    return known[dtype] if dtype in known else float(np.finfo(dtype).max)


def _same_special(one: np.ndarray, other: np.ndarray) -> Any:
    """Where both are NaN, or the same infinity."""
    return (np.isnan(one) & np.isnan(other)) | (np.isinf(one) & (one == other))


def _same_bits(one: Array, other: Array) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return all(
        np.array_equal(was.bits.view(np.uint8), now.bits.view(np.uint8))
        for _, _, (was, now) in parts_of(one, other)
    )


def _is_same(one: Answer, other: Answer, mutates: Sequence[str]) -> bool:
    """Whether two calls gave the same bits."""
    written = [
        [
            *(array for _, array in arrays_of(each.results)),
            *(array for path, array in arrays_of(each.inputs) if _root(path) in mutates),
        ]
        for each in (one, other)
    ]
    return len(written[0]) == len(written[1]) and all(map(_same_bits, *written))


def _first_difference(old: Array, new: Array) -> str:
    for first, _, (was, now) in parts_of(old, new):
        differs = np.flatnonzero(was.bits != now.bits)
        if len(differs):
            here = int(differs[0])
            told = f"{_number(was.values[here])} became {_number(now.values[here])}"
            return f"{told} at {_place(first + here, old)}"
    return "its bits"


def _place(index: int, array: Array) -> list[int]:
    """Return the indices of an element, by its place in order."""
    return [int(i) for i in np.unravel_index(index, array.shape)]


def _element(array: Array, index: int) -> Any:
    """Return an element, by its place in order."""
    ((_, _, (part,)),) = parts_of(array, begin=index, end=index + 1)
    return part.values[0]


def _number(value: Any) -> str:
    return str(value) if isinstance(value, (bool, np.bool_)) else f"{value:.4g}"


def _count(results: int) -> str:
    return "1 tensor" if results == 1 else f"{results} tensors"


def _root(path: tuple[Any, ...]) -> str:
    return str(path[0]) if path else ""


def _said(path: tuple[Any, ...]) -> str:
    """Return a path as it is written: `streams[0]`."""
    if not path:
        return ""
    first, *rest = path
    head = str(first) if isinstance(first, str) else f"result {first}"
    return head + "".join(f"[{each!r}]" for each in rest)


def varied(tree: Tree, which: set[int], generator: np.random.Generator) -> Tree:
    """Return a copy of a tree with random values in some arrays.

    Args:
        tree: of arrays.
        which: ids of the arrays.
        generator: of the factors, in [0.5, 1.5), and of what replaces zeros, in [0, 1).
    """
    made: dict[int, np.ndarray] = {}

    def change(array: Array) -> Array:
        storage = made.setdefault(id(array.storage), array.storage.copy())
        new = replace(array, storage=storage)
        if id(array) in which:
            with np.errstate(all="ignore"):
                old = array.values.astype(np.float64)
                factors = generator.random(array.shape)
                new.bits[...] = rounded_to(np.where(old == 0, factors, old * (0.5 + factors)), array.dtype)
        return new

    return mapped(tree, change)


def swapped(tree: Tree, generator: np.random.Generator) -> Tree:
    """Return a copy of a tree in which two elements of each array of floats have changed places.

    So shape, sum and nearly all values are those of the original, for a kernel that takes these for the whole. Arrays
    in order stay so.
    """
    made: dict[int, np.ndarray] = {}

    def change(array: Array) -> Array:
        storage = made.setdefault(id(array.storage), array.storage.copy())
        new = replace(array, storage=storage)
        if array.is_inexact and array.elements >= 2 and not is_ordered(array):
            here, there = (
                np.unravel_index(int(index), array.shape)
                for index in generator.choice(array.elements, 2, replace=False)
            )
            bits = new.bits
            bits[here], bits[there] = bits[there].copy(), bits[here].copy()
        return new

    return mapped(tree, change)


def is_ordered(array: Array) -> bool:
    """Return whether an array holds different numbers that never fall, such as bounds to be searched."""
    if array.elements < 3 or not array.is_float:
        return False
    flat = array.values.reshape(-1).astype(np.float64)
    return bool(flat[0] < flat[-1] and (flat[1:] >= flat[:-1]).all())


@dataclass
class _Set:
    """Inputs that a kernel is tried on, and what is right, once that was asked for."""

    elements: int
    shared: SharedTree
    what: str
    truth: Answer | None = None
    eager: Answer | None = None
    declared: int = 0


@dataclass
class Verifier:
    """Verifies the sides of one case: the same secret inputs for all of them.

    Args:
        reference: its lane, in which the case was prepared.
        case: what is verified.
        prepared_bytes: bytes that a call moves, see `Prepared`.
        seeds: secret seeds at the size of the case.
    """

    reference: ReferenceLane
    case: Case
    prepared_bytes: int = 0
    seeds: int = _SEEDS
    _sets: list[_Set] = field(default_factory=list)
    # Those of the last round whose results were checked.
    _timed: list[_Set] = field(default_factory=list)
    _facts: KernelFacts | None = None
    _notes: list[str] = field(default_factory=list)

    @property
    def facts(self) -> KernelFacts:
        """What the kernel says of itself."""
        if self._facts is None:
            self._facts = self.reference.facts()
        return self._facts

    def verify(self, lane: ProcessLane, *, thorough: bool = True) -> Verification:
        """Verify one side.

        Args:
            lane: in which the case was prepared.
            thorough: all sizes, seeds and places. Else one seed at the size of the case, and no memory is counted, as
                for competitors.

        Returns: errors, and what was checked.

        Raises:
            LaneError: what is wrong with it.
        """
        found, repeatable, tried = Finding(), True, 0
        too_much: LaneError | None = None
        sets = self._all_sets() if thorough else self._all_sets()[:1]
        if thorough:
            found = self._first_call(lane)
        for each in chain(sets, self._large_sets() if thorough else ()):
            tried += 1
            try:
                answer = lane.results(each.shared)
                found = found.and_also(self._judge(answer, each.shared, each))
                if not (answer.repeatable or self.facts.atomics) and thorough:
                    raise LaneError(
                        "wrong", "two calls on the same values gave other bits, and it declares no atomics"
                    )
                if thorough and each is sets[0]:
                    self._refuse_replay(lane, each, answer)
            except LaneError as error:
                if error.status in ("wrong", "does not build", "crashed", "mutated") and each.what:
                    raise LaneError(error.status, f"{error.reason} ({each.what})") from None
                raise
            repeatable = repeatable and answer.repeatable
            if thorough and too_much is None:
                too_much = self._too_much_memory(answer, each)
            del answer  # which makes room
        if too_much is not None:
            # What is wrong would be wrong with less memory, too.
            raise too_much
        notes = [*self._notes, *found.notes]
        if not repeatable:
            notes.append("Two calls on the same values gave other bits.")
        return Verification(
            found.error,
            found.eager_error,
            found.tolerance,
            tried,
            repeatable=repeatable,
            notes=tuple(notes),
        )

    def check_timed(
        self, lane: ProcessLane, inputs: SharedTree | Sequence[SharedTree], so_far: Verification
    ) -> Verification:
        """Check the results of the timed call that a lane kept, and return the verification with it.

        Args:
            lane: after a `time_round` with `keep`.
            inputs: what `time_round` got.
            so_far: what was found before.

        Raises:
            LaneError: what is wrong with it.
        """
        given = [inputs] if isinstance(inputs, SharedTree) else list(inputs)
        used = given[(lane.kept_call or 0) % len(given)]
        if not any(each.shared is tree for each in self._timed for tree in given):
            self._timed.clear()  # of an earlier round
        known = next((each for each in self._timed if each.shared is used), None)
        if known is None:
            known = _Set(self.facts.elements, used, "")
            self._timed.append(known)
        try:
            found = self._judge(lane.kept_results(), used, known)
        except LaneError as error:
            raise LaneError(error.status, f"{error.reason} (in a timed call)") from None
        before = Finding(so_far.error, so_far.eager_error, so_far.tolerance)
        both = before.and_also(found)
        return replace(
            so_far,
            error=both.error,
            eager_error=both.eager_error,
            tolerance=both.tolerance,
            checked=so_far.checked + 1,
            timed=so_far.timed + 1,
        )

    def close(self) -> None:
        """Give the memory of the inputs back."""
        for each in self._sets:
            each.shared.close()
        self._sets.clear()
        self._timed.clear()

    def _judge(self, answer: Answer, shared: SharedTree, known: _Set | None) -> Finding:
        """Judge an answer. What is right is computed now, when the kernel has answered."""
        facts = self.facts
        if answer.overwrites:
            raise LaneError("wrong", "a second call wrote into the result of the first one")
        truth, eager = (known.truth, known.eager) if known else (None, None)
        if truth is None or eager is None:
            eager = self.reference.results(shared, poison=False, trusted=True)
            truth = self.reference.truth(shared)
        if known is not None:
            known.declared = truth.extra_bytes or 0
            if shared.nbytes <= LARGE_BYTES:
                known.truth, known.eager = truth, eager
        foreign = [name for name in answer.aliases if name not in facts.mutates and name not in eager.aliases]
        found = compare(answer, shared.tree, truth, eager, facts.mutates, tolerance=facts.tolerance)
        if foreign:
            raise LaneError("not a tensor", f"its result is the memory of its input {foreign[0]}")
        return found

    def _refuse_replay(self, lane: ProcessLane, first: _Set, answer: Answer) -> None:
        """Raise where a kernel takes other inputs of the same sum, extremes and ends for those that it has seen.

        Only the bits of the earlier result count, where they are not right: a sum stays right in another order. A
        kernel that expects an order of its inputs gives another result, and is not asked more.
        """
        other = SharedTree(shuffled(first.shared.tree, secrets.randbelow(2**62)))
        try:
            again = lane.results(other)
            if not _is_same(answer, again, self.facts.mutates):
                return
            self._judge(again, other, None)
        except LaneError as error:
            if error.status == "wrong":
                told = "it replays a result for inputs that only have the same sum and ends"
                raise LaneError("wrong", told) from None
            if error.status != "does not build":
                raise
        finally:
            other.close()

    def _first_call(self, lane: ProcessLane) -> Finding:
        """Judge the first call after building, in which a kernel may search, compile and keep what it finds."""
        answer = lane.first_results()
        if answer is None:
            return Finding()
        with SharedTree(self.reference.make_inputs(PUBLIC_SEED, self.facts.elements)) as shared:
            try:
                return self._judge(answer, shared, None)
            except LaneError as error:
                raise LaneError(error.status, f"{error.reason} (in its first call)") from None

    def _too_much_memory(self, answer: Answer, of: _Set) -> LaneError | None:
        """Say where a call took more memory than is declared or negligible."""
        extra_bytes, declared, shared = answer.extra_bytes or 0, of.declared, of.shared
        moved_bytes = max(self.prepared_bytes, shared.nbytes)
        allowed = declared + max(_NEGLIGIBLE_BYTES, int(_NEGLIGIBLE_SHARE * moved_bytes))
        if extra_bytes <= allowed:
            return None
        told = f"a call allocates {format_bytes(extra_bytes)} beside its results"
        known = f"{format_bytes(declared)} are declared" if declared else "none are declared"
        return LaneError("allocates", f"{told}, and {known} as scratch_bytes")

    def _all_sets(self) -> list[_Set]:
        """Make the inputs, once."""
        if self._sets:
            return self._sets
        elements = self._elements()
        if self._is_large and elements == self.facts.elements:
            # One of many bytes for all sides. `_large_sets` has more.
            self._notes.append("It was verified at one shape only: the reference takes no fewer elements.")
            self._sets.append(self._made(elements, 0, ""))
            return self._sets
        said = f"at {elements} elements" if self._is_large else ""
        for _ in range(self.seeds):
            self._sets.append(self._made(elements, 0, said))
        generator = np.random.default_rng(secrets.randbits(64))
        nearly = SharedTree(swapped(self._sets[0].shared.tree, generator))
        self._sets.insert(
            1, _Set(elements, nearly, "on values seen before, of which two have changed places")
        )
        varied = self._varied()
        if varied is not None:
            self._sets.append(varied)
        others = [
            made
            for size in (self._other_sizes(elements) if self.facts.sized else ())
            if (made := self._tried(size, 0) or self._tried(size + 1, 0)) is not None
        ]
        self._sets += others
        if not others:
            why = "the reference takes no other" if self.facts.sized else "make_inputs has no other"
            self._notes.append(f"It was verified at one shape only: {why}.")
        if self.facts.alignment < 64:
            self._sets.append(self._made(elements, self.facts.alignment, "on tensors that begin off a block"))
        return self._sets

    def _varied(self) -> _Set | None:
        """Return inputs with other values in the tensors that make_inputs fills alike for every seed.

        None: there are no such tensors, or the reference refuses these values. A kernel could ignore what never
        changes. The values have the signs and the scale of the old ones, where these are not 0.
        """
        whats = self._sets[0].what
        trees = [dict(arrays_of(each.shared.tree)) for each in self._sets if each.what == whats]
        first = trees[0]
        constant = {
            id(array)
            for path, array in first.items()
            if array.is_float
            and array.elements
            and not is_ordered(array)
            and all(path in tree and _same_bits(array, tree[path]) for tree in trees[1:])
        }
        if not constant or len(trees) < 2:
            return None
        if len(constant) == sum(array.is_float for array in first.values()):
            self._notes.append("make_inputs gives the same values for every seed.")
        generator = np.random.default_rng(secrets.randbits(64))
        tree = varied(self._sets[0].shared.tree, constant, generator)
        what = "with other values in inputs that make_inputs fills alike for every seed"
        return self._if_accepted(_Set(self._sets[0].elements, SharedTree(tree), what))

    @property
    def _is_large(self) -> bool:
        return self.facts.input_bytes > _LARGE_BYTES

    def _elements(self) -> int:
        """Return the size of the sets that are kept: that of the case, or where that is large a secret smaller one."""
        facts = self.facts
        if self._is_large and facts.sized:
            fewer = _FEWER + 2 * secrets.randbelow(_FEWER // 8) + 1
            made = self._tried(fewer, 0) if fewer < facts.elements else None
            if made is not None:
                made.shared.close()
                return fewer
        return facts.elements

    def _large_sets(self) -> Iterator[_Set]:
        """Yield inputs at the size of the case where they are large. Each is closed before the next is made."""
        if not self._is_large:
            return
        there = sum(each.elements == self.facts.elements for each in self._sets)
        for _ in range(self.seeds - 1 if there else 1):
            made = self._made(self.facts.elements, 0, "")
            try:
                yield made
            finally:
                made.shared.close()

    def _other_sizes(self, elements: int) -> list[int]:
        """Return sizes that nobody can know, off every block, and 1."""
        odd = 257 + 2 * secrets.randbelow(384)
        off_a_block = 8193 + 2 * secrets.randbelow(6000)
        return [size for size in (off_a_block, odd, 1) if size != elements]

    def _tried(self, elements: int, by_bytes: int) -> _Set | None:
        """Return inputs of another size, or None where the reference refuses it."""
        try:
            made = self._made(elements, by_bytes, f"at {elements} elements")
        except LaneError as error:
            if error.status != "does not build":
                raise
            return None
        return self._if_accepted(made)

    def _if_accepted(self, made: _Set) -> _Set | None:
        """Return inputs, unless the reference refuses them."""
        try:
            made.eager = self.reference.results(made.shared, poison=False, trusted=True)
        except LaneError as error:
            if error.status != "does not build":
                raise
            return None
        return made

    def _made(self, elements: int, by_bytes: int, what: str) -> _Set:
        seed = secrets.randbelow(2**62)
        tree = self.reference.make_inputs(seed, elements)
        around = moved(tree, by_bytes=by_bytes, guard_bytes=_GUARD_BYTES, seed=secrets.randbelow(2**62))
        return _Set(elements, SharedTree(around), what)
