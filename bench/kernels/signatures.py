"""From functions as a person writes them to the keyword form of `Kernel`: names are found in signatures.

`fused(*inputs)`, `reference(*inputs)` and `make_inputs(seed)` are enough. Inputs that come without names get those of
the parameters of `fused`. `make_inputs` is given what it has parameters for.
"""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fusetune.bench.errors import InputError
from fusetune.closest_name import closest
from fusetune.kernels import Config, jit_function, not_tuned

Function = Callable[..., Any]
# What `make_inputs` can be given, in the order of the contract.
GIVEN = ("elements", "dtype", "device", "seed")
# The parameter of `fused` that takes a launch config. No input has this name.
CONFIG = "config"

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Parameters:
    """What a function can be called with, without its `config`.

    Args:
        names: of what it takes by position, in order.
        by_keyword: what it takes by keyword.
        needed: what has no default.
        rest: the name of what is left over by position (`*inputs`).
        takes_any: it takes any keyword.
        constexprs: of a function in Triton's language.
    """

    names: tuple[str, ...]
    by_keyword: frozenset[str]
    needed: frozenset[str]
    rest: str | None = None
    takes_any: bool = False
    constexprs: tuple[str, ...] = ()

    @classmethod
    def of(cls, function: Function) -> Parameters:
        """Read a signature. A function that has none, as some written in C, takes anything.

        Example:
            >>> Parameters.of(lambda x, *more, config=None: None).names
            ('x',)
        """
        jit = jit_function(function)
        try:
            found = inspect.signature(function if jit is None else jit.fn).parameters.values()
        except (TypeError, ValueError):
            return cls((), frozenset(), frozenset(), "inputs", True)
        named = [each for each in found if each.name != CONFIG or jit is not None]
        return cls(
            tuple(each.name for each in named if each.kind in _POSITIONAL),
            frozenset(each.name for each in named if each.kind in _NAMED),
            frozenset(
                each.name
                for each in named
                if each.default is each.empty and each.kind in (*_POSITIONAL, *_NAMED)
            ),
            next((each.name for each in named if each.kind is each.VAR_POSITIONAL), None),
            any(each.kind is each.VAR_KEYWORD for each in named),
            tuple(each.name for each in named if jit is not None and "constexpr" in str(each.annotation)),
        )

    def takes(self, names: Sequence[str]) -> bool:
        """Whether it can be called with all of these by keyword."""
        return self.takes_any or set(names) <= self.by_keyword

    def name_of(self, index: int) -> str | None:
        """The name of an input by its position. None: there are not as many."""
        if index < len(self.names):
            return self.names[index]
        return None if self.rest is None else f"{self.rest}_{index - len(self.names)}"

    def in_order(self, inputs: Mapping[str, Any]) -> list[Any]:
        """The inputs by position: those of `names`, then those of `rest`."""
        values = [inputs[name] for name in self.names if name in inputs]
        if self.rest is not None:
            count = sum(name.startswith(f"{self.rest}_") for name in inputs)
            values += [inputs[f"{self.rest}_{index}"] for index in range(count)]
        return values


def takes_config(function: Function) -> bool:
    """Say whether a function has a parameter `config`, for the launch config.

    Example:
        >>> takes_config(lambda x, config: None)
        True
    """
    try:
        return CONFIG in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def order_of(fused: Function, reference: Function) -> Parameters:
    """Return the parameters that give inputs their names: those of `fused`, or of the reference where it has none."""
    own = Parameters.of(fused)
    return own if own.names or own.takes_any else Parameters.of(reference)


def by_name(function: Function, order: Parameters) -> Function:
    """Return a function that takes its inputs by keyword, and is called as its own signature has it.

    A function that takes them by keyword is returned as it is: nothing is added to what is timed.

    Args:
        function: a person's, e.g. `fused(x, w)` or `reference(*inputs)`.
        order: of the function that gave the inputs their names.
    """
    own = Parameters.of(function)
    # Without names of its own (`*inputs`), or with other names, it is called by position.
    if own.rest is None and order.rest is None and own.takes(order.names):
        return function

    @functools.wraps(function)
    def call(**inputs: Any) -> Any:
        config = {CONFIG: inputs.pop(CONFIG)} if CONFIG in inputs else {}
        if own.rest is None and own.takes([*inputs]):
            return function(**inputs, **config)
        return function(*order.in_order(inputs), **config)

    return call


