"""What a tuned launch config is good for: everything that can make another config the fastest, or this one fail.

A key is made of parts, each a text that a person can read. A part that differs is another key, and a miss names it.

Triton's own hash of a function (`cache_key`) covers what it calls too, but also its line number, so that a comment
above it would lose what was tuned. Here the sources of all functions that can be reached count, and nothing else of
the file.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import platform
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fusetune.errors import InvalidValueError
from fusetune.kernels.cpu import compiler_version, cpu_features, why_not
from fusetune.kernels.kernel import Kernel
from fusetune.kernels.triton_inside import (
    constexpr_function,
    jit_function,
    plain_function,
    ptxas_version,
    release,
    source_of,
)

# How launch configs are measured. It grows when times of before and after cannot be compared.
MEASUREMENT_POLICY = "1"

# Packages whose code is told apart by their versions, or has no kernels.
_NOT_READ = frozenset({"torch", "triton", "numpy", *sys.stdlib_module_names})
# What decides how wide a CPU's vectors are, the widest last.
_VECTOR_EXTENSIONS = (
    *("sse4_2", "avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile"),
    *("asimd", "asimdhp", "sve", "sve2"),
)


@dataclass(frozen=True)
class TuningKey:
    """The parts of a key, in the order in which a report names them.

    Args:
        kernel: its name.
        source: hash of the sources of its Triton functions, with all that they call.
        constexprs: other constants that it is compiled with or called with, except those of the launch config.
        dtypes: of its tensors.
        size: the bucket of its sizes, see `bucket`.
        layout: whether tensors are contiguous and how far their addresses are aligned.
        device: the GPU's name and architecture. For a CPU its model, its vector extensions, and torch's threads.
        compiler: driver and assembler of a GPU, the C compiler of a CPU.
        triton: Triton's version.
        policy: how it was measured, see `MEASUREMENT_POLICY`.

    Example:
        >>> key = TuningKey("copy", "0a1b", "", "float32", "2^20", "flat", "cpu", "gcc 12", "3.7.1", "1")
        >>> list(key.parts())[:5]
        ['kernel', 'source', 'constexprs', 'dtypes', 'size']
        >>> TuningKey.from_parts(key.parts()) == key
        True
    """

    kernel: str
    source: str
    constexprs: str
    dtypes: str
    size: str
    layout: str
    device: str
    compiler: str
    triton: str
    policy: str = MEASUREMENT_POLICY

    def parts(self) -> dict[str, str]:
        """Return the parts by name, in order."""
        return asdict(self)

    @property
    def digest(self) -> str:
        """A hash of all parts, which names the entry's file."""
        return _hash(json.dumps(self.parts(), sort_keys=True))

    def differences(self, other: TuningKey) -> tuple[str, ...]:
        """Return the names of the parts in which two keys differ, in order."""
        theirs = other.parts()
        return tuple(name for name, value in self.parts().items() if theirs[name] != value)

    @classmethod
    def from_parts(cls, parts: Mapping[str, Any]) -> TuningKey:
        """Return the key with these parts.

        Raises:
            ValueError: a part is missing, unknown or no text.
        """
        names = list(cls.__dataclass_fields__)
        wrong = sorted(set(names).symmetric_difference(parts)) or [
            name for name in names if not isinstance(parts[name], str)
        ]
        if wrong:
            raise InvalidValueError(
                "tuning key", f"'{wrong[0]}' is missing, unknown or no text", f"parts: {', '.join(names)}"
            )
        return cls(**parts)


def bucket(size: int) -> str:
    """Return the bucket of a size: the power of two that it does not exceed.

    The best launch config depends on how many programs there are for each core, and on which cache holds the data.
    Both change by factors: caches are 10 to 50 times as large as the ones before them. A bucket of exact sizes would be
    tuned anew for every batch, and one of all sizes would take the first one's winner for all.

    Args:
        size: at least 0.

    Example:
        >>> bucket(1024), bucket(1025), bucket(0)
        ('2^10', '2^11', '0')
    """
    return f"2^{(size - 1).bit_length()}" if size else "0"


def source_hash(*functions: Any) -> str:
    """Hash the sources of all Triton functions that some functions are or can reach.

    Looked at are names that a function's code mentions: globals, what it encloses, members of modules and classes. A
    global constant that a Triton function mentions counts by its value. Where no Triton function is found, the whole
    sources of the functions' files count.

    Args:
        functions: Triton functions, in any decorators, or Python functions that launch them.

    Example:
        >>> len(source_hash(bucket))
        16
    """
    found: dict[str, str] = {}
    seen: set[int] = set()
    for function in functions:
        _read(function, found, seen)
    if not found:
        for function in functions:
            found.update(_file_of(function))
    return _hash(json.dumps(sorted(found.items())))


def key_of(kernel: Kernel, inputs: Mapping[str, Any]) -> TuningKey:
    """Return the key of a kernel that is called with a `config`, for such inputs.

    Args:
        kernel: all of its Triton functions count that `fused` can reach.
        inputs: keyword arguments of `kernel.fused`. Tensors may lie in lists and tuples. Of numbers, integers count
            exactly up to 64 and by `bucket` above. Floats do not count, for no kernel is compiled for their values.
    """
    tensors = list(_tensors("", inputs))
    device = next((tensor.device for _, tensor in tensors), torch.device("cpu"))
    return TuningKey(
        kernel=kernel.name,
        source=source_hash(kernel.fused),
        constexprs=" ".join(f"{name}={value}" for name, value in _constants("", inputs)),
        dtypes=" ".join(f"{name}:{str(tensor.dtype).removeprefix('torch.')}" for name, tensor in tensors),
        size=" ".join(f"{name}:{'x'.join(map(bucket, tensor.shape)) or '1'}" for name, tensor in tensors),
        layout=" ".join(f"{name}:{_layout(tensor)}" for name, tensor in tensors),
        **where_it_runs(device),
    )


