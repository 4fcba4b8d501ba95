"""Which launch config a launch takes: a forced one, else what tuning found, else the default. Nothing is ever timed.

A place that launches asks once for each kind of call, and keeps what it got together with `forcing.number`. While that
number stays the same, the answer does too. So a launch that was prepared costs nothing more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any, Literal

import torch

from fusetune.errors import InvalidValueError
from fusetune.kernels.autotune.entries import Entry, find_entry, notice, read_export
from fusetune.kernels.autotune.key import TuningKey, key_of, source_hash, where_it_runs
from fusetune.kernels.kernel import Config, Kernel
from fusetune.kernels.launch import path_on

VARIABLE = "FUSETUNE_TUNING"
_MODES = ("pinned",)

Origin = Literal["default", "tuned", "shipped", "forced", "pinned"]


@dataclass(frozen=True)
class UsedConfig:
    """A launch config that a kind of call took in this process.

    Args:
        kernel: the kernel's name.
        dtypes, size, layout: the parts of its key.
        device: of its tensors.
        config: the launch config.
        origin: `tuned`: an entry's of this user. `shipped`: see `ship_entries`. `default`: there was no entry.
            `forced`: see `forced_config`. `pinned`: the default too, and no entry of this user's was looked for.
        entry: hash of the entry's key, or None.
    """

    kernel: str
    dtypes: str
    size: str
    layout: str
    device: str
    config: Config
    origin: Origin
    entry: str | None = None


@dataclass(frozen=True)
class Lookup:
    """What a launch would look up: what to tune.

    Args:
        key: of the entry.
        default: the launch config without an entry.
        space: the launch configs to try, with the default.
    """

    key: TuningKey
    default: Config
    space: tuple[Config, ...]


class _Forcing:
    """Which launch config is forced on all launches of this process.

    Args:
        number: another one for each launch config that is forced, and after each `forget`.
        config: None: none is forced.
        kernel: name of the only one that it is forced on. None: on all.
        lookups: where each lookup is listed, if anyone wants that.
        generation: how often `forget` was called.
    """

    __slots__ = ("config", "generation", "kernel", "lookups", "number")

    def __init__(self) -> None:
        self.number = self.generation = 0
        self.config: Config | None = None
        self.kernel: str | None = None
        self.lookups: list[Lookup] | None = None


# For the whole process, not a context of its own: autograd launches from other threads.
forcing = _Forcing()
_numbers = count(1)
_number_of: dict[Any, int] = {}
_known: dict[Any, Config] = {}
_used: dict[Any, UsedConfig] = {}
_changing = Lock()


@contextmanager
def forced_config(config: Config, kernel: str | None = None) -> Iterator[None]:
    """Have every launch of fusetune's kernels, and `best_config`, take this launch config. For tuning.

    It holds for all threads of the process. What is prepared for a launch config is kept, so that coming back to it
    costs no preparation.

    Args:
        config: BLOCK_SIZE, num_warps, ... What it leaves out is as in the default.
        kernel: `TuningKey.kernel` of the only launches that take it. None: all do.

    Example:
        >>> with forced_config({"BLOCK_SIZE": 4096}):
        ...     forcing.config["BLOCK_SIZE"]
        4096
    """
    frozen = (kernel, frozenset(config.items()))
    with _changing:
        if frozen not in _number_of:
            _number_of[frozen] = next(_numbers)
        number = _number_of[frozen]
    with _in_force(number, MappingProxyType(dict(config)), kernel, forcing.lookups):
        yield


@contextmanager
def _in_force(
    number: int, config: Config | None, kernel: str | None, lookups: list[Lookup] | None
) -> Iterator[None]:
    before, generation = (forcing.config, forcing.kernel, forcing.lookups, forcing.number), forcing.generation
    forcing.config, forcing.kernel, forcing.lookups, forcing.number = config, kernel, lookups, number
    try:
        yield
    finally:
        forcing.config, forcing.kernel, forcing.lookups, forcing.number = before
        if forcing.generation != generation:
            forcing.number = next(_numbers)


def lookups_of(kernel: Kernel, inputs: Mapping[str, Any]) -> tuple[Lookup, ...]:
    """Return what a call of a kernel looks up, by calling it once. Tuning writes an entry for each of these keys.

    Args:
        kernel: one of fusetune's own, or one with `configs`.
        inputs: keyword arguments of `kernel.fused`, changed as a call changes them.

    Returns: nothing for a kernel that has no launch configs.

    Example:
        >>> from fusetune.kernels import KERNELS
        >>> inputs = KERNELS["relu"].make_inputs(1000, torch.float32, torch.device("cpu"), 0)
        >>> [lookup.key.kernel for lookup in lookups_of(KERNELS["relu"], inputs)]
        ['relu']
    """
    if not kernel.configs:
        return ()
    found: list[Lookup] = []
    with _in_force(next(_numbers), None, None, found):
        kernel.fused(**inputs)
    distinct = tuple({lookup.key: lookup for lookup in found}.values())
    return distinct or (Lookup(key_of(kernel, inputs), default_of(kernel), kernel.configs),)


def default_of(kernel: Kernel) -> Config:
    """Return the launch config that a kernel is shipped with.

    Raises:
        ValueError: it has none.
    """
    if kernel.default is None and not kernel.configs:
        raise InvalidValueError(
            f"kernel '{kernel.name}'", "it has no launch configs", to_do="Give its Kernel `configs`"
        )
    return kernel.configs[0] if kernel.default is None else kernel.default


def tuned_config(
    kernel: str,
    functions: tuple[Any, ...],
    constexprs: Mapping[str, Any],
    dtypes: str,
    size: str,
    layout: str,
    device: torch.device,
    default: Config,
    space: Callable[[], tuple[Config, ...]],
) -> Config:
    """Return the launch config for a kind of launch. It reads an entry at most once in a process.

    Args:
        kernel: name in reports and entries.
        functions: the Triton function, and those that it gets as constexprs.
        constexprs: its other constexprs, which tell machine codes apart.
        dtypes, size, layout: parts of the key, see `TuningKey`.
        device: where it runs.
        default: the launch config that is shipped.
        space: returns the launch configs that may be taken. An entry with another one is stale.

    Raises:
        ValueError: FUSETUNE_TUNING has an unknown value.
    """
    described = (kernel, tuple(constexprs.items()), dtypes, size, layout, str(device))

    def key() -> TuningKey:
        return TuningKey(
            kernel=kernel,
            source=source_hash(*functions),
            constexprs=" ".join(f"{name}={value}" for name, value in sorted(constexprs.items())),
            dtypes=dtypes,
            size=size,
            layout=layout,
            **where_it_runs(device),
        )

    # A recorded launch stands for a GPU that is not there.
    is_recorded = device.type == "cpu" and path_on(device) == "triton"
    used = UsedConfig(kernel, dtypes, size, layout, str(device), default, "default")
    return _chosen((*described, *functions), used, key, space, is_recorded)


def best_config(kernel: Kernel, inputs: Mapping[str, Any]) -> Config:
    """Return the launch config to launch your own kernel with: what `bench autotune` found, else the kernel's default.

    Nothing is timed. An entry is looked for once in a process, for each kind of inputs: shapes, dtypes, alignment.
    Afterwards this costs a few microseconds.

    Args:
        kernel: with `configs`.
        inputs: the keyword arguments of `kernel.fused`, without `config`.

    Raises:
        ValueError: the kernel has no `configs`, or FUSETUNE_TUNING has an unknown value.

    Example:
        >>> from fusetune.kernels.kernel import Kernel
        >>> def double(x, config=None):
        ...     config = config or best_config(DOUBLE, {"x": x})
        ...     return x + x  # double_kernel[grid](x, ..., **config)
        >>> def make_inputs(elements, dtype, device, seed):
        ...     return {"x": torch.ones(elements, dtype=dtype, device=device)}
        >>> DOUBLE = Kernel(
        ...     "double", double, lambda x: 2 * x, make_inputs,
        ...     configs=({"BLOCK": 256, "num_warps": 4}, {"BLOCK": 1024, "num_warps": 4}),
        ... )
        >>> best_config(DOUBLE, {"x": torch.ones(5)})
        {'BLOCK': 256, 'num_warps': 4}
    """
    kind = (id(kernel), *map(_kind, inputs.values()), forcing.number)
    known = _kinds.get(kind)
    if known is not None and known[0] is kernel:
        return known[1]
    default = default_of(kernel)
    tensors = [value for value in inputs.values() if isinstance(value, torch.Tensor)]
    device = str(tensors[0].device if tensors else "cpu")
    key = key_of(kernel, inputs)
    used = UsedConfig(kernel.name, key.dtypes, key.size, key.layout, device, default, "default")
    chosen = _chosen((id(kernel), key), used, lambda: key, lambda: kernel.configs, is_recorded=False)
    _kinds[kind] = (kernel, chosen)
    return chosen


_kinds: dict[Any, tuple[Kernel, Config]] = {}


def _kind(value: Any) -> Any:
    """What tells the keys of inputs apart, found quickly."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.stride(), value.device, value.data_ptr() % 16
    if isinstance(value, (list, tuple)):
        return tuple(map(_kind, value))
    return value if isinstance(value, (bool, int, str, type(None))) else type(value)


