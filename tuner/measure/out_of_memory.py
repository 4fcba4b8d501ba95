"""Whether an error, or a process's last words, mean that memory ran out: the one place that knows who says it how.

No torch: its class is recognised by name, because the code that raised it has imported torch.
"""

from __future__ import annotations

import errno
import re

_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}

# Torch's allocators say "<device> out of memory" and drivers "<device> error: out of memory". Devices with a backend of
# their own use the same words. "out of memory bounds" is another fault.
_OUT_OF_MEMORY = re.compile(
    r"""
      (?i:\b(?:CUDA|HIP|ROCm|MPS|XPU|HPU|NPU|MUSA|Metal|driver|device|backend)\b[^.;\n]{0,60}
          \b(?<!run\ )out\ of\ memory\b(?!\ bound))
    | (?i:^(?:[\w.]*Error:\ )?out\ of\ memory\b(?!\ bound))
    | \b[A-Z]+\w*_ALLOC(?:ATION)?_FAILED\b          # CUBLAS_STATUS_, CUDNN_STATUS_, HIPBLAS_STATUS_, CUFFT_
    | \b(?:CUDA|HIP)_ERROR_OUT_OF_MEMORY\b
    | \b(?:cuda|hip)Error(?:MemoryAllocation|OutOfMemory)\b
    | \b(?:rocblas_status_memory_error|miopenStatusAllocFailed)\b
    | \bInvalid\ buffer\ size:                       # Metal: more than the largest buffer of the device
    | DefaultCPUAllocator:\ (?:can't\ allocate|not\ enough)\ memory
    | \bstd::bad_alloc\b | \bbad\ allocation\b       # the C++ library's words on Linux and on Windows
    | \bcould\ not\ create\ a\ (?:primitive|memory\ object)\b
    | \bUnable\ to\ allocate\ [\d.]+\ (?:[KMGTPE]i)?B\b | \bUnable\ to\ allocate\ [\d.]+\ bytes\b
    | \b[Cc]annot\ allocate\ memory\b                # what the system calls ENOMEM
    | \b[Ee]rr(?:no|or\ code):?\ 12\b
    """,
    re.VERBOSE | re.MULTILINE,
)
# These have other causes too (a limit on processes, a broken library), so they count only under a memory limit. The
# first two begin every message with which oneDNN creates or runs something (dnnl.hpp): its status is out_of_memory, but
# the message does not say so.
_UNDER_A_LIMIT = (
    "could not create a",
    "could not execute ",
    "can't start new thread",
    "Thread creation failed",
    "pthread_create failed",
    "failed to map segment from shared object",
)
# Windows: not enough memory, out of memory, the paging file is too small.
_WINDOWS_CODES = (8, 14, 1455)
_REQUEST = re.compile(r"[Tt]ried to allocate ([\d.]+) (?:bytes|([kKMGT]?)i?B)\b")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, means that memory ran out.

    Known are torch's allocators on every device, the matrix libraries of CUDA and HIP, oneDNN, numpy, the interpreter,
    the C++ library and the system's ENOMEM.

    Example:
        >>> is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
        True
        >>> is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
        False
    """
    return shortage_in(error) is not None


def shortage_in(error: BaseException, *, under_a_limit: bool = False) -> BaseException | None:
    """Return the error that reports that memory ran out: this one, one that it was raised from, or one of its group.

    Args:
        error: as caught.
        under_a_limit: whether the process is held to a memory limit, under which more reports have no other cause.

    Example:
        >>> outer = ValueError("the factory failed")
        >>> outer.__cause__ = MemoryError()
        >>> shortage_in(outer)
        MemoryError()
    """
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if _is_shortage(link, under_a_limit):
            return link
        for member in getattr(link, "exceptions", ()):
            if (found := shortage_in(member, under_a_limit=under_a_limit)) is not None:
                return found
        link = link.__cause__
    return None


def reports_out_of_memory(text: str, *, under_a_limit: bool = False) -> bool:
    """Whether a message is a known report of running out of memory.

    Example:
        >>> reports_out_of_memory("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        True
        >>> reports_out_of_memory("can't start new thread"), reports_out_of_memory(
        ...     "can't start new thread", under_a_limit=True)
        (False, True)
    """
    return _OUT_OF_MEMORY.search(text) is not None or (
        under_a_limit and any(known in text for known in _UNDER_A_LIMIT)
    )


def requested_bytes(text: str) -> int | None:
    """Return the size of the refused request that an allocator's message names, or None.

    Example:
        >>> requested_bytes("MPS backend out of memory. Tried to allocate 1.50 GiB on private pool.")
        1610612736
    """
    # Torch divides by powers of 1024, also where it writes MB.
    match = _REQUEST.search(text)
    return (
        None if match is None else round(float(match.group(1)) * 2 ** _UNITS[(match.group(2) or "").lower()])
    )


def _is_shortage(error: BaseException, under_a_limit: bool) -> bool:
    """Whether this one error reports that memory ran out."""
    if {kind.__name__ for kind in type(error).__mro__} & {"MemoryError", "OutOfMemoryError"}:
        return True
    if isinstance(error, OSError) and error.errno is not None:
        # Its text may be a path.
        windows = getattr(error, "winerror", None) in _WINDOWS_CODES
        return windows or error.errno == errno.ENOMEM
    return reports_out_of_memory(str(error), under_a_limit=under_a_limit)