def where_it_runs(device: torch.device) -> dict[str, str]:
    """Return the parts of a key that say where a kernel runs: device, compiler and Triton's version."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return {"device": _gpu(index), "compiler": _gpu_compiler(), "triton": release()}
    threads = torch.get_num_threads()
    name = f"{_cpu()}, {threads} thread{'' if threads == 1 else 's'}"
    return {"device": name, "compiler": _c_compiler(), "triton": release()}


@functools.cache
def _gpu(index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    arch = getattr(properties, "gcnArchName", "") or f"sm_{properties.major}{properties.minor}"
    return f"{properties.name}, {arch}, {properties.multi_processor_count} processors"


@functools.cache
def _gpu_compiler() -> str:
    if torch.version.hip:
        return f"HIP {torch.version.hip}, driver {_text('/sys/module/amdgpu/version') or '?'}"
    said = re.search(r"\b\d{3}\.\d+(?:\.\d+)?\b", _text("/proc/driver/nvidia/version"))
    return f"ptxas {ptxas_version()}, driver {said.group() if said else '?'}"


@functools.cache
def _cpu() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    name = found.group(1).strip() if found else platform.processor() or platform.machine()
    features = cpu_features().split()
    wide = [extension for extension in _VECTOR_EXTENSIONS if extension in features]
    return " ".join([name, *wide])


@functools.cache
def _c_compiler() -> str:
    return "none" if why_not() else compiler_version()


def _text(path: str) -> str:
    """A file's text, or nothing where it cannot be read."""
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read(value: Any, found: dict[str, str], seen: set[int]) -> None:
    """Add the sources of Triton functions that a value is or mentions."""
    if isinstance(value, functools.partial):
        for each in (value.func, *value.args, *value.keywords.values()):
            _read(each, found, seen)
        return
    jit, constant = jit_function(value), constexpr_function(value)
    function = plain_function(jit) if jit is not None else constant or value
    if callable(function):
        function = inspect.unwrap(getattr(function, "__func__", function))
    if id(function) in seen or _package(function) in _NOT_READ:
        return
    if jit is not None:
        seen.add(id(function))
        found[_name(function)] = source_of(jit)
        for name, mentioned in _mentioned(function):
            if isinstance(mentioned, (bool, int, float, str)) or _is_constexpr(mentioned):
                found[f"{_name(function)}: {name}"] = repr(mentioned)
            else:
                _read(mentioned, found, seen)
    elif isinstance(function, types.FunctionType):
        seen.add(id(function))
        if constant is not None:
            found[_name(function)] = inspect.getsource(function)
        for _, mentioned in _mentioned(function):
            _read(mentioned, found, seen)
    elif isinstance(function, type):
        seen.add(id(function))
        for member in vars(function).values():
            if isinstance(member, (types.FunctionType, staticmethod, classmethod)):
                _read(getattr(member, "__func__", member), found, seen)
    elif callable(function) and not isinstance(function, types.BuiltinFunctionType):
        seen.add(id(function))
        _read(type(function), found, seen)


def _mentioned(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what a function's code names: globals, members of modules that it names, enclosed values and defaults."""
    names = set(_names(function.__code__))
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        if not isinstance(value, types.ModuleType):
            yield name, value
        elif value.__name__.partition(".")[0] not in _NOT_READ:
            yield from ((f"{name}.{each}", vars(value)[each]) for each in sorted(names & vars(value).keys()))
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    yield from (("default", value) for value in function.__defaults__ or ())
    yield from (function.__kwdefaults__ or {}).items()


def _names(code: types.CodeType) -> Iterator[str]:
    """Yield the names in a function's code, and in that of the functions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _package(value: Any) -> str:
    """The outermost package that a function or class is from."""
    return str(getattr(value, "__module__", None) or "").partition(".")[0]


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _is_constexpr(value: Any) -> bool:
    return type(value).__name__ == "constexpr" and _package(type(value)) == "triton"


def _file_of(function: Any) -> dict[str, str]:
    """The source of the file that a function is from, by its module."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function) if callable(function) else function
    try:
        path = inspect.getsourcefile(function)
        text = Path(path).read_text(errors="replace") if path else ""
    except (OSError, TypeError):
        text = ""
    return {str(getattr(function, "__module__", "")): text}


def _items(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the members of a mapping or sequence, by their paths."""
    pairs: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, Mapping) else enumerate(value)
    for name, each in pairs:
        yield (f"{prefix}.{name}" if prefix else str(name)), each


def _tensors(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, (Mapping, list, tuple)):
        for path, each in _items(name, value):
            yield from _tensors(path, each)


def _constants(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, (bool, str, torch.dtype)):  # None is as if it were left out
        yield name, str(value)
    elif isinstance(value, int):
        yield name, str(value) if abs(value) <= 64 else ("-" if value < 0 else "") + bucket(abs(value))
    elif isinstance(value, (Mapping, list, tuple)):
        for path, each in _items(name, value):
            yield from _constants(path, each)


def _layout(tensor: torch.Tensor) -> str:
    """Whether a tensor is contiguous, and the alignment of its address, which is 16 bytes at most for a kernel."""
    if tensor.layout is not torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    form = "contiguous" if tensor.is_contiguous() else f"strided{'+' if 1 in tensor.stride() else ''}"
    try:
        aligned = tensor.data_ptr() % 16 == 0
    except RuntimeError:  # a tensor without memory
        aligned = True
    return form if aligned else f"{form}, misaligned"
