"""What a comparison of two sides came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["regressed", "improved", "pass", "can't tell", "missing"]


@dataclass(frozen=True)
class Verdict:
    """The outcome of one comparison of timings, see `decide`.

    Effects are relative changes of head's time: 0.05 means that head takes 5 % longer.

    Args:
        outcome: `regressed`, `improved`, `pass` or `can't tell`.
        effect: the estimated relative change of head against base.
        low, high: 95 % interval of the effect; None with fewer than two pairs.
        p: exact one-sided p of the direction that was seen; 1.0 where nothing can be computed.
        detectable: the smallest slowdown that such a comparison finds in 90 of 100 cases; None where none is known.
        runs_used: pairs that the decision took. Fewer than were given where a staged decision was clear before.
        estimator: how a run became one number, e.g. `lower quartile of 30 rounds / reference^0.5`.
        noise: robust standard deviation of that number between processes, as a relative change.
        reason: what holds the outcome back. Empty where it is clear.
    """

    outcome: Outcome
    effect: float
    low: float | None
    high: float | None
    p: float
    detectable: float | None
    runs_used: int
    estimator: str = ""
    noise: float | None = None
    reason: str = ""
