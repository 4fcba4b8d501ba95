"""Try something on a model and a batch source, and leave no trace: everything that it changed is put back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# A DataLoader's generator lies two objects deep (loader, sampler), one that a batch sampler wraps three.
_DEPTH = 4
_LEAVES = (Tensor, np.ndarray, nn.Module, type, FunctionType, ModuleType, MethodType)


@contextmanager
def leaving_no_trace(model: nn.Module, *sources: object) -> Iterator[Callable[[], None]]:
    """Put back, at the end and after an error too, what the block did to a model and to batch sources.

    Of the model: parameters and buffers bit for bit, gradients, requires_grad, training mode and every other attribute
    of its modules. Of a source: the attributes of the object and of what it holds (a sampler, a data set), with the
    states of random generators, lists and dictionaries among them. Besides: the random states of torch (CPU, and CUDA
    where it is in use), numpy and Python. Gradients are on in the block, whatever the caller's mode.

    Yields:
        a function that puts parameters and buffers alone back, to start again from the same weights.

    Args:
        model: its parameters must have been initialised.
        sources: of batches; their tensors are not copied.

    Memory: one copy of the model's parameters and buffers, where they are.

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
    values = _Values(model)
    attributes = [(module, dict(vars(module))) for module in model.modules()]
    gradients = [(parameter, parameter.grad, parameter.requires_grad) for parameter in model.parameters()]
    undo_sources = [undo for source in sources for undo in _undo_of(source)]
    numpy_state, python_state = np.random.get_state(), random.getstate()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            yield values.put_back
    finally:
        for module, saved in attributes:
            _refill(vars(module), saved)
        values.put_back()
        for parameter, gradient, requires_grad in gradients:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient
        for undo in undo_sources:
            undo()
        np.random.set_state(numpy_state)
        random.setstate(python_state)


class _Values:
    """The values of a model's parameters and buffers, by name: a module may replace a buffer by another tensor."""

    def __init__(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if nn.parameter.is_lazy(parameter):
                raise ValueError(
                    f"model: the parameter {name} has no values yet. Run a batch through the model first"
                )
        self._model = model
        self._saved = {name: tensor.detach().clone() for name, tensor in self._tensors()}

    def put_back(self) -> None:
        """Copy the values back, in place."""
        with torch.no_grad():
            for name, tensor in self._tensors():
                if name in self._saved:  # a buffer that a module made on its way has no earlier value
                    tensor.copy_(self._saved[name])

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self._model.named_parameters()
        yield from self._model.named_buffers()


def _undo_of(source: object) -> list[Callable[[], object]]:
    """Return what puts a batch source back, for it and for what it holds."""
    undo: list[Callable[[], object]] = []
    seen: set[int] = set()

    def visit(item: Any, depth: int) -> None:
        if depth == 0 or id(item) in seen or isinstance(item, _LEAVES):
            return
        seen.add(id(item))
        if isinstance(item, torch.Generator):
            undo.append(partial(item.set_state, item.get_state()))
        elif isinstance(item, np.random.Generator):
            undo.append(partial(setattr, item.bit_generator, "state", item.bit_generator.state))
        elif isinstance(item, np.random.RandomState):
            undo.append(partial(item.set_state, item.get_state()))
        elif isinstance(item, random.Random):
            undo.append(partial(item.setstate, item.getstate()))
        elif isinstance(item, list):
            undo.append(partial(item.__setitem__, slice(None), list(item)))
        elif isinstance(item, dict):
            undo.append(partial(_refill, item, dict(item)))
        elif isinstance(getattr(item, "__dict__", None), dict):
            undo.append(partial(_refill, vars(item), dict(vars(item))))
            for value in vars(item).values():
                visit(value, depth - 1)

    visit(source, _DEPTH)
    return undo


def _refill(mapping: dict[Any, Any], content: dict[Any, Any]) -> None:
    """Give a dictionary its earlier content."""
    mapping.clear()
    mapping.update(content)