def seeded_inputs(
    make_inputs: Function, order: Parameters, where: str
) -> tuple[Callable[[int, torch.dtype, torch.device, int], dict[str, Any]], bool]:
    """Return a `make_inputs` as `Kernel` has it, and whether its inputs have the size that is asked for.

    It is called with those of elements, dtype, device and seed that it has parameters for. The random generators of
    torch, numpy and Python are seeded, too. What it makes is then moved to the device. Where it takes no dtype, tensors
    of the largest one's dtype are converted. The dtype None leaves them as they are.

    Args:
        make_inputs: a person's.
        order: the parameters of `fused`, for inputs that come without names.
        where: for errors.

    Raises:
        InputError: it needs something else. From the returned function: it returned no inputs.

    Example:
        >>> make, sized = seeded_inputs(lambda seed: torch.rand(3), Parameters.of(lambda x: x), "FILE.py")
        >>> sized, make(8, torch.float16, torch.device("cpu"), 0)["x"].dtype
        (False, torch.float16)
    """
    own = Parameters.of(make_inputs)
    by_position = len(own.needed) == len(own.names) == len(GIVEN)
    unknown = [name for name in own.names if name in own.needed and name not in GIVEN]
    if unknown and not by_position:
        near = closest(unknown[0], GIVEN)
        to_do = f"Did you mean '{near}'?" if near else "Name its parameters so"
        known = f"known: {', '.join(GIVEN)}"
        raise InputError(where, f"make_inputs needs '{unknown[0]}'", known, to_do)

    def make(elements: int, dtype: torch.dtype | None, device: torch.device, seed: int) -> dict[str, Any]:
        device = torch.device(device)
        values = dict(zip(GIVEN, (elements, dtype, device, seed), strict=True))
        with _seeded(seed, device):
            if by_position:
                made = make_inputs(*values.values())
            else:
                made = make_inputs(**{name: values[name] for name in GIVEN if own.takes([name])})
        inputs = _named(made, order, where)
        from_dtype = None if by_position or own.takes(["dtype"]) else main_dtype(inputs)
        return dict(_moved(inputs, device, from_dtype, dtype or from_dtype, {}))

    return make, by_position or own.takes(["elements"])


def main_dtype(inputs: Mapping[str, Any]) -> torch.dtype | None:
    """Return the dtype of the largest tensor of floats. None: there is none."""
    floats = [tensor for _, tensor in tensors_in(inputs) if tensor.is_floating_point()]
    return max(floats, key=torch.Tensor.numel).dtype if floats else None