def _chosen(
    described: tuple[Any, ...],
    used: UsedConfig,
    key: Callable[[], TuningKey],
    space: Callable[[], tuple[Config, ...]],
    is_recorded: bool,
) -> Config:
    """The launch config of a kind of call, from memory where it has been asked for before."""
    kind = (*described, forcing.number)
    if forcing.lookups is not None:
        forcing.lookups.append(Lookup(key(), used.config, space()))
        return used.config
    if kind in _known:
        return _known[kind]
    default = used.config
    origin: Origin = "default"
    config: Config = default
    digest = None
    if forcing.config is not None and forcing.kernel in (None, used.kernel):
        config, origin = {**default, **forcing.config}, "forced"
    elif tuning_mode() == "pinned":
        origin = "pinned"
        if _shipped and not is_recorded and (entry := _shipped.get(key())):
            config, origin, digest = entry.config, "shipped", entry.key.digest
    elif not is_recorded and (found := _found(key(), space())) is not None:
        entry, origin = found
        config, digest = entry.config, entry.key.digest
    _known[kind] = config
    _used[kind] = UsedConfig(
        used.kernel,
        used.dtypes,
        used.size,
        used.layout,
        used.device,
        config,
        origin,
        digest,
    )
    return config


def _found(key: TuningKey, space: tuple[Config, ...]) -> tuple[Entry, Origin] | None:
    """The entry of this user's, else one that was shipped, and which it is. None without one that is in the space."""
    here = find_entry(key)
    found: tuple[Entry, Origin] | None = None if here is None else (here, "tuned")
    if found is None and key in _shipped:
        found = _shipped[key], "shipped"
    if found is not None and dict(found[0].config) not in [dict(config) for config in space]:
        notice(f"entry of '{key.kernel}'", "it is no longer in the kernel's launch-config space")
        return None
    return found


