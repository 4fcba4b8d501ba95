"""From Triton's arguments to a call of the shared object, with as little Python as may be.

The arguments are packed into bytes in the order of the kernel's signature; the C side unpacks them. The function that
packs them is written for each signature, because a loop over arguments would cost more than many a kernel.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

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
Path = tuple[int, ...]


def make_launcher(source: Any, metadata: Any) -> Callable[..., None]:
    """Return what Triton calls to launch a kernel that it has just compiled or loaded.

    Its `bind` packs the arguments once, for launches whose arguments are always the same: it takes the grid, the
    function, whether one thread is enough, and the arguments, which the caller keeps alive, and returns what launches.

    Args:
        source: Triton's source of the kernel: its signature is argument name -> type.
        metadata: of the compiled kernel.
    """
    return _launcher(metadata.name, list(source.signature.values()))


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
            raise ValueError(
                f"a pointer argument is on {device}; kernels compiled for the CPU take tensors on the CPU. Move it."
            )
        return int(argument.data_ptr())
    raise TypeError(f"a pointer argument must be a tensor or an address; got {type(argument).__name__}.")


def _launcher(kernel: str, types: Sequence[Any]) -> Callable[..., None]:
    """Write the launch function for arguments of these types."""
    leaves = [(path, type_) for path, type_ in _leaves(types) if type_ != "constexpr"]
    code = "".join(_format(kernel, type_) for _, type_ in leaves)
    values = []
    for path, type_ in leaves:
        name = f"a{path[0]}" + "".join(f"[{step}]" for step in path[1:])
        if type_.startswith("*"):
            values.append(
                f"{name}.data_ptr() if type({name}) in plain and {name}.is_cpu else address({name})"
            )
        elif type_ == "bf16":
            values.append(f"bf16_bits({name})")
        else:
            values.append(name)
    names = ", ".join(f"a{i}" for i in range(len(types)))
    text = f"""
def launch(x, y, z, stream, function, metadata, launch_metadata, enter_hook, exit_hook, {names}):
    if enter_hook is not None:
        enter_hook(launch_metadata)
    failure = function(x, y, z, threads(), pack({", ".join(values)}))
    if failure is not None:
        raise AssertionError(f"{{kernel}}: {{failure.decode()}}")
    if exit_hook is not None:
        exit_hook(launch_metadata)

def bind(x, y, z, function, one_thread, {names}):
    packed = pack({", ".join(values)})
    def again():
        failure = function(x, y, z, 1 if one_thread else threads(), packed)
        if failure is not None:
            raise AssertionError(f"{{kernel}}: {{failure.decode()}}")
    return again

launch.bind = bind
"""
    scope: dict[str, Any] = {
        "address": address,
        "bf16_bits": _bf16_bits,
        "kernel": kernel,
        "plain": (torch.Tensor, torch.nn.Parameter),
        "pack": struct.Struct(f"={code}").pack,
        "threads": torch.get_num_threads,
    }
    exec(text, scope)
    return scope["launch"]


def _leaves(types: Sequence[Any], path: Path = ()) -> Iterator[tuple[Path, str]]:
    """The types of all arguments, tuples opened, with the way to each."""
    for place, type_ in enumerate(types):
        if isinstance(type_, (tuple, list)):
            yield from _leaves(type_, (*path, place))
        else:
            yield (*path, place), type_


def _format(kernel: str, type_: str) -> str:
    """The struct code of one argument."""
    if type_.startswith("*"):
        return "Q"
    if type_ == "bf16":
        return "H"
    if type_ not in _FORMATS:
        raise TypeError(
            f"{kernel}: an argument of type {type_}; known: pointers, bf16, {', '.join(_FORMATS)}."
        )
    return _FORMATS[type_]


def _bf16_bits(value: float) -> int:
    """The bits of the nearest bf16."""
    return int(torch.tensor(value, dtype=torch.bfloat16).view(torch.int16).item()) & 0xFFFF


def load_function(path: str, symbol: str) -> tuple[Any, Any]:
    """Open a shared object and return it with its entry."""
    library = ctypes.CDLL(path)
    function = library[symbol]
    function.argtypes = [*[ctypes.c_int32] * 4, ctypes.c_char_p]
    function.restype = ctypes.c_char_p
    return library, function