def tensors_in(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each tensor in inputs or results, within lists, tuples and dicts too, by its name.

    Args:
        value: anything.
        name: of the value itself.

    Example:
        >>> [name for name, _ in tensors_in({"x": torch.ones(1), "more": [torch.ones(1), 3]})]
        ['x', 'more[0]']
    """
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from tensors_in(each, f"{name}[{key!r}]" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from tensors_in(each, f"{name}[{index}]")


def _named(made: Any, order: Parameters, where: str) -> dict[str, Any]:
    """Give inputs their names."""
    if isinstance(made, torch.Tensor):
        made = (made,)
    if isinstance(made, Mapping):
        inputs = dict(made)
        wrong = next((key for key in inputs if not isinstance(key, str) or key == CONFIG), None)
        if wrong is not None:
            raise InputError(
                where,
                f"make_inputs names an input {wrong!r}",
                f"known: texts other than '{CONFIG}'",
                "Rename it",
            )
    elif isinstance(made, list | tuple):
        inputs = {}
        for index, value in enumerate(made):
            name = order.name_of(index)
            if name is None:
                raise InputError(
                    where,
                    f"make_inputs returns {len(made)} values, and fused takes {len(order.names)}",
                    f"known: {', '.join(order.names)}",
                    "Return one for each",
                )
            inputs[name] = value
    else:
        raise InputError(
            where,
            f"make_inputs returns a {type(made).__name__}",
            "known: a tensor, a tuple, or a dict by the names of the parameters of fused",
            "Return one of these",
        )
    if next(tensors_in(inputs), None) is None:
        raise InputError(
            where, "make_inputs returns no tensor", to_do="Return the tensors that fused is called with"
        )
    return inputs


def _moved(
    value: Any,
    device: torch.device,
    from_dtype: torch.dtype | None,
    dtype: torch.dtype | None,
    seen: dict[int, Any],
) -> Any:
    """Rebuild inputs on a device, with one dtype converted. A tensor that is there twice stays one."""
    if isinstance(value, torch.Tensor):
        if id(value) not in seen:
            seen[id(value)] = value.to(device, dtype if value.dtype == from_dtype else value.dtype)
        return seen[id(value)]
    if isinstance(value, dict):
        return {key: _moved(each, device, from_dtype, dtype, seen) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_moved(each, device, from_dtype, dtype, seen) for each in value)
    return value


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed every generator that a person may draw from, and put their states back."""
    of_numpy, of_python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(of_numpy)
            random.setstate(of_python)


def launched(function: Any, grid: Any, configs: Sequence[Config]) -> Function:
    """Return a Python function that launches a function in Triton's language, as `Kernel.fused` has it.

    Args:
        function: decorated by `@triton.jit`, and maybe by `@triton.autotune` and `@triton.heuristics`.
        grid: a number of programs, a tuple of them, or Triton's own form: a function of the launch's arguments.
        configs: its launch-config space. Where there is one the returned function takes a `config`, and an empty one
            leaves the choice to `@triton.autotune`.
    """
    order = Parameters.of(function)
    programs = (grid,) if isinstance(grid, int) else grid
    # What Triton's own hooks get by position, as a person's launch would give it.
    leading = order.names[: order.names.index(order.constexprs[0])] if order.constexprs else order.names
    bare = not_tuned(function)

    def launch_by(config: Config | None = None, **inputs: Any) -> None:
        first = []
        for name in leading:
            if name not in inputs:
                break
            first.append(inputs.pop(name))
        (bare if config else function)[programs](*first, **inputs, **(config or {}))

    def launch(**inputs: Any) -> None:
        launch_by(None, **inputs)

    return launch_by if configs else launch


def writing_reference(reference: Function, function: Any, where: str) -> Function:
    """Return the reference of a function in Triton's language: it writes where that one does.

    The reference may write into its arguments by itself, and return nothing. Or it leaves out the tensors that hold the
    results, and returns these in their order.

    Args:
        reference: a person's. Its parameters have the names of the kernel's, without `_ptr` if she likes.
        function: the kernel.
        where: for errors.

    Raises:
        InputError: a parameter that the kernel has not. From the returned function: results that have no place.
    """
    order = Parameters.of(function)
    own = Parameters.of(reference)
    takes_all = own.rest is not None or own.takes_any
    # Her name -> the kernel's.
    names = {} if takes_all else {name: _kernels_name(name, own, order, where) for name in own.names}

    @functools.wraps(reference)
    def write(**inputs: Any) -> None:
        places: list[torch.Tensor] = []
        if own.rest is not None:
            returned = reference(*order.in_order(inputs))
        elif own.takes_any:
            returned = reference(**inputs)
        else:
            returned = reference(
                **{name: inputs[theirs] for name, theirs in names.items() if theirs in inputs}
            )
            left = [inputs.get(name) for name in order.names if name not in names.values()]
            places = [each for each in left if isinstance(each, torch.Tensor)]
        results = [tensor for _, tensor in tensors_in((returned,))]
        if not results:
            return
        if [each.shape for each in results] != [place.shape for place in places]:
            raise InputError(
                where,
                f"reference returns {_shapes(results)}",
                f"the kernel has {_shapes(places)} that the reference does not take",
                "Leave the tensors that it writes, and no others, out of the reference's parameters",
            )
        for place, result in zip(places, results, strict=True):
            place.copy_(result)

    return write


def _kernels_name(name: str, own: Parameters, order: Parameters, where: str) -> str:
    """The kernel's name for a parameter of its reference. One with a default may have none."""
    found = [each for each in (name, f"{name}_ptr") if each in order.names]
    if not found and name not in own.needed:
        return name
    if not found:
        raise InputError.unknown(
            f"{where}: reference", name, order.names, in_order=True, otherwise="Name it as the kernel does."
        )
    return found[0]


def _shapes(tensors: Sequence[torch.Tensor]) -> str:
    shapes = ", ".join(str(tuple(each.shape)) for each in tensors)
    return f"{len(tensors)} tensor{'s' * (len(tensors) != 1)}" + (f" {shapes}" if shapes else "")
