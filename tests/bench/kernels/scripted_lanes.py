"""Lanes that do what a test says, on a clock of their own, and a log of all that they were asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from fusetune.bench.kernels.case import Case, KernelSource
from fusetune.bench.kernels.lane import LaneError, Prepared, TimedRound
from fusetune.bench.kernels.measurement import Tools
from fusetune.bench.kernels.row import CopySpeed, Policy, Row, SideStatus, Verification
from fusetune.bench.kernels.shared_arrays import Array, Tree

COMPILE_S, VERIFY_S, CHECK_S = 5.0, 2.0, 0.125


def case(name: str = "gelu", shape: int = 1000, device: str = "cpu") -> Case:
    return Case(KernelSource(name), name, shape, "float32", device=device)


@dataclass
class World:
    """What all lanes of a test share.

    Attributes:
        log: (side, what), in the order of time.
        arrays: the values that each timed round was given, by side. Those of the lead call come last.
    """

    now_s: float = 0.0
    call_s: dict[str, float] = field(default_factory=lambda: {"ours": 1e-3, "eager": 2e-3})
    launches: dict[str, int] = field(default_factory=lambda: {"ours": 1})
    fails: dict[tuple[str, str], LaneError] = field(default_factory=dict)
    fails_at_round: dict[str, tuple[int, BaseException]] = field(default_factory=dict)
    void_rounds: set[int] = field(default_factory=set)
    wrong_when_timed: set[str] = field(default_factory=set)
    log: list[tuple[str, str]] = field(default_factory=list)
    arrays: dict[str, list[np.ndarray]] = field(default_factory=dict)
    input_bytes: int = 4000
    busy: str = ""
    random: Random = field(default_factory=lambda: Random(7))

    @contextmanager
    def doing(self, side: str, what: str, seconds: float) -> Iterator[None]:
        """A lane is at work. Two at once are an error: one would disturb the other's time."""
        assert not self.busy, f"{side} is to {what} while {self.busy}"
        self.busy = f"{side} does {what}"
        self.log.append((side, what))
        self.now_s += seconds
        try:
            if (side, what) in self.fails:
                raise self.fails[side, what]
            yield
        finally:
            self.busy = ""

    def tools(self, **others: Any) -> Tools:
        """Tools that end in this world."""
        return Tools(
            **{
                "lane": lambda side, device: ScriptedLane(self, side),
                "reference": lambda device: ScriptedReference(self, "eager"),
                "verifier": lambda reference, case, moved: ScriptedVerifier(self, reference),
                "gpu": lambda device: None,
                "clock": lambda: self.now_s,
                "draw": self.random.random,
                "sleep": self.rest,
                **others,
            }
        )

    def rest(self, seconds: float) -> None:
        self.now_s += seconds

    def asked(self, what: str) -> list[str]:
        """The sides that were asked for something, in the order of time."""
        return [side for side, action in self.log if action == what]


class ScriptedLane:
    """A side."""

    def __init__(self, world: World, side: str) -> None:
        self.world, self.side = world, side
        self.closed = False
        self.rounds = 0

    def prepare(self, case: Case, config: Mapping[str, int] | None = None) -> Prepared:
        with self.world.doing(self.side, "prepare", COMPILE_S):
            call_s = self.world.call_s.get(self.side, 1e-3)
            launches = self.world.launches.get(self.side, 0)
            return Prepared(
                8000, COMPILE_S, (), call_s, launches=launches, input_bytes=self.world.input_bytes
            )

    def results(self, inputs: Any) -> Any:
        raise AssertionError("the verifier is scripted")

    def time_round(self, inputs: Sequence[Any], policies: Sequence[Policy], *, keep: bool) -> TimedRound:
        world = self.world
        calls = sum(policy.calls + 1 for policy in policies)
        call_s = world.call_s.get(self.side, 1e-3)
        with world.doing(self.side, "time", 0.01 + calls * call_s):
            given = [each.tree["x"].values.copy() for each in inputs]
            world.arrays.setdefault(self.side, []).extend(given)
            self.rounds += 1
            at, error = world.fails_at_round.get(self.side, (0, None))
            if error is not None and self.rounds == at:
                raise error
            noise = 1 + 0.001 * world.random.random()
            return TimedRound(
                {policy.name: call_s * noise for policy in policies},
                0.01,
                call_s,
                void=self.side == "ours" and self.rounds in world.void_rounds,
            )

    def kept_results(self) -> Any:
        raise AssertionError("the verifier is scripted")

    def close(self) -> None:
        self.closed = True
        self.world.log.append((self.side, "close"))


class ScriptedReference(ScriptedLane):
    """The reference's lane, whose inputs have other values for each seed."""

    def make_inputs(self, seed: int, elements: int | None = None) -> Tree:
        with self.world.doing(self.side, "make inputs", 0.01):
            return {"x": Array.of(np.random.default_rng(seed).random(16, np.float32))}


class ScriptedVerifier:
    """Finds nothing wrong but what the test says."""

    def __init__(self, world: World, reference: Any) -> None:
        self.world, self.reference = world, reference

    def verify(self, lane: Any, *, thorough: bool = True) -> Verification:
        with self.world.doing(lane.side, "verify", VERIFY_S):
            return Verification(1e-7, 1e-7, 1e-6, 3 if thorough else 1)

    def check_timed(self, lane: Any, inputs: Any, so_far: Verification) -> Verification:
        with self.world.doing(lane.side, "check", CHECK_S):
            if lane.side in self.world.wrong_when_timed:
                raise LaneError("wrong", "it is off (in a timed call)")
            return Verification(1e-7, 1e-7, 1e-6, so_far.checked + 1, so_far.timed + 1)

    def close(self) -> None: ...


class ScriptedCopies:
    """Copies whose limit is given, and one for when they are measured again."""

    def __init__(self, limit: float | None, again: float | None = None) -> None:
        self.limit, self.again = limit, again
        self.asked = 0

    def speed(self, moved_bytes: int, case: Case, policy: Policy, *, anew: bool = False) -> CopySpeed:
        self.asked += 1
        limit = self.again if anew and self.again is not None else self.limit
        return CopySpeed(1e9, "DRAM", moved_bytes, limit)

    def close(self) -> None: ...


@dataclass
class Heard:
    """A listener that keeps what it hears."""

    rows: list[Row] = field(default_factory=list)
    news: list[str] = field(default_factory=list)
    on_started: Callable[[Case], None] = lambda case: None

    def row_started(self, case: Case) -> None:
        self.on_started(case)

    def row_news(self, case: Case, text: str) -> None:
        self.news.append(text)

    def row_finished(self, row: Row) -> None:
        self.rows.append(row)


def failure(status: SideStatus) -> LaneError:
    return LaneError(status, f"scripted: {status}")