def ship_entries(path: Path) -> int:
    """Use the entries of an exported file as launch configs that are shipped. Return how many there are.

    For packages with kernels of their own: they call it when they are imported, with a file beside their code. This
    user's own entries go before them, unless FUSETUNE_TUNING is `pinned`. Nothing is copied.

    Args:
        path: what `export_entries` wrote. Of two entries of one key the last one that was shipped counts.

    Raises:
        ValueError: see `read_export`.
    """
    shipped = read_export(path)
    _shipped.update((entry.key, entry) for entry in shipped)
    forget()
    return len(shipped)


_shipped: dict[TuningKey, Entry] = {}


def tuning_mode() -> str:
    """Return the value of FUSETUNE_TUNING: empty, or `pinned`, which takes the launch configs that are shipped.

    Raises:
        ValueError: another value.
    """
    mode = os.environ.get(VARIABLE, "").strip()
    if mode and mode not in _MODES:
        raise InvalidValueError.unknown(
            VARIABLE, mode, _MODES, otherwise="Leave it unset to use tuned configs."
        )
    return mode


def used_configs() -> tuple[UsedConfig, ...]:
    """Return the launch configs that calls of this process took, in the order of their first use. Forced ones too."""
    return tuple(_used.values())


def forget() -> None:
    """Have all launches look for entries again: some were written, or FUSETUNE_TUNING was changed."""
    with _changing:
        _known.clear()
        _kinds.clear()
        _used.clear()
        _number_of.clear()
        forcing.generation += 1
        forcing.number = next(_numbers)
