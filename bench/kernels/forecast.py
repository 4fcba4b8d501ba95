"""How fast a kernel would be on a GPU that is not there, by its machine code.

The model has three times for one element.

    memory    bytes that must cross memory / (0.9 x the data sheet's bandwidth)
    latency   memory / min(1, bytes in flight of a multiprocessor / bytes that hide the memory's latency)
    issue     instructions / (0.7 x instructions that the GPU can issue)

The forecast is the longest of them. A copy takes the first. So `memory-bound, 100 % of copy` says that neither latency
nor instructions hold the kernel up, and `issue-bound, 1.9x the memory time` that instructions do.

The constants, and what they come from:

- A copy reaches 0.9 of the data sheet: H100 SXM 3,016 to 3,024 of 3,350 GB/s, A800 PCIe 1,727 of 1,935 GB/s, RTX 4090
  920 of 1,008 GB/s (llm.c, pull request 377).
- Issue reaches 0.7 of its peak. It is set by one published figure: gelu in fp16 on a B200 at 2,832 GB/s (NVIDIA/cccl,
  pull request 7391), where `erf` costs 35 instructions an element. So that figure is no test of the model, others are.
- Bytes in flight that hide latency: bandwidth / multiprocessors x 650 ns, of latencies of 450 to 800 ns under load.

The bytes are those that must move, so the forecast holds for tensors several times as large as the L2 cache. It knows
nothing of atomics, of barriers that wait, or of caches that are reused. A kernel with loops has no forecast, because
the machine code does not say how often they run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusetune.bench.kernels.datasheets import DATASHEETS, TYPICAL, Datasheet
from fusetune.errors import InvalidValueError
from fusetune.kernels import Kernel
from fusetune.kernels.static import StaticReport, analyse, record_launches

COPY_SHARE = 0.9
ISSUE_SHARE = 0.7
# The model is not exact enough to tell closer times apart.
_CLEARLY = 1.05
_LATENCY_S = 650e-9
# Threads that a multiprocessor holds at most, by target.
_THREADS = {
    "sm_80": 2048,
    "sm_86": 1536,
    "sm_89": 1536,
    "sm_90": 2048,
    "sm_100": 2048,
    "gfx942": 2048,
    "gfx950": 2048,
}


@dataclass(frozen=True)
class Forecast:
    """One kernel on one GPU.

    Args:
        gpu: the data sheet that it is about.
        reports: the static analysis of each launch that differs.
        bytes_per_element: that must cross memory.
        instructions_per_element: over all launches, on the vector path. None: the kernel loops.
        memory_s, latency_s, issue_s: the three times of one element. `issue_s` is None where the kernel loops.
    """

    gpu: str
    reports: tuple[StaticReport, ...]
    bytes_per_element: float
    instructions_per_element: float | None
    memory_s: float
    latency_s: float
    issue_s: float | None

    @property
    def seconds(self) -> float | None:
        """Of one element. None where the kernel loops."""
        return None if self.issue_s is None else max(self.memory_s, self.latency_s, self.issue_s)

    @property
    def verdict(self) -> str:
        """What limits the kernel, and by how much."""
        if self.issue_s is None or self.seconds is None:
            return "no forecast, because the kernel loops"
        if self.issue_s > _CLEARLY * max(self.memory_s, self.latency_s):
            return f"issue-bound, {self.issue_s / self.memory_s:.1f}x the memory time"
        bound = "latency-bound" if self.latency_s > self.memory_s else "memory-bound"
        return f"{bound}, {100 * self.memory_s / self.seconds:.0f} % of copy"

    def as_dict(self) -> dict[str, float | str]:
        """Return the compiled facts and the forecast, as a row keeps them."""
        facts: dict[str, float | str] = {
            "gpu": self.gpu,
            "verdict": self.verdict,
            "registers": max(report.registers for report in self.reports),
            "spills": sum(report.spills for report in self.reports),
            "shared_bytes": max(report.shared_bytes for report in self.reports),
            "barriers": sum(report.barriers for report in self.reports),
            "occupancy": min(report.occupancy for report in self.reports),
            "narrowest_access_bytes": min(report.narrowest_stream_bytes for report in self.reports),
            "bytes_per_element": self.bytes_per_element,
        }
        if self.seconds is not None and self.instructions_per_element is not None:
            facts["instructions_per_element"] = self.instructions_per_element
            facts["issue_share_of_memory_time"] = (self.issue_s or 0.0) / self.memory_s
            facts["bytes_per_s"] = self.bytes_per_element / self.seconds
        return facts


def forecast(
    kernel: Kernel, shape: int, dtype: Any, targets: Sequence[str], *, config: Mapping[str, int] | None = None
) -> dict[str, Forecast]:
    """Compile what a kernel launches for GPUs that are not there, and forecast its speed.

    Args:
        kernel: its `fused` is called once a target, on a CPU, with every launch recorded and none run.
        shape: a number of elements. It only has to be large enough that no program is empty.
        dtype: of torch.
        targets: names such as `sm_90`, or `sm_90=H200` for another GPU of that target.
        config: the launch config, for a kernel whose `fused` takes one.

    Raises:
        InvalidValueError: an unknown target or GPU, or a kernel that launches nothing of Triton's.

    Example:
        >>> from fusetune.kernels import KERNELS
        >>> import torch
        >>> forecast(KERNELS["relu"], 2**16, torch.float32, ["sm_90"])["sm_90"].verdict
        'memory-bound, 100 % of copy'
    """
    import torch

    inputs = kernel.make_inputs(shape, dtype, torch.device("cpu"), 0)
    if kernel.bytes_moved is None:
        raise InvalidValueError(
            kernel.name, "the bytes that it moves are not known", "", "Give `bytes_moved`"
        )
    bytes_per_element = kernel.bytes_moved(inputs) / shape
    forecasts = {}
    for named in targets:
        target, gpu = _target(named)
        options = {} if config is None else {"config": config}
        with record_launches(target) as recording:
            kernel.fused(**kernel.make_inputs(shape, dtype, torch.device("cpu"), 0), **options)
        if not recording.launches:
            raise InvalidValueError(
                kernel.name, "launches no @triton.jit function", "there is no machine code to read"
            )
        reports = [analyse(launch.as_case(shape), target) for launch in recording.launches]
        forecasts[named] = _forecast(gpu, target, reports, bytes_per_element)
    return forecasts


def _target(named: str) -> tuple[str, Datasheet]:
    """Split `sm_90=H200` into target and data sheet."""
    target, _, gpu = named.partition("=")
    if target not in TYPICAL:
        raise InvalidValueError.unknown("--static", target, TYPICAL, in_order=True)
    if gpu and gpu not in DATASHEETS:
        raise InvalidValueError.unknown("--static", gpu, DATASHEETS, in_order=True)
    return target, DATASHEETS[gpu or TYPICAL[target]]


def _forecast(
    gpu: Datasheet, target: str, reports: Sequence[StaticReport], bytes_per_element: float
) -> Forecast:
    """Apply the model."""
    memory_s = bytes_per_element / (COPY_SHARE * gpu.bytes_per_s)
    needed_bytes = gpu.bytes_per_s / gpu.multiprocessors * _LATENCY_S
    in_flight_bytes = min(report.occupancy * _THREADS[target] * report.bytes_in_flight for report in reports)
    hidden = min(1.0, in_flight_bytes / needed_bytes) if in_flight_bytes else 1.0
    loops = any(report.loops for report in reports)
    instructions = None if loops else sum(report.instructions_per_element for report in reports)
    return Forecast(
        gpu.name,
        tuple(reports),
        bytes_per_element,
        instructions,
        memory_s,
        memory_s / hidden,
        None if instructions is None else instructions / (ISSUE_SHARE * gpu.instructions_per_s),
    )
