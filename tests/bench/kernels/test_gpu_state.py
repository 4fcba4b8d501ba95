from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from fusetune.bench.kernels.gpu_state import GpuReading, GpuWatch, gpu_watch, nvml_reader


class NvmlError(Exception):
    pass


def scripted_nvml(reasons: int = 0, gpus: int = 1, **others: Any) -> Any:
    """What stands for `pynvml`, with one GPU that always says the same."""

    def by_index(place: int) -> str:
        if place >= gpus:
            raise NvmlError
        return f"gpu {place}"

    return SimpleNamespace(
        NVMLError=NvmlError,
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=by_index,
        nvmlDeviceGetHandleByUUID=lambda uuid: f"gpu {uuid}",
        nvmlDeviceGetClockInfo=lambda handle, which: {1: 1980, 2: 2619}[which],
        nvmlDeviceGetPowerUsage=lambda handle: 512_000,
        nvmlDeviceGetTemperature=lambda handle, which: 61,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: reasons,
        **others,
    )


def test_a_reading_is_in_si_units() -> None:
    assert nvml_reader(scripted_nvml(4), "gpu 0")() == GpuReading(1.98e9, 2.619e9, 512.0, 61.0, 4)


def test_the_newer_name_of_the_reasons_is_preferred() -> None:
    nvml = scripted_nvml(0, nvmlDeviceGetCurrentClocksEventReasons=lambda handle: 0x40)
    assert nvml_reader(nvml, "gpu 0")().throttled == ("temperature (hardware)",)


@pytest.mark.parametrize("reasons", [0x00, 0x01, 0x02, 0x10, 0x100])
def test_idle_and_limits_that_someone_set_are_no_throttling(reasons: int) -> None:
    assert GpuReading(1e9, 1e9, 1, 1, reasons).throttled == ()


def test_a_summary_says_what_was_seen_once() -> None:
    watch = GpuWatch(lambda: GpuReading(1.98e9, 2.619e9, 512.0, 61.0))
    assert watch.summary() == ""
    assert watch.look()
    assert watch.summary() == "GPU: 1980 MHz, memory 2619 MHz, up to 512 W and 61 degrees, not throttled."
    assert watch.summary() == ""


def test_without_the_library_or_a_gpu_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_watch() is None
    monkeypatch.setitem(sys.modules, "pynvml", scripted_nvml(gpus=0))
    assert gpu_watch() is None
    monkeypatch.setitem(sys.modules, "pynvml", scripted_nvml())
    watch = gpu_watch()
    assert watch is not None
    assert watch.look()


def test_the_gpu_is_the_one_that_cuda_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    nvml = scripted_nvml(gpus=8)

    def power(handle: Any) -> int:
        seen.append(handle)
        return 0

    nvml.nvmlDeviceGetPowerUsage = power
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    for visible, handle in (("5,2", "gpu 5"), ("GPU-12ab", "gpu GPU-12ab"), ("", "gpu 0")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        gpu_watch()
        assert seen.pop() == handle
