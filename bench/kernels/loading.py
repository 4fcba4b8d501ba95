"""From a `KernelSource` to a `Kernel`. This runs a person's code, so it belongs into a lane."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fusetune.bench.errors import InputError
from fusetune.bench.kernels.case import KernelSource
from fusetune.bench.kernels.signatures import (
    Function,
    Parameters,
    by_name,
    launched,
    order_of,
    seeded_inputs,
    takes_config,
    writing_reference,
)
from fusetune.bench.kernels.sources import parts_of
from fusetune.bench.own_modules import import_own_file, import_own_module
from fusetune.errors import FusetuneError
from fusetune.kernels import (
    KERNELS,
    Config,
    Kernel,
    autotune_configs,
    is_autotuned,
    is_triton_function,
    jit_function,
)

# What a file may say of its kernel beside the functions: fields of `Kernel`, under their own names.
FIELDS = (
    *("family", "bytes_moved", "mutates", "configs", "default", "elements", "dtypes", "tolerance"),
    *("scratch_bytes", "atomics", "alignment", "competitors"),
)
# The name of the Python function that is the kernel, where a file is named alone.
_FUSED = "fused"
_FORMS = "known: a Kernel, functions fused, reference and make_inputs, or a @triton.jit function with these beside it"


def load_kernel(source: KernelSource) -> Kernel:
    """Import a kernel, and complete what can be known of it without a call. For lanes only.

    `mutates` and `bytes_moved` may be None afterwards, see `input_facts`.

    Args:
        source: of one kernel.

    Mutates:
        sys.path and sys.modules, where the kernel is a person's.

    Raises:
        InputError: nothing to import, an import that fails, or no kernel there. It says what to write.

    Example:
        >>> load_kernel(KernelSource("gelu")).name
        'gelu'
    """
    return KERNELS[source.reference] if source.is_shipped else load_own(source).kernel


@dataclass(frozen=True)
class OwnKernel:
    """A person's kernel, and what it was made of.

    Args:
        kernel: complete.
        fused, reference, make_inputs: as they were written.
        order: the parameters that gave the inputs their names.
        where: for errors.
        fields: of `Kernel` that were given.
    """

    kernel: Kernel
    fused: Any
    reference: Function
    make_inputs: Function
    order: Parameters
    where: str
    fields: frozenset[str]


def load_own(source: KernelSource) -> OwnKernel:
    """Import a person's kernel. See `load_kernel`.

    Args:
        source: that is not shipped.
    """
    path, name = parts_of(source.reference)
    module, where = _module_of(path, source)
    if name is None:
        names = _names_in(module, where)
        if len(names) > 1:
            first = f"{where}:{names[0]}"
            raise InputError(where, f"has {len(names)} kernels", _known(names), f"Name one, e.g. {first}")
        (name,) = names
    value = _value_of(module, name, where)
    pieces = _Pieces(module, name, source, f"{where}:{name}")
    try:
        return pieces.completed(value) if isinstance(value, Kernel) else pieces.assembled(value)
    except InputError:
        raise
    except FusetuneError as error:  # what `Kernel` itself refuses
        raise InputError(pieces.where, str(error)) from error


def kernels_in(source: KernelSource) -> tuple[KernelSource, ...]:
    """Return the sources of all kernels of a file, where a source names a file alone. For lanes only.

    Args:
        source: of a kernel or of a file.

    Mutates:
        as `load_kernel`.

    Raises:
        InputError: as `load_kernel`.

    Example:
        >>> kernels_in(KernelSource("gelu"))
        (KernelSource(reference='gelu', import_paths=(), needs=()),)
    """
    path, name = parts_of(source.reference)
    if source.is_shipped or name is not None:
        return (source,)
    names = _names_in(*_module_of(path, source))
    return tuple(dataclasses.replace(source, reference=f"{path}:{name}") for name in names)


@dataclass(frozen=True)
class _Pieces:
    """What a module has for one of its kernels.

    Args:
        module: where the kernel was found.
        name: in the module.
        source: which may say where else something is found.
        where: for errors.
    """

    module: ModuleType
    name: str
    source: KernelSource
    where: str

    def completed(self, kernel: Kernel) -> OwnKernel:
        """A person's `Kernel`, its functions called as their signatures have it."""
        order = order_of(kernel.fused, kernel.reference)
        make_inputs, sized = seeded_inputs(kernel.make_inputs, order, self.where)
        whole = dataclasses.replace(
            kernel,
            fused=by_name(kernel.fused, order),
            reference=by_name(kernel.reference, order),
            make_inputs=make_inputs,
            sized=kernel.sized and sized,
            competitors={name: by_name(each, order) for name, each in kernel.competitors.items()},
        )
        fields = dataclasses.fields(kernel)
        given = {each.name for each in fields if getattr(kernel, each.name) != _default_of(each)}
        functions = kernel.fused, kernel.reference, kernel.make_inputs
        return OwnKernel(whole, *functions, order, self.where, frozenset(given))

    def assembled(self, fused: Function) -> OwnKernel:
        """A kernel from functions, and from what its file says of it."""
        takes = ", ".join(Parameters.of(fused).names) or "*inputs"
        make_inputs = self._function(
            "make_inputs", "which makes what it is called with", "elements, dtype, device, seed"
        )
        reference = self._function("reference", "which says in plain PyTorch what is right", takes)
        fields = {field: self._get(field) for field in FIELDS}
        fields = {field: value for field, value in fields.items() if value is not None}
        if is_triton_function(fused):
            return self._launched(fused, reference, make_inputs, fields)
        if fields.get("configs") and not takes_config(fused):
            raise InputError(
                self.where,
                "takes none of its configs",
                to_do="Give it a parameter `config`, and launch with **config",
            )
        order = order_of(fused, reference)
        make, sized = seeded_inputs(make_inputs, order, self.where)
        name = Path(self.module.__file__ or self.name).stem if self.name == _FUSED else self.name
        whole = Kernel(
            name,
            by_name(fused, order),
            by_name(reference, order),
            make,
            sized=sized,
            **{"family": "own", **fields},
        )
        return OwnKernel(whole, fused, reference, make_inputs, order, self.where, frozenset(fields))

    def _launched(
        self, function: Any, reference: Function, make_inputs: Function, fields: dict[str, Any]
    ) -> OwnKernel:
        """A kernel from a function in Triton's language."""
        grid = self._get("grid")
        order = Parameters.of(function)
        if grid is None:
            size = next(
                (name for name in order.names if not name.endswith("_ptr") and name not in order.constexprs),
                "n",
            )
            block = order.constexprs[0] if order.constexprs else "BLOCK_SIZE"
            example = f"def grid(meta): return (triton.cdiv(meta['{size}'], meta['{block}']),)"
            raise InputError(self.where, "has no grid, its number of programs", to_do=f"Write {example}")
        if is_autotuned(function) and "configs" not in fields:
            configs = _configs_of_triton(function)
            if configs:
                fields |= {"configs": ({}, *configs), "default": {}}
        make, sized = seeded_inputs(make_inputs, order, self.where)
        whole = Kernel(
            jit_function(function).__name__,
            launched(function, grid, fields.get("configs", ())),
            writing_reference(reference, function, self.where),
            make,
            sized=sized,
            **{"family": "own", **fields},
        )
        return OwnKernel(whole, function, reference, make_inputs, order, self.where, frozenset(fields))

    def _function(self, field: str, meaning: str, parameters: str) -> Function:
        """A function that the kernel cannot do without."""
        value = self._get(field)
        if value is None:
            example = f"def {field}({parameters})"
            raise InputError(
                self.where, f"has no {field}, {meaning}", to_do=f"Write {example}: ... beside it"
            )
        if not callable(value) or is_triton_function(value):
            kind = type(value).__name__
            raise InputError(
                f"{self.where}: {field}",
                f"is a {kind}",
                "known: a Python function",
                f"Write def {field}({parameters})",
            )
        function: Function = value
        return function

    def _get(self, field: str) -> Any:
        """What is said of the kernel: elsewhere, if the source names a place, or else in its module."""
        elsewhere = dict(self.source.needs).get(field)
        if elsewhere is None:
            return getattr(self.module, field, None)
        path, name = parts_of(elsewhere)
        module, where = _module_of(path, self.source)
        if not hasattr(module, name or field):
            return _value_of(module, name or field, where)
        return getattr(module, name or field)


