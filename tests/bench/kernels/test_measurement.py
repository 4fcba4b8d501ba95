from __future__ import annotations

from collections import Counter
from statistics import median
from typing import Any

import pytest

from fusetune.bench.kernels.gpu_state import GpuReading, GpuWatch
from fusetune.bench.kernels.measurement import Settings, measure
from fusetune.bench.kernels.rounds import StopRule
from tests.bench.kernels.scripted_lanes import Heard, ScriptedCopies, ScriptedVerifier, World, case, failure

RULE = StopRule(least_rounds=6, most_rounds=12, budget_s=10.0)
THREE = Settings(competitors=("eager", "compile"), rule=RULE, copies=False)


def test_a_row_has_a_latency_a_round_for_each_side() -> None:
    world = World(call_s={"ours": 1e-3, "eager": 2e-3, "compile": 4e-3})
    (row,) = measure([case()], THREE, tools=world.tools())
    assert [side.name for side in row.sides] == ["ours", "eager", "compile"]
    assert [side.status for side in row.sides] == ["ok"] * 3
    latencies = [side.latencies_s["wall, cold"] for side in row.sides]
    assert {len(times) for times in latencies} == {len(row.ours.contention)}
    assert len(latencies[0]) >= RULE.least_rounds
    assert [median(times) for times in latencies] == pytest.approx([1e-3, 2e-3, 4e-3], rel=2e-3)
    assert row.bytes_moved == 8000


def test_nothing_is_built_or_verified_once_the_clock_runs() -> None:
    """`World.doing` fails where two lanes are at work at once."""
    world = World()
    measure([case(), case("silu")], THREE, tools=world.tools())
    actions = [what for _, what in world.log]
    for row in range(2):
        start = [i for i, each in enumerate(world.log) if each == ("eager", "prepare")][row]
        later = [i for i, each in enumerate(world.log) if each == ("eager", "prepare") and i > start]
        of_row = actions[start : later[0] if later else None]
        first = of_row.index("time")
        assert not {"prepare", "verify"} & set(of_row[first:])
        assert of_row[:first].count("prepare") == of_row[:first].count("verify") == 3


def test_sides_take_turns_in_every_place() -> None:
    world = World()
    measure([case()], THREE, tools=world.tools())
    timed = world.asked("time")
    rounds = [tuple(timed[i : i + 3]) for i in range(0, len(timed), 3)]
    assert all(set(each) == {"ours", "eager", "compile"} for each in rounds)
    assert len(set(rounds[:6])) == 6  # each order once before one comes again
    assert Counter(each[0] for each in rounds[:6]) == {"ours": 2, "eager": 2, "compile": 2}


def test_every_round_has_other_values_and_all_sides_of_a_round_the_same() -> None:
    world = World()
    measure([case()], THREE, tools=world.tools())
    ours = [float(values.sum()) for values in world.arrays["ours"]]
    for side in ("eager", "compile"):
        assert ours == [float(values.sum()) for values in world.arrays[side]]
    # Two sets a round: of the timed call and of the call that leads.
    assert len(set(ours)) > 0.9 * len(ours)
    assert all(ours[i] != ours[i + 1] for i in range(len(ours) - 1))


def test_some_timed_inputs_are_those_of_the_lead_call_but_for_a_part() -> None:
    """So what a kernel keeps by its first values, or by a few of them, is wrong when it is checked."""
    world = World()
    (row,) = measure([case()], THREE, tools=world.tools())
    firsts = world.arrays["ours"]
    equal = [float((timed == lead).mean()) for timed, lead in zip(firsts[::2], firsts[1::2], strict=True)]
    siblings = [share for share in equal if share >= 0.5]
    assert siblings
    assert all(share < 1 for share in equal)
    assert len(siblings) < len(equal)
    assert row.ours.verification.timed >= 2


def test_the_timed_calls_that_are_checked_are_drawn_and_there_are_some() -> None:
    counts = set()
    for seed in range(4):
        world = World()
        world.random.seed(seed)
        (row,) = measure([case()], THREE, tools=world.tools())
        assert row.ours.verification is not None
        assert row.ours.verification.timed >= 2
        counts.add(tuple(i for i, what in enumerate(world.log) if what == ("ours", "check")))
    assert len(counts) > 1


def test_a_wrong_result_of_a_timed_call_takes_the_time() -> None:
    world = World(wrong_when_timed={"ours"})
    (row,) = measure([case()], THREE, tools=world.tools())
    assert (row.status, row.ours.latencies_s) == ("wrong", {})
    assert "timed call" in row.ours.reason


