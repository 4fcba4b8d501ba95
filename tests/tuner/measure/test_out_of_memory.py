"""Every known report of running out of memory is recognised, with the size of the request, and nothing else is."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch

from fusetune.tuner.measure.out_of_memory import (
    is_out_of_memory,
    reports_out_of_memory,
    requested_bytes,
    shortage_in,
)

GIB = 2**30


class _GroupError(Exception):
    """Stands for ExceptionGroup, which Python 3.10 has not."""

    def __init__(self, exceptions: tuple[Exception, ...]) -> None:
        super().__init__("several")
        self.exceptions = exceptions


CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"


# Texts of the sources of torch, CUDA, HIP, Metal, oneDNN, numpy and the C libraries.
@pytest.mark.parametrize(
    ("error", "request_bytes"),
    [
        (RuntimeError(f"{CPU} 4294967296 bytes. Error code 12 (Cannot allocate memory)"), 4 * GIB),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1024 bytes."), 1024),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has"), 5 * GIB // 2),
        (torch.OutOfMemoryError("Allocation on device 0 would exceed allowed memory."), None),
        (RuntimeError("HIP out of memory. Tried to allocate 512.00 MiB (GPU 0; 15.98 GiB)"), GIB // 2),
        (RuntimeError("HIP error: out of memory"), None),
        (
            RuntimeError(
                "MPS backend out of memory (MPS allocated: 7.91 GB, other allocations: 9.90 GB, max allowed: "
                "18.13 GB). Tried to allocate 2.00 GB on private pool."
            ),
            2 * GIB,
        ),
        (RuntimeError("Invalid buffer size: 36.00 GB"), None),
        (RuntimeError("XPU out of memory. Tried to allocate 1.00 GiB"), GIB),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), None),
        (RuntimeError("CUDA driver error: out of memory"), None),
        (RuntimeError("Triton Error [CUDA]: out of memory"), None),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), None),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), None),
        (RuntimeError("CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`"), None),
        (RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"), None),
        (RuntimeError("hipErrorOutOfMemory: out of memory"), None),
        (RuntimeError("could not create a primitive"), None),
        (RuntimeError("could not create a memory object"), None),
        (RuntimeError("std::bad_alloc"), None),
        (RuntimeError("bad allocation"), None),
        (RuntimeError("unable to mmap 80000 bytes from file <x>: Cannot allocate memory (12)"), None),
        (RuntimeError("[Errno 12] fork"), None),
        (OSError(errno.ENOMEM, "Speicher kann nicht angefordert werden"), None),
        (MemoryError(), None),
    ],
    ids=lambda value: str(value)[:40] or "MemoryError",
)
def test_a_report_is_recognised_with_the_size_of_its_request(
    error: Exception, request_bytes: int | None
) -> None:
    assert is_out_of_memory(error)
    assert requested_bytes(str(error)) == request_bytes


@pytest.mark.parametrize(
    "error",
    [
        ValueError("shapes do not match"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: access out of memory bounds"),
        RuntimeError("errno 121"),
        OSError(errno.ENOSPC, "No space left on device"),
        FileNotFoundError(errno.ENOENT, "No such file", "/data/Cannot allocate memory"),
        KeyError("memory"),
    ],
    ids=str,
)
def test_other_errors_are_none_with_a_limit_or_without(error: Exception) -> None:
    assert shortage_in(error) is None
    assert shortage_in(error, under_a_limit=True) is None


def test_this_interpreters_torchs_and_numpys_own_errors_are_recognised() -> None:
    for ask in (
        lambda: torch.empty(2**58, dtype=torch.uint8),
        lambda: np.empty(2**58, dtype=np.uint8),
        lambda: bytearray(2**58),
    ):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            ask()
        assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "can't start new thread",
        "could not execute a primitive",
        "could not create an engine",
        "could not execute the compiled_partition",
        "libopenblas.so: failed to map segment from shared object",
    ],
)
def test_reports_with_other_causes_too_count_under_a_limit_alone(text: str) -> None:
    assert reports_out_of_memory(text, under_a_limit=True)
    assert not reports_out_of_memory(text)


def test_it_is_found_in_what_an_error_was_raised_from_and_in_a_group() -> None:
    shortage = RuntimeError("MPS backend out of memory")
    outer = ValueError("the factory failed")
    outer.__cause__ = shortage
    assert shortage_in(outer) is shortage
    outer.__cause__ = _GroupError((KeyError("x"), shortage))
    assert shortage_in(outer) is shortage
    circular = KeyError("x")
    circular.__cause__ = outer
    outer.__cause__ = circular
    assert shortage_in(outer) is None


def test_a_warning_that_memory_may_run_out_is_no_report() -> None:
    assert not reports_out_of_memory("UserWarning: with this setting CUDA may run out of memory.")
