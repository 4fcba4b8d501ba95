"""From cases to rows: build, verify, burn in, time. One driver, a lane a side, and every verdict is the driver's.

    build      every side of the row, one after the other
    verify     ours on all secret inputs, competitors on one. What fails has no time
    burn in    a round that does not count
    time       rounds, see `rounds`. Nothing is built or verified between the rounds of a row but kept results
    limits     the copy of as many bytes in the same run. What is faster than memory has no time either

Every order to a lane is waited for, so nothing is timed while any lane compiles or computes something else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import SystemRandom
from statistics import median
from typing import Any, Protocol

from fusetune.bench.kernels.case import Case
from fusetune.bench.kernels.copy_speed import CopyMeter
from fusetune.bench.kernels.datasheets import datasheet_of
from fusetune.bench.kernels.gpu_state import GpuWatch, gpu_watch
from fusetune.bench.kernels.lane import LARGE_BYTES, LaneError, Prepared
from fusetune.bench.kernels.process import ProcessLane, ReferenceLane, available_bytes
from fusetune.bench.kernels.rounds import LEAST_CHECKED, Rounds, StopRule, calls_in_sample
from fusetune.bench.kernels.row import Cache, Clock, CopySpeed, Policy, Row, SideResult, Verification
from fusetune.bench.kernels.shared_arrays import SharedTree, Tree, arrays_of, scaled
from fusetune.bench.kernels.verify import Verifier
from fusetune.bench.units import format_bytes, format_seconds
from fusetune.kernels import TritonSearch

OURS, EAGER = "ours", "eager"
# Of a shorter call, what is on the clock decides its latency: all clocks of the device are shown.
SHORT_S = 50e-6
# Sets of secret inputs, whose values are scaled anew for each round. Large ones are few.
_POOL = 3
_POOL_BYTES = 256 << 20
# In [0.7, 1), as multiples of 1/128, which every dtype holds exactly.
_FACTORS = tuple(part / 128 for part in range(90, 128))
# After a round that was throttled the device rests.
_REST_S = 0.5
# Of the rounds of a row, where building and verifying have taken its share.
_LEAST_BUDGET_S = 0.05
# The driver and the lanes hold up to so many times the bytes of a case's inputs at once.
_TIMES_INPUTS = 16
_COLD_PAUSE_S = 1e-3


class Listener(Protocol):
    """Who hears how far a run is."""

    def row_started(self, case: Case) -> None:
        """A case begins."""

    def row_news(self, case: Case, text: str) -> None:
        """There is news of the case: what is being done."""

    def row_finished(self, row: Row) -> None:
        """A case has come to its row."""


class _Nobody:
    def row_started(self, case: Case) -> None: ...

    def row_news(self, case: Case, text: str) -> None: ...

    def row_finished(self, row: Row) -> None: ...


@dataclass(frozen=True)
class Settings:
    """How a run measures.

    Args:
        competitors: names of the other sides, in the order of the table: for all rows, or row's name -> names.
        cache: `cold` or `warm`, see `Policy`.
        timed: False: verify alone.
        copies: hold each row to the copy of as many bytes.
        rule: when there are enough rounds.
        total_s: about the longest that all rows may take, with building and verifying. Each row has a fair share of
            what is left, and the least rounds of `rule` whatever that is. None: as each row takes.
    """

    competitors: Sequence[str] | Mapping[str, Sequence[str]] = (EAGER,)
    cache: Cache = "cold"
    timed: bool = True
    copies: bool = True
    rule: StopRule = field(default_factory=StopRule)
    total_s: float | None = None

    def competitors_of(self, case: Case) -> tuple[str, ...]:
        """Return the names of the other sides of a row."""
        if isinstance(self.competitors, Mapping):
            return tuple(self.competitors.get(case.name, ()))
        return tuple(self.competitors)


@dataclass
class Tools:
    """What a run is made with. Tests script them.

    Args:
        lane: opens the lane of a side: its name, the device.
        reference: opens the lane of the reference, which is the side `eager` too.
        verifier: of a case: reference, case, bytes moved.
        copies: measures copies. None: rows have no limit.
        gpu: what watches the GPU, where it can be watched.
        available: bytes of memory that can still be taken. None: not known.
        clock: seconds.
        draw: secret random numbers in [0, 1).
        sleep: rests.
    """

    lane: Callable[[str, str], Any] = lambda side, device: ProcessLane(side, device=device)
    reference: Callable[[str], Any] = lambda device: ReferenceLane(device=device)
    verifier: Callable[[Any, Case, int], Any] = Verifier
    copies: CopyMeter | None = None
    gpu: Callable[[str], GpuWatch | None] = lambda device: gpu_watch() if device == "cuda" else None
    available: Callable[[], int | None] = available_bytes
    clock: Callable[[], float] = time.perf_counter
    draw: Callable[[], float] = field(default_factory=lambda: SystemRandom().random)
    sleep: Callable[[float], None] = time.sleep


def measure(
    cases: Sequence[Case],
    settings: Settings | None = None,
    listener: Listener | None = None,
    *,
    tools: Tools | None = None,
) -> list[Row]:
    """Verify and time cases, in their order.

    Args:
        cases: what to measure. Their names are unique.
        settings: how.
        listener: hears of each row when it is finished.
        tools: for tests.

    Returns: a row a case. A kernel that fails is a row with its status.

    Raises:
        KeyboardInterrupt: the listener has had every row that was finished.

    Example, which takes seconds:

        rows = measure([Case(KernelSource("gelu"), "gelu", 10**6, "float32")], Settings(competitors=("eager",)))
        rows[0].ours.latencies_s["wall, cold"]
    """
    settings, listener = settings or Settings(), listener or _Nobody()
    run = _Run(settings, tools or Tools(), listener)
    try:
        return list(run.rows(cases))
    finally:
        run.close()


@dataclass
class _Side:
    """A side of the row that is being measured."""

    name: str
    lane: Any
    prepared: Prepared | None = None
    verification: Verification | None = None
    failure: LaneError | None = None
    policies: tuple[Policy, ...] = ()
    latencies_s: dict[str, list[float]] = field(default_factory=dict)
    contention: list[float] = field(default_factory=list)

    @property
    def is_alive(self) -> bool:
        return self.failure is None


@dataclass
class _Run:
    """Lanes that are shared by rows, and the time that is left."""

    settings: Settings
    tools: Tools
    listener: Listener
    _lanes: dict[str, Any] = field(default_factory=dict)
    _copies: CopyMeter | None = None
    _gpu: GpuWatch | None = None
    _start_s: float = 0.0
    _row_end_s: float | None = None

    def rows(self, cases: Sequence[Case]) -> Iterator[Row]:
        """Yield the rows of cases."""
        self._start_s = self.tools.clock()
        for place, case in enumerate(cases):
            self.listener.row_started(case)
            if self.settings.total_s is not None:
                now_s = self.tools.clock()
                left_s = self._start_s + self.settings.total_s - now_s
                self._row_end_s = now_s + left_s / (len(cases) - place)
            try:
                row = self._row(case)
            except MemoryError:
                row = _too_large(case, "the command itself had too little memory for its inputs and results")
            self.listener.row_finished(row)
            yield row

    def close(self) -> None:
        """End all lanes."""
        lanes, self._lanes = list(self._lanes.values()), {}
        for lane in lanes:
            with suppress(LaneError):
                lane.close()
        if self._copies is not None:
            self._copies.close()

    def _lane(self, side: str, device: str) -> Any:
        """Return the lane of a side. It serves all rows, and begins anew for each person's kernel."""
        if side not in self._lanes:
            tools = self.tools
            self._lanes[side] = tools.reference(device) if side == EAGER else tools.lane(side, device)
        return self._lanes[side]

    def _row(self, case: Case) -> Row:
        """Measure one case."""
        reference = _Side(EAGER, self._lane(EAGER, case.device))
        ours = _Side(OURS, self._lane(OURS, case.device))
        self._build(reference, case)
        if reference.failure is not None:
            ours.failure = LaneError(reference.failure.status, f"its reference: {reference.failure.reason}")
            return Row(case, (_result(ours, 0),))
        assert reference.prepared is not None
        if lack := _lack(reference.prepared.input_bytes, self.tools.available()):
            return _too_large(case, lack)
        self._build(ours, case)
        if ours.prepared is None:
            return Row(case, (_result(ours, 0),))
        verifier = self.tools.verifier(reference.lane, case, ours.prepared.bytes_moved)
        try:
            return self._verified_row(case, ours, reference, verifier)
        finally:
            verifier.close()

    def _build(self, side: _Side, case: Case) -> None:
        """Have a lane build its side. A failure is the side's."""
        self.listener.row_news(case, f"building {side.name}")
        try:
            side.prepared = side.lane.prepare(case)
        except LaneError as error:
            side.failure = error

    def _verify(self, side: _Side, case: Case, verifier: Any) -> None:
        self.listener.row_news(case, f"verifying {side.name}")
        try:
            side.verification = verifier.verify(side.lane, thorough=side.name == OURS)
        except LaneError as error:
            side.failure = _with_advice(error, side.prepared)

    def _verified_row(self, case: Case, ours: _Side, reference: _Side, verifier: Any) -> Row:
        """Verify ours, then build the others and time them all."""
        assert ours.prepared is not None
        self._verify(ours, case, verifier)
        moved = ours.prepared.bytes_moved
        if not ours.is_alive or not self.settings.timed:
            return Row(case, (_result(ours, 0),), bytes_moved=moved)
        sides = [ours]
        for name in self.settings.competitors_of(case):
            side = reference if name == EAGER else _Side(name, self._lane(name, case.device))
            if side is not reference:
                self._build(side, case)
            if side.is_alive:
                self._verify(side, case, verifier)
            sides.append(side)
        policies = _policies(case, self.settings, ours.prepared)
        for side in sides:
            # Only what Triton launches has a time by the clock of compiled functions.
            launches = side.prepared.launches if side.prepared else 0
            side.policies = tuple(each for each in policies if each.clock != "kernel" or launches)
        watch = self._gpu = self._gpu or self.tools.gpu(case.device)
        timing = _Timing(self, case, sides, verifier, self._rule(), watch)
        rounds = timing.run()
        copy = self._hold_to_memory(case, sides, policies[0], moved) if self.settings.copies else None
        notes = [*timing.notes, *([watch.summary()] if watch else [])]
        sheet = datasheet_of(ours.prepared.device_name) if ours.prepared.device_name else None
        return Row(
            case,
            tuple(_result(side, rounds.void) for side in sides),
            policies,
            moved,
            copy,
            sheet.bytes_per_s if sheet else None,
            notes=tuple(note for note in notes if note),
            searches=_searches(ours.prepared),
        )

    def _rule(self) -> StopRule:
        """Return the rule of stopping for the rounds of this row, by what is left of its share."""
        rule = self.settings.rule
        if self._row_end_s is None:
            return rule
        left_s = self._row_end_s - self.tools.clock()
        return replace(rule, budget_s=max(_LEAST_BUDGET_S, min(rule.budget_s, left_s)))

    def _hold_to_memory(
        self, case: Case, sides: Sequence[_Side], policy: Policy, moved: int
    ) -> CopySpeed | None:
        """Measure the copy, and take the time of sides that are faster than memory can be."""
        if self._copies is None:
            meter = CopyMeter(lambda: self.tools.lane(OURS, case.device), self.tools.draw)
            self._copies = self.tools.copies or meter
        self.listener.row_news(case, "copying as many bytes")
        copy = self._copies.speed(moved, case, policy)
        if any(_too_fast(side, policy, moved, copy) for side in sides):
            # A neighbour may have slowed the copies. The laxer limit counts.
            copy = self._copies.speed(moved, case, policy, anew=True)
        for side in sides:
            if reason := _too_fast(side, policy, moved, copy):
                side.failure = LaneError("impossible", reason)
        return copy


