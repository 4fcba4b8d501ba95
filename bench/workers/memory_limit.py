"""Memory limits of workers, and the amount that a trial wanted when it ran out of memory.

On a CUDA device the limit is a fraction of the device's memory that the caching allocator may take. On a CPU under
Linux it is a limit on the address space (RLIMIT_AS): the footprint at start-up plus the limit. The footprint must be
settled first. torch maps some hundred megabytes of libraries, threads and lazily imported modules at its first
convolution and its first optimizer step.
"""

from __future__ import annotations

import math
import platform
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fusetune.bench.machine import ContainerMemory
from fusetune.bench.units import format_bytes
from fusetune.tuner.measure import reports_out_of_memory, requested_bytes, shortage_in

# Who set a limit. Any other source, such as `--memory`, is its own name.
SOURCE_NAMES = {"spec": "the spec", "container": "the container", "shell": "the shell (ulimit -v)"}

# Reserve in a container's limit for growth outside the trial: the parent process, page tables, pipes.
CONTAINER_RESERVE_BYTES = 64 * 2**20

_LONGEST_CAUSE = 200


@dataclass(frozen=True)
class Footprint:
    """The memory of a process before its first trial.

    Args:
        address_space_bytes: everything mapped, as RLIMIT_AS counts it. 0 where the system does not report it.
        private_bytes: the writable private part, without libraries and reservations of the allocator.
        device_bytes: the memory of torch's caching allocator on the CUDA device.
    """

    address_space_bytes: int = 0
    private_bytes: int = 0
    device_bytes: int = 0


@dataclass(frozen=True)
class MemoryBudget:
    """The memory that a trial may take, the origin of that limit, and its starting point.

    Args:
        device: `cpu` or `cuda`.
        limit_bytes: the limit over the footprint. None: no limit.
        source: who set the limit: `spec`, `container`, `shell` or a name. None without a limit.
        footprint: the memory at start-up.
    """

    device: str = "cpu"
    limit_bytes: int | None = None
    source: str | None = None
    footprint: Footprint = Footprint()

    @property
    def enforced(self) -> bool:
        """Whether there is a limit and this platform can enforce it."""
        return self.limit_bytes is not None and not why_not_enforced(self.device)

    @property
    def note(self) -> str:
        """Why a requested limit is not enforced. Empty when it is, or when none was requested."""
        return "" if self.limit_bytes is None else why_not_enforced(self.device)


@dataclass(frozen=True)
class OutOfMemory:
    """A trial that needed more memory than its limit.

    Args:
        wanted_bytes: memory in use over the footprint plus the failed request. 0 where it is not known.
        exact: False when the size of the failed request is unknown. `wanted_bytes` is then a lower bound.
        limit_bytes: the limit, if there was one.
        source: who set the limit.
        cause: the message that reported it, on one line.
    """

    wanted_bytes: int
    exact: bool
    limit_bytes: int | None
    source: str | None
    cause: str

    @property
    def sentence(self) -> str:
        """The reason for a record.

        Example:
            >>> OutOfMemory(3 * 2**30, False, 2**30, "spec", "std::bad_alloc").sentence
            'wanted at least 3.00 GiB, the limit of the spec is 1.00 GiB (std::bad_alloc)'
        """
        wanted = "wanted an unknown amount"
        if self.wanted_bytes > 0:
            wanted = f"wanted {'' if self.exact else 'at least '}{format_bytes(self.wanted_bytes)}"
        limit = "no limit was set"
        if self.limit_bytes is not None:
            source = SOURCE_NAMES.get(self.source or "spec", self.source)
            limit = f"the limit of {source} is {format_bytes(self.limit_bytes)}"
        return f"{wanted}, {limit} ({self.cause})"

    @property
    def values(self) -> dict[str, float]:
        """The metrics for a record."""
        values = {"wanted_bytes": self.wanted_bytes or None, "limit_bytes": self.limit_bytes}
        return {name: value for name, value in values.items() if value is not None}


def why_not_enforced(device: str) -> str:
    """Return why a memory limit cannot be enforced for `device` on this platform. Empty when it can."""
    if device.startswith("cuda") or platform.system() == "Linux":
        return ""
    return f"the memory limit is not enforced on {platform.system()}: it has no limit on the address space"


