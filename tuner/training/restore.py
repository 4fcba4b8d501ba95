"""Try something on a model and a batch source, and leave no trace: everything that it changed is put back."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fusetune.errors import InvalidValueError

# A DataLoader's generator lies two objects deep (loader, sampler), one that a batch sampler wraps three.
_DEPTH = 4
# Longer containers are put back themselves, but not looked into: they hold samples, not the source's own state.
_LOOKED_INTO = 1000
# Arrays up to this size are copied, an order of two million samples among them. Larger ones are taken for the data.
_COPIED_BYTES = 16 * 2**20
_LEAVES = (Tensor, nn.Module, type, FunctionType, ModuleType, MethodType)
_Undo = list[Callable[[], object]]


@contextmanager
def leaving_no_trace(model: nn.Module, *sources: object) -> Iterator[Callable[[], None]]:
    """Put back, at the end and after an error too, what the block did to a model and to batch sources.

    Put back are:

    - the model's parameters, buffers and submodules, with their values bit for bit, gradients, requires_grad and
      training mode
    - every other attribute of its modules. Lists, dictionaries, sets, deques, numpy arrays and random generators among
      the attributes get their content back
    - the same of a source and of the objects that it holds (a sampler, a data set)
    - the random states of torch (CPU, and CUDA where it is in use), numpy and Python

    Gradients are on in the block, whatever the caller's mode.

    Not put back are:

    - content deeper than four objects or containers, or of a container with more than 1,000 entries
    - numpy arrays above 16 MiB or in a list or tuple
    - tensors that are changed in place and are neither parameters nor buffers
    - attributes of a model's objects that are no modules

    Yields:
        a function that puts parameters, buffers and attributes of the modules back, to start again from the same model.

    Args:
        model: its parameters must have been initialised.
        sources: of batches. Their tensors are not copied.

    Memory: one copy of the model's parameters and buffers, where they are, and of the numpy arrays.

    Raises:
        ValueError: a parameter that has no values yet.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> before = model.weight.item()
        >>> with leaving_no_trace(model):
        ...     _ = nn.init.constant_(model.weight, before + 1)
        >>> model.weight.item() == before
        True
    """
    put_model_back = _model_undo(model)
    gradients = [(parameter, parameter.grad, parameter.requires_grad) for parameter in model.parameters()]
    undo_sources = _undo_of(sources, objects=True)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            yield put_model_back
    finally:
        put_model_back()
        for parameter, gradient, requires_grad in gradients:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient
        for undo in undo_sources:
            undo()
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _model_undo(model: nn.Module) -> Callable[[], None]:
    """Return what puts a model's modules and the values of its parameters and buffers back, any number of times."""
    for name, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise InvalidValueError(
                "model",
                f"the parameter {name} has no values yet",
                to_do="Run a batch through the model first",
            )
    # The tensors themselves: a module may put others in their place.
    values = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    modules = _undo_of([vars(module) for module in model.modules()], objects=False)

    def put_back() -> None:
        for undo in modules:
            undo()
        with torch.no_grad():
            for tensor, value in values:
                tensor.copy_(value)

    return put_back


def _undo_of(roots: Iterable[object], *, objects: bool) -> _Undo:
    """Return what puts things back, with what they hold.

    Args:
        roots: where to begin.
        objects: whether to look into the attributes of any object, or into containers alone.
    """
    undo: _Undo = []
    seen: set[int] = set()

    def visit(item: Any, depth: int, *, in_sequence: bool = False) -> None:
        if depth == 0 or id(item) in seen or isinstance(item, _LEAVES):
            return
        seen.add(id(item))
        held: Collection[Any] = ()
        if isinstance(item, np.ndarray):
            # Arrays in a sequence are samples or batches.
            if not in_sequence and item.nbytes <= _COPIED_BYTES and item.flags.writeable:
                undo.append(partial(_refill_array, item, item.copy()))
        elif (put_back := _container_undo(item) or _generator_undo(item)) is not None:
            undo.append(put_back)
            held = item.values() if isinstance(item, dict) else item if isinstance(item, _CONTAINERS) else ()
        elif isinstance(item, tuple):
            held = item
        elif objects and isinstance(getattr(item, "__dict__", None), dict):
            undo.append(partial(_refill, vars(item), dict(vars(item))))
            held = vars(item).values()
        if len(held) <= _LOOKED_INTO:
            for value in list(held):
                visit(value, depth - 1, in_sequence=isinstance(item, (list, tuple, deque)))

    for root in roots:
        visit(root, _DEPTH)
    return undo


_CONTAINERS = (list, dict, set, deque)


def _container_undo(item: Any) -> Callable[[], object] | None:
    """Return what gives a container its content back. None for anything else."""
    if isinstance(item, list):
        return partial(item.__setitem__, slice(None), list(item))
    if isinstance(item, (dict, set)):
        return partial(_refill, item, item.copy() if isinstance(item, set) else dict(item))
    if isinstance(item, deque):
        return partial(_refill_deque, item, list(item))
    return None


def _generator_undo(item: Any) -> Callable[[], object] | None:
    """Return what gives a random generator its state back. None for anything else."""
    if isinstance(item, torch.Generator):
        return partial(item.set_state, item.get_state())
    if isinstance(item, np.random.Generator):
        return partial(setattr, item.bit_generator, "state", item.bit_generator.state)
    if isinstance(item, np.random.RandomState):
        return partial(item.set_state, item.get_state())
    if isinstance(item, random.Random):
        return partial(item.setstate, item.getstate())
    return None


def _refill(container: Any, content: Any) -> None:
    """Give a dictionary or a set its earlier content."""
    container.clear()
    container.update(content)


def _refill_deque(container: deque[Any], content: list[Any]) -> None:
    """Give a deque its earlier content."""
    container.clear()
    container.extend(content)


def _refill_array(array: np.ndarray, content: np.ndarray) -> None:
    """Give an array its earlier content."""
    array[...] = content
