"""Changes of a trial to its worker: settings that are restored before the next trial, and changes that cannot be.

A model that sets torch's default dtype, lowers a limit or leaves a thread behind could make every later trial fail or
slow down. Each setting here is read before the first trial and after each. A changed one is restored, and read once
more. Changes that remain end the worker.
"""

from __future__ import annotations

import builtins
import contextlib
import decimal
import gc
import locale
import logging
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fusetune.bench.results import WorkerEvents
from fusetune.bench.terminal import one_line
from fusetune.bench.workers.guard import descendants, kill_descendants

# Leftovers of libraries: torch's compiler, multiprocessing's tracker, a progress bar.
_LIBRARIES_THREADS = ("torch.", "tqdm.", "concurrent.futures.", "multiprocessing.")
_LIBRARIES_PROCESSES = (b"torch/_inductor/", b"multiprocessing.resource_tracker", b"torch._inductor")
_LIBRARIES_VARIABLES = (
    "TORCHINDUCTOR_",
    "_TORCHINDUCTOR_",
    "TRITON_",
    "KINETO_",
    "KMP_",
    "CUDA_MODULE_LOADING",
)
_LONGEST = 60
# The longest wait for threads that are about to end.
_MOMENT_S = 0.5


@dataclass(frozen=True)
class Setting:
    """One setting of the process that a trial may change.

    Args:
        name: in words.
        read: returns it as a comparable value.
        write: restores it. None: it cannot be restored.
        silent: restored without a mention, because libraries change it by themselves.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object] | None = None
    silent: bool = False


class ProcessState:
    """The state of this process now, to be restored after a trial.

    Args:
        guard: the process that adopts this one's orphans, see `bench.workers.guard`. All its descendants are this
            one's.

    Example:
        >>> state = ProcessState()
        >>> os.environ["A_TRIALS_OWN"] = "1"
        >>> state.put_back().put_back
        ('environment: A_TRIALS_OWN',)
    """

    def __init__(self, guard: int | None = None) -> None:
        self._head = guard or os.getpid()
        self._before: list[tuple[Setting, Any]] = []
        for setting in settings():
            # A release of torch may lack it.
            with contextlib.suppress(AttributeError, NotImplementedError, RuntimeError):
                self._before.append((setting, setting.read()))
        self._threads = set(threading.enumerate())
        self._family = self._family_now()

    def put_back(self, *, paused: bool = False) -> WorkerEvents:
        """Restore the settings, end leftover processes, and return the changes.

        Args:
            paused: the trial continues later, so its threads and processes stay.
        """
        changed: list[str] = []
        stays: list[str] = []
        for setting, before in self._before:
            try:
                now = setting.read()
                if _same(now, before):
                    continue
                words = _difference(setting.name, before, now)
                if setting.write is not None:
                    setting.write(before)
                back = setting.write is not None and _same(setting.read(), before)
            except Exception as error:  # a trial's code may have replaced the function that reads
                words, back = f"{setting.name}: {type(error).__name__}", False
            if not back:
                stays.append(words)
            elif not setting.silent:
                changed.append(words)
        if not paused:
            if self._leftover_threads() or self._family_now() - self._family:
                gc.collect()  # a loader's threads and processes end with it
            give_up_s = time.monotonic() + _MOMENT_S
            for thread in self._leftover_threads():
                thread.join(max(0.0, give_up_s - time.monotonic()))
            stays += [f"thread: {thread.name}" for thread in self._leftover_threads()]
            changed += [f"process ended: {name}" for name in self._end_processes()]
        return WorkerEvents(tuple(map(one_line, changed)), tuple(map(one_line, stays)))

    def _leftover_threads(self) -> list[threading.Thread]:
        """Return running threads of Python that belong to no library."""
        return [
            thread
            for thread in threading.enumerate()
            if thread not in self._threads
            and not isinstance(thread, threading._DummyThread)
            and not _module_of(thread).startswith(_LIBRARIES_THREADS)
        ]

    def _end_processes(self) -> list[str]:
        """Kill processes that the trial has left, and return their names."""
        left: dict[int, str] = {}
        for process in self._family_now() - self._family:
            command = _command(process)
            if not any(part in command for part in _LIBRARIES_PROCESSES):
                left[process] = command.decode("utf-8", "replace") or str(process)
        if left:
            kill_descendants(self._head, but=frozenset(self._family_now() - set(left)) | {os.getpid()})
        return list(left.values())

    def _family_now(self) -> set[int]:
        """Return the processes that this one has started, and their descendants."""
        return descendants(self._head) - {os.getpid()}


def settings() -> Iterator[Setting]:
    """Yield every setting, in the order in which they are restored."""
    # First the functions that restore everything else.
    yield Setting("builtins", partial(_functions_of, builtins), partial(_write_functions, builtins))
    yield from _settings_of_process()
    yield from _settings_of_python()
    yield Setting("numpy's error state", np.geterr, lambda before: np.seterr(**before))
    yield Setting("numpy's random state", _numpy_random, np.random.set_state, silent=True)
    if "torch" in sys.modules:
        yield from _settings_of_torch()


def _settings_of_process() -> Iterator[Setting]:
    """Yield the operating system's settings of the process."""
    yield Setting("environment", _environment, _write_environment)
    yield Setting("time zone", lambda: time.tzname, lambda before: time.tzset())
    yield Setting("working directory", _working_directory, os.chdir)
    yield Setting("umask", _umask, os.umask)
    names = sorted((name for name in dir(resource) if name.startswith("RLIMIT_")), reverse=True)
    # Some have two names.
    for number, name in {getattr(resource, name): name for name in names}.items():
        yield Setting(name, partial(resource.getrlimit, number), partial(_write_limit, number))
    yield Setting("alarm", lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0, _stop_alarm)
    for number in sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}):
        write = partial(_write_handler, number)
        yield Setting(f"handler of {_signal_name(number)}", partial(signal.getsignal, number), write)
    yield Setting("blocked signals", lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()), _write_mask)
    if hasattr(os, "sched_getaffinity"):
        yield Setting(
            "cores", lambda: os.sched_getaffinity(0), lambda before: os.sched_setaffinity(0, before)
        )
    yield Setting(
        "priority",
        lambda: os.getpriority(os.PRIO_PROCESS, 0),
        lambda before: os.setpriority(os.PRIO_PROCESS, 0, before),
    )
    yield Setting(
        "locale", lambda: locale.setlocale(locale.LC_ALL), lambda b: locale.setlocale(locale.LC_ALL, b)
    )


