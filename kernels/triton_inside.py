"""All that this package takes from the inside of Triton, and whether it is there.

A plug-in relies on what Triton does not promise: its base classes, bindings, compiled kernels, the way launches are
called. Every release may change it. It is named here alone and looked at when Triton registers the backend and asks
whether it is active. Where a part is missing, kernels go by plain PyTorch, and one warning says why. What Triton hands
to every backend and this one does not know is accepted.

Used elsewhere as they are, because they are Triton's language: `triton.jit`, `triton.compile` and `triton.language`.
"""

from __future__ import annotations

import functools
import gc
import inspect
import os
import warnings
from abc import update_abstractmethods
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from types import FunctionType, MappingProxyType
from typing import Any, Literal, TypeVar

from fusetune.errors import StateError

# Releases of Triton that the tests run on, and the release of PyTorch that each belongs to.
TESTED: Mapping[str, str] = MappingProxyType({"3.5": "2.9", "3.7": "2.13", "3.8": "2.14", "3.9": "2.15"})

Purpose = Literal["launch", "compile"]


@dataclass(frozen=True)
class _Part:
    """Something of Triton's.

    Args:
        home: the module that it is taken from.
        members: dotted names that are used of it. Of a class also what its methods set or read of an instance.
        purpose: `launch`, on any device. `compile`, for the CPU.
    """

    home: str
    members: tuple[str, ...] = ()
    purpose: Purpose = "launch"


# There while `import triton` is still under way, when backends are registered.
_AT_REGISTRATION = {
    "BaseBackend": _Part("triton.backends.compiler", ("supports_target",), "compile"),
    "GPUTarget": _Part("triton.backends.compiler"),
    "DriverBase": _Part("triton.backends.driver", purpose="compile"),
    "ir": _Part(
        "triton._C.libtriton",
        (
            *("pass_manager.enable_debug", "pass_manager.run"),
            *("module.walk", "module.str_nodebug"),
            *(
                f"operation.{name}"
                for name in (
                    *("get_name", "get_num_operands", "get_operand", "get_num_results", "get_result"),
                    *("get_num_regions", "get_region", "get_block", "get_bool_attr", "get_str_attr"),
                    "get_flat_symbol_ref_attr",
                )
            ),
            *("block.id", "block.get_num_arguments", "block.get_argument", "block.get_parent"),
            *("region.id", "value.id", "value.get_type", "value.get_loc"),
            *("builder.get_fp16", "builder.get_bf16", "builder.get_fp32"),
            *("builder.get_bf16_ty", "builder.create_fp_trunc"),
        ),
        "compile",
    ),
    "passes": _Part(
        "triton._C.libtriton",
        (
            *("common.add_inliner", "common.add_canonicalizer", "common.add_cse", "common.add_symbol_dce"),
            *("ttir.add_rewrite_tensor_descriptor_to_pointer", "ttir.add_combine"),
            *("ttir.add_reorder_broadcast", "ttir.add_triton_licm", "ttir.add_loop_unroll"),
        ),
        "compile",
    ),
}
_WHEN_IMPORTED = {
    "knobs": _Part(
        "triton",
        (
            *("cache.dir", "cache.scope", "cache.manager_class", "language.default_fp_fusion"),
            *("runtime.interpret", "runtime.launch_enter_hook", "runtime.launch_exit_hook"),
        ),
    ),
    "backends": _Part("triton.backends"),
    "driver": _Part("triton.runtime", ("set_active", "_active")),
    "CompiledKernel": _Part(
        "triton.compiler",
        ("__getitem__", "run", "function", "packed_metadata", "metadata", "asm"),
    ),
    "ASTSource": _Part("triton.compiler", ("fn", "signature", "constants", "attrs")),
    "JITFunction": _Part("triton.runtime.jit", ("run", "arg_names", "device_caches", "pre_run_hooks")),
    "InterpretedFunction": _Part("triton.runtime.interpreter"),
    "CompilationError": _Part("triton.compiler.errors", purpose="compile"),
    "FileCacheManager": _Part(
        "triton.runtime.cache", ("cache_dir", "get_file", "get_group", "put", "put_group"), "compile"
    ),
}
_PARTS = {**_AT_REGISTRATION, **_WHEN_IMPORTED}

# What Triton calls a launcher with, before the kernel's own arguments.
LAUNCH_PARAMETERS = (
    *("x", "y", "z", "stream", "function", "metadata"),
    *("launch_metadata", "enter_hook", "exit_hook"),
)
# What is read of a compiled kernel's metadata and Triton puts there, or has from the backend's options.
METADATA = ("hash", "name", "target", "shared", "num_warps", "num_stages", "launch_cooperative_grid")

