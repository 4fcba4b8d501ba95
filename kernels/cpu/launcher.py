"""From Triton's arguments to a call of the shared object, with as little Python as possible.

The arguments are packed into bytes in the order of the kernel's signature, and the C side unpacks them. The packing
function is generated for each signature, because a loop over arguments would take longer than many kernels.
"""

from __future__ import annotations

import ctypes
import functools
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from fusetune.errors import InvalidTypeError, InvalidValueError
from fusetune.kernels.cpu.failures import LANES_OVERLAP, error_of
from fusetune.kernels.cpu.launch_timer import instead
from fusetune.kernels.cpu.lowering import MOST_AT_ONCE
from fusetune.kernels.cpu.rounding import nearest_bits
from fusetune.kernels.triton_inside import LAUNCH_PARAMETERS, descriptors_round

_FORMATS = {
    "i1": "?",
    "u1": "?",
    "i8": "b",
    "u8": "B",
    "i16": "h",
    "u16": "H",
    "i32": "i",
    "u32": "I",
    "i64": "q",
    "u64": "Q",
    "fp16": "e",
    "fp32": "f",
    "f32": "f",
    "fp64": "d",
}
_MOST_PROGRAMS = (1 << 31) - 1  # along one axis. The shared object counts all of them in 64 bits.


def make_launcher(source: Any, metadata: Any) -> Callable[..., None]:
    """Return the function that Triton calls to launch a kernel that it has just compiled or loaded.

    Its `bind` packs the arguments once, for launches whose arguments are always the same. `bind` takes the grid, the
    function, whether one thread suffices, and the arguments, which the caller keeps alive. It returns the launch.

    Args:
        source: Triton's source of the kernel: its signature is argument name -> type.
        metadata: of the compiled kernel.
    """
    cooperative = getattr(metadata, "launch_cooperative_grid", False)
    for_overlaps = functools.cache(functools.partial(_compiled_for_overlaps, source, metadata))
    checks = getattr(metadata, "check_bounds", False)
    return _launcher(metadata.name, source.signature, cooperative, checks, metadata.apart, for_overlaps)


def address(argument: Any) -> int:
    """The address that a pointer argument stands for.

    Raises:
        ValueError: a tensor that is not in the CPU's memory.
        TypeError: neither a tensor nor an address.
    """
    if isinstance(argument, int):
        return argument
    if hasattr(argument, "data_ptr"):
        device = getattr(argument, "device", None)
        if device is not None and torch.device(device).type != "cpu":
            raise InvalidValueError(
                "",
                f"a pointer argument is on {device}",
                "kernels compiled for the CPU take tensors on the CPU. Move it.",
            )
        pointer = int(argument.data_ptr())
        if not pointer and argument.numel():
            raise InvalidValueError(
                "",
                f"a pointer argument has no memory: a {type(argument).__name__} of {argument.numel()} "
                "elements whose address is 0",
                to_do="A fake tensor has none, nor has one whose storage was freed.",
            )
        return pointer
    raise InvalidTypeError(
        "", "a pointer argument must be a tensor or an address", f"got {type(argument).__name__}."
    )


def _compiled_for_overlaps(source: Any, metadata: Any) -> Any:
    """The kernel compiled without assumptions about aliasing between its arguments."""
    # Imported here: this module is imported in the middle of `import triton`.
    import triton

    from fusetune.kernels.cpu.compiler import CPUOptions

    options = {field.name: getattr(metadata, field.name) for field in fields(CPUOptions)}
    return triton.compile(source, metadata.target, {**options, "arguments_overlap": True})


