"""The one place that decides which path a kernel takes, and that launches it.

triton        compiled for the GPU that holds the tensors (or recorded, see `kernels.static.recorder`)
triton-cpu    compiled for the CPU by `kernels.cpu`, where no GPU is
interpreter   Triton's own interpreter, with TRITON_INTERPRET=1 set before Triton is imported: slow, to debug kernels
torch         the plain PyTorch twin, for tensors that no Triton backend can reach
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

import torch

from fusetune.errors import InvalidValueError
from fusetune.kernels.cpu import why_not
from fusetune.kernels.trial_launch import why_it_fails
from fusetune.kernels.triton_inside import (
    CompiledKernel,
    InterpretedFunction,
    backends,
    driver,
    fuses_our_kernels,
    misfit,
    someone_listens,
    unheard,
)

Path = Literal["triton", "triton-cpu", "interpreter", "torch"]
PATHS: tuple[Path, ...] = ("triton", "triton-cpu", "interpreter", "torch")

# A last block reaches as far beyond the end of its tensor. Indices of 32 bits leave that much room.
MOST_ELEMENTS = 2**16

_recording: ContextVar[bool] = ContextVar("recording", default=False)


@dataclass(frozen=True)
class LaunchConfig:
    """How a kernel is cut up: elements of a program, warps that share them, stages of its software pipeline."""

    block_size: int
    num_warps: int
    num_stages: int = 1

    def named(self) -> dict[str, int]:
        """Return the same by the names that Triton and tuned entries use.

        Example:
            >>> LaunchConfig(1024, 4).named()
            {'BLOCK_SIZE': 1024, 'num_warps': 4, 'num_stages': 1}
        """
        return {"BLOCK_SIZE": self.block_size, "num_warps": self.num_warps, "num_stages": self.num_stages}

    @classmethod
    def of(cls, config: Mapping[str, int]) -> LaunchConfig:
        """Return the launch config with these values by name. What is left out is 1.

        Args:
            config: BLOCK_SIZE, from 16 to 65536, num_warps, to 32, and num_stages. The first two are powers of two.

        Raises:
            ValueError: a name or a value is another.

        Example:
            >>> LaunchConfig.of({"BLOCK_SIZE": 512, "num_warps": 8})
            LaunchConfig(block_size=512, num_warps=8, num_stages=1)
        """
        where = "launch config"
        known = {"BLOCK_SIZE": (16, MOST_ELEMENTS), "num_warps": (1, 32), "num_stages": (1, 16)}
        for name, value in config.items():
            if name not in known:
                raise InvalidValueError.unknown(where, name, known)
            least, most = known[name]
            if type(value) is not int or not least <= value <= most:
                raise InvalidValueError(where, f"{name} is {value!r}", f"it can be from {least} to {most}")
            if name != "num_stages" and value & (value - 1):
                raise InvalidValueError(where, f"{name} is {value}", "it must be a power of two")
        if "BLOCK_SIZE" not in config:
            raise InvalidValueError(where, "BLOCK_SIZE is missing", to_do="Give it")
        return cls(config["BLOCK_SIZE"], config.get("num_warps", 1), config.get("num_stages", 1))


def path_of(kernel: Any, device: torch.device) -> Path:
    """Say which way `kernel` takes for tensors on `device`.

    Args:
        kernel: a `@triton.jit` function.
        device: where its tensors are.
    """
    if not _recording.get() and isinstance(kernel, InterpretedFunction):
        return "interpreter"
    return path_on(device)


def path_on(device: torch.device) -> Path:
    """Say which way kernels take that are not interpreted."""
    if _recording.get() or (device.type == "cuda" and why_not_on_gpu() is None):
        return "triton"
    return "triton-cpu" if device.type == "cpu" and compiles_for_cpu() else "torch"


def compiles_for_cpu() -> bool:
    """Say whether kernels on CPU tensors run compiled: Triton's active driver is the CPU's."""
    return (
        why_not_on_cpu() is None
        and isinstance(driver.active, backends["cpu"].driver)
        and why_it_fails("cpu") is None
    )


@functools.cache
def why_not_on_cpu() -> str | None:
    """Return why Triton cannot compile for this machine's CPU, or None where it can. A GPU's driver goes first."""
    if "cpu" not in backends:
        return (
            "Triton does not know its backend for CPUs; `pip install` registers it, a bare checkout does not."
        )
    return misfit("compile") or why_not()


@functools.cache
def why_not_on_gpu() -> str | None:
    """Return why kernels do not go by Triton on a GPU, or None where they do."""
    return misfit("launch") or why_it_fails("cuda")


def why_not_here(device: torch.device) -> str | None:
    """Return why kernels go by plain PyTorch for tensors on `device`, or None where nothing is wrong."""
    if device.type == "cuda":
        return why_not_on_gpu()
    return why_not_on_cpu() or why_it_fails("cpu")


def launch(
    kernel: Any, grid: tuple[int, ...], *arguments: Any, config: LaunchConfig, **constants: Any
) -> Any:
    """Launch `kernel` on `grid` programs. Nothing is launched on an empty grid.

    Args:
        kernel: a `@triton.jit` function whose `path_of` is not torch. It takes BLOCK_SIZE as a constexpr.
        grid: number of programs along each axis.
        arguments: tensors and numbers, in the kernel's order.
        config: the launch config.
        constants: the kernel's other constexprs.

    Returns: what Triton compiled. None where nothing was launched, or by the interpreter.
    """
    if 0 in grid:
        return None
    return kernel[grid](
        *arguments,
        BLOCK_SIZE=config.block_size,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        enable_fp_fusion=fuses_our_kernels(),
        **constants,
    )


def lies_in_memory(tensor: torch.Tensor) -> bool:
    """Return whether a tensor's values, if it has any, are at its address, where a kernel reads them.

    A kernel does not see a lazy negation (`is_neg`). Zeros without memory and wrappers have the address 0.
    """
    try:
        at_address = tensor.data_ptr() != 0 or (tensor.layout is torch.strided and not tensor.numel())
    except RuntimeError:  # a tensor without memory, of vmap's for one, may refuse to say where it lies
        return False
    return at_address and not tensor.is_neg()


def on_device_of(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """Make the tensor's GPU the current one: Triton launches on that, which need not be the tensor's."""
    return torch.cuda.device_of(tensor) if tensor.is_cuda else _NO_GPU


_NO_GPU: AbstractContextManager[Any] = nullcontext()


class PreparedLaunch:
    """A launch whose grid, integers and constexprs are settled. Tensors and floats come with each call.

    Triton's binder, which looks at every argument of every launch, takes nearly all of a launch's host time.
    It takes longer with more constexprs. What it compiled is kept here by what it can depend on beside these:
    Triton's driver, the tensors' dtypes, and which addresses are multiples of 16.

    Args:
        kernel: a `@triton.jit` function whose `path_of` is not torch. It takes BLOCK_SIZE as a constexpr, and its
            arguments are tensors, integers, one tuple of floats, constexprs, in this order.
        programs: number of programs on the only axis, at least 1.
        integers: the integer arguments.
        config: the launch config.
        constants: the kernel's other constexprs.
    """

    def __init__(
        self, kernel: Any, programs: int, integers: tuple[int, ...], config: LaunchConfig, **constants: Any
    ) -> None:
        self._kernel, self._programs, self._integers = kernel, programs, integers
        self._config, self._constants = config, constants
        self._driver: Any = None
        self._kept: dict[Any, Callable[..., None]] = {}

    def __call__(self, tensors: tuple[torch.Tensor | None, ...], floats: tuple[float, ...]) -> None:
        """Launch, as `launch` does.

        Args:
            tensors: the kernel's first arguments, always on the same device.
            floats: the tuple of floats, of the same length each time.
        """
        kept = self._kept and self._kept.get(tuple(map(_specialised, tensors)))
        if not kept or driver.active is not self._driver or self._kernel.pre_run_hooks:
            self._launch_by_binder(tensors, floats)
        else:
            kept(*tensors, *self._integers, floats)

    def _launch_by_binder(self, tensors: tuple[torch.Tensor | None, ...], floats: tuple[float, ...]) -> None:
        """Launch by Triton's own way, and keep what it compiled where nothing else could make it compile anew."""
        compiled = launch(
            self._kernel,
            (self._programs,),
            *tensors,
            *self._integers,
            floats,
            config=self._config,
            **self._constants,
        )
        if not isinstance(compiled, CompiledKernel):
            return
        if driver.active is not self._driver:
            self._kept.clear()
            self._driver = driver.active
        constexprs = (None,) * (len(self._kernel.arg_names) - len(tensors) - len(self._integers) - 1)
        keep = _KEEPERS.get(_backend_of(compiled))
        if keep is not None:
            kept = keep(compiled, self._programs, constexprs)
            self._kept[tuple(map(_specialised, tensors))] = kept