# A target of each backend that comes with Triton, to ask for its options.
_TARGETS = {"nvidia": ("cuda", 90, 32), "amd": ("hip", "gfx942", 64)}


class _Absent(type):
    """The class of stand-ins for what this Triton lacks: nothing is an instance of one, and nothing can be asked of it.

    Code that names a part can so be imported. The path that kernels take sees to it that it does not run.
    """

    def __getattr__(cls, name: str) -> Any:
        raise AttributeError(
            f"{misfit('compile') or 'this Triton does not fit'} Asked for: {cls.__name__}.{name}"
        )


def __getattr__(name: str) -> Any:
    """A part by its name (PEP 562), or a stand-in where this Triton lacks it."""
    if name not in _PARTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_PARTS[name].home), name)
    except (ImportError, AttributeError):
        return _Absent(name, (), {})


def release() -> str:
    """Triton's version, or `?` where it does not say."""
    return str(getattr(import_module("triton"), "__version__", "?"))


def is_tested() -> bool:
    """Say whether the tests run on this release of Triton, and it asks for nothing that is not known."""
    return ".".join(release().split(".")[:2]) in TESTED and not UNKNOWN_DEMANDS


def missing(purpose: Purpose, parts: Mapping[str, _Part] = _PARTS) -> list[str]:
    """Return what this Triton lacks of what is used, by its full name.

    Args:
        purpose: `launch`, what kernels on any device need. `compile`, what the CPU's backend needs beside.
    """
    lacking = []
    for name, part in parts.items():
        if purpose == "launch" and part.purpose == "compile":
            continue
        found = __getattr__(name)
        if isinstance(found, _Absent):
            lacking.append(f"{part.home}.{name}")
        else:
            lacking += [f"{part.home}.{name}.{member}" for member in part.members if not _has(found, member)]
    return lacking


def _has(owner: Any, member: str) -> bool:
    """Say whether something has a member. An instance's counts as its class's if one of the methods names it."""
    first, _, rest = member.partition(".")
    if not rest:
        return hasattr(type(owner), first) or _is_there(owner, first) or _is_named_by_methods(owner, first)
    return _is_there(owner, first) and _has(getattr(owner, first), rest)


# What Triton raises where a value cannot be computed on this machine, such as the driver of a GPU.
_NOT_AT_HAND = (AssertionError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError)


def _is_there(owner: Any, name: str) -> bool:
    """Like hasattr, for values that are computed when they are asked for, which may fail."""
    try:
        getattr(owner, name)
    except AttributeError:
        return False
    except _NOT_AT_HAND:
        return True
    return True


def _is_named_by_methods(owner: Any, name: str) -> bool:
    """Say whether a method of the class, or of what it is derived from, uses `self.<name>`."""
    bases = owner.__mro__ if isinstance(owner, type) else ()
    methods = (value for base in bases for value in vars(base).values() if isinstance(value, FunctionType))
    return any(name in method.__code__.co_names for method in methods)


MISSING_AT_REGISTRATION: list[str] = []
UNKNOWN_DEMANDS: list[str] = []
_Class = TypeVar("_Class", bound=type)


def registered(plug_in: _Class) -> _Class:
    """Make a class of the backend ready for Triton, whatever this release asks of one.

    Where a class leaves an abstract method open, `import triton` itself would fail. One that is not known is filled in,
    and noted, so that the first launch is a trial one.
    """
    MISSING_AT_REGISTRATION[:] = missing("compile", _AT_REGISTRATION)
    for name in getattr(plug_in, "__abstractmethods__", ()):
        UNKNOWN_DEMANDS.append(f"{plug_in.__name__}.{name}")
        setattr(plug_in, name, _refusal(f"{plug_in.__name__}.{name}"))
    update_abstractmethods(plug_in)
    return plug_in


def _refusal(name: str) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise StateError(name, f"Triton {release()} asks for it", f"{_known()}.")

    return refuse


@functools.cache
def misfit(purpose: Purpose) -> str | None:
    """Return why this Triton cannot be used, with what to do, or None where it can. The first time it is a warning too.

    Args:
        purpose: as in `missing`.
    """
    lacking = [
        *dict.fromkeys([*(MISSING_AT_REGISTRATION if purpose == "compile" else ()), *missing(purpose)])
    ]
    return warned(f"it lacks {', '.join(lacking)}") if lacking else None