def _launcher(
    kernel: str,
    signature: Mapping[Any, Any],
    cooperative: bool,
    check_bounds: bool,
    apart: Sequence[tuple[int, int, bool]],
    for_overlaps: Callable[[], Any],
) -> Callable[..., None]:
    """Generate the launch function for arguments of these types.

    Args:
        check_bounds: the code also gets the beginning and the end of each pointer argument's memory.
        apart: the assumptions of the code about arguments by their numbers, see `kernels.cpu.lowering.overlaps`.
        for_overlaps: returns the kernel for launches where they do not hold.
    """
    leaves: list[_Leaf] = []
    for place, (name, type_) in enumerate(signature.items()):
        leaves += _leaves(f"a{place}", str(name), type_)
    scope: dict[str, Any] = {
        "StructError": struct.error,
        "address": address,
        "bf16_bits": functools.partial(_bf16_bits, kernel),
        "error_of": functools.partial(error_of, pointers=[leaf.name for leaf in leaves if leaf.tensor]),
        "regions": _regions,
        "lanes_overlap": LANES_OVERLAP.encode(),
        "check_grid": functools.partial(_check_grid, kernel, cooperative),
        "instead": instead,
        "fitted": functools.partial(_fitted, kernel, leaves),
        "for_overlaps": for_overlaps,
        "meet": functools.partial(_meet, apart),
        "room_behind": _room_behind,
        "kernel": kernel,
        "plain": (torch.Tensor, torch.nn.Parameter),
        "pack": struct.Struct("=" + "".join(_format(kernel, leaf.type) for leaf in leaves)).pack,
        "threads": torch.get_num_threads,
    }
    exec(_launch_text(leaves, len(signature), cooperative, check_bounds, apart), scope)
    launch: Callable[..., None] = scope["launch"]
    return launch


@dataclass(frozen=True)
class _Leaf:
    """A scalar or pointer that the kernel takes.

    Args:
        name: of the argument, with the place in it where that is a tuple.
        type: in Triton's notation.
        value: the Python expression for it in the launch function.
        tensor: the expression for the tensor, where it is a pointer.
    """

    name: str
    type: str
    value: str
    tensor: str = ""


def _launch_text(
    leaves: Sequence[_Leaf],
    arguments: int,
    cooperative: bool,
    check_bounds: bool,
    apart: Sequence[tuple[int, int, bool]],
) -> str:
    """The Python source of the functions `launch` and `bind`. `_launcher` provides the names that they use."""
    pointers = sorted({place for first, second, _ in apart for place in (first, second)})
    addresses = "".join(f"    p{place} = {leaves[place].value}\n" for place in pointers)
    written = [f"p{place}" if place in pointers else leaf.value for place, leaf in enumerate(leaves)]
    values = f"({''.join(f'{value}, ' for value in written)})"
    names = ", ".join(f"a{i}" for i in range(arguments))
    overlap = _overlap(leaves, pointers, apart)
    # struct converts exactly or raises. The values that it refuses are then converted one by one.
    packing = f"""
    try:
        packed = pack{values}
    except (OverflowError, StructError):
        packed = pack(*fitted({values}))
"""
    tensors = [leaf.tensor for leaf in leaves if leaf.tensor]
    if check_bounds:
        packing += f"    packed += regions({', '.join(tensors)})\n"
    return f"""
def launch({", ".join(LAUNCH_PARAMETERS)}, {names}):
    if {"True" if cooperative else "(x | y | z) >> 21"}:
        check_grid(x, y, z)
    if enter_hook is not None:
        enter_hook(launch_metadata)
{addresses}
{packing}
    if {overlap}:
        other = for_overlaps()
        other.run(x, y, z, stream, other.function, other.packed_metadata, None, None, None, {names})
    else:
        if instead:
            failure = instead[0](function, x, y, z, threads(), packed)
        else:
            failure = function(x, y, z, threads(), packed)
        if failure is not None:
            if failure != lanes_overlap:
                raise error_of(kernel, failure)
            other = for_overlaps()
            other.run(x, y, z, stream, other.function, other.packed_metadata, None, None, None, {names})
    if exit_hook is not None:
        exit_hook(launch_metadata)

def bind(x, y, z, function, one_thread, {names}):
    check_grid(x, y, z)
{addresses}
{packing}
    if {overlap}:
        other = for_overlaps()
        return other.run.bind(x, y, z, other.function, one_thread, {names})
    def again():
        if instead:
            failure = instead[0](function, x, y, z, 1 if one_thread else threads(), packed)
        else:
            failure = function(x, y, z, 1 if one_thread else threads(), packed)
        if failure is not None:
            if failure != lanes_overlap:
                raise error_of(kernel, failure)
            other = for_overlaps()
            other.run.bind(x, y, z, other.function, one_thread, {names})()
    return again

launch.bind = bind
"""