@pytest.mark.parametrize("what", ["prepare", "verify"])
def test_a_kernel_that_fails_is_a_row_and_the_next_one_is_measured(what: str) -> None:
    world = World(fails={("ours", what): failure("wrong")})

    class Once(Heard):
        def row_finished(self, row: Any) -> None:
            world.fails.clear()
            super().row_finished(row)

    heard = Once()
    rows = measure([case(), case("silu")], THREE, heard, tools=world.tools())
    assert [row.status for row in rows] == ["wrong", "ok"]
    assert heard.rows == rows
    assert world.asked("time").count("ours") == len(rows[1].ours.contention) + 1


def test_a_reference_that_fails_is_said_to_be_it() -> None:
    world = World(fails={("eager", "prepare"): failure("does not build")})
    (row,) = measure([case()], THREE, tools=world.tools())
    assert row.status == "does not build"
    assert row.ours.reason == "its reference: scripted: does not build"


@pytest.mark.parametrize("what", ["prepare", "verify"])
def test_a_competitor_that_fails_leaves_the_others(what: str) -> None:
    world = World(fails={("compile", what): failure("skipped")})
    (row,) = measure([case()], THREE, tools=world.tools())
    assert [side.status for side in row.sides] == ["ok", "ok", "skipped"]
    assert row.sides[2].latencies_s == {}


def test_a_lane_that_dies_in_a_round_leaves_the_others() -> None:
    world = World(fails_at_round={"compile": (4, failure("crashed"))})
    (row,) = measure([case()], THREE, tools=world.tools())
    assert [side.status for side in row.sides] == ["ok", "ok", "crashed"]
    assert len(row.ours.latencies_s["wall, cold"]) >= RULE.least_rounds
    assert len(row.ours.latencies_s["wall, cold"]) == len(row.sides[1].latencies_s["wall, cold"])


def test_when_ours_dies_its_row_is_over() -> None:
    world = World(fails_at_round={"ours": (4, failure("timed out"))})
    rows = measure([case(), case("silu")], THREE, tools=world.tools())
    assert [row.status for row in rows] == ["timed out", "ok"]
    assert rows[0].ours.latencies_s == {}


def test_an_interruption_keeps_what_is_finished_and_ends_all_lanes() -> None:
    world = World()

    def started(case: Any) -> None:
        if case.kernel == "silu":
            world.fails_at_round["eager"] = (12, KeyboardInterrupt())

    heard = Heard(on_started=started)
    with pytest.raises(KeyboardInterrupt):
        measure([case(), case("silu"), case("mish")], THREE, heard, tools=world.tools())
    assert [row.case.kernel for row in heard.rows] == ["gelu"]
    assert sorted(world.asked("close")) == ["compile", "eager", "ours"]


def test_rows_share_lanes() -> None:
    world = World()
    measure([case(), case("silu"), case("mish")], THREE, tools=world.tools())
    assert sorted(world.asked("close")) == ["compile", "eager", "ours"]


def test_a_void_round_counts_for_nobody_and_is_counted() -> None:
    world = World(void_rounds={3, 5})
    (row,) = measure([case()], THREE, tools=world.tools())
    assert {side.void_rounds for side in row.sides} == {2}
    counted = {len(side.latencies_s["wall, cold"]) for side in row.sides}
    assert counted == {world.asked("time").count("ours") - 2 - 1}  # one is the burn-in


def test_a_throttled_gpu_makes_a_round_void() -> None:
    world = World()
    looks = iter(range(10**6))

    def read() -> GpuReading:
        return GpuReading(1.9e9, 2.6e9, 600.0, 60.0, 0x40 if next(looks) == 9 else 0)

    watch = GpuWatch(read)
    (row,) = measure([case(device="cuda")], THREE, tools=world.tools(gpu=lambda device: watch))
    assert row.ours.void_rounds == 1
    assert row.notes[-1].endswith("throttled by temperature (hardware).")


def test_short_calls_are_shown_by_all_clocks_of_the_device() -> None:
    world = World(call_s={"ours": 5e-6, "eager": 8e-6})
    settings = Settings(competitors=("eager",), rule=RULE, copies=False)
    (row,) = measure([case()], settings, tools=world.tools())
    assert [policy.name for policy in row.policies] == ["wall, cold, 4 calls", "kernel, cold, 4 calls"]
    assert list(row.ours.latencies_s) == [policy.name for policy in row.policies]
    assert list(row.sides[1].latencies_s) == ["wall, cold, 4 calls"]  # it launches nothing
    assert row.ours.host_s is not None
    (row,) = measure([case(device="cuda")], settings, tools=world.tools())
    assert [policy.clock for policy in row.policies] == ["event", "wall", "graph"]