def effective_limit(
    spec_limit: int | None,
    container: ContainerMemory | None,
    *,
    jobs: int = 1,
    asked_by: str = "spec",
    shell_bytes: int | None = None,
) -> tuple[int | None, str | None]:
    """Return the effective limit and who set it: the tightest of the spec's, the container's and the shell's.

    The container's limit is the free part of it now, less a reserve of 64 MiB, shared by the workers. Call this in the
    worker once its footprint is settled, so that the footprint counts as in use.

    Args:
        spec_limit: bytes, or None where the spec has none.
        container: the container's memory, or None where it has no limit (or the trial runs on a GPU, whose memory
            the container does not limit).
        jobs: workers that share the container.
        asked_by: who set `spec_limit`.
        shell_bytes: the bytes that the shell's limit leaves, see `address_space_left`. None: no limit.

    Example:
        >>> effective_limit(None, None)
        (None, None)
        >>> effective_limit(8 * 2**30, ContainerMemory(limit_bytes=2**30, in_use_bytes=2**28))
        (738197504, 'container')
        >>> effective_limit(2**28, ContainerMemory(limit_bytes=2**30, in_use_bytes=2**28))
        (268435456, 'spec')
    """
    limits = [(spec_limit, asked_by), (shell_bytes, "shell")]
    if container is not None:
        share = max(0, container.available_bytes - CONTAINER_RESERVE_BYTES) // jobs
        limits.append((share, "container"))
    there = [(limit, source) for limit, source in limits if limit is not None]
    return min(there, key=lambda item: item[0]) if there else (None, None)


def address_space_left(footprint: Footprint) -> int | None:
    """Return the bytes that the shell's limit on the address space (ulimit -v) leaves. None: no limit."""
    ceiling, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if ceiling == resource.RLIM_INFINITY else max(0, ceiling - footprint.address_space_bytes)


def settle_footprint(device: str) -> None:
    """Run each kind of work once, so that libraries, threads and lazy imports belong to the footprint, not to a trial.

    Measured with torch 2.13 on a CPU: the first convolution maps 75 MiB, the first optimizer step 250 MiB.
    """
    import torch

    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1),
        torch.nn.BatchNorm2d(16),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(16 * 16 * 16, 16),
    ).to(device)
    images = torch.zeros(8, 3, 16, 16, device=device)
    labels = torch.zeros(8, dtype=torch.long, device=device)
    for optimizer in (torch.optim.SGD(model.parameters(), 0.1), torch.optim.Adam(model.parameters(), 0.1)):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()


def measure_footprint(device: str) -> Footprint:
    """Return the memory of this process now."""
    address_space, private = _process_bytes()
    return Footprint(address_space, private, _device_bytes(device))


@contextmanager
def limited_memory(budget: MemoryBudget) -> Iterator[None]:
    """Enforce `budget` in this process inside the block, and restore the earlier limit at the end.

    Without a limit, or where the platform cannot enforce one (`budget.note` has the reason), the block runs unchanged.

    Example:
        >>> with limited_memory(MemoryBudget(limit_bytes=2**28, footprint=measure_footprint("cpu"))):
        ...     block = bytearray(2**33)
        Traceback (most recent call last):
        MemoryError
    """
    if budget.limit_bytes is None or not budget.enforced:
        yield
    elif budget.device.startswith("cuda"):
        with _device_limit(budget.device, budget.footprint.device_bytes + budget.limit_bytes):
            yield
    else:
        with _address_space_limit(budget.footprint.address_space_bytes + budget.limit_bytes):
            yield


@contextmanager
def limit_lifted() -> Iterator[None]:
    """Lift this process's limit on the address space inside the block, as far as it may, for processes started there.

    They would inherit the limit of this one's trial before they can measure their own footprint.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def _address_space_limit(ceiling_bytes: int) -> Iterator[None]:
    """Lower the soft limit on the address space inside the block. A tighter existing limit stays."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    ceiling = min([ceiling_bytes, *(bound for bound in before if bound != resource.RLIM_INFINITY)])
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, before[1]))
    try:
        yield
    finally:
        try:
            resource.setrlimit(resource.RLIMIT_AS, before)
        except (ValueError, OSError):
            # The block has lowered the upper bound, for good where raising it is not permitted.
            most = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (most, most))


