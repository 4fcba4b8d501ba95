"""What tuning one case came to: every config as a row, with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from fusetune.bench.autotune.confirmation import Confirmation
from fusetune.bench.kernels import Case

Outcome = Literal[
    "fastest",  # of the race
    "slower",
    "no gain",  # if it is faster than the fastest, then by less than anyone cares for
    "in the race",  # until the end, which the budget or the number of rounds brought
    "same code",  # as another config, which was timed
    "dropped",  # by what its machine code says
    "failed",
    "not tried",
]

# What a config is to its case.
CHOSEN, DEFAULT, BOTH, OTHER = "chosen", "default", "default, which stays", "other"
ROLES = (CHOSEN, DEFAULT, BOTH, OTHER)


@dataclass(frozen=True)
class Candidate:
    """One config of the space.

    Args:
        config: the launch config.
        outcome: what became of it.
        reason: one clause, where there is more to say.
        status: the lane's word where it failed, e.g. `wrong`, `crashed`, `timed out`.
        samples_s: seconds of a call in each round that it was timed in.
    """

    config: Mapping[str, int]
    outcome: Outcome = "not tried"
    reason: str = ""
    status: str = ""
    samples_s: tuple[float, ...] = field(default=(), repr=False)

    @property
    def latency_s(self) -> float | None:
        """Median of the samples."""
        return median(self.samples_s) if self.samples_s else None

    @property
    def middle_s(self) -> tuple[float, float]:
        """The 20 % and the 80 % quantile of the samples, at least one."""
        import numpy as np

        low, high = np.quantile(self.samples_s, (0.2, 0.8))
        return float(low), float(high)


@dataclass(frozen=True)
class Tuning:
    """What tuning one case came to.

    Args:
        case: what was tuned.
        status: `ok`, or why the kernel cannot be tuned: that of its default config.
        reason: one sentence where it is not ok.
        default: the config that is shipped.
        winner: the config that launches take from now on. The default where nothing is faster by more than the noise.
        candidates: the whole space, in its order.
        confirmation: of the fastest against the default. None where the default is the fastest itself.
        entries: paths of what was written.
        seconds: from the start to the end.
        budget_s: that it was given.
        timings: samples that were taken.
        policy: what was on the clock.
        notes: sentences for the report.
    """

    case: Case
    status: str = "ok"
    reason: str = ""
    default: Mapping[str, int] = field(default_factory=dict)
    winner: Mapping[str, int] = field(default_factory=dict)
    candidates: tuple[Candidate, ...] = ()
    confirmation: Confirmation | None = None
    entries: tuple[str, ...] = ()
    seconds: float = 0.0
    budget_s: float = 0.0
    timings: int = 0
    policy: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_replaced(self) -> bool:
        """Whether a config other than the default won."""
        return self.status == "ok" and dict(self.winner) != dict(self.default)

    def role(self, candidate: Candidate) -> str:
        """Return what a config is: the one that launches take, the default, both or neither, as in `ROLES`."""
        is_default = dict(candidate.config) == dict(self.default)
        if dict(candidate.config) == dict(self.winner):
            return BOTH if is_default else CHOSEN
        return DEFAULT if is_default else OTHER

    @property
    def timed(self) -> tuple[Candidate, ...]:
        """The candidates that have samples, the fastest first."""
        found = (each for each in self.candidates if each.samples_s)
        return tuple(sorted(found, key=lambda each: each.latency_s or 0.0))

    def counts(self) -> Mapping[str, int]:
        """Return how many candidates had each outcome."""
        found: dict[str, int] = {}
        for candidate in self.candidates:
            found[candidate.outcome] = found.get(candidate.outcome, 0) + 1
        return found
