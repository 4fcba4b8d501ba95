"""The contract of a lane: one side of a benchmark in a process of its own, which may die, hang or lie.

A lane is asked by the driver, which never imports a person's code, and which computes every verdict itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fusetune.bench.kernels.case import Case
from fusetune.bench.kernels.compiled import CompiledFacts
from fusetune.bench.kernels.row import Policy, SideStatus
from fusetune.errors import StateError

# Of a case's inputs. Above it they cross one at a time, and a lane keeps none from one request to the next.
LARGE_BYTES = 1 << 26


class LaneError(StateError):
    """A side that has no time: it failed, died, hung, or was found to cheat.

    Args:
        status: the row's status.
        reason: one sentence.
    """

    code = "lane"

    def __init__(self, status: SideStatus, reason: str) -> None:
        super().__init__("", reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Prepared:
    """What a lane found when it built a case and called it once.

    Args:
        bytes_moved: see `Row`.
        compile_s, host_s, launches, extra_bytes: see `SideResult`.
        mutates: names of the inputs that a call changes.
        call_s: a first guess of the seconds of a call.
        compiled: what is known of its machine code.
        device_name: as its driver names it. "": a CPU.
        caches: of the device, name and bytes, smallest first.
        input_bytes: of all inputs. 0: not known.
        searches: by Triton's own autotuner, in these calls. See `TritonSearch.from_row`.
    """

    bytes_moved: int
    compile_s: float
    mutates: tuple[str, ...]
    call_s: float
    host_s: float | None = None
    launches: int | None = None
    extra_bytes: int | None = None
    compiled: CompiledFacts | None = None
    device_name: str = ""
    caches: tuple[tuple[str, int], ...] = ()
    searches: tuple[Mapping[str, Any], ...] = ()
    input_bytes: int = 0


@dataclass(frozen=True)
class TimedRound:
    """A side's part of one round.

    Args:
        latencies_s: policy name -> seconds of a call.
        contention: see `SideResult`.
        outside_s: seconds that passed for the driver between its order and the answer.
        void: the device was throttled, so the round does not count.
    """

    latencies_s: Mapping[str, float]
    contention: float
    outside_s: float
    void: bool = False


class Lane(Protocol):
    """One side. Every method raises `LaneError`, after which the lane is dead and the others go on."""

    @property
    def side(self) -> str:
        """The side's name."""

    def prepare(self, case: Case, config: Mapping[str, int] | None = None) -> Prepared:
        """Build the kernel for a case, and call it once, off the clock."""

    def results(self, inputs: Any) -> Any:
        """Call it on inputs that the driver made. Return copies of the results and of the inputs afterwards."""

    def time_round(self, inputs: Any, policies: Sequence[Policy], *, keep: bool) -> TimedRound:
        """Time one round. `keep`: hold the results, for `kept_results`."""

    def kept_results(self) -> Any:
        """Return the results of the timed call that was kept."""

    def close(self) -> None:
        """End the process."""
