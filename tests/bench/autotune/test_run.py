"""Whole tunings on a scripted workbench: nothing is compiled, and the clock is its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from fusetune.bench.autotune import Opened, Tuning, tune
from fusetune.bench.kernels import Case, CompiledFacts, KernelSource, LaneError
from fusetune.kernels import Config, config_grid
from tests.bench.autotune.noise import noisy

CASE = Case(KernelSource("gelu"), "gelu", 1000, "float32")
SPACE = config_grid(BLOCK=(64, 128, 256, 512), num_warps=(4, 8))


@dataclass
class Scripted:
    """A workbench by the book.

    Args:
        seconds: the true time of each config.
        misbehaves: (what, index of a config) -> the status that it fails with. What: build, verify, thorough, sample.
        code: digest of a config's machine code.
    """

    seconds: Callable[[Config], float]
    misbehaves: dict[tuple[str, int], str] = field(default_factory=dict)
    code: Callable[[Config], str] = lambda config: str(dict(config))
    space: Sequence[Config] = SPACE
    default: int = 0
    now_s: float = 0.0
    done: list[tuple[str, int]] = field(default_factory=list)
    saved: list[Tuning] = field(default_factory=list)
    expected: list[float] = field(default_factory=list)
    policy: str = "wall, cold"
    noise: Any = None

    def __post_init__(self) -> None:
        self.noise = noisy([self.seconds(config) for config in self.space], 0)

    def open(self, case: Case) -> Opened:
        return Opened(tuple(self.space), self.space[self.default], ("key",))

    def build(self, config: Config) -> CompiledFacts:
        self._do("build", config, 0.5)
        return CompiledFacts(self.code(config))

    def verify(self, config: Config, *, thorough: bool) -> None:
        self._do("thorough" if thorough else "verify", config, 0.1)

    def sample(self, config: Config, turn: int) -> float:
        self._do("sample", config, 0.01)
        return float(self.noise(self.space.index(config), turn))

    def expect(self, seconds: float) -> None:
        self.expected.append(seconds)

    def save(self, keys: Sequence[Any], tuning: Tuning) -> tuple[str, ...]:
        self.saved.append(tuning)
        return tuple(f"/entries/{key}.json" for key in keys) if tuning.is_replaced else ()

    def clock(self) -> float:
        return self.now_s

    def of(self, what: str) -> list[int]:
        return [index for done, index in self.done if done == what]

    def _do(self, what: str, config: Config, seconds: float) -> None:
        self.now_s += seconds
        index = list(self.space).index(config)
        self.done.append((what, index))
        if (what, index) in self.misbehaves:
            raise LaneError(self.misbehaves[what, index], "as scripted")  # type: ignore[arg-type]


def by_block(config: Config) -> float:
    """256 is the best block, and warps change nothing."""
    return {64: 2.0, 128: 1.5, 256: 1.0, 512: 1.1}[config["BLOCK"]]


def tuned(bench: Scripted, budget_s: float = 120.0, **options: Any) -> Tuning:
    return tune(CASE, bench, budget_s=budget_s, clock=bench.clock, **options)


def test_the_fastest_replaces_the_default_and_is_saved_once() -> None:
    bench = Scripted(by_block)
    found = tuned(bench)
    assert found.is_replaced
    assert found.winner["BLOCK"] == 256
    assert found.entries == ("/entries/key.json",)
    assert [dict(each.winner) for each in bench.saved] == [dict(found.winner)]
    assert found.confirmation.low > 1.5
    assert found.timings == len(bench.of("sample"))


def test_configs_of_equal_code_are_timed_once_and_the_default_stands_for_its_own() -> None:
    bench = Scripted(by_block, code=lambda config: str(config["BLOCK"]), default=1)
    found = tuned(bench)
    timed = set(bench.of("sample"))
    assert len(timed) == 4
    assert 1 in timed
    assert found.counts()["same code"] == 4
    assert found.candidates[0].reason == "as BLOCK=64 num_warps=8"


def test_identical_configs_leave_the_default() -> None:
    bench = Scripted(lambda config: 1.0)
    found = tuned(bench)
    assert not found.is_replaced
    assert found.entries == ()


def test_every_config_is_verified_before_it_is_timed_and_the_fastest_at_all_sizes() -> None:
    bench = Scripted(by_block)
    found = tuned(bench)
    for index in set(bench.of("sample")):
        first = bench.done.index(("sample", index))
        assert {("verify", index), ("thorough", index)} & set(bench.done[:first])
    assert bench.space.index(found.winner) in bench.of("thorough")


@pytest.mark.parametrize("what", ["build", "verify", "thorough", "sample"])
@pytest.mark.parametrize("status", ["crashed", "timed out", "out of memory", "wrong"])
def test_a_config_that_misbehaves_is_a_row_and_the_others_go_on(what: str, status: str) -> None:
    best = [i for i, config in enumerate(SPACE) if config["BLOCK"] == 256]
    bench = Scripted(by_block, {(what, best[0]): status, (what, best[1]): status})
    found = tuned(bench)
    assert found.status == "ok"
    assert found.winner["BLOCK"] == 512
    failed = {i: c for i, c in enumerate(found.candidates) if c.outcome == "failed"}
    assert set(failed) <= set(best)
    assert {c.status for c in failed.values()} == {status}


@pytest.mark.parametrize("what", ["build", "thorough"])
def test_a_default_that_fails_ends_the_tuning_with_its_status(what: str) -> None:
    found = tuned(Scripted(by_block, {(what, 0): "wrong"}))
    assert (found.status, found.reason) == ("wrong", "as scripted")
    assert found.entries == ()
    assert not found.is_replaced


@pytest.mark.parametrize("budget_s", [0.1, 1.0, 3.0, 5.0, 8.0, 30.0])
def test_the_budget_is_overrun_by_one_candidate_at_most(budget_s: float) -> None:
    found = tuned(Scripted(by_block), budget_s)
    # The default is built and verified in any case, and one step of each part may be under way when it ends.
    assert found.seconds <= max(budget_s + 0.6, 0.7)
    assert found.status == "ok"


def test_nothing_is_called_the_fastest_where_nothing_was_timed() -> None:
    found = tuned(Scripted(by_block), 0.1)
    assert found.timings == 0
    assert found.counts()["in the race"] == 1
    assert "fastest" not in found.counts()
    assert found.winner == SPACE[0]


def test_what_the_budget_left_out_is_said() -> None:
    found = tuned(Scripted(by_block), 3.0)
    assert found.counts()["not tried"] > 0
    assert any("The budget ended" in note for note in found.notes)


def test_a_limit_follows_the_fastest() -> None:
    bench = Scripted(by_block)
    tuned(bench)
    assert bench.expected == sorted(bench.expected, reverse=True)
    assert bench.expected[-1] < 1.1


def test_a_large_space_is_searched_and_at_most_a_quarter_of_it_built() -> None:
    space = config_grid(A=range(1, 17), B=range(1, 17))
    bench = Scripted(lambda c: 1 + abs(c["A"] - 5) / 5 + abs(c["B"] - 9) / 20, space=space)
    found = tuned(bench, 3000.0)
    assert len(set(bench.of("build"))) <= len(space) / 4
    assert found.is_replaced
    assert bench.seconds(found.winner) <= 1.03


def test_what_becomes_known_is_told_at_once() -> None:
    events: list[Any] = []
    tuned(Scripted(by_block), tell=events.append)
    assert events[-1]["replaces"] is True
    assert {event["outcome"] for event in events[:-1]} >= {"fastest", "slower"}
