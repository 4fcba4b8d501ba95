"""A person's own model, data or optimizer: a function or class named in the spec as `package.module:function`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from fusetune.bench.errors import InputError
from fusetune.bench.own_modules import import_own_module
from fusetune.closest_name import closest

_REFERENCE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


def load_factory(reference: str, where: str, spec_dir: Path | None = None) -> Callable[..., Any]:
    """Import the function or class that `reference` names.

    Modules are searched for on Python's path, then beside the spec, then in the current directory. A person's file with
    a library's name is refused, because Python would find the library.

    Args:
        reference: "package.module:function".
        where: the place in the spec that names it, for the errors.
        spec_dir: the directory of the spec. None: it is on sys.path already, as in a worker, or there is no spec.

    Mutates:
        sys.path, to which these directories are appended: the module may import its neighbours later. See
        `bench.import_paths`.

    Raises:
        InputError: a reference of another form, a module that is not found, is hidden by a library or fails while it
            is imported, a function that it does not have.

    Example:
        >>> load_factory("math:sqrt", "model.factory")(9.0)
        3.0
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InputError(
            where, f"'{reference}' does not name a function", "known: package.module:function", "Write it so"
        )
    module_name, function_name = match.groups()
    folders = () if spec_dir is None else (str(spec_dir.resolve()),)
    module = import_own_module(module_name, where, folders, beside="the spec")
    if not hasattr(module, function_name):
        functions = [
            key for key, value in vars(module).items() if callable(value) and not key.startswith("_")
        ]
        if not functions:
            raise InputError(
                where,
                f"module '{module_name}' has no '{function_name}'",
                "it has no functions",
                "Define it there",
            )
        raise InputError.unknown(f"{where}: in module '{module_name}'", function_name, functions)
    factory: Callable[..., Any] = getattr(module, function_name)
    if not callable(factory):
        kind = type(factory).__name__
        raise InputError(
            where, f"'{reference}' is not a function", f"it is of type {kind}", "Name a function"
        )
    return factory


def call_factory(
    factory: Callable[..., Any], where: str, arguments: Mapping[str, object], *first: object
) -> Any:
    """Call a factory with keyword arguments, after a check that they fit its signature.

    Errors of the factory itself pass through.

    Args:
        factory: any callable.
        where: the place in the spec that names it, for the errors.
        arguments: keyword -> value.
        first: arguments that go before them, by position.

    Raises:
        InputError: a keyword that the factory does not take, or a missing one.

    Example:
        >>> call_factory(lambda depth: "-" * depth, "model.factory", {"depth": 3})
        '---'
    """
    _check_signature(factory, where, arguments, first)
    return factory(*first, **arguments)


def full_arguments(factory: Callable[..., Any], arguments: Mapping[str, object]) -> dict[str, str]:
    """Return what a factory gets, its own defaults included: keyword -> repr of the value.

    Args:
        factory: any callable.
        arguments: keyword -> value.

    Example:
        >>> full_arguments(lambda depth, width=4: None, {"depth": 3})
        {'depth': '3', 'width': '4'}
    """
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        signature = inspect.Signature()  # a function written in C may have none
    defaults = {name: p.default for name, p in signature.parameters.items() if p.default is not p.empty}
    return {name: repr(value) for name, value in sorted({**defaults, **arguments}.items())}


def build_model_from_factory(
    reference: str,
    where: str,
    *,
    input_shape: tuple[int, ...],
    num_classes: int,
    parameters: Mapping[str, object],
) -> nn.Module:
    """Build a model with a person's own function, called as f(input_shape=..., num_classes=..., **parameters).

    Args:
        reference: "package.module:function".
        where: the place in the spec that names it, for the errors.
        input_shape: (C, H, W) or (D,).
        num_classes: int >= 1.
        parameters: the other keys of the spec's mapping.

    Raises:
        InputError: as `load_factory` and `call_factory`. A result that is no torch.nn.Module.

    Example:
        >>> import torch
        >>> build_model_from_factory(
        ...     "fusetune.bench.workloads.models:build_model", "model.factory",
        ...     input_shape=(4,), num_classes=3, parameters={"name": "linear"},
        ... )(torch.zeros(2, 4)).shape
        torch.Size([2, 3])
    """
    factory = load_factory(reference, where)
    model = call_factory(
        factory, where, {**parameters, "input_shape": tuple(input_shape), "num_classes": num_classes}
    )
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        raise InputError(
            where, f"'{reference}' returned a {kind}", "a model is a torch.nn.Module", "Return one"
        )
    return model


def _check_signature(
    factory: Callable[..., Any], where: str, arguments: Mapping[str, object], first: Sequence[object]
) -> None:
    """Raise InputError with the first keyword that the factory does not take or that is missing."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return  # a function written in C may have no signature, and the call shows the error
    by_position = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    by_keyword = {
        name: parameter
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in by_position[: len(first)]
    }
    takes_any = any(parameter.kind == parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    function = getattr(factory, "__name__", type(factory).__name__)
    for keyword in arguments:
        if keyword not in by_keyword and not takes_any:
            near = closest(keyword, by_keyword)
            hint = f"Did you mean '{near}'?" if near else "Take it as a parameter, or leave it out."
            takes = ", ".join(sorted(by_keyword)) or "none"
            raise InputError(where, f"{function}() takes no '{keyword}'", f"known: {takes}", hint)
    for name, parameter in by_keyword.items():
        if name not in arguments and parameter.default is parameter.empty:
            given = ", ".join(sorted(arguments)) or "none"
            raise InputError(
                where, f"{function}() needs '{name}'", f"it is given: {given}", "Add it to the spec"
            )
    try:
        signature.bind(*first, **arguments)
    except TypeError as error:  # what is left: a parameter that is positional only
        how = f"{len(first)} argument by position and the rest by keyword" if first else "keywords"
        raise InputError(where, f"{function}() cannot be called by {how}", str(error), "Allow it") from error
