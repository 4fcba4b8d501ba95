"""Nested inputs and results of kernels, carried between processes by files in memory.

A tree is dicts, lists and tuples of tensors and of plain values. Without torch a tensor is an `Array`. A tree crosses
in two parts: a text, which describes it, and a file with the bytes of all storages. Reading calls nothing: no pickle
is opened on the driver's side. Files have no name, so that none is left behind, whatever dies.

    text     JSON: a node, and the place of each storage in the file
    file     the storages, each from a multiple of 64 bytes on
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from fusetune.errors import InvalidValueError

Tree = Any

# A kernel's process uses these too. What its code puts into the modules instead is not used.
_dumps, _loads = json.dumps, json.loads
_read, _write = os.preadv, os.pwrite

# torch's name -> numpy's dtype of the same bits, or of as many bits where numpy has no such number.
_STORED = {
    **{name: np.dtype(name) for name in ("float16", "float32", "float64", "complex64", "complex128", "bool")},
    **{name: np.dtype(name) for name in ("int8", "int16", "int32", "int64")},
    **{name: np.dtype(name) for name in ("uint8", "uint16", "uint32", "uint64")},
    "bfloat16": np.dtype("uint16"),
    "float8_e4m3fn": np.dtype("uint8"),
    "float8_e5m2": np.dtype("uint8"),
}
_FLOATS = ("float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2")
_EPS = {
    "float64": 2.0**-52,
    "float32": 2.0**-23,
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
    "float8_e4m3fn": 2.0**-3,
    "float8_e5m2": 2.0**-2,
    "complex64": 2.0**-23,
    "complex128": 2.0**-52,
}
_SMALLEST = {
    "float64": 2.0**-1074,
    "float32": 2.0**-149,
    "float16": 2.0**-24,
    "bfloat16": 2.0**-133,
    "float8_e4m3fn": 2.0**-9,
    "float8_e5m2": 2.0**-16,
    "complex64": 2.0**-149,
    "complex128": 2.0**-1074,
}
_BETWEEN_BYTES = 64
# Numbers at each end of an array that `shuffled` leaves where they are.
_ENDS = 32
_SEALS = ("F_SEAL_SHRINK", "F_SEAL_GROW", "F_SEAL_WRITE", "F_SEAL_SEAL")
_CHUNK_BYTES = 2**30
# From here on a tree that is shared is read from its file, so that the driver holds its bytes once.
_MAPPED_BYTES = 2**20
# Large arrays are computed with in parts.
PART = 2**18


class UnreadableTreeError(ValueError):
    """A text that describes no tree, or one that its file does not hold."""


@dataclass(frozen=True, eq=False)
class Array:
    """A tensor without torch: a window on some bytes.

    Args:
        dtype: torch's name, e.g. `bfloat16`.
        shape: as the tensor's.
        strides: in elements, as the tensor's.
        storage: all bytes of the tensor's storage, uint8. Tensors that share memory share this very object.
        offset: elements before the first one.

    Example:
        >>> Array.of(np.arange(3.0)).values
        array([0., 1., 2.])
    """

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    storage: np.ndarray = field(repr=False)
    offset: int = 0

    @classmethod
    def of(cls, values: np.ndarray, dtype: str | None = None) -> Array:
        """Return the array of some values.

        Args:
            values: of a dtype that torch has, or bits of `dtype`.
            dtype: torch's name, where numpy has no such number.
        """
        values = np.asarray(values, order="C")
        name = dtype or values.dtype.name
        if name not in _STORED or _STORED[name] != values.dtype:
            raise InvalidValueError("values", f"{values.dtype} holds no {name}")
        strides = tuple(stride // max(1, values.itemsize) for stride in values.strides)
        return cls(name, values.shape, strides, values.reshape(-1).view(np.uint8))

    @property
    def elements(self) -> int:
        """Their number."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Of the elements."""
        return self.elements * self.itemsize

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return _STORED[self.dtype].itemsize

    @property
    def is_float(self) -> bool:
        """Whether it holds real floating point numbers."""
        return self.dtype in _FLOATS

    @property
    def is_inexact(self) -> bool:
        """Whether its elements are rounded: floating point numbers, real or complex."""
        return self.dtype in _EPS

    @property
    def eps(self) -> float:
        """The gap between 1 and the next number of this dtype."""
        return _EPS[self.dtype]

    @property
    def smallest(self) -> float:
        """The smallest positive number of this dtype."""
        return _SMALLEST[self.dtype]

    @property
    def bits(self) -> Any:
        """The elements as they are stored: a view, in which bfloat16 are uint16."""
        stored = _STORED[self.dtype]
        begin = self.offset * stored.itemsize
        whole = self.storage[begin : begin + (len(self.storage) - begin) // stored.itemsize * stored.itemsize]
        strides = tuple(stride * stored.itemsize for stride in self.strides)
        if 0 in self.shape:
            return np.empty(self.shape, stored)
        return np.ndarray(self.shape, stored, buffer=whole, strides=strides)

    @property
    def values(self) -> Any:
        """The elements as numbers. Those that numpy lacks are widened to float32, exactly."""
        bits = self.bits
        if self.dtype == "bfloat16":
            return (bits.astype(np.uint32) << 16).view(np.float32)
        if self.dtype == "float8_e5m2":
            with np.errstate(invalid="ignore"):  # of NaN that signal
                return (bits.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
        if self.dtype == "float8_e4m3fn":
            return _E4M3[bits]
        return bits


def _e4m3() -> np.ndarray:
    """All 256 values of float8_e4m3fn: no infinities, and NaN where all bits but the sign are set."""
    codes = np.arange(256)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    normal = (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    magnitude = np.where(exponent == 0, mantissa / 8 * 2.0**-6, normal)
    magnitude = np.where(codes & 127 == 127, np.nan, magnitude)
    return np.where(codes & 128, -magnitude, magnitude).astype(np.float32)


_E4M3 = _e4m3()


@dataclass(frozen=True)
class Opaque:
    """A value that only the processes of lanes open: a dtype, a device, or an object of a kernel's own.

    Args:
        kind: how it is opened.
        text: what is opened.
    """

    kind: str
    text: str


def arrays_of(tree: Tree, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Array]]:
    """Yield the arrays of a tree with their paths, in order.

    Example:
        >>> x = Array.of(np.zeros(2))
        >>> [path for path, _ in arrays_of({"a": x, "b": [x, 3]})]
        [('a',), ('b', 0)]
    """
    if isinstance(tree, Array):
        yield path, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from arrays_of(value, (*path, key))
    elif isinstance(tree, (list, tuple)):
        for index, value in enumerate(tree):
            yield from arrays_of(value, (*path, index))


def mapped(tree: Tree, change: Callable[[Array], Array]) -> Tree:
    """Return a tree with each array changed."""
    if isinstance(tree, Array):
        return change(tree)
    if isinstance(tree, dict):
        return {key: mapped(value, change) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(mapped(value, change) for value in tree)
    return tree


def moved(tree: Tree, *, by_bytes: int, guard_bytes: int = 256, seed: int = 0) -> Tree:
    """Return a copy of a tree whose storages lie between guards, at addresses that are off by some bytes.

    Args:
        tree: of arrays.
        by_bytes: how far each storage begins after a multiple of 64 bytes. Rounded up to whole elements.
        guard_bytes: random bytes before and after each storage, which nobody should write. A multiple of 64.
        seed: of the guards' bytes.
    """
    generator = np.random.default_rng(seed)
    made: dict[int, np.ndarray] = {}
    # Whole elements of each array that looks at the storage.
    coarsest: dict[int, int] = {}
    for _, array in arrays_of(tree):
        key = id(array.storage)
        coarsest[key] = max(coarsest.get(key, 1), array.itemsize)

    def change(array: Array) -> Array:
        key = id(array.storage)
        item = coarsest[key]
        before = guard_bytes + -(-by_bytes // item) * item
        if key not in made:
            there = len(array.storage)
            made[key] = np.empty(before + there + guard_bytes, np.uint8)
            made[key][:before] = np.frombuffer(generator.bytes(before), np.uint8)
            made[key][before : before + there] = array.storage
            made[key][before + there :] = np.frombuffer(generator.bytes(guard_bytes), np.uint8)
        return Array(
            array.dtype, array.shape, array.strides, made[key], array.offset + before // array.itemsize
        )

    return mapped(tree, change)


def shuffled(tree: Tree, seed: int) -> Tree:
    """Return a copy of a tree with the inner floating point numbers of each array in another order.

    Sums, extremes, and the first and last 32 numbers stay. Arrays of less than 128 numbers are as they were.

    Args:
        tree: of arrays.
        seed: of the order.

    Example:
        >>> found = shuffled(Array.of(np.arange(200.0)), 0).values
        >>> found[:32].tolist() == list(range(32)), sorted(found) == list(range(200)), bool(found[100] == 100)
        (True, True, False)
    """
    generator = np.random.default_rng(seed)
    made: dict[int, np.ndarray] = {}

    def change(array: Array) -> Array:
        storage = made.setdefault(id(array.storage), array.storage.copy())
        new = Array(array.dtype, array.shape, array.strides, storage, array.offset)
        # Elements that share memory would be written more than once.
        apart = all(stride for stride, size in zip(array.strides, array.shape, strict=True) if size > 1)
        if array.is_float and apart and array.elements >= 4 * _ENDS:
            numbers = new.bits.reshape(-1).copy()
            numbers[_ENDS:-_ENDS] = generator.permutation(numbers[_ENDS:-_ENDS])
            new.bits[...] = numbers.reshape(array.shape)
        return new

    return mapped(tree, change)


def scaled(tree: Tree, factor: float, within: tuple[float, float] = (0.0, 1.0)) -> Tree:
    """Return a copy of a tree with all real floating point numbers multiplied, rounded once to their dtype.

    Args:
        tree: of arrays.
        factor: in (0, 1], a multiple of 1/128. Then each dtype holds it exactly, and every library rounds alike.
        within: the part of each array that is multiplied, from and to. One element is in it at the least.

    Example:
        >>> scaled([Array.of(np.float32([1, 2]))], 0.75)[0].values
        array([0.75, 1.5 ], dtype=float32)
        >>> scaled([Array.of(np.float32([1, 2, 4, 8]))], 0.5, within=(0.5, 0.8))[0].values
        array([1., 2., 2., 8.], dtype=float32)
    """
    if not 0 < factor <= 1 or factor * 128 != int(factor * 128):
        raise InvalidValueError("factor", f"must be a multiple of 1/128 in (0, 1], not {factor}")
    made: dict[int, np.ndarray] = {}
    done: set[tuple[Any, ...]] = set()

    def change(array: Array) -> Array:
        key = id(array.storage)
        storage = made.setdefault(key, array.storage.copy())
        new = Array(array.dtype, array.shape, array.strides, storage, array.offset)
        window = (key, array.dtype, array.shape, array.strides, array.offset)
        if array.is_float and array.elements and window not in done:
            done.add(window)
            begin = min(array.elements - 1, int(within[0] * array.elements))
            end = max(begin + 1, int(within[1] * array.elements))
            # From the old values, so that windows that overlap are scaled once.
            target = new.bits
            for first, last, (part,) in parts_of(array, begin=begin, end=end):
                with np.errstate(all="ignore"):
                    # The factor has 7 bits, so one rounding in the wider of both dtypes is the exact product's.
                    values = part.values
                    bits = rounded_to(values * values.dtype.type(factor), array.dtype)
                if target.flags.c_contiguous:
                    target.reshape(-1)[first:last] = bits
                else:
                    target.flat[first:last] = bits
        return new

    return mapped(tree, change)


def parts_of(
    *arrays: Array, begin: int = 0, end: int | None = None
) -> Iterator[tuple[int, int, tuple[Array, ...]]]:
    """Yield arrays of one shape in parts of at most `PART` elements, in the order of their elements.

    Args:
        arrays: of one shape.
        begin, end: the elements that are yielded. None: to the last.

    Returns: first and last element, the latter excluded, and the parts, which are flat.

    Example:
        >>> x = Array.of(np.arange(6.0).reshape(2, 3))
        >>> [(first, last, part.values) for first, last, (part,) in parts_of(x, begin=1, end=3)]
        [(1, 3, array([1., 2.]))]
    """
    end = arrays[0].elements if end is None else end
    # A view, but of arrays that are not contiguous.
    flat = [array.bits.reshape(-1) for array in arrays]
    for first in range(begin, end, PART):
        last = min(end, first + PART)
        yield (
            first,
            last,
            tuple(Array.of(bits[first:last], array.dtype) for bits, array in zip(flat, arrays, strict=True)),
        )


def rounded_to(values: np.ndarray, dtype: str) -> Any:
    """Return float64 numbers as the bits of a dtype, rounded to nearest. Ties go to even, but in 8 bits."""
    if dtype == "bfloat16":
        wide = values.astype(np.float32).view(np.uint32)
        rounded = ((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16).astype(np.uint16)
        return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)
    if dtype.startswith("float8"):
        table = Array.of(np.arange(256, dtype=np.uint8), dtype).values.astype(np.float64)
        finite = np.flatnonzero(np.isfinite(table))
        nearest = np.abs(values.reshape(-1, 1) - table[finite]).argmin(axis=1)
        return finite[nearest].astype(np.uint8).reshape(values.shape)
    return values.astype(_STORED[dtype])


class TreeWriter:
    """Describes trees as text, and lists the storages that belong in the file.

    Args:
        window_of: a leaf -> (dtype, shape, strides, offset, key of the storage, its bytes), or None where the leaf is
            no tensor.
        opaque_of: a leaf that is neither -> how it is opened.
    """

    def __init__(
        self, window_of: Callable[[Any], Any], opaque_of: Callable[[Any], Opaque] | None = None
    ) -> None:
        self._window_of = window_of
        self._opaque_of = opaque_of
        self._places: dict[Any, int] = {}
        self._extents: list[tuple[int, int]] = []
        self.storages: list[Any] = []
        self.total_bytes = 0

    def text(self, tree: Tree) -> str:
        """Return the description of a tree."""
        node = self._node(tree)
        return _dumps({"tree": node, "storages": self._extents})

    def placed(self) -> Iterator[tuple[int, Any]]:
        """Yield each storage with the place of its first byte."""
        for (begin, _), storage in zip(self._extents, self.storages, strict=True):
            yield begin, storage

    def _place(self, key: Any, size: int, storage: Any) -> int:
        if key not in self._places:
            self._places[key] = len(self._extents)
            self._extents.append((self.total_bytes, size))
            self.storages.append(storage)
            self.total_bytes += -(-size // _BETWEEN_BYTES) * _BETWEEN_BYTES
        return self._places[key]

    def _node(self, value: Any) -> list[Any]:
        window = self._window_of(value)
        if window is not None:
            dtype, shape, strides, offset, key, size, storage = window
            return ["array", dtype, list(shape), list(strides), offset, self._place(key, size, storage)]
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return ["plain", value]
        if kind is float:
            return ["float", value.hex()]
        if kind is complex:
            return ["complex", value.real.hex(), value.imag.hex()]
        if kind is dict:
            return ["dict", [[self._node(key), self._node(item)] for key, item in value.items()]]
        if kind in (list, tuple):
            return [kind.__name__, [self._node(item) for item in value]]
        if kind is Opaque:
            return ["opaque", value.kind, value.text]
        if self._opaque_of is None:
            raise InvalidValueError(
                "tree", f"holds a {kind.__name__}, which does not cross between processes"
            )
        opaque = self._opaque_of(value)
        return ["opaque", opaque.kind, opaque.text]


class TreeReader:
    """Makes trees of their descriptions.

    Args:
        make: (dtype, shape, strides, offset, index of the storage) -> leaf.
        open_opaque: what becomes of opaque values. None: they stay what they are.
    """

    def __init__(
        self,
        make: Callable[[str, tuple[int, ...], tuple[int, ...], int, int], Any],
        open_opaque: Callable[[Opaque], Any] | None = None,
    ) -> None:
        self._make = make
        self._open_opaque = open_opaque

    def tree(self, node: Any) -> Tree:
        """Return the tree of a node."""
        match node:
            case ["array", str(dtype), list(shape), list(strides), int(offset), int(index)]:
                return self._make(dtype, tuple(map(int, shape)), tuple(map(int, strides)), offset, index)
            case ["plain", (None | bool() | int() | str()) as value]:
                return value
            case ["float", str(text)]:
                return float.fromhex(text)
            case ["complex", str(real), str(imaginary)]:
                return complex(float.fromhex(real), float.fromhex(imaginary))
            case ["dict", list(items)]:
                return {self.tree(key): self.tree(item) for key, item in items}
            case ["list", list(items)]:
                return [self.tree(item) for item in items]
            case ["tuple", list(items)]:
                return tuple(self.tree(item) for item in items)
            case ["opaque", str(kind), str(text)]:
                opaque = Opaque(kind, text)
                return self._open_opaque(opaque) if self._open_opaque else opaque
        raise UnreadableTreeError("a node of no known kind")


def parsed(text: str) -> tuple[Any, list[tuple[int, int]]]:
    """Return the node of a description, and begin and size of each storage.

    Raises:
        UnreadableTreeError: it is no description.
    """
    try:
        described = _loads(text)
        extents = [(int(begin), int(size)) for begin, size in described["storages"]]
        node = described["tree"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnreadableTreeError(f"no description of arrays: {error}") from error
    if any(begin < 0 or size < 0 for begin, size in extents):
        raise UnreadableTreeError("a storage of a negative size")
    return node, extents


def read_tree(text: str, file: int) -> Tree:
    """Return the tree that another process described, with bytes of its own.

    Args:
        text: the description.
        file: descriptor of the file.

    Raises:
        UnreadableTreeError: the text is no description, or the file does not hold what it promises.
    """
    node, extents = parsed(text)
    there = os.fstat(file).st_size
    if any(begin + size > there for begin, size in extents) or sum(size for _, size in extents) > there:
        raise UnreadableTreeError("the file is shorter than its description says")
    storages: dict[int, np.ndarray] = {}

    def make(dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, index: int) -> Array:
        if dtype not in _STORED or not 0 <= index < len(extents) or len(shape) != len(strides):
            raise UnreadableTreeError(f"an array of no known form ({dtype})")
        if offset < 0 or min((*shape, *strides), default=0) < 0:
            raise UnreadableTreeError("an array of a negative size")
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if 0 not in shape and (last + 1) * _STORED[dtype].itemsize > extents[index][1]:
            raise UnreadableTreeError("an array that is larger than its storage")
        if index not in storages:
            storages[index] = read_bytes(file, *extents[index])
        return Array(dtype, shape, strides, storages[index], offset)

    try:
        return TreeReader(make).tree(node)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UnreadableTreeError(str(error)) from error


def read_bytes(file: int, begin: int, size: int) -> np.ndarray:
    """Return some bytes of a file."""
    data = np.empty(size, np.uint8)
    read_into(file, begin, data)
    return data


def read_into(file: int, begin: int, array: np.ndarray) -> None:
    """Fill an array of bytes from a file."""
    target, done = memoryview(array.data), 0
    while done < len(target):
        got = _read(file, [target[done : done + _CHUNK_BYTES]], begin + done)
        if not got:
            raise UnreadableTreeError("the file is shorter than its description says")
        done += got


def write_from(file: int, begin: int, array: np.ndarray) -> None:
    """Copy an array of bytes into a file."""
    source, done = memoryview(array.data), 0
    while done < len(source):
        done += _write(file, source[done : done + _CHUNK_BYTES], begin + done)


def memory_file(name: str) -> int:
    """Open a new file in memory, which has no name and is gone when nobody holds it. Return its descriptor."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    descriptor, path = tempfile.mkstemp(prefix=name)
    os.unlink(path)
    return descriptor


class SharedTree:
    """A tree that was written once, and that several processes read. Nobody can change it, where the system allows.

    Args:
        tree: of arrays and plain values.

    Attributes:
        tree: the same values. Arrays of a large one are read from the file, and cannot be written.

    Example:
        >>> shared = SharedTree({"x": Array.of(np.arange(3.0)), "p": 2.0})
        >>> read_tree(shared.text, shared.file)["x"].values
        array([0., 1., 2.])
        >>> shared.close()
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        writer = TreeWriter(_window_of)
        self.text = writer.text(tree)
        self.file = memory_file("fusetune-inputs")
        try:
            os.ftruncate(self.file, writer.total_bytes)
            for begin, storage in writer.placed():
                write_from(self.file, begin, storage)
            _seal(self.file)
        except BaseException:
            os.close(self.file)
            raise
        self._is_open = True
        if writer.total_bytes >= _MAPPED_BYTES:
            self.tree = self._mapped(tree, writer)

    def _mapped(self, tree: Tree, writer: TreeWriter) -> Tree:
        """Return the tree on the bytes of the file."""
        data = np.frombuffer(
            mmap.mmap(self.file, writer.total_bytes, mmap.MAP_PRIVATE, mmap.PROT_READ), np.uint8
        )
        here = {id(storage): data[begin : begin + len(storage)] for begin, storage in writer.placed()}
        return mapped(tree, lambda array: replace(array, storage=here[id(array.storage)]))

    @property
    def is_open(self) -> bool:
        """Whether it was not closed."""
        return self._is_open

    @cached_property
    def nbytes(self) -> int:
        """Of all storages."""
        return sum(size for _, size in parsed(self.text)[1])

    def close(self) -> None:
        """Give the memory back, once no other process holds it."""
        if self._is_open:
            self._is_open = False
            os.close(self.file)

    def __enter__(self) -> SharedTree:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_is_open", False):
            self.close()


def _window_of(value: Any) -> Any:
    if not isinstance(value, Array):
        return None
    key, size = id(value.storage), len(value.storage)
    return value.dtype, value.shape, value.strides, value.offset, key, size, value.storage


def _seal(file: int) -> None:
    """Let nobody change a file any more, where the system can."""
    seals: Sequence[int] = [getattr(fcntl, name, 0) for name in _SEALS]
    if hasattr(os, "memfd_create") and all(seals):
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, sum(seals))