class _Timing:
    """The rounds of one row."""

    def __init__(
        self,
        run: _Run,
        case: Case,
        sides: Sequence[_Side],
        verifier: Any,
        rule: StopRule,
        watch: GpuWatch | None,
    ) -> None:
        self._run, self._case, self._verifier, self._watch = run, case, verifier, watch
        self._sides = {side.name: side for side in sides}
        self._tools = run.tools
        alive = [side.name for side in sides if side.is_alive]
        self._rounds = Rounds(alive, rule, self._tools.draw)
        self._pool: list[Tree] = []
        self._input_bytes = 0
        self._next_is_sibling = self._tools.draw() < 0.5
        self.notes: list[str] = []

    def run(self) -> Rounds:
        """Make rounds until there are enough."""
        rounds, clock = self._rounds, self._tools.clock
        self._run.listener.row_news(self._case, "timing")
        ours = self._sides[OURS]
        try:
            self._pool = self._secret_inputs()
            self._round(burn_in=True)
            start_s = clock()
            while ours.is_alive and rounds.go_on(clock() - start_s):
                self._round()
            self._check_more()
        finally:
            self._pool.clear()
        if ours.is_alive and not rounds.is_narrow and rounds.done:
            self._note_width()
        return rounds

    def _note_width(self) -> None:
        """Say how sure the latency is, where the rounds ended too early."""
        rounds = self._rounds
        width = rounds.half_width
        sure = f"is its value +-{width:.1%}" if width < 1 else "is not known"
        self.notes.append(f"After {rounds.done} rounds the budget was spent: the median's interval {sure}.")

    def _secret_inputs(self) -> list[Tree]:
        """Have the reference's lane make sets of inputs, by secret seeds."""
        reference = self._verifier.reference
        first = reference.make_inputs(self._seed())
        size = sum({id(each.storage): len(each.storage) for _, each in arrays_of(first)}.values())
        self._input_bytes = size
        more = _POOL - 1 if _POOL * size <= _POOL_BYTES else 0
        return [first, *(reference.make_inputs(self._seed()) for _ in range(more))]

    def _seed(self) -> int:
        return int(self._tools.draw() * 2**62)

    def _fresh(self, count: int, siblings: bool) -> list[SharedTree]:
        """Return inputs whose values nobody has seen, each scaled from one of the pool. The last ones are the lead's.

        Args:
            count: how many.
            siblings: all others are those of the lead but for a secret part. What was kept by a few values, or by a
                sum of some, is then taken for what it is not.
        """
        draw = self._tools.draw
        lead = SharedTree(scaled(self._pool[int(draw() * len(self._pool))], self._factor()))
        trees = []
        for _ in range(count - 1):
            if siblings:
                begin = draw() * 0.75
                tree = scaled(lead.tree, self._factor(), (begin, begin + 0.25))
            else:
                tree = scaled(self._pool[int(draw() * len(self._pool))], self._factor())
            trees.append(SharedTree(tree))
            del tree
        return [*trees, lead]

    def _factor(self) -> float:
        return _FACTORS[int(self._tools.draw() * len(_FACTORS))]

    def _round(self, *, burn_in: bool = False, checked: bool = False) -> None:
        """Time every side once."""
        rounds = self._rounds
        policies = max((self._sides[name].policies for name in rounds.latencies_s), key=len, default=())
        # By each policy other values, and others again for the lead call: a result that was kept helps nobody.
        checked = checked or (not burn_in and rounds.is_checked())
        siblings = self._next_is_sibling if checked else self._tools.draw() < 0.5
        if checked:  # both kinds are checked
            self._next_is_sibling = not siblings
        fresh = {policy: self._fresh(policy.calls + 1, siblings) for policy in policies}
        found: dict[str, dict[str, float]] = {}
        contention: dict[str, float] = {}
        usable = self._watch.look() if self._watch else True
        try:
            for name in rounds.order():
                side = self._sides[name]
                keep = checked and self._is_wanted(side)
                try:
                    found[name], contention[name], good = self._time(side, fresh, keep)
                    usable = usable and good and (self._watch.look() if self._watch else True)
                    if keep and self._is_large:
                        self._check(side, fresh)
                except LaneError as error:
                    self._lose(side, error)
                    if name == OURS:
                        return
                self._tools.sleep(_COLD_PAUSE_S)  # threads of the side that spin for more work go to sleep
            for name in [] if self._is_large or not checked else list(found):
                side = self._sides[name]
                if side.is_alive and self._is_wanted(side):
                    try:
                        self._check(side, fresh)
                    except LaneError as error:
                        self._lose(side, error)
                        found.pop(name)
                        if name == OURS:
                            return
        finally:
            for tree in {id(each): each for trees in fresh.values() for each in trees}.values():
                tree.close()
        if burn_in:
            return
        if not usable:
            rounds.add_void()
            self._tools.sleep(_REST_S)
            return
        first = policies[0].name
        rounds.add({name: times[first] for name, times in found.items()})
        for name, times in found.items():
            side = self._sides[name]
            side.contention.append(contention[name])
            for policy, seconds in times.items():
                side.latencies_s.setdefault(policy, []).append(seconds)

    def _lose(self, side: _Side, error: LaneError) -> None:
        """Take the time of a side."""
        side.failure = error
        self._rounds.lose(side.name)

    def _is_wanted(self, side: _Side) -> bool:
        """Whether results of a side are checked in a round that is. Those of competitors often enough, no more."""
        done = side.verification.timed if side.verification else 0
        return side.name == OURS or done < LEAST_CHECKED

    @property
    def _is_large(self) -> bool:
        """Whether results are checked side by side. Else when all are timed: what is right is computed once."""
        return self._input_bytes > LARGE_BYTES

    def _time(
        self, side: _Side, fresh: Mapping[Policy, list[SharedTree]], keep: bool
    ) -> tuple[dict[str, float], float, bool]:
        """Time a side by each of its policies. What is kept is a call by the first one, then the last timed."""
        times: dict[str, float] = {}
        contention, usable = 0.0, True
        first, *others = side.policies
        for policy in (*others, first) if keep else side.policies:
            done = side.lane.time_round(fresh[policy], [policy], keep=keep and policy is first)
            times |= done.latencies_s
            contention, usable = max(contention, done.contention), usable and not done.void
        return {policy.name: times[policy.name] for policy in side.policies}, contention, usable

    def _check(self, side: _Side, fresh: Mapping[Policy, list[SharedTree]]) -> None:
        """Check what was kept of a side's timed calls."""
        assert side.verification is not None
        given = fresh[side.policies[0]]
        side.verification = self._verifier.check_timed(side.lane, given, side.verification)

    def _check_more(self) -> None:
        """Make rounds that are checked and count, until enough were, whatever was drawn."""
        ours = self._sides[OURS]
        for _ in range(LEAST_CHECKED):
            done = ours.verification.timed if ours.verification else 0
            if not ours.is_alive or done >= LEAST_CHECKED or not self._rounds.done:
                return
            self._round(checked=True)


