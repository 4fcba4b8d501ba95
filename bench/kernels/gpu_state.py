"""Clocks, power, temperature and throttling of an NVIDIA GPU while it is timed, by nvidia-ml-py where it is installed.

A round in which the driver lowered the clocks says nothing of the kernel. It is void. Lowered by the user's own
limits, or because the GPU was idle, is not throttled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

# Bits of NVML's clocks event reasons that mean that the clocks are below what was asked for, from nvml.h.
THROTTLED = {
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x20: "temperature (software)",
    0x40: "temperature (hardware)",
    0x80: "power brake",
}


@dataclass(frozen=True)
class GpuReading:
    """One moment.

    Args:
        clock_hz: of the multiprocessors.
        memory_clock_hz: of the memory.
        power_w: drawn.
        temperature_c: of the chip.
        reasons: why the clocks are lowered, as a set of NVML's bits.
    """

    clock_hz: float
    memory_clock_hz: float
    power_w: float
    temperature_c: float
    reasons: int = 0

    @property
    def throttled(self) -> tuple[str, ...]:
        """Names of the reasons that make a timing void.

        Example:
            >>> GpuReading(1.9e9, 2.6e9, 690.0, 61.0, reasons=0x05).throttled
            ('power limit',)
        """
        return tuple(name for bit, name in THROTTLED.items() if self.reasons & bit)


class GpuWatch:
    """Reads a GPU around each round.

    Args:
        read: returns the reading of now.

    Example:
        >>> readings = iter([GpuReading(1.9e9, 2.6e9, 600, 60), GpuReading(1.5e9, 2.6e9, 700, 88, 0x40)])
        >>> watch = GpuWatch(lambda: next(readings))
        >>> watch.look(), watch.look()
        (True, False)
        >>> watch.summary()
        'GPU: 1500 to 1900 MHz, memory 2600 MHz, up to 700 W and 88 degrees, throttled by temperature (hardware).'
    """

    def __init__(self, read: Callable[[], GpuReading]) -> None:
        self._read = read
        self._readings: list[GpuReading] = []

    def look(self) -> bool:
        """Take a reading. Return whether the clocks are as they should be."""
        self._readings.append(self._read())
        return not self._readings[-1].throttled

    def summary(self) -> str:
        """Return a sentence of all readings since the last one, and forget them. "": there are none."""
        readings, self._readings = self._readings, []
        if not readings:
            return ""
        clock = _span([each.clock_hz for each in readings])
        memory = _span([each.memory_clock_hz for each in readings])
        power, heat = max(each.power_w for each in readings), max(each.temperature_c for each in readings)
        reasons = dict.fromkeys(name for each in readings for name in each.throttled)
        throttled = f", throttled by {', '.join(reasons)}" if reasons else ", not throttled"
        return f"GPU: {clock}, memory {memory}, up to {power:.0f} W and {heat:.0f} degrees{throttled}."


def _span(hertz: Sequence[float]) -> str:
    low, high = (f"{1e-6 * value:.0f}" for value in (min(hertz), max(hertz)))
    return f"{low} MHz" if low == high else f"{low} to {high} MHz"


def gpu_watch(place: int = 0) -> GpuWatch | None:
    """Return what watches a GPU. None: nvidia-ml-py is not installed, or it finds no GPU.

    Args:
        place: of the GPU among those that this process may use.
    """
    try:
        nvml: Any = import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        handle = _handle(nvml, place)
        read = nvml_reader(nvml, handle)
        read()
    except nvml.NVMLError:
        return None
    return GpuWatch(read)


def nvml_reader(nvml: Any, handle: Any) -> Callable[[], GpuReading]:
    """Return a function that reads a GPU.

    Args:
        nvml: the module `pynvml`, or what stands for it.
        handle: NVML's, of the GPU.
    """
    reasons = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
    reasons = reasons or nvml.nvmlDeviceGetCurrentClocksThrottleReasons

    def read() -> GpuReading:
        return GpuReading(
            clock_hz=1e6 * nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            memory_clock_hz=1e6 * nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
            power_w=1e-3 * nvml.nvmlDeviceGetPowerUsage(handle),
            temperature_c=float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            reasons=int(reasons(handle)),
        )

    return read


def _handle(nvml: Any, place: int) -> Any:
    """Return NVML's handle. It counts all GPUs, and CUDA those that CUDA_VISIBLE_DEVICES names."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    name = visible[place] if place < len(visible) else str(place)
    if name.isdigit():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    return nvml.nvmlDeviceGetHandleByUUID(name)