def _leaves(variable: str, name: str, type_: Any) -> Iterator[_Leaf]:
    """The scalars and pointers of an argument. Tuples and tensor descriptors are flattened.

    Args:
        variable: the Python expression for the argument in the launch function.
    """
    if isinstance(type_, (tuple, list)):
        for place, inner in enumerate(type_):
            yield from _leaves(f"{variable}[{place}]", f"{name}[{place}]", inner)
    elif type_.startswith("tensordesc"):
        yield from _parts(variable, name, type_)
    elif type_.startswith("*"):
        # A tensor without memory has the address 0.
        plain = f"type({variable}) in plain and {variable}.is_cpu and {variable}.data_ptr()"
        yield _Leaf(name, type_, f"{plain} or address({variable})", variable)
    elif type_ == "bf16":
        yield _Leaf(name, type_, f"bf16_bits({name!r}, {variable})")
    elif type_ != "constexpr":
        yield _Leaf(name, type_, variable)


def _parts(variable: str, name: str, type_: str) -> Iterator[_Leaf]:
    """The parts of a tensor descriptor, in the order of Triton's rewrite_tensor_descriptor_to_pointer.

    Triton's front end passes shape and strides a second time, for the kernel's own use of them.
    """
    rank = type_[type_.index("[") :].count(",") + 1
    yield from _leaves(f"{variable}.base", name, "*")
    for shape in ("i64", "i32"):
        yield from (_Leaf(f"{name}.shape[{i}]", shape, f"{variable}.shape[{i}]") for i in range(rank))
        yield from (_Leaf(f"{name}.strides[{i}]", "i64", f"{variable}.strides[{i}]") for i in range(rank))
        if shape == "i64":
            yield _Leaf(f"{name}.padding", "i1", f'{variable}.padding == "nan"')
            if descriptors_round():
                yield _Leaf(f"{name}.round_f32_to_tf32", "i1", f"{variable}.round_f32_to_tf32")


def _overlap(leaves: Sequence[_Leaf], pointers: Sequence[int], apart: Sequence[tuple[int, int, bool]]) -> str:
    """The Python condition that two arguments alias that were assumed not to."""
    if not apart:
        return "False"
    ends = {}
    for place in pointers:
        tensor = leaves[place].tensor
        room = f"({tensor}.untyped_storage().nbytes() if type({tensor}) in plain else room_behind({tensor}))"
        ends[place] = f"(e{place} := p{place} + {room})"
    # First compare whole storages: nearly every launch has a storage for each tensor, and needs no closer check.
    near = []
    for first, second, _ in apart:
        end_of_first, end_of_second = (ends.pop(place, f"e{place}") for place in (first, second))
        near.append(f"(p{first} < {end_of_second}) & (p{second} < {end_of_first})")
    tensors = "".join(f"{place}: (p{place}, {leaves[place].tensor}), " for place in pointers)
    return f"({' | '.join(f'({each})' for each in near)}) and meet({{{tensors}}})"


def _meet(apart: Sequence[tuple[int, int, bool]], tensors: Mapping[int, tuple[int, Any]]) -> bool:
    """Return whether tensors share memory that were assumed to share none.

    Args:
        tensors: place -> address and tensor.
    """
    ranges = {place: (start, start + _extent(tensor)) for place, (start, tensor) in tensors.items()}
    for first, second, if_equal in apart:
        (start, end), (other_start, other_end) = ranges[first], ranges[second]
        if start < other_end and other_start < end and not (if_equal and start == other_start):
            return True
    return False


