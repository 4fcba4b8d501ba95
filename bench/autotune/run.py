"""Tunes one case: builds, screens and verifies the configs, lets them race, and confirms the winner.

All that touches a kernel goes through a `Workbench`. That of `lanes` has the kernel in a process of its own, so that a
config may crash, hang or exhaust memory. It is then a row, and the others go on.

Every config is verified at the size that is tuned, before it is timed. The default and the fastest are verified at all
sizes, seeds and places too. Where the fastest then fails, the next one takes its place.

The budget is asked for before each config that is built and before each sample. So it is overrun by one candidate at
most. Half of it is for building and verifying, a quarter is kept for the confirmation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from fusetune.bench.autotune.confirmation import Confirmation, confirm
from fusetune.bench.autotune.race import RaceResult, Rules, run_race
from fusetune.bench.autotune.screening import screen
from fusetune.bench.autotune.search import LARGE_SPACE, run_search
from fusetune.bench.autotune.tuning import Candidate, Outcome, Tuning
from fusetune.bench.kernels import Case, CompiledFacts, LaneError

if TYPE_CHECKING:
    from fusetune.kernels import Config

_BEFORE_RACE, _BEFORE_CONFIRMATION = 0.5, 0.75
_FRESH = 1_000_000  # rounds from here on are the confirmation's
_OUTCOMES: Mapping[str, Outcome] = {"slower": "slower", "no gain": "no gain", "failed": "failed"}

Event = Callable[[Mapping[str, Any]], None]
# From a share of the budget to a function that says whether less than that is spent.
Before = Callable[[float], Callable[[], bool]]


@dataclass(frozen=True)
class Opened:
    """A case, ready to be tuned.

    Args:
        space: its configs, the default among them.
        default: the config that is shipped.
        keys: of the entries to write, as the lane said them.
    """

    space: tuple[Config, ...]
    default: Config
    keys: tuple[Any, ...] = ()


class Workbench(Protocol):
    """Builds, verifies and times configs of one case. Every method raises `LaneError` where a config misbehaves."""

    @property
    def policy(self) -> str:
        """What is on the clock."""

    def open(self, case: Case) -> Opened:
        """Prepare the case."""

    def build(self, config: Config) -> CompiledFacts:
        """Compile a config, and call it once."""

    def verify(self, config: Config, *, thorough: bool) -> None:
        """Hold its results against float64, at the size of the case or at all sizes, seeds and places."""

    def sample(self, config: Config, turn: int) -> float:
        """Time a call. All configs of one turn get the same values."""

    def expect(self, seconds: float) -> None:
        """Tell how long the fastest takes so far: what takes very much longer is killed."""

    def save(self, keys: Sequence[Any], tuning: Tuning) -> tuple[str, ...]:
        """Write entries, and return their paths."""


class _Session:
    """The state of one tuning."""

    def __init__(self, workbench: Workbench, opened: Opened, before: Before, tell: Event) -> None:
        self.workbench, self.opened, self.before, self.tell = workbench, opened, before, tell
        self.may_go_on = before(_BEFORE_CONFIRMATION)
        self.candidates = [Candidate(config) for config in opened.space]
        self.default = [dict(config) for config in opened.space].index(dict(opened.default))
        self.facts: dict[int, CompiledFacts] = {}
        self.verified: dict[int, bool] = {}
        self.samples: dict[int, list[float]] = {}
        self.best_s = math.inf
        self.timings = 0

    def fail(self, index: int, error: LaneError) -> None:
        """Make a row of what a config did."""
        self.change(index, "failed", error.reason, error.status)

    def change(self, index: int, outcome: Outcome, reason: str = "", status: str = "") -> None:
        """Say what became of a config."""
        self.candidates[index] = replace(
            self.candidates[index], outcome=outcome, reason=reason, status=status
        )
        self.tell({"config": dict(self.opened.space[index]), "outcome": outcome, "reason": reason})

    def is_failed(self, index: int) -> bool:
        """Whether a config misbehaved."""
        return self.candidates[index].outcome == "failed"

    def build(self, index: int) -> None:
        """Compile a config, unless that was done."""
        if index not in self.facts and not self.is_failed(index):
            try:
                self.facts[index] = self.workbench.build(self.opened.space[index])
            except LaneError as error:
                self.fail(index, error)

    def verify(self, index: int, *, thorough: bool = False) -> None:
        """Verify a config, unless that was done."""
        if self.verified.get(index, False) < thorough or index not in self.verified:
            if self.is_failed(index):
                return
            try:
                self.workbench.verify(self.opened.space[index], thorough=thorough)
                self.verified[index] = thorough
            except LaneError as error:
                self.fail(index, error)

    def sample(self, index: int, turn: int) -> float:
        """Time a config that was built and verified, or do that first."""
        self.build(index)
        self.verify(index)
        if self.is_failed(index):
            return math.inf
        try:
            seconds = self.workbench.sample(self.opened.space[index], turn)
        except LaneError as error:
            self.fail(index, error)
            return math.inf
        self.timings += 1
        if turn < _FRESH:
            self.samples.setdefault(index, []).append(seconds)
        if seconds < self.best_s:
            self.best_s = seconds
            self.workbench.expect(seconds)
        return seconds

    def finished(self) -> tuple[Candidate, ...]:
        """The rows, with their samples."""
        return tuple(
            replace(candidate, samples_s=tuple(self.samples.get(index, ())))
            for index, candidate in enumerate(self.candidates)
        )


def tune(
    case: Case,
    workbench: Workbench,
    *,
    budget_s: float,
    clock: Callable[[], float],
    rules: Rules | None = None,
    seed: int = 0,
    tell: Event = lambda event: None,
) -> Tuning:
    """Tune one case.

    Args:
        case: what is tuned.
        workbench: does all that touches the kernel.
        budget_s: seconds, by `clock`.
        clock: monotonic seconds.
        rules: of the race.
        seed: of the order in which configs are timed.
        tell: is told each thing that becomes known, for a log.
    """
    start_s = clock()

    def before(share: float) -> Callable[[], bool]:
        return lambda: clock() - start_s < share * budget_s

    try:
        opened = workbench.open(case)
    except LaneError as error:
        return Tuning(case, error.status, error.reason, seconds=clock() - start_s, budget_s=budget_s)
    session = _Session(workbench, opened, before, tell)
    default = session.default
    tuning = Tuning(
        case,
        default=opened.default,
        winner=opened.default,
        budget_s=budget_s,
        policy=workbench.policy,
    )

    def ended(**changes: Any) -> Tuning:
        return replace(
            tuning,
            candidates=session.finished(),
            timings=session.timings,
            seconds=clock() - start_s,
            **changes,
        )

    session.build(default)
    session.verify(default, thorough=True)
    if session.is_failed(default):
        failed = session.candidates[default]
        return ended(status=failed.status, reason=failed.reason)
    choose = _search if len(opened.space) > LARGE_SPACE else _race
    ranking, notes = choose(session, seed, rules)
    fastest = _fastest_right(session, ranking)
    if fastest is None or session.is_failed(default):
        failed = session.candidates[default]
        return ended(status=failed.status or "timed out", reason=failed.reason or "no config could be timed")
    if session.timings:
        session.change(fastest, "fastest")
    confirmation = None
    if fastest != default:
        confirmation = _confirm(session, fastest, before(1.0), seed)
        if not confirmation.complete:
            notes.append("The budget ended before the fastest was confirmed, so the default stays.")
    replaces = confirmation is not None and confirmation.replaces and not session.is_failed(fastest)
    result = ended(
        winner=opened.space[fastest] if replaces else opened.default,
        confirmation=confirmation,
        notes=tuple(notes),
    )
    tell({"winner": dict(result.winner), "replaces": replaces})
    return replace(result, entries=workbench.save(opened.keys, result), seconds=clock() - start_s)


def _fastest_right(session: _Session, ranking: Sequence[int]) -> int | None:
    """The first of a ranking that is right at all sizes. The default was verified so before."""
    for index in ranking:
        session.verify(index, thorough=True)
        if not session.is_failed(index):
            return index
    return None


def _race(session: _Session, seed: int, rules: Rules | None) -> tuple[list[int], list[str]]:
    """Build and screen all, verify what is left, and let it race. Return a ranking and notes."""
    may_prepare = session.before(_BEFORE_RACE)
    order = [session.default, *(i for i in range(len(session.candidates)) if i != session.default)]
    for index in order:
        if may_prepare():
            session.build(index)
    screened = screen(session.facts, session.default)
    for index, other in screened.same_as.items():
        session.change(index, "same code", f"as {config_text(session.opened.space[other])}")
    for index, why in screened.dropped.items():
        session.change(index, "dropped", why)
    kept = []
    for index in screened.kept:
        if index == session.default or may_prepare():
            session.verify(index)
            if not session.is_failed(index):
                kept.append(index)
    untried = sum(candidate.outcome == "not tried" for candidate in session.candidates) - len(kept)
    notes = [f"The budget ended before {untried} configs were built and verified."] if untried > 0 else []
    found = run_race(
        len(kept),
        lambda candidate, turn: session.sample(kept[candidate], turn),
        rules=rules,
        may_go_on=session.may_go_on,
        seed=seed,
    )
    _tell_race(session, found, kept)
    if not len(found.samples_s):
        notes.append("The budget ended before a round was complete, so the default stays.")
        return [session.default], notes
    return [kept[candidate] for candidate in found.ranking()], notes


def _search(session: _Session, seed: int, rules: Rules | None) -> tuple[list[int], list[str]]:
    """Search a large space. Configs are built and verified when they are first timed. As `_race`."""
    found = run_search(
        session.opened.space,
        session.sample,
        rules=rules,
        first=[session.default],
        may_go_on=session.may_go_on,
        seed=seed,
    )
    for index, behind in zip(found.tried, found.behind, strict=True):
        if not session.is_failed(index):
            session.change(index, "slower", f"by {100 * behind:.1f} % in its batch")
    ranking = list(found.finalists)
    if found.race is not None:
        _tell_race(session, found.race, found.finalists)
        ranking = [found.finalists[candidate] for candidate in found.race.ranking()]
    tried = f"{len(found.tried)} of {len(session.candidates)} configs were tried, by a search."
    return ranking or [session.default], [tried]


def _tell_race(session: _Session, found: RaceResult, kept: Sequence[int]) -> None:
    """Make rows of a race."""
    for candidate, index in enumerate(kept):
        departure = found.left.get(candidate)
        if departure is None:
            session.change(index, "in the race")
        elif departure.why != "failed":
            by = f"by {100 * departure.behind:.1f} %" if departure.why == "slower" else ""
            session.change(index, _OUTCOMES[departure.why], by)


def _confirm(session: _Session, fastest: int, may_go_on: Callable[[], bool], seed: int) -> Confirmation:
    """Time the fastest against the default, in fresh rounds."""
    sides = {"default": session.default, "challenger": fastest}
    return confirm(
        lambda side, turn: session.sample(sides[side], _FRESH + turn), may_go_on=may_go_on, seed=seed
    )


def config_text(config: Config) -> str:
    """Return a config as text.

    Example:
        >>> config_text({"BLOCK_SIZE": 1024, "num_warps": 4})
        'BLOCK_SIZE=1024 num_warps=4'
    """
    return " ".join(f"{name}={value}" for name, value in config.items())