def _keep_on_cuda(
    compiled: CompiledKernel, programs: int, constexprs: tuple[None, ...]
) -> Callable[..., None]:
    """A launch on the current stream."""

    def kept(*arguments: Any) -> None:
        compiled[programs, 1, 1](*arguments, *constexprs)

    return kept


def _keep_on_cpu(
    compiled: CompiledKernel, programs: int, constexprs: tuple[None, ...]
) -> Callable[..., None]:
    """A launch that asks for no stream, and no metadata where no hook asks for it."""
    before = unheard(compiled, programs)
    run = compiled.run

    def kept(*arguments: Any) -> None:
        if someone_listens():
            compiled[programs, 1, 1](*arguments, *constexprs)
        else:
            run(*before, *arguments, *constexprs)

    return kept


# Of the backends that look at a tensor's dtype and address alone. AMD's asks for the size of its storage too.
_KEEPERS = {"cpu": _keep_on_cpu, "cuda": _keep_on_cuda}


def _backend_of(compiled: CompiledKernel) -> str:
    """What it was compiled for: cpu, cuda or hip."""
    return str(compiled.metadata.target.backend)


def _specialised(tensor: torch.Tensor | None) -> Any:
    """What Triton compiles a kernel for, of a tensor."""
    return None if tensor is None else (tensor.dtype, tensor.data_ptr() % 16 == 0)