def _regions(*arguments: Any) -> bytes:
    """Each pointer argument's address, and the beginning and the end of its memory. A bare address has no known end."""
    packed = b""
    for argument in arguments:
        begin, end = 0, (1 << 64) - 1
        tensor = argument if isinstance(argument, torch.Tensor) else getattr(argument, "base", None)
        if isinstance(tensor, torch.Tensor):
            begin = tensor.untyped_storage().data_ptr()
            end = begin + tensor.untyped_storage().nbytes()
        packed += struct.pack("=QQQ", address(argument), begin, end)
    return packed


def _room_behind(argument: Any) -> int:
    """The most bytes from an argument's address on that may be its own. The extent of a bare address is not known."""
    return int(argument.untyped_storage().nbytes()) if isinstance(argument, torch.Tensor) else 1


def _extent(argument: Any) -> int:
    """The bytes from the first to the last element of an argument."""
    if not isinstance(argument, torch.Tensor):
        return 1
    if not argument.numel():
        return 0
    steps = sum((size - 1) * step for size, step in zip(argument.shape, argument.stride(), strict=True))
    return (steps + 1) * argument.element_size()


def _check_grid(kernel: str, cooperative: bool, x: int, y: int, z: int) -> None:
    """Raise if a grid is too large."""
    if not all(0 <= size <= _MOST_PROGRAMS for size in (x, y, z)) or x * y * z >= 1 << 63:
        raise InvalidValueError(
            kernel,
            f"a grid of {x} x {y} x {z} programs",
            f"each size must be from 0 to {_MOST_PROGRAMS}, and all programs together fewer than 2^63.",
        )
    if cooperative and x * y * z > MOST_AT_ONCE:
        raise InvalidValueError(
            kernel,
            f"launch_cooperative_grid=True has all programs run at once, but there are {x * y * z} of them",
            f"at most {MOST_AT_ONCE} can",
            "Launch fewer programs.",
        )


def _fitted(kernel: str, leaves: Sequence[_Leaf], values: Sequence[Any]) -> list[Any]:
    """The values, where floats beyond the range of their type become infinite, as C's conversion makes them.

    Raises:
        ValueError: a value is out of its type's range.
    """
    fitted = []
    for leaf, value in zip(leaves, values, strict=True):
        code = _format(kernel, leaf.type)
        try:
            struct.pack(f"={code}", value)
        except (OverflowError, struct.error) as error:
            if code not in "efd" or not isinstance(error, OverflowError):
                raise InvalidValueError(
                    kernel,
                    f"the argument {leaf.name} is {value!r}, which its type {leaf.type} cannot represent.",
                ) from None
            value = math.inf if value > 0 else -math.inf
        fitted.append(value)
    return fitted


def _format(kernel: str, type_: str) -> str:
    """The struct code of one argument."""
    if type_.startswith("*"):
        return "Q"
    if type_ == "bf16":
        return "H"
    if type_ not in _FORMATS:
        raise InvalidTypeError(
            kernel, f"an argument of type {type_}", f"known: pointers, bf16, {', '.join(_FORMATS)}."
        )
    return _FORMATS[type_]


def _bf16_bits(kernel: str, name: str, value: Any) -> int:
    """The bits of the nearest bf16.

    Raises:
        ValueError: the value is no number.
    """
    if not isinstance(value, (int, float)):
        try:
            (value,) = struct.unpack("d", struct.pack("d", value))  # takes any object that has __float__
        except struct.error:
            raise InvalidValueError(
                kernel, f"the argument {name} is {value!r}, which its type bf16 cannot represent."
            ) from None
    return nearest_bits(value, "bf16")


def load_function(path: str, symbol: str) -> tuple[Any, Any]:
    """Open a shared object and return it with its entry."""
    library = ctypes.CDLL(path)
    function = library[symbol]
    function.argtypes = [*[ctypes.c_int32] * 4, ctypes.c_char_p]
    function.restype = ctypes.c_char_p
    return library, function