def warned(why: str) -> str:
    """Warn that this Triton does not fit, and return the warning.

    Args:
        why: a clause.
    """
    text = (
        f"triton {release()}: does not fit the kernels, {why}; {_known()}. Install one of these. Until then kernels "
        f"run as plain PyTorch."
    )
    warnings.warn(text, stacklevel=2)
    return text


def _known() -> str:
    return f"tested: {', '.join(f'triton {ours} with torch {torch}' for ours, torch in TESTED.items())}"


@functools.cache
def options_elsewhere() -> Mapping[str, Any]:
    """The options of the other backends of this Triton, with their defaults: among them all that it hands to every one.

    It is empty where there is no other backend.
    """
    found: dict[str, Any] = {}
    for name, backend in __getattr__("backends").items():
        if name in _TARGETS:
            with suppress(Exception):  # another backend's code, which may be a person's plug-in
                target = __getattr__("GPUTarget")(*_TARGETS[name])
                found.update(vars(backend.compiler(target).parse_options({"enable_fp_fusion": True})))
    return found


@functools.cache
def descriptors_round() -> bool:
    """Return whether a tensor descriptor carries a flag that rounds fp32 to TF32: from Triton 3.6 on."""
    fields = import_module("triton.tools.tensor_descriptor").TensorDescriptor.__dataclass_fields__
    return "round_f32_to_tf32" in fields


def fuses_by_default() -> bool:
    """Say whether Triton's settings let a * b + c round once where a launch says nothing."""
    return bool(__getattr__("knobs").language.default_fp_fusion)


def forbids_fusing() -> bool:
    """Say whether Triton's settings (from 3.9 on) have a * b + c round twice, whatever a launch says."""
    return bool(getattr(__getattr__("knobs").language, "force_disable_fp_fusion", False))


def fuses_our_kernels() -> bool:
    """Say whether the kernels of this package round a * b + c once: they do, unless the environment has it otherwise.

    Triton 3.10 is to have another default.
    """
    if "TRITON_DEFAULT_FP_FUSION" in os.environ or forbids_fusing():
        return fuses_by_default() and not forbids_fusing()
    return True


@functools.cache
def round_constants_once(backend: str, nearest: Callable[[float, str], float]) -> None:
    """Have Triton's front end make the nearest constants of fp16 and bf16 in kernels for one backend.

    By itself it makes bf16 from six decimals behind the point, so that 1e-8 becomes 0, and fp16 by way of fp32.

    Args:
        backend: the `backend_name` among the options that a kernel is compiled with.
        nearest: the number of a format (f16 or bf16) that is nearest to another.
    """
    builder = __getattr__("ir").builder
    fp16, bf16 = builder.get_fp16, builder.get_bf16

    def is_ours(self: Any) -> bool:
        return getattr(getattr(self, "options", None), "backend_name", None) == backend

    def get_fp16(self: Any, value: float) -> Any:
        return fp16(self, nearest(value, "f16") if is_ours(self) else value)

    def get_bf16(self: Any, value: float) -> Any:
        if not is_ours(self):
            return bf16(self, value)
        return self.create_fp_trunc(self.get_fp32(nearest(value, "bf16")), self.get_bf16_ty())

    builder.get_fp16, builder.get_bf16 = get_fp16, get_bf16


def unheard(compiled: Any, programs: int) -> tuple[Any, ...]:
    """What a launcher is called with before the kernel's arguments, for a launch on stream 0 that no hook sees."""
    return (programs, 1, 1, 0, compiled.function, compiled.packed_metadata, None, None, None)


@functools.cache
def _runtime_knobs() -> Any:
    """Settings of launches, kept: every launch asks for them."""
    return __getattr__("knobs").runtime


def someone_listens() -> bool:
    """Say whether somebody, a profiler for one, has asked Triton to be told of launches."""
    runtime = _runtime_knobs()
    enter, leave = runtime.launch_enter_hook, runtime.launch_exit_hook
    return bool(getattr(enter, "calls", enter) or getattr(leave, "calls", leave))


def jit_function(value: Any) -> Any:
    """The `@triton.jit` function within what Triton's decorators made of it, or None where there is none."""
    for each in _decorators_of(value):
        value = each.fn
    kinds = (__getattr__("JITFunction"), __getattr__("InterpretedFunction"))
    return value if isinstance(value, kinds) else None


def is_triton_function(value: Any) -> bool:
    """Say whether something is a function in Triton's language: `@triton.jit`, with decorators or not."""
    return jit_function(value) is not None


