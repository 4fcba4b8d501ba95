"""The order, the stages and the budget of a gate, with processes that take no time and a clock that is told to go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from fusetune.bench.gate.measured import Measured, Metric, Pair
from fusetune.bench.gate.session import Measuring, Plan, SideName


def measured(seconds: float = 1.0, failure: str = "") -> Measured:
    return Measured({} if failure else {"wall_s": Metric((1.0,))}, seconds=seconds, failure=failure)


@dataclass
class Scene:
    """A gate whose processes only move the clock.

    Args:
        seconds: of one process, by job.
        clear_after: benchmark -> pairs from which on its verdict is clear. Missing: never.
        failing: (job, side, index) of processes that fail.
        nested: benchmarks of one process, where it measures several.
        interrupted_at: number of the process during which Ctrl-C arrives.
    """

    seconds: Mapping[str, float]
    clear_after: Mapping[str, int] = field(default_factory=dict)
    failing: Collection[tuple[str, str, int]] = ()
    nested: Sequence[str] = ()
    interrupted_at: int | None = None
    time: float = 0.0
    started: list[tuple[str, str, int]] = field(default_factory=list)
    kept: list[Pair] = field(default_factory=list)
    looks: list[int] = field(default_factory=list)

    def measure(self, job: str, side: SideName, index: int) -> dict[str, Measured]:
        if len(self.started) == self.interrupted_at:
            raise KeyboardInterrupt
        self.started.append((job, side, index))
        self.time += self.seconds[job]
        if (job, side, index) in self.failing:
            return {job: measured(self.seconds[job], "it ended with exit code 1")}
        return {name: measured(self.seconds[job]) for name in self.nested or [job]}

    def settled(self, pairs: Sequence[Pair]) -> list[str]:
        self.looks.append(len(pairs))
        count = Counter(pair.benchmark for pair in pairs)
        failed = {pair.benchmark for pair in pairs if pair.head.failure}
        return [name for name in count if name in failed or count[name] >= self.clear_after.get(name, 10**9)]

    def gate(self, plan: Plan) -> Measuring:
        return Measuring(
            plan, self.measure, self.settled, self.kept.extend, clock=lambda: self.time, now=lambda: 7.0
        )


def test_a_clear_job_stops_after_the_first_stage_and_others_go_on() -> None:
    scene = Scene({"a": 1.0, "b": 2.0, "c": 1.0}, clear_after={"a": 5, "b": 8})
    gate = scene.gate(Plan(("a", "b", "c")))
    pairs = gate.run()
    # b is clear with eight pairs, and nobody looks between seven and ten.
    assert Counter(pair.benchmark for pair in pairs) == {"a": 5, "b": 10, "c": 20}
    assert gate.stopped == {"a": "clear", "b": "clear", "c": "pairs"}
    assert scene.looks == [15, 19, 25, 29, 35]
    assert pairs == scene.kept
    assert gate.spent_s == scene.time == 2 * (5 * 1.0 + 10 * 2.0 + 20 * 1.0)


def test_each_pair_has_both_sides_beside_each_other_in_the_order_that_it_names() -> None:
    scene = Scene({"a": 1.0, "b": 1.0})
    pairs = scene.gate(Plan(("a", "b"), seed=3)).run()
    assert len(scene.started) == 2 * len(pairs) == 80
    for position, pair in enumerate(pairs):
        first, second = scene.started[2 * position : 2 * position + 2]
        assert first[0] == second[0] == pair.benchmark
        assert first[2] == second[2] == pair.index
        assert (first[1], second[1]) == (("head", "base") if pair.head_first else ("base", "head"))
    # Of 40 fair coins, 8 or fewer show one side with a probability of 2e-4. The seed is fixed.
    assert 8 < sum(pair.head_first for pair in pairs) < 32


def test_jobs_take_turns_in_changing_order() -> None:
    scene = Scene(dict.fromkeys("abc", 1.0))
    pairs = scene.gate(Plan(tuple("abc"))).run()
    rounds = [tuple(pair.benchmark for pair in pairs[start : start + 3]) for start in range(0, 60, 3)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in rounds)
    assert [pair.index for pair in pairs] == [start // 3 for start in range(60)]
    assert len(set(rounds)) > 1


def test_the_order_is_that_of_the_seed() -> None:
    def order(seed: int) -> list[tuple[str, str, int]]:
        scene = Scene({"a": 1.0, "b": 1.0})
        scene.gate(Plan(("a", "b"), seed=seed)).run()
        return scene.started

    assert order(1) == order(1) != order(2)


@pytest.mark.parametrize(("budget_s", "expected"), [(100.0, 20), (20.0, 10), (21.9, 10), (0.5, 1)])
def test_the_budget_ends_before_a_pair_that_would_exceed_it(budget_s: float, expected: int) -> None:
    scene = Scene({"a": 1.0})
    gate = scene.gate(Plan(("a",), budget_s=budget_s))
    assert len(gate.run()) == expected
    assert gate.stopped == {"a": "pairs" if expected == 20 else "budget"}
    assert scene.time <= max(budget_s, 2.0)


def test_a_short_job_uses_what_a_long_one_cannot() -> None:
    scene = Scene({"long": 10.0, "short": 1.0})
    gate = scene.gate(Plan(("long", "short"), budget_s=50.0))
    count = Counter(pair.benchmark for pair in gate.run())
    # Two pairs of each take 44 s. A third long one would end after 64 s, three more short ones before 50 s.
    assert count == {"long": 2, "short": 5}
    assert set(gate.stopped.values()) == {"budget"}


def test_every_job_has_one_pair_whatever_the_budget() -> None:
    scene = Scene(dict.fromkeys("abc", 60.0))
    assert len(scene.gate(Plan(tuple("abc"), budget_s=1.0)).run()) == 3


def test_a_failure_is_looked_at_at_once() -> None:
    scene = Scene({"a": 1.0, "b": 1.0}, failing={("a", "head", 2)})
    gate = scene.gate(Plan(("a", "b")))
    count = Counter(pair.benchmark for pair in gate.run())
    assert count == {"a": 3, "b": 20}
    assert gate.stopped["a"] == "clear"


def test_an_interrupted_gate_has_kept_its_pairs_and_goes_on_where_it_was() -> None:
    plan = Plan(("a", "b"), seed=5)
    whole = Scene({"a": 1.0, "b": 1.0}, clear_after={"a": 5})
    whole.gate(plan).run()
    first = Scene({"a": 1.0, "b": 1.0}, clear_after={"a": 5}, interrupted_at=13)
    with pytest.raises(KeyboardInterrupt):
        first.gate(plan).run()
    assert len(first.kept) == 6  # of the seventh, one side was done
    rest = Scene({"a": 1.0, "b": 1.0}, clear_after={"a": 5})
    pairs = rest.gate(plan).run(first.kept)
    assert first.started[:12] + rest.started == whole.started
    assert [(pair.benchmark, pair.index, pair.head_first) for pair in pairs] == [
        (pair.benchmark, pair.index, pair.head_first) for pair in whole.kept
    ]


def test_the_budget_counts_what_an_earlier_part_took() -> None:
    plan = Plan(("a",), budget_s=20.0)
    first = Scene({"a": 1.0}, interrupted_at=12)
    with pytest.raises(KeyboardInterrupt):
        first.gate(plan).run()
    rest = Scene({"a": 1.0})
    gate = rest.gate(plan)
    assert len(gate.run(first.kept)) == 10
    assert gate.spent_s == 20.0
    again = Scene({"a": 1.0}).gate(plan)
    assert len(again.run(gate.pairs)) == 10


def test_a_command_with_several_benchmarks_is_one_job() -> None:
    scene = Scene({"cmd": 1.0}, clear_after={"x": 5, "y": 10}, nested=["x", "y"])
    gate = scene.gate(Plan(("cmd",)))
    pairs = gate.run()
    assert len(scene.started) == 20  # ten pairs of processes: y decides
    assert Counter(pair.benchmark for pair in pairs) == {"x": 10, "y": 10}
    assert gate.spent_s == 20.0
    again = Scene({"cmd": 1.0}, clear_after={"x": 5, "y": 10}, nested=["x", "y"])
    assert again.gate(Plan(("cmd",))).run(pairs) == pairs
    assert again.started == []


def test_a_command_that_fails_on_one_side_failed_in_each_of_its_benchmarks() -> None:
    scene = Scene({"cmd": 1.0}, nested=["x", "y"], failing={("cmd", "head", 0)})
    pairs = scene.gate(Plan(("cmd",))).run()
    assert [(pair.benchmark, bool(pair.head.failure), bool(pair.base.failure)) for pair in pairs] == [
        ("x", True, False),
        ("y", True, False),
    ]


def test_a_command_that_fails_on_both_sides_is_named_as_before() -> None:
    failing = {("cmd", "base", 1), ("cmd", "head", 1)}
    scene = Scene({"cmd": 1.0}, nested=["x"], failing=failing)
    pairs = scene.gate(Plan(("cmd",))).run()
    assert [pair.benchmark for pair in pairs] == ["x", "x"]
    lost = Scene({"cmd": 1.0}, nested=["x"], failing={("cmd", "base", 0), ("cmd", "head", 0)})
    assert [pair.benchmark for pair in lost.gate(Plan(("cmd",))).run()] == ["cmd"]


def test_a_benchmark_that_one_side_lacks_has_no_metrics_there() -> None:
    def measure(job: str, side: SideName, index: int) -> dict[str, Measured]:
        return {name: measured() for name in (["x", "y"] if side == "base" else ["x"])}

    kept: list[Pair] = []
    Measuring(Plan(("cmd",), stages=(1,)), measure, lambda _: (), kept.extend).run()
    assert [(pair.benchmark, sorted(pair.head.metrics)) for pair in kept] == [("x", ["wall_s"]), ("y", [])]