def _settings_of_python() -> Iterator[Setting]:
    """Yield the settings of the interpreter and its library."""
    yield Setting("sys.path", lambda: list(sys.path), _write_path, silent=True)
    yield Setting("removed modules", _modules, _write_modules)
    yield Setting("standard streams", _streams, lambda before: vars(sys).update(before))
    yield Setting("closed streams", lambda: (sys.stdout.closed, sys.stderr.closed))
    yield Setting("recursion limit", sys.getrecursionlimit, sys.setrecursionlimit, silent=True)
    yield Setting("switch interval", sys.getswitchinterval, sys.setswitchinterval)
    yield Setting("trace function", sys.gettrace, sys.settrace)
    yield Setting("profile function", sys.getprofile, sys.setprofile)
    yield Setting("garbage collector", gc.isenabled, lambda before: gc.enable() if before else gc.disable())
    yield Setting(
        "garbage collector's thresholds", gc.get_threshold, lambda before: gc.set_threshold(*before)
    )
    yield Setting("warnings' filters", lambda: list(warnings.filters), _write_filters, silent=True)
    yield Setting("decimal context", _decimal, _write_decimal)
    yield Setting("logging's level", lambda: logging.root.level, logging.root.setLevel)
    yield Setting("logging's threshold", lambda: logging.root.manager.disable, logging.disable)
    yield Setting(
        "temporary directory", lambda: tempfile.tempdir, partial(setattr, tempfile, "tempdir"), silent=True
    )
    yield Setting("Python's random state", random.getstate, random.setstate, silent=True)
    yield Setting(
        "start method",
        lambda: multiprocessing.get_start_method(allow_none=True),
        lambda before: multiprocessing.set_start_method(before, force=True),
    )