class RepeatedLaunch:
    """A launch that is made at every step, with tensors of the same dtypes.

    What Triton's binder found the first time is kept, as in `PreparedLaunch`. On a CPU a launch on the very same
    tensors is kept whole, its arguments packed.
    """

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._kernel: Any = None
        self._driver: Any = None
        self._compiled: Any = None
        self._programs = 0
        self._one_thread = False
        self._arguments: tuple[torch.Tensor | None, ...] = ()
        self._bound: Callable[[], None] | None = None

    def __call__(
        self,
        kernel: Any,
        programs: int,
        *tensors: torch.Tensor | None,
        config: LaunchConfig,
        one_thread: bool = False,
        **constants: Any,
    ) -> None:
        """Launch, as `launch` does.

        Args:
            kernel, tensors, config, constants: as in `launch`.
            programs: on the only axis.
            one_thread: on a CPU, do not wake other threads for what `again` launches.
        """
        specialised = [*map(_specialised, tensors)]
        key = (kernel, driver.active, config, constants, specialised)
        self._arguments = (*tensors, *[None] * (len(kernel.arg_names) - len(tensors)))
        self._programs, self._one_thread, self._bound = programs, one_thread, None
        if key == self._key and not kernel.pre_run_hooks:
            if not self.again():
                self._compiled[programs, 1, 1](*self._arguments)
            return
        self._key = ()
        compiled = launch(kernel, (programs,), *tensors, config=config, **constants)
        if isinstance(compiled, CompiledKernel) and _backend_of(compiled) in _KEEPERS:
            self._key, self._kernel, self._driver, self._compiled = key, kernel, driver.active, compiled

    def can_repeat(self) -> bool:
        """Say whether the last launch was one on the CPU, by the driver that is still Triton's, and without hooks."""
        return (
            bool(self._key)
            and _backend_of(self._compiled) == "cpu"
            and driver.active is self._driver
            and not self._kernel.pre_run_hooks
        )

    def again(self) -> bool:
        """Launch as the last time, on the same tensors at the same addresses. Return whether that can be done.

        It can on a CPU only.
        """
        if not self.can_repeat():
            return False
        if someone_listens():
            self._compiled[self._programs, 1, 1](*self._arguments)
            return True
        if self._bound is None:
            bind = self._compiled.run.bind
            self._bound = bind(
                self._programs, 1, 1, self._compiled.function, self._one_thread, *self._arguments
            )
        self._bound()
        return True


@contextmanager
def as_if_on_gpu() -> Iterator[None]:
    """Let every kernel take the triton path, whatever holds the tensors: for a stand-in driver that records."""
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)