def _default_of(field: dataclasses.Field[Any]) -> Any:
    """The value that a field has when it is not given."""
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _configs_of_triton(function: Any) -> tuple[Config, ...]:
    """The configs of `@triton.autotune`, where they are numbers alone. What says nothing new is left out."""
    configs = [
        {name: value for name, value in config.items() if (name, value) != ("num_ctas", 1)}
        for config in autotune_configs(function)
    ]
    same_names = len({frozenset(config) for config in configs}) == 1
    numbers = all(isinstance(value, int) for config in configs for value in config.values())
    if not same_names or not numbers:
        return ()
    return tuple({tuple(config.items()): config for config in configs}.values())


def _module_of(path: str, source: KernelSource) -> tuple[ModuleType, str]:
    """Import a person's module or file. Return it and its name for errors."""
    if path.endswith(".py"):
        where = os.path.basename(path)
        return import_own_file(Path(path), where), where
    return import_own_module(path, path, source.import_paths, beside="the current directory"), path


def _names_in(module: ModuleType, where: str) -> list[str]:
    """The names of the kernels of a module: each `Kernel`, or else `fused`, or else what Triton can launch."""
    values = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    found: dict[int, str] = {}
    for name, value in values.items():
        if isinstance(value, Kernel):
            found.setdefault(id(value), name)
    if found:
        return [*found.values()]
    if _FUSED in values:
        return [_FUSED]
    names = _launchable(module, values)
    if names:
        return names
    parts = [name for name in ("fused", "reference", "make_inputs") if callable(values.get(name))]
    missing = [name for name in ("fused", "reference", "make_inputs") if name not in parts]
    if parts:
        raise InputError(
            where,
            f"has no function {missing[0]}",
            f"it has {' and '.join(parts)}",
            f"Write def {missing[0]}(...)",
        )
    raise InputError(where, "has no kernel", _FORMS, "Write one of these")