def _lack(input_bytes: int, available: int | None) -> str:
    """Say why the inputs of a case are too large for this machine, or ""."""
    needed = _TIMES_INPUTS * input_bytes
    if available is None or needed <= available:
        return ""
    told = f"its inputs are {format_bytes(input_bytes)}, and it takes {format_bytes(needed)} to verify and time it"
    return f"{told}, but {format_bytes(available)} are available"


def _too_large(case: Case, reason: str) -> Row:
    """Return the row of a case that there is too little memory for."""
    return Row(case, (SideResult(OURS, "out of memory", reason),))


def _searches(prepared: Prepared) -> tuple[Mapping[str, Any], ...]:
    """Return what Triton's own autotuner searched for. A process may tell anything: what is no search is left out."""
    found = []
    for row in prepared.searches:
        with suppress(AttributeError, KeyError, TypeError, ValueError):
            found.append(TritonSearch.from_row(row).as_row())
    return tuple(found)


def _with_advice(error: LaneError, prepared: Prepared | None) -> LaneError:
    """Say what may be wrong with a kernel that Triton tuned on the tensors that it updates."""
    if error.status != "wrong" or prepared is None or not (prepared.searches and prepared.mutates):
        return error
    names = ", ".join(f'"{name}"' for name in prepared.mutates)
    advice = f"Triton's search repeats it: does @triton.autotune have restore_value=[{names}]?"
    return LaneError(error.status, f"{error.reason}. {advice}")