def test_a_warm_cache_is_asked_for() -> None:
    settings = Settings(cache="warm", rule=RULE, copies=False)
    (row,) = measure([case()], settings, tools=World().tools())
    assert list(row.ours.latencies_s) == ["wall, warm"]


def test_verifying_alone_times_nothing() -> None:
    world = World()
    (row,) = measure([case()], Settings(timed=False), tools=world.tools())
    assert row.status == "ok"
    assert row.ours.verification is not None
    assert "time" not in {what for _, what in world.log}


def test_what_is_faster_than_memory_is_impossible() -> None:
    world = World()  # 8000 bytes in 1 ms: 8 MB/s
    (row,) = measure([case()], Settings(rule=RULE), tools=world.tools(copies=ScriptedCopies(limit=6e6)))
    assert (row.status, row.ours.latencies_s) == ("impossible", {})
    assert "its bytes take 1.33 ms at the least" in row.ours.reason
    assert row.sides[1].status == "ok"  # 4 MB/s
    assert row.copy is not None


def test_copies_are_made_again_before_a_time_is_called_impossible() -> None:
    copies = ScriptedCopies(limit=6e6, again=9e6)
    (row,) = measure([case()], Settings(rule=RULE), tools=World().tools(copies=copies))
    assert (row.status, copies.asked) == ("ok", 2)


def test_without_a_limit_nothing_is_impossible() -> None:
    copies = ScriptedCopies(limit=None)
    (row,) = measure([case()], Settings(rule=RULE), tools=World().tools(copies=copies))
    assert (row.status, copies.asked) == ("ok", 1)


def test_rows_share_the_time_that_all_may_take() -> None:
    world = World(call_s={"ours": 0.1, "eager": 0.1})
    noisy = StopRule(relative=1e-9, absolute_s=0.0, least_rounds=1, most_rounds=1000, budget_s=1e9)
    settings = Settings(rule=noisy, total_s=60.0, copies=False)
    rows = measure([case(), case("silu"), case("mish")], settings, tools=world.tools())
    counts = [len(row.ours.contention) for row in rows]
    assert max(counts) - min(counts) <= 5
    assert sum(counts) * 0.42 < 70
    assert "the budget was spent" in rows[0].notes[0]


def test_competitors_may_differ_by_row() -> None:
    settings = Settings(competitors={"gelu/1000/float32": ("eager",)}, rule=RULE, copies=False)
    rows = measure([case(), case("silu")], settings, tools=World().tools())
    assert [[side.name for side in row.sides] for row in rows] == [["ours", "eager"], ["ours"]]


def test_a_case_that_needs_more_memory_than_is_available_is_a_row_with_a_sentence() -> None:
    world = World(input_bytes=2 * 10**9)
    settings = Settings(rule=RULE, copies=False)
    (row,) = measure([case()], settings, tools=world.tools(available=lambda: 8 * 10**9))
    assert (row.status, world.asked("time")) == ("out of memory", [])
    assert row.ours.reason == (
        "its inputs are 1.86 GiB, and it takes 29.8 GiB to verify and time it, but 7.45 GiB are available"
    )


def test_the_command_running_out_of_memory_is_a_row_and_the_next_one_goes_on() -> None:
    def verifier(reference: Any, case: Any, moved: int) -> Any:
        if case.name.startswith("gelu"):
            raise MemoryError
        return ScriptedVerifier(world, reference)

    world = World()
    settings = Settings(rule=RULE, copies=False)
    rows = measure([case(), case("silu")], settings, tools=world.tools(verifier=verifier))
    assert [row.status for row in rows] == ["out of memory", "ok"]


def test_building_and_verifying_count_as_time_that_all_rows_may_take() -> None:
    world = World(call_s={"ours": 0.1, "eager": 0.1})
    noisy = StopRule(relative=1e-9, absolute_s=0.0, least_rounds=6, most_rounds=1000, budget_s=1e9)
    settings = Settings(rule=noisy, total_s=90.0, copies=False)
    rows = measure([case(), case("silu"), case("mish")], settings, tools=world.tools())
    assert 80 < world.now_s < 95
    assert min(len(row.ours.contention) for row in rows) >= 6