def is_autotuned(value: Any) -> bool:
    """Say whether a function in Triton's language is decorated by `@triton.autotune`."""
    return any(_is_a("Autotuner", each) for each in _decorators_of(value))


def autotune_configs(value: Any) -> tuple[dict[str, Any], ...]:
    """What a launch by each config of `@triton.autotune` takes: constexprs, `num_warps`, `num_stages` and the like.

    It is empty for other functions, for those with a decorator around it, and where a config has a `pre_hook`. A plain
    launch would leave these out.
    """
    if not _is_a("Autotuner", value) or any(config.pre_hook is not None for config in value.configs):
        return ()
    return tuple(config.all_kwargs() for config in value.configs)


def not_tuned(value: Any) -> Any:
    """The same function without the `@triton.autotune` around it, to launch by a config of one's own."""
    return value.fn if _is_a("Autotuner", value) else value


def chosen_by_decorators(value: Any) -> set[str]:
    """Names of the constexprs that `@triton.autotune` and `@triton.heuristics` give values to."""
    chosen: set[str] = set()
    for each in _decorators_of(value):
        if _is_a("Autotuner", each):
            chosen.update(*(config.all_kwargs() for config in each.configs))
        else:
            chosen.update(each.values)
    return chosen


def autotuners() -> list[Any]:
    """Return every `@triton.autotune` of this process that is alive."""
    kind = _of_autotuner("Autotuner")
    # Not isinstance, which asks an object for its class: some of these compute that.
    return [] if kind is None else [each for each in gc.get_objects() if issubclass(type(each), kind)]


def search_listener(listener: Callable[..., None] | None) -> tuple[bool, Any]:
    """Have Triton call a function after each search of `@triton.autotune`.

    Args:
        listener: takes the keywords `fn`, `key`, `best_config`, `configs_timings`, `duration` and `cache_hit`. None:
            nobody listens.

    Returns: whether this Triton calls listeners (from 3.8 on), and the one before, or None.
    """
    settings: Any = getattr(__getattr__("knobs"), "autotuning", None)
    if not hasattr(settings, "listener"):
        return False, None
    before = settings.listener
    settings.listener = listener
    return True, before


def _decorators_of(value: Any) -> Iterator[Any]:
    """Yield the autotuners and heuristics around a `@triton.jit` function, the outermost first."""
    while _is_a("Autotuner", value) or _is_a("Heuristics", value):
        yield value
        value = value.fn


def _is_a(name: str, value: Any) -> bool:
    """Say whether something is an instance of a class of Triton's autotuner."""
    kind = _of_autotuner(name)
    return kind is not None and isinstance(value, kind)


@functools.cache
def _of_autotuner(name: str) -> Any:
    """A class of Triton's autotuner, or None where this Triton has none of that name."""
    return getattr(import_module("triton.runtime.autotuner"), name, None)


def constexpr_function(value: Any) -> Any:
    """The Python function of a `@triton.constexpr_function`, which kernels call, or None where it is something else."""
    is_of_triton = type(value).__module__ == "triton.runtime.jit" and jit_function(value) is None
    return getattr(value, "fn", None) if is_of_triton else None


def plain_function(jit: Any) -> Any:
    """The Python function that `@triton.jit` was given."""
    return jit.fn


def source_of(jit: Any) -> str:
    """The source of what `@triton.jit` made, without its decorators where Triton keeps it so."""
    source = getattr(jit, "src", None)
    return source if isinstance(source, str) else inspect.getsource(jit.fn)


def ptxas_version() -> str:
    """The version of NVIDIA's assembler that Triton calls, or `?` where it does not say."""
    try:
        return str(__getattr__("knobs").nvidia.ptxas.version)
    except (*_NOT_AT_HAND, AttributeError):
        return "?"


def libdevice() -> Any:
    """What kernels import as `triton.language.extra.libdevice`, by NVIDIA's names. None where there is none."""
    try:
        return import_module("triton.language.extra.cuda").libdevice
    except (ImportError, AttributeError):
        return None


def driver_if_any() -> Any:
    """Triton's driver where it has chosen one. To ask for `driver.active` without a GPU may raise."""
    return __getattr__("driver")._active


def forget_compiled(function: Any, device: Any) -> None:
    """Drop what a `@triton.jit` function has compiled for a device, without having the driver unload it."""
    # Triton 3.8 unloads a kernel's module when the kernel is collected, from whatever driver is active then.
    cache, *_ = function.device_caches.pop(device, ({},))
    for kernel in cache.values():
        kernel.module = None
