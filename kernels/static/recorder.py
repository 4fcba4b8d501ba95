"""Record the launches of Python code as on a GPU, without one: a stand-in for Triton's driver.

Inside `record_launches` every launch is specialised and compiled for the GPU that it names, and then recorded instead
of run. Tensors stay where they are and keep their values. The record shows the number of launches of a step, their
grids, and whether a second step compiles anything again. Triton's interpreter shows the kernels' results.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from fusetune.kernels.kernel import StaticCase
from fusetune.kernels.launch import LaunchConfig, as_if_on_gpu
from fusetune.kernels.static.gpu_targets import gpu_target
from fusetune.kernels.triton_inside import (
    LAUNCH_PARAMETERS,
    GPUTarget,
    driver,
    driver_if_any,
    forget_compiled,
)


@dataclass(frozen=True)
class Launch:
    """One launch.

    Args:
        kernel: name of the `@triton.jit` function.
        grid: programs along x, y and z.
        num_warps, num_stages: of the launch config.
        types: argument name -> Triton type, e.g. `*fp32`, or `constexpr` for a compile-time constant.
        constants: name -> value of each compile-time constant, which includes integers of value 1.
        aligned: arguments that were specialised as multiples of 16 (for pointers: bytes).
        function: the `@triton.jit` function.
    """

    kernel: str
    grid: tuple[int, int, int]
    num_warps: int
    num_stages: int
    types: Mapping[str, str]
    constants: Mapping[str, Any]
    aligned: frozenset[str]
    function: Any = field(default=None, compare=False, repr=False)

    @property
    def programs(self) -> int:
        """Number of programs on the grid."""
        return math.prod(self.grid)

    def as_case(self, elements: int) -> StaticCase:
        """Return it as a case of the static analysis.

        Args:
            elements: that the whole launch handles. Its programs share them evenly.
        """
        per_program = max(1, -(-elements // max(1, self.programs)))
        return StaticCase(
            name=self.kernel,
            jit=self.function,
            signature={name: kind for name, kind in self.types.items() if name not in self.constants},
            constants=dict(self.constants),
            config=LaunchConfig(per_program, self.num_warps, self.num_stages),
            elements=per_program,
            aligned=tuple(sorted(self.aligned)),
        )


@dataclass
class Recording:
    """Launches and compilations, in order. A compilation is the name of a kernel, once per specialisation."""

    launches: list[Launch] = field(default_factory=list)
    compilations: list[str] = field(default_factory=list)


@contextmanager
def record_launches(target: str = "sm_90") -> Iterator[Recording]:
    """Let kernels take the triton path for tensors on any device, and record their launches instead of running them.

    Every recording compiles afresh, so that its compilations do not depend on what ran before it.

    Args:
        target: the GPU to stand in for, one of `kernels.static.gpu_targets.TARGETS`.

    Raises:
        ValueError: an unknown target.

    Example:
        >>> with record_launches("sm_90") as recording:
        ...     pass
        >>> recording.launches
        []
    """
    recording = Recording()
    stand_in = _StandInDriver(gpu_target(target), recording)
    previous = driver_if_any()
    driver.set_active(stand_in)
    try:
        with as_if_on_gpu():
            yield recording
    finally:
        for function in stand_in.compiled:
            forget_compiled(function, stand_in.device)
        driver.set_active(previous)


class _StandInDriver:
    """The driver for Triton's runtime, whose launchers record."""

    def __init__(self, target: GPUTarget, recording: Recording) -> None:
        self.target = target
        self.recording = recording
        # Triton caches compiled kernels by device. A device that equals no other starts with an empty cache.
        self.device = object()
        self.compiled: list[Any] = []
        self.utils = SimpleNamespace(
            load_binary=lambda *_: (object(), object(), 0, 0, 1024),
            get_device_properties=lambda _: {"max_shared_mem": 227 << 10, "warpSize": target.warp_size},
        )

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> object:
        return self.device

    def get_current_stream(self, device: object) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        """Return the function that Triton calls to launch the kernel that it has just compiled."""
        self.compiled.append(source.fn)
        self.recording.compilations.append(metadata.name)
        names = list(source.signature)
        constants = {names[index[0]]: value for index, value in source.constants.items()}
        aligned = frozenset(
            names[index[0]]
            for index, attributes in source.attrs.items()
            if ["tt.divisibility", 16] in attributes
        )

        def launcher(*call: Any) -> None:
            assert len(call) == len(LAUNCH_PARAMETERS) + len(names), (
                "Triton calls its launchers in another way"
            )
            self.recording.launches.append(
                Launch(
                    metadata.name,
                    (call[0], call[1], call[2]),
                    metadata.num_warps,
                    metadata.num_stages,
                    dict(source.signature),
                    constants,
                    aligned,
                    source.fn,
                )
            )

        return launcher