def _policies(case: Case, settings: Settings, prepared: Prepared) -> tuple[Policy, ...]:
    """Return the policies of a row: its own first, and where calls are short all that the device has."""
    calls = calls_in_sample(prepared.call_s)
    clocks: tuple[Clock, ...] = ("event", "wall", "graph") if case.device == "cuda" else ("wall", "kernel")
    shown = clocks if prepared.call_s < SHORT_S else clocks[:1]
    return tuple(Policy(clock, settings.cache, calls) for clock in shown)


def _too_fast(side: _Side, policy: Policy, moved: int, copy: CopySpeed | None) -> str:
    """Return why the time of a side cannot be, or ""."""
    times = side.latencies_s.get(policy.name)
    if not side.is_alive or not times or copy is None or copy.limit_bytes_per_s is None:
        return ""
    least_s = moved / copy.limit_bytes_per_s
    if median(times) >= least_s:
        return ""
    return (
        f"{format_seconds(median(times))} a call, but its bytes take {format_seconds(least_s)} at the least, by the "
        f"copies in {copy.level} of this run. If it reads only a part of its inputs, declare bytes_moved."
    )


def _result(side: _Side, void_rounds: int) -> SideResult:
    """Return what a side came to."""
    prepared = side.prepared
    facts: dict[str, Any] = {}
    if prepared is not None:
        facts = {
            "compile_s": prepared.compile_s,
            "launches": prepared.launches,
            "extra_bytes": prepared.extra_bytes,
        }
    if side.failure is not None:
        failure = side.failure
        return SideResult(side.name, failure.status, failure.reason, verification=side.verification, **facts)
    return SideResult(
        side.name,
        latencies_s={name: tuple(times) for name, times in side.latencies_s.items()},
        contention=tuple(side.contention),
        void_rounds=void_rounds,
        host_s=_host_s(side),
        verification=side.verification,
        **facts,
    )


def _host_s(side: _Side) -> float | None:
    """Return the host time of a call: what the host's clock has beyond that of the device."""
    medians = {
        policy.clock: median(side.latencies_s[policy.name])
        for policy in side.policies
        if side.latencies_s.get(policy.name)
    }
    device_s = medians.get("kernel", medians.get("graph"))
    if "wall" not in medians or device_s is None:
        return None
    return max(0.0, medians["wall"] - device_s)
