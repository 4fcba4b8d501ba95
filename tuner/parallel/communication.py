"""How long processes communicated in a training, by the measurements of torch's DistributedDataParallel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Communication:
    """Means over the steps of a training, of one process.

    Args:
        seconds: from the start of the first exchange of gradients in a step to the end of the last. Waiting for slower
            processes is part of it.
        overlapped: the part of `seconds` in which the backward pass computed, 0 to 1.
        bytes_per_step: gradients that each process gives away in a step.
    """

    seconds: float
    overlapped: float
    bytes_per_step: int


def communication_of(logged: Mapping[str, Any], bytes_per_step: int) -> Communication | None:
    """Read what DistributedDataParallel has logged. None: it has measured nothing.

    Args:
        logged: of `_get_ddp_logging_data`. Times are in nanoseconds.
        bytes_per_step: gradients of a step.

    Example:
        >>> communication_of({"avg_backward_comm_time": 4e6, "avg_backward_compute_comm_overlap_time": 1e6}, 8)
        Communication(seconds=0.004, overlapped=0.25, bytes_per_step=8)
    """
    taken_ns = float(logged.get("avg_backward_comm_time", 0))
    if taken_ns <= 0:
        return None
    overlap_ns = float(logged.get("avg_backward_compute_comm_overlap_time", 0))
    return Communication(taken_ns * 1e-9, min(1.0, max(0.0, overlap_ns / taken_ns)), bytes_per_step)
