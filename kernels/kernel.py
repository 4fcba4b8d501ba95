"""What the suite knows of a kernel: enough to verify, compile, time and list it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from fusetune.errors import InvalidTypeError, InvalidValueError
from fusetune.kernels.launch import LaunchConfig
from fusetune.kernels.triton_inside import is_triton_function


@dataclass(frozen=True)
class StaticCase:
    """One specialisation of a `@triton.jit` function, to be compiled without a GPU.

    Args:
        name: e.g. `adam-fp32`.
        jit: the `@triton.jit` function.
        signature: argument name -> Triton type (`*fp32`, `i64`, `fp32`, ...), for a tuple a tuple of them. Constexprs
            are left out.
        constants: constexpr name -> value, BLOCK_SIZE included.
        config: the launch config that is shipped.
        elements: elements that one program handles.
        aligned: names of the arguments that are multiples of 16 (pointers: aligned to 16 bytes).
        vector_bytes: the width in bytes that the accesses of each stream of memory must have. It is 16, or 8 for the
            narrow one of a mixed pair, or 0 where nothing is promised.
    """

    name: str
    jit: Any
    signature: Mapping[str, Any]
    constants: Mapping[str, Any]
    config: LaunchConfig
    elements: int
    aligned: tuple[str, ...] = ()
    vector_bytes: int = 16


Inputs = dict[str, Any]
# A launch config by name: constexprs, `num_warps` and `num_stages`. A kernel launches with `**config`.
Config = Mapping[str, int]
MakeInputs = Callable[[int, torch.dtype, torch.device, int], Inputs]


def config_grid(**values: int | Iterable[int]) -> tuple[Config, ...]:
    """Return every combination of launch parameters, the first names varying slowest.

    Args:
        values: name of a constexpr, `num_warps` or `num_stages` -> the values to try, or the only one.

    Raises:
        InvalidTypeError: a value that is no integer.
        InvalidValueError: a name without a value.

    Example:
        >>> config_grid(BLOCK_SIZE=(256, 1024), num_warps=4)
        ({'BLOCK_SIZE': 256, 'num_warps': 4}, {'BLOCK_SIZE': 1024, 'num_warps': 4})
    """
    columns = []
    for name, given in values.items():
        column = (given,) if isinstance(given, int) else tuple(given)
        if not column:
            raise InvalidValueError(name, "has no value", to_do="Give at least one")
        for value in column:
            if not isinstance(value, int):
                raise _wrong_type(name, value, "an integer")
        columns.append(column)
    return tuple(dict(zip(values, row, strict=True)) for row in itertools.product(*columns))


@dataclass(frozen=True)
class Kernel:
    """A kernel and the function that defines what is right: all that verifying, timing and tuning it needs.

    Only the first four must be given. What is None is found on the kernel's inputs. Lists are as good as tuples.

    Args:
        name: unique, e.g. `adam`. It has no `/`, which separates the parts of a row's name.
        fused: called with what `make_inputs` returns as keyword arguments. It returns tensors, updates some, or both.
            Where `configs` are given and it has a parameter `config`, it is called with one of them too.
        reference: the same call with the same results, in plain PyTorch. It also works on float64 tensors.
        make_inputs: `(elements, dtype, device, seed)` -> keyword arguments of both. The same arguments give the same
            values.
        family: for reports, e.g. `optimizer`, `activation`, `matmul`.
        bytes_moved: keyword arguments -> bytes that must cross memory once. None: all tensors that are read, once, and
            all that are written, once.
        mutates: keyword arguments that are updated in place. None: those that the reference changes.
        configs: the launch-config space, see `config_grid`. Empty: there is nothing to tune. An empty config among
            them stands for what the kernel chooses by itself.
        default: the config that is shipped, one of `configs`. None: the first of them.
        elements: sizes to verify and time by default. Empty: those of the spec.
        dtypes: dtypes to verify and time by default.
        tolerance: the largest error against float64, relative to the scale of the result. None: by the error of the
            reference in the same dtype.
        scratch_bytes: keyword arguments -> bytes that a call may allocate beside its results. None: none worth a name.
        atomics: results may differ from call to call in the last bits, because the order of additions is open.
        alignment: bytes that the address of each tensor must be a multiple of. 1: any address that fits the dtype.
        competitors: name -> another way to do the same work, called as `fused` is.
        static_cases: what to compile without a GPU.
        sized: `make_inputs` makes inputs of the size that it is asked for. False: it has one size, whatever is asked.

    Raises:
        InvalidTypeError: an argument of another type.
        InvalidValueError: a value that is out of range, configs that do not go together.

    Example:
        >>> from fusetune.kernels import Kernel
        >>> def make_inputs(elements, dtype, device, seed):
        ...     generator = torch.Generator().manual_seed(seed)
        ...     return {"x": torch.randn(elements, generator=generator).to(device, dtype)}
        >>> twice = Kernel("twice", lambda x: x + x, lambda x: 2 * x, make_inputs)
        >>> twice.fused(**make_inputs(2, torch.float32, "cpu", 0)).shape
        torch.Size([2])
    """

    name: str
    fused: Callable[..., Any]
    reference: Callable[..., Any]
    make_inputs: MakeInputs
    family: str = "other"
    bytes_moved: Callable[[Inputs], int] | None = None
    mutates: tuple[str, ...] | None = None
    configs: tuple[Config, ...] = field(default=(), repr=False)
    default: Config | None = None
    elements: tuple[int, ...] = ()
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)
    tolerance: float | None = None
    scratch_bytes: Callable[[Inputs], int] | None = None
    atomics: bool = False
    alignment: int = 1
    competitors: Mapping[str, Callable[..., Any]] = field(default_factory=dict, repr=False)
    static_cases: tuple[StaticCase, ...] = field(default=(), repr=False)
    sized: bool = True

    def __post_init__(self) -> None:
        _check_name(self.name)
        for what in ("fused", "reference", "make_inputs"):
            _check_callable(f"{self.name}: {what}", getattr(self, what))
        for what in ("bytes_moved", "scratch_bytes"):
            if getattr(self, what) is not None:
                _check_callable(f"{self.name}: {what}", getattr(self, what))
        for name, competitor in self.competitors.items():
            _check_callable(f"{self.name}: competitors: {name}", competitor)
        for what, kind, meant in _SEQUENCES:
            if getattr(self, what) is not None:
                items = _as_tuple(f"{self.name}: {what}", getattr(self, what), kind, meant)
                object.__setattr__(self, what, items)
        if not self.dtypes:
            raise InvalidValueError(f"{self.name}: dtypes", "is empty", to_do="Name one, e.g. torch.float32")
        for elements in self.elements:
            _check(f"{self.name}: elements", elements, elements >= 1, "1 or more")
        is_power = self.alignment >= 1 and not self.alignment & (self.alignment - 1)
        _check(f"{self.name}: alignment", self.alignment, is_power, "powers of two")
        if self.tolerance is not None:
            _check(
                f"{self.name}: tolerance", self.tolerance, 0 < self.tolerance < math.inf, "above 0 and finite"
            )
        _check_configs(self.name, self.configs, self.default)


# Fields that are tuples, what they hold, and what that is called.
_SEQUENCES: tuple[tuple[str, type, str], ...] = (
    ("mutates", str, "names of inputs"),
    ("configs", Mapping, "configs such as {'BLOCK_SIZE': 1024, 'num_warps': 4}"),
    ("elements", int, "integers"),
    ("dtypes", torch.dtype, "torch.dtype"),
    ("static_cases", StaticCase, "StaticCase"),
)


def _check(where: str, value: object, is_right: bool, known: str) -> None:
    if not is_right:
        raise InvalidValueError(where, f"{value} is not allowed", f"known: {known}")


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise _wrong_type("name", name, "a text")
    if not name.strip() or name != name.strip() or not name.isprintable() or "/" in name:
        raise InvalidValueError("name", f"'{name}' is not allowed", "known: printable characters but '/'")


def _check_callable(where: str, function: object) -> None:
    if is_triton_function(function):
        raise InvalidTypeError(
            where,
            "is a @triton.jit function, which nothing but a launch can call",
            to_do="Give a Python function that launches it",
        )
    if not callable(function):
        raise _wrong_type(where, function, "a function")


def _as_tuple(where: str, given: object, kind: type, meant: str) -> tuple[Any, ...]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InvalidTypeError(
            where, f"is a {type(given).__name__}", f"known: a tuple of {meant}", "Put it into a tuple"
        )
    items = tuple(given)
    for item in items:
        if not isinstance(item, kind) or isinstance(item, bool):
            raise _wrong_type(where, item, meant)
    return items


def _check_configs(name: str, configs: tuple[Config, ...], default: Config | None) -> None:
    """Refuse configs that one launch cannot be called with in turn, and a default that is none of them."""
    where = f"{name}: configs"
    names: set[str] | None = None
    for config in configs:
        for key, value in config.items():
            if not isinstance(value, int):
                raise _wrong_type(f"{where}: {key}", value, "integers")
        if config and names is None:
            names = set(config)
        if config and set(config) != names:
            differ = ", ".join(sorted(set(config) ^ (names or set())))
            raise InvalidValueError(
                where, "not all have the same names", f"they differ in {differ}", "Give each config all names"
            )
    if len({frozenset(config.items()) for config in configs}) < len(configs):
        raise InvalidValueError(where, "hold one twice", to_do="Leave it out")
    if default is not None and default not in configs:
        raise InvalidValueError(
            f"{name}: default",
            f"{dict(default)} is none of configs",
            to_do="Add it there, or choose one of them",
        )


def _wrong_type(where: str, value: object, known: str) -> InvalidTypeError:
    return InvalidTypeError(where, f"is a {type(value).__name__}", f"known: {known}")