@contextmanager
def _device_limit(device: str, ceiling_bytes: int) -> Iterator[None]:
    """Limit torch's caching allocator on the CUDA device inside the block."""
    import torch

    total = torch.cuda.get_device_properties(device).total_memory
    # "cuda" alone means the current device everywhere but in `set_per_process_memory_fraction`.
    index = torch.device(device).index
    if index is None:
        index = torch.cuda.current_device()
    torch.cuda.set_per_process_memory_fraction(min(1.0, ceiling_bytes / total), index)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, index)


def classify(error: BaseException, budget: MemoryBudget) -> OutOfMemory | None:
    """Return how much memory was wanted if `error`, or its cause, is an out-of-memory error. Else None.

    `tuner.measure.out_of_memory` has the known reports. Under an enforced limit, threads and libraries that no longer
    fit count too. Call it while the error's frames are alive, because their memory is part of the wanted amount.

    Example:
        >>> classify(ValueError("no"), MemoryBudget()) is None
        True
        >>> classify(RuntimeError("could not create a primitive"), MemoryBudget(limit_bytes=2**60)).exact
        False
    """
    link = shortage_in(error, under_a_limit=budget.enforced)
    if link is None:
        return None
    return _refused(bytes_in_use(budget), _request_bytes(link), _one_line(link), budget)


def classify_text(text: str, budget: MemoryBudget, in_use_bytes: int) -> OutOfMemory | None:
    """Return how much memory was wanted if a process died of a lack of memory, by its last output. Else None.

    Args:
        text: the process's standard error.
        budget: the process's memory.
        in_use_bytes: its last known memory over its footprint.

    Example:
        >>> classify_text("terminate called\\n  what():  std::bad_alloc\\n", MemoryBudget(), 2**30).sentence
        'wanted at least 1.00 GiB, no limit was set (what(): std::bad_alloc)'
    """
    for line in text.splitlines():
        known = reports_out_of_memory(line, under_a_limit=budget.enforced)
        if known or line.startswith("MemoryError"):
            return _refused(in_use_bytes, requested_bytes(line), _one_line(line), budget)
    return None


def _request_bytes(error: BaseException) -> int | None:
    """Return the size of the failed request, or None where the error does not have it."""
    shape, dtype = getattr(error, "shape", None), getattr(error, "dtype", None)
    if isinstance(error, MemoryError) and shape is not None and dtype is not None:
        return int(math.prod(shape) * dtype.itemsize)
    return requested_bytes(str(error))


def _refused(in_use_bytes: int, request_bytes: int | None, cause: str, budget: MemoryBudget) -> OutOfMemory:
    """Add up the memory wanted at a refused request."""
    wanted = in_use_bytes + (request_bytes or 0)
    exact = request_bytes is not None
    # The system counts the address space, we count the writable part of it; reservations of the allocator are the
    # difference. A refusal under a limit proves that more than the limit was wanted.
    if budget.enforced and budget.limit_bytes is not None and wanted <= budget.limit_bytes:
        wanted, exact = budget.limit_bytes, False
    return OutOfMemory(wanted, exact, budget.limit_bytes, budget.source, cause)


def bytes_in_use(budget: MemoryBudget) -> int:
    """Return the memory of this process over its footprint, on the budget's device."""
    if budget.device.startswith("cuda"):
        return max(0, _device_bytes(budget.device) - budget.footprint.device_bytes)
    return max(0, _process_bytes()[1] - budget.footprint.private_bytes)


def _device_bytes(device: str) -> int:
    """Return the memory that torch's caching allocator has handed out on a CUDA device. 0 for a CPU."""
    if not device.startswith("cuda"):
        return 0
    import torch

    return torch.cuda.memory_allocated(device)


def _process_bytes() -> tuple[int, int]:
    """Return this process's address space and its writable private part. Zeros where they are not known."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0, 0
    page = resource.getpagesize()
    return int(pages[0]) * page, int(pages[5]) * page


def _one_line(message: BaseException | str) -> str:
    """Return the message on one line, or the type's name for an error without one."""
    text = " ".join(str(message).split()) or type(message).__name__
    return text if len(text) <= _LONGEST_CAUSE else text[: _LONGEST_CAUSE - 1] + "…"