def _settings_of_torch() -> Iterator[Setting]:
    """Yield torch's settings of the whole process, or of this thread."""
    import torch
    from torch import nn
    from torch.backends import cuda, cudnn, mkldnn
    from torch.nn.modules import module

    yield Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype)
    yield Setting("torch's default device", _default_device, _write_default_device)
    yield Setting("grad mode", torch.is_grad_enabled, torch._C._set_grad_enabled)
    yield Setting("inference mode", torch.is_inference_mode_enabled)
    yield Setting(
        "deterministic algorithms",
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        lambda before: torch.use_deterministic_algorithms(before[0], warn_only=before[1]),
    )
    yield Setting("torch's threads", torch.get_num_threads, torch.set_num_threads)
    yield Setting("torch's threads between operations", torch.get_num_interop_threads)
    yield Setting("flushing of denormals", _flushes_denormals, torch.set_flush_denormal)
    yield Setting(
        "precision of matrix products", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    )
    yield Setting(
        "anomaly detection",
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda before: torch.set_anomaly_enabled(*before),
    )
    for device in ("cpu", "cuda"):
        yield Setting(
            f"autocast on {device}",
            partial(torch.is_autocast_enabled, device),
            partial(torch.set_autocast_enabled, device),
        )
        yield Setting(
            f"autocast's dtype on {device}",
            partial(torch.get_autocast_dtype, device),
            partial(torch.set_autocast_dtype, device),
        )
    yield Setting("autocast's cache", torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled)
    for name in ("enabled", "benchmark", "deterministic"):
        yield Setting(f"cudnn.{name}", partial(getattr, cudnn, name), partial(setattr, cudnn, name))
    yield Setting("oneDNN", lambda: mkldnn.enabled, partial(setattr, mkldnn, "enabled"))
    for kind in ("flash", "mem_efficient", "math", "cudnn"):
        yield Setting(
            f"{kind} attention", getattr(cuda, f"{kind}_sdp_enabled"), getattr(cuda, f"enable_{kind}_sdp")
        )
    for hooks in sorted(name for name in vars(module) if name.startswith("_global_") and "hooks" in name):
        held = getattr(module, hooks)
        if isinstance(held, dict):
            yield Setting(f"torch's {hooks.strip('_')}", partial(dict, held), partial(_refill, held))
    yield Setting("torch's function modes", torch._C._len_torch_function_stack)
    yield Setting("torch's dispatch modes", torch._C._len_torch_dispatch_stack)
    for owner, name in (
        (torch, "torch"),
        (torch.Tensor, "torch.Tensor"),
        (nn.functional, "torch.nn.functional"),
        (nn.init, "torch.nn.init"),
        (nn.Module, "torch.nn.Module"),
        (nn.Linear, "torch.nn.Linear"),
        (nn.Conv2d, "torch.nn.Conv2d"),
        (torch.optim.Optimizer, "torch.optim.Optimizer"),
        (torch.optim.SGD, "torch.optim.SGD"),
        (torch.optim.Adam, "torch.optim.Adam"),
    ):
        yield Setting(f"functions of {name}", partial(_functions_of, owner), partial(_write_functions, owner))
    yield Setting(
        "torch's random state", lambda: torch.get_rng_state().tolist(), _write_torch_random, silent=True
    )
    if torch.cuda.is_initialized():
        yield Setting("CUDA device", torch.cuda.current_device, torch.cuda.set_device)


def _same(now: Any, before: Any) -> bool:
    """Whether two readings are equal. Functions and objects inside of `Identities` are compared by identity."""
    return bool(now == before)