def _launchable(module: ModuleType, values: Mapping[str, Any]) -> list[str]:
    """Functions in Triton's language that are the module's own and that no other one of them calls."""
    own = {
        name: jit_function(value)
        for name, value in values.items()
        if is_triton_function(value) and jit_function(value).fn.__module__ == module.__name__
    }
    called = {name for jit in own.values() for name in jit.fn.__code__.co_names}
    return [name for name in own if name not in called]


def _value_of(module: ModuleType, name: str, where: str) -> Any:
    """What a module has under a name: a kernel or a function."""
    if not hasattr(module, name):
        known = [
            key for key, value in vars(module).items() if not key.startswith("_") and _counts(value, module)
        ]
        if not known:
            raise InputError(where, f"has no '{name}'", _FORMS, "Write one of these")
        raise InputError.unknown(where, name, known, in_order=True)
    value = getattr(module, name)
    if not (isinstance(value, Kernel) or callable(value) or is_triton_function(value)):
        raise InputError(f"{where}:{name}", f"is a {type(value).__name__}", _FORMS, "Name one of these")
    return value


def _counts(value: Any, module: ModuleType) -> bool:
    """Say whether a value of a module may be meant: a kernel, or a function that was written there."""
    if isinstance(value, Kernel) or is_triton_function(value):
        return True
    return callable(value) and getattr(value, "__module__", None) == module.__name__


def _known(names: list[str]) -> str:
    return f"known: {', '.join(names)}"