class Identities(dict[str, Any]):
    """Names with objects, equal to others where each name has the very same object.

    Names that a library adds later make no difference. Replacements by torch itself make none either.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identities) and not self.changed_from(other)

    __hash__ = None

    def changed_from(self, before: Identities) -> list[str]:
        """Return the names that have another object than before, or none."""
        return [
            name
            for name, value in before.items()
            if self.get(name) is not value and not _is_torchs(self.get(name))
        ]


def _is_torchs(value: Any) -> bool:
    """Whether a function, or a class, was written in torch. A wrapper may borrow the name alone."""
    names = getattr(value, "__globals__", None)
    module = names.get("__name__") if names is not None else getattr(value, "__module__", None)
    return f"{module}.".startswith("torch.") and not isinstance(value, type(None))


def _functions_of(owner: Any) -> Identities:
    """Return the functions and classes of a module, or of a class with its base classes."""
    found: dict[str, Any] = {}
    for each in reversed(owner.__mro__) if isinstance(owner, type) else [owner]:
        found.update(vars(each))
    kinds = (staticmethod, classmethod, property)
    return Identities(
        {
            name: value
            for name, value in found.items()
            if (callable(value) or isinstance(value, kinds))
            and (not name.startswith("_") or name.endswith("__"))
        }
    )


def _write_functions(owner: Any, before: Identities) -> None:
    """Restore functions. One that hides an inherited one is removed."""
    bases = owner.__mro__[1:] if isinstance(owner, type) else ()
    for name in _functions_of(owner).changed_from(before):
        if any(vars(base).get(name) is before[name] for base in bases) and name in vars(owner):
            delattr(owner, name)
        else:
            setattr(owner, name, before[name])


def _modules() -> Identities:
    return Identities(sys.modules)


def _write_modules(before: Identities) -> None:
    for name in _modules().changed_from(before):
        sys.modules[name] = before[name]


def _streams() -> Identities:
    return Identities(stdout=sys.stdout, stderr=sys.stderr, stdin=sys.stdin)


def _difference(name: str, before: Any, now: Any) -> str:
    """Return the change in words."""
    if isinstance(before, Identities) and isinstance(now, Identities):
        return f"{name}: {', '.join(now.changed_from(before)[:5])}"
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(str(key) for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        return f"{name}: {', '.join(keys[:5])}"
    words = f"{name}: {_short(before)} -> {_short(now)}"
    return (
        words if isinstance(before, (bool, int, float, str, tuple, type(None))) or "torch" in name else name
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_LIBRARIES_VARIABLES)}


def _write_environment(before: dict[str, str]) -> None:
    for name in _environment().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    time.tzset()


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # the trial has removed it, and is in it
        return ""


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _write_limit(number: int, before: tuple[int, int]) -> None:
    """Restore a limit. Where the upper bound was lowered for good, raise the lower one as far as possible."""
    try:
        resource.setrlimit(number, before)
    except (ValueError, OSError):
        _, most = resource.getrlimit(number)
        resource.setrlimit(number, (most, most))


def _stop_alarm(before: bool) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)


def _write_handler(number: int, before: Any) -> None:
    if before is not None:  # None: one that was not set from Python
        signal.signal(number, before)


def _write_mask(before: set[int]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"


def _write_path(before: list[str]) -> None:
    sys.path[:] = before


def _write_filters(before: list[Any]) -> None:
    warnings.simplefilter("default")  # lets Python forget what it has decided by the filters so far
    warnings.filters[:] = before  # type: ignore[index]


def _decimal() -> dict[str, Any]:
    """Return the settings of decimal's context, without the flags that each calculation may raise."""
    context = decimal.getcontext()
    names = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
    return {**{name: getattr(context, name) for name in names}, "traps": dict(context.traps)}


def _write_decimal(before: dict[str, Any]) -> None:
    decimal.setcontext(
        decimal.Context(**{**before, "traps": [trap for trap, on in before["traps"].items() if on]})
    )


def _numpy_random() -> Any:
    kind, keys, *rest = np.random.get_state()
    return (kind, tuple(np.asarray(keys).tolist()), *rest)


def _default_device() -> str:
    import torch

    try:
        return str(torch.get_default_device())
    except AttributeError:  # PyTorch 2.9, once set_default_device(None) was called
        return "cpu"


def _write_default_device(before: str) -> None:
    import torch

    torch.set_default_device(None if before == "cpu" else before)


def _flushes_denormals() -> bool:
    import torch

    return not bool(torch.full((1,), 1e-310, dtype=torch.float64, device="cpu").mul(0.5).item())


def _write_torch_random(before: list[int]) -> None:
    import torch

    torch.set_rng_state(torch.tensor(before, dtype=torch.uint8, device="cpu"))


def _refill(held: dict[Any, Any], before: dict[Any, Any]) -> None:
    held.clear()
    held.update(before)


def _module_of(thread: threading.Thread) -> str:
    """Return the module of a thread's function."""
    target = getattr(thread, "_target", None)
    return f"{getattr(target, '__module__', None) or type(thread).__module__}."


def _command(process: int) -> bytes:
    """Return the command line of a process, or empty when it has ended."""
    try:
        return (Path("/proc") / str(process) / "cmdline").read_bytes().replace(b"\0", b" ").strip()
    except OSError:
        return b""
